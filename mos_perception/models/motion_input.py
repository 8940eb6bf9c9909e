"""What a network sees of motion beside the frame: evidence, and events without the camera's motion.
"""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import SyncedInput
from mos_perception.engine.card import ModelCard
from mos_perception.errors import EngineError
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.event_compensation import EventMotion
from mos_perception.motion.evidence import channel_count
from mos_perception.motion.scene_motion import scene_motion
from mos_perception.stages import StageTimes


class MotionInput:
    """Remembers flows, which saves time and changes no answer."""

    def __init__(self, card: ModelCard) -> None:
        """Raises EngineError for a card without evidence."""
        if card.evidence is None:
            raise EngineError(f'model card {card.id!r} has no evidence: export the model again')
        self.builder = EvidenceBuilder(card.evidence)
        self._compensated = card.voxel is not None and card.voxel.compensated
        self._empty = np.zeros(evidence_shape(card), np.float32)

    def of(self, sample: SyncedInput,
           stages: StageTimes) -> tuple[np.ndarray, EventMotion | None]:
        """Evidence (C, H, W), zeros without a picture, and the motion to take out of the events.

        That of a gyroscope, of the pictures or of the events: the first that knows. Books the stage
        'motion'.
        """
        with stages.timed('motion'):
            found, moved = None, None
            if sample.picture is not None:
                found = self.builder.build(sample.picture, sample.neighbours)
            if self._compensated and sample.window is not None:
                moved = sample.event_motion or scene_motion(sample.window, found, sample.stamp_ns)
            return self._empty if found is None else found.tensor, moved


def evidence_shape(card: ModelCard) -> tuple[int, int, int]:
    """(C, H, W) of the evidence that a card asks for."""
    return channel_count(card.evidence), *card.evidence.size
