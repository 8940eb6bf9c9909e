"""What dropping the instances that the camera explains costs and brings, on rendered clips.

`python -m training.ego_motion --clips 10` prints, for the masks of the truth and for those the
model finds from events: of the true movers the share that is kept, of the false ones the share that
is dropped, where the camera moves and over all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import EventWindow, Instances, SyncedInput
from mos_perception.models import Model, load_model
from mos_perception.motion.own_motion import camera_motion, own_motion
from mos_perception.stages import StageTimes
from training.command import command
from training.scenes import render_clip
from training.scenes.clip import Clip

PRESETS = ('mid', 'train')
EVERY = 3          # frames of a clip
MIN_PIXELS = 30    # of a true mover
TRUE_IOU = 0.3     # with one of them, from which a find is true
FALSE_SHARE = 0.2  # of a find that may lie on movers if it is false, at no IoU above half of that


class Tally:
    """Shares of decisions, by name."""

    def __init__(self) -> None:
        self._found: dict[str, list[bool]] = {}

    def add(self, name: str, camera_moves: bool, right: bool) -> None:
        """One decision."""
        self._found.setdefault(name, []).append(right)
        if camera_moves:
            self._found.setdefault(f'{name}, camera moves', []).append(right)

    def shares(self) -> dict[str, dict[str, float]]:
        """`share` that was right, and the `count`."""
        return {name: {'share': round(float(np.mean(rows)), 3), 'count': len(rows)}
                for name, rows in self._found.items()}


def judge(model: Model, clip: Clip, tally: Tally, window_ns: int) -> None:
    """Add the frames of one clip."""
    for index in range(2, len(clip), EVERY):
        window = clip.window(index, window_ns)
        truth, _ = clip.moving_masks(index, MIN_PIXELS)
        moves = camera_motion(window, truth) is not None
        for kept in own_motion(window, truth, True):
            tally.add('masks of the truth: kept', moves, bool(kept))
        found = model.detect(SyncedInput(0, '', None, window, clip.size), StageTimes())
        _judge_found(found, truth, window, moves, tally)


def _judge_found(found: Instances, truth: np.ndarray, window: EventWindow, moves: bool,
                 tally: Tally) -> None:
    movers = truth.any(0) if len(truth) else np.zeros(found.size, bool)
    for mask, kept in zip(found.masks, own_motion(window, found.masks, False)):
        best = max(((mask & other).sum() / (mask | other).sum() for other in truth), default=0.0)
        if best >= TRUE_IOU:
            tally.add('true finds: kept', moves, bool(kept))
        elif best < FALSE_SHARE / 2 and (mask & movers).sum() < FALSE_SHARE * mask.sum():
            tally.add('false finds: dropped', moves, not kept)


def clips(count: int, seed: int) -> Iterable[Clip]:
    """`count` clips of every preset, of the test split."""
    for preset in PRESETS:
        for number in range(seed, seed + count):
            yield render_clip(preset, number, 'test')


@command('ego_motion')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='dimos_nano')
    parser.add_argument('--clips', type=int, default=10, help='of each of: ' + ', '.join(PRESETS))
    parser.add_argument('--seed', type=int, default=1000, help='first clip')
    args = parser.parse_args(arguments)
    model = load_model(Config(model=args.model, backend='onnxruntime', ego_motion='off'))
    tally = Tally()
    for clip in clips(args.clips, args.seed):
        judge(model, clip, tally, round(model.card.window.length_ms * 1e6))
    print(json.dumps(tally.shares(), indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
