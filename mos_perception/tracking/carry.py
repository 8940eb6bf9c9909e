"""Masks carried to the next frame along the dense flow.

Backward: a pixel x belongs to the track whose mask held x + flow(x) one answer ago. Of the flow at
those pixels one similarity (shift, turn, scale) is fitted and the mask *as last seen* is moved by
all similarities since: the outline stays sharp however long it is carried, while one that is
resampled along the flow itself frays within a second. The share of the mask that follows the
similarity and looks as before says whether the object is still there. Legend: P pixels, h w the
flow's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mos_perception.masks import mask_box
from mos_perception.motion.flow import pixel_grid

AGREE_PX = 1.0        # of the flow's size: DIS is .1 to .5 px off where the surface is one
AGREE_LEVELS = 20.0   # grey levels beyond twice the frame's median: other surfaces differ by more
MOST_POINTS = 250     # of a mask that the fit looks at
LEAST_POINTS = 4
_RIDGE_PX = 2.0       # a mask of less spread shows no turn or scale above DIS' noise
_RING_PX = 6          # width of the surroundings that an object is compared with
_ROUNDS = 2


@dataclass(frozen=True)
class CarriedMask:
    """A mask where it was last seen and where it is now.

    `source` (H', W') bool, cut out along its box, with its corner at `origin` (x, y) px; `matrix`
    (3, 3) takes image px of then to image px of now; `mask` and `box` (4,) px: the same of now.
    """

    source: np.ndarray
    origin: tuple[int, int]
    matrix: np.ndarray
    mask: np.ndarray
    box: np.ndarray

    @staticmethod
    def seen(mask: np.ndarray, box: np.ndarray) -> CarriedMask:
        """A mask just seen: (H', W') bool along its `box`."""
        return CarriedMask(mask, (round(float(box[0])), round(float(box[1]))), np.eye(3), mask, box)

    def moved(self, motion: np.ndarray, size: tuple[int, int]) -> CarriedMask | None:
        """Moved on by `motion` (3, 3) in px of an image of (height, width); None outside of it."""
        matrix = motion @ self.matrix
        (height, width), (x0, y0) = self.source.shape, self.origin
        corners = np.array([[x0 - 1, x0 + width, x0 - 1, x0 + width],
                            [y0 - 1, y0 - 1, y0 + height, y0 + height], [1, 1, 1, 1]])
        at = matrix[:2] @ corners
        low = np.clip(np.floor(at.min(1)), 0, size[::-1]).astype(int)
        high = np.clip(np.ceil(at.max(1)) + 1, 0, size[::-1]).astype(int)
        if (high <= low).any():
            return None
        local = _shift(*-low) @ matrix @ _shift(x0, y0)
        grey = cv2.warpAffine(self.source.view(np.uint8) * 255, local[:2],
                              tuple((high - low).tolist()), flags=cv2.INTER_LINEAR)
        left, top, right, bottom = mask_box(inside := grey > 127)
        if right <= left:
            return None
        box = np.array([left, top, right, bottom], np.float32) + np.tile(low, 2)
        return replace(self, matrix=matrix, mask=inside[top:bottom, left:right],
                       box=box.astype(np.float32))


@dataclass(frozen=True)
class Carry:
    """What the flow says of one mask.

    `motion` (3, 3) takes px of the frame before to px of this one; `support` in [0, 1] is the share
    of the mask that follows it; `against` (2,) is the way it went against its surroundings, in
    image widths; `around` (3, 3) is the shift of those, as `motion`.
    """

    motion: np.ndarray
    support: float
    against: np.ndarray
    around: np.ndarray


def carry(masks: Sequence[tuple[np.ndarray, np.ndarray]], flow: np.ndarray, error: np.ndarray,
          size: tuple[int, int]) -> list[Carry | None]:
    """The motion of each (mask, box) cut out of a frame of (height, width); None where none shows.

    `flow` (h, w, 2) and `error` (h, w) as in `SyncedInput`. Where masks cover each other, a later
    one hides an earlier one.
    """
    before = np.zeros(flow.shape[:2], np.float32)
    ratio = size[1] / flow.shape[1], size[0] / flow.shape[0]
    areas = [_paint(before, number, mask, box, ratio)
             for number, (mask, box) in enumerate(masks, 1)]
    now = cv2.remap(before, pixel_grid(before.shape) + flow, None, cv2.INTER_NEAREST,
                    borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    good = error <= AGREE_LEVELS + 2 * float(np.median(error))
    return [_carry(now == number, area, flow, good, now == 0, ratio)
            for number, area in enumerate(areas, 1)]


def fit_similarity(points: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((3, 3) similarity that most of `flow` (P, 2) px at `points` (P, 2) agrees with, (P,) which).

    From the median shift, least squares on those within `AGREE_PX`, twice. Turn and scale are held
    back where the points lie close together. Leaving the outline's pixels out, where DIS mixes two
    motions, brings nothing (measured with `bench.tracking`).
    """
    shift, turn = np.median(flow, axis=0), np.zeros(2)
    centre = points.mean(0)
    agree = np.linalg.norm(flow - shift, axis=1) <= AGREE_PX
    for _ in range(_ROUNDS):
        if np.count_nonzero(agree) < LEAST_POINTS:
            break
        at, by = points[agree], flow[agree]
        centre, shift = at.mean(0), by.mean(0)
        at, by = at - centre, by - shift
        spread = (at * at).sum() + len(at) * _RIDGE_PX ** 2
        turn = np.array([(at * by).sum(), (at[:, 0] * by[:, 1] - at[:, 1] * by[:, 0]).sum()])
        turn /= spread
        agree = np.linalg.norm(flow - shift - _turned(points - centre, turn), axis=1) <= AGREE_PX
    matrix = np.eye(3)
    matrix[:2, :2] += [[turn[0], -turn[1]], [turn[1], turn[0]]]
    matrix[:2, 2] = shift + centre - matrix[:2, :2] @ centre
    return matrix, agree


def _carry(mask: np.ndarray, area: int, flow: np.ndarray, good: np.ndarray,
           background: np.ndarray, ratio: tuple[float, float]) -> Carry | None:
    y, x = np.nonzero(mask)
    count = len(x)
    if count < LEAST_POINTS:
        return None
    every = -(-count // MOST_POINTS)
    y, x = y[::every], x[::every]
    backward, agree = fit_similarity(np.stack([x, y], 1).astype(np.float64),
                                     flow[y, x].astype(np.float64))
    support = np.count_nonzero(agree & good[y, x]) / len(x) * count / area
    to_image = np.array([[ratio[0], 0, (ratio[0] - 1) / 2], [0, ratio[1], (ratio[1] - 1) / 2],
                         [0, 0, 1]])
    motion = to_image @ np.linalg.inv(backward) @ np.linalg.inv(to_image)
    window = tuple(slice(max(0, side.min() - _RING_PX), side.max() + _RING_PX + 1)
                   for side in (y, x))
    ring = flow[window][background[window]]
    rest = np.median(ring if len(ring) else flow.reshape(-1, 2), axis=0)
    return Carry(motion, min(1.0, support), (rest - np.median(flow[y, x], axis=0)) / flow.shape[1],
                 _shift(*-rest * ratio))


def _paint(canvas: np.ndarray, number: int, mask: np.ndarray, box: np.ndarray,
           ratio: tuple[float, float]) -> int:
    """Set the pixels of `canvas` whose centre lies on the mask; how many there are."""
    x0, y0 = round(float(box[0])), round(float(box[1]))
    spans = []
    for first, length, side, step in ((y0, mask.shape[0], canvas.shape[0], ratio[1]),
                                      (x0, mask.shape[1], canvas.shape[1], ratio[0])):
        at = ((np.arange(side) + 0.5) * step).astype(int) - first
        low, high = np.searchsorted(at, [0, length])
        spans.append((slice(low, high), at[low:high]))
    (rows, from_rows), (columns, from_columns) = spans
    inside = mask[from_rows][:, from_columns]
    canvas[rows, columns][inside] = number
    return int(np.count_nonzero(inside))


def _turned(points: np.ndarray, turn: np.ndarray) -> np.ndarray:
    x, y = points.T
    return np.stack([turn[0] * x - turn[1] * y, turn[1] * x + turn[0] * y], 1)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
