"""Networks: frames and event windows to tensors, raw outputs to Instances. No threads, no memory of the past."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import EventWindow, Frame, Instances
from mos_perception.engine import DeviceEngine, Engine, load_engine
from mos_perception.engine.card import ModelCard, find_model, load_card
from mos_perception.errors import EngineError

log = logging.getLogger(__name__)


class Model(Protocol):
    """What the pipeline asks of a network. `score_threshold` and `max_objects` may change while running."""

    card: ModelCard
    engine: Engine
    score_threshold: float
    max_objects: int

    def voxel(self, window: EventWindow | None) -> Any:
        """What `infer` takes of the events: (C, H, W) float32 at network size, or None where they wait on a GPU."""

    def image(self, frame: Frame | None) -> Any:
        """What `infer` takes of the frame: (3, H, W) float32 at network size, or None where it waits on a GPU."""

    def infer(self, image: Any, voxel: Any) -> dict[str, np.ndarray]:
        """The network's outputs for the last `image` and `voxel`. Raises EngineError."""

    def postprocess(self, outputs: dict[str, np.ndarray], size: tuple[int, int]) -> Instances:
        """Instances at frame `size`. Raises EngineError for outputs that are not finite."""


def load_model(config: Config) -> Model:
    """The model `config` names, its card checked against the file and the graph. Raises EngineError."""
    path = find_model(config.model)
    card = load_card(path)
    if card.architecture != 'dimos':
        raise EngineError(f'model card {card.id!r}: architecture is {card.architecture!r}: this build runs dimos')
    from mos_perception.models.dimos.model import DimosModel
    engine = load_engine(path, config.backend, config.threads, config.cuda_driver)
    settings = (card, config.score_threshold, config.max_objects)
    if isinstance(engine, DeviceEngine):
        from mos_perception.models.dimos.cuda import DimosCuda
        try:
            return DimosCuda(engine, *settings)
        except EngineError as error:
            if config.backend != 'auto':
                raise
            engine.choice += f'; voxels and masks on the CPU ({error})'
            log.warning('%s', engine.choice)
    return DimosModel(engine, *settings)
