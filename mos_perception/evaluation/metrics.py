"""Metrics of one frame, and mask AP of many. Id maps (H, W) hold 0 for background.

Released protocol = as DIMOS' released `eval_utils` computes them, flaws included: false positives
cost nothing, matching is greedy, a frame without moving objects scores 0. Strict = Hungarian, false
positives count. Legend: G ground-truth instances, P predicted ones.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment

EPS = 1e-6  # DIMOS' iou_metrics.py


@dataclass(frozen=True)
class Overlaps:
    """Pixel counts between two id maps: `common` (G, P), areas and ids (G,) and (P,), ids
    ascending.
    """

    common: np.ndarray
    gt_ids: np.ndarray
    gt_area: np.ndarray
    pred_ids: np.ndarray
    pred_area: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """(G, P) pixels."""
        return self.gt_area[:, None] + self.pred_area[None] - self.common

    @property
    def iou(self) -> np.ndarray:
        """(G, P) in [0, 1]."""
        return self.common / np.maximum(self.union, 1)


def overlaps(gt_ids: np.ndarray, pred_ids: np.ndarray) -> Overlaps:
    """Count common pixels of every pair of ids in two (H, W) maps of unsigned or non-negative
    integers.
    """
    gt_names, gt_rows = _compact(gt_ids)
    pred_names, pred_rows = _compact(pred_ids)
    shape = len(gt_names) + 1, len(pred_names) + 1
    table = np.bincount(gt_rows * shape[1] + pred_rows, minlength=shape[0] * shape[1]).reshape(
        shape
    )
    return Overlaps(table[1:, 1:], gt_names, table[1:].sum(1), pred_names, table[:, 1:].sum(0))


def align_ids(ids: np.ndarray, min_pixels: int = 0) -> np.ndarray:
    """(H, W) uint16 with ids 1..N from the largest area down, those under `min_pixels` removed
    (IDAlign).
    """
    areas = np.bincount(ids.ravel(), minlength=1)
    areas[0] = 0
    order = [
        name for name in np.argsort(-areas, kind='stable') if areas[name] >= max(min_pixels, 1)
    ]
    table = np.zeros(len(areas), np.uint16)
    table[order] = np.arange(1, len(order) + 1)
    return table[ids]


def _compact(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids present, ascending, without 0; and for each pixel its 1-based place among them, 0 for
    background.
    """
    areas = np.bincount(ids.ravel(), minlength=1)
    areas[0] = 0
    names = np.flatnonzero(areas)
    table = np.zeros(len(areas), np.int64)
    table[names] = np.arange(1, len(names) + 1)
    return names, table[ids.ravel()]


def released_miou_ins(counts: Overlaps) -> float:
    """mIoU_ins: each GT in id order takes the best remaining prediction and removes it, even at IoU
    0; no GT: 0.

    Give GT ids through `align_ids`, so that id order is area order.
    """
    table = (counts.common + EPS) / (counts.union + EPS)
    left = list(range(table.shape[1]))
    values = []
    for row in table:
        best = max(left, key=lambda column: row[column], default=None)
        values.append(0.0 if best is None else float(row[best]))
        if best is not None:
            left.remove(best)
    return float(np.mean(values)) if values else 0.0


def released_miou01(gt_ids: np.ndarray, pred_ids: np.ndarray) -> float:
    """mIoU01: IoU of everything that moves, as one foreground; GT empty: 0."""
    gt, pred = gt_ids > 0, pred_ids > 0
    if not gt.any():
        return 0.0
    return float((np.count_nonzero(gt & pred) + EPS) / (np.count_nonzero(gt | pred) + EPS))


def released_bbox_iou(gt_boxes: np.ndarray, pred_boxes: np.ndarray) -> float:
    """Mean over the best IoU of each GT box and of each predicted box, (n, 4) px far edge
    exclusive; either empty: 0.

    DIMOS also counts its background query's box among the predictions; ours has none.
    """
    if not len(gt_boxes) or not len(pred_boxes):
        return 0.0
    near = np.maximum(gt_boxes[:, None, :2], pred_boxes[None, :, :2])
    far = np.minimum(gt_boxes[:, None, 2:], pred_boxes[None, :, 2:])
    common = np.prod(np.maximum(far - near, 0), axis=2)
    gt_area, pred_area = (
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (gt_boxes, pred_boxes)
    )
    table = common / np.maximum(gt_area[:, None] + pred_area[None] - common, EPS)
    return float(np.concatenate([table.max(1), table.max(0)]).mean())


def match(iou_gp: np.ndarray, min_iou: float = 0.0) -> list[tuple[int, int]]:
    """The one-to-one pairs of greatest summed IoU among pairs with IoU > 0 and >= `min_iou`."""
    value = np.where((iou_gp > 0) & (iou_gp >= min_iou), iou_gp, 0.0)
    return [
        (int(g), int(p))
        for g, p in zip(*linear_sum_assignment(value, maximize=True))
        if value[g, p] > 0
    ]


def strict_miou(counts: Overlaps) -> float:
    """Summed IoU of Hungarian pairs over (pairs + missed GT + false positives); nothing there and
    nothing said: 1.
    """
    gt, pred = counts.common.shape
    if gt + pred == 0:
        return 1.0
    pairs = match(counts.iou)
    return float(sum(counts.iou[pair] for pair in pairs) / (gt + pred - len(pairs)))


class IdSwitches:
    """CLEAR-MOT bookkeeping at mask IoU 0.5 (Bernardin and Stiefelhagen 2008): a match of the frame
    before stays.
    """

    MIN_IOU = 0.5

    def __init__(self) -> None:
        self.switches = self.misses = self.false_positives = self.objects = 0
        self._last: dict[int, int] = {}  # GT id -> the track that last showed it
        self._before: dict[int, int] = {}  # the same, of the frame before only

    def add(self, gt_ids: np.ndarray, track_ids: np.ndarray, iou_gp: np.ndarray) -> None:
        """One frame: `gt_ids` (G,) stable object ids, `track_ids` (P,), 0 or less = untracked,
        `iou_gp` (G, P).
        """
        allowed = np.where(iou_gp >= self.MIN_IOU, iou_gp, 0.0)
        allowed[:, track_ids <= 0] = 0
        for g, name in enumerate(gt_ids):
            for p in np.flatnonzero(track_ids == self._before.get(int(name), -1)):
                if allowed[g, p] > 0:
                    keep = allowed[g, p]
                    allowed[g, :] = allowed[:, p] = 0
                    allowed[g, p] = keep
        self._before = {int(gt_ids[g]): int(track_ids[p]) for g, p in match(allowed)}
        self.switches += sum(
            self._last.get(name, track) != track for name, track in self._before.items()
        )
        self._last.update(self._before)
        self.objects += len(gt_ids)
        self.misses += len(gt_ids) - len(self._before)
        self.false_positives += len(track_ids) - len(self._before)

    @property
    def named(self) -> int:
        """GT objects that some track showed; the first track of each counts as a switch."""
        return len(self._last)

    @property
    def mota(self) -> float | None:
        """1 - (misses + false positives + switches) / objects; None without objects."""
        errors = self.misses + self.false_positives + self.switches
        return 1 - errors / self.objects if self.objects else None


class MaskAp:
    """AP@[.50:.05:.95] of masks by pycocotools: one category, all areas, 100 detections per image.

    Of boxes too, where detections come with their own.
    """

    def __init__(self) -> None:
        self._images: list[dict] = []
        self._gt: list[dict] = []
        self._detections: list[dict] = []

    def add(self, gt_masks: list[np.ndarray], masks: list[np.ndarray], scores: np.ndarray,
            boxes: np.ndarray | None = None) -> None:
        """One image: (H, W) bool masks of the ground truth and of the predictions, with a score
        each.

        `boxes` (N, 4) px corners, far edges exclusive: where the predictions' are not their masks'
        extents.
        """
        image = len(self._images) + 1
        height, width = next((mask.shape for mask in [*gt_masks, *masks]), (0, 0))
        self._images.append({'id': image, 'height': height, 'width': width})
        for mask in gt_masks:
            code = rle.encode(np.asfortranarray(mask, np.uint8))
            self._gt.append(
                {
                    'id': len(self._gt) + 1,
                    'image_id': image,
                    'category_id': 1,
                    'iscrowd': 0,
                    'area': int(rle.area(code)),
                    'bbox': rle.toBbox(code).tolist(),
                    'segmentation': code,
                }
            )
        for row, (mask, score) in enumerate(zip(masks, scores)):
            code = rle.encode(np.asfortranarray(mask, np.uint8))
            corners = rle.toBbox(code)
            if boxes is not None:
                corners = np.concatenate([boxes[row, :2], boxes[row, 2:] - boxes[row, :2]])
            self._detections.append({'image_id': image, 'category_id': 1, 'score': float(score),
                                     'bbox': corners.tolist(), 'segmentation': code})

    def value(self, constant_score: bool = False) -> float | None:
        """AP in [0, 1]; None without ground truth.

        `constant_score`: all scores 1, as DIMOS' id maps force it to.
        """
        found = self.values(constant_score=constant_score)
        return None if found is None else found[0]

    def values(self, kind: str = 'segm', constant_score: bool = False
               ) -> tuple[float, float, float] | None:
        """AP, AP50 and AP75 of masks ('segm') or boxes ('bbox'), each in [0, 1].

        None without ground truth.
        """
        if not self._gt:
            return None
        if not self._detections:
            return 0.0, 0.0, 0.0
        found = [
            {**item, 'score': 1.0} if constant_score else dict(item) for item in self._detections
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {'info': {}, 'images': self._images, 'annotations': self._gt,
                             'categories': [{'id': 1, 'name': 'moving'}]}
            truth.createIndex()
            run = COCOeval(truth, truth.loadRes(found), kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
        return tuple(float(value) for value in run.stats[:3])
