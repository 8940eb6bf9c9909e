"""GMOS' light members: a geometry encoder over motion evidence and an appearance encoder over the
image, fused.

`gmos_s_nano` gives one foreground map, `gmos_nano` object queries beside it: each query's embedding
times the pixel features is a mask, as in GMOS (Xie et al. 2026, github.com/Jyxarthur/gmos), here
over a U-Net instead of two foundation models. Shapes: B batch, G gaps, Q queries, H W input, h w =
H / 2, W / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mos_perception.motion.evidence import PER_GAP, SIGNED

MAX_CONFIDENCE = 5.0


@dataclass(frozen=True)
class GmosNanoConfig:
    """Widths of the fused levels 1/2 .. 1/32 and of the appearance levels 1/2 .. 1/8; 0 `queries`
    is the binary one.
    """

    gaps: int = 4
    """Frames that the motion evidence is against, before and after; 0 = sees one picture alone."""
    stem: int = 12
    """Channels of the geometry encoder's first convolution, for each gap."""
    widths: tuple[int, ...] = (20, 36, 64, 96, 128)
    """Channels of the fused levels at 1/2, 1/4 .. 1/32 of the input."""
    appearance: tuple[int, ...] = (8, 12, 24)
    """Channels of the appearance encoder at 1/2, 1/4 and 1/8."""
    events: int = 12
    """Channels of the event encoder."""
    event_channels: int = 0
    """Planes of the voxel grid of compensated events, at half the input's size; 0 = sees none."""
    queries: int = 8
    """Object queries; 0 is the binary member, one mask of all that moves."""
    width: int = 96
    """Channels of the queries."""


MOVABLE = GmosNanoConfig(gaps=0, appearance=(24, 28, 36))
"""Sees one picture alone: what could move in it."""


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class GeometryEncoder(nn.Module):
    """One stem for all gaps, mirrored in time so that before and after agree; mean and largest over
    the two sides.

    It starts at half size: the flow it sees is no finer.
    """

    def __init__(self, config: GmosNanoConfig) -> None:
        super().__init__()
        self.gaps = config.gaps
        self.stem = _conv(PER_GAP, config.stem)
        self.merge = _conv(config.stem * config.gaps, config.widths[0])
        signs = torch.ones(2, PER_GAP, 1, 1)
        signs[1, list(SIGNED)] = -1
        self.register_buffer(
            'signs', signs.repeat_interleave(config.gaps // 2, 0), persistent=False
        )

    def forward(self, evidence: Tensor) -> Tensor:
        """(B, width, h, w) from (B, G * 8, H, W)."""
        planes = functional.avg_pool2d(evidence, 2)
        height, width = planes.shape[2:]
        planes = planes.reshape(-1, self.gaps, PER_GAP, height, width) * self.signs
        found = self.stem(planes.flatten(0, 1))
        found = found.reshape(-1, 2, self.gaps // 2 * found.shape[1], height, width)
        return self.merge(torch.cat([found.mean(1), found.amax(1)], 1))


class EventEncoder(nn.Module):
    """Features of the events, at half the input's size; all zero where there are none, so that a
    network without events answers as this one does then.
    """

    def __init__(self, config: GmosNanoConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(config.event_channels, config.events), _conv(config.events, config.events)
        )

    def forward(self, voxel: Tensor) -> Tensor:
        """(B, events, h, w) from a grid (B, C, h, w) in [0, 1]; its root, as few cells are full."""
        there = voxel.flatten(1).amax(1) > 0
        return self.layers(voxel.sqrt()) * there[:, None, None, None]


class AppearanceEncoder(nn.Module):
    """Few channels of the image and its colours' log-odds at 1/2, 1/4 and 1/8: where edges are."""

    def __init__(self, config: GmosNanoConfig) -> None:
        super().__init__()
        widths = config.appearance
        self.stem = _conv(16, widths[0])
        self.levels = nn.ModuleList(_conv(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, image: Tensor, colour: Tensor | None) -> list[Tensor]:
        """Features at 1/2, 1/4, 1/8 from (B, 3, H, W) and (B, 1, H, W)."""
        if colour is None:
            colour = torch.zeros_like(image[:, :1])
        found = [self.stem(functional.pixel_unshuffle(torch.cat([image, colour], 1), 2))]
        for level in self.levels:
            found.append(level(functional.max_pool2d(found[-1], 2)))
        return found


class FusedUNet(nn.Module):
    """Fuses both encoders level by level; gives pixel features at 1/2 and the tokens of 1/16."""

    def __init__(self, config: GmosNanoConfig) -> None:
        super().__init__()
        widths = config.widths
        extra = (*config.appearance, *(0,) * (len(widths) - len(config.appearance)))
        events = config.events if config.event_channels else 0
        geometry = widths[0] if config.gaps else 0
        self.fuse = _conv(geometry + extra[0] + events, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(_conv(a + e, b), _conv(b, b))
            for a, b, e in zip(widths, widths[1:], extra[1:])
        )
        self.gate = nn.Sequential(
            nn.Linear(widths[-1], widths[-1] // 4),
            nn.ReLU(),
            nn.Linear(widths[-1] // 4, widths[-1]),
            nn.Sigmoid(),
        )
        self.up = nn.ModuleList(_conv(b + a, a) for a, b in zip(widths[-2::-1], widths[:0:-1]))

    def forward(
        self, geometry: Tensor | None, appearance: list[Tensor], events: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, c0, h, w) pixel features, (B, c3, H / 16, W / 16) and (B, c4) pooled."""
        finest = [found for found in (geometry, appearance[0], events) if found is not None]
        levels = [self.fuse(torch.cat(finest, 1))]
        for index, level in enumerate(self.down):
            pooled = functional.max_pool2d(levels[-1], 2)
            if index + 1 < len(appearance):
                pooled = torch.cat([pooled, appearance[index + 1]], 1)
            levels.append(level(pooled))
        bottom = levels[-1].mean((2, 3))
        found = levels[-1] * self.gate(bottom)[:, :, None, None]
        tokens = found
        for index, (level, skip) in enumerate(zip(self.up, levels[-2::-1])):
            found = level(
                torch.cat(
                    [functional.interpolate(found, scale_factor=2.0, mode='bilinear'), skip], 1
                )
            )
            tokens = found if index == 0 else tokens
        return found, tokens, bottom


class QueryDecoder(nn.Module):
    """Queries look at the 1/16 tokens twice, then give masks, motion, quality and embeddings."""

    def __init__(self, config: GmosNanoConfig) -> None:
        super().__init__()
        width = config.width
        self.queries = nn.Parameter(torch.randn(1, config.queries, width))
        self.project = nn.Conv2d(config.widths[-2] + 2, width, 1)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, 4, 2 * width, 0.0, batch_first=True) for _ in range(2)
        )
        self.mask = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.widths[0] + 1)
        )
        self.motion = nn.Linear(width, 1)
        self.quality = nn.Linear(width, 2)

    def forward(self, pixels: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """`mask_logits` (B, Q, h, w), `motion_logits` (B, Q), `quality` (B, Q, 2), `embeddings` (B,
        Q, D).
        """
        batch, _, height, width = tokens.shape
        y = (
            torch.linspace(-1, 1, height, device=tokens.device)
            .reshape(1, 1, -1, 1)
            .expand(batch, 1, height, width)
        )
        x = (
            torch.linspace(-1, 1, width, device=tokens.device)
            .reshape(1, 1, 1, -1)
            .expand(batch, 1, height, width)
        )
        memory = self.project(torch.cat([tokens, 2 * x, 2 * y], 1)).flatten(2).transpose(1, 2)
        found = self.queries.expand(batch, -1, -1)
        for layer in self.layers:
            found = layer(found, memory)
        weights = self.mask(found)
        masks = torch.bmm(weights[..., :-1], pixels.flatten(2)).reshape(
            batch, -1, *pixels.shape[2:]
        )
        return {
            'mask_logits': masks + weights[..., -1:, None],
            'motion_logits': self.motion(found).squeeze(2),
            'quality': bounded_quality(self.quality(found)),
            'embeddings': found,
        }


def bounded_quality(values: Tensor) -> Tensor:
    """(..., 2): predicted IoU in [0, 1] and confidence in [1, 5] (the range GMOS states)."""
    squashed = values.sigmoid()
    return torch.stack([squashed[..., 0], 1 + (MAX_CONFIDENCE - 1) * squashed[..., 1]], -1)


class GmosNano(nn.Module):
    """Image, motion evidence and, with an event encoder, events in; the foreground's map and, with
    queries, objects out.
    """

    def __init__(self, config: GmosNanoConfig = GmosNanoConfig()) -> None:
        super().__init__()
        self.config = config
        self.geometry = GeometryEncoder(config) if config.gaps else None
        self.appearance = AppearanceEncoder(config)
        self.events = EventEncoder(config) if config.event_channels else None
        self.fusion = FusedUNet(config)
        self.foreground = nn.Conv2d(config.widths[0], 1, 1)
        self.whole = nn.Linear(config.widths[-1], 2)
        self.decoder = QueryDecoder(config) if config.queries else None

    def forward(
        self, image: Tensor, evidence: Tensor | None = None, colour: Tensor | None = None,
        voxel: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`foreground_logits` (B, 1, h, w) and `foreground_quality` (B, 2); with queries, the
        decoder's outputs too.

        `image` (B, 3, H, W) normalised RGB, `evidence` (B, C, H, W), `colour` (B, 1, H, W)
        log-odds, None or zeros where none are known; H and W divisible by 32. With an event encoder
        `voxel` (B, V, h, w) too. A network without gaps does not look at `evidence`.
        """
        pixels, tokens, bottom = self.fusion(
            None if self.geometry is None else self.geometry(evidence),
            self.appearance(image, colour),
            None if self.events is None else self.events(voxel),
        )
        outputs = {
            'foreground_logits': self.foreground(pixels),
            'foreground_quality': bounded_quality(self.whole(bottom)),
        }
        if self.decoder is not None:
            outputs |= self.decoder(pixels, tokens)
        return outputs


def resized_to(network: GmosNano, config: GmosNanoConfig) -> GmosNano:
    """The network with other members' parts: what `config` lacks is cut, what it adds is fresh.

    Convolutions that see more channels begin with zeros there: at first they answer as before.
    """
    other = GmosNano(config)
    known = network.state_dict()
    with torch.no_grad():
        for name, value in other.state_dict().items():
            if name in known:
                kept = tuple(slice(min(a, b)) for a, b in zip(value.shape, known[name].shape))
                if value.is_floating_point() and value.shape != known[name].shape:
                    value.zero_()
                value[kept] = known[name][kept]
    return other
