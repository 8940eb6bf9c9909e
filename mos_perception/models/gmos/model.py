"""A GMOS network around any engine that takes and gives NumPy arrays.

    frame, frames around it -> evidence | image | log-odds of its colours -> network -> foreground
    events moved along the static scene's motion -> voxel (members that see events)
    foreground, the last one carried along the flow -> blended -> instances; colours are learned
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import EventWindow, Frame, Instances, SyncedInput
from mos_perception.engine.card import ModelCard, check
from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.events.voxel import channels
from mos_perception.models.ego import without_ego
from mos_perception.models.gmos.colour import ColourModel, colour_bins
from mos_perception.models.gmos.join import joined
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.models.motion_input import MotionInput, evidence_shape
from mos_perception.models.outputs import finite, limits, resized
from mos_perception.models.preprocess import image_tensor, voxel_tensor
from mos_perception.motion.event_compensation import EventMotion
from mos_perception.motion.flow import at_size, pixel_grid, warp
from mos_perception.stages import StageTimes

VOXEL = 'voxel'  # a further input of the members that see events, at half the evidence's size
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
        self.motion_input = MotionInput(card)
        _check_tensors(card)
        self.engine, self.card = engine, card
        self.size = card.evidence.size
        self.colours = ColourModel()
        self._epoch = 0
        self._last: np.ndarray | None = None  # foreground logits (h, w) of the answer before
        self.score_threshold = card.postprocess.score_threshold
        self.top_k = card.postprocess.top_k
        self.ego_motion = True  # whether instances that the camera explains are dropped

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        self.score_threshold, self.top_k = limits(config, self.card)
        self.ego_motion = config.ego_motion == 'auto'

    def report(self) -> dict[str, Any]:
        """The engine's."""
        return self.engine.report()

    def reset(self) -> None:
        """Forget what was seen."""
        self.motion_input.builder.reset()
        self.colours.reset()
        self._last = None

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """Instances at `sample.size`, best first.

        Raises EngineError for a failed inference and outputs that are not finite.
        """
        if sample.epoch != self._epoch:
            self.reset()
            self._epoch = sample.epoch
        evidence, moved = self.motion_input.of(sample, stages)
        inputs = {'evidence': evidence[None]}
        if self.card.voxel is not None:
            with stages.timed('voxel'):
                inputs[VOXEL] = self._voxel(sample.window, moved)[None]
        with stages.timed('pre'):
            image, bins, odds = self._look(sample.frame)
            inputs |= {'image': image[None], 'colour': odds[None, None]}
        with stages.timed('engine'):
            outputs = self.engine.run(inputs)
        with stages.timed('post'):
            logits = self._blended(finite(outputs, 'foreground_logits')[0], sample.flow)
            outputs['foreground_logits'] = logits[None, None]
            if bins is not None:
                self.colours.learn(bins, resized(logits, bins.shape))
            found = to_instances(outputs, sample.size, self.score_threshold, self.top_k,
                                 None if bins is None else image)
            found = joined(found, evidence)
        # a frame's evidence has told the camera's motion: judged again, slow movers are lost
        again = self.ego_motion and sample.frame is None
        return without_ego(found, sample, stages) if again else found

    def _voxel(self, window: EventWindow | None, motion: EventMotion | None) -> np.ndarray:
        """(C, h, w) float32, zeros without events."""
        size = half(self.size)
        if window is None or not len(window.events):
            return np.zeros((voxel_channels(self.card), *size), np.float32)
        return voxel_tensor(window, size, self.card.voxel, motion)

    def _look(self, frame: Frame | None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Image (3, H, W), bins of its colours (H, W) and their log-odds (H, W).

        Zeros, None and zeros without a frame.
        """
        if frame is None:
            return np.zeros((3, *self.size), np.float32), None, np.zeros(self.size, np.float32)
        small = at_size(frame.image, self.size)
        bins = colour_bins(small.transpose(2, 0, 1))
        return image_tensor(small, self.size, self.card.image), bins, self.colours.log_odds(bins)

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


def _check_tensors(card: ModelCard) -> None:
    """Raise EngineError unless the card's tensors are those of a GMOS network."""
    inputs = {spec.name: spec.shape for spec in card.inputs}
    outputs = {spec.name for spec in card.outputs}
    size = card.evidence.size
    wanted = {'image': (1, 3, *size), 'evidence': (1, *evidence_shape(card)),
              'colour': (1, 1, *size)}
    if card.voxel is not None:
        wanted[VOXEL] = (1, voxel_channels(card), *half(size))
    if inputs.keys() != wanted.keys() or outputs not in (OUTPUTS, BINARY_OUTPUTS):
        names = ', '.join(sorted(inputs.keys() | outputs))
        raise EngineError(f'model {card.id}: tensors are {names}; GMOS has '
                          f'{", ".join(sorted(wanted.keys() | OUTPUTS))}')
    if inputs != wanted:
        raise EngineError(f'model {card.id}: inputs are {inputs}, its evidence asks for '
                          f'{wanted}; export the model again')
    if (card.voxel is None) != (card.window is None):
        raise EngineError(f'model card {card.id!r} has one of voxel and window: must have both or '
                          'none; export the model again')


def half(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) that the network works at inside, and sees events at."""
    return size[0] // 2, size[1] // 2


def voxel_channels(card: ModelCard) -> int:
    """Planes of the card's voxel grid."""
    return channels(card.voxel.formulation, card.voxel.bins)
