"""Motion evidence: dense flow at several gaps in time, the camera's motion taken out, as one tensor
for a network.

Per gap eight channels (H, W): 0-1 residual flow, x and y, over s = max(its 95th percentile, 0.3
px); 2 log(1 + |residual| px); 3 log(1 + forward-backward error px); 4 |now - other warped by the
camera's flow| and 5 |now - other warped by the full flow|, in 32 grey levels; 6 log(1 + |residual|
/ four times the background's median error); 7 the residual along the camera's own flow, over s, or
as 6 of what lies off the epipolar line (`parallax.py`).
Gaps before and after one frame mirror each other: a missing one is minus its opposite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mos_perception.errors import ConfigError
from mos_perception.motion.camera_motion import CameraMotion, camera_flow
from mos_perception.motion.flow import FlowSettings, length, pixel_grid, warp
from mos_perception.motion.parallax import find_epipole, off_epipolar, residual

PER_GAP = 8
SIGNED = (0, 1)  # channels that point back where the gap points forward
HORIZONTAL = (0,)  # channels that change sign when the image is mirrored left to right
VERTICAL = (1,)
_LEAST_SCALE_PX = 0.3
_LIMIT = 6.0


@dataclass(frozen=True)
class EvidenceSpec:
    """`size` (h, w) of the channels; `gaps_ms` of the short and the long gap, looked for before the
    frame and, where `centred`, after it too; the channels' order is -short, -long, +short, +long;
    `flow` how it is computed. `fade_ms` of the images drawn of events where there is no frame
    (`event_image.py`); 0: frames alone have evidence. `epipolar`: what channel 7 is.
    """

    size: tuple[int, int] = (128, 224)
    gaps_ms: tuple[float, ...] = (40.0, 120.0)
    centred: bool = True
    flow: FlowSettings = FlowSettings()
    fade_ms: float = 0.0
    epipolar: bool = False

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        if min(self.size) < 32:
            raise ConfigError(f'evidence size is {self.size}: must be >= 32 px')
        if (
            not self.gaps_ms
            or min(self.gaps_ms) <= 0
            or list(self.gaps_ms) != sorted(set(self.gaps_ms))
        ):
            raise ConfigError(f'evidence gaps_ms is {self.gaps_ms}: must be > 0, in rising order')
        if self.fade_ms < 0:
            raise ConfigError(f'evidence fade_ms is {self.fade_ms}: must be >= 0 ms, 0 for none')

    @property
    def signed_gaps_ms(self) -> tuple[float, ...]:
        """The gaps that are looked for, negative before the frame, in the channels' order."""
        before = tuple(-gap for gap in self.gaps_ms)
        return before + self.gaps_ms if self.centred else before

    @property
    def gap_count(self) -> int:
        """Gaps in the tensor: always both directions, so that one network serves centred and causal
        use.
        """
        return 2 * len(self.gaps_ms)


@dataclass(frozen=True)
class Pair:
    """A frame against another: `planes` (8, H, W) of `pair_evidence`, and what they were made of.
    """

    planes: np.ndarray
    flow: np.ndarray
    motion: CameraMotion


def channel_count(spec: EvidenceSpec) -> int:
    """C of the tensor."""
    return PER_GAP * spec.gap_count


def pair_evidence(
    now: np.ndarray, other: np.ndarray, forward: np.ndarray, backward: np.ndarray,
    motion: CameraMotion, epipolar: bool = False
) -> np.ndarray:
    """(8, H, W) float32 from two grey images (H, W) uint8, the flows between them, (H, W, 2) px
    each, and the camera's motion, which is taken out. `epipolar`: channel 7 is left zero, for
    `assemble`, which sees all gaps.
    """
    grid = pixel_grid(now.shape)
    camera = camera_flow(motion.matrix, grid)
    residual = forward - camera
    lengths = length(residual)
    last = -lengths.size // 20
    scale = max(float(np.partition(lengths.ravel(), last)[last]), _LEAST_SCALE_PX)
    level = now.astype(np.float32)
    planes = np.empty((PER_GAP, *now.shape), np.float32)
    planes[:2] = residual.transpose(2, 0, 1) / scale
    planes[2] = _log(lengths)
    planes[3] = _log(length(warp(backward, forward, grid) + forward))
    for row, flow in ((4, camera), (5, forward)):
        planes[row] = np.abs(level - warp(other, flow, grid)) / 32
    planes[6] = _log(lengths / _noise(motion.spread_px))
    if epipolar:
        planes[7] = 0
    else:
        along = residual[..., 0] * camera[..., 0] + residual[..., 1] * camera[..., 1]
        planes[7] = along / (length(camera) + 1.0) / scale
    return np.clip(planes, -_LIMIT, _LIMIT, out=planes)


def mirrored(planes: np.ndarray) -> np.ndarray:
    """(..., 8, H, W) of the opposite gap, if motion were even: the residual turned round, the rest
    as it is.
    """
    turned = planes.copy()
    turned[..., list(SIGNED), :, :] *= -1
    return turned


def residual_px(tensor: np.ndarray) -> np.ndarray:
    """(G, 2, H, W) float32 px: the residual flow that evidence (G * 8, H, W) was made of, of a
    length of 400 px (e^6 - 1) at most.
    """
    planes = tensor.reshape(-1, PER_GAP, *tensor.shape[1:])
    directions, lengths = planes[:, :2], np.expm1(planes[:, 2])
    norms = np.sqrt(np.square(directions).sum(1))
    return directions * (lengths / np.maximum(norms, np.finfo(np.float32).tiny))[:, None]


def assemble(found: Sequence[Pair | None], spec: EvidenceSpec) -> np.ndarray:
    """(C, H, W) float32 from one pair or None per gap; None takes its opposite turned round, else
    zeros.
    """
    half = spec.gap_count // 2
    tensor = np.zeros((spec.gap_count, PER_GAP, *spec.size), np.float32)
    for index, pair in enumerate(found):
        if pair is not None:
            tensor[index] = pair.planes
    if spec.epipolar:
        _add_off_epipolar(tensor, found)
    for index, pair in enumerate(found):
        if pair is None and found[(index + half) % spec.gap_count] is not None:
            tensor[index] = mirrored(tensor[(index + half) % spec.gap_count])
    return tensor.reshape(-1, *spec.size)


def _add_off_epipolar(tensor: np.ndarray, found: Sequence[Pair | None]) -> None:
    """Channel 7 of each gap there is (G, 8, H, W), by the epipole of all of them."""
    present = {index: pair for index, pair in enumerate(found) if pair is not None}
    grid = pixel_grid(tensor.shape[2:])
    fields = [residual(pair.flow, pair.motion, grid) for pair in present.values()]
    spreads = [pair.motion.spread_px for pair in present.values()]
    epipole = find_epipole(fields, spreads, grid) if fields else None
    for index, field, spread_px in zip(present, fields, spreads):
        off_px = off_epipolar(field, epipole, grid)
        tensor[index, 7] = np.minimum(_log(off_px / _noise(spread_px)), _LIMIT)


def _noise(spread_px: float) -> float:
    """px above which a residual is more than the background's noise."""
    return max(4 * spread_px, _LEAST_SCALE_PX / 4)


def _log(values: np.ndarray) -> np.ndarray:
    """log(1 + values) of float32 >= 0; a third of log1p's time, 1e-7 off."""
    return np.log(1 + values)
