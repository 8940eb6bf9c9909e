"""Results against the ground truth of their recording, joined by stamp."""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.datatypes import Result
from mos_perception.errors import BagError
from mos_perception.evaluation.mos_i import CellCounter, MosI
from mos_perception.evaluation.score import Scorer
from mos_perception.recording.bag import TruthTable
from mos_perception.recording.results import NodeResult


class GroundTruthEvaluator:
    """Scores results against a table of ground truth; results without any are only counted."""

    def __init__(self, truth: TruthTable) -> None:
        """`truth` by frame stamp."""
        self.truth = truth
        self.scorer = Scorer()
        self._cells = CellCounter()
        self._scored: set[int] = set()
        self._unmatched = 0

    def add(self, result: Result | NodeResult) -> None:
        """Score one result.

        Raises ConfigError for another size than the truth's, BagError for one without masks.
        """
        truth = self.truth.get(result.stamp_ns)
        if truth is None:
            self._unmatched += 1
            return
        if len(result.instances) and not result.instances.masks.any():
            raise BagError(
                f'results at {result.stamp_ns} ns have no masks: record them with publish_masks '
                'true'
            )
        self._scored.add(result.stamp_ns)
        moving = {number for number, moves in truth.moving.items() if moves}
        self.scorer.add(result.stamp_ns, truth.ids, moving, result.instances, result.tracks)
        ids = result.tracks.instance_ids(len(result.instances)) * result.instances.moving
        self._cells.add(np.where(np.isin(truth.ids, list(moving)), truth.ids, 0),
                        result.instances.id_image(ids))

    def summary(self) -> dict[str, Any]:
        """Scores, and how many frames they do not cover; `mos_i` as `MosI.all_summaries` has it,
        of tracks that move.

        Raises BagError when nothing was scored.
        """
        if not self._scored:
            raise BagError(
                f'no result has the stamp of one of the {len(self.truth)} ground-truth frames: '
                'use the ground truth of this very recording'
            )
        mos_i, cells = MosI(), self._cells.cells()
        if cells is not None:
            mos_i.add('recording', cells)
        return {
            **self.scorer.summary(),
            'mos_i': mos_i.all_summaries(),
            'truth_frames_without_result': len(self.truth) - len(self._scored),
            'results_without_truth': self._unmatched,
        }
