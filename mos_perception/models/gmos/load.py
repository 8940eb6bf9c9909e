"""A GMOS network on the backend that the configuration names."""

from __future__ import annotations

import logging
from pathlib import Path

from mos_perception.config import Config
from mos_perception.engine import load_engine
from mos_perception.engine.card import ModelCard, load_card
from mos_perception.engine.model_files import graph_beside
from mos_perception.models.ego import warm_up
from mos_perception.models.gmos.model import GmosModel
from mos_perception.models.gmos.whole import GRAPHS, WholeGmos
from mos_perception.propagation.appearance import AppearanceEncoder

_log = logging.getLogger(__name__)


def load_gmos(path: Path, card: ModelCard, config: Config) -> GmosModel:
    """The model at `path`; evidence and masks are computed on the CPU. Raises EngineError."""
    model = GmosModel(load_engine(path, config.backend, config.threads, config.cuda_driver), card)
    model.configure(config)
    if card.voxel is not None:
        warm_up()
    return model


def load_whole_gmos(path: Path, card: ModelCard, config: Config) -> WholeGmos:
    """The published GMOS or GMOS-S whose head is at `path`, its other graphs beside it.

    Logs all licences. Raises EngineError.
    """
    given = config.backend, config.threads, config.cuda_driver
    paths = {name: graph_beside(path, name) for name in GRAPHS} | {'head': path}
    cards = {name: card if name == 'head' else load_card(part) for name, part in paths.items()}
    engines = {name: load_engine(part, *given) for name, part in paths.items()}
    model = WholeGmos(engines, cards,
                      AppearanceEncoder(graph_beside(path, 'appearance'), *given))
    _log.warning('%s: %s', card.id, model.report()['licence'])
    model.configure(config)
    return model
