"""Outlines of objects: closed polygons inside the unit circle, by family, split between train, val
and test."""

from __future__ import annotations

import cv2
import numpy as np

from training.scenes.splits import pick

_ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)


def _superellipse(rng: np.random.Generator) -> np.ndarray:
    power, aspect = rng.uniform(1.6, 5), rng.uniform(0.5, 1)
    return (np.abs(np.cos(_ANGLES)) ** power + np.abs(np.sin(_ANGLES) / aspect) ** power) ** (
        -1 / power
    )


def _fourier(rng: np.random.Generator) -> np.ndarray:
    orders = np.arange(2, 6)
    weights = rng.normal(0, 0.3, 4) / orders
    phases = rng.uniform(0, 2 * np.pi, 4)
    return np.maximum(
        1 + (weights[:, None] * np.cos(orders[:, None] * _ANGLES + phases[:, None])).sum(0), 0.35
    )


def _polygon(rng: np.random.Generator) -> np.ndarray:
    corners = int(rng.integers(3, 8))
    at = np.sort(np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners
    points = np.stack([np.cos(at), np.sin(at)], 1) * rng.uniform(0.75, 1, (corners, 1))
    return _radius_of(points)


def _star(rng: np.random.Generator) -> np.ndarray:
    points = int(rng.integers(4, 8))
    at = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, rng.uniform(0.45, 0.7), 1.0)
    return _radius_of(np.stack([np.cos(at), np.sin(at)], 1) * radius[:, None])


def _gear(rng: np.random.Generator) -> np.ndarray:
    return 1 + rng.uniform(0.08, 0.2) * np.tanh(4 * np.sin(int(rng.integers(5, 10)) * _ANGLES))


def _petals(rng: np.random.Generator) -> np.ndarray:
    return 0.6 + 0.4 * np.abs(np.cos(rng.integers(3, 7) / 2 * _ANGLES)) ** rng.uniform(0.5, 1.5)


def _lobes(rng: np.random.Generator) -> np.ndarray:
    return np.maximum(np.abs(np.cos(_ANGLES)) ** rng.uniform(0.3, 1), rng.uniform(0.3, 0.5))


def _radius_of(points: np.ndarray) -> np.ndarray:
    """(96,) radius over angle of the star-shaped polygon `points` (N, 2), by intersecting each ray
    with its edge."""
    a, b = points, np.roll(points, -1, 0)
    ray = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)[:, None]
    edge = (b - a)[None]
    det = ray[..., 0] * edge[..., 1] - ray[..., 1] * edge[..., 0]
    det = np.where(np.abs(det) < 1e-9, 1e-9, det)
    radius = (a[:, 0] * edge[..., 1] - a[:, 1] * edge[..., 0]) / det
    along = (a[:, 0] * ray[..., 1] - a[:, 1] * ray[..., 0]) / det
    return np.where((along >= -1e-9) & (along <= 1 + 1e-9) & (radius > 0), radius,
                    np.inf).min(1).clip(max=1.0)


def _letter(rng: np.random.Generator) -> np.ndarray:
    """(96, 2) outer contour of a capital letter."""
    page = np.zeros((256, 256), np.uint8)
    cv2.putText(page, 'CEFHKLMNSTVXYZ'[int(rng.integers(14))], (40, 210), cv2.FONT_HERSHEY_DUPLEX,
                7, 255, 34)
    contours, _ = cv2.findContours(page, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)[:, 0].astype(np.float64)
    points = contour[np.linspace(0, len(contour), 96, endpoint=False).astype(int)]
    points = points - (points.min(0) + points.max(0)) / 2
    return points / np.linalg.norm(points, axis=1).max()


_DRAW = {'superellipse': _superellipse, 'fourier': _fourier, 'polygon': _polygon, 'star': _star,
         'gear': _gear, 'petals': _petals, 'letter': _letter, 'lobes': _lobes}
FAMILIES = {'train': ('superellipse', 'fourier', 'polygon'), 'val': ('star',),
            'test': ('gear', 'petals'), 'other': ('letter', 'lobes')}
"""Names of a split's families."""


def outline(rng: np.random.Generator, split: str) -> np.ndarray:
    """`of_family` of a random one of the split's families."""
    return of_family(rng, pick(rng, FAMILIES[split]))


def of_family(rng: np.random.Generator, family: str) -> np.ndarray:
    """(96, 2) float64 points of a random outline of a family, farthest point at radius 1."""
    radius = _DRAW[family](rng)
    if radius.ndim == 2:  # points already
        return radius
    radius = radius / radius.max()
    return np.stack([radius * np.cos(_ANGLES), radius * np.sin(_ANGLES)], 1)


def raster(points: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32 coverage of the outline over [-1, 1] x [-1, 1]."""
    # OpenCV fills every pixel that an edge touches: draw large, average down.
    fine = side * int(np.clip(512 // side, 2, 8))
    mask = np.zeros((fine, fine), np.uint8)
    pixels = (points * 0.97 + 1) * (fine / 2) - 0.5
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_8, shift=4)
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def area(points: np.ndarray) -> float:
    """Area of the polygon (shoelace formula)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def below(points: np.ndarray, angle: float) -> float:
    """How far the outline reaches down (y) from its centre when turned by `angle` rad, in half
    extents."""
    return float((points[:, 0] * np.sin(angle) + points[:, 1] * np.cos(angle)).max() * 0.97)
