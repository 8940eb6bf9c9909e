"""The cards of the tracker's and the refiner's network, in JSON beside their ONNX files, as models
have theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mos_perception.engine.card import build_card, check_external, read_card, sha256_of
from mos_perception.engine.interface import Engine, TensorSpec
from mos_perception.errors import EngineError
from mos_perception.tracking.tokens import PAIR, PLACE, width


@dataclass(frozen=True)
class TrackingCard:
    """What both cards say: `kind` of the file, `width` of a slot."""

    kind: ClassVar[str]
    id: str
    file: str
    sha256: str
    width: int
    training: dict[str, Any]
    scores: dict[str, Any]
    licence: str


@dataclass(frozen=True)
class TrackerCard(TrackingCard):
    """What a tracker's file needs and is: `embeddings` channels of the models it is for."""

    kind: ClassVar[str] = 'tracker'
    embeddings: int


@dataclass(frozen=True)
class RefinerCard(TrackingCard):
    """What a refiner's file needs and is: `tracker` is the sha256 of the file of the tracker that
    it was trained behind.
    """

    kind: ClassVar[str] = 'refiner'
    tracker: str


Card = TypeVar('Card', bound=TrackingCard)


def load_tracker_card(path: Path) -> TrackerCard:
    """The card beside an ONNX file, whose sha256 is verified. Raises EngineError."""
    return _load(TrackerCard, path)


def load_refiner_card(path: Path) -> RefinerCard:
    """The same of a refiner."""
    return _load(RefinerCard, path)


def _load(kind: type[Card], path: Path) -> Card:
    where, values = read_card(path)
    card = build_card(kind, values, where)
    if (actual := sha256_of(path)) != card.sha256:
        raise EngineError(f'{kind.kind} file {path} has sha256 {actual}, its card says '
                          f'{card.sha256}: the file is damaged or not the one described; restore '
                          'it or export again')
    check_external(path)
    return card


def tensors(embeddings: int, slot: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a tracker for `embeddings` channels whose slots have `slot`."""
    vector = width(embeddings)
    inputs = (('frame', None, vector), ('initial', None, vector), ('reference', None, slot),
              ('place', None, PLACE), ('pairs', None, None, PAIR))
    outputs = (('queries', None, slot), ('slots', None, slot), ('logits', None, None))
    return tuple(tuple(TensorSpec(name, (1, *shape), 'float32') for name, *shape in side)
                 for side in (inputs, outputs))


def check_tracker(card: TrackerCard, engine: Engine) -> None:
    """Raise EngineError unless the graph has the tensors that the card stands for."""
    check_tensors(card, tensors(card.embeddings, card.width), engine)


def check_tensors(card: TrackingCard,
                  expected: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
                  engine: Engine) -> None:
    """Raise EngineError unless the graph has these inputs and outputs."""
    for side, wanted in zip(('inputs', 'outputs'), expected):
        real = {spec.name: spec for spec in getattr(engine, side)}
        if real.keys() != {spec.name for spec in wanted} or not all(
                spec.accepts(real[spec.name]) for spec in wanted):
            raise EngineError(
                f'{card.kind} {card.id}: {side} are {", ".join(map(str, real.values()))}; the card '
                f'stands for {", ".join(map(str, wanted))}: export the {card.kind} again')
