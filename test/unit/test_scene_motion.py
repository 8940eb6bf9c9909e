"""How the static scene moves over the event sensor, and inputs without a frame among others."""

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import Events, EventWindow, Frame, SyncedInput
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.contrast import global_motion
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.history import MAX_DELAY_MS
from mos_perception.motion.neighbours import Neighbours
from mos_perception.motion.scene_motion import from_frames, scene_motion

SIZE, MS = (180, 240), 1_000_000
PAN = 0.05  # px/ms to the right, of the scene


def picture(at_ms):
    """A panned scene."""
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.integers(0, 256, (30, 60, 3)).astype(np.uint8), (480, 240),
                       interpolation=cv2.INTER_CUBIC)
    matrix = np.array([[1, 0, PAN * at_ms - 100], [0, 1, -20]], np.float32)
    return cv2.warpAffine(image, matrix, SIZE[::-1], flags=cv2.INTER_CUBIC)


def frame(at_ms):
    return Frame(at_ms * MS, picture(at_ms))


def window(at_ms, events=None):
    return EventWindow(events or Events.empty(), (at_ms - 100) * MS, at_ms * MS, *SIZE)


@pytest.mark.parametrize('others', [(900, 960, 1040, 1100), (900, 960), (1040, 1120), (880,)],
                         ids=['both sides', 'before', 'after', 'one'])
def test_frames_tell_where_the_scene_went(others):
    """From before or after the frame, whichever there are: 5 px in the window of 100 ms."""
    evidence = EvidenceBuilder(EvidenceSpec()).build(frame(1000), [frame(at) for at in others])
    motion = from_frames(window(1000), evidence, 1000 * MS).over(900 * MS, 1000 * MS)
    assert motion.t_ns == 1000 * MS and motion.span_ns == 100 * MS
    inner = motion.displacement[2:-2, 2:-2]
    np.testing.assert_allclose(inner[..., 0], 100 * PAN, atol=0.3)
    np.testing.assert_allclose(inner[..., 1], 0, atol=0.3)


def test_the_gap_nearest_to_the_window_is_taken():
    """A camera that has just begun to pan: the short gap sees it, the window's length does not."""
    evidence = EvidenceBuilder(EvidenceSpec()).build(
        frame(1000), [Frame(880 * MS, picture(1000)), frame(960)])
    assert np.abs(from_frames(window(1000), evidence, 1000 * MS).displacement).max() < 0.3


def test_without_frames_the_events_are_asked_and_without_either_nothing_is_known():
    rng = np.random.default_rng(0)
    edges, t = rng.uniform(0, 240, 12), rng.integers(901 * MS, 1000 * MS, 6000)
    x = rng.choice(edges, len(t)) + 40 * (t - 900 * MS) / (100 * MS)
    seen = x < 240
    order = np.argsort(t[seen])
    events = Events(x[seen][order].astype(np.uint16),
                    rng.integers(0, 180, seen.sum()).astype(np.uint16),
                    np.ones(seen.sum(), np.uint8), t[seen][order].astype(np.int64))
    found = scene_motion(window(1000, events), None, 1000 * MS)
    np.testing.assert_array_equal(found.displacement,
                                  global_motion(window(1000, events)).displacement)
    np.testing.assert_allclose(found.over(900 * MS, 1000 * MS).displacement[..., 0], 40, atol=4)
    assert scene_motion(window(1000), None, 0) is None
    alone = EvidenceBuilder(EvidenceSpec()).build(frame(1000), [])
    assert scene_motion(window(1000, events), alone, 1000 * MS) is None


def sample(at_ms, with_frame=True):
    return SyncedInput(at_ms * MS, '', frame(at_ms) if with_frame else None, window(at_ms), SIZE)


def test_inputs_without_a_frame_keep_their_place():
    neighbours = Neighbours(EvidenceSpec())
    assert [s.stamp_ns for s in neighbours.push([sample(0, False)])] == [0]
    assert not neighbours.push([sample(40), sample(60, False), sample(80)])
    released = neighbours.push([sample(120), sample(160), sample(200)])
    stamps = [s.stamp_ns // MS for s in released + neighbours.flush([])]
    assert stamps == [40, 60, 80, 120, 160, 200]
    assert stamps[:2] == [s.stamp_ns // MS for s in released][:2]


def test_a_silent_camera_holds_nothing_up():
    neighbours = Neighbours(EvidenceSpec())
    assert not neighbours.push([sample(0), sample(40)])
    late = round(MAX_DELAY_MS) + 20
    assert [s.stamp_ns // MS for s in neighbours.push([sample(late, False)])] == [0]
    again = neighbours.push([sample(late + 40, False)])
    assert [s.stamp_ns // MS for s in again] == [40, late, late + 40]
    assert again[0].missing_gaps and not again[1].missing_gaps
