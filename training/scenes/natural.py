"""Outdoor surfaces in linear light: what hand-held video shows behind, under and on its objects.

A family is a field in [0, 1] that a ramp of colours is laid over, or a picture of several. All are
finer than those of `textures`: real surfaces have detail down to the pixel. Families are split
between train, val and test as there.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from training.scenes.splits import pick
from training.scenes.textures import GAMMA, value_noise

Field = Callable[[np.random.Generator, int], np.ndarray]
Palette = tuple[tuple[float, float, float], ...]  # sRGB in [0, 1], dark to bright
GREENS: Palette = ((0.05, 0.08, 0.04), (0.20, 0.32, 0.10), (0.45, 0.55, 0.22))
EARTHS: Palette = ((0.16, 0.12, 0.09), (0.45, 0.37, 0.29), (0.80, 0.72, 0.60))
GREYS: Palette = ((0.16, 0.16, 0.17), (0.42, 0.42, 0.43), (0.75, 0.75, 0.74))
WATERS: Palette = ((0.03, 0.07, 0.10), (0.12, 0.26, 0.32), (0.50, 0.62, 0.66))
SKIES: Palette = ((0.45, 0.62, 0.85), (0.70, 0.80, 0.92), (0.96, 0.97, 0.98))


def painted(rng: np.random.Generator, field: np.ndarray, palette: Palette) -> np.ndarray:
    """(n, n, 3) float32 linear light of a field (n, n) in [0, 1], the palette moved a little."""
    knots = (
        np.array(palette) * rng.uniform(0.7, 1.3)
        + rng.normal(0, 0.05, (1, 3))
        + rng.normal(0, 0.02, (3, 3))
    )
    at = np.linspace(0, 1, 256)
    ramp = np.stack([np.interp(at, np.linspace(0, 1, len(knots)), knot) for knot in knots.T], 1)
    light = np.power(np.clip(ramp, 0.02, 1), GAMMA).astype(np.float32)
    return light[np.clip(field * 255, 0, 255).astype(np.uint8)]


def _grain(rng: np.random.Generator, n: int, high: int, wide: int, octaves: int,
           fall: float) -> np.ndarray:
    """(n, n) in [0, 1]: octaves of smooth random values, (`high`, `wide`) cells at the coarsest,
    each `fall` of it."""
    field, weight = np.zeros((n, n), np.float32), 1.0
    for _ in range(octaves):
        grid = rng.random((min(high, n), min(wide, n)), np.float32)
        field += np.float32(weight) * cv2.resize(grid, (n, n), interpolation=cv2.INTER_LINEAR)
        high, wide, weight = high * 2, wide * 2, weight * fall
    mean, spread = cv2.meanStdDev(field)
    return np.clip((field - np.float32(mean[0, 0])) / np.float32(5 * spread[0, 0]) +
                   np.float32(0.5), 0, 1)


def _leaves(rng: np.random.Generator, n: int) -> np.ndarray:
    """Clumps of leaves: fine grain whose darkness follows a coarse one."""
    fine = _grain(rng, n, n // 12, n // 12, 3, 1.0)
    coarse = _grain(rng, n, int(rng.integers(3, 9)), int(rng.integers(3, 9)), 3, 0.6)
    return np.clip(1.6 * fine * coarse + 0.25 * (coarse - 0.4), 0, 1)


def _grass(rng: np.random.Generator, n: int) -> np.ndarray:
    """Upright blades over soft patches."""
    blades = _grain(rng, n, n // 16, n // 4, 2, 0.9)
    return np.clip(0.75 * blades + 0.5 * _grain(rng, n, 4, 4, 3, 0.6) - 0.12, 0, 1)


def _rock(rng: np.random.Generator, n: int) -> np.ndarray:
    """Ridges and cracks: folded grain."""
    coarse, fine = _grain(rng, n, 5, 7, 5, 0.75), _grain(rng, n, n // 8, n // 8, 2, 0.8)
    return np.clip(np.abs(2 * coarse - 1) ** 0.7 + 0.5 * (fine - 0.5), 0, 1)


def _gravel(rng: np.random.Generator, n: int) -> np.ndarray:
    """Sand or asphalt: little contrast, fine grain, faint large stains."""
    fine = _grain(rng, n, n // 3, n // 3, 2, 0.8)
    return (
        0.45
        + np.float32(rng.uniform(0.1, 0.5)) * (fine - 0.5)
        + 0.3 * (_grain(rng, n, 3, 3, 3, 0.6) - 0.5)
    )


def _bark(rng: np.random.Generator, n: int) -> np.ndarray:
    """Furrows that run upwards (split val)."""
    return np.abs(2 * _grain(rng, n, n // 40, n // 10, 3, 0.8) - 1) ** 0.6


def _pebbles(rng: np.random.Generator, n: int) -> np.ndarray:
    """Round stones of many tones (split val)."""
    seeds = np.full((n, n), 255, np.uint8)
    seeds[tuple(rng.integers(0, n, (2, max(20, n * n // 150))))] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    tones = rng.random(int(labels.max()) + 1, np.float32)
    return np.clip(tones[labels] - 0.06 * distance, 0, 1)


def _thatch(rng: np.random.Generator, n: int) -> np.ndarray:
    """Crossing fibres (split test)."""
    return np.clip(np.maximum(_grain(rng, n, n // 30, n // 3, 2, 0.8),
                              _grain(rng, n, n // 3, n // 30, 2, 0.8)), 0, 1)


def _lichen(rng: np.random.Generator, n: int) -> np.ndarray:
    """Blotches with sharp rims (split test)."""
    field = _grain(rng, n, 12, 12, 4, 0.8)
    return np.clip(0.5 + 8 * (field - 0.5), 0, 1) * 0.6 + 0.4 * _grain(
        rng, n, n // 4, n // 4, 2, 0.8
    )


_GROUND: dict[str, tuple[tuple[Field, tuple[Palette, ...]], ...]] = {
    'train': ((_grass, (GREENS,)), (_gravel, (GREYS, EARTHS, GREYS)), (_rock, (EARTHS, GREYS))),
    'val': ((_pebbles, (GREYS, EARTHS)),),
    'test': ((_lichen, (EARTHS, GREYS)),),
}
_BACKDROP: dict[str, tuple[tuple[Field, tuple[Palette, ...]], ...]] = {
    'train': ((_leaves, (GREENS, GREENS, EARTHS)), (_rock, (EARTHS, GREYS)), (_grass, (GREENS,))),
    'val': ((_bark, (EARTHS, GREENS)),),
    'test': ((_thatch, (EARTHS, GREENS)),),
}


def _family(rng: np.random.Generator, n: int,
            families: tuple[tuple[Field, tuple[Palette, ...]], ...]) -> np.ndarray:
    field, palettes = pick(rng, families)
    return painted(rng, field(rng, n), pick(rng, palettes))


def ground(rng: np.random.Generator, split: str, n: int) -> np.ndarray:
    """(n, n, 3) linear light of something to walk on. Split `other` has none of its own and takes
    test's."""
    return _family(rng, n, _GROUND.get(split, _GROUND['test']))


def foliage(rng: np.random.Generator, split: str, n: int) -> np.ndarray:
    """(n, n, 3) linear light of leaves or, in other splits, what stands for them there."""
    field, _ = pick(rng, _BACKDROP.get(split, _BACKDROP['test'])[:1])
    return painted(rng, field(rng, n), GREENS)


def water(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, n, 3) linear light of ripples: grain that is much wider than high."""
    cells = int(rng.integers(20, 60))
    field = _grain(rng, n, cells, max(2, cells // int(rng.integers(2, 6))), 4, 0.7)
    return painted(rng, 0.15 + np.float32(rng.uniform(0.3, 1)) * (field - 0.15), WATERS)


def sea(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, n, 3) linear light of water from above: the sky in patches between dark ripples."""
    cells = int(rng.integers(6, 40))
    field = _grain(rng, n, cells, max(2, cells // int(rng.integers(1, 4))), 4,
                   float(rng.uniform(0.5, 0.8)))
    shine = np.clip((field - rng.uniform(0.45, 0.75)) * rng.uniform(2, 8), 0, 1)[..., None]
    deep = painted(rng, field, pick(rng, (WATERS, EARTHS, GREENS)))
    bright = painted(rng, _grain(rng, n, 5, 5, 3, 0.6), SKIES)
    return deep + shine.astype(np.float32) * np.float32(rng.uniform(0, 0.9)) * (bright - deep)


def backdrop(rng: np.random.Generator, split: str, n: int) -> np.ndarray:
    """(n, n, 3) linear light of what closes a view: one surface, a facade, a clutter of things or a
    landscape."""
    kind = rng.random()
    if kind < 0.25:
        return _family(rng, n, _BACKDROP.get(split, _BACKDROP['test']))
    if kind < 0.45:
        return facade(rng, n)
    if kind < 0.65:
        return clutter(rng, n)
    picture = painted(rng, _grain(rng, n, 3, 2, 4, 0.5), SKIES)
    # ridges, each nearer than the last
    for height in np.sort(rng.uniform(0.25, 0.55, int(rng.integers(1, 4)))):
        rise = value_noise(rng, 64, int(rng.integers(2, 6)), 4)[32] * rng.uniform(0.02, 0.2)
        edge = np.interp(np.linspace(0, 63, n), np.arange(64), height + rise) * n
        below = np.clip(np.arange(n)[:, None] - edge[None] + 0.5, 0,
                        1).astype(np.float32)[..., None]
        near = (
            _family(rng, n, _BACKDROP.get(split, _BACKDROP['test']))
            if rng.random() < 0.7
            else facade(rng, n)
        )
        picture = picture + below * (near - picture)
    return picture


def facade(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, n, 3) linear light: a wall in rows of windows."""
    picture = painted(rng, _grain(rng, n, n // 3, n // 3, 2,
                                  0.8) * 0.3 + np.float32(rng.uniform(0.1, 0.6)),
                      pick(rng, (GREYS, EARTHS)))
    columns, rows = (int(k) for k in rng.integers(3, 14, 2))
    share = rng.uniform(0.35, 0.75, 2)
    glass = rng.uniform(0.02, 0.25, 3).astype(np.float32)
    for i in range(columns):
        for j in range(rows):
            x, y = (
                int((i + 0.5 - share[0] / 2) * n / columns),
                int((j + 0.5 - share[1] / 2) * n / rows),
            )
            end = (
                int((i + 0.5 + share[0] / 2) * n / columns),
                int((j + 0.5 + share[1] / 2) * n / rows),
            )
            tone = glass * np.float32(rng.uniform(0.5, 2))
            cv2.rectangle(picture, (x, y), end, tone.tolist(), -1)
    return picture


def clutter(rng: np.random.Generator, n: int, count: int = 300) -> np.ndarray:
    """(n, n, 3) linear light: opaque things of all sizes on top of each other, as in the dead
    leaves model of natural images (Lee, Mumford, Huang 2001: sizes with density r^-3)."""
    picture = painted(rng, _grain(rng, n, 6, 6, 4, 0.7), pick(rng, (GREENS, EARTHS, GREYS)))
    sizes = n * rng.uniform(0.006, 0.012) / np.sqrt(rng.uniform(0.004, 1, count))
    places, sides = rng.uniform(0, n, (count, 2)), rng.uniform(0.4, 1.6, (count, 2))
    turns, kinds = rng.uniform(0, 180, count), rng.random(count)
    base = rng.uniform(0.02, 0.6, (8, 3))
    base += rng.uniform(0.3, 0.9) * (base.mean(1, keepdims=True) - base)  # outdoors little is gaudy
    colours = np.clip(base[rng.integers(0, 8, count)] * rng.uniform(0.4, 1.3, (count, 1)), 0.01, 1)
    for size, (x, y), side, turn, kind, colour in zip(sizes, places, sides, turns, kinds, colours):
        box = ((float(x), float(y)), (float(2 * size * side[0]), float(2 * size * side[1])),
               float(turn))
        if kind < 0.5:
            cv2.ellipse(picture, box, colour.tolist(), -1, cv2.LINE_AA)
        else:
            upright = (box[0], box[1], 0.0) if kind < 0.8 else box
            cv2.fillPoly(picture, [np.round(cv2.boxPoints(upright)).astype(np.int32)],
                         colour.tolist(), cv2.LINE_AA)
    return picture * (0.85 + 0.3 * _grain(rng, n, n // 3, n // 3, 1, 1.0))[..., None]


def skin(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, n, 3) linear light of an animal, clothes or a vehicle: fur, cloth with folds, or a few
    plain panels."""
    work, kind = max(n, 64), rng.random()
    tones = np.sort(rng.uniform(0.03, 0.9, 3))[:, None] + rng.normal(0, 0.09, (1, 3))
    palette = tuple(map(tuple, np.clip(tones, 0.02, 1)))
    if kind < 0.4:  # fur
        field = 0.5 * _grain(rng, work, work // 10, work // 3, 2, 0.9) + 0.5 * _grain(
            rng, work, 3, 3, 3, 0.6
        )
        picture = painted(rng, field, palette)
    elif kind < 0.75:  # cloth: one colour, soft folds
        field = np.float32(rng.uniform(0.2, 0.8)) + np.float32(rng.uniform(0.1, 0.6)) * (
            _grain(rng, work, 2, 4, 3, 0.6) - 0.5)
        picture = painted(rng, field, palette)
    else:  # panels
        picture = painted(rng, np.full((work, work), rng.random(), np.float32), palette)
        for _ in range(int(rng.integers(1, 6))):
            x, y, w, h = rng.uniform(0, work, 4)
            colour = np.power(np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.1, 3), 0.02, 1),
                              GAMMA)
            cv2.rectangle(picture, (int(x), int(y)), (int(x + w / 2), int(y + h / 3)),
                          colour.tolist(), -1, cv2.LINE_AA)
    light = np.linspace(rng.uniform(0.8, 1.5), 1, work,
                        dtype=np.float32) * np.float32(rng.uniform(0.6, 1))
    picture = np.clip(picture * light[:, None, None], 0.01, 1)  # lit from above
    return picture if work == n else cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA)
