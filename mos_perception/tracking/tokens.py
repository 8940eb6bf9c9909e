"""What the referring tracker sees: a vector per instance, a place per slot, relations of both.

Training and the robot make them with this very code. A slot is a living track. Legend: N instances,
M slots, D embedding channels, boxes are x0 y0 x1 y1 in shares of the image's width and height.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from mos_perception.datatypes import Instances

_LEVELS = 4  # of each colour in the histogram
LOOKS = _LEVELS ** 3 + 3  # channels: colour histogram, mean colour
PLACE = 6  # channels
PAIR = 8  # channels
SHAPE = 16  # cells along each side of an instance's box
_GEOMETRY = 6  # channels of a vector besides embedding and looks
_LEAST_SIDE = 1e-3  # of a box, in shares of the image
_LEAST_MATCH = 0.15  # score from which an instance may be what a slot starts from


@dataclass(frozen=True)
class Tokens:
    """`embeddings` (N, D) of length 1, or zeros; `looks` (N, LOOKS), zeros where there is no frame;
    `shapes` (N, SHAPE, SHAPE), the share of each cell of the box that the mask covers; `boxes`
    (N, 4); `scores` (N,). All float32.
    """

    embeddings: np.ndarray
    looks: np.ndarray
    shapes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: np.ndarray) -> Tokens:
        """The given rows (indices or mask)."""
        return Tokens(*(getattr(self, part.name)[rows] for part in fields(self)))

    def vectors(self) -> np.ndarray:
        """(N, D + LOOKS + 6) float32: embedding, looks, box, score, whether the looks are known."""
        known = (self.looks != 0).any(1, keepdims=True)
        return np.concatenate([self.embeddings, self.looks, shape_of(self.boxes),
                               self.scores[:, None], known], 1).astype(np.float32)


def width(channels: int) -> int:
    """Length of a vector of a model whose embeddings have `channels`."""
    return channels + LOOKS + _GEOMETRY


def tokens(found: Instances, image: np.ndarray | None) -> Tokens:
    """Of a frame's instances and the frame itself, (H, W, 3) uint8 of their size."""
    height, wide = found.size
    looks = np.zeros((len(found), LOOKS), np.float32)
    shapes = np.zeros((len(found), SHAPE, SHAPE), np.float32)
    seen = image is not None and image.shape[:2] == found.size
    for row, box in enumerate(found.boxes.round().astype(int)):
        part = slice(box[1], box[3]), slice(box[0], box[2])
        mask = found.masks[row][part]
        if mask.size:
            shapes[row] = cv2.resize(mask.astype(np.float32), (SHAPE, SHAPE),
                                     interpolation=cv2.INTER_AREA)
        if seen:
            looks[row] = looks_of(image[part][mask])
    scale = np.array([wide, height, wide, height], np.float32)
    return Tokens(unit(found.embeddings), looks, shapes, found.boxes / scale, found.scores)


def stacked(rows: list[Tokens]) -> Tokens:
    """One after the other; at least one."""
    return Tokens(*(np.concatenate([getattr(one, part.name) for one in rows])
                    for part in fields(Tokens)))


def looks_of(pixels: np.ndarray) -> np.ndarray:
    """(LOOKS,) of (P, 3) uint8 RGB: square roots of the colour histogram's shares (their dot
    product is the Bhattacharyya coefficient), then the mean colour in [-1, 1]. Zeros of no pixel.
    """
    if not len(pixels):
        return np.zeros(LOOKS, np.float32)
    red, green, blue = (pixels // (256 // _LEVELS)).astype(np.int64).T
    counts = np.bincount((red * _LEVELS + green) * _LEVELS + blue, minlength=_LEVELS ** 3)
    return np.append(np.sqrt(counts / len(pixels)), pixels.mean(0) / 127.5 - 1).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(
        np.float32)


def shape_of(boxes: np.ndarray) -> np.ndarray:
    """(..., 4): centre x y in [-1, 1], natural log of width and height."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], _LEAST_SIDE)
    return np.concatenate([boxes[..., :2] + boxes[..., 2:] - 1, np.log(sides)], -1)


def places(boxes: np.ndarray, unseen_s: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(M, PLACE) float32 of slots: expected boxes (M, 4), seconds since seen (M,), and whether the
    flow says where they are (M,) bool.
    """
    return np.concatenate([shape_of(boxes), age(unseen_s)[:, None], known[:, None]],
                          1).astype(np.float32)


def pairs(seen: Tokens, boxes: np.ndarray, unseen_s: np.ndarray, now: Tokens) -> np.ndarray:
    """(M, N, PAIR) float32: box IoU, centre distance in diagonals, log ratio of width and height,
    cosine of embeddings and of looks, time since seen, mask IoU.

    `seen`: the slots' instances when last seen; `boxes` (M, 4): where they are expected now.
    """
    shape = len(boxes), len(now)
    there, here = shape_of(boxes)[:, None], shape_of(now.boxes)[None]
    apart = here - there  # centres are in half widths: twice the distance
    sides = np.exp(there[..., 2:]) + np.exp(here[..., 2:])
    distance = np.linalg.norm(apart[..., :2], axis=-1) / np.linalg.norm(sides, axis=-1)
    planes = [box_iou(boxes[:, None], now.boxes[None]), np.minimum(distance, 4.0),
              *np.moveaxis(apart[..., 2:].clip(-3, 3), -1, 0),
              seen.embeddings @ now.embeddings.T,
              seen.looks[:, :-3] @ now.looks[:, :-3].T,
              np.broadcast_to(age(unseen_s)[:, None], shape), mask_iou(seen.shapes, boxes, now)]
    return np.stack(planes, -1).astype(np.float32)


def first_guess(table: np.ndarray) -> np.ndarray:
    """(M,) the instance each slot starts from, -1 = none: Hungarian on the `pairs` (M, N, PAIR).

    DVIS matches by the queries' cosine alone; ours say little of who an object is, so that box IoU
    and looks count as well.
    """
    score = 0.5 * table[..., 0] + 0.25 * table[..., 4] + 0.25 * table[..., 5]
    score = score - 0.5 * np.minimum(table[..., 1], 1)
    rows, columns = linear_sum_assignment(score, maximize=True)
    found = np.full(len(table), -1, np.int64)
    good = score[rows, columns] >= _LEAST_MATCH
    found[rows[good]] = columns[good]
    return found


def box_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes (..., 4), broadcast."""
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(box[..., 2:] - box[..., :2], -1) for box in (one, other)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-12)


def mask_iou(shapes: np.ndarray, boxes: np.ndarray, now: Tokens) -> np.ndarray:
    """(M, N) IoU of masks with the `shapes` (M, SHAPE, SHAPE), stretched to `boxes` (M, 4), and the
    masks of the instances.
    """
    cells = (np.arange(SHAPE) + 0.5) / SHAPE
    corners, sides = _corners_and_sides(boxes)
    low, spans = _corners_and_sides(now.boxes)
    centres = corners[:, :, None] + sides[:, :, None] * cells  # (M, 2, SHAPE)
    at = np.floor((centres[:, None] - low[None, :, :, None]) / spans[None, :, :, None] * SHAPE)
    x, y = np.moveaxis(at.clip(-1, SHAPE).astype(np.int64) + 1, 2, 0)  # (M, N, SHAPE) each
    ringed = np.pad(now.shapes, ((0, 0), (1, 1), (1, 1)))
    there = ringed[np.arange(len(now))[:, None, None], y[..., None], x[..., None, :]]
    common = np.minimum(shapes[:, None], there).mean((-2, -1)) * sides.prod(1)[:, None]
    one, other = shapes.mean((1, 2)) * sides.prod(1), now.shapes.mean((1, 2)) * spans.prod(1)
    return (common / np.maximum(one[:, None] + other - common, 1e-12)).clip(0, 1)


def _corners_and_sides(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], _LEAST_SIDE)


def age(unseen_s: np.ndarray) -> np.ndarray:
    """Seconds as the networks take them."""
    return np.log1p(10 * unseen_s)
