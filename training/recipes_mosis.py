"""The runs on pairs of frames: MoSIS, its supervised twin, AMD and the supervised flow.

`*_nano` are for a CPU; the others have the thesis' sizes and are a GPU's work.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from training.losses.mosis import ExplainWeights
from training.losses.yolo import YoloWeights
from training.nets.amd import AmdConfig
from training.nets.darknet import DarknetConfig
from training.nets.mosis import MosisConfig
from training.nets.pwc_lite import PwcConfig
from training.nets.yolo import YoloConfig
from training.recipes import Training


@dataclass(frozen=True)
class MosisRecipe(Training):
    """One run on pairs of frames; the kind of its network says what is learnt."""

    net: MosisConfig | AmdConfig | YoloConfig | PwcConfig = field(default_factory=MosisConfig)
    """MosisConfig and AmdConfig: without labels; YoloConfig: from masks; PwcConfig: from flow."""
    explain: ExplainWeights = field(default_factory=ExplainWeights)
    """Of the losses without labels."""
    detect: YoloWeights = field(default_factory=YoloWeights)
    """Of the losses of the supervised detector."""
    size: tuple[int, int] = (128, 128)
    """(height, width) of the frames."""
    flip: float = 0.5
    """Probability that a pair is mirrored, for each axis."""
    learning_rate: float = 1e-4
    """The highest of the cycle; the thesis has it throughout."""
    weight_decay: float = 0.0
    """See `optimizer.make_optimizer` for what is decayed."""
    batch: int = 16
    """Pairs in a step of one process."""


_FLOW = PwcConfig(pyramid=(8, 16, 24, 32), reduced=8, estimator=(32, 32, 24, 16, 16), hidden=32)
_YOLO = YoloConfig(
    darknet=DarknetConfig(stem=8, channels=(16, 24, 48, 64, 96), blocks=(1, 1, 2, 1, 1)),
    mask_channels=16,
    mask_side=14,
    top_k=8,
    nms_iou=0.7,
)
# flow is learnt by descent: from coarse frames first, where 5 px are few
_SCALES = ExplainWeights(scales=(0.5, 0.5, 1.0))

_THESIS = MosisRecipe('mosis', explain=ExplainWeights(target='gain'))
_NANO = MosisRecipe('mosis_nano', net=MosisConfig(_YOLO, _FLOW), explain=_SCALES,
                    learning_rate=1e-3, batch=8)


def _with_target(recipe: MosisRecipe, target: str) -> MosisRecipe:
    return replace(recipe, name=f'{recipe.name}_{target}',
                   explain=replace(recipe.explain, target=target))


MOSIS_RECIPES = {recipe.name: recipe for recipe in (
    _THESIS,
    _with_target(_THESIS, 'thesis'),
    _with_target(_THESIS, 'inverted'),
    replace(_THESIS, name='mosis_supervised', net=YoloConfig()),
    replace(_THESIS, name='amd', net=AmdConfig()),
    replace(_THESIS, name='flow', net=PwcConfig(fine=64), batch=8, flip=0.0),
    _NANO,
    _with_target(_NANO, 'thesis'),
    _with_target(_NANO, 'inverted'),
    replace(_NANO, name='mosis_nano_motion', net=MosisConfig(_YOLO, _FLOW, frozen=True),
            explain=replace(_SCALES, objectness=0.0)),
    replace(_NANO, name='mosis_supervised_nano', net=_YOLO, learning_rate=2e-3, batch=16),
    replace(_NANO, name='amd_nano', net=AmdConfig(width=16, blocks=(1, 1, 1, 1), bottleneck=False,
                                                  head=32, motion=_FLOW)),
    replace(_NANO, name='flow_nano', net=replace(_FLOW, fine=24), batch=2, flip=0.0),
)}
