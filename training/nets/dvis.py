"""DVIS' Referring Tracker and Temporal Refiner (Zhang et al. 2023, arXiv 2306.03413, sections 3.2
and 3.3), written from the paper's equations.

At the published width of 256 with 25 classes they have 9.68 M and 14.41 M parameters. Legend: B
batch, T frames, Q slots (tracked objects), N queries of the segmenter in a frame, C width, K
classes, D width of the mask features. Masks (..., h, w) are the dot products of a slot's mask
embedding and the segmenter's mask features (..., D, h, w).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DvisConfig:
    """Sizes of a tracker or refiner; the defaults are the published ones."""

    width: int = 256
    """C."""
    heads: int = 8
    """Of every attention; they divide the width."""
    feed_forward: int = 2048
    """Hidden width of the feed-forward nets."""
    blocks: int = 6
    """Of attention and feed-forward."""
    classes: int = 25
    """K, without the class that says there is none."""
    mask_width: int = 256
    """D."""
    without: str = ''
    """One of `PARTS` that the refiner's blocks leave out, as in the paper's ablation."""


PARTS = ('long', 'short', 'cross_attention')
NANO = DvisConfig(width=64, heads=4, feed_forward=128, blocks=2, classes=1, mask_width=64)
"""A tracker for a CPU beside a camera."""


def attention(config: DvisConfig) -> nn.MultiheadAttention:
    """Attention of the config's width, batch first, without dropout."""
    return nn.MultiheadAttention(config.width, config.heads, batch_first=True)


class FeedForward(nn.Module):
    """Two linear layers, added, then normalised."""

    def __init__(self, config: DvisConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(config.width, config.feed_forward), nn.ReLU(),
                                    nn.Linear(config.feed_forward, config.width))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.norm(x + self.layers(x))


class ReferringCrossAttention(nn.Module):
    """RCA(ID, Q, K, V) = ID + MHA(Q, K, V) (equation 2), then normalised: the identity that is
    refined need not be the query that looks.
    """

    def __init__(self, config: DvisConfig) -> None:
        super().__init__()
        self.attention = attention(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, identity: Tensor, query: Tensor, memory: Tensor,
                padding: Tensor | None = None) -> Tensor:
        """(B, Q, C), (B, Q, C), (B, N, C) -> (B, Q, C); `padding` (B, N) is True at no query."""
        read = self.attention(query, memory, memory, key_padding_mask=padding,
                              need_weights=False)[0]
        return self.norm(identity + read)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, added, then normalised."""

    def __init__(self, config: DvisConfig) -> None:
        super().__init__()
        self.attention = attention(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C); `padding` (B, L) is True where nothing is."""
        read = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        return self.norm(x + read)


class TrackerBlock(nn.Module):
    """Referring cross-attention, self-attention over the slots, feed-forward."""

    def __init__(self, config: DvisConfig) -> None:
        super().__init__()
        self.cross_attention = ReferringCrossAttention(config)
        self.self_attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, identity: Tensor, query: Tensor, memory: Tensor,
                padding: Tensor | None = None, empty: Tensor | None = None) -> Tensor:
        """(B, Q, C), (B, Q, C), (B, N, C) -> (B, Q, C); `padding` (B, N), `empty` (B, Q)."""
        x = self.cross_attention(identity, query, memory, padding)
        return self.feed_forward(self.self_attention(x, empty))


class Heads(nn.Module):
    """What a slot says: its class, and the embedding of its mask."""

    def __init__(self, config: DvisConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, config.classes + 1)
        self.masks = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width),
                                   nn.ReLU(), nn.Linear(width, config.mask_width))


class ReferringTracker(nn.Module):
    """The slots of one frame from those of the frame before: all state is the caller's."""

    def __init__(self, config: DvisConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DvisConfig()
        self.blocks = nn.ModuleList(TrackerBlock(config) for _ in range(config.blocks))
        self.heads = Heads(config)

    def forward(self, initial: Tensor, queries: Tensor, reference: Tensor | None,
                padding: Tensor | None = None, empty: Tensor | None = None) -> Tensor:
        """Each block's slots (blocks, B, Q, C).

        `initial` (B, Q, C): the segmenter's queries matched to the slots, where the first block's
        identity starts; `queries` (B, N, C): all of the frame's; `reference` (B, Q, C): the last
        block's slots of the frame before, the query of every block, or None in the first frame,
        where the identity is the query. `padding` (B, N) and `empty` (B, Q) are True where nothing
        is.
        """
        x, found = initial, []
        for block in self.blocks:
            x = block(x, x if reference is None else reference, queries, padding, empty)
            found.append(x)
        return torch.stack(found)

    def read(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) -> class logits (..., K + 1), mask embeddings (..., D)."""
        slots = self.heads.norm(slots)
        return self.heads.classes(slots), self.heads.masks(slots)


class RefinerBlock(nn.Module):
    """Long and short attention over time, attention between slots, to the frame's queries,
    feed-forward.
    """

    def __init__(self, config: DvisConfig) -> None:
        super().__init__()
        width, self.without = config.width, config.without
        self.long = SelfAttention(config)
        self.short = nn.Sequential(
            nn.Conv1d(width, width, 5, padding='same', padding_mode='replicate'), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding='same', padding_mode='replicate'))
        self.short_norm = nn.LayerNorm(width)
        self.self_attention = SelfAttention(config)
        self.cross_attention = ReferringCrossAttention(config)
        self.feed_forward = FeedForward(config)
        if self.without:
            delattr(self, self.without)
        if self.without == 'short':
            del self.short_norm

    def forward(self, x: Tensor, queries: Tensor, padding: Tensor | None = None,
                empty: Tensor | None = None) -> Tensor:
        """(B, T, Q, C), (B, T, N, C) -> (B, T, Q, C); `padding` (B, T, N) is True at no query,
        `empty` (B, Q) at no slot.
        """
        batch, frames, slots, width = x.shape
        x = x.transpose(1, 2).reshape(batch * slots, frames, width)
        if self.without != 'long':
            x = self.long(x)
        if self.without != 'short':
            x = self.short_norm(x + self.short(x.transpose(1, 2)).transpose(1, 2))
        x = x.reshape(batch, slots, frames, width).transpose(1, 2)
        x = x.reshape(batch * frames, slots, width)
        x = self.self_attention(x, None if empty is None else empty.repeat_interleave(frames, 0))
        if self.without != 'cross_attention':
            x = self.cross_attention(x, x, queries.flatten(0, 1),
                                     None if padding is None else padding.flatten(0, 1))
        return self.feed_forward(x).reshape(batch, frames, slots, width)


class TemporalRefiner(nn.Module):
    """The slots of a whole clip, seen together."""

    def __init__(self, config: DvisConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DvisConfig()
        self.blocks = nn.ModuleList(RefinerBlock(config) for _ in range(config.blocks))
        self.heads = Heads(config)
        self.weight = nn.Linear(config.width, 1)

    def forward(self, slots: Tensor, queries: Tensor, padding: Tensor | None = None,
                empty: Tensor | None = None) -> Tensor:
        """Each block's slots (blocks, B, T, Q, C).

        `slots` (B, T, Q, C) of the tracker, `queries` (B, T, N, C) of the segmenter, with `padding`
        (B, T, N) True at no query and `empty` (B, Q) at no slot.
        """
        x, found = slots, []
        for block in self.blocks:
            x = block(x, queries, padding, empty)
            found.append(x)
        return torch.stack(found)

    def read(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """(..., T, Q, C) -> class logits (..., Q, K + 1) of the clip, mask embeddings (..., T, Q,
        D) of each frame. Classes are read from the mean over time, weighted by its softmax
        (equation 5).
        """
        slots = self.heads.norm(slots)
        share = F.softmax(self.weight(slots), -3)
        return self.heads.classes((share * slots).sum(-3)), self.heads.masks(slots)
