"""Clips of squares, and recipes small enough to learn them in a test."""

from dataclasses import replace

import numpy as np

from mos_perception.datatypes import Events
from training.losses.masks import LossWeights
from training.nets.dimos_config import DimosConfig
from training.recipes import RECIPES, Recipe
from training.scenes.clip import Clip

NET = DimosConfig(size=(32, 48), stem=8, channels=(8, 16, 16), blocks=(1, 1, 1), hidden=16,
                  groups=4, queries=4, width=32, attention_heads=2, feed_forward=32, layers=2)
RECIPE = Recipe('tiny', net=NET, weights=LossWeights(foreground=1.0), batch=4, learning_rate=3e-3,
                mask_stride=2)
FULL = replace(RECIPE, name='tiny_full', batch=2, frames=2,
               alignment=RECIPES['dimos_nano_full'].alignment)
RELEASED = replace(
    FULL,
    name='tiny_released',
    net=replace(NET, as_released=True, dropout=0.1),
    sum_frames=True,
    empty_masks=True,
    released_optimizer=True,
    clip_norm=0.0,
    weights=RECIPES['dimos'].weights,
    alignment=RECIPES['dimos'].alignment,
)
PERIOD = 33_333_333


def square_clip(seed: int) -> Clip:
    """A bright square that moves right, a dark one at rest, events where the light changed."""
    rng = np.random.default_rng(seed)
    frames, ids = np.full((4, 32, 48, 3), 90, np.uint8), np.zeros((4, 32, 48), np.uint16)
    parts = []
    top, left = rng.integers(2, 18), rng.integers(2, 12)
    for i in range(4):
        frames[i, 20:28, 36:46], ids[i, 20:28, 36:46] = 30, 2
        frames[i, top:top + 12, left + 3 * i:left + 3 * i + 12] = 220
        ids[i, top:top + 12, left + 3 * i:left + 3 * i + 12] = 1
        if i:
            change = frames[i, ..., 0].astype(int) - frames[i - 1, ..., 0]
            y, x = np.nonzero(change)
            t = np.sort(rng.integers((i - 1) * PERIOD + 1, i * PERIOD, len(y)))
            brighter = (change[y, x] > 0).astype(np.uint8)
            parts.append(Events(x.astype(np.uint16), y.astype(np.uint16), brighter, t))
    moving = np.tile(np.array([False, True, False]), (4, 1))
    stamps_ns = np.arange(4) * PERIOD
    return Clip(frames, stamps_ns, Events.concatenate(parts), ids, moving, seed, 'squares')
