"""Modality fusion, and the cross-type interaction by channel cross-attention.

Written from the equations; the attention is Restormer's (Zamir 2022) between two maps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.backbone import conv_bn


class ModalityFusion(nn.Module):
    """cat(image, event) -> conv3x3 -> ReLU, one scale of one type.

    `width` above 0 (ours): each modality is first projected to so many channels by a 1x1, and so
    many come out. At 1/16 of a ResNet-50 the released 3x3 on 2048 channels is 19 M weights;
    projected to 256 it is 1.2 M.
    """

    def __init__(self, channels: int, width: int = 0) -> None:
        super().__init__()
        self.project = None
        if width:
            self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in range(2))
        self.mix = nn.Conv2d(2 * (width or channels), width or channels, 3, 1, 1)

    def forward(self, image: Tensor, event: Tensor) -> Tensor:
        """Two (B, C, H, W) -> (B, width or C, H, W)."""
        if self.project is not None:
            project_image, project_event = self.project
            image, event = project_image(image), project_event(event)
        return F.relu(self.mix(torch.cat([image, event], 1)))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelCrossAttention(nn.Module):
    """Attention between channels: softmax(temperature * q k^T) v.

    q, k are of unit length over the pixels. q comes from one map, k and v from the
    other; all three pass a depthwise 3x3 first, a 1x1 follows.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.key_value = nn.Conv2d(channels, 2 * channels, 3, 1, 1, groups=channels,
                                   bias=False)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        shape = (batch, self.heads, channels // self.heads, height * width)
        query = F.normalize(self.query(x).reshape(shape), dim=-1)
        # groups = channels: output 2c and 2c+1 belong to input c, so key and value interleave
        key, value = self.key_value(y).reshape(batch, channels, 2, height, width).unbind(2)
        key = F.normalize(key.reshape(shape), dim=-1)
        value = value.reshape(shape)
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.temperature, -1)
        return self.project((weights @ value).reshape(batch, channels, height, width))


class GatedFeedForward(nn.Module):
    """1x1 up to 2e channels, depthwise 3x3, GELU(first half) * second half, 1x1 down.

    e = `expansion` x channels.
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.up = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.local = nn.Conv2d(2 * hidden, 2 * hidden, 3, 1, 1, groups=2 * hidden, bias=False)
        self.down = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        gate, value = self.local(self.up(x)).chunk(2, 1)
        return self.down(F.gelu(gate) * value)


class CrossBlock(nn.Module):
    """x <- x + attention(norm x, norm y); x <- x + feed-forward(norm x)."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm_x, self.norm_y, self.norm_out = (ChannelNorm(channels) for _ in range(3))
        self.attention = ChannelCrossAttention(channels, heads)
        self.feed_forward = GatedFeedForward(channels, expansion)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, C, H, W) twice -> (B, C, H, W)."""
        x = x + self.attention(self.norm_x(x), self.norm_y(y))
        return x + self.feed_forward(self.norm_out(x))


def _reduce(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(channels, 2 * hidden), nn.ReLU(),
                         nn.Conv2d(2 * hidden, hidden, 1))


class Interaction(nn.Module):
    """Appearance and motion exchange channels at one scale.

    The result's second half is the motion half.
    """

    def __init__(self, channels: int, hidden: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.appearance = _reduce(channels, hidden)
        self.motion = _reduce(channels, hidden)
        self.to_appearance = CrossBlock(hidden, heads, expansion)
        self.to_motion = CrossBlock(hidden, heads, expansion)
        self.out = nn.Sequential(conv_bn(2 * hidden, 2 * hidden), nn.ReLU(),
                                 nn.Conv2d(2 * hidden, 2 * hidden, 1))

    def forward(self, appearance: Tensor, motion: Tensor, event_mask: Tensor) -> Tensor:
        """Two (B, C, H, W) and the event mask's (B, hidden, H, W) -> (B, 2 hidden, H, W)."""
        a = self.appearance(appearance)
        b = self.motion(motion) * event_mask
        # the input is added twice, inside the block and here, as released
        mixed = [self.to_appearance(a, b) + a, self.to_motion(b, a) + b]
        return self.out(torch.cat(mixed, 1))
