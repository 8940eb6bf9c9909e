"""Dense optical flow on the CPU: DIS (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse
Search", OpenCV).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from mos_perception.errors import ConfigError, FrameError

_PRESETS = {
    'ultrafast': cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    'fast': cv2.DISOPTICAL_FLOW_PRESET_FAST,
    'medium': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed: at `size` (h, w), by `preset` of DIS, down to `finest_scale` 0 = every
    pixel, 1 = every second one and so on.
    """

    size: tuple[int, int] = (256, 448)
    preset: str = 'ultrafast'
    finest_scale: int = 1

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        if self.preset not in _PRESETS:
            raise ConfigError(
                f'flow preset is {self.preset!r}: must be one of {", ".join(_PRESETS)}'
            )
        if not 0 <= self.finest_scale <= 4:
            raise ConfigError(f'flow finest_scale is {self.finest_scale}: must be in [0, 4]')
        if min(self.size) < 64:
            raise ConfigError(
                f'flow size is {self.size}: must be >= 64 px, 8 of eight of its patches'
            )


def length(flow: np.ndarray) -> np.ndarray:
    """(...) of vectors (..., 2)."""
    # cv2.magnitude's last bit hangs on where its memory lies: a bag would not equal live
    x, y = flow[..., 0], flow[..., 1]
    return np.sqrt(x * x + y * y)


class Flow(Protocol):
    """Any dense flow: DIS here, a network or a chip's own elsewhere. One thread at a time."""

    def __call__(self, now: np.ndarray, other: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(H, W, 2) float32 px of an image of `size` (H, W): where each pixel of `now` stands in
        `other`, minus where it is. `now` and `other` are uint8 grey of one size.
        """


class DenseFlow:
    """One DIS engine, reused: its buffers are large. Not for two threads at once."""

    def __init__(self, settings: FlowSettings = FlowSettings()) -> None:
        self.settings = settings
        self._engine = cv2.DISOpticalFlow_create(_PRESETS[settings.preset])
        self._engine.setFinestScale(settings.finest_scale)

    def __call__(self, now: np.ndarray, other: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(H, W, 2) float32 px of an image of `size` (H, W): where each pixel of `now` stands in
        `other`, minus where it is. `now` and `other` are `settings.size` uint8 grey. Raises
        FrameError for other sizes.
        """
        if now.shape != self.settings.size or other.shape != now.shape:
            raise FrameError(
                f'flow between grey images of {now.shape} and {other.shape}: '
                f'must be {self.settings.size}, the size of the settings'
            )
        flow = self._engine.calc(now, other, None)
        ratio = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
        return cv2.resize(flow, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) * ratio


def at_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 at `size` from (H', W') or (H', W', 3). Shrinks by area: no pixel
    is skipped.
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation)


def grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 at `size` from (H', W', 3) uint8 RGB."""
    return at_size(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size)


def pixel_grid(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 2) float32: x and y of each pixel."""
    return np.stack(
        np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)), 2
    )


def warp(image: np.ndarray, flow: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """`image` (H, W) or (H, W, C) seen where `flow` (H, W, 2) px points; the border is repeated."""
    return cv2.remap(image, grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
