"""What the raw outputs of every network go through."""

from __future__ import annotations

import cv2
import numpy as np

from mos_perception.config import Config
from mos_perception.engine.card import ModelCard
from mos_perception.errors import EngineError


def limits(config: Config, card: ModelCard) -> tuple[float, int]:
    """Score threshold and most instances: the live parameters; negative and 0 mean the card's."""
    own, given = card.postprocess, config.score_threshold
    return given if given >= 0 else own.score_threshold, config.top_k or own.top_k


def finite(outputs: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One output without its batch axis, float32. Raises EngineError if absent or not finite."""
    if name not in outputs:
        given = ', '.join(outputs) or 'nothing'
        raise EngineError(f'output {name} is missing; the engine gave {given}')
    array = np.asarray(outputs[name][0], np.float32)
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise EngineError(
            f'output {name} has {bad} of {array.size} values that are NaN or infinite: '
            'the frame is dropped; if it persists, restore the model file'
        )
    return array


def softmax(logits_qc: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    powers = np.exp(logits_qc - logits_qc.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits))."""
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))


def resized(map_hw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32, bilinear with half-pixel centres."""
    return cv2.resize(map_hw, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
