"""Raw outputs of a DIMOS network to Instances: the released code's rules, and our two departures.

Released (`instance_postprocess` and `output_fusion` of the DIMOS repository): the top k of the
Q x {static, moving} probabilities, static ones taking slots; score = probability x mean sigmoid
inside the mask at network size; the moving ones above the score threshold are painted in top-k
order, so that the worst wins a pixel. Here a pixel goes to the best score, and a query is dropped
that is more likely static or mostly covered by better ones. `as_released` switches that off.

Shape legend: Q queries, N kept instances, D embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mos_perception.datatypes import Instances
from mos_perception.masks import mask_box
from mos_perception.models.outputs import finite, softmax

STATIC, MOVING = 0, 1
MIN_VISIBLE = 0.5  # a mask mostly covered by better ones is a second find of the same object


def to_instances(outputs: dict[str, np.ndarray], net_size: tuple[int, int],
                 frame_size: tuple[int, int], score_threshold: float, top_k: int,
                 as_released: bool = False) -> Instances:
    """Instances at `frame_size`, best first (as released: last painted first).

    Raises EngineError for outputs that are absent or not finite.
    """
    logits_q3 = finite(outputs, 'class_logits')
    masks_qhw = finite(outputs, 'mask_logits')
    embeddings_qd = finite(outputs, 'embeddings')
    probs_q3 = softmax(logits_q3)
    selected = select_queries(probs_q3, lambda query: mask_quality(masks_qhw[query], net_size),
                              score_threshold, top_k, as_released)
    min_visible = 0.0 if as_released else MIN_VISIBLE
    queries = [query for query, _ in selected]
    masks, boxes, rows = _disjoint(queries, masks_qhw, frame_size, min_visible)
    return build_instances([selected[row] for row in rows], masks, boxes, probs_q3, embeddings_qd)


def select_queries(probs_q3: np.ndarray, quality: Callable[[int], float], score_threshold: float,
                   top_k: int, as_released: bool = False) -> list[tuple[int, float]]:
    """(query, score) of the masks to paint, in the order in which they claim pixels.

    `quality` gives a query's mask quality in [0, 1]; it is asked only of those that may be kept.
    """
    probs_q2 = probs_q3[:, [STATIC, MOVING]]
    ranked = np.argsort(-probs_q2, axis=None, kind='stable')[:top_k]
    queries, classes = np.unravel_index(ranked, probs_q2.shape)
    selected = []
    for query in queries[classes == MOVING].tolist():
        static, moving = probs_q2[query]
        if moving <= score_threshold or (moving < static and not as_released):
            continue
        score = moving * quality(query)
        if score > score_threshold:
            selected.append((query, score))
    return selected[::-1] if as_released else sorted(selected, key=lambda item: -item[1])


def build_instances(selected: list[tuple[int, float]], masks: np.ndarray, boxes: np.ndarray,
                    probs_q3: np.ndarray, embeddings_qd: np.ndarray) -> Instances:
    """The instances of (query, score) pairs whose masks (N, H, W), boxes (N, 4) were painted."""
    queries = np.array([query for query, _ in selected], np.int64)
    scores = np.array([score for _, score in selected], np.float32)
    probs_n2 = probs_q3[queries, :2]
    return Instances(masks, boxes, scores, probs_n2[:, MOVING] / probs_n2.sum(1),
                     np.ones(len(selected), bool), embeddings_qd[queries])


def mask_quality(logits_hw: np.ndarray, net_size: tuple[int, int]) -> float:
    """Mean sigmoid inside the binary mask at network size; 0 for an empty mask."""
    logits = _upsampled(logits_hw, net_size)
    inside = logits[logits > 0]
    return float(np.mean(1 / (1 + np.exp(-inside)))) if inside.size else 0.0


def _upsampled(logits_hw: np.ndarray, size: tuple[int, int],
               out: np.ndarray | None = None) -> np.ndarray:
    """Bilinear with half-pixel centres (align_corners=False)."""
    return cv2.resize(logits_hw, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def _disjoint(queries: list[int], masks_qhw: np.ndarray, size: tuple[int, int],
              min_visible: float) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Masks (N, H, W) bool, the first query claiming its pixels, and their extents (N, 4).

    Third, the rows of `queries` with at least the share `min_visible` of their mask left.
    """
    masks = np.empty((len(queries), *size), bool)
    # fresh pages cost more than the arithmetic
    logits, taken = np.empty(size, np.float32), np.zeros(size, bool)
    boxes, rows = [], []
    for row, query in enumerate(queries):
        mask = masks[len(rows)]
        np.greater(_upsampled(masks_qhw[query], size, logits), 0, out=mask)
        whole = np.count_nonzero(mask)
        np.greater(mask, taken, out=mask)
        box = mask_box(mask)
        if any(box) and np.count_nonzero(mask) >= min_visible * whole:
            np.logical_or(taken, mask, out=taken)
            boxes.append(box)
            rows.append(row)
    return masks[:len(rows)], np.array(boxes, np.float32).reshape(-1, 4), rows
