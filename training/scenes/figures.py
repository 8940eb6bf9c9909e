"""Walkers and vehicles: bodies of several skins with thin limbs that swing and wheels that turn.
Lengths of a figure are in its half extents, y down from its middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.scenes import outlines, paths
from training.scenes.geometry import Surface

_FILL = 0.85  # share of its parts' areas that a figure covers: they overlap


@dataclass(frozen=True)
class Part:
    """An 'oval' turned by `angle` rad, a 'wheel' or a 'ring' about (x, y), `length` high and
    `width` wide; or a 'limb' that hangs from (x, y) at `angle` and swings by `swing` rad. `tone`
    says which of the figure's skins it wears."""

    x: float
    y: float
    length: float
    width: float
    kind: str = 'oval'
    angle: float = 0.0
    swing: float = 0.0
    phase: float = 0.0
    tone: int = 0

    @property
    def area(self) -> float:
        """Of the oval around it, a third of that for a ring."""
        return np.pi / 4 * self.length * self.width * (0.35 if self.kind == 'ring' else 1)


def biped(rng: np.random.Generator) -> tuple[list[Part], float]:
    """(parts far to near, how far down it stands) of someone on two legs."""
    wide, stride, reach = rng.uniform(0.36, 0.6), rng.uniform(0.2, 0.7), rng.uniform(0.1, 1.0)
    legs = [Part(side * 0.08, 0.25, 0.75, rng.uniform(0.16, 0.24), 'limb', swing=stride, phase=turn,
                 tone=1) for side, turn in ((-1, 0.0), (1, np.pi))]
    arms = [Part(side * 0.12, -0.4, 0.55, rng.uniform(0.1, 0.16), 'limb',
                 angle=-side * rng.uniform(0, 0.8), swing=reach, phase=turn, tone=2)
            for side, turn in ((-1, np.pi), (1, 0.0))]
    return [legs[0], arms[0], Part(0, -0.08, 0.85, wide), Part(0, -0.62, 0.34, 0.26, tone=2),
            legs[1], arms[1]], 1.0


def quadruped(rng: np.random.Generator) -> tuple[list[Part], float]:
    """Of an animal on four legs."""
    thick, stride, leg = rng.uniform(0.4, 0.75), rng.uniform(0.15, 0.7), rng.uniform(0.4, 0.7)
    legs = [
        Part(
            x,
            0.05,
            leg + 0.1,
            rng.uniform(0.1, 0.2),
            'limb',
            swing=stride,
            phase=turn,
            tone=int(rng.integers(2)),
        )
        for x, turn in ((-0.42, 0.0), (0.42, np.pi), (-0.36, np.pi), (0.36, 0.0))
    ]
    tail = Part(-0.6, -0.15, rng.uniform(0.2, 0.5), 0.08, 'limb', angle=rng.uniform(0.3, 1.3),
                swing=0.4)
    neck = Part(0.5, -0.05, 0.5, 0.26, 'limb', angle=-2.4 + rng.uniform(-0.4, 0.5), swing=0.1)
    head = Part(0.78, -0.42, 0.24, 0.36)
    return [*legs[:2], tail, neck, Part(0, -0.1, thick, 1.3), head, *legs[2:]], 0.13 + leg


def vehicle(rng: np.random.Generator) -> tuple[list[Part], float]:
    """Of a car or bus."""
    high, radius = rng.uniform(0.3, 0.8), rng.uniform(0.24, 0.36)
    wheels = [Part(x, 0.25, radius, radius, 'wheel', tone=1) for x in (-0.5, 0.5)]
    cabin = Part(rng.uniform(-0.15, 0.15), 0.05 - high, 0.6, rng.uniform(0.6, 1.2), tone=2)
    return [cabin, Part(0, 0.1 - high / 2, high, 1.6), *wheels], 0.25 + radius / 2


def cyclist(rng: np.random.Generator) -> tuple[list[Part], float]:
    """Of someone on two thin wheels."""
    radius = rng.uniform(0.5, 0.62)
    wheels = [Part(x, 0.55, radius, radius, 'ring', tone=1) for x in (-0.42, 0.42)]
    frame = [Part(-0.42, 0.55, 0.6, 0.06, 'limb', angle=-2.2, tone=1),
             Part(0.42, 0.55, 0.65, 0.06, 'limb', angle=2.3, tone=1)]
    legs = [Part(-0.12, 0.0, 0.65, 0.15, 'limb', angle=-0.2, swing=0.4, phase=turn, tone=2)
            for turn in (0.0, np.pi)]
    lean = rng.uniform(0.2, 0.8)
    arm = Part(0.05, -0.4, 0.6, 0.1, 'limb', angle=-0.7, tone=2)
    return [*wheels, *frame, legs[0], Part(-0.05, -0.2, 0.75, 0.34, angle=lean),
            Part(0.22, -0.68, 0.28, 0.24, tone=3), legs[1], arm], 0.55 + radius / 2


FIGURES = (biped, biped, quadruped, quadruped, vehicle, cyclist)


def half_of(parts: list[Part], share: float, aspect: float) -> float:
    """Half extent at depth 1 (image widths) of a figure that covers a `share` of an image of height
    / width `aspect`, less where it would be higher than three quarters of it."""
    top, bottom = (max(sign * part.y + part.length / 2 for part in parts) for sign in (-1, 1))
    half = float(np.sqrt(share * aspect / (_FILL * sum(part.area for part in parts))))
    return min(half, 0.75 * aspect / (top + bottom))


def surfaces(rng: np.random.Generator, parts: list[Part], body: Surface, going: np.ndarray,
             skin: Callable[[int], np.ndarray], px_per_half: float) -> list[Surface]:
    """The figure on the path, of the number and with the flags of `body`, far to near; limbs swing
    while it is `going` (G,). `skin(n)` draws a texture of n texels a side."""
    track = body.track
    facing = -1.0 if track.position[-1, 0] < track.position[0, 0] else 1.0
    pace = 2 * np.pi * rng.uniform(0.8, 3) * np.cumsum(going) * paths.STEP_S + rng.uniform(0, 6)
    rolled = np.cumsum(np.linalg.norm(np.gradient(track.position[:, :2], axis=0), axis=1)) * facing
    tones: dict[int, np.ndarray] = {}
    found = []
    for part in parts:
        half = max(part.length, part.width) / 2 * body.half
        side = int(np.clip(np.ceil(2.3 * half / body.half * px_per_half), 12, 512))
        if part.tone not in tones:
            tones[part.tone] = skin(int(np.clip(np.ceil(2.3 * px_per_half), 12, 512)))
        colour = tones[part.tone][:side, :side]
        if len(colour) < side:
            side = len(colour)
        angle = facing * (part.angle + part.swing * np.sin(pace + part.phase))
        if part.kind in ('wheel', 'ring'):
            angle = rolled / half
        x, y = np.full_like(angle, facing * part.x), np.full_like(angle, part.y)
        if part.kind == 'limb':
            x, y = x - part.length / 2 * np.sin(angle), y + part.length / 2 * np.cos(angle)
        c, s = np.cos(track.angle) * body.half, np.sin(track.angle) * body.half
        offset = np.stack([c * x - s * y, s * x + c * y, np.zeros_like(x)], 1)
        found.append(Surface(colour, _cover(part, side), half,
                             paths.carried(track, offset, track.angle + angle, half), body.number,
                             degenerate=body.degenerate, family=body.family))
    return found


def _cover(part: Part, side: int) -> np.ndarray:
    """(side, side) coverage of the part."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    longer = max(part.length, part.width)
    points = np.stack([np.cos(turn) * part.width / longer, np.sin(turn) * part.length / longer], 1)
    if part.kind in ('oval', 'limb'):  # fuller than an ellipse
        points = np.sign(points) * np.abs(points /
                                          (np.abs(points).max(0))) ** 0.8 * np.abs(points).max(0)
    cover = outlines.raster(points, side)
    if part.kind == 'ring':
        spokes = [outlines.raster(np.stack([points[:, 0] * a, points[:, 1] * b], 1), side)
                  for a, b in ((0.97, 0.05), (0.05, 0.97))]
        cover = np.maximum(cover - outlines.raster(points * 0.86, side), np.maximum(*spokes))
    return cover
