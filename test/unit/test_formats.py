"""Scene -> format -> reader -> the same arrays; and each reader on a minimal file made by hand from the description."""

import json
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError, MosError
from mos_perception.formats import FORMATS, detect, module
from mos_perception.formats.files import read_npz
from mos_perception.formats.image_files import palette_colours, read_indexed, write_indexed
from mos_perception.formats.sequence import LazyArray, Sequence

h5py = pytest.importorskip('h5py')
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
MILLION = 10**6


@st.composite
def scenes(draw, step_ns=1000, start_ns=10**9, max_id=65, min_frames=1):
    """Small sequences: event times on a grid of `step_ns`, irregular frame times, sparse ids, flags of what is seen."""
    height, width = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, many = draw(st.integers(min_frames, 4)), draw(st.integers(0, 60))
    stamps = start_ns + np.cumsum(rng.integers(1, 40_000_000 // step_ns, count)) * step_ns
    times = np.sort(rng.integers(start_ns // step_ns, (int(stamps[-1]) + 20_000_000) // step_ns, many)) * step_ns
    events = Events(rng.integers(0, width, many).astype(np.uint16), rng.integers(0, height, many).astype(np.uint16),
                    rng.integers(0, 2, many).astype(np.uint8), times.astype(np.int64))
    numbers = np.concatenate([[0], rng.choice(np.arange(1, max_id + 1), 3, replace=False)])
    ids = rng.choice(numbers, (count, height, width)).astype(np.uint16)
    moving = tuple({int(n): bool(rng.integers(2)) for n in np.unique(image) if n} for image in ids)
    depth = (rng.integers(0, 60_000, (count, height, width)) / 1000).astype(np.float32)
    return Sequence('scene', (height, width), stamps, rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8),
                    events, (height, width), ids, moving, depth=depth)


def same(found, given, frames=0, events='xypt', ids=True, moving=True, times=True):
    """Equal arrays; `frames`: most that a pixel may differ by, None: frames are not compared."""
    assert found.size == given.size and len(found) == len(given)
    if times:
        assert found.stamps_ns.tolist() == given.stamps_ns.tolist()
    if frames is not None:
        assert np.abs(np.asarray(found.frames).astype(int) - given.frames).max() <= frames
    for column in events:
        kind = getattr(given.events, column).dtype
        assert getattr(found.events, column).dtype == kind
        assert np.array_equal(getattr(found.events, column), getattr(given.events, column)), column
    if ids:
        assert np.asarray(found.ids).dtype == np.uint16 and np.array_equal(np.asarray(found.ids), given.ids)
    if moving:
        assert [found.flags(n) for n in range(len(found))] == [given.flags(n) for n in range(len(given))]


def again(form, sequence, folder, **options):
    """Written, recognised without being told, and read."""
    path = module(form).write(sequence, folder / 'set', **options)
    assert path.exists() and detect(folder / 'set') == form
    return module(form).read(folder / 'set')


@pytest.fixture
def folder(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp('set')


@QUICK
@given(scene=scenes())
def test_mousesis_round_trip(folder, scene):
    found = again('mousesis', scene, folder())
    same(found, scene)
    assert found.boxes[0] == {n: box for n, box in module_boxes(scene.ids[0]).items()}


def module_boxes(ids):
    """By an independent route: cv2.boundingRect of the points."""
    boxes = {}
    for n in np.unique(ids[ids > 0]):
        x, y, w, h = cv2.boundingRect((ids == n).astype(np.uint8))
        boxes[int(n)] = (x, y, x + w, y + h)
    return boxes


@QUICK
@given(scene=scenes(start_ns=1_732_000_000 * 10**9))
def test_mousesis_keeps_ros_time(folder, scene):
    same(again('mousesis', scene, folder()), scene)


@QUICK
@given(scene=scenes(step_ns=1, max_id=65535))
def test_sevd_round_trip(folder, scene):
    same(again('sevd', scene, folder()), scene)


@QUICK
@given(scene=scenes(step_ns=1))
def test_evimo_round_trip(folder, scene):
    found = again('evimo', scene, folder())
    same(found, scene)
    assert np.array_equal(found.depth, scene.depth)


@QUICK
@given(scene=scenes(step_ns=1, start_ns=1_732_000_000 * 10**9))
def test_evimo_keeps_ros_time(folder, scene):
    same(again('evimo', scene, folder()), scene)


@QUICK
@given(scene=scenes(step_ns=1))
def test_evimo2_round_trip_within_float32(folder, scene):
    found = again('evimo2', scene, folder())
    same(found, scene, events='xyp')
    half = np.spacing(np.float32(scene.events.t.max(initial=0) / 1e9)) / 2 * 1e9
    assert np.abs(found.events.t - scene.events.t).max(initial=0) <= half + 1
    assert np.array_equal(np.asarray(found.depth), scene.depth)


@QUICK
@given(scene=scenes(max_id=254), suffix=st.sampled_from(['.png', '.jpg']))
def test_davis_round_trip(folder, scene, suffix):
    found = again('davis', scene, folder(), suffix=suffix)
    same(found, scene, frames=0 if suffix == '.png' else None, events='', moving=False, times=False)
    assert found.moving is None and all(found.flags(0).values())


@QUICK
@given(scene=scenes(max_id=65535), compressed=st.booleans())
def test_ytvis_round_trip(folder, scene, compressed):
    same(again('ytvis', scene, folder(), suffix='.png', compressed=compressed), scene, events='')


def test_jpeg_loss_is_small_on_smooth_pictures(folder):
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)[None, ..., None].repeat(3, -1)
    scene = Sequence('ramp', (48, 64), np.array([10**9]), ramp, ids=np.zeros((1, 48, 64), np.uint16))
    for form in ('davis', 'ytvis'):
        same(again(form, scene, folder()), scene, frames=3, events='', times=False)


@QUICK
@given(scene=scenes(min_frames=2))
def test_dimos_round_trip(folder, scene):
    path = folder()
    found = again('dimos', scene, path, min_pixels=1)
    same(found, scene, events='', ids=False, moving=False, times=False)
    for n in range(len(scene) - 1):
        movers = sorted(k for k, moves in scene.moving[n].items() if moves)
        expected = sum((row * (scene.ids[n] == k) for row, k in enumerate(movers, 1)), np.zeros(scene.size, int))
        assert np.array_equal(found.ids[n], expected)
        assert (found.truth(n) is not None) == bool(movers)
    voxel = module('dimos').voxel(next((path / 'set' / 'emos_preprocess' / 'train').iterdir()), 0)
    inside = scene.events.between(int(scene.stamps_ns[0]), int(scene.stamps_ns[1]))
    whole = len(inside) if len(np.unique(inside.t)) > 1 else 0
    assert voxel.shape == (10, *scene.size) and voxel.sum() == pytest.approx(whole, abs=1e-3)


@QUICK
@given(scene=scenes(), storage=st.sampled_from(['mcap', 'sqlite3']))
def test_bag_round_trip_evt3(folder, scene, storage):
    same(again('bag', scene, folder(), encoding='evt3', storage=storage), scene)


@QUICK
@given(scene=scenes(step_ns=1))
def test_bag_round_trip_mono(folder, scene):
    same(again('bag', scene, folder(), encoding='mono'), scene)


@QUICK
@given(scene=scenes(step_ns=1))
def test_bag_evt3_is_within_a_microsecond(folder, scene):
    found = again('bag', scene, folder(), encoding='evt3')
    same(found, scene, events='xyp')
    late = scene.events.t - found.events.t
    assert ((late >= 0) & (late < 1000)).all()


@QUICK
@given(scene=scenes(), forms=st.permutations(['mousesis', 'sevd', 'evimo', 'bag']))
def test_any_chain_of_event_formats_is_the_identity(folder, scene, forms):
    found = scene
    for form in forms:
        found = again(form, found, folder())
    same(found, scene)


def test_bag_starting_at_zero_is_moved(folder):
    scene = Sequence('zero', (4, 5), np.array([0, 10 * MILLION]), np.zeros((2, 4, 5, 3), np.uint8))
    assert again('bag', scene, folder()).stamps_ns.tolist() == [10**9, 10**9 + 10 * MILLION]


def test_frames_may_lack_picture_or_truth(folder):
    scene = Sequence('parts', (4, 5), np.array([1, 2, 3]) * 10**9, np.full((3, 4, 5, 3), 9, np.uint8), Events.empty(),
                     (4, 5), np.ones((3, 4, 5), np.uint16), has_frame=np.array([1, 0, 1], bool),
                     has_label=np.array([0, 1, 1], bool))
    for form in ('evimo', 'evimo2', 'bag'):
        found = again(form, scene, folder())
        assert [found.frame(n) is None for n in range(3)] == [False, True, False], form
        assert [found.truth(n) is None for n in range(3)] == [True, False, False], form


# --- readers against files made by hand ---

def test_mousesis_by_hand(tmp_path):
    (tmp_path / 'top' / 'val').mkdir(parents=True)
    with h5py.File(tmp_path / 'top' / 'val' / 'seq_04.hdf5', 'w') as data:
        data['images'] = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
        data['img_ts'] = np.array([1000.5, 34333.0])
        data['img2event'] = np.array([0, 3])
        data['t'] = np.array([900, 1000, 20000, 30000, 40000], np.uint32)
        data['x'] = np.array([0.0, 3.9, 4.0, -0.5, 1.5])
        data['y'] = np.array([0.0, 2.9, 1.0, 1.0, 2.2])
        data['p'] = np.array([0, 1, 1, 0, 1], np.uint8)
    # 3 rows: column 1 (0-based) rows 0..1 are pixels 3 and 4 from 0, written 4 2 from 1
    entry = {'id': 77, 'video_id': '04', 'category_id': 1, 'iscrowd': 0, 'areas': [2, None],
             'bboxes': [[1, 0, 1, 2], None], 'segmentations': [{'size': [3, 4], 'counts': '4 2 12 1'}, None]}
    other = {**entry, 'id': 5, 'video_id': '03'}
    (tmp_path / 'top' / 'val_annotations.json').write_text(json.dumps({
        'info': {}, 'videos': [{'id': '03', 'width': 4, 'height': 3, 'length': 2}, {'id': '04', 'length': 2}],
        'annotations': [other, entry], 'categories': [{'id': 1, 'name': 'mouse'}]}))
    found = module('mousesis').read(tmp_path, 'val/seq_04')
    assert found.stamps_ns.tolist() == [1_000_500, 34_333_000] and found.split == 'val'
    assert found.events.t.tolist() == [900_000, 1_000_000, 40_000_000]
    assert found.events.x.tolist() == [0, 3, 1] and found.events.y.tolist() == [0, 2, 2]
    assert np.array_equal(np.asarray(found.frames).ravel(), np.arange(72))
    assert np.asarray(found.ids).tolist() == [[[0, 77, 0, 0], [0, 77, 0, 0], [0, 0, 0, 77]], [[0] * 4] * 3]
    assert found.boxes == ({77: (1, 0, 2, 2)}, {}) and found.flags(0) == {77: True}
    assert found.notes == ('2 events outside 4 x 3 px dropped',)


def test_sevd_by_hand(tmp_path):
    rgb = tmp_path / 'Town01_x' / 'fixed-1' / 'role' / 'rgb_camera-0'
    masks = rgb.parent / 'instance_segmentation_camera'
    rgb.mkdir(parents=True), masks.mkdir()
    kind = np.dtype([('x', np.uint16), ('y', np.uint16), ('t', np.int64), ('pol', np.bool_)])
    for tick in (9, 10, 11):
        cv2.imwrite(str(rgb / f'{tick}.png'), np.full((3, 4, 3), (tick, 2, 3), np.uint8))  # blue first
        instances = np.zeros((3, 4, 3), np.uint8)
        instances[0, 0] = (1, 44, 14)   # B high byte, G low byte, R tag: actor 300
        instances[0, 1] = (0, 7, 4)     # actor 7, not in the JSON
        cv2.imwrite(str(masks / f'{tick:05d}.png'), instances)
        (rgb / f'{tick}.json').write_text(json.dumps({'images': [{'id': tick}], 'annotations': [
            {'id': 300, 'image_id': tick, 'category_id': 1, 'bbox': [0, 0, 1, 2], 'segmentation': []}]}))
    base = 5_000_000_000  # simulation began before tick 0
    for tick, times in ((9, [base + 820_000_000, base + 900_000_000]), (11, [base + 1_000_000_001])):
        np.savez(rgb / f'dvs-{tick}-xytp.npz', dvs_events=np.array([(1, 2, t, True) for t in times], kind))
    found = module('sevd').read(tmp_path / 'Town01_x' / 'fixed-1')
    assert found.stamps_ns.tolist() == [base + 900_000_000, base + 1_000_000_000, base + 1_100_000_000]
    before = [len(found.events.between(int(t) - 100_000_000, int(t))) for t in found.stamps_ns]
    assert before == [2, 0, 1]  # packet f is what came before image f, a missing packet is none
    assert found.frames[0][0, 0].tolist() == [3, 2, 9]
    assert np.asarray(found.ids[0]).tolist() == [[300, 0, 0, 0], [0] * 4, [0] * 4]
    assert found.boxes[0] == {300: (0, 0, 1, 2)} and found.events.p.tolist() == [1, 1, 1]


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_evimo_by_hand(tmp_path, kind):
    both = {'cam': {}, 'gt_frame': 'a', 'classical_frame': 'b'}
    meta = {'frames': [{'id': 0, 'ts': 0.0125, '3': {'pos': {}, 'ts': 0.0125}, **both},
                       {'id': 1, 'ts': 0.0875, **both}],
            'full_trajectory': [], 'imu': {}, 'meta': {'res_x': 3, 'res_y': 2, 'fx': np.float64(1)}}
    np.savez(tmp_path / 'seq_00.npz', events=np.array([[0.0, 1, 1, 1], [0.05, 2, 0, 0], [0.06, 0, 1, 1]], kind),
             depth=np.full((2, 2, 3), 1234, kind), mask=np.array([[[0, 3000, 0]] * 2, [[0, 0, 12000]] * 2], np.uint16),
             classical=np.full((2, 2, 3), 7, kind), index=np.array([0, 1, 1]), discretization=0.01, K=np.eye(3),
             D=np.zeros(4), meta=np.array(meta, object))
    found = module('evimo').read(tmp_path)
    assert found.stamps_ns.tolist() == [12_500_000, 87_500_000] and found.size == (2, 3)
    assert np.asarray(found.ids)[:, 0].tolist() == [[0, 3, 0], [0, 0, 12]]
    assert found.events.x.tolist() == [1, 2, 0] and np.abs(found.events.t - [0, 50_000_000, 60_000_000]).max() < 3
    assert found.frames.shape == (2, 2, 3, 3) and found.depth[0, 0, 0] == np.float32(1.234)


def test_evimo2_by_hand(tmp_path):
    for camera, polarity in (('left_camera', [1, 0]), ('samsung_mono', [0, 1])):
        place = tmp_path / camera / 'imo' / 'eval' / 'scene13'
        place.mkdir(parents=True)
        np.save(place / 'dataset_events_t.npy', np.array([0.001, 0.5], np.float32))
        np.save(place / 'dataset_events_xy.npy', np.array([[3, 1], [0, 2]], np.uint16))
        np.save(place / 'dataset_events_p.npy', np.array([1, 0], np.uint8))
        np.savez(place / 'dataset_mask.npz', mask_0000000001=np.full((3, 4), 5000, np.uint16))
        np.savez(place / 'dataset_depth.npz', depth_0000000001=np.full((3, 4), 900, np.uint16))
        np.savez(place / 'dataset_classical.npz', classical_0000000000=np.full((3, 4, 3), (1, 2, 3), np.uint8))
        meta = {'frames': [{'id': 0, 'ts': 0.1, 'classical_frame': 'x'}, {'id': 1, 'ts': 0.35, 'gt_frame': 'y'}],
                'meta': {'res_x': 3, 'res_y': 4}}  # rows and columns, as the configuration files have it
        np.savez(place / 'dataset_info.npz', K=np.eye(3), D=np.zeros(4), index=np.array([0]), discretization=0.01,
                 meta=np.array(meta, object))
        found = module('evimo2').read(tmp_path, f'{camera}/imo/eval/scene13')
        assert found.size == (3, 4) and found.events.p.tolist() == polarity
        assert found.frame(0).image[0, 0].tolist() == [3, 2, 1] and found.frame(1) is None
        assert found.truth(0) is None and np.unique(found.truth(1)).tolist() == [5]
        assert found.stamps_ns.tolist() == [100_000_000, 350_000_000] and found.depth[1][0, 0] == np.float32(0.9)


def _chunk(name, body):
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


@pytest.mark.parametrize('depth', [1, 2, 4, 8])
def test_palette_png_by_hand(tmp_path, depth):
    """A PNG put together bit by bit: indices must come back, though two colours of the palette are equal."""
    indices = np.arange(2 * 8).reshape(2, 8) % (1 << depth)
    rows = b''.join(b'\x00' + np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], 1)[:, 8 - depth:]).tobytes()
                    for row in indices)
    palette = bytes([9, 9, 9] * 2 + [5, 6, 7] * ((1 << depth) - 2))
    chunks = ((b'IHDR', struct.pack('>IIBBBBB', 8, 2, depth, 3, 0, 0, 0)), (b'PLTE', palette), (b'tRNS', b'\x00'),
              (b'IDAT', zlib.compress(rows)), (b'IEND', b''))
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(_chunk(*chunk) for chunk in chunks))
    assert np.array_equal(read_indexed(tmp_path / 'a.png'), indices)


def test_palette_png_has_the_usual_colours(tmp_path):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_indexed(tmp_path / 'a.png', indices)
    assert np.array_equal(read_indexed(tmp_path / 'a.png'), indices)
    shown = cv2.cvtColor(cv2.imread(str(tmp_path / 'a.png')), cv2.COLOR_BGR2RGB).reshape(256, 3)
    assert np.array_equal(shown, palette_colours())
    assert shown[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]  # the toolkits' first four


def test_davis_void_and_binary(tmp_path):
    for name, mask in (('one', np.array([[0, 255], [255, 0]], np.uint8)), ('two', None)):
        (tmp_path / name / 'frames').mkdir(parents=True), (tmp_path / name / 'masks').mkdir()
        cv2.imwrite(str(tmp_path / name / 'frames' / '00000.png'), np.zeros((2, 2, 3), np.uint8))
        if mask is not None:
            cv2.imwrite(str(tmp_path / name / 'masks' / '00000.png'), mask)
        else:
            write_indexed(tmp_path / name / 'masks' / '00000.png', np.array([[0, 255], [2, 0]]))
    read = module('davis').read
    assert np.asarray(read(tmp_path, 'one').ids).tolist() == [[[0, 1], [1, 0]]]
    assert np.asarray(read(tmp_path, 'two').ids).tolist() == [[[0, 0], [2, 0]]]


def test_real_davis(data_dir):
    found = module('davis').read(data_dir / 'video' / 'davis16_train', 'rhino')
    assert len(module('davis').find(data_dir / 'video' / 'davis16_train')) == 30 and len(found) == 40
    assert found.size == (240, 427) and found.frames[0].shape == (240, 427, 3) and found.notes
    ids = np.asarray(found.ids[0])
    assert np.unique(ids).tolist() == [0, 1] and 0.02 < ids.mean() < 0.5


def test_ytvis_by_hand(tmp_path):
    (tmp_path / 'valid' / 'JPEGImages' / 'abc').mkdir(parents=True)
    for n in (0, 5):
        cv2.imwrite(str(tmp_path / 'valid' / 'JPEGImages' / 'abc' / f'{n:05d}.jpg'), np.full((3, 4, 3), 50, np.uint8))
    (tmp_path / 'valid' / 'instances.json').write_text(json.dumps({
        'videos': [{'id': 9, 'width': 4, 'height': 3, 'length': 2, 'file_names': ['abc/00000.jpg', 'abc/00005.jpg']}],
        'annotations': [{'id': 4000, 'video_id': 9, 'category_id': 2, 'iscrowd': 0, 'areas': [None, 2],
                         'bboxes': [None, [0, 1, 1, 2]],
                         'segmentations': [None, {'size': [3, 4], 'counts': [1, 2, 9]}]}], 'categories': []}))
    found = module('ytvis').read(tmp_path)
    assert found.name == 'valid/abc' and np.diff(found.stamps_ns).tolist() == [round(1e9 / 6)]
    assert np.asarray(found.ids).tolist() == [[[0] * 4] * 3, [[0] * 4, [4000, 0, 0, 0], [4000, 0, 0, 0]]]
    assert found.boxes == ({}, {4000: (0, 1, 1, 3)})


def test_dimos_by_hand(tmp_path):
    place = tmp_path / 'emos_preprocess' / 'eval' / 'seq03'
    place.mkdir(parents=True)
    for n in range(3):
        with h5py.File(place / f'{n:05d}.hdf5', 'w') as data:
            data['image1'], data['image2'] = np.full((2, 3, 3), n, np.uint8), np.full((2, 3, 3), n + 1, np.uint8)
            data['mov_seg'] = np.full((2, 3), n, np.uint8)
            data['event_voxel'] = np.zeros((2, 3, 10), np.float32)
    (place / 'valid.txt').write_text('img_0.png 0\nimg_1.png 1\nimg_2.png 0\n')
    found = module('dimos').read(tmp_path)
    assert found.has_label.tolist() == [False, True, False, False]  # as text, '0' would be True
    assert np.asarray(found.frames)[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and found.name == 'eval/seq03'


def test_stored_objects_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))
    np.savez(tmp_path / 'a.npz', meta=np.array({'x': Bomb(), 'y': np.float64(1)}, object))
    with pytest.raises(DatasetError, match='refused'):
        read_npz(tmp_path / 'a.npz', 'meta')
    assert not (tmp_path / 'ran').exists()
    old = pickle.dumps({'a': np.arange(3), 'b': [1, 'x', None, (2.5, b'q')], 'c': np.int32(4)}, protocol=2)
    from io import BytesIO

    from mos_perception.formats.files import _Unpickler
    assert repr(_Unpickler(BytesIO(old), encoding='latin1').load()) == repr(pickle.loads(old))


def test_ids_that_do_not_fit_are_refused(folder):
    scene = Sequence('big', (1, 1), np.array([10**9]), np.zeros((1, 1, 1, 3), np.uint8),
                     ids=np.full((1, 1, 1), 300, np.uint16))
    for form in ('evimo', 'evimo2', 'davis'):
        with pytest.raises(DatasetError, match='300'):
            module(form).write(scene, folder() / 'set')


@pytest.mark.parametrize('form', FORMATS)
def test_nothing_and_rubbish_are_refused_in_one_line(form, tmp_path):
    (tmp_path / 'readme.txt').write_text('x')
    assert module(form).find(tmp_path) == [] and module(form).find(tmp_path / 'nowhere') == []
    for place in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(MosError) as caught:
            module(form).read(place)
        assert str(place) in str(caught.value) and '\n' not in str(caught.value)


def test_without_h5py_the_message_names_it(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'h5py', None)
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'seq01.h5').write_bytes(b'')
    with pytest.raises(DatasetError, match='pip install h5py'):
        module('mousesis').read(tmp_path)


def test_lazy_array_is_like_an_array():
    rows = LazyArray(3, lambda n: np.full((2, 2), n, np.uint16))
    assert rows.shape == (3, 2, 2) and len(rows) == 3 and rows.dtype == np.uint16
    assert rows[-1][0, 0] == 2 and rows[1:].shape == (2, 2, 2) and rows[3:].shape == (0, 2, 2)
    assert [int(row[0, 0]) for row in rows] == [0, 1, 2] and np.asarray(rows).sum() == 12
    with pytest.raises(IndexError):
        rows[3]
