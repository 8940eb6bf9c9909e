"""GMOS-S (Xie et al. 2026, github.com/Jyxarthur/gmos): one mask of all that moves, no queries.

Keys are the published ones; outputs are named as `gmos_s_nano`'s are.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.nets.gmos_fusion import FusedEncoder, GmosConfig, make_upscaling, upscale


class GmosS(FusedEncoder):
    """The fused encoder with a convolutional head."""

    def __init__(self, config: GmosConfig) -> None:
        super().__init__(config)
        self.fg_upscaling = make_upscaling(config.width)
        self.fg_out = nn.Conv2d(config.width // 8, 1, 1)

    def forward(self, geometry: Tensor, appearance: Tensor, middle: Tensor,
                fine: Tensor) -> dict[str, Tensor]:
        """`foreground_logits` (B, 1, 4g, 4g) and `foreground_quality` (B, 2); inputs as of
        `GmosProposer.forward`.
        """
        tokens = self.fused(geometry, appearance)
        pixels = upscale(self.fg_upscaling, self.image(tokens), fine, middle)
        return {
            'foreground_logits': self.fg_out(pixels),
            'foreground_quality': self.quality(tokens.mean(1)),
        }
