"""A DIMOS network around any engine that takes and gives NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import EventWindow, Frame, Instances, SyncedInput
from mos_perception.engine.card import ModelCard, check
from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.events.voxel import channels
from mos_perception.models.dimos.ego import without_ego
from mos_perception.models.dimos.postprocess import to_instances
from mos_perception.models.dimos.preprocess import image_tensor, voxel_tensor
from mos_perception.stages import StageTimes

INPUTS = {'image', 'voxel'}
OUTPUTS = {'class_logits', 'mask_logits', 'boxes', 'embeddings'}


class DimosModel:
    """Pre-processing, inference and post-processing. Holds no state between frames."""

    def __init__(self, engine: Engine, card: ModelCard, fallback: str = '') -> None:
        """`fallback`: why this is not the GPU's own path, for the report.

        Raises EngineError where card, graph and DIMOS disagree.
        """
        check(card, engine)
        shapes = {spec.name: spec.shape for spec in card.inputs + card.outputs}
        if shapes.keys() != INPUTS | OUTPUTS:
            raise EngineError(f'model {card.id}: tensors are {", ".join(sorted(shapes))}; '
                              f'DIMOS has {", ".join(sorted(INPUTS | OUTPUTS))}')
        if card.voxel is None or card.window is None:
            raise EngineError(f'model card {card.id!r} lacks voxel or window: export it again')
        bins = channels(card.voxel.formulation, card.voxel.bins)
        image, voxel = shapes['image'], shapes['voxel']
        if None in image + voxel or image != (1, 3, *voxel[2:]) or voxel[1] != bins:
            raise EngineError(f'model {card.id}: image is {image}, voxel is {voxel}: must be '
                              f'(1, 3, H, W) and (1, {bins}, H, W) of one fixed size; export the '
                              'model again')
        self.engine, self.card = engine, card
        self.size = image[2:]
        self.voxel_shape = voxel[1:]
        self.score_threshold = card.postprocess.score_threshold
        self.top_k = card.postprocess.top_k
        self.ego_motion = True  # whether instances that the camera explains are dropped
        self._fallback = fallback

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        card = self.card.postprocess
        own = config.score_threshold >= 0
        self.score_threshold = config.score_threshold if own else card.score_threshold
        self.top_k = config.top_k or card.top_k
        self.ego_motion = config.ego_motion == 'auto'

    def report(self) -> dict[str, Any]:
        """The engine's, and why a GPU's own path is not taken."""
        report = self.engine.report()
        return {**report, 'fallback': self._fallback} if self._fallback else report

    def detect(self, sample: SyncedInput, stages: StageTimes,
               as_released: bool = False) -> Instances:
        """Instances at `sample.size`, best first (as released: last painted first).

        Raises EngineError for a failed inference and outputs that are not finite.
        """
        inputs = self.inputs(sample.frame, sample.window, stages)
        with stages.timed('engine'):
            outputs = self.engine.run(inputs)
        with stages.timed('post'):
            found = to_instances(outputs, self.size, sample.size, self.score_threshold, self.top_k,
                                 as_released)
        return without_ego(found, sample, stages) if self.ego_motion and not as_released else found

    def inputs(self, frame: Frame | None, window: EventWindow | None,
               stages: StageTimes) -> dict[str, np.ndarray]:
        """The engine's inputs, with their batch axis; a missing modality is all zero."""
        with stages.timed('voxel'):
            if window is None or not len(window.events):
                voxel = np.zeros(self.voxel_shape, np.float32)
            else:
                voxel = voxel_tensor(window, self.size, self.card.voxel)
        with stages.timed('pre'):
            if frame is None:
                image = np.zeros((3, *self.size), np.float32)
            else:
                image = image_tensor(frame.image, self.size, self.card.image)
        return {'image': image[None], 'voxel': voxel[None]}
