"""Whether the Temporal Refiner mends what the referring tracker did: the same masks to both.

    python -m bench.refiner [--masks oracle gmos_nano] [--kinds crossing jumps] [--clips 5] [--json]

Clips, masks and scores as in `bench.trackers`; beside them AP and AR of whole tracks as YouTube-VIS
has them. A track's score is its mean over the frames (tracker), or the refiner's. `Rank` leaves the
tracker's tracks as they are and takes the refiner's scores alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from bench.trackers import CLIPS, JUMP, LOST_S, Sums, masks_of, open_model, rendered, scored, show
from mos_perception.config import Config
from mos_perception.datatypes import Instances
from mos_perception.evaluation.track_metrics import TrackCounts, count_tracks
from mos_perception.evaluation.video_ap import VideoAp, VideoTrack, tracks_of
from mos_perception.models import Model
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.tracking.referring import Tracked, load_referring
from mos_perception.tracking.refiner import Named, NamedWindows, load_refiner
from training.scenes.clip import Clip
from training.tracker_cache import LEAST_PIXELS


@dataclass
class Method:
    """One way to name and to score instances, and what it got so far."""

    sums: Sums = field(default_factory=Sums)
    ap: VideoAp = field(default_factory=VideoAp)

    def scores(self) -> dict[str, float]:
        """Of all clips."""
        return {**self.ap.scores(), **self.sums.counts.scores()}


def tracked(clip: Clip, found: list[Instances], kept: list[int], config: Config,
            model: Model | None) -> list[Tracked]:
    """What the referring tracker made of the kept frames."""
    tracker = load_referring(config, None if model is None else model.card)
    backward, frames = BackwardFlow(), []
    for at in kept:
        sample = backward.of(clip.frame(at))
        tracker.update(found[at], sample.stamp_ns, sample.flow, sample.flow_error, sample.image)
        frames.append(tracker.tracked)
    return frames


def by_tracker(frames: list[Tracked]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and scores of each frame's instances; a track's score is its mean."""
    sums: dict[int, list[float]] = {}
    ids = []
    for frame in frames:
        names = np.zeros(len(frame.found), np.int64)
        for number, row in zip(frame.ids, frame.instance):
            if row >= 0:
                names[row] = number
                sums.setdefault(int(number), []).append(float(frame.found.scores[row]))
        ids.append(names)
    means = {number: float(np.mean(values)) for number, values in sums.items()} | {0: 0.0}
    return [(names, np.array([means[int(name)] for name in names])) for names in ids]


def video_tracks(found: list[Instances], named: list[tuple[np.ndarray, np.ndarray]]
                 ) -> list[VideoTrack]:
    """The tracks of a clip."""
    return tracks_of(len(found), ((at, instances.masks, *named[at])
                                  for at, instances in enumerate(found)))


def truth_tracks(clip: Clip, kept: list[int]) -> list[VideoTrack]:
    """The objects that move at some time, while they move and can be seen."""
    seen = (clip.moving_masks(at, LEAST_PIXELS) for at in kept)
    return tracks_of(len(kept), ((place, masks, ids, np.ones(len(ids)))
                                 for place, (masks, ids) in enumerate(seen)))


def run_clip(clip: Clip, kind: str, config: Config, refiners: list[str], model: Model | None,
             methods: dict[str, Method]) -> None:
    """All methods on one clip."""
    kept = [at for at in range(len(clip)) if kind != 'jumps' or at // JUMP % 2 == 0]
    found = masks_of(clip, model)
    frames = tracked(clip, found, kept, config, model)
    own = by_tracker(frames)
    named_by = {'tracker': own}
    for refiner in refiners:
        windows = NamedWindows(load_refiner(refiner, load_referring(config, None).card))
        rows: list[Named] = [row for frame in frames
                             for row in windows.push(frame)] + windows.flush()
        of = f' {Path(refiner).stem}' if len(refiners) > 1 else ''
        named_by[f'rank{of}'] = [(names, row.scores) for (names, _), row in zip(own, rows)]
        named_by[f'refiner{of}'] = [(row.track, row.scores) for row in rows]
    truth, shown = truth_tracks(clip, kept), [found[at] for at in kept]
    for name, named in named_by.items():
        method = methods.setdefault(name, Method())
        method.ap.add(truth, video_tracks(shown, named))
        method.sums.add(_counts(clip, kept, shown, named))


def _counts(clip: Clip, kept: list[int], shown: list[Instances],
            named: list[tuple[np.ndarray, np.ndarray]]) -> TrackCounts:
    return count_tracks([scored(clip, at, instances, names)
                         for at, instances, (names, _) in zip(kept, shown, named)])


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--masks', nargs='+', default=['oracle', 'gmos_nano'])
    parser.add_argument('--kinds', nargs='+', default=list(CLIPS), choices=list(CLIPS))
    parser.add_argument('--clips', type=int, default=5, help='of each kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--split', default='test', choices=('val', 'test'))
    parser.add_argument('--tracker-model', default=Config().tracker_model)
    parser.add_argument('--refiner', nargs='+', default=['refiner_nano'])
    parser.add_argument('--json', action='store_true', help='print JSON alone')
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    config = Config(tracker='referring', tracker_model=given.tracker_model, track_lost_s=LOST_S)
    found = {}
    for masks in given.masks:
        model = open_model(masks)
        for kind in given.kinds:
            methods: dict[str, Method] = {}
            for seed in range(given.seed, given.seed + given.clips):
                run_clip(rendered(kind, seed, given.split, model), kind, config, given.refiner,
                         model, methods)
                print(f'{masks}, {kind}: clip {seed}', file=sys.stderr, flush=True)
            found[f'{masks}, {kind}'] = {name: one.scores() for name, one in methods.items()}
            print(json.dumps({f'{masks}, {kind}': found[f'{masks}, {kind}']}), file=sys.stderr)
    if given.json:
        print(json.dumps({'clips': given.clips, 'seed': given.seed, **found}, indent=1))
    else:
        show(found)


if __name__ == '__main__':
    main()
