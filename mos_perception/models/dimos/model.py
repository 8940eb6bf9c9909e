"""A DIMOS network around any engine that takes and gives NumPy arrays.

    frame, frames around it -> evidence -> how the static scene moves over the sensor
    events moved along that -> voxel | image | evidence -> network -> instances

Evidence, and the events' motion, only where the card asks for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import ModelCard, check
from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.events.voxel import channels
from mos_perception.models.dimos.postprocess import to_instances
from mos_perception.models.ego import without_ego
from mos_perception.models.motion_input import MotionInput, evidence_shape
from mos_perception.models.outputs import limits
from mos_perception.models.preprocess import image_tensor, voxel_tensor
from mos_perception.motion.event_compensation import EventMotion
from mos_perception.stages import StageTimes

INPUTS = {'image', 'voxel'}
EVIDENCE = 'evidence'  # a further input of those that look at motion evidence
OUTPUTS = {'class_logits', 'mask_logits', 'boxes', 'embeddings'}


class DimosModel:
    """Pre-processing, inference and post-processing. No answer depends on those before."""

    def __init__(self, engine: Engine, card: ModelCard, fallback: str = '') -> None:
        """`fallback`: why this is not the GPU's own path, for the report.

        Raises EngineError where card, graph and DIMOS disagree.
        """
        check(card, engine)
        shapes = {spec.name: spec.shape for spec in card.inputs + card.outputs}
        wanted = INPUTS | OUTPUTS | ({EVIDENCE} if card.evidence else set())
        if shapes.keys() != wanted:
            raise EngineError(f'model {card.id}: tensors are {", ".join(sorted(shapes))}; '
                              f'DIMOS has {", ".join(sorted(wanted))}')
        if card.voxel is None or card.window is None:
            raise EngineError(f'model card {card.id!r} lacks voxel or window: export it again')
        _check_shapes(card, shapes)
        self.engine, self.card = engine, card
        self.size = shapes['image'][2:]
        self.voxel_shape = shapes['voxel'][1:]
        self._motion = MotionInput(card) if card.evidence else None
        self.score_threshold = card.postprocess.score_threshold
        self.top_k = card.postprocess.top_k
        self.ego_motion = True  # whether instances that the camera explains are dropped
        self._fallback = fallback

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        self.score_threshold, self.top_k = limits(config, self.card)
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
        inputs = self.inputs(sample, stages)
        with stages.timed('engine'):
            outputs = self.engine.run(inputs)
        with stages.timed('post'):
            found = to_instances(outputs, self.size, sample.size, self.score_threshold, self.top_k,
                                 as_released)
        return without_ego(found, sample, stages) if self.ego_motion and not as_released else found

    def inputs(self, sample: SyncedInput, stages: StageTimes) -> dict[str, np.ndarray]:
        """The engine's inputs, with their batch axis; a missing modality is all zero."""
        frame, window = sample.frame, sample.window
        evidence, moved = self.motion(sample, stages)
        with stages.timed('voxel'):
            if window is None or not len(window.events):
                voxel = np.zeros(self.voxel_shape, np.float32)
            else:
                voxel = voxel_tensor(window, self.size, self.card.voxel, moved)
        with stages.timed('pre'):
            if frame is None:
                image = np.zeros((3, *self.size), np.float32)
            else:
                image = image_tensor(frame.image, self.size, self.card.image)
        inputs = {'image': image[None], 'voxel': voxel[None]}
        return inputs if evidence is None else inputs | {EVIDENCE: evidence[None]}

    def motion(self, sample: SyncedInput,
               stages: StageTimes) -> tuple[np.ndarray | None, EventMotion | None]:
        """As `MotionInput.of`; None where the card asks for no evidence."""
        return (None, None) if self._motion is None else self._motion.of(sample, stages)


def _check_shapes(card: ModelCard, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Raise EngineError unless the inputs are what the card makes, of one fixed size."""
    planes = {'image': 3, 'voxel': channels(card.voxel.formulation, card.voxel.bins)}
    size = shapes['voxel'][2:]
    if card.evidence:
        planes[EVIDENCE], *size = evidence_shape(card)
        size = tuple(size)
    if None in size or any(shapes[name] != (1, count, *size) for name, count in planes.items()):
        found = ', '.join(f'{name} is {shapes[name]}' for name in planes)
        wanted = ', '.join(f'(1, {count}, H, W)' for count in planes.values())
        raise EngineError(f'model {card.id}: {found}: must be {wanted} of one fixed size'
                          f'{f" {size}" if card.evidence else ""}; export the model again')
    if card.voxel.compensated and card.evidence is None:
        raise EngineError(f'model {card.id}: voxels are compensated, but the card has no evidence: '
                          'export the model again')
