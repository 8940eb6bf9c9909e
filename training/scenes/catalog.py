"""Every named scene, 3-D and 2-D, behind one `render_clip`."""

from __future__ import annotations

import argparse

from training.scenes.clip import Clip
from training.scenes.moving_shapes import PRESETS_2D, Preset2D
from training.scenes.moving_shapes_clip import render_clip_2d
from training.scenes.presets import PRESETS, find_preset, renamed
from training.scenes.settings import Preset
from training.scenes.simulate import render_clip_3d

AnyPreset = Preset | Preset2D
SCENES: dict[str, AnyPreset] = {**PRESETS, **PRESETS_2D}


def find_scene(preset: AnyPreset | str) -> AnyPreset:
    """The preset of that name, or the one given. Raises ConfigError for an unknown name."""
    if isinstance(preset, str) and preset in PRESETS_2D:
        return PRESETS_2D[preset]
    return preset if isinstance(preset, Preset2D) else find_preset(preset)


def scene_name(name: str) -> str:
    """The name of a scene as a command's argument: an unknown one ends the command with one
    line."""
    if name not in SCENES:
        raise argparse.ArgumentTypeError(f'unknown preset "{name}"{renamed(name)}: '
                                         f'choose one of {", ".join(SCENES)}')
    return name


def render_clip(preset: AnyPreset | str, seed: int, split: str = 'train',
                device: str = 'cpu') -> Clip:
    """The clip of (preset, seed, split): equal arguments give equal bytes on a device. Raises
    ConfigError."""
    preset = find_scene(preset)
    return (render_clip_2d if isinstance(preset, Preset2D) else render_clip_3d)(
        preset, seed, split, device
    )
