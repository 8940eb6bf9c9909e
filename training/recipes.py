"""Everything that defines a training run, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.losses.masks import LossWeights
from training.nets.dimos import DimosConfig


@dataclass(frozen=True)
class VoxelSettings:
    """How the events of a window become the network's input; goes into the model card."""

    formulation: str = 'dimos'
    bins: int = 5
    resize: str = 'bin'
    normalise: str = 'max'
    norm_floor: float = 4.0


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training sample. Probabilities; jitters are the half width of a uniform range."""

    flip: float = 0.5
    polarity_swap: float = 0.2
    brightness: float = 0.2
    contrast: float = 0.3
    drop_image: float = 0.15
    drop_events: float = 0.10


@dataclass(frozen=True)
class Recipe:
    """One training run. `mask_stride`: mask losses at 1/stride of the input (4 = the logits' own size)."""

    name: str
    net: DimosConfig = field(default_factory=DimosConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    voxel: VoxelSettings = field(default_factory=VoxelSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    window_ns: int = 33_333_333
    min_pixels: int = 12
    mask_stride: int = 4
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip_norm: float = 1.0
    seed: int = 1234


RECIPES = {recipe.name: recipe for recipe in (
    # dense: see losses.masks.dense_loss; the other weights are the paper's
    Recipe('dimos_nano', weights=LossWeights(dense=1.0)),
)}
