"""A scene before any pixel: textured planes in 3-D, a camera path and the light, all drawn from one
seed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from training.scenes import backdrop, cameras, lighting, nature, objects, paths
from training.scenes.geometry import Camera, Surface, World
from training.scenes.settings import Preset
from training.scenes.splits import generator

__all__ = ['Camera', 'Surface', 'World', 'build_world']
_FRONT = (0.6, 0.75)


@lru_cache(maxsize=2)  # a clip and then its truth
def build_world(preset: Preset, seed: int, split: str) -> World:
    """Draw the scene (preset, seed, split); the same three give the same scene."""
    rng, outdoors = generator(seed, split, 0), generator(seed, split, 7)
    stage = backdrop.Stage.draw(outdoors, preset)
    times = paths.grid(preset.duration_s)
    camera = cameras.draw_camera(rng, preset, times)
    layers = backdrop.layers(rng, preset, split, times, stage)
    bodies = objects.objects(rng, preset, split, camera, layers[0].colour, stage)
    camera = cameras.shaken(outdoors, preset, cameras.following(outdoors, preset, camera, bodies))
    camera = cameras.above_ground(camera, stage.low)
    flicker = ((rng.uniform(*preset.flicker_share), rng.uniform(*preset.flicker_hz))
               if rng.random() < preset.flicker else (0.0, 0.0))
    light, exposure = rng.uniform(*preset.light), rng.uniform(*preset.exposure_s)
    extras = generator(seed, split, 5)
    far, middle = layers[:1], layers[1:]
    low = stage.low
    if low is not None:
        far += _floor(outdoors, preset, split, times, far[0], stage, bodies)
    elif extras.random() < preset.ground:
        far.append(backdrop.ground(extras, preset, split, times, far[0].depth))
        low = far[1].track.position[0, 1]
    if low is not None:
        middle = [backdrop.above(layer, low) for layer in middle]
    middle += [backdrop.clutter(extras, preset, split, times, layers[0].colour, stage)
               for _ in range(int(extras.integers(preset.clutter[0], preset.clutter[1] + 1)))]
    middle += backdrop.poles(outdoors, preset, split, times, stage)
    if extras.random() < preset.occluders:
        middle.append(backdrop.layer(extras, preset, split, times, extras.uniform(*_FRONT),
                                     extras.uniform(0.85, 0.92), stage))
    shadows = lighting.shadows(extras, preset, bodies, far[0].depth,
                               stage.low) if not stage.wet else []
    middle = sorted(middle + bodies, key=lambda surface: -surface.depth)
    spot = [lighting.highlight(extras, times)] if extras.random() < preset.specular else []
    seen = [_through_lens(surface, preset) for surface in (*far, *shadows, *middle, *spot)]
    return World(tuple(seen), camera, flicker, light, exposure, lighting.changes(extras, preset))


def _floor(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray, far: Surface,
           stage: backdrop.Stage, bodies: list[Surface]) -> list[Surface]:
    """The ground of a standing clip and, on water, what it mirrors."""
    ground = backdrop.floor(rng, preset, split, times, far.depth, stage)
    if not stage.wet or stage.low is None:
        return [ground]
    found = [ground]
    if rng.random() < 0.8:
        found += nature.mirrored(rng, times, bodies, stage.low, far)
    if rng.random() < 0.6:
        found.append(nature.glint(rng, times, 256, ground.half,
                                  (0.0, stage.low, far.depth - ground.half)))
    return found


def _through_lens(surface: Surface, preset: Preset) -> Surface:
    """The surface blurred once, in its own plane, as lens and pixel aperture blur it at its
    distance.

    No sensor sees steps sharper than its pixels; light that changes smoothly also needs fewer
    samples for its events.
    """
    # shadows are soft, the ground is blurred by its distance
    if surface.unseen or surface.tilt or preset.lens_px == 0:
        return surface
    # focal length = image width
    texel_px = 2 * surface.half / surface.depth * preset.size[1] / len(surface.colour)
    colour, alpha = (
        None
        if image is None
        else cv2.GaussianBlur(
            image, (0, 0), preset.lens_px / texel_px, borderType=cv2.BORDER_REFLECT
        )
        for image in (surface.colour, surface.alpha)
    )
    if alpha is not None:
        # the inside stays 1, the outside 0: both are drawn faster
        alpha = np.round(alpha * 255) / np.float32(255)
    return replace(surface, colour=colour, alpha=alpha)
