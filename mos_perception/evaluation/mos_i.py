"""MOS-I: segmentation of moving objects that is told when each object moves (Xie et al. 2026).

J_mov, mtIoU and FP count as `metrics/benchmark_mos_i.py` of github.com/Jyxarthur/gmos computes
them, from pixel counts alone. Mode `parity` is that script to the bit of its decisions; one flaw is
in it: an object that is said to move while none of it is visible counts as found where nothing is
predicted, which lets mtIoU exceed 1. Mode `strict` takes such a cell as one where nothing moves.

Both share the protocol's matching: a mean over *all* frames in which two empty masks agree fully,
so an object that moves in less than half of a sequence may be given an empty prediction.

Legend: T frames, C channels (ids 1..C on either side), H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from mos_perception.errors import ConfigError
from mos_perception.evaluation.metrics import Overlaps, overlaps

CHANNELS = 20
THRESHOLDS = np.arange(10) * 0.05 + 0.5
MATCHINGS = ('sequence', 'frame')
MODES = ('parity', 'strict')
_EPS = np.float32(1e-6)


@dataclass(frozen=True)
class CellCounts:
    """Pixels of every channel and frame: `common` (T, C, C) of prediction and truth, `found` (T, C)
    and `truth` (T, C), the truth empty where it does not move; `moving` (T, C) bool.
    """

    common: np.ndarray
    found: np.ndarray
    truth: np.ndarray
    moving: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """(T, C, C) float32 of (prediction, truth); 1 where both are empty."""
        union = self.found[:, :, None] + self.truth[:, None] - self.common
        iou = self.common.astype(np.float32) / (union.astype(np.float32) + _EPS)
        iou[union == 0] = 1
        return iou


@dataclass(frozen=True)
class MosIScores:
    """Of one sequence: J_mov of each object that moves in it, mtIoU, and false positives a frame.
    """

    j_mov: tuple[float, ...]
    mtiou: float
    fp_count: float


def count_cells(truth: Iterable[np.ndarray], found: Iterable[np.ndarray], moving: np.ndarray,
                shown: np.ndarray | None = None) -> CellCounts:
    """Count a sequence, as long as the shorter of the two is.

    `truth` and `found`: (H, W) id images, 0 background, ids up to the C of `moving` (T or more, C);
    another size of `found` is brought to that of the truth (each mask bilinear, more than half).
    `shown` (T, C): where it is 0.5 or less a prediction is left out. Raises ConfigError: an id
    beyond C, or too few rows of `moving` or `shown`.
    """
    channels, tables = moving.shape[1], []
    for row, (wanted, given) in enumerate(zip(truth, found)):
        if row >= len(moving) or (shown is not None and row >= len(shown)):
            raise ConfigError(f'frame {row} has no row among {len(moving)} of motion labels: '
                              'label every frame')
        given = _at_size(given, wanted.shape, channels)
        for name, image in (('truth', wanted), ('prediction', given)):
            if image.size and int(image.max()) > channels:
                raise ConfigError(f'{name} of frame {row} has id {int(image.max())}: MOS-I takes '
                                  f'1 to {channels}; renumber, and take void (255) out')
        flat = given.ravel().astype(np.int64) * (channels + 1) + wanted.ravel()
        table = np.bincount(flat, minlength=(channels + 1) ** 2).reshape(channels + 1, -1)
        if shown is not None:
            hidden = np.flatnonzero(shown[row] <= 0.5) + 1
            table[0] += table[hidden].sum(0)
            table[hidden] = 0
        still = np.flatnonzero(~moving[row].astype(bool)) + 1
        table[:, 0] += table[:, still].sum(1)
        table[:, still] = 0
        tables.append(table)
    stack = np.array(tables, np.int64).reshape(-1, channels + 1, channels + 1)
    return CellCounts(stack[:, 1:, 1:], stack[:, 1:].sum(2), stack[:, :, 1:].sum(1),
                      np.asarray(moving[:len(tables)], bool))


class CellCounter:
    """Counts a recording frame by frame, whose ids may be any numbers: a channel for each."""

    MOST_CELLS = 50_000_000  # 200 MB

    def __init__(self) -> None:
        self._frames: list[Overlaps] = []

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """One frame: (H, W) ids of what moves and is seen, and of what was found to move."""
        self._frames.append(overlaps(truth, found))

    def cells(self) -> CellCounts | None:
        """Of all frames, with at least 20 channels; None where that would take too much memory."""
        truth, found = ({int(name): n for n, name in enumerate(dict.fromkeys(
            name for frame in self._frames for name in getattr(frame, kind)))}
            for kind in ('gt_ids', 'pred_ids'))
        count, side = len(self._frames), max(CHANNELS, len(truth), len(found))
        if count * side * side > self.MOST_CELLS:
            return None
        common = np.zeros((count, side, side), np.int32)
        areas = np.zeros((2, count, side), np.int64)
        for n, frame in enumerate(self._frames):
            rows = [found[int(name)] for name in frame.pred_ids]
            columns = [truth[int(name)] for name in frame.gt_ids]
            common[n][np.ix_(rows, columns)] = frame.common.T
            areas[0, n, rows], areas[1, n, columns] = frame.pred_area, frame.gt_area
        return CellCounts(common, areas[0], areas[1], areas[1] > 0)


def score_cells(cells: CellCounts, matching: str = 'sequence', mode: str = 'parity') -> MosIScores:
    """The scores of one sequence of at least one frame; see `MATCHINGS` and `MODES`.

    Raises ConfigError for a sequence without frames.
    """
    iou = cells.iou
    if not len(iou):
        raise ConfigError('MOS-I of no frames: the sequence must have at least one')
    if matching == 'sequence':
        rows = np.tile(_partners(np.mean(iou, 0, dtype=np.float32)), (len(iou), 1))
    else:
        rows = np.array([_partners(table) for table in iou])
    frames, channels = np.ogrid[:len(iou), :iou.shape[2]]
    iou, found = iou[frames, rows, channels], cells.found[frames, rows] > 0
    moving = cells.moving if mode == 'parity' else cells.moving & (cells.truth > 0)
    moves = moving.sum(0)
    j_mov = (iou * moving).sum(0, dtype=np.float32) / (moves.astype(np.float32) + np.float32(1e-8))
    hits = [int(np.count_nonzero(iou * moving > np.float32(level))) for level in THRESHOLDS]
    every = np.count_nonzero(found) + np.count_nonzero(moving)
    mtiou = np.mean([count / (every - count + 1e-8) for count in hits])
    return MosIScores(tuple(j_mov[moves > 0].tolist()), float(mtiou),
                      float((found & ~moving).sum(1).mean()))


def _partners(iou: np.ndarray) -> np.ndarray:
    """For each truth channel the prediction of the assignment of greatest summed IoU."""
    rows, columns = linear_sum_assignment(1 - iou)
    return rows[np.argsort(columns)]


def _at_size(ids: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """Each id's mask bilinear with half-pixel centres, in the order of torch's float32 sums: a
    pixel that is half covered must fall to the script's side.
    """
    if ids.shape == size:
        return ids
    (upper, lower, down), (left, right, along) = (
        _neighbours(*sides) for sides in zip(ids.shape, size))
    down, along, out = down[:, None], along[None], np.zeros(size, np.int64)
    for number in np.unique(ids[(ids > 0) & (ids <= channels)]):
        mask = (ids == number).astype(np.float32)
        rows = [(1 - along) * mask[at][:, left] + along * mask[at][:, right]
                for at in (upper, lower)]
        out[(1 - down) * rows[0] + down * rows[1] > 0.5] = number
    return out


def _neighbours(side: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of the wanted side the two of the given one, and the share of the second."""
    scale = np.float64(np.float32(side) / np.float32(wanted))
    # one rounding at the end, as a fused multiply-add has
    at = np.maximum(scale * (np.arange(wanted) + 0.5) - 0.5, 0).astype(np.float32)
    first = at.astype(np.int64)
    return first, np.minimum(first + 1, side - 1), at - first.astype(np.float32)


@dataclass
class MosI:
    """Gathers sequences: J_mov is a mean over all objects, the others are means over sequences."""

    sequences: dict[str, dict[tuple[str, str], MosIScores]] = field(default_factory=dict)
    """Per sequence the scores by (matching, mode)."""

    def add(self, name: str, cells: CellCounts) -> None:
        """One sequence. Raises ConfigError where it is there already, or empty."""
        if name in self.sequences:
            raise ConfigError(f'sequence {name} is scored twice: name each once')
        self.sequences[name] = {(matching, mode): score_cells(cells, matching, mode)
                                for matching in MATCHINGS for mode in MODES}

    def summary(self, matching: str = 'sequence', mode: str = 'parity') -> dict[str, float | None]:
        """J_mov, mtIoU, FP_count; None without sequences, J_mov also where nothing moves."""
        scores = [found[matching, mode] for found in self.sequences.values()]
        objects = [value for score in scores for value in score.j_mov]
        return {'J_mov': _mean(objects), 'mtIoU': _mean([score.mtiou for score in scores]),
                'FP_count': _mean([score.fp_count for score in scores])}

    def all_summaries(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """`summary` of every matching and mode, by their names."""
        return {matching: {mode: self.summary(matching, mode) for mode in MODES}
                for matching in MATCHINGS}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
