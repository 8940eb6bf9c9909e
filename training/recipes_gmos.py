"""The runs of GMOS and GMOS-S over their frozen encoders.

`gmos` and `gmos_s` have the published sizes: for a GPU and Pi3's and SAM 2.1's weights. `*_tiny`
are their twins over small random encoders, which know nothing: they show that all of it runs and
that a batch can be learned by heart, here and in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mos_perception.motion.history import FrameWindow
from training.nets.gmos_fusion import GmosConfig
from training.nets.pi3 import Pi3Config
from training.recipes import Training


@dataclass(frozen=True)
class GmosWeights:
    """Factors and switches of `losses.gmos_whole`, which says why they are as they are."""

    entropy: float = 5.0
    """Of the masks' binary cross entropy, also in the matching."""
    dice: float = 5.0
    """Of the masks' dice loss, also in the matching."""
    motion: float = 2.0
    """Of the motion's binary cross entropy, also in the matching."""
    unmatched: float = 0.1
    """What a query without an object counts in the motion's, against one that has one."""
    iou: float = 0.5
    """Of the squared error of the predicted IoU."""
    confidence: float = 0.1
    """Of the confidence's own term; 0 switches the weighting by confidence off."""
    alpha: float = 3.0
    """Loss, over the batch's median, from which a sample gets the least confidence."""
    confident_from: float = 0.1
    """Share of the run in which confidence is learned but weighs nothing yet."""
    transitions: bool = False
    """Objects count less near the moment in which they start or stop: for annotated moments."""


@dataclass(frozen=True)
class GmosRecipe(Training):
    """One run on cached features of the encoders."""

    net: GmosConfig = field(default_factory=GmosConfig)
    """What is trained; 0 queries is GMOS-S."""
    geometry: Pi3Config = field(default_factory=Pi3Config)
    """The frozen geometry encoder, Pi3's trunk."""
    random_encoders: bool = False
    """The encoders have random weights; else Pi3's and SAM 2.1's must be given."""
    weights: GmosWeights = field(default_factory=GmosWeights)
    """Factors and switches of the losses."""
    window: FrameWindow = field(default_factory=FrameWindow)
    """The five frames that the geometry encoder sees."""
    stills: float = 0.15
    """Share of samples that are one picture under a moving camera: nothing moves."""
    flip: float = 0.5
    """Probability that a sample is mirrored left to right, before it is encoded."""
    batch: int = 16
    """Samples in a step of one process."""
    learning_rate: float = 1e-4
    """The highest of the cycle; 60 000 steps are proposed for the published sizes."""
    weight_decay: float = 0.05
    """See `optimizer.make_optimizer` for what is decayed."""


_GMOS = GmosRecipe('gmos')
_TINY = GmosRecipe(
    'gmos_tiny',
    net=GmosConfig(width=64, heads=4, feed_forward=128, encoder_depth=1, decoder_depth=2,
                   queries=8, geometry_width=32, appearance_width=64, grid=16),
    geometry=Pi3Config(size=(112, 196), width=32, heads=2, encoder_depth=1, decoder_depth=2,
                       trained_grid=8),
    random_encoders=True,
    batch=4,
    learning_rate=1e-3,
)


def _binary(recipe: GmosRecipe, name: str) -> GmosRecipe:
    return replace(recipe, name=name, net=replace(recipe.net, queries=0))


GMOS_RECIPES = {recipe.name: recipe for recipe in (
    _GMOS, _binary(_GMOS, 'gmos_s'), _TINY, _binary(_TINY, 'gmos_s_tiny'))}
