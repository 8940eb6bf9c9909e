"""Folders of predicted masks against a data set, by the protocols that its truth allows.

    RESULTS/<name>/00000.png     palette PNG, id of the object, 0 background, one a frame
    RESULTS/<name>___motion.npy  optional (T, 20, 1): where it is 0.5 or less MOS-I takes a mask out
`<name>` is the last part of the sequence's. Truth of boxes alone: `boxes`. Truth of ids: `grouped`,
and where every frame is annotated `unsupervised`; where it says when objects move, too: `mos_i`,
which leaves out what never moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.evaluation.boxes import BoxScores
from mos_perception.evaluation.davis_protocol import DavisScores, grouped, unsupervised
from mos_perception.evaluation.mos_i import CHANNELS, MosI, count_cells
from mos_perception.formats.files import read_npy
from mos_perception.formats.image_files import read_indexed
from mos_perception.formats.layout import images
from mos_perception.formats.sequence import LazyArray, Sequence


class FolderEvaluator:
    """Scores sequences against the masks in a folder."""

    def __init__(self, results: Path) -> None:
        """`results`: the folder."""
        self.results = results
        self.unsupervised, self.grouped = DavisScores(), DavisScores()
        self.mos_i, self.boxes = MosI(), BoxScores()
        self.still: list[str] = []

    def add(self, sequence: Sequence) -> None:
        """One sequence. Raises DatasetError for masks that lack or do not fit, ConfigError for ids
        that a protocol does not take.
        """
        name = sequence.name.split('/')[-1]
        files = images(self.results / name)
        if not files:
            raise DatasetError(f'{self.results / name} has no masks: every sequence of the truth '
                               'needs them; name those to score with --sequence')
        if sequence.ids is None:
            self._add_boxes(name, sequence, files)
            return
        rows = [n for n in range(len(sequence)) if sequence.truth_exists(n)]
        if sequence.moving is not None:
            self._add_mos_i(name, sequence, files)
        chosen = _files_of(files, rows, len(sequence), self.results / name)
        truth = [sequence.ids[n] for n in rows]
        found = [_at_size(read_indexed(file), sequence.size) for file in chosen]
        void = None if sequence.void is None else [sequence.void[n] for n in rows]
        self.grouped.add(sequence.name, grouped(truth, found, void))
        if sequence.has_label is None:
            self.unsupervised.add(sequence.name, unsupervised(truth, found, void))

    def _add_mos_i(self, name: str, sequence: Sequence, files: list[Path]) -> None:
        moving = moving_table(sequence)
        if not any(sequence.moving):
            self.still.append(sequence.name)
            return
        gate = self.results / f'{name}___motion.npy'
        shown = np.asarray(read_npy(gate))[..., 0] if gate.is_file() else None
        if shown is not None and (shown.ndim != 2 or shown.shape[1] != CHANNELS):
            raise DatasetError(f'{gate} is {shown.shape} without its last axis: must be (frames, '
                               f'{CHANNELS})')
        found = LazyArray(len(files), lambda n: read_indexed(files[n]))
        self.mos_i.add(sequence.name, count_cells(sequence.ids, found, moving, shown))

    def _add_boxes(self, name: str, sequence: Sequence, files: list[Path]) -> None:
        boxes = sequence.boxes or ()
        chosen = _files_of(files, range(len(boxes)), len(sequence), self.results / name)
        for file, row in zip(chosen, boxes):
            if row:
                self.boxes.add(sequence.name, read_indexed(file) > 0, row[1], sequence.size)

    def summary(self) -> dict[str, Any]:
        """The protocols that apply, each by its name; `sequences` counts them."""
        found: dict[str, Any] = {'sequences': len(self.grouped.sequences or self.boxes.sequences)}
        if self.boxes.sequences:
            found['boxes'] = self.boxes.summary()
        if self.grouped.sequences:
            found['grouped'] = self.grouped.summary()
        if self.unsupervised.sequences:
            found['unsupervised'] = self.unsupervised.summary()
        if self.mos_i.sequences:
            found['mos_i'] = self.mos_i.all_summaries()
        if self.still:
            found['mos_i_left_out'] = self.still
        return found


def moving_table(sequence: Sequence) -> np.ndarray:
    """(T, 20) bool: when each object moves. Raises DatasetError for an id beyond 20."""
    table = np.zeros((len(sequence), CHANNELS), bool)
    for n, flags in enumerate(sequence.moving or ()):
        for number, moves in flags.items():
            if not 1 <= number <= CHANNELS:
                raise DatasetError(f'{sequence.name} has object {number}: MOS-I takes 1 to '
                                   f'{CHANNELS}')
            table[n, number - 1] = moves
    return table


def _files_of(files: list[Path], rows: Iterable[int], frames: int, place: Path) -> list[Path]:
    """Masks of the annotated frames, given for every frame or for those alone."""
    rows = list(rows)
    if len(files) == frames:
        return [files[n] for n in rows]
    if len(files) == len(rows):
        return files
    raise DatasetError(f'{place} has {len(files)} masks for {frames} frames, {len(rows)} of them '
                       'annotated: must be one for each of either')


def _at_size(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if ids.shape == size:
        return ids
    return cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
