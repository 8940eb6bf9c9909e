"""Everything that defines a training run, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from training.losses.alignment import AlignmentWeights
from training.losses.masks import LossWeights
from training.nets.dimos import RELEASED, DimosConfig


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
    """One training run. `mask_stride`: mask losses at 1/stride of the input (2 `first_stride` = the logits' own size).

    `frames` of a sample, 1 or 2: the contrast needs two, and the batch then holds `batch` pairs.
    `sum_frames`: class, mask, box and flow terms are summed over a sample's frames, as released (the contrast is not);
    else their mean. `empty_masks`: as released, a mover that is not in this frame but whose id is below another's is a
    target without pixels. `last_rate`: the last learning rate over the highest. `clip_norm` 0 = gradients are not
    clipped. `released_optimizer`, `discriminator_rate`: see `optimizer.make_optimizer`.
    """

    name: str
    net: DimosConfig = field(default_factory=DimosConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    alignment: AlignmentWeights = field(default_factory=AlignmentWeights)
    voxel: VoxelSettings = field(default_factory=VoxelSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    window_ns: int = 33_333_333
    min_pixels: int = 12
    mask_stride: int = 4
    batch: int = 8
    frames: int = 1
    sum_frames: bool = False
    empty_masks: bool = False
    learning_rate: float = 1e-3
    last_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip_norm: float = 1.0
    released_optimizer: bool = False
    discriminator_rate: float = 5e-5
    seed: int = 1234


_NANO = Recipe('dimos_nano', weights=LossWeights(dense=1.0))  # dense: see losses.masks.dense_loss
# a mover of preset mid shifts about 1 px against its surroundings in 33 ms at this size, 3 px in 100 ms
_LONG = replace(_NANO, window_ns=100_000_000)
# events in 100 ms: at 4, made for 33 ms, sensor noise was taken for movers more often; the ablation was run with 4
_FLOOR_12 = VoxelSettings(norm_floor=12.0)
_CODE = AlignmentWeights(contrast=10.0, adversarial=1.0, translation=10.0, detach_reference=False,
                         last_frame_twice=True)
_RELEASE = Recipe('dimos', RELEASED, LossWeights(census=True), _CODE, frames=2, sum_frames=True, mask_stride=1,
                  min_pixels=50, empty_masks=True, learning_rate=1e-4, last_rate=4e-6, weight_decay=1e-6, warmup=0.3,
                  clip_norm=0.0, released_optimizer=True)
# losses of a CPU's scale: the released factors drown the masks' gradient in a narrow network
_ALL = AlignmentWeights(contrast=0.5, adversarial=0.1, translation=1.0)

RECIPES = {recipe.name: recipe for recipe in (
    _NANO,
    replace(_LONG, name='dimos_nano_100ms', voxel=_FLOOR_12),
    # twice as fine: masks at 1/2 of the input, 16 px movers are two cells of the coarsest map, not one
    replace(_LONG, name='dimos_fine', voxel=_FLOOR_12, net=DimosConfig(first_stride=1), mask_stride=2,
            weights=LossWeights(dense=1.0, flow=0.0, true_flow=0.5)),
    replace(_LONG, name='dimos_nano_full', alignment=_ALL, frames=2, batch=4),
    replace(_LONG, name='evinsmos_nano', net=DimosConfig(disentangled=False),
            weights=LossWeights(dense=1.0, box=0.0), alignment=AlignmentWeights(contrast=0.5), frames=2, batch=4),
    replace(_LONG, name='dimos_small', voxel=_FLOOR_12, net=DimosConfig(
        size=(192, 256), stem=24, channels=(32, 64, 128), blocks=(2, 2, 2), hidden=48, width=96,
        feed_forward=256, layers=4)),
    # 16 images in a batch, 400 k steps in the paper: a GPU's work
    _RELEASE,
    # the paper's factors differ from its code's: flow and contrast nearly change places
    replace(_RELEASE, name='dimos_paper', weights=LossWeights(census=True, flow=10.0),
            alignment=replace(_CODE, contrast=0.5, adversarial=0.1)),
    replace(_RELEASE, name='dimos_projected', net=replace(RELEASED, fusion_width=256)),
    replace(_RELEASE, name='evinsmos', net=replace(RELEASED, disentangled=False),
            weights=LossWeights(census=True, box=0.0), alignment=AlignmentWeights(contrast=10.0)),
)}
