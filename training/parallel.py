"""The processes of a `torchrun` run: who am I, what all agree on. Alone, each function does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import nn


def join() -> torch.device:
    """Join the other processes if torchrun started this one; the device to use: this process' GPU, or the CPU."""
    gpu, local = torch.cuda.is_available(), int(os.environ.get('LOCAL_RANK', 0))
    if gpu:
        torch.cuda.set_device(local)
    if 'RANK' in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group('nccl' if gpu else 'gloo')
    return torch.device('cuda', local) if gpu else torch.device('cpu')


def ranks() -> tuple[int, int]:
    """(this process' number, how many there are); (0, 1) outside of torchrun."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def agreed(value: float) -> float:
    """The first process' value: clocks differ, and all must stop at the same step."""
    if ranks()[1] == 1:
        return value
    shared = _number(value)
    torch.distributed.broadcast(shared, 0)
    return float(shared)


def mean(value: float) -> float:
    """The mean over the processes."""
    if ranks()[1] == 1:
        return value
    shared = _number(value)
    torch.distributed.all_reduce(shared)
    return float(shared) / ranks()[1]


def average_gradients(modules: Iterable[nn.Module]) -> None:
    """Mean over the processes, so that all take the same step."""
    count = ranks()[1]
    if count == 1:
        return
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    flat = torch.cat([p.grad.flatten() for p in parameters])  # one message: a message each costs more than the sums
    torch.distributed.all_reduce(flat)
    for parameter, mean_grad in zip(parameters, (flat / count).split([p.numel() for p in parameters])):
        parameter.grad.copy_(mean_grad.view_as(parameter.grad))


def _number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, device='cuda' if torch.cuda.is_available() else 'cpu')
