"""Better labels from noisy ones: what neighbouring frames agree on, and what a student sees.

`python -m training.label_rounds --data runs/mosis2d/train --out runs/mosis2d/agreed` writes the
cache of `training.cold_start` with labels that agree over time; `--student runs/agreed_0` adds what
a network that learned from them sees in each single picture: the next round. `--score` as there.

    a round: the student's instances correct the parts that move, and the other way round
    a track: masks of neighbouring frames that fall on each other when each is carried by its own
    motion; kept when seen often enough and once in motion, filled in where it was missed between,
    its masks voted
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from mos_perception.engine.card import sha256_of
from mos_perception.errors import ConfigError
from mos_perception.masks import iou
from mos_perception.motion.flow import pixel_grid
from training.cold_start import Teacher, options, parsed, run
from training.command import command
from training.datasets.frame_pairs import PairSet
from training.evaluate_mosis import Finder, Found, load_network, picture_finder
from training.moving_objects import Part, Video, disjoint
from training.nets.gmos_nano import GmosNano

SAME_IOU = 0.5       # of masks of one thing
LEAST_SEEN = 3       # frames; of a shorter video all
GAP = 2              # frames in which a thing may be missed
VOTERS = 2           # frames on either side
SURE = 0.7           # score from which a single picture is believed where nothing moves
INSIDE = 0.8         # share of an instance that lies in a part
SHARE = 0.15         # of a part, the least of its pieces
FILLED = 0.75        # share of a part that its pieces cover together
APART = 0.1          # share of an instance that may lie in parts which it is none of
_TIE = 1e-3          # of a vote


@dataclass
class Track:
    """One thing over the frames of a video."""

    parts: dict[int, Part] = field(default_factory=dict)
    """By the place of the frame where it was seen."""

    @property
    def moves(self) -> bool:
        """Whether it ever does: what a student alone sees may be part of the background."""
        return any(map(np.any, (part.shifts[1] for part in self.parts.values())))

    @property
    def last(self) -> int:
        """The latest of them."""
        return max(self.parts)


class Agreement:
    """The parts of consecutive frames of a video, the first of them frame 1."""

    def __init__(self, video: Video, frames: list[list[Part]]) -> None:
        self.frames, self._video = frames, video
        self._grid = pixel_grid(video.frames.shape[1:3])
        self._steps: dict[tuple[int, int], np.ndarray] = {}

    def labels(self) -> list[list[Part]]:
        """Per frame the parts of tracks, voted; disjoint."""
        least = min(LEAST_SEEN, len(self.frames))
        found: list[list[Part]] = [[] for _ in self.frames]
        for track in self.tracks():
            if len(track.parts) < least or not track.moves:
                continue
            for t in range(min(track.parts), track.last + 1):
                found[t].append(self._voted(track, t))
        return [disjoint(parts) for parts in found]

    def tracks(self) -> list[Track]:
        """Every part is in one."""
        tracks: list[Track] = []
        for t, parts in enumerate(self.frames):
            active = [track for track in tracks if t - track.last <= GAP + 1]
            overlaps = np.zeros((len(active), len(parts)))
            for row, track in enumerate(active):
                here = self.carried(track, track.last, t)[0] > 0.5
                overlaps[row] = [iou(here, part.mask) or 0.0 for part in parts]
            rows, columns = linear_sum_assignment(overlaps, maximize=True)
            known = {column: active[row] for row, column in zip(rows, columns)
                     if overlaps[row, column] >= SAME_IOU}
            for column, part in enumerate(parts):
                if column not in known:
                    known[column] = Track()
                    tracks.append(known[column])
                known[column].parts[t] = part
        return tracks

    def carried(self, track: Track, start: int, end: int) -> np.ndarray:
        """(2, H, W) float32 in [0, 1]: the mask that was seen in frame `start`, in frame `end`, and
        how far its picture reaches there: each step by the track's motion as it was last measured.
        """
        side = 1 if end > start else -1
        part = track.parts[start]
        mask, known = part.mask.astype(np.float32), np.ones(part.mask.shape, np.float32)
        for t in range(start, end, side):
            part = track.parts.get(t, part)
            at = self._grid + self._back(t + side, -side) - part.shifts[side].astype(np.float32)
            mask, known = (cv2.remap(image, at, None, cv2.INTER_LINEAR) for image in (mask, known))
        return np.stack([mask, known])

    def _back(self, t: int, side: int) -> np.ndarray:
        if (t, side) not in self._steps:
            self._steps[t, side] = self._video.camera(t + 1, side)
        return self._steps[t, side]

    def _voted(self, track: Track, t: int) -> Part:
        """The track in frame t: what most of the frames around say that show the place, and where
        they are at one, the frame itself.
        """
        near = [s for s in track.parts if abs(s - t) <= VOTERS]
        yes, known = np.sum([self.carried(track, s, t) for s in near], 0)
        lead = yes - known / 2
        if t in track.parts:
            mask = np.where(np.abs(lead) < _TIE, track.parts[t].mask, lead > 0)
            return replace(track.parts[t], mask=mask)
        mask = lead > _TIE
        nearest = track.parts[min(near, key=lambda s: abs(s - t))]
        return replace(nearest, mask=mask, gain=min(track.parts[s].gain for s in near))


def combined(parts: list[Part], seen: Found) -> list[Part]:
    """Parts that move and a picture's instances: each corrects the other.

    A part that covers several instances whole is several things; another is whole as it is, and
    instances that lie in it are pieces or wider views of it. An instance by itself stands still.
    """
    found = [piece for part in parts for piece in _pieces(part, seen.masks)]
    moving = np.any([part.mask for part in parts], 0) if parts else False
    for mask, score in zip(seen.masks, seen.scores):
        if np.count_nonzero(mask & moving) <= APART * np.count_nonzero(mask):
            still = {side: np.zeros(2) for side in (-1, 1)}
            found.append(Part(mask, float(score / (1 - min(score, 0.999))), still))
    return disjoint(found)


def _pieces(part: Part, instances: np.ndarray) -> list[Part]:
    """The part, or its pieces where instances (N, H, W) fill it: each pixel to the nearest."""
    inside = [mask for mask in instances
              if np.count_nonzero(mask & part.mask) >= max(INSIDE * np.count_nonzero(mask),
                                                           SHARE * np.count_nonzero(part.mask))]
    if len(inside) < 2 or (np.count_nonzero(np.any(inside, 0) & part.mask)
                           < FILLED * np.count_nonzero(part.mask)):
        return [part]
    away = np.stack([cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3)
                     for mask in inside])
    nearest = away.argmin(0)
    return [replace(part, mask=part.mask & (nearest == row)) for row in range(len(inside))]


def by_agreement(pairs: PairSet, find: Finder | None) -> Teacher:
    """What moves, and with a student's finder what it sees, where frames agree."""
    def labels(number: int) -> list[list[Part]]:
        video = Video(np.array(pairs.frames[number]))
        frames = [video.find(t) for t in range(1, pairs.pairs)]
        if find is not None:
            images = torch.from_numpy(video.frames[1:-1]).permute(0, 3, 1, 2) / 255
            with torch.inference_mode():
                seen = [found for image in images for found in find(image[None])]
            frames = [combined(parts, instances) for parts, instances in zip(frames, seen)]
        return Agreement(video, frames).labels()
    return labels


@command('label_rounds')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument('--student', type=Path, help='run of training.train_video --movable')
    given = parsed(parser, arguments)
    torch.set_num_threads(1)
    pairs = PairSet(given.data)
    find, made_by = None, {'teacher': 'agreement'}
    if given.student is not None:
        network, _ = load_network(given.student)
        if not isinstance(network, GmosNano):
            raise ConfigError(f'{given.student} is a run of training.train: --student takes one of '
                              'training.train_video --movable')
        find = picture_finder(network, SURE, cut=True)
        made_by['student'] = sha256_of(given.student / 'average.safetensors')
    run(given, pairs, by_agreement(pairs, find), made_by)
    return 0


if __name__ == '__main__':
    sys.exit(main())
