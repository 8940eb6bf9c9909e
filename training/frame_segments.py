"""What a trained segmenter sees in a frame: things as instances, stuff, each pixel's class.

As Mask2Former reads panoptics: a pixel is the query's of the largest class score x mask, if it is
inside that mask; a query that loses most of its mask to others is none. Legend: Q queries, K
classes, N things found, H W pixels of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional

from mos_perception.datatypes import Instances
from mos_perception.errors import EngineError
from mos_perception.masks import mask_boxes
from training.checkpoints import read_state
from training.nets.mask2former import Segmenter, config_of, semantic_scores

SCORE = 0.3  # of a query's class, from which it is anything
KEPT = 0.5  # share of its mask that a query must keep; 0.8 in the paper, for trained weights
SMALLEST = 30  # px of a segment


@dataclass(frozen=True)
class FrameSegments:
    """`things`: instances whose embeddings are the queries, all taken for moving; `shares` (N, K)
    their classes' probabilities; `stuff` (H, W) int64 the class where stuff is, -1 = none;
    `semantic` (H, W) int64 the class of each pixel.
    """

    things: Instances
    shares: np.ndarray
    stuff: np.ndarray
    semantic: np.ndarray


def load_segmenter(run: Path) -> Segmenter:
    """The network of a run of `training.train_segmenter`, in evaluation mode. Raises EngineError,
    MissingLibraryError.
    """
    path = run / 'segmenter.safetensors'
    state = read_state(path)
    with safe_open(path, 'pt') as file:
        about = file.metadata() or {}
    if 'config' not in about:
        raise EngineError(f'{path} is of no training.train_segmenter: name the folder of its --run')
    network = Segmenter(config_of(about['config']))
    network.load_state_dict(state)
    return network.eval()


@torch.inference_mode()
def read_frame(network: Segmenter, image: np.ndarray, score: float = SCORE) -> FrameSegments:
    """Of a frame (H, W, 3) uint8, at its own size."""
    config, size = network.config, image.shape[:2]
    scaled = cv2.resize(image, (config.width, config.height), interpolation=cv2.INTER_AREA)
    found = network(torch.from_numpy(scaled.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    semantic = functional.interpolate(semantic_scores(found), size, mode='bilinear')[0].argmax(0)
    masks = functional.interpolate(found.masks, size, mode='bilinear')[0].sigmoid().numpy()
    shares = found.classes[0].softmax(-1)[:, :-1].numpy()
    kinds, scores = shares.argmax(1), shares.max(1)
    rows, kept = _partition(masks, scores, score)
    things = kinds[rows] < config.things
    stuff = np.full(size, -1, np.int64)
    for row, mask in zip(rows[~things], kept[~things]):
        stuff[mask] = kinds[row]
    rows, kept = rows[things], kept[things]
    return FrameSegments(
        Instances(kept, mask_boxes(kept), scores[rows], scores[rows], np.ones(len(rows), bool),
                  found.queries[0].numpy()[rows]), shares[rows], stuff, semantic.numpy())


def _partition(masks: np.ndarray, scores: np.ndarray,
               least: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the queries that are there, (N, H, W) bool their disjoint masks, of (Q, H, W) in [0, 1]
    and scores (Q,).
    """
    able = np.flatnonzero(scores >= least)
    if not len(able):
        return able, np.zeros((0, *masks.shape[1:]), bool)
    whole = masks[able] >= 0.5
    owner = (scores[able][:, None, None] * masks[able]).argmax(0)
    own = whole & (owner == np.arange(len(able))[:, None, None])
    areas, kept = whole.sum((1, 2)), own.sum((1, 2))
    good = (kept >= SMALLEST) & (kept >= KEPT * areas)
    return able[good], own[good]
