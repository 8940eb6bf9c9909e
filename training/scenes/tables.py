"""A world as flat arrays for the compiled loops (`kernels`). S times, N surfaces far to near, C
colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.scenes.geometry import Surface, World
from training.scenes.kernels import EMPTY, FULL, MIXED

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def packed_texture(surface: Surface, channels: int) -> np.ndarray:
    """(n, n, C + 1) float32: colour (3) or luma (1) times alpha, then alpha; for 0 channels, alpha
    alone."""
    side = len(surface.colour)
    alpha = np.ones((side, side), np.float32) if surface.alpha is None else surface.alpha
    if channels == 0:
        return alpha[..., None]
    colour = surface.colour if channels == 3 else (surface.colour @ LUMA)[..., None]
    return np.concatenate([colour * alpha[..., None], alpha[..., None]], -1).astype(np.float32)


def _kinds(surface: Surface) -> np.ndarray:
    """(n * n,) uint8: EMPTY, MIXED or FULL of each texel and its neighbours to the right and
    below."""
    if surface.alpha is None:
        return np.full(len(surface.colour) ** 2, FULL, np.uint8)
    alpha = np.pad(surface.alpha, (0, 1), mode='edge')
    four = np.stack([alpha[:-1, :-1], alpha[1:, :-1], alpha[:-1, 1:], alpha[1:, 1:]])
    return (
        np.where(four.max(0) <= 0, EMPTY, np.where(four.min(0) >= 1, FULL, MIXED))
        .astype(np.uint8)
        .ravel()
    )


@dataclass(frozen=True)
class Textures:
    """All textures, texel by texel: `flat` float32 with C + 1 numbers a texel, `kinds` uint8 (see
    `kernels`), `shapes` (N, 4) int64: first texel, side, mirrored, light only."""

    flat: np.ndarray
    kinds: np.ndarray
    shapes: np.ndarray

    @staticmethod
    def of(surfaces: tuple[Surface, ...], channels: int) -> Textures:
        """Of `channels` colours (0: alpha alone)."""
        flat = np.concatenate([packed_texture(surface, channels).ravel() for surface in surfaces])
        starts = np.cumsum([0] + [len(surface.colour) ** 2 for surface in surfaces])
        shapes = [(start, len(s.colour), s.mirrored, s.unseen)
                  for start, s in zip(starts, surfaces)]
        return Textures(flat, np.concatenate([_kinds(s) for s in surfaces]),
                        np.array(shapes, np.int64))


@dataclass(frozen=True)
class Placement:
    """Where the surfaces are: `forward`, `inverse` (S, N, 3, 3) float64 plane <-> pixel, `bends`
    (S, N, 3 + 5 M) float64, `boxes` (S, N, 4) int64 x0 y0 x1 y1 of the image that may show them."""

    forward: np.ndarray
    inverse: np.ndarray
    bends: np.ndarray
    boxes: np.ndarray

    @staticmethod
    def of(world: World, times: np.ndarray, size: tuple[int, int]) -> Placement:
        """At `times` (S,) s in an image of `size` (height, width)."""
        surfaces = world.surfaces
        forward = np.stack([world.homographies(s, times, size) for s in surfaces], 1)
        found = [s.bend(times) for s in surfaces]
        bends = np.zeros((len(times), len(surfaces), max(bend.shape[1] for bend in found)))
        for n, bend in enumerate(found):
            bends[:, n, :bend.shape[1]] = bend
        boxes = np.stack([_boxes(s, forward[:, n], size) for n, s in enumerate(surfaces)], 1)
        return Placement(forward, np.linalg.inv(forward), bends, boxes)


def extent(surface: Surface) -> np.ndarray:
    """(3, 4) plane corners around what the surface's alpha covers, warp included."""
    low, high = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    if surface.alpha is not None:
        side = len(surface.alpha)
        for axis in (0, 1):
            used = np.flatnonzero(surface.alpha.any(axis))
            if len(used):
                low[axis], high[axis] = (used[0] - 1) * 2 / side - 1, (used[-1] + 2) * 2 / side - 1
    grow = surface.deform[0] if surface.deform else 0.0
    if surface.waves is not None:
        grow = grow + np.abs(surface.waves.lift).sum(0)
    (x0, y0), (x1, y1) = low - grow, high + grow
    return np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]])


def _boxes(surface: Surface, forward: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    boxes = np.tile(np.array([0, 0, width, height]), (len(forward), 1))
    if surface.mirrored:
        return boxes
    x, y, w = np.moveaxis(forward @ extent(surface), 1, 0)
    front = w.min(1) > 0.01
    x, y = (value[front] / w[front] for value in (x, y))
    found = np.stack([np.floor(x.min(1)), np.floor(y.min(1)), np.ceil(x.max(1)) + 1,
                      np.ceil(y.max(1)) + 1], 1)
    boxes[front] = np.clip(found, 0, (width, height, width, height))
    return boxes
