"""Metrics of labelled video: VPQ, STQ and mVC, written from their papers.

VPQ: Kim et al. 2020, "Video Panoptic Segmentation". STQ: Weber et al. 2021, "STEP: Segmenting and
Tracking Every Pixel". mVC: Miao et al. 2021, "VSPW". Legend: T frames, H W pixels, K classes. Class
and segment maps are (T, H, W) of integers; a class below 0 is void, where nothing is scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mos_perception.errors import DatasetError

VPQ_WINDOWS = (1, 2, 4, 6)  # frames; those of VIPSeg
_MATCHED = 0.5  # IoU above which two tubes are one
_VOID_SHARE = 0.5  # of a predicted tube: one that lies in void is no false alarm


@dataclass(frozen=True)
class Panoptic:
    """A labelled video: `classes` (T, H, W), void < 0; `segments` (T, H, W) >= 0, who each pixel is
    among its class, the same over time: 0 for classes that have no instances.
    """

    classes: np.ndarray
    segments: np.ndarray

    def __post_init__(self) -> None:
        """Raises DatasetError for maps that are no pair."""
        if self.classes.shape != self.segments.shape or self.classes.ndim != 3:
            raise DatasetError(f'classes are {self.classes.shape}, segments '
                               f'{self.segments.shape}: must be equal (T, H, W)')

    def names(self) -> np.ndarray:
        """(T, H, W) int64 of class and segment at once; void -1."""
        return np.where(self.classes < 0, -1,
                        self.classes.astype(np.int64) << 32 | self.segments.astype(np.int64))


@dataclass
class Vpq:
    """VPQ over any number of videos. `windows`: frames of a tube."""

    windows: tuple[int, ...] = VPQ_WINDOWS
    _sums: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def add(self, truth: Panoptic, found: Panoptic) -> None:
        """Take a video. Raises DatasetError where sizes differ."""
        _check_pair(truth.classes, found.classes)
        gt, predicted = truth.names(), found.names()
        for window in self.windows:
            for start in range(len(gt) - window + 1):
                part = slice(start, start + window)
                self._add_window(window, gt[part], predicted[part])

    def by_class(self, window: int) -> dict[int, float]:
        """Panoptic quality of each class that occurs: summed IoU / (TP + FP / 2 + FN / 2)."""
        return {name: float(sums[0] / (sums[1] + (sums[2] + sums[3]) / 2))
                for (size, name), sums in sorted(self._sums.items())
                if size == window and sums[1:].any()}

    def score(self) -> float:
        """Mean over windows of the mean over classes; NaN without any video that long."""
        means = [np.mean(list(values.values())) for window in self.windows
                 if (values := self.by_class(window))]
        return float(np.mean(means)) if means else float('nan')

    def _add_window(self, window: int, gt: np.ndarray, predicted: np.ndarray) -> None:
        common, gt_names, names = _counts(gt, predicted)
        gt_area, area = common.sum(1), common.sum(0)
        void = common[gt_names < 0].sum(0)
        union = gt_area[:, None] + area[None] - common - void[None]
        same = (gt_names[:, None] >> 32 == names[None] >> 32) & (gt_names[:, None] >= 0)
        iou = np.where(same, common / np.maximum(union, 1), 0)
        hit_rows, hit_columns = np.nonzero(iou > _MATCHED)  # at most one each: tubes are disjoint
        missed = np.setdiff1d(np.flatnonzero(gt_names >= 0), hit_rows)
        alarms = np.setdiff1d(np.flatnonzero((names >= 0) & (void <= _VOID_SHARE * area)),
                              hit_columns)
        for row, column in zip(hit_rows, hit_columns):
            self._of(window, gt_names[row])[:2] += iou[row, column], 1
        for place, listed in ((2, names[alarms]), (3, gt_names[missed])):
            for name in listed:
                self._of(window, name)[place] += 1

    def _of(self, window: int, name: int) -> np.ndarray:
        """Summed IoU, TP, FP, FN of the class of a name."""
        return self._sums.setdefault((window, int(name) >> 32), np.zeros(4))


@dataclass
class Stq:
    """STQ over any number of videos: the geometric mean of how well pixels keep their object (AQ)
    and their class (SQ, the mean IoU). `things`: classes with instances.
    """

    things: frozenset[int]
    _association: list[float] = field(default_factory=list)
    _confusion: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, truth: Panoptic, found: Panoptic) -> None:
        """Take a video. Raises DatasetError where sizes differ."""
        _check_pair(truth.classes, found.classes)
        known = truth.classes >= 0
        pairs = np.stack([truth.classes[known], found.classes[known]])
        for (gt, name), count in zip(*_unique_counts(pairs)):
            self._confusion[gt, name] = self._confusion.get((gt, name), 0) + count
        common, gt_names, names = _counts(truth.names()[known], found.names()[known])
        area = common.sum(0)
        things = np.isin(names >> 32, list(self.things)) & (names >= 0)
        for row in np.flatnonzero(np.isin(gt_names >> 32, list(self.things))):
            size = common[row].sum()
            share = common[row] / (size + area - common[row])  # TPA / (TPA + FPA + FNA)
            self._association.append(float((common[row] * share)[things].sum() / size))

    def scores(self) -> dict[str, float]:
        """STQ, AQ and SQ; NaN where there is nothing of it."""
        quality = float(np.mean(self._association)) if self._association else float('nan')
        names = sorted({gt for gt, _ in self._confusion})
        shares = []
        for name in names:
            hit = self._confusion.get((name, name), 0)
            either = sum(count for pair, count in self._confusion.items() if name in pair)
            shares.append(hit / either)
        semantic = float(np.mean(shares)) if shares else float('nan')
        return {'STQ': float(np.sqrt(quality * semantic)), 'AQ': quality, 'SQ': semantic}


def video_consistency(truth: np.ndarray, found: np.ndarray, window: int) -> float:
    """VC of one video, classes (T, H, W): over all clips of `window` frames the mean share of the
    pixels of constant true class, void left out, whose predicted class is constant too. NaN where
    no clip has such a pixel; mVC is the mean over videos. Raises DatasetError where sizes differ.
    """
    _check_pair(truth, found)
    shares = []
    for start in range(len(truth) - window + 1):
        gt, predicted = truth[start:start + window], found[start:start + window]
        constant = (gt == gt[0]).all(0) & (gt[0] >= 0)
        if constant.any():
            shares.append((predicted == predicted[0]).all(0)[constant].mean())
    return float(np.mean(shares)) if shares else float('nan')


def _check_pair(truth: np.ndarray, found: np.ndarray) -> None:
    if truth.shape != found.shape:
        raise DatasetError(f'truth is {truth.shape}, the prediction {found.shape} (T, H, W): they '
                           'must be of one video; scale one to the other')


def _counts(gt: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Common pixels of every pair of names (rows, columns), the rows' and the columns' names."""
    rows, row = np.unique(gt.ravel(), return_inverse=True)
    columns, column = np.unique(found.ravel(), return_inverse=True)
    table = np.bincount(row.ravel() * len(columns) + column.ravel(),
                        minlength=len(rows) * len(columns))
    return table.reshape(len(rows), len(columns)), rows, columns


def _unique_counts(pairs: np.ndarray) -> tuple[list[tuple[int, int]], list[int]]:
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    return [(int(a), int(b)) for a, b in found.T], counts.tolist()
