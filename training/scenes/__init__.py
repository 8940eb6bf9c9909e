"""Rendered clips with exact truth: frames, events, instance ids and moving flags, by preset and seed."""

from training.scenes.clip import Clip
from training.scenes.presets import PRESETS, Preset
from training.scenes.simulate import render_clip

__all__ = ['Clip', 'PRESETS', 'Preset', 'render_clip']
