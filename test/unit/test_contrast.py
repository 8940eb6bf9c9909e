"""The scene's motion from events alone, and which instances it explains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.config import Config
from mos_perception.datatypes import Events, EventWindow, Instances, SyncedInput
from mos_perception.models.ego import warm_up, without_ego
from mos_perception.motion.contrast import global_motion, half_diagonal, maximise, sampled
from mos_perception.motion.event_compensation import node_count, node_pixels
from mos_perception.motion.own_motion import camera_motion, own_motion
from mos_perception.stages import StageTimes

SIZE = (120, 160)
SPAN = 33_000_000
BOX = (slice(40, 80), slice(60, 100))  # where the mover or the look-alike is


def edges(rng: np.random.Generator, count: int, low=(0, 0), high=SIZE[::-1]) -> np.ndarray:
    """(count, 2) points x, y on random line segments inside of a box."""
    ends = rng.uniform(low, high, (max(6, count // 60), 2, 2))
    line, along = rng.integers(0, len(ends), count), rng.random((count, 1))
    return ends[line, 0] * (1 - along) + ends[line, 1] * along


def field(points: np.ndarray, parameters) -> np.ndarray:
    """(E, 2) px over the window by the four parameters of `ContrastFit`."""
    right, down, scale, roll = np.asarray(parameters) / [1, 1, *[half_diagonal(SIZE)] * 2]
    x, y = (points - np.array([SIZE[1] - 1, SIZE[0] - 1]) / 2).T
    return np.stack([right + scale * x - roll * y, down + roll * x + scale * y], 1)


def seen(rng: np.random.Generator, *parts: tuple[np.ndarray, np.ndarray]) -> EventWindow:
    """A window of scene points, each part with its displacement over the window (E, 2)."""
    points, moved = (np.concatenate(rows) for rows in zip(*parts))
    t = rng.integers(1, SPAN + 1, len(points))
    at = np.rint(points + (t / SPAN - 0.5)[:, None] * moved).astype(int)
    inside = (at >= 0).all(1) & (at < SIZE[::-1]).all(1)
    at, t = at[inside], t[inside]
    order = np.argsort(t, kind='stable')
    x, y = at[order].T.astype(np.uint16)
    return EventWindow(Events(x, y, np.ones(len(x), np.uint8), t[order]), 0, SPAN, *SIZE)


def noise(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(0, SIZE[::-1], (count, 2)), np.zeros((count, 2))


def box_mask() -> np.ndarray:
    mask = np.zeros((1, *SIZE), bool)
    mask[0][BOX] = True
    return mask


def scene_with_box(seed: int, camera, own) -> EventWindow:
    """Edges everywhere that move by `camera`, a bundle of them inside of the box by `own`."""
    rng = np.random.default_rng(seed)
    around, inside = edges(rng, 5000), edges(rng, 1200, (66, 46), (94, 74))
    outside = ~((np.abs(around - [80, 60]) < [24, 24]).all(1))
    around = around[outside]
    return seen(rng, (around, field(around, camera)), (inside, field(inside, own)),
                noise(rng, 300))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2 ** 32 - 1), st.floats(-14, 14), st.floats(-14, 14), st.floats(-5, 5),
       st.floats(-5, 5))
def test_similarity_motions_are_recovered(seed, right, down, scale, roll):
    rng = np.random.default_rng(seed)
    points, truth = edges(rng, 5000), (right, down, scale, roll)
    fit = maximise(sampled(seen(rng, (points, field(points, truth)), noise(rng, 400))))
    error = np.linalg.norm(field(points, fit.parameters) - field(points, truth), axis=1)
    assert np.median(error) < 1.0


def test_the_motion_is_given_at_the_nodes():
    rng = np.random.default_rng(1)
    points, truth = edges(rng, 5000), (6.0, -4.0, 3.0, -2.0)
    motion = global_motion(seen(rng, (points, field(points, truth))))
    assert motion.displacement.shape == (*node_count(SIZE), 2)
    assert (motion.t_ns, motion.span_ns) == (SPAN, SPAN)
    nodes = node_pixels(SIZE)
    wanted = field(nodes.reshape(-1, 2), truth).reshape(nodes.shape)
    np.testing.assert_allclose(motion.displacement, wanted, atol=1.0)


def test_equal_windows_give_equal_motions():
    window = scene_with_box(3, (5, 3, 0, 1), (5, 3, 0, 1))
    first, second = (maximise(sampled(window)) for _ in range(2))
    assert first.parameters.tobytes() == second.parameters.tobytes()
    assert (first.contrast, first.still) == (second.contrast, second.still)


@pytest.mark.parametrize('seed', range(3))
def test_noise_has_no_motion(seed):
    rng = np.random.default_rng(seed)
    assert global_motion(seen(rng, noise(rng, 6000))) is None
    assert global_motion(seen(rng, noise(rng, 50))) is None
    assert maximise(sampled(seen(rng, noise(rng, 50)))) is None


def test_a_resting_camera_explains_nothing():
    rng = np.random.default_rng(5)
    inside = edges(rng, 2500, (66, 46), (94, 74))
    window = seen(rng, (inside, field(inside, (7, 3, 0, 0))), noise(rng, 1500))
    assert own_motion(window, box_mask(), False).tolist() == [True]


@pytest.mark.parametrize('seed', range(3))
def test_a_thing_at_rest_is_explained_and_a_mover_is_not(seed):
    camera = (6.0, -3.0, 0.0, 1.0)
    rest = own_motion(scene_with_box(seed, camera, camera), box_mask(), True)
    mover = own_motion(scene_with_box(seed, camera, (-1.0, 3.0, 0, 0)), box_mask(), True)
    assert (rest.tolist(), mover.tolist()) == ([False], [True])


def test_without_events_inside_the_frame_decides():
    window = scene_with_box(2, (6, -3, 0, 0), (6, -3, 0, 0))
    corner = np.zeros((1, *SIZE), bool)
    corner[0, :1, :1] = True
    assert own_motion(window, corner, True).tolist() == [True]
    assert own_motion(window, corner, False).tolist() == [False]
    assert own_motion(window, corner[:0], False).tolist() == []


def instances(masks: np.ndarray) -> Instances:
    count = len(masks)
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    return Instances(masks, np.zeros((count, 4), np.float32), scores, scores,
                     np.ones(count, bool), np.arange(count, dtype=np.float32)[:, None])


def test_the_stage_drops_rows_and_books_its_time():
    camera, masks = (6.0, -3.0, 0.0, 1.0), np.concatenate([box_mask(), box_mask()])
    masks[1] = np.roll(masks[0], (0, 55), (0, 1))
    window = scene_with_box(1, camera, (-1.0, 3.0, 0, 0))
    stages = StageTimes()
    found = without_ego(instances(masks), SyncedInput(0, '', None, window, SIZE), stages)
    assert found.embeddings.tolist() == [[0.0]] and found.masks.shape == (1, *SIZE)
    assert stages['ego'] > 0
    large = instances(masks.repeat(2, 1).repeat(2, 2))
    same_view = SyncedInput(0, '', None, window, (240, 320))
    assert without_ego(large, same_view, stages).embeddings.tolist() == [[0.0]]
    without_events, unused = SyncedInput(0, '', None, None, SIZE), StageTimes()
    assert len(without_ego(instances(masks), without_events, unused)) == 2 and not unused


def test_warm_up_and_the_parameter():
    warm_up()
    assert Config().ego_motion == 'auto' and Config(ego_motion='off').ego_motion == 'off'


def test_a_turning_camera_agrees_with_its_gyroscope(data_dir):
    """shapes_rotation: static point X moves by -omega x X; near the centre u' = -f omega_y."""
    folder = data_dir / 'events' / 'static_scene' / 'shapes_rotation'
    if not folder.is_dir():
        pytest.skip(f'no recording at {folder}')
    from training.evaluate_static import read_recordings
    recording = next(one for one in read_recordings(folder.parent)
                     if one.name == 'shapes_rotation')
    fx, fy = np.loadtxt(folder / 'calib.txt')[:2]
    omega = np.loadtxt(folder / 'motion.txt')
    window = next(recording.windows())
    fit = maximise(sampled(window))
    seconds = (window.t1_ns - window.t0_ns) * 1e-9
    wanted = np.array([-fx * omega[1], fy * omega[0]]) * seconds
    np.testing.assert_allclose(fit.parameters[:2], wanted, atol=1.6)


def test_a_missed_mover_before_a_camera_at_rest_is_not_its_motion():
    """Events come from movers alone: those of one that the model missed say nothing of the camera.
    """
    rng, size = np.random.default_rng(0), (120, 160)

    def edge(x0, y0, count, right):
        t = np.sort(rng.integers(1, 33_000_000, count))
        x = x0 + rng.integers(0, 2, count) * 14 + right * t / 33e6
        return x, y0 + rng.integers(0, 24, count), t

    parts = [edge(20, 20, 3000, 6), edge(110, 80, 500, -6)]
    x, y, t = (np.concatenate(values) for values in zip(*parts))
    order = np.argsort(t, kind='stable')
    events = Events(x[order].astype(np.uint16), y[order].astype(np.uint16),
                    np.ones(len(t), np.uint8), t[order].astype(np.int64))
    masks = np.zeros((1, *size), bool)
    masks[0, 16:48, 16:46] = True
    window = EventWindow(events, 0, 33_000_000, *size)
    assert camera_motion(window, masks) is None
    assert own_motion(window, masks, False).all()
