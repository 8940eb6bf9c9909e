"""What DIMOS carries while it learns and drops afterwards.

Contrast projectors, domain discriminators behind a gradient reversal, modality translators. C:
channels of the deepest map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.backbone import conv_bn

TYPES = ('appearance', 'motion')
MODALITIES = ('image', 'event')


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx,
                 gradient: Tensor) -> tuple[Tensor, None]:
        return -context.factor * gradient, None


def reverse_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself; gradients through it are multiplied by -factor (Ganin 2016)."""
    return _Reverse.apply(x, factor)


class Projector(nn.Module):
    """(B, C, h, w) -> (B, d) of unit length.

    Two strided convolutions, a padded 1x1, flattened with its places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide, narrow = min(256, 4 * channels), min(64, channels)
        self.layers = nn.Sequential(
            conv_bn(channels, wide, 2), nn.ReLU(),
            conv_bn(wide, narrow, 2), nn.ReLU(),
            nn.Conv2d(narrow, 32, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.normalize(self.layers(x).flatten(1), dim=1)


class Discriminator(nn.Module):
    """(B, C, h, w) -> (B, 1, h, w) logits of "this is the reference modality"."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels, 64, 64):
            layers += [conv_bn(inputs, 64), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(64, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.layers(x)


def _translator(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(),
                         nn.Conv2d(channels, channels, 1))


class Alignment(nn.Module):
    """`projectors` by type; with `disentangled` also `discriminators` and `translators`.

    Discriminators are by type, translators by 'appearance_to_event' and so on, one per scale.
    """

    def __init__(self, channels: tuple[int, ...], disentangled: bool) -> None:
        super().__init__()
        self.projectors = nn.ModuleDict({name: Projector(channels[-1]) for name in TYPES})
        self.discriminators, self.translators = nn.ModuleDict(), nn.ModuleDict()
        if disentangled:
            self.discriminators = nn.ModuleDict({name: Discriminator(channels[-1])
                                                 for name in TYPES})
            for name in TYPES:
                for modality in MODALITIES:
                    translators = nn.ModuleList(_translator(count) for count in channels)
                    self.translators[f'{name}_to_{modality}'] = translators
