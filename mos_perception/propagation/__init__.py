"""Objects kept through a video: masks handed from frame to frame (GMOS, Xie et al. 2026).

A network proposes masks frame by frame, in no order; a mask propagator carries those that were
handed to it. `stage1` (online) decides which proposals become objects, which refresh one, and which
objects move; `stage2` (offline) carries the surest masks of stage 1 through the whole video.
Members: SAM 2.1's video memory (`sam2_memory`), masks along dense flow (`flow_masks`).

Legend: N proposals, M objects, H W pixels of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Proposals:
    """What a network proposes on one frame: `masks` (N, H, W) bool, disjoint; `motion` (N,) in
    [0, 1] and `quality` (N,), the IoU that it expects of each mask, float32.
    """

    masks: np.ndarray
    motion: np.ndarray
    quality: np.ndarray


@dataclass(frozen=True)
class Carried:
    """Where the objects are on one frame: `numbers` (M,) from 1, rising; `logits` (M, H, W)
    float32, above 0 inside; `iou` (M,) float32, what the propagator expects of each mask.
    """

    numbers: tuple[int, ...]
    logits: np.ndarray
    iou: np.ndarray


class MaskPropagator(Protocol):
    """Carries masks from frame to frame. Frames have numbers; a sweep takes one after the other."""

    def prompt(self, frame: int, number: int, mask: np.ndarray) -> Carried:
        """Object `number` is `mask` (H, W) bool on `frame`: a new object, or a known one corrected.

        Returns where all objects are on that frame, as far as it is known there.
        """

    def carry(self, frame: int, step: int = 1) -> Carried:
        """All objects on `frame`, the next one of a sweep in steps of 1 or -1."""

    def forget(self, number: int) -> None:
        """Drop an object."""

    def reset(self) -> None:
        """Drop everything."""
