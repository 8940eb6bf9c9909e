"""Motion evidence: flow, the camera's motion, channels, frames chosen by time."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Frame, SyncedInput
from mos_perception.errors import ConfigError, FrameError
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.camera_motion import CameraMotion, camera_flow, fit_homography
from mos_perception.motion.evidence import (
    PER_GAP,
    SIGNED,
    EvidenceSpec,
    Pair,
    assemble,
    channel_count,
    mirrored,
    pair_evidence,
    residual_px,
)
from mos_perception.motion.flow import DenseFlow, FlowSettings, grey, pixel_grid, warp
from mos_perception.motion.history import MAX_DELAY_MS, FrameHistory, nearest
from mos_perception.motion.neighbours import Neighbours

SIZE = (128, 224)
PATCH = (slice(40, 80), slice(90, 150))


def texture(seed: int, size: tuple[int, int] = (192, 320)) -> np.ndarray:
    """(h, w, 3) uint8 with detail at several scales."""
    rng = np.random.default_rng(seed)
    image = sum(cv2.resize(rng.random((size[0] // step, size[1] // step, 3), np.float32),
                           size[::-1], interpolation=cv2.INTER_CUBIC) * step
                for step in (4, 8, 16))
    return np.clip((image - image.min()) / np.ptp(image) * 255, 0, 255).astype(np.uint8)


def shifted(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The image moved by (x, y) px."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REFLECT)


def scene(at: float, pan: float = 3.0, speed: float = 4.0) -> np.ndarray:
    """A panned background with a patch of other texture that moves down on top of it."""
    image = shifted(texture(1), pan * at, 0)
    patch = texture(2)[:60, :90]
    top = round(60 + speed * at)
    image[top:top + 60, 130:220] = patch
    return image


def patch_now() -> np.ndarray:
    """(H, W) bool where the patch of `scene(0)` is, at the evidence's size."""
    mask = np.zeros((192, 320), np.uint8)
    mask[60:120, 130:220] = 1
    return cv2.resize(mask, SIZE[::-1], interpolation=cv2.INTER_AREA) > 0


def frames(period_ms: float, count: int, image: np.ndarray | None = None) -> list[Frame]:
    blank = np.zeros((64, 96, 3), np.uint8) if image is None else image
    return [Frame(1_000_000_000 + round(n * period_ms * 1e6), blank) for n in range(count)]


def test_flow_of_a_shift_is_the_shift():
    image = grey(texture(3), FlowSettings().size)
    flow = DenseFlow()(image, grey(shifted(texture(3), 5, -3), FlowSettings().size), SIZE)
    inside = flow[16:-16, 16:-16]
    np.testing.assert_allclose(np.median(inside, (0, 1)), [5 * 224 / 320, -3 * 128 / 192], atol=0.1)


def test_flow_refuses_other_sizes():
    with pytest.raises(FrameError, match='must be'):
        DenseFlow()(np.zeros((64, 96), np.uint8), np.zeros((64, 96), np.uint8), SIZE)


@pytest.mark.parametrize('changes', [{'preset': 'slow'}, {'finest_scale': 9}, {'size': (8, 8)}])
def test_flow_settings_are_checked(changes):
    with pytest.raises(ConfigError, match='must be'):
        FlowSettings(**changes)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2 ** 32 - 1))
def test_homography_is_found_among_a_third_of_outliers(seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(3) + rng.normal(0, 1, (3, 3)) * [[.02, .02, 4], [.02, .02, 4], [1e-4, 1e-4, 0]]
    grid = pixel_grid(SIZE)
    flow = camera_flow(matrix, grid)
    true = flow.copy()
    flow += rng.normal(0, 0.05, flow.shape).astype(np.float32)
    top, left = rng.integers(0, 60), rng.integers(0, 100)
    flow[top:top + 65, left:left + 120] += rng.choice([-1, 1], 2) * rng.uniform(3, 8, 2)
    found = fit_homography(flow.astype(np.float32))
    assert np.abs(camera_flow(found.matrix, grid) - true).max() < 0.5
    assert 0.5 < found.inliers < 0.85 and found.spread_px < 0.2


def test_without_a_homography_the_median_motion_is_removed():
    rng = np.random.default_rng(0)
    flow = rng.uniform(-20, 20, (*SIZE, 2)).astype(np.float32) + np.float32([7, -2])
    found = fit_homography(flow)
    assert np.allclose(found.matrix[:2, :2], np.eye(2)) and np.allclose(found.matrix[2], [0, 0, 1])
    np.testing.assert_allclose(found.matrix[:2, 2], [7, -2], atol=2.5)


def test_warp_undoes_the_flow():
    image = texture(4, SIZE)[..., 0].astype(np.float32)
    moved = shifted(image, 2, 1)
    grid = pixel_grid(SIZE)
    back = warp(moved, np.full((*SIZE, 2), (2, 1), np.float32), grid)
    np.testing.assert_allclose(back[8:-8, 8:-8], image[8:-8, 8:-8], atol=1.0)


def test_a_mover_stands_out_of_a_panned_scene():
    spec = EvidenceSpec()
    now, others = scene(0), [scene(at) for at in (-1, -3, 1, 3)]
    stamps = [1_000_000_000 + round(1e6 * gap) for gap in spec.signed_gaps_ms]
    around = [Frame(stamp, image) for stamp, image in zip(stamps, others)]
    found = EvidenceBuilder(spec).build(Frame(1_000_000_000, now), around)
    planes = found.tensor.reshape(4, PER_GAP, *SIZE)
    inside, border = patch_now(), np.zeros(SIZE, bool)
    border[10:-10, 10:-10] = True
    outside = border & ~cv2.dilate(inside.view(np.uint8), np.ones((25, 25), np.uint8)).view(bool)
    core = cv2.erode(inside.view(np.uint8), np.ones((9, 9), np.uint8)).view(bool)
    for gap in planes:
        assert np.median(gap[2][core]) > 4 * np.median(gap[2][outside])
    down_before, down_after = planes[0][1][core].mean(), planes[2][1][core].mean()
    assert down_before < -0.5 < 0.5 < down_after  # where it was is above, where it goes is below


def test_a_still_scene_gives_next_to_nothing():
    image = grey(texture(5), SIZE)
    fine = grey(texture(5), FlowSettings().size)
    flow = DenseFlow()(fine, fine, SIZE)
    planes = pair_evidence(image, image, flow, flow, fit_homography(flow))
    assert np.abs(planes[2:6]).max() < 0.1


def test_the_residual_flow_comes_back_from_the_evidence():
    rng = np.random.default_rng(0)
    still = CameraMotion(np.array([[1, 0, 2.0], [0, 1, -1.0], [0, 0, 1]]), 1.0, 0.1)
    flow = rng.normal(0, 3, (*SIZE, 2)).astype(np.float32)
    image = np.zeros(SIZE, np.uint8)
    spec = EvidenceSpec()
    pair = Pair(pair_evidence(image, image, flow, -flow, still), flow, still)
    found = residual_px(assemble([pair] * 4, spec))
    assert found.shape == (4, 2, *SIZE)
    np.testing.assert_allclose(found[0], (flow - [2, -1]).transpose(2, 0, 1), atol=1e-4)
    assert not residual_px(np.zeros((32, *SIZE), np.float32)).any()


def test_turning_time_round_turns_the_signed_channels():
    planes = np.random.default_rng(0).normal(size=(PER_GAP, 4, 5)).astype(np.float32)
    turned = mirrored(planes)
    np.testing.assert_array_equal(mirrored(turned), planes)
    changed = [row for row in range(PER_GAP) if not np.array_equal(turned[row], planes[row])]
    assert changed == list(SIGNED)


def test_a_missing_gap_is_its_opposite_turned_round():
    spec = EvidenceSpec()
    planes = [np.full((PER_GAP, *SIZE), value, np.float32) for value in (1, 2)]
    nowhere, still = np.zeros((*SIZE, 2), np.float32), CameraMotion(np.eye(3), 1.0, 0.1)
    pairs = [Pair(one, nowhere, still) for one in planes]
    tensor = assemble([*pairs, None, None], spec)
    assert tensor.shape == (channel_count(spec), *SIZE)
    np.testing.assert_array_equal(tensor[2 * PER_GAP:3 * PER_GAP], mirrored(planes[0]))
    np.testing.assert_array_equal(tensor[3 * PER_GAP:], mirrored(planes[1]))
    assert not assemble([None] * 4, spec).any()


@pytest.mark.parametrize('changes', [{'size': (8, 8)}, {'gaps_ms': (120.0, 40.0)},
                                     {'gaps_ms': ()}, {'gaps_ms': (-40.0,)}, {'fade_ms': -1.0}])
def test_spec_is_checked(changes):
    with pytest.raises(ConfigError, match='must be'):
        EvidenceSpec(**changes)


@pytest.mark.parametrize('rate', [10, 15, 20, 24, 30, 60, 90])
def test_frames_are_chosen_by_time(rate):
    history, spec = FrameHistory(), EvidenceSpec()
    settled, waited = [], []
    for frame in frames(1000 / rate, 4 * rate):
        for ready, neighbours in history.push(frame):
            settled.append((ready, neighbours))
            waited.append((frame.stamp_ns - ready.stamp_ns) * 1e-6)
    assert max(waited) <= MAX_DELAY_MS + 1e-6
    ready, neighbours = settled[len(settled) // 2]
    for gap in (-120.0, -40.0, 40.0, 120.0):
        found = nearest(ready.stamp_ns, gap, neighbours)
        real = (found.stamp_ns - ready.stamp_ns) * 1e-6
        assert real * gap > 0 and abs(real - gap) <= max(500 / rate, 1000 / rate - abs(gap)) + 1e-3
    assert settled[0][0].stamp_ns == 1_000_000_000
    assert len(settled) + len(history.flush()) == 4 * rate
    assert history.delay_ms == spec.gaps_ms[-1]


def test_a_slow_camera_is_answered_at_once():
    history = FrameHistory()
    answers = [len(history.push(frame)) for frame in frames(250, 6)]
    assert sum(answers) >= 5


def test_a_causal_window_waits_for_nothing():
    history = FrameHistory(EvidenceSpec(centred=False))
    assert [len(history.push(frame)) for frame in frames(33, 9)] == [1] * 9
    assert history.delay_ms == 0 and not history.flush()


def test_history_forgets_and_stays_small():
    history = FrameHistory()
    for frame in frames(1000 / 60, 600):
        history.push(frame)
    assert len(history._frames) < 60
    history.reset()
    assert not history.flush() and not history._frames


def test_evidence_does_not_depend_on_what_was_asked_before():
    spec, settled = EvidenceSpec(), []
    stream = [Frame(1_000_000_000 + n * 40_000_000, scene(n / 2)) for n in range(8)]
    history, kept = FrameHistory(spec), EvidenceBuilder(spec, threads=2)
    for frame in stream:
        settled += history.push(frame)
    settled += history.flush()
    for frame, neighbours in settled[2:5]:
        warm = kept.build(frame, neighbours)
        fresh = EvidenceBuilder(spec, threads=1).build(frame, neighbours)
        np.testing.assert_allclose(warm.tensor, fresh.tensor, atol=1e-6)
        assert warm.gaps_ms == fresh.gaps_ms


def test_the_camera_s_way_back_is_the_way_there_turned_round():
    """Found once for both answers: at their own flows they agree to a fraction of a pixel."""
    builder = EvidenceBuilder(threads=1)
    one, two = (Frame(1_000_000_000 + n * 40_000_000, scene(n)) for n in range(2))
    there = builder.build(one, [two]).cameras[2].matrix
    back = builder.build(two, [one]).cameras[0].matrix
    np.testing.assert_allclose(back @ there / (back @ there)[2, 2], np.eye(3), atol=1e-9)
    own = fit_homography(builder._along((two.stamp_ns, one.stamp_ns))).matrix
    grid = pixel_grid(SIZE)
    assert np.abs(camera_flow(own, grid) - camera_flow(back, grid)).max() < 0.3


class Asked:
    """A flow that knows where a scene of one shift per frame went, and what was asked of it."""

    def __init__(self, shift):
        self.shift, self.steps = np.float32(shift), []

    def __call__(self, now, other, size):
        step = int(other[0, 0]) - int(now[0, 0])
        self.steps.append(step)
        return np.broadcast_to(step * self.shift, (*size, 2)).copy()


@pytest.mark.parametrize(('period_ms', 'steps', 'asked'), [
    (1000 / 60, {2, -2, 3, -3}, 4), (1000 / 30, {1, -1}, 2), (1000 / 24, {1, -1}, 2),
    (100, {1, -1}, 2)])
def test_long_gaps_are_put_together_from_short_ones(period_ms, steps, asked):
    spec, flow = EvidenceSpec(), Asked((1.5, -0.5))
    size = FlowSettings().size
    stream = [Frame(1_000_000_000 + round(n * period_ms * 1e6), np.full((*size, 3), n, np.uint8))
              for n in range(40)]
    history, builder = FrameHistory(spec), EvidenceBuilder(spec, 1, make_flow=lambda: flow)
    for frame in stream:
        for now, neighbours in history.push(frame):
            flow.steps, before = [], flow.steps
            found = builder.build(now, neighbours)
    assert len(flow.steps) == asked and set(flow.steps + before) == steps
    for camera, gap_ms in zip(found.cameras, found.gaps_ms):
        moved = round(gap_ms / period_ms) * flow.shift
        np.testing.assert_allclose(camera.matrix[:2, 2], moved, atol=1e-3)


def test_a_dropped_frame_is_leapt_over():
    spec, flow = EvidenceSpec(), Asked((1.0, 0.0))
    stream = [Frame(1_000_000_000 + n * 33_333_333, np.full((*spec.flow.size, 3), n, np.uint8))
              for n in range(9) if n != 6]
    builder = EvidenceBuilder(spec, 1, make_flow=lambda: flow)
    found = builder.build(stream[4], stream[:4] + stream[5:])
    assert set(flow.steps) == {1, -1, 2, -2}
    np.testing.assert_allclose(found.cameras[3].matrix[0, 2], 4, atol=1e-3)


def test_gaps_without_a_frame_are_mirrored_and_said():
    stream = [Frame(1_000_000_000 + n * 40_000_000, scene(n / 2)) for n in range(4)]
    builder = EvidenceBuilder()
    assert builder.build(stream[0], stream[1:]).tensor.any()
    assert not builder.build(stream[0], ()).tensor.any()
    causal = EvidenceBuilder(EvidenceSpec(centred=False)).build(stream[3], stream[:3])
    assert len(causal.gaps_ms) == 2 and None not in causal.gaps_ms
    neighbours = Neighbours(EvidenceSpec())
    samples = [SyncedInput(frame.stamp_ns, '', frame, None, frame.size) for frame in stream]
    found = neighbours.push(samples) + neighbours.flush([])
    assert [sample.missing_gaps for sample in found] == [2, 1, 1, 2]
    assert found[0].degraded(False) == '2 motion gaps without a frame'


def test_two_frames_of_one_stamp_are_told_apart():
    """After a bag loop the same stamps come again with other pictures."""
    builder = EvidenceBuilder(EvidenceSpec(centred=False))
    first = [Frame(1_000_000_000 + n * 120_000_000, scene(n)) for n in range(2)]
    again = [Frame(frame.stamp_ns, scene(n + 5, pan=-2)) for n, frame in enumerate(first)]
    builder.build(first[1], first[:1])
    found = builder.build(again[1], again[:1])
    fresh = EvidenceBuilder(EvidenceSpec(centred=False)).build(again[1], again[:1])
    np.testing.assert_allclose(found.tensor, fresh.tensor, atol=1e-6)
