"""Motion that is no object's: water, what it mirrors, leaves in the wind. None of it has an id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.scenes import paths
from training.scenes.geometry import Surface, Waves
from training.scenes.textures import value_noise

# summed slope of the waves that truth follows: below 1, what they show has one place only
_STEEP = 0.5


def waves(rng: np.random.Generator, times: np.ndarray, lift: np.ndarray, turns: np.ndarray,
          hertz: np.ndarray, steep: float = _STEEP) -> Waves:
    """Waves of M lifts (M, 2), wave vectors (M, 2) and frequencies (M,), on the grid `times`;
    flattened where they are steeper than `steep`."""
    slope = (np.abs(lift).max(1) * np.abs(turns).sum(1)).sum()
    phases = rng.uniform(0, 2 * np.pi, len(hertz)) + 2 * np.pi * hertz * times[:, None]
    return Waves(lift * min(1.0, steep / max(slope, 1e-9)), turns, phases)


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def wind(rng: np.random.Generator, times: np.ndarray, lift: float) -> Waves:
    """Leaves that sway by up to `lift` half extents, neighbours together, at 0.4 to 2.5 Hz."""
    count = 4
    lifts = _directions(rng, count) * (lift * rng.uniform(0.3, 1, (count, 1)) / 2)
    turns = _directions(rng, count) * (2 * np.pi / rng.uniform(0.15, 0.8, (count, 1)))
    return waves(
        rng, times, lifts, turns, rng.uniform(0.4, 2.5, count) * rng.choice([-1, 1], count)
    )


def water(rng: np.random.Generator, times: np.ndarray, colour: np.ndarray, half: float,
          place: tuple[float, float, float]) -> Surface:
    """A level sheet that drifts, with waves of 0.06 to 0.8 world units that run over it."""
    count = 6
    lengths = np.exp(rng.uniform(np.log(0.06), np.log(0.8), count))
    ways = _directions(rng, count)
    turns = ways * (2 * np.pi * half / lengths)[:, None]
    steep = rng.uniform(0.1, _STEEP)
    lift = ways * (steep / count / np.abs(turns).sum(1))[:, None] * rng.uniform(0.3, 2, (count, 1))
    # long waves are slower: deep water
    hertz = rng.uniform(0.6, 1.4, count) * 0.8 / np.sqrt(lengths)
    speed = rng.uniform(0, 0.25)
    way = _directions(rng, 1)[0] * speed
    track = paths.drift(times, place, (way[0], 0.0, way[1]))
    return Surface(colour, np.ones(colour.shape[:2], np.float32), half, track, tilt=np.pi / 2,
                   waves=waves(rng, times, lift, turns, hertz))


def swell(rng: np.random.Generator, times: np.ndarray, width: int) -> Waves:
    """Waves that run over a sheet of water as seen from above, of up to some 4 px each in an image
    `width` px wide, in half extents of a plane that fills it."""
    count = 8
    lengths = np.exp(rng.uniform(np.log(0.05), np.log(0.9), count))
    turns = _directions(rng, count) * (2 * np.pi / lengths)[:, None]
    lift = _directions(rng, count) * lengths[:, None] * rng.uniform(0.02, 0.12)
    lift = np.clip(lift, -8 / width, 8 / width)
    return waves(rng, times, lift, turns, rng.uniform(0.4, 1.6, count) / np.sqrt(lengths))


def glint(rng: np.random.Generator, times: np.ndarray, side: int, half: float,
          place: tuple[float, float, float]) -> Surface:
    """Foam and glitter on water: bright flecks that drift their own way."""
    field = value_noise(rng, side, int(rng.integers(24, 80)), 3)
    alpha = np.clip((field - rng.uniform(0.55, 0.75)) * 6, 0, 1) * np.float32(rng.uniform(0.1, 0.6))
    alpha[[0, -1]] = alpha[:, [0, -1]] = 0
    colour = np.full((side, side, 3), rng.uniform(0.4, 0.95), np.float32)
    sheet = water(rng, times, colour, half, place)
    return replace(sheet, alpha=alpha, unseen=True)


def mirrored(rng: np.random.Generator, times: np.ndarray, bodies: list[Surface], low: float,
             far: Surface) -> list[Surface]:
    """What water at the height `low` mirrors: the far plane and the bodies, far to near, upside
    down, darker, wavy."""
    strength = rng.uniform(0.25, 0.85)
    side = len(far.colour)
    # of the image upside down: it shows below the ground's far edge
    rows = (np.arange(side) + 0.5) * 2 / side - 1
    alpha = np.where(rows * far.half > -low, strength * np.linspace(1.2, 0.3, side), 0)
    alpha = np.broadcast_to(np.clip(alpha, 0, 1)[:, None], (side, side)).astype(np.float32)
    back = replace(far, colour=far.colour[::-1], alpha=alpha, mirrored=False)
    wave = _ripples(rng, times)
    found = []
    for body in (back, *bodies):
        position = body.track.position * [1, -1, 1] + [0, 2 * low, 0]
        deform = None
        if body.deform is not None:  # the bend of the mirror image: see Surface.bend
            deform = (body.deform[0], body.deform[1] * [-1, 1] + np.pi)
        colour = np.ascontiguousarray(body.colour[::-1]) * np.float32(rng.uniform(0.6, 0.9))
        cover = np.ascontiguousarray(body.alpha[::-1]) if body is not back else back.alpha
        scale = np.float32(1 if body is back else strength)
        if body is back:
            colour = back.colour * np.float32(0.8)
        track = replace(body.track, position=position, angle=-body.track.angle)
        grow = far.half / body.half * body.depth / far.depth  # waves of one size in the image
        found.append(replace(body, colour=np.ascontiguousarray(colour), alpha=cover * scale,
                             track=track, number=0, unseen=True, deform=deform, degenerate=False,
                             waves=_scaled(wave, grow)))
    return found


def _ripples(rng: np.random.Generator, times: np.ndarray) -> Waves:
    """Waves of a mirror image in half extents of the far plane: long across, short and strong along
    the height."""
    count = 4
    turns = np.stack([rng.uniform(-8, 8, count), rng.uniform(20, 90, count)], 1)
    lift = (
        rng.uniform(0.3, 1, (count, 2)) * [0.5, 1] * rng.uniform(0.002, 0.012) * 20 / turns[:, 1:]
    )
    return waves(rng, times, lift, turns, rng.uniform(0.6, 3, count), steep=4.0)


def _scaled(wave: Waves, grow: float) -> Waves:
    return Waves(wave.lift * grow, wave.turns / grow, wave.phases)
