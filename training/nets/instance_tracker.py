"""The Referring Tracker over a frame's instances in place of its pixels.

A slot's mask embedding is compared not with the mask features of every pixel but with a key of
every instance: which one is it, or none of them? The masks stay the segmenter's own. What an
instance is, and where a slot is expected, are the vectors of `mos_perception.tracking.tokens`.
Beside the dot product counts what the relation of the two says (`pairs`): with eight queries and a
few minutes of training that is not left to attention. Legend as in `dvis`, F length of a vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mos_perception.tracking.tokens import PAIR, PLACE, width
from training.nets.dvis import NANO, DvisConfig, ReferringTracker

PAIR_HIDDEN = 32


class InstanceTracker(nn.Module):
    """One step from frame to frame, for models whose embeddings have `channels`."""

    def __init__(self, channels: int, config: DvisConfig = NANO) -> None:
        super().__init__()
        self.channels, self.config = channels, config
        self.embed = nn.Sequential(nn.Linear(width(channels), config.width),
                                   nn.LayerNorm(config.width))
        self.place = nn.Linear(PLACE, config.width)
        self.tracker = ReferringTracker(config)
        self.key = nn.Linear(config.width, config.mask_width)
        self.pair = nn.Sequential(nn.Linear(PAIR, PAIR_HIDDEN), nn.ReLU(),
                                  nn.Linear(PAIR_HIDDEN, PAIR_HIDDEN), nn.ReLU(),
                                  nn.Linear(PAIR_HIDDEN, 1))

    def forward(self, frame: Tensor, initial: Tensor, reference: Tensor, place: Tensor,
                pairs: Tensor, padding: Tensor | None = None,
                empty: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, C) of the frame, slots (blocks, B, Q, C), logits (blocks, B, Q, N + 1).

        `frame` (B, N, F); `initial` (B, Q, F), zeros where no instance matches; `reference` (B, Q,
        C): slots of the frame before, or a newborn one's query; `place` (B, Q, PLACE), `pairs` (B,
        Q, N, PAIR); `padding` (B, N) and `empty` (B, Q) are True where nothing is. The last logit
        says that the slot has no instance now.
        """
        queries = self.embed(frame)
        slots = self.tracker(self.embed(initial), queries, reference + self.place(place), padding,
                             empty)
        classes, masks = self.tracker.read(slots)
        keys = self.key(queries) / math.sqrt(self.config.mask_width)
        logits = torch.einsum('lbqd,bnd->lbqn', masks, keys) + self.pair(pairs)[..., 0]
        if padding is not None:
            logits = logits.masked_fill(padding[:, None], -torch.inf)
        absent = classes[..., -1:] - classes[..., :1]
        return queries, slots, torch.cat([logits, absent], -1)
