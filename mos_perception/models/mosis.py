"""What could move, found in a single picture; beside a motion model, the same things at rest too.

    frame -> network -> objects (MosisModel)
    motion model's instances, those objects -> an object that moves is one instance (WithMovable)

MoSIS' promise (N. Dubbeldam, TU Delft 2025): motion teaches, one image is enough at run time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine import load_engine
from mos_perception.engine.card import ModelCard, check, load_card
from mos_perception.engine.interface import Engine
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from mos_perception.masks import mask_boxes
from mos_perception.models.gmos.model import OUTPUTS
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.models.outputs import limits
from mos_perception.models.preprocess import image_tensor
from mos_perception.stages import StageTimes

SAME = 0.5  # of the smaller mask: two that share as much are one object
LEFT = 0.5  # of a mask that must be left beside the moving ones


class MosisModel:
    """Objects that could move, none of them `moving`; `scores` and `movable` are the same."""

    def __init__(self, engine: Engine, card: ModelCard) -> None:
        """Raises EngineError where card, graph and network disagree."""
        check(card, engine)
        inputs = {spec.name: spec.shape for spec in card.inputs}
        outputs = {spec.name for spec in card.outputs}
        shape = inputs.get('image', ())
        if inputs.keys() != {'image'} or shape[:2] != (1, 3) or len(shape) != 4:
            raise EngineError(f'model {card.id}: inputs are {inputs}: a mosis network takes '
                              'image (1, 3, H, W) alone')
        if outputs != OUTPUTS:
            raise EngineError(f'model {card.id}: outputs are {", ".join(sorted(outputs))}; '
                              f'a mosis network gives {", ".join(sorted(OUTPUTS))}')
        self.engine, self.card, self.size = engine, card, shape[2:]
        self.score_threshold = card.postprocess.score_threshold
        self.top_k = card.postprocess.top_k

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        self.score_threshold, self.top_k = limits(config, self.card)

    def report(self) -> dict[str, Any]:
        """The engine's."""
        return self.engine.report()

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """Instances at `sample.size`, best first; none without a frame.

        Raises EngineError for a failed inference and outputs that are not finite.
        """
        if sample.frame is None:
            return Instances.empty(*sample.size)
        with stages.timed('pre'):
            image = image_tensor(sample.frame.image, self.size, self.card.image)
        with stages.timed('engine'):
            outputs = self.engine.run({'image': image[None]})
        with stages.timed('post'):
            found = to_instances(outputs, sample.size, self.score_threshold, self.top_k, image)
            nothing = np.zeros(len(found), np.float32)
            return replace(found, motion_scores=nothing, moving=nothing > 0, movable=found.scores)


class WithMovable:
    """A motion model's instances, and beside them what a single picture says could move.

    Whether something moves is the motion model's word alone.
    """

    def __init__(self, motion: Any, movable: MosisModel) -> None:
        """`motion`: a Model that sees motion."""
        self.motion, self.movable = motion, movable
        self.card = motion.card

    def configure(self, config: Config) -> None:
        """Take the live parameters of the motion model; `movable` keeps its card's values."""
        self.motion.configure(config)

    def report(self) -> dict[str, Any]:
        """The motion model's engine; the other's name beside it."""
        return self.motion.report() | {'movable model': self.movable.card.id}

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """Moving ones first. Books the stage 'movable'; raises EngineError as both models do."""
        found = self.motion.detect(sample, stages)
        with stages.timed('movable'):
            return fused(found, self.movable.detect(sample, StageTimes()))


def fused(moving: Instances, movable: Instances) -> Instances:
    """The moving instances, each as movable as the single picture's object that it is, then the
    other objects without what belongs to those that move; their embeddings are zeros.
    """
    if not len(movable):
        return moving
    scores, masks, rows = moving.movable.copy(), [], []
    areas = moving.masks.sum((1, 2))
    taken = moving.masks.any(0)
    for row, mask in enumerate(movable.masks):
        area = np.count_nonzero(mask)
        shared = (moving.masks & mask).sum((1, 2))
        same = shared >= SAME * np.minimum(areas, area)
        scores[same] = np.maximum(scores[same], movable.scores[row])
        rest = mask & ~taken
        if not same.any() and np.count_nonzero(rest) >= LEFT * area:
            rows.append(row)
            masks.append(rest)
    found = replace(moving, movable=scores)
    if not rows:
        return found
    still = replace(movable.of(np.array(rows)), masks=np.stack(masks), boxes=mask_boxes(masks),
                    embeddings=np.zeros((len(rows), moving.embeddings.shape[1]), np.float32))
    return found.and_after(still)


def find_movable(name: str) -> tuple[Path, ModelCard]:
    """The file and card of a single-picture model. Raises EngineError, also for another kind."""
    path = find_model(name)
    card = load_card(path)
    if card.architecture != 'mosis':
        raise EngineError(f'movable_model {card.id!r}: architecture is {card.architecture!r}: must '
                          'be mosis, a network that sees one picture')
    return path, card


def load_mosis(path: Path, card: ModelCard, config: Config) -> MosisModel:
    """The model at `path`. Raises EngineError."""
    model = MosisModel(load_engine(path, config.backend, config.threads, config.cuda_driver), card)
    model.configure(config)
    return model
