"""The true flow of rendered clips, as a packed set stores it: uint8, 128 + 8 x px, 0 = unknown."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from mos_perception.errors import ConfigError
from training.scenes.clip import Clip
from training.scenes.truth import flow_to_previous


def true_flows(clip: Clip, size: tuple[int, int]) -> np.ndarray:
    """(T - 1, 2, H/2, W/2) coded: x and y of the flow to the previous frame in px of `size` (H, W).

    Raises ConfigError for a clip of which the renderer of today does not know it.
    """
    flow, valid, ids = flow_to_previous(clip.preset, clip.seed)
    if not np.array_equal(ids, clip.ids):
        raise ConfigError(f'clip {clip.seed} of {clip.preset} is not what that preset and seed '
                          'give on split train: its flow is unknown, render it anew or take a '
                          'recipe without true_flow')
    half = (-(-size[1] // 2), -(-size[0] // 2))  # as the network rounds
    scale = np.array([size[1] / clip.size[1], size[0] / clip.size[0]], np.float32)
    rows = []
    for one, known in zip(flow, valid):
        coded = np.where(known[..., None], 128 + 8 * scale * one, 0)
        rows.append(cv2.resize(coded, half, interpolation=cv2.INTER_NEAREST))
    coded = np.rint(np.stack(rows)).transpose(0, 3, 1, 2)
    return np.where((coded >= 1) & (coded <= 255), coded, 0).astype(np.uint8)


def mirrored(flows: np.ndarray, axis: int) -> np.ndarray:
    """A row of `true_flows` flipped top to bottom (0) or left to right (1).

    That component turns its sign.
    """
    flows = np.flip(flows, 1 + axis).copy()
    flows[1 - axis] = -flows[1 - axis]  # modulo 256: 128 + v becomes 128 - v, 0 stays
    return flows


def decoded(flows: np.ndarray, voxel: Tensor) -> Tensor:
    """`true_flows` (B, 2, h, w) -> px, NaN where unknown.

    Unknown in all of a sample without events, which shows no motion.
    """
    px = (torch.from_numpy(flows).float() - 128) / 8
    no_events = (voxel == 0).flatten(1).all(1)[:, None, None]
    unknown = torch.from_numpy((flows == 0).any(1)) | no_events
    return px.masked_fill(unknown[:, None], float('nan'))
