"""Scene -> format -> reader -> the same arrays; what a format cannot hold is refused."""

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError, MissingLibraryError, MosError
from mos_perception.formats import FORMATS, detect, module
from mos_perception.formats.sequence import LazyArray, Sequence

h5py = pytest.importorskip('h5py')
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
MILLION = 10**6


@st.composite
def scenes(draw, step_ns=1000, start_ns=10**9, max_id=65, min_frames=1):
    """Small sequences: events on a grid of `step_ns`, irregular frame times, sparse ids, flags."""
    height, width = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, many = draw(st.integers(min_frames, 4)), draw(st.integers(0, 60))
    stamps = start_ns + np.cumsum(rng.integers(1, 40_000_000 // step_ns, count)) * step_ns
    first, last = start_ns // step_ns, (int(stamps[-1]) + 20_000_000) // step_ns
    times = np.sort(rng.integers(first, last, many)) * step_ns
    events = Events(rng.integers(0, width, many).astype(np.uint16),
                    rng.integers(0, height, many).astype(np.uint16),
                    rng.integers(0, 2, many).astype(np.uint8), times.astype(np.int64))
    numbers = np.concatenate([[0], rng.choice(np.arange(1, max_id + 1), 3, replace=False)])
    ids = rng.choice(numbers, (count, height, width)).astype(np.uint16)
    moving = tuple({int(n): bool(rng.integers(2)) for n in np.unique(image) if n} for image in ids)
    depth = (rng.integers(0, 60_000, (count, height, width)) / 1000).astype(np.float32)
    frames = rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    return Sequence('scene', (height, width), stamps, frames, events, (height, width), ids, moving,
                    depth=depth)


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
        assert np.asarray(found.ids).dtype == np.uint16
        assert np.array_equal(np.asarray(found.ids), given.ids)
    if moving:
        for n in range(len(given)):
            assert found.flags(n) == given.flags(n)


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
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    scene = Sequence('ramp', (48, 64), np.array([10**9]), ramp[None, ..., None].repeat(3, -1),
                     ids=np.zeros((1, 48, 64), np.uint16))
    for form in ('davis', 'ytvis'):
        same(again(form, scene, folder()), scene, frames=3, events='', times=False)


@QUICK
@given(scene=scenes(min_frames=2))
def test_dimos_round_trip(folder, scene):
    path = folder()
    found = again('dimos', scene, path, min_pixels=1)
    same(found, scene, events='', ids=False, moving=False, times=False)
    for n in range(len(scene) - 1):
        moving = sorted(k for k, moves in scene.moving[n].items() if moves)
        expected = np.zeros(scene.size, int)
        for row, k in enumerate(moving, 1):
            expected += row * (scene.ids[n] == k)
        assert np.array_equal(found.ids[n], expected)
        assert (found.truth(n) is not None) == bool(moving)
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
    scene = Sequence(
        'parts', (4, 5), np.array([1, 2, 3]) * 10**9, np.full((3, 4, 5, 3), 9, np.uint8),
        Events.empty(), (4, 5), np.ones((3, 4, 5), np.uint16),
        has_frame=np.array([1, 0, 1], bool), has_label=np.array([0, 1, 1], bool))
    for form in ('evimo', 'evimo2', 'bag'):
        found = again(form, scene, folder())
        assert [found.frame(n) is None for n in range(3)] == [False, True, False], form
        assert [found.truth(n) is None for n in range(3)] == [True, False, False], form


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
    with pytest.raises(MissingLibraryError, match='pip install h5py'):
        module('mousesis').read(tmp_path)


def test_lazy_array_is_like_an_array():
    rows = LazyArray(3, lambda n: np.full((2, 2), n, np.uint16))
    assert rows.shape == (3, 2, 2) and len(rows) == 3 and rows.dtype == np.uint16
    assert rows[-1][0, 0] == 2 and rows[1:].shape == (2, 2, 2) and rows[3:].shape == (0, 2, 2)
    assert [int(row[0, 0]) for row in rows] == [0, 1, 2] and np.asarray(rows).sum() == 12
    with pytest.raises(IndexError):
        rows[3]
