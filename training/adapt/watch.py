"""What the model saw and said, frame by frame, while the robot's own code ran it on a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Frame, Instances, Skip, SyncedInput
from mos_perception.engine.card import ModelCard
from mos_perception.engine.interface import Engine
from mos_perception.models import Model, load_model
from mos_perception.models.gmos.model import VOXEL, GmosModel
from mos_perception.motion.flow import at_size
from mos_perception.pipeline import Pipeline
from mos_perception.recording.bag import Bag
from mos_perception.replay import Replay, Step
from mos_perception.stages import StageTimes
from training.datasets.evidence import quantised

BLACK, WHITE = 6, 249  # grey levels beyond which a pixel tells nothing


@dataclass(frozen=True)
class Seen:
    """One answered frame. H W of the evidence, h w of the network's maps.

    `evidence` (C, H, W) int8 as `datasets.evidence` has it, `image` (3, H, W) uint8 RGB, `voxel`
    (V, h, w) uint8 x 255 or None, `logits` (h, w) float32 of the foreground, `grey` (H, W) uint8;
    `missing_gaps` of its evidence; `clipped` share of pixels too dark or too bright to tell;
    `instances` at the frame's size.
    """

    stamp_ns: int
    evidence: np.ndarray
    image: np.ndarray
    voxel: np.ndarray | None
    logits: np.ndarray
    grey: np.ndarray
    missing_gaps: int
    clipped: float
    instances: Instances


class Shown:
    """A model that shows `keep` each frame that it answers; the answers are its own."""

    def __init__(self, model: Model, keep: Callable[[SyncedInput, Instances], None]) -> None:
        self.model, self.keep = model, keep
        self.card: ModelCard = model.card

    def configure(self, config: Config) -> None:
        """As the model."""
        self.model.configure(config)

    def report(self) -> dict[str, Any]:
        """As the model."""
        return self.model.report()

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """As the model. What had no frame is not shown."""
        found = self.model.detect(sample, stages)
        if sample.frame is not None and sample.stamp_ns > 0:
            self.keep(sample, found)
        return found


class Part(Replay):
    """A replay that gives no frame before `from_ns` where there are no events to be decoded in
    order: the model then begins there.
    """

    def __init__(self, bag: Bag, config: Config, pipeline: Pipeline, from_ns: int) -> None:
        super().__init__(bag, config, pipeline)
        self._from_ns = from_ns if not config.events_topic else 0

    def _push(self, topic: str, value: object, now_ns: int) -> list[Skip]:
        if isinstance(value, Frame) and value.stamp_ns < self._from_ns:
            return []
        return super()._push(topic, value, now_ns)


def shown(bag: Bag, config: Config, keep: Callable[[SyncedInput, Instances], None],
          from_ns: int = 0) -> Iterator[Step]:
    """The steps of a recording through the pipeline, each frame's answer shown to `keep` first.

    Raises MosError as `Replay`, and for a model that cannot be used.
    """
    yield from Part(bag, config, Pipeline(config, Shown(load_model(config), keep)), from_ns)


def watched(bag: Bag, config: Config, keep: Callable[[Seen], None]) -> Iterator[Step]:
    """Likewise with all that a GMOS model saw and said."""
    model: GmosModel = load_model(config)
    model.engine = engine = _Recorder(model.engine)
    yield from Replay(bag, config, Pipeline(config, Shown(
        model, lambda sample, found: keep(seen(sample, model.size, engine, found)))))


class _Recorder:
    """An engine that remembers what it was last given and answered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.last: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = {}, {}

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As the engine."""
        outputs = self._engine.run(inputs)
        self.last = inputs, dict(outputs)
        return outputs

    def report(self) -> dict[str, Any]:
        """As the engine."""
        return self._engine.report()


def seen(sample: SyncedInput, size: tuple[int, int], engine: _Recorder,
         found: Instances) -> Seen:
    """What an inference on `sample`, just made, saw and said."""
    inputs, outputs = engine.last
    small = at_size(sample.frame.image, size)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    voxel = inputs.get(VOXEL)
    return Seen(
        sample.stamp_ns, quantised(inputs['evidence'][0]), small.transpose(2, 0, 1),
        None if voxel is None else np.rint(255 * voxel[0]).astype(np.uint8),
        outputs['foreground_logits'][0, 0], grey, sample.missing_gaps,
        float(((grey < BLACK) | (grey > WHITE)).mean()), found,
    )
