"""The classical baselines find what moves plainly, and say nothing where nothing does."""

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import Events, EventWindow, Frame
from mos_perception.errors import FrameError
from training.baselines import BASELINES, BackgroundBaseline, EventCountBaseline, HomographyBaseline
from training.baselines.morphology import components
from training.baselines.motion import global_motion
from training.baselines.scoring import mean_scores, score_baseline
from training.baselines.tune import main as tune
from training.scenes import render_clip

PERIOD_NS = 33_000_000


def scene(shift, object_x, object_y=40):
    """(120, 160, 3) uint8: a textured ground moved by `shift` px and, if asked, a textured
    square."""
    rng = np.random.default_rng(1)
    ground = cv2.resize(
        rng.integers(0, 256, (40, 60, 3), np.uint8), (240, 160), interpolation=cv2.INTER_CUBIC
    )
    square = cv2.resize(
        rng.integers(0, 256, (8, 8, 3), np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC
    )
    image = ground[20:140, 40 + shift:200 + shift].copy()
    if object_x is not None:
        image[object_y:object_y + 32, object_x:object_x + 32] = square
    return image


def events_between(before, after, index, samples=16):
    """The window of events that fire where the light between two frames, sampled in steps, differs
    by 8 levels."""
    x, y, t = [], [], []
    reference = before[0].astype(float).mean(2)
    for k in range(1, samples + 1):
        now = after(k / samples).astype(float).mean(2)
        rows, columns = np.nonzero(np.abs(now - reference) > 8)
        reference[rows, columns] = now[rows, columns]
        x.append(columns)
        y.append(rows)
        t.append(np.full(len(rows), index * PERIOD_NS + k * PERIOD_NS // samples))
    x, y, t = np.concatenate(x), np.concatenate(y), np.concatenate(t)
    events = Events(
        x.astype(np.uint16), y.astype(np.uint16), np.ones(len(x), np.uint8), t.astype(np.int64)
    )
    return EventWindow(events, index * PERIOD_NS, (index + 1) * PERIOD_NS, 120, 160)


def run(baseline, path, shift=0, frames=10):
    """The baseline's last answer to a square at x = path(t) (or None) before a ground that moves
    `shift` px a frame."""
    baseline.reset()

    def image(time):
        return scene(round(shift * time), path(time))
    for i in range(frames):
        window = events_between([image(i - 1)], lambda share, i=i: image(i - 1 + share), i)
        found = baseline.update(Frame((i + 1) * PERIOD_NS, image(i)), window)
    return found


@pytest.mark.parametrize('name', BASELINES)
def test_a_moving_square_is_found(name):
    found = run(BASELINES[name](), lambda time: round(30 + 5 * time))
    truth = np.zeros((120, 160), bool)
    truth[40:72, 75:107] = True
    assert len(found) == 1 and found.moving.all()
    assert (found.masks[0] & truth).sum() / (found.masks[0] | truth).sum() > 0.6
    rows, columns = np.nonzero(found.masks[0])
    assert found.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize('name', BASELINES)
@pytest.mark.parametrize('still', [None, 50])
def test_a_static_scene_is_nothing(name, still):
    assert len(run(BASELINES[name](), lambda time: still)) == 0


def test_homography_undoes_the_camera():
    assert len(run(HomographyBaseline(), lambda time: None, shift=3, frames=3)) == 0
    found = run(HomographyBaseline(), lambda time: round(60 + 4 * time), shift=2, frames=3)
    assert len(found) == 1 and abs(found.boxes[0, 0] - 68) < 4


@pytest.mark.parametrize('motion', [(0, 0, 0, 0), (5, -3, 0, 0), (-4, 2, 0.03, -0.02)])
def test_global_motion_is_recovered(motion):
    rng = np.random.default_rng(0)
    edges = rng.uniform(20, 100, (2, 150)).repeat(40, 1).astype(np.float32)
    ages = rng.random(edges.shape[1]).astype(np.float32)
    x, y = edges[0] - 80, edges[1] - 60
    right, down, turn, zoom = motion
    seen = edges - ages * np.stack(
        [right + zoom * x - turn * y, down + zoom * y + turn * x]
    ).astype(np.float32)
    found = global_motion(seen, ages, (120, 160), np.zeros(4))
    assert (
        np.abs(found[:2] - motion[:2]).max() < 0.6 and np.abs(found[2:] - motion[2:]).max() < 0.012
    )


def test_components_are_disjoint_sorted_and_large_enough():
    moving = np.zeros((50, 40), np.uint8)
    moving[2:5, 2:5], moving[10:20, 10:20], moving[0, 39] = 1, 1, 1
    masks = components(moving, 9 / moving.size)
    assert masks.sum((1, 2)).tolist() == [100, 9] and masks.sum(0).max() == 1
    assert components(np.zeros((5, 4), np.uint8), 0.1).shape == (0, 5, 4)


@pytest.mark.parametrize('baseline', [HomographyBaseline(), BackgroundBaseline()])
def test_reset_forgets_and_a_change_of_size_is_refused(baseline):
    first = Frame(0, scene(0, 60))
    assert len(baseline.update(first)) == 0
    with pytest.raises(FrameError, match='reset the baseline'):
        baseline.update(Frame(1, np.zeros((20, 40, 3), np.uint8)))
    baseline.reset()
    assert len(baseline.update(first)) == 0


def test_event_baseline_wants_windows_of_the_frames_size():
    baseline, frame = EventCountBaseline(), Frame(0, scene(0, 60))
    assert len(baseline.update(frame)) == 0 and len(baseline.update(frame, None)) == 0
    some = np.arange(20)
    window = EventWindow(
        Events(*(some.astype(kind) for kind in (np.uint16, np.uint16, np.uint8, np.int64))),
        0,
        20,
        60,
        80,
    )
    with pytest.raises(FrameError, match='reset the baseline'):
        baseline.update(frame, window)


def test_baselines_are_fair_on_easy_clips():
    clips = [render_clip('easy', seed, 'val') for seed in range(4)]
    scorer = score_baseline(HomographyBaseline(), clips)
    assert scorer.summary()['frames'] == 28
    assert mean_scores(scorer)[0] > 0.5
    assert mean_scores(score_baseline(EventCountBaseline(), clips))[0] > 0.3


def test_tuning_prints_the_best_last(capsys):
    tune(
        [
            '--baseline',
            'mog2',
            '--preset',
            'easy',
            '--clips',
            '1',
            '--frames',
            '4',
            '--warm-up',
            '2',
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line.split()[1]) for line in lines]
    assert len(lines) > 10 and scores == sorted(scores)
