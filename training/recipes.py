"""Everything that defines a training run, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mos_perception.motion.evidence import EvidenceSpec, channel_count
from mos_perception.motion.flow import FlowSettings
from training.losses.alignment import AlignmentWeights
from training.losses.masks import LossWeights
from training.nets.dimos_config import RELEASED, DimosConfig


@dataclass(frozen=True)
class VoxelSettings:
    """How the events of a window become the network's input; goes into the model card.

    The fields are arguments of `mos_perception.events.voxel.voxelize`.
    """

    formulation: str = 'dimos'
    """How events are spread over planes."""
    bins: int = 5
    """Temporal bins; each has a plane per polarity."""
    resize: str = 'bin'
    """How events of the sensor's size come to the network's."""
    normalise: str = 'max'
    """What the cells are divided by."""
    norm_floor: float = 4.0
    """Least divisor, events: a nearly empty window is not blown up."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training sample."""

    flip: float = 0.5
    """Probability of a flip, for each axis."""
    polarity_swap: float = 0.2
    """Probability that brighter and darker events change places."""
    brightness: float = 0.2
    """Half width of the uniform range of the shift, grey levels / 255."""
    contrast: float = 0.3
    """Half width of the uniform range of the gain, about 1."""
    drop_image: float = 0.15
    """Probability that the image is zeros."""
    drop_events: float = 0.10
    """Probability that the events are zeros; never together with the image."""
    causal: float = 0.3
    """Probability that motion evidence looks back alone."""


@dataclass(frozen=True)
class Training:
    """What every run has, whatever it learns."""

    name: str
    """How it is asked for on the command line."""
    batch: int = 8
    """Samples in a step of one process."""
    learning_rate: float = 1e-3
    """The highest of the cycle."""
    final_learning_rate_factor: float = 1e-3
    """The last learning rate over the highest."""
    weight_decay: float = 1e-4
    """See `optimizer.make_optimizer` for what is decayed."""
    warmup: float = 0.1
    """Share of the run until the highest learning rate."""
    clip_norm: float = 1.0
    """Greatest norm of the gradient; 0 = not clipped."""
    released_optimizer: bool = False
    """As released: Adam as in `optimizer.make_optimizer`."""
    discriminator_learning_rate: float = 5e-5
    """Constant, for `released_optimizer`."""
    seed: int = 1234
    """Of weights, samples and augmentation."""


@dataclass(frozen=True)
class Recipe(Training):
    """One training run of DIMOS."""

    net: DimosConfig = field(default_factory=DimosConfig)
    """The network."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Factors of the losses on what the network says."""
    alignment: AlignmentWeights = field(default_factory=AlignmentWeights)
    """Factors of the losses between the encoders."""
    voxel: VoxelSettings = field(default_factory=VoxelSettings)
    """The events' way into the network."""
    augment: Augmentation = field(default_factory=Augmentation)
    """What is done to the samples."""
    window_ns: int = 33_333_333
    """Length of the events' window before a frame."""
    evidence: EvidenceSpec | None = None
    """The motion evidence that the network sees, `net.evidence_channels` planes; None = none."""
    compensated: bool = False
    """Events are moved along the static scene's motion, as the evidence knows it."""
    min_pixels: int = 12
    """Smaller moving objects belong to the background, px at the network's size."""
    mask_stride: int = 4
    """Mask losses are at 1 / mask_stride of the input; 2 `net.first_stride` = the logits' size."""
    frames: int = 1
    """Frames of a sample, 1 or 2: the contrast needs two, and a batch then holds `batch` pairs."""
    sum_frames: bool = False
    """As released: class, mask, box and flow terms are summed over a sample's frames, not averaged.

    The contrast is not.
    """
    empty_masks: bool = False
    """As released: a moving object that is not in this frame is a target without pixels.

    If its id is below that of another which is.
    """


# foreground: see losses.masks.foreground_loss
_NANO = Recipe('dimos_nano', weights=LossWeights(foreground=1.0))
# a moving object of preset mid shifts about 1 px against its surroundings in 33 ms at this size,
# 3 px in 100 ms
_LONG = replace(_NANO, window_ns=100_000_000)
# events in 100 ms: at 4, made for 33 ms, sensor noise was taken for moving objects more often; the
# ablation was run with 4
_FLOOR_12 = VoxelSettings(norm_floor=12.0)
# losses of a CPU's scale: the released factors drown the masks' gradient in a narrow network
_ALL_LOSSES = AlignmentWeights(contrast=0.5, adversarial=0.1, translation=1.0)

_NANO_100MS = replace(_LONG, name='dimos_nano_100ms', voxel=_FLOOR_12)
# twice as fine: masks at 1/2 of the input, 16 px objects are two cells of the coarsest map, not one
_FINE = replace(
    _NANO_100MS,
    name='dimos_fine',
    net=DimosConfig(first_stride=1),
    mask_stride=2,
    weights=LossWeights(foreground=1.0, flow=0.0, true_flow=0.5),
)
# frames around this one, at the network's size; the flow on twice that, every second pixel
_EVIDENCE = EvidenceSpec(size=(120, 160), flow=FlowSettings(size=(240, 320)))
_EGO = replace(
    _FINE,
    name='dimos_ego',
    net=replace(_FINE.net, evidence_channels=channel_count(_EVIDENCE)),
    evidence=_EVIDENCE,
    compensated=True,
)
_NANO_FULL = replace(_LONG, name='dimos_nano_full', alignment=_ALL_LOSSES, frames=2, batch=4)
_EVINSMOS_NANO = replace(
    _LONG,
    name='evinsmos_nano',
    net=DimosConfig(disentangled=False),
    weights=LossWeights(foreground=1.0, box=0.0),
    alignment=AlignmentWeights(contrast=0.5),
    frames=2,
    batch=4,
)
_SMALL = replace(
    _NANO_100MS,
    name='dimos_small',
    net=DimosConfig(size=(192, 256), stem=24, channels=(32, 64, 128), blocks=(2, 2, 2), hidden=48,
                    width=96, feed_forward=256, layers=4),
)

# 16 images in a batch, 400 k steps in the paper: a GPU's work
_RELEASE = Recipe(
    'dimos',
    net=RELEASED,
    weights=LossWeights(census=True),
    alignment=AlignmentWeights(contrast=10.0, adversarial=1.0, translation=10.0,
                               detach_reference=False, last_frame_twice=True),
    min_pixels=50,
    mask_stride=1,
    frames=2,
    sum_frames=True,
    empty_masks=True,
    learning_rate=1e-4,
    final_learning_rate_factor=4e-6,
    weight_decay=1e-6,
    warmup=0.3,
    clip_norm=0.0,
    released_optimizer=True,
)
# the paper's factors differ from its code's: flow and contrast nearly change places
_PAPER = replace(
    _RELEASE,
    name='dimos_paper',
    weights=LossWeights(census=True, flow=10.0),
    alignment=replace(_RELEASE.alignment, contrast=0.5, adversarial=0.1),
)
_PROJECTED = replace(_RELEASE, name='dimos_projected', net=replace(RELEASED, fusion_width=256))
_EVINSMOS = replace(
    _RELEASE,
    name='evinsmos',
    net=replace(RELEASED, disentangled=False),
    weights=LossWeights(census=True, box=0.0),
    alignment=AlignmentWeights(contrast=10.0),
)

RECIPES = {recipe.name: recipe for recipe in (
    _NANO, _NANO_100MS, _FINE, _EGO, _NANO_FULL, _EVINSMOS_NANO, _SMALL,
    _RELEASE, _PAPER, _PROJECTED, _EVINSMOS,
)}
