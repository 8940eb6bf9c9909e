"""The processes of a `torchrun` run. Alone, each function does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import nn


def init_distributed() -> torch.device:
    """Meet the other processes if torchrun started this one.

    Returns the device to use: this process' GPU, or the CPU.
    """
    gpu, local = torch.cuda.is_available(), int(os.environ.get('LOCAL_RANK', 0))
    if gpu:
        torch.cuda.set_device(local)
    if 'RANK' in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group('nccl' if gpu else 'gloo')
    return torch.device('cuda', local) if gpu else torch.device('cpu')


def rank_and_world_size() -> tuple[int, int]:
    """(this process' number, how many there are); (0, 1) outside of torchrun."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def broadcast(value: float) -> float:
    """The first process' value: clocks differ, and all must stop at the same step."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return value
    shared = _as_tensor(value)
    torch.distributed.broadcast(shared, 0)
    return float(shared)


def mean_over_processes(value: float) -> float:
    """The mean of all processes' values."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return value
    shared = _as_tensor(value)
    torch.distributed.all_reduce(shared)
    return float(shared) / world_size


def average_gradients(modules: Iterable[nn.Module]) -> None:
    """Mean over the processes, so that all take the same step."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    # one message: a message for each costs more than the sums
    flat = torch.cat([p.grad.flatten() for p in parameters])
    torch.distributed.all_reduce(flat)
    means = (flat / world_size).split([p.numel() for p in parameters])
    for parameter, mean in zip(parameters, means):
        parameter.grad.copy_(mean.view_as(parameter.grad))


def _as_tensor(value: float) -> torch.Tensor:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.tensor(value, dtype=torch.float64, device=device)
