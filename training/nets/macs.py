"""How much arithmetic a network needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.nets.dimos import Dimos


@torch.no_grad()
def count_macs(network: Dimos, kinds: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)) -> int:
    """Multiply-accumulates of one inference's layers of these kinds (no attention products).

    Published "FLOPs" of DIMOS and EvInsMOS are those of the convolutions alone. Works on the meta
    device.
    """
    counts: list[int] = []

    def count(module: nn.Module, _: tuple, out: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            per_output = module.weight[0].numel()
        else:
            per_output = module.in_features
        counts.append(per_output * out[0].numel())

    layers = [module for module in network.modules() if isinstance(module, kinds)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    training, device = network.training, next(network.parameters()).device
    network.eval()
    network.infer(*(torch.zeros(1, count, *network.config.size, device=device)
                    for count in network.config.inputs.values()))
    network.train(training)
    for handle in handles:
        handle.remove()
    return sum(counts)
