"""A GMOS network around any engine that takes and gives NumPy arrays.

    frame, frames around it -> evidence | image | log-odds of its colours -> network -> foreground
    foreground, the last one carried along the flow -> blended -> instances; colours are learned
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import ModelCard, check
from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.models.dimos.postprocess import finite
from mos_perception.models.dimos.preprocess import image_tensor
from mos_perception.models.gmos.colour import ColourModel, colour_bins
from mos_perception.models.gmos.postprocess import resized, to_instances
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.evidence import channel_count
from mos_perception.motion.flow import at_size, pixel_grid, warp
from mos_perception.stages import StageTimes

INPUTS = {'image', 'evidence', 'colour'}
BINARY_OUTPUTS = {'foreground_logits', 'foreground_quality'}
OUTPUTS = BINARY_OUTPUTS | {'mask_logits', 'motion_logits', 'quality', 'embeddings'}
CARRIED = 0.3  # of a foreground logit: what the answer before said of the same spot


class GmosModel:
    """Evidence, pre-processing, inference, post-processing.

    Remembers flows, which saves time, and of the answers before what colours the movers had and
    where they were: forgotten when the epoch changes.
    """

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
        wanted = {'image': (1, 3, *size), 'evidence': (1, channel_count(card.evidence), *size),
                  'colour': (1, 1, *size)}
        if inputs != wanted:
            raise EngineError(f'model {card.id}: inputs are {inputs}, its evidence asks for '
                              f'{wanted}; export the model again')
        self.engine, self.card = engine, card
        self.builder = EvidenceBuilder(card.evidence)
        self.colours = ColourModel()
        self._epoch = 0
        self._last: np.ndarray | None = None  # foreground logits (h, w) of the answer before
        self.score_threshold = card.postprocess.score_threshold
        self.top_k = card.postprocess.top_k

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        card = self.card.postprocess
        own = config.score_threshold >= 0
        self.score_threshold = config.score_threshold if own else card.score_threshold
        self.top_k = config.top_k or card.top_k

    def report(self) -> dict[str, Any]:
        """The engine's."""
        return self.engine.report()

    def reset(self) -> None:
        """Forget what was seen."""
        self.builder.reset()
        self.colours.reset()
        self._last = None

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """Instances at `sample.size`, best first; nothing without a frame.

        Raises EngineError for a failed inference and outputs that are not finite.
        """
        if sample.epoch != self._epoch:
            self.reset()
            self._epoch = sample.epoch
        if sample.frame is None:
            self.engine.run({spec.name: np.zeros(spec.shape, np.float32)
                             for spec in self.card.inputs})  # what warming up is for
            return Instances.empty(*sample.size, embedding_width(self.card))
        with stages.timed('motion'):
            evidence = self.builder.build(sample.frame, sample.neighbours)
        with stages.timed('pre'):
            small = at_size(sample.frame.image, self.builder.spec.size)
            image = image_tensor(small, self.builder.spec.size, self.card.image)
            bins = colour_bins(small.transpose(2, 0, 1))
            odds = self.colours.log_odds(bins)
        with stages.timed('engine'):
            outputs = self.engine.run({'image': image[None], 'evidence': evidence.tensor[None],
                                       'colour': odds[None, None]})
        with stages.timed('post'):
            logits = self._blended(finite(outputs, 'foreground_logits')[0], sample.flow)
            self.colours.learn(bins, resized(logits, bins.shape))
            outputs['foreground_logits'] = logits[None, None]
            return to_instances(outputs, sample.size, self.score_threshold, self.top_k, image)

    def _blended(self, logits: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
        """(h, w) logits with a share of the last ones, found along `flow` (its own size)."""
        if flow is not None and self._last is not None:
            height, width = logits.shape
            scale = np.float32([width / flow.shape[1], height / flow.shape[0]])
            there = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * scale
            carried = warp(self._last, there, pixel_grid((height, width)))
            logits = (1 - CARRIED) * logits + CARRIED * carried
        self._last = logits
        return logits


def embedding_width(card: ModelCard) -> int:
    """Of the model's instances; 0 for the binary members."""
    return next((spec.shape[-1] for spec in card.outputs if spec.name == 'embeddings'), 0)
