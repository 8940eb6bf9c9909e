"""Who learns from the watched model's labels: that model itself, or one that sees a single picture.

The second is MoSIS' way: motion is the only teacher, and afterwards one image is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mos_perception.engine.card import ModelCard
from mos_perception.errors import EngineError
from mos_perception.motion.evidence import EvidenceSpec
from training.adapt.gather import SAMPLE_PARTS
from training.adapt.mine import MOVES, UNSURE
from training.adapt.start import evidence_of, network_of
from training.adapt.tune import Adaptation, PictureAdaptation
from training.nets.gmos_nano import GmosNano


@dataclass(frozen=True)
class Learner:
    """The model file to begin with, its card and network."""

    path: Path
    card: ModelCard
    network: GmosNano

    @staticmethod
    def of(path: Path, card: ModelCard, watched: ModelCard) -> Learner:
        """Raises EngineError for a network that cannot learn on, or of another size than what is
        watched.
        """
        size, wanted = evidence_of(card).size, watched.evidence.size
        if size != wanted:
            raise EngineError(f'model {card.id} sees pictures of {size}, {watched.id}, which '
                              f'teaches it, of {wanted} (height, width): name others')
        return Learner(path, card, network_of(path, card))

    @property
    def of_pictures(self) -> bool:
        """Whether it sees one picture alone."""
        return self.network.geometry is None

    @property
    def evidence(self) -> EvidenceSpec:
        """Of its inputs' size, and what they hold for one that sees evidence."""
        return evidence_of(self.card)

    @property
    def parts(self) -> tuple[str, ...]:
        """Of a sample, that it learns from."""
        return ('image',) if self.of_pictures else SAMPLE_PARTS

    def labels(self, mined: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(T, h, w) uint8, from mined ones and the instances' ids.

        Of pictures: 1, 2, ... for the things that move, and nothing of a frame in which none does.
        """
        if not self.of_pictures:
            return mined
        found = np.where(mined == MOVES, ids + 1, mined).astype(np.uint8)
        found[~(mined == MOVES).any((1, 2))] = UNSURE
        return found

    def adaptation(self, folder: Path) -> Adaptation:
        """Its fine-tuning, which goes on where `folder` holds one."""
        return (PictureAdaptation if self.of_pictures else Adaptation)(folder, self.network)
