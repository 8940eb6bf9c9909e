"""A GMOS network around any engine that takes and gives NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import ModelCard, check
from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.models.dimos.preprocess import image_tensor
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.evidence import EvidenceSpec, channel_count
from mos_perception.stages import StageTimes

INPUTS = {'image', 'evidence'}
BINARY_OUTPUTS = {'foreground_logits', 'foreground_quality'}
OUTPUTS = BINARY_OUTPUTS | {'mask_logits', 'motion_logits', 'quality', 'embeddings'}


class GmosModel:
    """Evidence, pre-processing, inference, post-processing. Remembers flows, which saves time."""

    def __init__(self, engine: Engine, card: ModelCard) -> None:
        """Raises EngineError where card, graph and GMOS disagree."""
        check(card, engine)
        inputs = {spec.name: spec.shape for spec in card.inputs}
        outputs = {spec.name for spec in card.outputs}
        if inputs.keys() != INPUTS or outputs not in (OUTPUTS, BINARY_OUTPUTS):
            names = ', '.join(sorted(inputs.keys() | outputs))
            raise EngineError(f'model {card.id}: tensors are {names}; GMOS has '
                              f'{", ".join(sorted(INPUTS | OUTPUTS))}')
        if card.evidence is None:
            raise EngineError(f'model card {card.id!r} has no evidence: export the model again')
        size = card.evidence.size
        wanted = {'image': (1, 3, *size), 'evidence': (1, channel_count(card.evidence), *size)}
        if inputs != wanted:
            raise EngineError(f'model {card.id}: inputs are {inputs}, its evidence asks for '
                              f'{wanted}; export the model again')
        self.engine, self.card = engine, card
        self.builder = EvidenceBuilder(card.evidence)
        self.score_threshold = card.postprocess.score_threshold
        self.top_k = card.postprocess.top_k

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        card = self.card.postprocess
        own = config.score_threshold >= 0
        self.score_threshold = config.score_threshold if own else card.score_threshold
        self.top_k = config.top_k or card.top_k

    def look(self, spec: EvidenceSpec) -> None:
        """Look at other frames than the card says: `centred` may differ, gaps a little."""
        self.builder = EvidenceBuilder(spec)

    def report(self) -> dict[str, Any]:
        """The engine's."""
        return self.engine.report()

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """Instances at `sample.size`, best first; nothing without a frame.

        Raises EngineError for a failed inference and outputs that are not finite.
        """
        inputs = self.inputs(sample, stages)
        with stages.timed('engine'):
            outputs = self.engine.run(inputs)
        with stages.timed('post'):
            image = None if sample.frame is None else inputs['image'][0]
            return to_instances(outputs, sample.size, self.score_threshold, self.top_k, image)

    def inputs(self, sample: SyncedInput, stages: StageTimes) -> dict[str, np.ndarray]:
        """The engine's inputs, with their batch axis; zeros without a frame."""
        size = self.builder.spec.size
        with stages.timed('motion'):
            if sample.frame is None:
                evidence = np.zeros((channel_count(self.builder.spec), *size), np.float32)
            else:
                evidence = self.builder.build(sample.frame, sample.neighbours).tensor
        with stages.timed('pre'):
            if sample.frame is None:
                image = np.zeros((3, *size), np.float32)
            else:
                image = image_tensor(sample.frame.image, size, self.card.image)
        return {'image': image[None], 'evidence': evidence[None]}
