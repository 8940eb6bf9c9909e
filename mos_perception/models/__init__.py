"""Networks: one verb, `detect`, from what the robot saw to Instances.

What a model remembers of the inputs before, it forgets when the epoch of its input is another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import ModelCard, load_card
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from mos_perception.stages import StageTimes


class Model(Protocol):
    """A network on some backend, with its pre- and post-processing."""

    card: ModelCard

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """The instances at `sample.size`; stages 'voxel', 'pre', 'engine', 'post' are booked,
        and 'ego' where instances are judged by the camera's motion.

        Raises EngineError for a failed inference and for outputs that are not finite.
        """

    def configure(self, config: Config) -> None:
        """Take the live parameters `score_threshold`, `top_k` and `ego_motion`."""

    def report(self) -> dict[str, Any]:
        """What really runs: backend, device, provider, precision, versions."""


def model_name(config: Config) -> str:
    """The model `config` names; for 'auto' the best of ours for the topics that it has.

    Of events alone `dimos_nano` knows more: it learned from little else.
    """
    if config.model != 'auto':
        return config.model
    if not config.image_topic:
        return 'dimos_nano'
    return 'dimos_light' if config.events_topic else 'gmos_nano'


def load_model(config: Config) -> Model:
    """The model `config` names, with its `movable_model`; cards are checked against file and graph.

    Raises EngineError.
    """
    model = _load(find_model(model_name(config)), config)
    if not config.movable_model:
        return model
    from mos_perception.models.mosis import WithMovable, find_movable, load_mosis
    of_its_card = replace(config, score_threshold=-1.0, top_k=0)
    return WithMovable(model, load_mosis(*find_movable(config.movable_model), of_its_card))


def _load(path: Path, config: Config) -> Model:
    card = load_card(path)
    if config.causal and card.evidence is not None:
        card = replace(card, evidence=replace(card.evidence, centred=False))
    if config.causal and card.frames is not None:
        card = replace(card, frames=replace(card.frames, centred=False))
    if card.architecture == 'dimos':
        from mos_perception.models.dimos.load import load_dimos  # brings the engines' libraries
        return load_dimos(path, card, config)
    if card.architecture == 'gmos':
        from mos_perception.models.gmos.load import load_gmos
        return load_gmos(path, card, config)
    if card.architecture == 'gmos_whole':
        from mos_perception.models.gmos.load import load_whole_gmos
        return load_whole_gmos(path, card, config)
    if card.architecture == 'mosis':
        from mos_perception.models.mosis import load_mosis
        return load_mosis(path, card, config)
    raise EngineError(f'model card {card.id!r}: architecture is {card.architecture!r}: '
                      'this build runs dimos, gmos, gmos_whole and mosis (a model of several '
                      'graphs is named by its head)')
