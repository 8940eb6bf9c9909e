"""A convolution whose gradient can be trusted on every CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class StridedPointwise(nn.Conv2d):
    """1x1 convolution with a stride: parameters, state-dict keys and exported graph of `nn.Conv2d`.

    While training it skips the pixels itself and convolves with stride 1: oneDNN's weight gradient
    of a strided 1x1 convolution with few input channels (below 8 with AVX2, 16 with AVX-512) writes
    past its scratch memory, which crashes or hangs (uxlfoundation/oneDNN issue 6035).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if not self.training:
            return super().forward(x)
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight)
