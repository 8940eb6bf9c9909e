"""PWC-Lite: coarse to fine motion between two frames, of every pixel or of every segment.

Sun et al., PWC-Net, CVPR 2018; the light estimator with dense skips is that of Liu et al., ARFlow,
CVPR 2020; the read-out of segments that of Liu et al., AMD, NeurIPS 2021, eq 3 to 5, at every
level as a residual. Written from the papers. MoSIS' eq 5 to 7 are the same at the last level.
Shapes: B batch, S segments, D features, h w a level's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.flow import warp

EPSILON = 1e-6


@dataclass(frozen=True)
class PwcConfig:
    """Sizes; the defaults are AMD's, with four levels, the coarsest 8x8 of 128x128."""

    pyramid: tuple[int, ...] = (16, 32, 64, 96)
    """Channels at 1/2, 1/4, ...; motion is estimated at all but the first."""
    reduced: int = 32
    """Channels of the first frame's features in the estimator."""
    estimator: tuple[int, int, int, int, int] = (128, 128, 96, 64, 32)
    """Its convolutions; the last two are the motion features."""
    search: int = 4
    """Greatest displacement looked at on a level, px of that level."""
    hidden: int = 64
    """Of the read-out."""
    circular: bool = True
    """Convolutions and correlation go round the edges (thesis 9.2); else zeros."""
    fine: int = 0
    """Channels of the stage that brings per-pixel flow from 1/4 to full size; 0 = without it."""

    @property
    def features(self) -> int:
        """D."""
        return self.estimator[3] + self.estimator[4]


def correlation(first: Tensor, second: Tensor, search: int, circular: bool) -> Tensor:
    """(B, (2 s + 1)^2, h, w): mean over channels of first(p) second(p + d), d by rows from -s."""
    batch, channels, height, width = first.shape
    side = 2 * search + 1
    mode = 'circular' if circular and search <= min(height, width) else 'constant'
    padded = F.pad(second, (search,) * 4, mode=mode)
    # each row against the rows around it as one product, then the band of its near columns: a
    # fifth of the time of a product for each displacement
    rows = padded.unfold(2, side, 1).permute(0, 2, 1, 4, 3).flatten(3)  # B, h, C, dy x
    products = first.permute(0, 2, 3, 1) @ rows / channels
    products = products.unflatten(3, (side, -1)).transpose(2, 3).contiguous()  # B, h, dy, x, x + dx
    wide = products.shape[-1]
    band = products.as_strided(
        (batch, height, side, width, side),
        (height * side * width * wide, side * width * wide, width * wide, wide + 1, 1))
    return band.permute(0, 2, 4, 1, 3).flatten(1, 2)


def standardised(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames' features (B, C, h, w): each channel with mean 0, all with deviation 1 over both.

    Without it features that nobody supervises fade away, and the flow with them (Jonschkowski et
    al., "What matters in unsupervised optical flow", ECCV 2020). A mean of all channels together
    would leave each channel's own in every product: the same at all displacements.
    """
    both = torch.stack([first, second])
    both = both - both.mean((0, 3, 4), keepdim=True)
    both = both / (both.square().mean((0, 2, 3, 4), keepdim=True) + EPSILON).sqrt()
    return both[0], both[1]


def pool_segments(features: Tensor, partition: Tensor) -> Tensor:
    """(B, S, D): mean of features (B, D, h, w) under each segment (B, S, h, w) (thesis eq 6)."""
    total = torch.einsum('bshw,bdhw->bsd', partition, features)
    return total / (partition.sum((2, 3))[..., None] + EPSILON)


def spread_segments(flows: Tensor, partition: Tensor) -> Tensor:
    """(B, 2, h, w): the flows (B, S, 2) mixed by the partition (B, S, h, w) (thesis eq 8)."""
    return torch.einsum('bsc,bshw->bchw', flows, partition)


class Fine(nn.Module):
    """Flow at 1/4 -> full size: a convex combination of what is around (Teed and Deng, RAFT, 2020)
    and a residual, both from the frames themselves, read at 1/2.
    """

    def __init__(self, config: PwcConfig) -> None:
        super().__init__()
        width = config.fine
        self.frames = nn.Conv2d(24, width, 3, padding=1)
        self.motion = nn.Conv2d(config.features, width, 1)
        self.layers = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(width, width, 3, padding=1),
                                    nn.LeakyReLU(0.1), nn.Conv2d(width, width, 3, padding=1),
                                    nn.LeakyReLU(0.1))
        self.head = nn.Conv2d(width, (9 + 2) * 4, 1)

    def forward(self, first: Tensor, second: Tensor, features: Tensor, flow: Tensor) -> Tensor:
        """Frames (B, 3, H, W), features (B, D, H/4, W/4), flow (B, 2, H/4, W/4) px of the full
        size -> (B, 2, H, W) px.
        """
        smooth = F.interpolate(flow, scale_factor=4.0, mode='bilinear')
        frames = F.pixel_unshuffle(torch.cat([first, warp(second, smooth)], 1), 2)
        x = self.frames(frames) + F.interpolate(self.motion(features), scale_factor=2.0)
        weights, residual = self.head(self.layers(x)).split((9 * 4, 2 * 4), 1)
        around = F.unfold(F.pad(flow, (1,) * 4, mode='replicate'), 3).unflatten(2, flow.shape[2:])
        around = F.interpolate(around, scale_factor=2.0).unflatten(1, (2, 9, 1))
        weights = weights.unflatten(1, (9, 4)).softmax(1)
        mixed = (weights[:, None] * around).sum(2).flatten(1, 2)
        return F.pixel_shuffle(mixed + residual, 2)


class PwcLite(nn.Module):
    """Frames -> flow. One estimator and one read-out serve all levels."""

    def __init__(self, config: PwcConfig) -> None:
        super().__init__()
        self.config = config
        inputs, self.pyramid, self.reduce = 3, nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(config.pyramid):
            self.pyramid.append(nn.Sequential(self._conv(inputs, channels, 2),
                                              self._conv(channels, channels)))
            if level:
                self.reduce.append(nn.Conv2d(channels, config.reduced, 1))
            inputs = channels
        a, b, c, d, e = config.estimator
        given = (2 * config.search + 1) ** 2 + 2 + config.reduced
        plan = [(given, a), (a, b), (a + b, c), (b + c, d), (c + d, e)]
        self.estimator = nn.ModuleList(self._conv(*step) for step in plan)
        self.readout = nn.Sequential(nn.Linear(config.features, config.hidden), nn.LeakyReLU(0.1),
                                     nn.Linear(config.hidden, 2))
        self.fine = Fine(config) if config.fine else None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # PyTorch's own halves the signal with every layer
                nn.init.kaiming_normal_(layer.weight, 0.1, nonlinearity='leaky_relu')
                nn.init.zeros_(layer.bias)
        # flow begins near zero: far from it a photometric loss knows no direction
        nn.init.normal_(self.readout[-1].weight, std=0.01)
        nn.init.zeros_(self.readout[-1].bias)
        if self.fine:  # which then leaves it as it is
            nn.init.zeros_(self.fine.head.weight)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Per pixel, of frames (B, 3, H, W) in [0, 1]: (B, 2, H, W) px from first to second.

        Needs `fine`.
        """
        return self.pixel_flows(first, second)[-1]

    def pixel_flows(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Per level, coarse to fine, (B, 2, h, w) px of the full size; the last (B, 2, H, W)."""
        flow, found = None, []
        for one, other, reduce in self._levels(first, second):
            if flow is None:
                flow = one.new_zeros(len(one), 2, *one.shape[2:])
            else:
                flow = 2 * F.interpolate(flow, one.shape[2:], mode='bilinear')
            features = self._features(one, other, reduce, flow)
            flow = flow + self.readout(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            found.append(first.shape[-1] / flow.shape[-1] * flow)
        return [*found, self.fine(first, second, features, found[-1])]

    def segment_flows(self, first: Tensor, second: Tensor, partition: Tensor) -> list[Tensor]:
        """Of segments (B, S, H, W) of the first frame: (B, S, 2) px of the full size, per level.

        Coarse to fine; the last is the answer.
        """
        flows, found = partition.new_zeros(*partition.shape[:2], 2), []
        for one, other, reduce in self._levels(first, second):
            scale = partition.shape[-1] / one.shape[-1]
            shares = F.adaptive_avg_pool2d(partition, one.shape[2:])
            features = self._features(one, other, reduce, spread_segments(flows / scale, shares))
            flows = flows + scale * self.readout(pool_segments(features, shares))
            found.append(flows)
        return found

    def _levels(self, first: Tensor, second: Tensor) -> list[tuple[Tensor, Tensor, nn.Module]]:
        """Both frames' features and the first's reduction, coarse to fine, down to 1/4."""
        x, maps = torch.cat([first, second]), []
        for layers in self.pyramid:
            x = layers(x)
            maps.append(x.chunk(2))
        return [(*pair, reduce) for pair, reduce in zip(maps[1:], self.reduce)][::-1]

    def _features(self, first: Tensor, second: Tensor, reduce: nn.Module, flow: Tensor) -> Tensor:
        """(B, D, h, w) motion features of a level beyond the flow known so far (B, 2, h, w) px."""
        settings = self.config
        pair = standardised(first, warp(second, flow))
        volume = correlation(*pair, settings.search, settings.circular)
        x = torch.cat([F.leaky_relu(volume, 0.1), reduce(first), flow], 1)
        outputs: list[Tensor] = []
        for layer in self.estimator:
            outputs.append(layer(torch.cat(outputs[-2:], 1) if outputs else x))
        return torch.cat(outputs[-2:], 1)

    def _conv(self, inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        mode = 'circular' if self.config.circular else 'zeros'
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode=mode),
                             nn.LeakyReLU(0.1))
