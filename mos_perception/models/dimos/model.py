"""DIMOS (CVPR 2026): which objects move, from one frame and its event window.

Inputs `image` (1, 3, H, W), `voxel` (1, C, H, W) float32; a missing modality is all zero. Outputs
`class_logits` (1, Q, 3) {static, moving, no object}, `mask_logits` (1, Q, h, w), `boxes` (1, Q, 4) px
at network size, `embeddings` (1, Q, D). Legend: Q queries, K most objects, N kept instances.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances
from mos_perception.engine import Engine
from mos_perception.engine.card import ImageSpec, ModelCard, check
from mos_perception.errors import EngineError
from mos_perception.events.voxel import channels, voxelize
from mos_perception.masks import mask_box

INPUTS = {'image', 'voxel'}
OUTPUTS = {'class_logits', 'mask_logits', 'boxes', 'embeddings'}
STATIC, MOVING = 0, 1
MIN_VISIBLE = 0.5  # a mask mostly covered by better ones is a second find of the same object


class DimosModel:
    """Pre- and post-processing of one DIMOS network. Holds no state between frames."""

    def __init__(self, engine: Engine, card: ModelCard, score_threshold: float | None = None,
                 max_objects: int = 0) -> None:
        """None and 0 take the card's values. Raises EngineError where card, graph and DIMOS disagree."""
        check(card, engine)
        shapes = {spec.name: spec.shape for spec in card.inputs + card.outputs}
        if shapes.keys() != INPUTS | OUTPUTS:
            raise EngineError(f'model {card.id}: tensors are {", ".join(sorted(shapes))}; '
                              f'DIMOS has {", ".join(sorted(INPUTS | OUTPUTS))}')
        bins = channels(card.voxel.formulation, card.voxel.bins)
        image, voxel = shapes['image'], shapes['voxel']
        if None in image + voxel or image != (1, 3, *voxel[2:]) or voxel[1] != bins:
            raise EngineError(f'model {card.id}: image is {image}, voxel is {voxel}: must be (1, 3, H, W) and '
                              f'(1, {bins}, H, W) of one fixed size; export the model again')
        self.engine, self.card = engine, card
        self.size = image[2:]
        self.voxel_shape = voxel[1:]
        self.score_threshold = card.postprocess.score_threshold if score_threshold is None else score_threshold
        self.max_objects = max_objects

    def voxel(self, window: EventWindow | None) -> np.ndarray:
        """(C, H, W) float32 normalised as the card says; zeros without events."""
        if window is None or not len(window.events):
            return np.zeros(self.voxel_shape, np.float32)
        spec = self.card.voxel
        return voxelize(window, formulation=spec.formulation, bins=spec.bins, out_size=self.size, resize=spec.resize,
                        normalise=spec.normalise, norm_floor=spec.norm_floor)

    def image(self, frame: Frame | None) -> np.ndarray:
        """(3, H, W) float32 normalised RGB; zeros without a frame."""
        if frame is None:
            return np.zeros((3, *self.size), np.float32)
        return image_tensor(frame.image, self.size, self.card.image)

    def feeds(self, image: np.ndarray, voxel: np.ndarray) -> dict[str, np.ndarray]:
        """The engine's inputs from (3, H, W) and (C, H, W)."""
        return {'image': image[None], 'voxel': voxel[None]}

    def preprocess(self, frame: Frame | None, window: EventWindow | None) -> dict[str, np.ndarray]:
        """The engine's inputs from what the robot saw; either may be None."""
        return self.feeds(self.image(frame), self.voxel(window))

    def infer(self, image: np.ndarray, voxel: np.ndarray) -> dict[str, np.ndarray]:
        """The network's outputs for what `image` and `voxel` gave. Raises EngineError."""
        return self.engine.run(self.feeds(image, voxel))

    def postprocess(self, outputs: dict[str, np.ndarray], size: tuple[int, int], parity: bool = False) -> Instances:
        """Instances at frame `size`, best first (parity: last painted first).

        Raises EngineError for outputs that are not finite.
        """
        return to_instances(outputs, self.size, size, self.score_threshold, self.most, parity)

    @property
    def most(self) -> int:
        """Probabilities that are looked at, the largest first."""
        return self.max_objects or self.card.postprocess.max_objects


def image_tensor(image: np.ndarray, size: tuple[int, int], spec: ImageSpec) -> np.ndarray:
    """(3, H, W) float32 at `size` from (H', W', 3) uint8 RGB. Shrinks by area, so that no pixel is skipped."""
    height, width = size
    if image.shape[:2] != size:
        shrinks = image.shape[0] >= height and image.shape[1] >= width
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scale, shift = image_scale(spec)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    planes *= scale[:, None, None]
    planes -= shift[:, None, None]
    return planes


def image_scale(spec: ImageSpec) -> tuple[np.ndarray, np.ndarray]:
    """(3,) float32 factor of an 8-bit value, and what is taken off then."""
    return ((1 / (255 * np.array(spec.std, np.float64))).astype(np.float32),
            (np.array(spec.mean) / np.array(spec.std)).astype(np.float32))


def to_instances(outputs: dict[str, np.ndarray], net_size: tuple[int, int], frame_size: tuple[int, int],
                 score_threshold: float, max_objects: int, parity: bool = False) -> Instances:
    """DIMOS' inference rules (specs 1.10: instance_postprocess, output_fusion of the released code).

    Top `max_objects` of the Q x {static, moving} probabilities (static ones take slots); score = probability x
    mean sigmoid inside the mask at `net_size`; keep the moving ones above `score_threshold`. Here a pixel goes to the
    best score, and a query is dropped that is more likely static or mostly covered by better ones. `parity` does as
    released: it stays, and masks are painted in top-k order, so that the worst wins. Raises EngineError for outputs
    that are not finite.
    """
    logits_q3, masks_qhw, embeddings_qd = (finite(outputs, name) for name in
                                           ('class_logits', 'mask_logits', 'embeddings'))
    probs_q3 = softmax(logits_q3)
    kept = choose(probs_q3, lambda query: _mask_quality(masks_qhw[query], net_size), score_threshold, max_objects,
                  parity)
    masks, boxes, rows = _disjoint([query for query, _ in kept], masks_qhw, frame_size, 0.0 if parity else MIN_VISIBLE)
    return gather([kept[row] for row in rows], masks, boxes, probs_q3, embeddings_qd)


def softmax(logits_qc: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    powers = np.exp(logits_qc - logits_qc.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def choose(probs_q3: np.ndarray, quality: Callable[[int], float], score_threshold: float, max_objects: int,
           parity: bool = False) -> list[tuple[int, float]]:
    """(query, score) of the masks to paint, in the order in which they claim pixels; rules: `to_instances`."""
    flat = probs_q3[:, :2].ravel()
    best = np.argsort(-flat, kind='stable')[:max_objects]
    chosen = [(int(entry) // 2, flat[entry]) for entry in best if entry % 2 == MOVING
              and flat[entry] > score_threshold and (parity or flat[entry] >= flat[entry - 1])]
    scored = [(query, prob * quality(query)) for query, prob in chosen]
    kept = [(query, score) for query, score in scored if score > score_threshold]
    return kept[::-1] if parity else sorted(kept, key=lambda item: -item[1])


def gather(kept: list[tuple[int, float]], masks: np.ndarray, boxes: np.ndarray, probs_q3: np.ndarray,
           embeddings_qd: np.ndarray) -> Instances:
    """The instances of (query, score) pairs whose masks (N, H, W) and boxes (N, 4) were painted."""
    queries = np.array([query for query, _ in kept], np.int64)
    scores = np.array([score for _, score in kept], np.float32)
    pair = probs_q3[queries, :2]
    return Instances(masks, boxes, scores, pair[:, MOVING] / pair.sum(1), np.ones(len(kept), bool),
                     embeddings_qd[queries])


def finite(outputs: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One output without its batch axis, float32. Raises EngineError if it is absent or not finite."""
    if name not in outputs:
        raise EngineError(f'output {name} is missing; the engine gave {", ".join(outputs) or "nothing"}')
    array = np.asarray(outputs[name][0], np.float32)
    if not np.isfinite(array).all():
        raise EngineError(f'output {name} has {np.count_nonzero(~np.isfinite(array))} of {array.size} values that are '
                          'NaN or infinite: the frame is dropped; if it persists, restore the model file')
    return array


def _mask_quality(logits_hw: np.ndarray, net_size: tuple[int, int]) -> float:
    """Mean sigmoid inside the binary mask at network size; 0 for an empty mask."""
    logits = _upsampled(logits_hw, net_size)
    inside = logits[logits > 0]
    return float(np.mean(1 / (1 + np.exp(-inside)))) if inside.size else 0.0


def _upsampled(logits_hw: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
    """Bilinear with half-pixel centres (align_corners=False)."""
    return cv2.resize(logits_hw, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def _disjoint(queries: list[int], masks_qhw: np.ndarray, size: tuple[int, int],
              min_visible: float) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Masks (N, H, W) bool, the first query claiming its pixels; their extents (N, 4); the rows with enough left."""
    masks = np.empty((len(queries), *size), bool)
    logits, taken = np.empty(size, np.float32), np.zeros(size, bool)  # fresh pages cost more than the arithmetic
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
