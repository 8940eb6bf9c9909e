"""The first teacher of MoSIS: objects found by motion alone, no label, nothing learned before.

`python -m training.cold_start --data runs/mosis2d/train --out runs/mosis2d/cold` writes a cache for
`training.train_video --movable`; `--score` says instead how good its masks are (frame pairs know
the truth), `--truth` caches that: the supervised pair.

    flow to the frame before and the one after, minus the camera's -> what moves in both
    its connected parts, split by velocity -> hypotheses
    a pixel belongs to who explains it best, the background or a hypothesis, by warping either frame
    kept: masks that their motion explains better than the background's does (the gain of
    docs/mosis.md)

Legend: H W frame, K hypotheses. After the frame a thing is uncovered, before it was covered, or the
other way round: of the two frames each pixel takes the one that shows it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from mos_perception.evaluation.metrics import MaskAp
from mos_perception.masks import mask_boxes
from mos_perception.motion.camera_motion import camera_flow, fit_homography
from mos_perception.motion.flow import DenseFlow, FlowSettings, length, pixel_grid, warp
from training.command import command
from training.datasets.frame_pairs import PairSet

FINER = 3            # times the frames' size: where flow is found
SCALE = 2            # times the frames' size: what is cached, so that maps at half have the frames'
MOVES_PX = 0.8       # residual flow to both frames from which something moves
LEAST_PX = 30        # pixels of a hypothesis, and a third more of a mask
MODES = 3            # velocities that one connected part may have
SAME_PX = 1.2        # velocities this near are one
BLUR_PX = 0.7        # of the errors that are compared; .5 to 1 do on the `val` scenes
REACH_PX = 12        # a mask reaches this far beyond where its motion was seen
FAR = 0.15           # grey levels for each of these
BACKGROUND = 0.5     # grey levels by which an object must be better
LEAST_GAIN = 1.0     # grey levels, on average over a mask
SHARD = 200          # samples of a file


@dataclass(frozen=True)
class Part:
    """`mask` (H, W) bool and by how many grey levels its motion explains it better."""

    mask: np.ndarray
    gain: float

    @property
    def score(self) -> float:
        """The gain in [0, 1)."""
        return 1 - 1 / (1 + self.gain)


class Finder:
    """Finds what moves in frames of one size (height, width)."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._fine = size[0] * FINER, size[1] * FINER
        self._flow = DenseFlow(FlowSettings(self._fine, 'medium', 0))
        self._grid = pixel_grid(size)

    def find(self, before: np.ndarray, now: np.ndarray, after: np.ndarray) -> list[Part]:
        """The parts of `now` that move; disjoint. Frames (H, W, 3) uint8 RGB."""
        fine = self._grey(now)
        flows = [self._flow(fine, self._grey(other), self.size) for other in (before, after)]
        cameras = [camera_flow(fit_homography(flow).matrix, self._grid) for flow in flows]
        residuals = [flow - camera for flow, camera in zip(flows, cameras)]
        found = hypotheses(*residuals)
        if not found:
            return []
        colours = now.astype(np.float32), (before.astype(np.float32), after.astype(np.float32))
        errors = [self._error(*colours, cameras, np.zeros(2)) + BACKGROUND]
        for velocity, seen in found:
            away = cv2.distanceTransform((~seen).view(np.uint8), cv2.DIST_L2, 3)
            error = self._error(*colours, cameras, velocity) + FAR * away
            errors.append(np.where(away > REACH_PX, np.inf, error))
        return parts(np.stack(errors))

    def _grey(self, image: np.ndarray) -> np.ndarray:
        return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), self._fine[::-1],
                          interpolation=cv2.INTER_CUBIC)

    def _error(self, now: np.ndarray, others: tuple[np.ndarray, np.ndarray],
               cameras: list[np.ndarray], velocity: np.ndarray) -> np.ndarray:
        """(H, W) grey levels by which a motion misses, in the frame that it misses by less."""
        missed = [np.abs(now - warp(other, (camera + sign * velocity).astype(np.float32),
                                    self._grid)).mean(2)
                  for other, camera, sign in zip(others, cameras, (-1, 1))]
        return np.minimum(*(cv2.GaussianBlur(error, (0, 0), BLUR_PX) for error in missed))


def hypotheses(before: np.ndarray, after: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Velocities (2,) px a frame and where each was seen (H, W) bool, from the residual flows
    (H, W, 2) to the frame before and the one after.
    """
    strength = np.minimum(length(before), length(after))
    moves = cv2.morphologyEx((strength > MOVES_PX).view(np.uint8), cv2.MORPH_OPEN,
                             np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(moves)
    velocities, found = (after - before) / 2, []
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] < LEAST_PX:
            continue
        left = labels == part
        for _ in range(MODES):
            if (mode := _mode(velocities, left)) is None:
                break
            found.append((mode, left & _near(velocities, mode)))
            left &= ~found[-1][1]
    return found


def _near(velocities: np.ndarray, mode: np.ndarray) -> np.ndarray:
    return np.abs(velocities - mode).max(2) < SAME_PX


def _mode(velocities: np.ndarray, left: np.ndarray) -> np.ndarray | None:
    """(2,) the velocity that most pixels that are `left` have, by mean shift from the median; None
    where too few agree.
    """
    if np.count_nonzero(left) < LEAST_PX:
        return None
    mode = np.median(velocities[left], 0)
    for _ in range(8):
        near = left & _near(velocities, mode)
        if np.count_nonzero(near) < LEAST_PX:
            return None
        mode = velocities[near].mean(0)
    return mode


def parts(errors: np.ndarray) -> list[Part]:
    """Of errors (1 + K, H, W), the background's first: each pixel to the least; of each hypothesis
    the largest connected part without holes, if it explains enough.
    """
    owner, found = errors.argmin(0), []
    taken = np.zeros(owner.shape, bool)
    for number in range(1, len(errors)):
        own = (owner == number).view(np.uint8)
        own = cv2.morphologyEx(own, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        own = cv2.morphologyEx(own, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        outlines, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not outlines:
            continue
        filled = np.zeros(owner.shape, np.uint8)
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
        mask = filled.astype(bool) & ~taken
        reached = mask & np.isfinite(errors[number])
        if np.count_nonzero(mask) < 4 / 3 * LEAST_PX or not reached.any():
            continue
        gain = float((errors[0] - errors[number])[reached].mean())
        if gain > LEAST_GAIN:
            taken |= mask
            found.append(Part(mask, gain))
    return found


def label(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of disjoint masks: 1, 2, ..., the largest first."""
    found = np.zeros(size, np.uint8)
    for number, mask in enumerate(sorted(masks, key=np.count_nonzero, reverse=True)[:250], 1):
        found[mask] = number
    return found


def objects(ids: np.ndarray, least: int) -> list[np.ndarray]:
    """(H, W) bool of each object of ids (H, W) that shows `least` pixels."""
    areas = np.bincount(ids.ravel())
    return [ids == number for number in range(1, len(areas)) if areas[number] >= least]


def cache(pairs: PairSet, out: Path, truth: bool) -> None:
    """Write `coldNNNN.image.npy` and `.label.npy`; shards that are there stay."""
    out.mkdir(parents=True, exist_ok=True)
    finder = Finder(pairs.size)
    for begin in track(range(0, len(pairs.middles), SHARD), 'labels', console=Console(stderr=True)):
        file = out / f'cold{begin // SHARD:04}.label.npy'
        if file.exists():
            continue
        images, labels = [], []
        for video, t in pairs.middles[begin:begin + SHARD]:
            if truth:
                masks = objects(pairs.ids[video, t], pairs.min_visible)
            else:
                masks = [part.mask for part in finder.find(*pairs.frames[video, t - 1:t + 2])]
            large = cv2.resize(np.asarray(pairs.frames[video, t]), None, fx=SCALE, fy=SCALE,
                               interpolation=cv2.INTER_CUBIC)
            images.append(large.transpose(2, 0, 1))
            labels.append(label(masks, pairs.size).repeat(SCALE, 0).repeat(SCALE, 1))
        for path, values in ((out / f'{file.name[:8]}.image.npy', images), (file, labels)):
            scratch = path.with_suffix('.part.npy')
            np.save(scratch, np.stack(values))
            scratch.replace(path)


def score(pairs: PairSet) -> tuple[float, float, float] | None:
    """Mask (mAP, AP50, AP75) of the labels themselves, by their gain; None without objects."""
    finder, found = Finder(pairs.size), MaskAp()
    for video, t in track(pairs.middles, 'score', console=Console(stderr=True)):
        masks = finder.find(*pairs.frames[video, t - 1:t + 2])
        found.add(objects(pairs.ids[video, t], pairs.min_visible), [part.mask for part in masks],
                  np.array([part.score for part in masks], np.float32),
                  mask_boxes([part.mask for part in masks]))
    return found.values()


@command('cold_start')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True,
                        help='set of training.datasets.frame_pairs')
    parser.add_argument('--out', type=Path, help='where the cache goes')
    parser.add_argument('--truth', action='store_true', help="the truth's labels instead")
    parser.add_argument('--score', action='store_true', help='AP of the labels')
    given = parser.parse_args(arguments)
    if given.out is None and not given.score:
        parser.error('give --out, --score or both')
    cv2.setNumThreads(1)
    pairs = PairSet(given.data)
    if given.out is not None:
        cache(pairs, given.out, given.truth)
    if given.score and (values := score(pairs)) is not None:
        print('mask mAP {:.3f}, AP50 {:.3f}, AP75 {:.3f}'.format(*values))
    return 0


if __name__ == '__main__':
    sys.exit(main())
