"""The Temporal Refiner over a window's instances in place of its pixels.

It takes what the frozen referring tracker gave: its vectors of instances and its slots. As in
`instance_tracker` a slot's mask embedding is compared with a key of every instance of the frame,
and with one of "none"; beside it counts what `mos_perception.tracking.windows` says of the pair. A
clip's class is whether the slot is a moving object of its own. Legend as in `windows`; B batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mos_perception.tracking.windows import RELATION, STATE
from training.nets.dvis import NANO, DvisConfig, TemporalRefiner

RELATION_HIDDEN = 32


class InstanceRefiner(nn.Module):
    """All frames of a window at once. The tracker's vectors have the config's width."""

    def __init__(self, config: DvisConfig = NANO) -> None:
        super().__init__()
        self.config = config
        self.state = nn.Linear(STATE, config.width)
        self.nothing = nn.Parameter(torch.zeros(config.width))
        self.refiner = TemporalRefiner(config)
        self.key = nn.Linear(config.width, config.mask_width)
        self.relation = nn.Sequential(nn.Linear(RELATION, RELATION_HIDDEN), nn.ReLU(),
                                      nn.Linear(RELATION_HIDDEN, RELATION_HIDDEN), nn.ReLU(),
                                      nn.Linear(RELATION_HIDDEN, 1))

    def forward(self, queries: Tensor, padding: Tensor, slots: Tensor, state: Tensor,
                relations: Tensor, empty: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (blocks, B, T, S, N + 1) of each slot's instances, the last says "none", and
        (blocks, B, S) of its being an object.

        `queries` (B, T, N, C), `padding` (B, T, N) above 0 where no instance is, `slots` (B, T, S,
        C), `state` (B, T, S, STATE), `relations` (B, T, S, N, RELATION), `empty` (B, S) True at no
        slot.
        """
        queries = torch.cat([queries, self.nothing.expand_as(queries[:, :, :1])], 2)
        away = torch.cat([padding > 0, torch.zeros_like(padding[..., :1]) > 0], -1)
        found = self.refiner(slots + self.state(state), queries, away, empty)
        classes, masks = self.refiner.read(found)
        keys = self.key(queries) / math.sqrt(self.config.mask_width)
        logits = torch.einsum('lbtsd,btnd->lbtsn', masks, keys)
        beside = self.relation(relations)[..., 0]
        logits = logits + torch.cat([beside, torch.zeros_like(beside[..., :1])], -1)
        # a large number, not infinity: infinities of other frames' sizes would spoil gradients
        logits = logits.masked_fill(away[:, :, None], -1e4)
        return logits, classes[..., 0] - classes[..., 1]
