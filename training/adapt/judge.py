"""Before and after on frames held out, without labels from anybody: three figures and a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from mos_perception.masks import iou
from training.adapt.mine import MOVES, RESTS, Steps

WORSE_SHARE = 0.01    # of agreement and consistency that may be lost: less is noise
WORSE_ALARMS = 0.02   # false alarms per frame that may be gained


@dataclass(frozen=True)
class Scores:
    """Of `frames` held out: `agreement`, mean IoU of what was found with what is labelled MOVES,
    UNSURE left out; `consistency`, mean IoU of what was found with what was found in the frame
    before, carried along the flow; `false_alarms`, instances per frame that lie on RESTS for the
    most part. None where no frame tells.
    """

    frames: int
    agreement: float | None
    consistency: float | None
    false_alarms: float

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {name: value if value is None else round(value, 4)
                for name, value in asdict(self).items()}


def judge(ids: np.ndarray, labels: np.ndarray, steps: Steps) -> Scores:
    """Of instances `ids` (T, h, w) against `labels` (T, h, w); `steps` between the frames."""
    found = ids > 0
    agreements, consistencies, alarms = [], [], 0
    for at in range(len(ids)):
        known, moves = labels[at] <= MOVES, labels[at] == MOVES
        if (share := iou(found[at] & known, moves)) is not None:
            agreements.append(share)
        for number in np.unique(ids[at][found[at]]):
            alarms += (labels[at] == RESTS)[ids[at] == number].mean() > 0.5
        before = steps.carried(found.astype(np.float32), at, -1) if at else None
        if before is not None:
            sure = before[1] > 0.5
            share = iou(found[at] & sure, (before[0] > 0.5) & sure)
            consistencies += [] if share is None else [share]
    return Scores(len(ids), _mean(agreements), _mean(consistencies),
                  float(alarms / max(len(ids), 1)))


def together(scores: list[Scores]) -> Scores:
    """The mean over recordings, weighted by their frames."""
    def mean(name: str) -> float | None:
        known = [(getattr(one, name), one.frames) for one in scores
                 if getattr(one, name) is not None and one.frames]
        if not known:
            return None
        values, weights = zip(*known)
        return float(np.average(values, weights=weights))

    return Scores(sum(one.frames for one in scores), mean('agreement'), mean('consistency'),
                  mean('false_alarms') or 0.0)


def complaints(before: Scores, after: Scores, of_pictures: bool = False) -> list[str]:
    """In what the model got worse; empty where in nothing. What rests is no false alarm of one that
    sees single pictures, and it may have found nothing that would be consistent before.
    """
    found = []
    for name in ('agreement',) if of_pictures else ('agreement', 'consistency'):
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and (new is None or new < old - WORSE_SHARE):
            found.append(f'{name} fell from {old:.3f} to '
                         f'{"nothing found" if new is None else f"{new:.3f}"}')
    if not of_pictures and after.false_alarms > before.false_alarms + WORSE_ALARMS:
        found.append(f'false alarms rose from {before.false_alarms:.2f} to '
                     f'{after.false_alarms:.2f} per frame')
    return found


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
