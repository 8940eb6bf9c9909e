"""A GMOS network on the backend that the configuration names."""

from __future__ import annotations

from pathlib import Path

from mos_perception.config import Config
from mos_perception.engine import load_engine
from mos_perception.engine.card import ModelCard
from mos_perception.models.dimos.ego import warm_up
from mos_perception.models.gmos.model import GmosModel


def load_gmos(path: Path, card: ModelCard, config: Config) -> GmosModel:
    """The model at `path`; evidence and masks are computed on the CPU. Raises EngineError."""
    model = GmosModel(load_engine(path, config.backend, config.threads, config.cuda_driver), card)
    model.configure(config)
    if card.voxel is not None:
        warm_up()
    return model
