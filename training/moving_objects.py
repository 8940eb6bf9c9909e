"""Objects by motion alone, no label and nothing learned: each by how it moves between the frame
before, its own and the next one.

    what the camera's motion leaves unexplained -> its connected parts, the strongest first
    the displacement that explains most of a part, then to fractions of a pixel on either side
    its figure: where that displacement explains better than the background does, cut where the
    picture has an edge; then once more with what the figure shows
    kept: figures that their motion explains better than the background's does (gain)

A pixel's error under a motion is that in the neighbour which it misses by less: after the frame a
thing is uncovered, before it was covered, or the other way round. Legend: H W frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from mos_perception.motion.camera_motion import camera_flow
from mos_perception.motion.flow import pixel_grid
from training.camera_alignment import cameras, inside
from training.min_cut import figure

SIDES = -1, 1        # the neighbours
BLUR_PX = 0.5        # of the errors
UNKNOWN = 12.0       # grey levels: the error where no neighbour shows the point
UNEXPLAINED = 2.5    # grey levels of the background's error, blurred by 1 px, from which it is none
FASTEST_PX = 10      # a frame, beside the camera
MOST = 8             # parts that are followed
SEED_PX = 6          # pixels of the least of them
REST_PX = 12         # and of what a figure leaves of its part
MARGIN_PX = 12       # a figure may reach this far beyond what it was found by
IN_DOUBT = 0.2       # grey levels by which the background has it
ENOUGH = 4.0         # grey levels that decide a pixel; more do not count more
PRICE = 3.0          # of an outline, in grey levels a pixel
LEAST_PX = 20        # of an object
LEAST_GAIN = 1.0     # grey levels, on average over a figure
SAMPLE = 300         # pixels of a part by which its displacement is searched

Area = tuple[slice, slice]
Shifts = dict[int, np.ndarray]
_WHOLE = np.s_[:, :]
_MEAN = np.full((1, 3), 1 / 3, np.float32)  # over the colours


@dataclass(frozen=True)
class Part:
    """One object in one frame."""

    mask: np.ndarray
    """(H, W) bool."""
    gain: float
    """Grey levels by which its motion explains it better."""
    shifts: Shifts
    """By side px (x, y) from the frame to the neighbour, beside the camera's."""

    @property
    def score(self) -> float:
        """The gain in [0, 1)."""
        return 1 - 1 / (1 + self.gain)


class Video:
    """What moves in the frames (T, H, W, 3) uint8 RGB of one video."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self._grid = frames, pixel_grid(frames.shape[1:3])
        self._cameras = cameras(frames)

    def camera(self, t: int, side: int) -> np.ndarray:
        """(H, W, 2) px: where the background of frame t stands in its neighbour, minus where it is.
        """
        matrix = self._cameras[t] if side > 0 else np.linalg.inv(self._cameras[t - 1])
        return camera_flow(matrix, self._grid)

    def find(self, t: int) -> list[Part]:
        """The parts of frame t that move; disjoint, the highest gain first."""
        evidence = _Evidence(self, t)
        ground = best = evidence.ground()
        left = _unexplained(ground)
        found = []
        for _ in range(MOST):
            seed = _strongest(left, best)
            if seed is None:
                break
            left &= ~seed
            if (part := evidence.follow(seed, best)) is None:
                continue
            best = np.where(part.mask, np.minimum(best, evidence.error(part.shifts)), best)
            rest = seed & _unexplained(best) & ~(_wider(part.mask, 1) & ~part.mask)
            if np.count_nonzero(rest) >= REST_PX:  # another thing, beside it or under one figure
                left |= rest
            found.append(part)
        return disjoint(evidence.rivals(found, ground))


class _Evidence:
    """How well motions explain one frame."""

    def __init__(self, video: Video, t: int) -> None:
        self._now = video.frames[t].astype(np.float32)
        self.size = self._now.shape[:2]
        grid = pixel_grid(self.size)
        self.sides = [side for side in SIDES if 0 <= t + side < len(video.frames)]
        self._others = {side: video.frames[t + side].astype(np.float32) for side in self.sides}
        self._at = {side: grid + video.camera(t, side) for side in self.sides}
        self._known = np.any([inside(at, self.size) for at in self._at.values()], 0)

    def ground(self) -> np.ndarray:
        """(H, W) grey levels by which the background misses; 0 where no neighbour shows it: nothing
        says that it is anything else.
        """
        return np.where(self._known, self.error({side: np.zeros(2) for side in self.sides}), 0)

    def error(self, shifts: Shifts, area: Area = _WHOLE) -> np.ndarray:
        """(h, w) grey levels by which a motion misses, in the frame that it misses by less."""
        missed = []
        for side in self.sides:
            error, shown = self._missed(side, shifts[side], area)
            error = cv2.GaussianBlur(np.where(shown, error, UNKNOWN), (0, 0), BLUR_PX)
            missed.append(np.where(shown, error, np.inf))
        least = np.min(missed, 0)
        return np.where(np.isfinite(least), least, UNKNOWN).astype(np.float32)

    def follow(self, seed: np.ndarray, best: np.ndarray) -> Part | None:
        """The object of which `seed` (H, W) bool was seen, beside what explains the frame so far
        with `best` (H, W) errors.
        """
        shift = self._search(seed, best)
        shifts = self._sharpened({side: side * shift for side in self.sides}, seed, best,
                                 (0.5, 0.25, 0.12))
        part = self._cut(seed, shifts, best)
        if part is None:
            return None
        shifts = self._sharpened(shifts, part.mask, best, (0.25, 0.12, 0.06))
        return self._cut(seed | part.mask, shifts, best)

    def rivals(self, found: list[Part], ground: np.ndarray) -> list[Part]:
        """The parts cut once more, each beside all others."""
        errors = [np.where(_wider(part.mask, 2), self.error(part.shifts), np.inf)
                  for part in found]
        again = [self._cut(part.mask, part.shifts,
                           np.min([ground, *errors[:row], *errors[row + 1:]], 0))
                 for row, part in enumerate(found)]
        return [part for part in again if part is not None]

    def _missed(self, side: int, shift: np.ndarray, area: Area) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) grey levels, and (h, w) bool whether the neighbour shows the point."""
        at = self._at[side][area] + shift.astype(np.float32)
        other = cv2.remap(self._others[side], at, None, cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REPLICATE)
        return cv2.transform(cv2.absdiff(self._now[area], other), _MEAN), inside(at, self.size)

    def _cut(self, within: np.ndarray, shifts: Shifts, best: np.ndarray) -> Part | None:
        """The figure of a motion about a mask (H, W) bool; None where there is none that gains."""
        area = _area(within, MARGIN_PX)
        gain = np.where(self._known[area], best[area] - self.error(shifts, area), 0)
        mask = np.zeros(self.size, bool)
        mask[area] = _largest(figure(np.clip(gain - IN_DOUBT, -ENOUGH, ENOUGH),
                                     self._now[area], PRICE))
        if np.count_nonzero(mask) < LEAST_PX:
            return None
        gain = float(gain[mask[area]].mean())
        return Part(mask, gain, shifts) if gain >= LEAST_GAIN else None

    def _search(self, seed: np.ndarray, best: np.ndarray) -> np.ndarray:
        """(2,) whole px to the next frame, and as many back to the one before, that explain most of
        the seed.
        """
        rows, columns = np.nonzero(seed)
        step = -(-len(rows) // SAMPLE)
        rows, columns = rows[::step], columns[::step]
        reach = np.arange(-FASTEST_PX, FASTEST_PX + 1)
        shifts = np.stack(np.meshgrid(reach, reach), 2).reshape(-1, 2)
        missed = np.full((len(shifts), len(rows)), np.inf)
        for side in self.sides:
            other = cv2.remap(self._others[side], self._at[side], None, cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REPLICATE)
            other = np.pad(other, [(FASTEST_PX, FASTEST_PX)] * 2 + [(0, 0)], 'edge')
            seen = other[rows + FASTEST_PX + side * shifts[:, 1:],
                         columns + FASTEST_PX + side * shifts[:, :1]]
            missed = np.minimum(missed, np.abs(self._now[rows, columns] - seen) @ _MEAN[0])
        gains = np.maximum(best[rows, columns] - missed, 0).sum(1)
        return shifts[gains.argmax()].astype(np.float64)

    def _sharpened(self, shifts: Shifts, mask: np.ndarray, best: np.ndarray,
                   steps: tuple[float, ...]) -> Shifts:
        """The shifts (px) to the last of `steps`, each side by itself, by what they miss in a mask
        at most as much as `best` does.
        """
        area = _area(mask, 0)
        within, limit = mask[area], best[area][mask[area]]

        def missed(side: int, shift: np.ndarray) -> float:
            error, shown = self._missed(side, shift, area)
            return float(np.where(shown[within], np.minimum(error[within], limit), limit).sum())

        found = {}
        for side, shift in shifts.items():
            least, start = missed(side, shift), shift
            for step in steps:
                while True:
                    tried = [(missed(side, shift + move), tuple(shift + move))
                             for move in step * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])]
                    error, moved = min(tried)
                    if error >= least or np.abs(np.array(moved) - start).max() > FASTEST_PX:
                        break
                    least, shift = error, np.array(moved)
            found[side] = shift
        return found


def _unexplained(errors: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(errors, (0, 0), 1) > UNEXPLAINED


def _strongest(left: np.ndarray, errors: np.ndarray) -> np.ndarray | None:
    """(H, W) bool: of what is `left` the part that has most of the errors; None without one."""
    count, labels = cv2.connectedComponents(_wider(left, 1).view(np.uint8))
    weights = np.bincount(labels[left], errors[left], count)
    seed = left & (labels == weights.argmax())
    return seed if np.count_nonzero(seed) >= SEED_PX else None


def disjoint(found: list[Part]) -> list[Part]:
    """A pixel that two have is that one's which gains more."""
    kept = []
    for part in sorted(found, key=lambda part: part.gain, reverse=True):
        mask = part.mask & ~np.any([other.mask for other in kept], 0)
        if np.count_nonzero(mask) >= LEAST_PX:
            kept.append(replace(part, mask=mask))
    return kept


def _area(mask: np.ndarray, margin: int) -> Area:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
            slice(max(0, columns[0] - margin), columns[-1] + margin + 1))


def _wider(mask: np.ndarray, by: int) -> np.ndarray:
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.dilate(mask.view(np.uint8), kernel).view(bool)


def _largest(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    return mask if count < 2 else labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
