"""AP and AR of video tracks against `trackeval` 1.3.0 (goldens/video_ap.json: the made-up boxes and
its numbers), and OVIS' levels by hand.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.evaluation.video_ap import VideoAp, VideoTrack, occlusion_of, track_iou
from mos_perception.masks import coco_codes

GOLDENS = json.loads((Path(__file__).parent / 'goldens/video_ap.json').read_text())
SIZE = GOLDENS['size']


def code(box):
    mask = np.zeros(SIZE, bool)
    mask[box[1]:box[3], box[0]:box[2]] = True
    return {'size': SIZE, 'counts': coco_codes(mask[None])[0]}


def track(row):
    return VideoTrack([box and code(box) for box in row['boxes']], row['category'],
                      row.get('score', 1.0), bool(row.get('crowd', 0)))


def ap_of(videos, shift=lambda found: found):
    total = VideoAp()
    for video in videos:
        total.add([track(row) for row in video['truth']],
                  shift([track(row) for row in video['found']]))
    return total


@pytest.mark.parametrize('case', GOLDENS['cases'])
def test_as_trackeval(case):
    scores = ap_of(case['videos']).scores()
    expected = {name: np.nan if value is None else value for name, value in case['scores'].items()}
    assert scores == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(case=st.sampled_from(GOLDENS['cases']), scale=st.floats(0.1, 3))
def test_only_the_order_of_scores_counts(case, scale):
    def shift(found):
        return [replace(one, score=scale * one.score - 1) for one in found]

    scores = [ap_of(case['videos'], one).scores() for one in (shift, lambda found: found)]
    assert scores[0] == pytest.approx(scores[1], nan_ok=True)


def test_iou_over_frames():
    one = VideoTrack([code((0, 0, 4, 4)), None, code((0, 0, 4, 4))])
    other = VideoTrack([code((0, 0, 4, 2)), code((0, 0, 2, 2)), None])
    assert track_iou(one, other) == 8 / (16 + 4 + 16)
    nothing = VideoTrack([None] * 3)
    assert track_iou(nothing, nothing) == 0 == track_iou(one, nothing)


def test_levels_of_occlusion():
    assert occlusion_of([0, 0.25, 0.75, 0.75]) == 0.75 and np.isnan(occlusion_of([]))
    assert occlusion_of([0, 0.25, 0.75]) == 0.5
    boxes = (0, 0, 6, 6), (10, 0, 16, 6), (20, 0, 26, 6)
    levels = (0.0, 0.5, 0.75)
    truth = [VideoTrack([code(box)], occlusion=level) for box, level in zip(boxes, levels)]
    found = [VideoTrack([code(box)], score=score) for box, score in zip(boxes, (0.9, 0.8, 0.7))]
    total = VideoAp()
    total.add(truth, [found[0], found[2], VideoTrack([code((0, 10, 6, 16))], score=0.95)])
    scores = total.scores()
    assert scores['AP_light'] == pytest.approx(0.5)  # behind the false one; others do not count
    assert scores['AP_heavy'] == pytest.approx(0.5 * 51 / 101)  # 0.5 belongs to it and is missed
    assert scores['AP_medium'] == 0
    assert 'AP_light' not in ap_of(GOLDENS['cases'][0]['videos']).scores()
