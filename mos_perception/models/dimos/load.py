"""A DIMOS network on the backend that the configuration names."""

from __future__ import annotations

import logging
from pathlib import Path

from mos_perception.config import Config
from mos_perception.engine import load_engine
from mos_perception.engine.card import ModelCard
from mos_perception.engine.device_errors import tried_twice
from mos_perception.engine.interface import DeviceEngine, Engine
from mos_perception.errors import EngineError
from mos_perception.models.dimos.model import DimosModel
from mos_perception.models.ego import warm_up

log = logging.getLogger(__name__)


def load_dimos(path: Path, card: ModelCard, config: Config) -> DimosModel:
    """CUDA graphs where the tensors lie in GPU memory, else NumPy around the engine.

    Raises EngineError; with `backend: auto` a GPU that cannot run our kernels falls back to voxels
    and masks on the CPU, which is logged and reported.
    """
    model, fallback = None, ''
    try:
        model = tried_twice(lambda: _around_engine(path, card, config))
    except EngineError as error:
        if config.backend != 'auto':
            raise
        fallback = f'voxels and masks on the CPU ({error})'
        log.warning('%s', fallback)
    model = model or DimosModel(_engine(path, config), card, fallback)
    model.configure(config)
    warm_up()
    return model


def _engine(path: Path, config: Config) -> Engine:
    return load_engine(path, config.backend, config.threads, config.cuda_driver)


def _around_engine(path: Path, card: ModelCard, config: Config) -> DimosModel:
    engine = _engine(path, config)
    if not isinstance(engine, DeviceEngine):
        return DimosModel(engine, card)
    from mos_perception.models.dimos.cuda import DimosCuda
    return DimosCuda(engine, card)
