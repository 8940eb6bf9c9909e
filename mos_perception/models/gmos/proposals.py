"""Raw outputs of the published GMOS and GMOS-S to Instances (github.com/Jyxarthur/gmos,
inference_gmos.py and inference_gmos_s.py).

GMOS: of the queries most likely to move each owns the pixels where its logit is the greatest and
above 0. GMOS-S: one map of what moves; each connected part is an instance.

Shape legend: Q queries, N kept instances, h w the maps' size, H W the frame's.
"""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import Instances
from mos_perception.masks import mask_boxes
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.models.outputs import finite, resized, sigmoid

MOVES = 0.5  # motion probability above which a proposal moves


def to_proposals(outputs: dict[str, np.ndarray], size: tuple[int, int], top_k: int) -> Instances:
    """What the `top_k` queries most likely to move own at `size` (H, W), moving or not; best first.

    Scores are motion x expected IoU. Raises EngineError for outputs that are absent or not finite.
    """
    logits, motion = finite(outputs, 'mask_logits'), sigmoid(finite(outputs, 'motion_logits'))
    quality, embeddings = finite(outputs, 'quality')[:, 0], finite(outputs, 'embeddings')
    queries = np.argsort(-motion, kind='stable')[:top_k]
    best, owner = np.zeros(size, np.float32), np.full(size, -1)
    for row, query in enumerate(queries.tolist()):  # one map at a time: Q of them are large
        there = resized(logits[query], size)
        better = there > best
        best[better], owner[better] = there[better], row
    rows = [row for row in range(len(queries)) if (owner == row).any()]
    scores = motion[queries] * quality[queries].clip(0, 1)
    rows = sorted(rows, key=lambda row: -scores[row])
    masks = np.array([owner == row for row in rows], bool).reshape(-1, *size)
    kept = queries[rows]
    moves = motion[kept].astype(np.float32)
    return Instances(masks, mask_boxes(masks), scores[rows].astype(np.float32), moves,
                     moves > MOVES, embeddings[kept])


def above(found: Instances, score_threshold: float) -> Instances:
    """Those that move and score above the threshold."""
    return found.of(found.moving & (found.scores > score_threshold))


def to_parts(outputs: dict[str, np.ndarray], size: tuple[int, int], score_threshold: float,
             top_k: int) -> Instances:
    """GMOS-S' mask at `size` (H, W) as connected parts. Raises EngineError as `to_proposals`."""
    logits = resized(finite(outputs, 'foreground_logits')[0], size)
    return to_instances({'foreground_logits': logits[None, None]}, size, score_threshold, top_k)
