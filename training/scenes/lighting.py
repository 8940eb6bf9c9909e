"""Shadows, highlights and the changes of light."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from training.scenes import paths
from training.scenes.geometry import Light, Surface
from training.scenes.settings import Preset


def changes(rng: np.random.Generator, preset: Preset) -> Light:
    """Slow and sudden changes of the light, and the lens' fall-off."""
    span = preset.duration_s
    ramp = rng.uniform(0.2, 0.5) * rng.choice([-1, 1]) if rng.random() < preset.light_ramp else 0.0
    step = (
        1 + rng.uniform(0.2, 0.5) * rng.choice([-1, 1]) if rng.random() < preset.light_step else 1.0
    )
    vignette = rng.uniform(0.2, 0.6) if rng.random() < preset.vignette else 0.0
    return Light(ramp=(float(ramp), span), step=(rng.uniform(0.2, 0.8) * span, float(step)),
                 vignette=vignette)


def softened(alpha: np.ndarray, depth: float) -> np.ndarray:
    """(64, 64) cover of the soft shadow of something of this `alpha`, which takes the share `depth`
    of the light; the something spans the middle 40 texels."""
    alpha = np.pad(cv2.resize(alpha, (40, 40), interpolation=cv2.INTER_AREA), 12)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 3.0) * np.float32(depth)
    alpha[[0, -1]] = alpha[:, [0, -1]] = 0
    return alpha


def shadows(rng: np.random.Generator, preset: Preset, objects: list[Surface], far: float,
            low: float | None = None) -> list[Surface]:
    """Soft shadows of the objects: on the far plane, of a lamp beside the camera, or on the ground
    at `low`."""
    if rng.random() >= preset.shadows:
        return []
    lamp, depth = np.append(rng.uniform(-0.25, 0.25, 2), 0.0), rng.uniform(*preset.shadow_depth)
    if low is not None:
        away, stretch = rng.random() < 0.5, rng.uniform(0.4, 1.2)
        return [_cast(body, low, float(depth), bool(away), stretch) for body in objects]
    found = []
    for body in objects:
        side = 64
        alpha = softened(body.alpha, depth)
        stretch = 0.99 * far / body.track.position[:, 2:]
        track = replace(body.track, position=lamp + (body.track.position - lamp) * stretch)
        found.append(Surface(np.zeros((side, side, 3), np.float32), alpha,
                             body.half * side / 40 * far / body.depth, track, unseen=True,
                             deform=None))
    return found


def _cast(body: Surface, low: float, depth: float, away: bool, stretch: float) -> Surface:
    """The shadow of a standing body on the ground: its outline laid `away` from the camera or
    towards it."""
    alpha = softened(body.alpha, depth)
    position = body.track.position.copy()
    rise = (low - position[:, 1]) * stretch
    position[:, 1], position[:, 2] = low, position[:, 2] + (rise if away else -rise)
    return Surface(np.zeros((*alpha.shape, 3), np.float32),
                   np.ascontiguousarray(alpha[::-1] if away else alpha),
                   body.half * len(alpha) / 40 * max(stretch, 0.6),
                   replace(body.track, position=position), unseen=True, tilt=np.pi / 2)


def highlight(rng: np.random.Generator, times: np.ndarray) -> Surface:
    """A bright spot that wanders over everything."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    alpha = np.clip(np.exp(-3 * (x * x + y * y)) - np.exp(-3), 0, 1) * rng.uniform(0.3, 0.7)
    start = rng.uniform(-0.15, 0.15, 2)
    position = np.stack([start[i] * 0.5 + paths.sway(rng, times, rng.uniform(0.02, 0.1))
                         for i in (0, 1)] + [np.full_like(times, 0.5)], 1)
    track = paths.Track(times, position, np.zeros_like(times), np.arange(len(times)) * 1.0)
    return Surface(np.ones((64, 64, 3), np.float32), alpha.astype(np.float32),
                   rng.uniform(0.03, 0.1), track, unseen=True)

