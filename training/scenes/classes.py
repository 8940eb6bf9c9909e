"""What a pixel of a clip is: things by the family of the object's outline, stuff by the layer.

Nothing of it is drawn or stored: a scene knows it, and (preset, seed, split) gives the scene again.
The outline families of the splits differ, so that classes are held out by seed, within one split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.scenes import figures, outlines
from training.scenes.geometry import Surface
from training.scenes.presets import find_preset
from training.scenes.render import Renderer
from training.scenes.settings import Preset
from training.scenes.simulate import frame_times
from training.scenes.world import build_world

THINGS = (*(family for families in outlines.FAMILIES.values() for family in families),
          *dict.fromkeys(figure.__name__ for figure in figures.FIGURES))
STUFF = ('far_plane', 'plane', 'ground', 'clutter')
CLASSES = (*THINGS, *STUFF)
"""A class is its place in this."""


@dataclass(frozen=True)
class Labels:
    """`ids` (T, H, W) uint16 as those of a `Clip`; `classes` (T, H, W) uint8 into `CLASSES`."""

    ids: np.ndarray
    classes: np.ndarray


def class_of(surface: Surface) -> int:
    """Of a surface that has a place in the truth."""
    if surface.number:
        return CLASSES.index(surface.family)
    if surface.tilt:
        return CLASSES.index('ground')
    if surface.alpha is None:
        return CLASSES.index('far_plane')
    return CLASSES.index('plane' if surface.mirrored else 'clutter')


def render_labels(preset: Preset | str, seed: int, split: str = 'train') -> Labels:
    """The labels of the frames of the clip (preset, seed, split). Raises ConfigError."""
    preset = find_preset(preset)
    world = build_world(preset, seed, split)
    index, _ = Renderer(world, preset.size).hits(frame_times(preset, seed, split))
    numbers = np.array([surface.number for surface in world.surfaces], np.uint16)
    classes = np.array([0 if surface.unseen else class_of(surface) for surface in world.surfaces],
                       np.uint8)
    return Labels(numbers[index], classes[index])
