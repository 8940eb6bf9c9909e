"""A GMOS from pixels, built as `gmos_nano` is: geometry | appearance -> fusion -> head.

Any `GeometryEncoder` can take Pi3's place: a GMOS needs a map of tokens of the target frame that
has seen the frames around it. The head must be trained for the encoder it gets.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS

TARGET = 2
"""Of five frames, the one that is segmented: the middle one, as published."""

GEOMETRY_LICENCES = {
    'pi3': 'CC BY-NC 4.0: no commercial use',
    'pi3x': 'CC BY-NC 4.0: no commercial use',
    'depth-anything-3-small': 'Apache-2.0',
    'depth-anything-3-base': 'Apache-2.0',
    'depth-anything-3-large': 'CC BY-NC 4.0: no commercial use',
    'map-anything-apache': 'Apache-2.0',
}
"""Of published weights of encoders that could serve; only Pi3's trunk is implemented."""


class GeometryEncoder(Protocol):
    """Tokens of frames that have seen each other; `training.nets.pi3.Pi3Trunk` is one."""

    def frame_tokens(self, images: Tensor) -> Tensor:
        """(B, h * w, G) from (B, 3, H, W) RGB in [0, 1]: once per frame."""

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, T, h, w, G) from (B, T, h * w, G): once per window."""


class AppearanceEncoder(Protocol):
    """`training.nets.sam2.AppearanceEncoder` is one, `Convolutions` another."""

    def __call__(self, square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`appearance` (B, A, g, g), `middle` (B, C / 4, 2g, 2g) and `fine` (B, C / 8, 4g, 4g) from
        (B, 3, 16g, 16g).
        """


class Convolutions(nn.Module):
    """SAM 2.1's image encoder in shape alone: three convolutions."""

    def __init__(self, config: GmosConfig) -> None:
        super().__init__()
        widths = config.width // 8, config.width // 4, config.appearance_width
        self.steps = nn.ModuleList([nn.Conv2d(3, widths[0], 4, 4),
                                    nn.Conv2d(widths[0], widths[1], 2, 2),
                                    nn.Conv2d(widths[1], widths[2], 2, 2)])

    def forward(self, square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `AppearanceEncoder`'s."""
        fine = self.steps[0](square)
        middle = self.steps[1](fine)
        return self.steps[2](middle), middle, fine


def make_head(config: GmosConfig) -> GmosProposer | GmosS:
    """The proposer, or GMOS-S where there are no queries."""
    return GmosProposer(config) if config.queries else GmosS(config)


def encode(geometry: GeometryEncoder, appearance: AppearanceEncoder, window: Tensor,
           square: Tensor) -> tuple[Tensor, ...]:
    """A head's inputs from a window (B, 5, 3, H, W) of RGB in [0, 1] and its target frame (B, 3,
    16g, 16g), squeezed to a square and ImageNet-normalised.
    """
    tokens = geometry.frame_tokens(window.flatten(0, 1)).unflatten(0, window.shape[:2])
    return geometry.decode(tokens)[:, TARGET], *appearance(square)


class WholeGmos(nn.Module):
    """The proposer or GMOS-S behind its two frozen encoders."""

    def __init__(self, geometry: GeometryEncoder, appearance: AppearanceEncoder,
                 head: GmosProposer | GmosS) -> None:
        super().__init__()
        self.geometry, self.appearance, self.head = geometry, appearance, head
        for encoder in (geometry, appearance):
            encoder.requires_grad_(False)

    def forward(self, window: Tensor, square: Tensor) -> dict[str, Tensor]:
        """The head's outputs; inputs as of `encode`."""
        return self.head(*encode(self.geometry, self.appearance, window, square))
