"""Scores of a run: add each frame's ground truth and result, read one summary."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mos_perception.datatypes import Instances, Tracks
from mos_perception.errors import ConfigError
from mos_perception.evaluation import metrics
from mos_perception.masks import mask_boxes

_RELEASED = ('mIoU_ins', 'mIoU01', 'bbox_iou', 'mask_mae')
SIZES = ('small', 'medium', 'large')
# share of the image an object covers: the levels hard, mid and easy of our scenes
_SIZE_EDGES = (0.006, 0.03)
_ROWS = (
    ('released', 'mIoU_ins', 'frames without moving objects score 0'),
    ('released', 'mIoU_ins_valid', 'frames with moving objects only'),
    ('released', 'mIoU01', 'all that moves as one mask'),
    ('released', 'mAP', 'every score is 1'),
    ('released', 'bbox_iou', ''),
    ('released', 'mask_mae', 'lower is better'),
    ('strict', 'mIoU', 'Hungarian, false positives count'),
    ('strict', 'AP', 'with scores'),
    *(
        ('strict', f'IoU_{size}', f'objects {what} of the image')
        for size, what in zip(SIZES, ('under 0.6 %', 'of 0.6 to 3 %', 'from 3 %'))
    ),
    ('strict', 'motion_precision', 'instances at IoU 0.5'),
    ('strict', 'motion_recall', 'instances at IoU 0.5'),
    ('strict', 'id_switches', 'CLEAR-MOT at IoU 0.5'),
    ('strict', 'MOTA', 'CLEAR-MOT at IoU 0.5'),
)


class Scorer:
    """Accumulates frames in order. Values of the released protocol and strict ones side by side."""

    def __init__(self, min_pixels: int = 0) -> None:
        """Moving objects smaller than `min_pixels` are no ground truth; strict ignores what lies on
        them.
        """
        self.min_pixels = min_pixels
        self._sums = dict.fromkeys(_RELEASED + ('strict',), 0.0)
        self._frames = self._frames_with_gt = self._pairs = self._gt = self._predicted = 0
        self._ap_released, self._ap_strict = metrics.MaskAp(), metrics.MaskAp()
        self._switches = metrics.IdSwitches()
        self._by_size = np.zeros((len(SIZES), 2))  # summed IoU, objects

    def add(self, stamp_ns: int, gt_ids: np.ndarray, gt_moving: set[int], instances: Instances,
            tracks: Tracks) -> None:
        """One frame: `gt_ids` (H, W) object id per pixel, 0 background; `gt_moving` the ids that
        move now.

        Raises ConfigError if the sizes differ.
        """
        if gt_ids.shape != instances.size:
            raise ConfigError(
                f'frame {stamp_ns} ns: ground truth is {gt_ids.shape}, result {instances.size} (h, '
                'w): '
                'use the ground truth of the camera that made the frames'
            )
        areas = np.bincount(gt_ids.ravel(), minlength=1)
        moves = np.isin(np.arange(len(areas)), list(gt_moving - {0}))
        moving = np.where(moves[gt_ids], gt_ids, 0)
        kept = np.where((areas >= self.min_pixels)[gt_ids], moving, 0)
        rows = np.flatnonzero(instances.moving)
        self._frames += 1
        self._frames_with_gt += bool(kept.any())
        self._add_released(kept, instances, rows)
        ignored = (moving > 0) & (kept == 0)
        rows = (
            rows[
                [
                    2 * np.count_nonzero(instances.masks[row] & ignored)
                    <= np.count_nonzero(instances.masks[row])
                    for row in rows
                ]
            ]
            if ignored.any()
            else rows
        )
        self._add_strict(kept, instances, rows, tracks)

    def _add_released(self, gt_ids: np.ndarray, instances: Instances, rows: np.ndarray) -> None:
        gt, pred = metrics.align_ids(gt_ids), _paint(instances, rows)
        gt_masks = [gt == name for name in range(1, int(gt.max(initial=0)) + 1)]
        self._sums['mIoU_ins'] += metrics.released_miou_ins(metrics.overlaps(gt, pred))
        self._sums['mIoU01'] += metrics.released_miou01(gt, pred)
        self._sums['bbox_iou'] += metrics.released_bbox_iou(mask_boxes(gt_masks).astype(np.float64),
                                                           instances.boxes[rows].astype(np.float64))
        self._sums['mask_mae'] += float(np.mean((gt > 0) != (pred > 0)))
        self._ap_released.add(
            gt_masks, [instances.masks[row] for row in rows], instances.scores[rows]
        )

    def _add_strict(
        self, gt_ids: np.ndarray, instances: Instances, rows: np.ndarray, tracks: Tracks
    ) -> None:
        counts = metrics.overlaps(gt_ids, _paint(instances, rows))
        rows = rows[counts.pred_ids - 1]  # an instance without pixels left cannot be matched
        self._sums['strict'] += metrics.strict_miou(counts)
        bins = np.digitize(counts.gt_area / gt_ids.size, _SIZE_EDGES)
        np.add.at(self._by_size[:, 1], bins, 1)
        for pair in metrics.match(counts.iou):
            self._by_size[bins[pair[0]], 0] += counts.iou[pair]
        self._pairs += len(metrics.match(counts.iou, 0.5))
        self._gt += len(counts.gt_ids)
        self._predicted += len(rows)
        self._ap_strict.add(
            [gt_ids == name for name in counts.gt_ids],
            [instances.masks[row] for row in rows],
            instances.scores[rows],
        )
        of_instance = tracks.of_instances(len(instances))[rows]
        names = np.where(of_instance >= 0, np.append(tracks.ids, 0)[of_instance], 0)
        self._switches.add(counts.gt_ids, names, counts.iou)

    def summary(self) -> dict[str, Any]:
        """All values; None where a value has no meaning (no frames, nothing predicted, no objects).
        """
        frames, mot = self._frames, self._switches
        released = {name: _ratio(self._sums[name], frames) for name in _RELEASED}
        released['mIoU_ins_valid'] = _ratio(self._sums['mIoU_ins'], self._frames_with_gt)
        released['mAP'] = self._ap_released.value(constant_score=True)
        strict = {
            'mIoU': _ratio(self._sums['strict'], frames),
            'AP': self._ap_strict.value(),
            'motion_precision': _ratio(self._pairs, self._predicted),
            **{
                f'IoU_{name}': _ratio(total, int(count))
                for name, (total, count) in zip(SIZES, self._by_size)
            },
            'motion_recall': _ratio(self._pairs, self._gt),
            'id_switches': mot.switches,
            'misses': mot.misses,
            'false_positives': mot.false_positives,
            'MOTA': mot.mota,
        }
        return {'frames': frames, 'frames_with_gt': self._frames_with_gt, 'gt_instances': self._gt,
                'min_pixels': self.min_pixels, 'released': released, 'strict': strict}

    def table(self) -> Table:
        """The summary as a rich table."""
        values = self.summary()
        table = Table(
            title=f'{values["frames"]} frames, {values["frames_with_gt"]} with moving objects'
        )
        for name in ('mode', 'metric', 'value', 'note'):
            table.add_column(name, justify='right' if name == 'value' else 'left')
        for mode, name, note in _ROWS:
            value = values[mode][name]
            shown = (
                '-' if value is None else str(value) if isinstance(value, int) else f'{value:.4f}'
            )
            table.add_row(mode, name, shown, note)
        return table

    def text(self) -> str:
        """The table as plain text, for logs."""
        stream = io.StringIO()
        Console(file=stream, width=100, color_system=None).print(self.table())
        return stream.getvalue()


def _paint(instances: Instances, rows: np.ndarray) -> np.ndarray:
    """(H, W) uint16: the position in `rows`, from 1."""
    image = np.zeros(instances.size, np.uint16)
    for number, row in enumerate(rows, 1):
        image[instances.masks[row]] = number
    return image


def _ratio(value: float, count: int) -> float | None:
    return float(value) / count if count else None
