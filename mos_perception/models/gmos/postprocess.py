"""Raw outputs of a GMOS network to Instances.

What moves is the foreground map's part above its threshold. A pixel of it goes to the query with
the largest mask logit among those that move (Jyxarthur/gmos: top queries by motion, argmax per
pixel), and what one query owns in places apart is several instances: small things far from each
other look alike to it. The binary members have no queries, there each connected part is an
instance.

Shape legend: Q queries, N kept instances, h w the maps' size, H W the frame's.
"""

from __future__ import annotations

import cv2
import numpy as np

from mos_perception.datatypes import Instances
from mos_perception.masks import mask_box
from mos_perception.models.gmos.refine import to_image_edges
from mos_perception.models.outputs import finite, resized, sigmoid

MOVES = 0.5          # motion probability from which a query may own pixels
MIN_AREA = 0.0012    # share of the frame: less is noise of the foreground map
APART = 0.1          # of a query's largest part: a part as large is an instance of its own


def to_instances(outputs: dict[str, np.ndarray], size: tuple[int, int], score_threshold: float,
                 top_k: int, image: np.ndarray | None = None) -> Instances:
    """Instances at `size` (H, W), best first; their masks are disjoint.

    `image` (3, h', w') is the network's: masks then end where it has edges. Raises EngineError for
    outputs that are absent or not finite.
    """
    coarse = sigmoid(finite(outputs, 'foreground_logits')[0])
    sharp = coarse if image is None else to_image_edges(coarse, image)
    probability, foreground = resized(coarse, size), resized(sharp, size) > 0.5
    if not foreground.any():
        return Instances.empty(*size, _embedding_width(outputs))
    if 'mask_logits' in outputs:
        masks, queries = _owned(outputs, foreground, top_k)
    else:
        masks, queries = [], np.empty(0, np.int64)
    if not len(masks):
        masks, queries = _parts(foreground, top_k), None
    return _instances(outputs, probability, masks, queries, score_threshold)


def _owned(outputs: dict[str, np.ndarray], foreground: np.ndarray,
           top_k: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The foreground shared out among moving queries; a query left with specks gives them up."""
    masks_qhw, motion = finite(outputs, 'mask_logits'), sigmoid(finite(outputs, 'motion_logits'))
    queries = np.argsort(-motion, kind='stable')[:top_k]
    queries = queries[motion[queries] > MOVES]
    least = max(1.0, MIN_AREA * foreground.size)
    logits = [resized(masks_qhw[query], foreground.shape)[foreground] for query in queries]
    while len(queries):
        owner = np.argmax(logits, 0)  # of each pixel of the foreground
        areas = np.bincount(owner, minlength=len(queries))
        if (areas >= least).all():
            parts = [_apart(_within(foreground, owner == row), least)
                     for row in range(len(queries))]
            return sum(parts, []), np.repeat(queries, [len(masks) for masks in parts])
        given_up = int(np.argmin(areas))
        queries = np.delete(queries, given_up)
        del logits[given_up]
    return [], queries


def _within(foreground: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(H, W) bool: `values` at the pixels of `foreground` in their order, False elsewhere."""
    mask = np.zeros_like(foreground)
    mask[foreground] = values
    return mask


def _apart(mask: np.ndarray, least: float) -> list[np.ndarray]:
    """The connected parts of a mask (H, W) bool, small ones with the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    largest = int(areas.argmax())
    own = (areas >= max(least, APART * areas[largest])).nonzero()[0]
    parts = [labels == part for part in own if part != largest]
    rest = mask & ~np.isin(labels, own[own != largest])
    return [rest, *parts]


def _parts(foreground: np.ndarray, top_k: int) -> list[np.ndarray]:
    """Connected parts that are large enough, largest first."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(foreground.view(np.uint8),
                                                           connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    ranked = np.argsort(-areas, kind='stable')[:top_k]
    return [labels == part for part in ranked if areas[part] >= MIN_AREA * foreground.size]


def _instances(outputs: dict[str, np.ndarray], probability: np.ndarray, masks: list[np.ndarray],
               queries: np.ndarray | None, score_threshold: float) -> Instances:
    """Scored by the foreground's mean probability inside, times the query's motion probability."""
    scores = np.array([probability[mask].mean() for mask in masks], np.float32)
    scores = np.minimum(scores, np.float32(1))
    motion = scores
    embeddings = np.zeros((len(masks), _embedding_width(outputs)), np.float32)
    if queries is not None:
        motion = sigmoid(finite(outputs, 'motion_logits')[queries]).astype(np.float32)
        scores = scores * motion
        embeddings = finite(outputs, 'embeddings')[queries]
    kept = [row for row in np.argsort(-scores, kind='stable') if scores[row] > score_threshold]
    if not kept:
        return Instances.empty(*probability.shape, embeddings.shape[1])
    boxes = np.array([mask_box(masks[row]) for row in kept], np.float32)
    return Instances(np.stack([masks[row] for row in kept]), boxes, scores[kept], motion[kept],
                     np.ones(len(kept), bool), embeddings[kept])


def _embedding_width(outputs: dict[str, np.ndarray]) -> int:
    return outputs['embeddings'].shape[-1] if 'embeddings' in outputs else 0
