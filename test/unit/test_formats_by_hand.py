"""Each reader on a minimal file made by hand from the description of its format."""

import json
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest

from mos_perception.errors import DatasetError, UnsafeFileError
from mos_perception.formats import module
from mos_perception.formats.check import check_data
from mos_perception.formats.files import read_npz
from mos_perception.formats.image_files import palette_colours, read_indexed, write_indexed

h5py = pytest.importorskip('h5py')


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
             'bboxes': [[1, 0, 1, 2], None],
             'segmentations': [{'size': [3, 4], 'counts': '4 2 12 1'}, None]}
    other = {**entry, 'id': 5, 'video_id': '03'}
    (tmp_path / 'top' / 'val_annotations.json').write_text(json.dumps({
        'info': {},
        'videos': [{'id': '03', 'width': 4, 'height': 3, 'length': 2}, {'id': '04', 'length': 2}],
        'annotations': [other, entry], 'categories': [{'id': 1, 'name': 'mouse'}]}))
    found = module('mousesis').read(tmp_path, 'val/seq_04')
    assert found.stamps_ns.tolist() == [1_000_500, 34_333_000] and found.split == 'val'
    assert found.events.t.tolist() == [900_000, 1_000_000, 40_000_000]
    assert found.events.x.tolist() == [0, 3, 1] and found.events.y.tolist() == [0, 2, 2]
    assert np.array_equal(np.asarray(found.frames).ravel(), np.arange(72))
    assert found.ids[0].tolist() == [[0, 77, 0, 0], [0, 77, 0, 0], [0, 0, 0, 77]]
    assert found.ids[1].tolist() == [[0] * 4] * 3
    assert found.boxes == ({77: (1, 0, 2, 2)}, {}) and found.flags(0) == {77: True}
    assert found.notes == ('2 events outside 4 x 3 px dropped',)


def test_sevd_by_hand(tmp_path):
    rgb = tmp_path / 'Town01_x' / 'fixed-1' / 'role' / 'rgb_camera-0'
    masks = rgb.parent / 'instance_segmentation_camera'
    rgb.mkdir(parents=True), masks.mkdir()
    kind = np.dtype([('x', np.uint16), ('y', np.uint16), ('t', np.int64), ('pol', np.bool_)])
    for tick in (9, 10, 11):
        blue_first = np.full((3, 4, 3), (tick, 2, 3), np.uint8)
        cv2.imwrite(str(rgb / f'{tick}.png'), blue_first)
        instances = np.zeros((3, 4, 3), np.uint8)
        instances[0, 0] = (1, 44, 14)   # B high byte, G low byte, R tag: actor 300
        instances[0, 1] = (0, 7, 4)     # actor 7, not in the JSON
        cv2.imwrite(str(masks / f'{tick:05d}.png'), instances)
        (rgb / f'{tick}.json').write_text(json.dumps({'images': [{'id': tick}], 'annotations': [
            {'id': 300, 'image_id': tick, 'category_id': 1, 'bbox': [0, 0, 1, 2],
             'segmentation': []}]}))
    base = 5_000_000_000  # simulation began before tick 0
    packets = {9: [base + 820_000_000, base + 900_000_000], 11: [base + 1_000_000_001]}
    for tick, times in packets.items():
        rows = np.array([(1, 2, t, True) for t in times], kind)
        np.savez(rgb / f'dvs-{tick}-xytp.npz', dvs_events=rows)
    found = module('sevd').read(tmp_path / 'Town01_x' / 'fixed-1')
    assert (found.stamps_ns - base).tolist() == [900_000_000, 1_000_000_000, 1_100_000_000]
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
    np.savez(tmp_path / 'seq_00.npz',
             events=np.array([[0.0, 1, 1, 1], [0.05, 2, 0, 0], [0.06, 0, 1, 1]], kind),
             mask=np.array([[[0, 3000, 0]] * 2, [[0, 0, 12000]] * 2], np.uint16),
             depth=np.full((2, 2, 3), 1234, kind), classical=np.full((2, 2, 3), 7, kind),
             index=np.array([0, 1, 1]), discretization=0.01, K=np.eye(3), D=np.zeros(4),
             meta=np.array(meta, object))
    found = module('evimo').read(tmp_path)
    assert found.stamps_ns.tolist() == [12_500_000, 87_500_000] and found.size == (2, 3)
    assert np.asarray(found.ids)[:, 0].tolist() == [[0, 3, 0], [0, 0, 12]]
    assert found.events.x.tolist() == [1, 2, 0]
    assert np.abs(found.events.t - [0, 50_000_000, 60_000_000]).max() < 3
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
        np.savez(place / 'dataset_classical.npz',
                 classical_0000000000=np.full((3, 4, 3), (1, 2, 3), np.uint8))
        meta = {'frames': [{'id': 0, 'ts': 0.1, 'classical_frame': 'x'},
                           {'id': 1, 'ts': 0.35, 'gt_frame': 'y'}],
                'meta': {'res_x': 3, 'res_y': 4}}  # the configuration files call rows x
        np.savez(place / 'dataset_info.npz', K=np.eye(3), D=np.zeros(4), index=np.array([0]),
                 discretization=0.01, meta=np.array(meta, object))
        found = module('evimo2').read(tmp_path, f'{camera}/imo/eval/scene13')
        assert found.size == (3, 4) and found.events.p.tolist() == polarity
        assert found.frame(0).image[0, 0].tolist() == [3, 2, 1] and found.frame(1) is None
        assert found.truth(0) is None and np.unique(found.truth(1)).tolist() == [5]
        assert found.stamps_ns.tolist() == [100_000_000, 350_000_000]
        assert found.depth[1][0, 0] == np.float32(0.9)


def _chunk(name, body):
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


@pytest.mark.parametrize('depth', [1, 2, 4, 8])
def test_palette_png_by_hand(tmp_path, depth):
    """A PNG put together bit by bit: indices come back, though two colours are equal."""
    indices = np.arange(2 * 8).reshape(2, 8) % (1 << depth)
    bits = np.unpackbits(indices.astype(np.uint8)[..., None], -1)[..., 8 - depth:]
    rows = b''.join(b'\x00' + np.packbits(row).tobytes() for row in bits)
    palette = bytes([9, 9, 9] * 2 + [5, 6, 7] * ((1 << depth) - 2))
    chunks = ((b'IHDR', struct.pack('>IIBBBBB', 8, 2, depth, 3, 0, 0, 0)), (b'PLTE', palette),
              (b'tRNS', b'\x00'), (b'IDAT', zlib.compress(rows)), (b'IEND', b''))
    body = b''.join(_chunk(*chunk) for chunk in chunks)
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + body)
    assert np.array_equal(read_indexed(tmp_path / 'a.png'), indices)


def test_palette_png_has_the_usual_colours(tmp_path):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_indexed(tmp_path / 'a.png', indices)
    assert np.array_equal(read_indexed(tmp_path / 'a.png'), indices)
    shown = cv2.cvtColor(cv2.imread(str(tmp_path / 'a.png')), cv2.COLOR_BGR2RGB).reshape(256, 3)
    assert np.array_equal(shown, palette_colours())
    first_of_the_toolkits = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert shown[:4].tolist() == first_of_the_toolkits


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
    davis16 = data_dir / 'video' / 'davis16_train'
    found = module('davis').read(davis16, 'rhino')
    assert len(module('davis').find(davis16)) == 30 and len(found) == 40
    assert found.size == (240, 427) and found.frames[0].shape == (240, 427, 3) and found.notes
    ids = np.asarray(found.ids[0])
    assert np.unique(ids).tolist() == [0, 1] and 0.02 < ids.mean() < 0.5


def test_ytvis_by_hand(tmp_path):
    pictures = tmp_path / 'valid' / 'JPEGImages' / 'abc'
    pictures.mkdir(parents=True)
    for n in (0, 5):
        cv2.imwrite(str(pictures / f'{n:05d}.jpg'), np.full((3, 4, 3), 50, np.uint8))
    (tmp_path / 'valid' / 'instances.json').write_text(json.dumps({
        'videos': [{'id': 9, 'width': 4, 'height': 3, 'length': 2,
                    'file_names': ['abc/00000.jpg', 'abc/00005.jpg']}],
        'annotations': [{'id': 4000, 'video_id': 9, 'category_id': 2, 'iscrowd': 0,
                         'areas': [None, 2], 'bboxes': [None, [0, 1, 1, 2]],
                         'segmentations': [None, {'size': [3, 4], 'counts': [1, 2, 9]}]}],
        'categories': []}))
    found = module('ytvis').read(tmp_path)
    assert found.name == 'valid/abc' and np.diff(found.stamps_ns).tolist() == [round(1e9 / 6)]
    assert found.ids[0].tolist() == [[0] * 4] * 3
    assert found.ids[1].tolist() == [[0] * 4, [4000, 0, 0, 0], [4000, 0, 0, 0]]
    assert found.boxes == ({}, {4000: (0, 1, 1, 3)})


@pytest.mark.parametrize('key, says', [('id', 'id 9'), ('file_names', "folder 'abc'")])
def test_two_ytvis_videos_of_one_folder_or_id_are_refused(tmp_path, key, says):
    (tmp_path / 'JPEGImages').mkdir()
    first = {'id': 9, 'width': 4, 'height': 3, 'length': 1, 'file_names': ['abc/00000.jpg']}
    second = {**first, 'id': 8, 'file_names': ['xyz/00000.jpg'], key: first[key]}
    (tmp_path / 'instances.json').write_text(json.dumps({'videos': [first, second]}))
    for reader in (module('ytvis').find, module('ytvis').read):
        with pytest.raises(DatasetError, match=f'instances.json has 2 videos of {says}: each must'):
            reader(tmp_path)
    assert any(says in one.detail for one in check_data(tmp_path, 'ytvis'))


def test_dimos_by_hand(tmp_path):
    place = tmp_path / 'emos_preprocess' / 'eval' / 'seq03'
    place.mkdir(parents=True)
    for n in range(3):
        with h5py.File(place / f'{n:05d}.hdf5', 'w') as data:
            data['image1'] = np.full((2, 3, 3), n, np.uint8)
            data['image2'] = np.full((2, 3, 3), n + 1, np.uint8)
            data['mov_seg'] = np.full((2, 3), n, np.uint8)
            data['event_voxel'] = np.zeros((2, 3, 10), np.float32)
    (place / 'valid.txt').write_text('img_0.png 0\nimg_1.png 1\nimg_2.png 0\n')
    found = module('dimos').read(tmp_path)
    assert found.has_label.tolist() == [False, True, False, False]  # as text, '0' would be True
    assert np.asarray(found.frames)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert found.name == 'eval/seq03'


def test_stored_objects_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))
    np.savez(tmp_path / 'a.npz', meta=np.array({'x': Bomb(), 'y': np.float64(1)}, object))
    with pytest.raises(UnsafeFileError, match='refused'):
        read_npz(tmp_path / 'a.npz', 'meta')
    assert not (tmp_path / 'ran').exists()
    harmless = {'a': np.arange(3), 'b': [1, 'x', None, (2.5, b'q')], 'c': np.int32(4)}
    old = pickle.dumps(harmless, protocol=2)
    from io import BytesIO

    from mos_perception.formats.files import _Unpickler
    assert repr(_Unpickler(BytesIO(old), encoding='latin1').load()) == repr(pickle.loads(old))
