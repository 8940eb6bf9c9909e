"""Rendered clips with exact truth: frames, events, instance ids and moving flags, by preset and
seed."""

from training.scenes.catalog import SCENES, render_clip
from training.scenes.clip import Clip
from training.scenes.presets import PRESETS
from training.scenes.settings import Preset
from training.scenes.truth import Truth, render_truth

__all__ = ['Clip', 'PRESETS', 'Preset', 'SCENES', 'Truth', 'render_clip', 'render_truth']
