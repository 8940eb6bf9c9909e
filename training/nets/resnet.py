"""ResNet-18 / 50 (He 2016) and MobileNetV2 (Sandler 2018) cut after 1/16.

The parameters have torchvision's names, so that its ImageNet weights load.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mos_perception.errors import ConfigError
from training.nets.convolution import StridedPointwise


class Residual(nn.Module):
    """Two conv3x3 and a skip.

    With `bottleneck` conv1x1 - conv3x3 - conv1x1 with four times the channels.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool,
                 dilation: int = 1) -> None:
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        plan = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.depth = len(plan)
        for number, (before, after, kernel, step) in enumerate(plan, 1):
            convolution = nn.Conv2d(before, after, kernel, step, dilation * (kernel // 2),
                                    dilation if kernel > 1 else 1, bias=False)
            setattr(self, f'conv{number}', convolution)
            setattr(self, f'bn{number}', nn.BatchNorm2d(after))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(StridedPointwise(inputs, outputs, stride),
                                            nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        out = x
        for number in range(1, self.depth + 1):
            convolution, norm = getattr(self, f'conv{number}'), getattr(self, f'bn{number}')
            out = norm(convolution(out))
            if number < self.depth:
                out = F.relu(out)
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(out + skip)


class ResNet(nn.Module):
    """conv7x7/2, max pool, three stages: maps at 1/4, 1/8, 1/16."""

    def __init__(self, inputs: int, blocks: tuple[int, int, int], bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths, growth = (64, 128, 256), 4 if bottleneck else 1
        self.channels = tuple(width * growth for width in widths)
        before = 64
        for stage, (width, count) in enumerate(zip(widths, blocks)):
            layers = []
            for number in range(count):
                stride = 2 if stage and not number else 1
                layers.append(Residual(before, width, stride, bottleneck))
                before = self.channels[stage]
            setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W) -> maps at 1/4, 1/8, 1/16 (sizes rounded up)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        return maps


def _conv_bn6(inputs: int, outputs: int, kernel: int, stride: int = 1,
              groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups,
                            bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
    """1x1 up by `growth`, depthwise 3x3, 1x1 down without activation.

    A skip where the shape stays.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, growth: int) -> None:
        super().__init__()
        wide = inputs * growth
        up = [_conv_bn6(inputs, wide, 1)] if growth > 1 else []
        self.conv = nn.Sequential(*up, _conv_bn6(wide, wide, 3, stride, wide),
                                  nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(nn.Module):
    """Blocks 0 to 13 of MobileNetV2: 24 channels at 1/4, 32 at 1/8, 96 at 1/16."""

    channels = (24, 32, 96)

    def __init__(self, inputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn6(inputs, 32, 3, 2)]
        before = 32
        # growth, channels, blocks, stride: table 2 of the paper
        plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
        for growth, outputs, count, stride in plan:
            for number in range(count):
                layers.append(Inverted(before, outputs, stride if number == 0 else 1, growth))
                before = outputs
        self.features = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W) -> maps at 1/4, 1/8, 1/16 (sizes rounded up)."""
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in (3, 6, 13):
                maps.append(x)
        return maps


def make_backbone(name: str, inputs: int) -> ResNet | MobileNetV2:
    """'resnet50', 'resnet18' or 'mobilenetv2' for `inputs` channels.

    Raises ConfigError for another name.
    """
    if name == 'mobilenetv2':
        return MobileNetV2(inputs)
    plans = {'resnet50': ((3, 4, 6), True), 'resnet18': ((2, 2, 2), False)}
    if name not in plans:
        raise ConfigError(f'unknown backbone "{name}": '
                          f'choose plain, mobilenetv2, {" or ".join(plans)}')
    return ResNet(inputs, *plans[name])


def load_imagenet(backbone: nn.Module, path: Path) -> int:
    """Copy a torchvision state dict into the backbone; returns how many tensors fit.

    From .pth, read as weights only, or .safetensors. A first convolution for another number of
    channels keeps its random start. Raises ConfigError if the file is not of this backbone.
    """
    try:
        if path.suffix == '.safetensors':
            state = load_file(path)
        else:
            state = torch.load(path, 'cpu', weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise ConfigError(f'{path} is no readable state dict ({error}): '
                          'give a .pth or .safetensors file') from error
    mine = backbone.state_dict()
    fits = {name: value for name, value in state.items()
            if name in mine and value.shape == mine[name].shape}
    missing = [name for name, value in mine.items()
               if name not in fits and value.ndim < 4 and 'num_batches' not in name]
    if missing:
        raise ConfigError(f'{path} lacks {len(missing)} tensors of this backbone ({missing[0]}, '
                          '...): it is of another network; give its torchvision weights')
    backbone.load_state_dict(fits, strict=False)
    return len(fits)
