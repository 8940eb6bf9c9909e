"""How good a baseline is on rendered clips."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mos_perception.datatypes import Instances, Tracks
from mos_perception.evaluation.score import Scorer
from training.baselines.baseline import Baseline
from training.scenes.clip import Clip

_NO_TRACKS = Tracks(
    ids=np.zeros(0, np.int64),
    states=np.zeros(0, np.int64),
    ages_s=np.zeros(0),
    boxes=np.zeros((0, 4)),
    velocities=np.zeros((0, 2)),
    instance=np.zeros(0, np.int64),
)


def add_frame(scorer: Scorer, clip: Clip, index: int, found: Instances) -> None:
    """Score what was found in frame `index` of a clip; nothing is tracked."""
    moving = set(np.flatnonzero(clip.moving[index]).tolist())
    scorer.add(int(clip.stamps_ns[index]), clip.ids[index], moving, found, _NO_TRACKS)


def score_baseline(baseline: Baseline, clips: Iterable[Clip], warm_up: int = 1,
                   min_pixels: int = 20) -> Scorer:
    """Scores over all frames but the first `warm_up` of each clip, which it sees all the same."""
    scorer = Scorer(min_pixels)
    for clip in clips:
        baseline.reset()
        for index in range(len(clip)):
            found = baseline.update(clip.frame(index), clip.window(index))
            if index >= warm_up:
                add_frame(scorer, clip, index, found)
    return scorer


def mean_scores(scorer: Scorer) -> tuple[float, float] | None:
    """(mIoU01, mIoU_ins) by the released protocol over the frames that hold a moving object.

    None without such frames.
    """
    summary = scorer.summary()
    if not summary['frames_with_gt']:
        return None
    released = summary['released']
    share = summary['frames'] / summary['frames_with_gt']
    return released['mIoU01'] * share, released['mIoU_ins_valid']
