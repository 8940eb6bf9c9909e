"""The crossing rule of esim.py in torch, for images that already lie on a GPU: loops over samples,
never over pixels.

Legend: S samples, E events, H W pixels. Equal to the Numba rule up to float32 rounding.
"""

from __future__ import annotations

import numpy as np
import torch

from training.scenes.pixels import DARK, LOG_EPS, Pixels

_AT_ONCE = 64      # samples between two looks at the event counts


def crossings(logs: torch.Tensor, stamps_ns: np.ndarray, pixels: Pixels) -> np.ndarray:
    """(E,) int64 packed events, unsorted, of log images (S + 1, H, W) float32 at `stamps_ns` (S +
    1,) from 0."""
    device = logs.device
    on, off, drift, state = (torch.from_numpy(np.ascontiguousarray(value)).to(device)
                             for value in (pixels.on, pixels.off, pixels.drift, pixels.state))
    spans = np.diff(np.asarray(stamps_ns, np.int64))
    passed, parts = logs[0], []
    for first in range(0, len(spans), _AT_ONCE):
        befores, afters, counts = [], [], []
        for k in range(first, min(first + _AT_ONCE, len(spans))):
            span = float(spans[k])
            light = logs[k + 1]
            if pixels.cutoff_hz > 0:
                light = low_pass(logs[k], light, passed, 2 * np.pi * pixels.cutoff_hz * span * 1e-9)
            after = state + (light - passed) + drift * span
            count = (after / on).floor_().clamp_(min=0) - (-after / off).floor_().clamp_(min=0)
            befores.append(state)
            afters.append(after)
            counts.append(count)
            state = after - torch.where(count > 0, count * on, count * off)
            passed = light
        parts.append(
            _events(
                torch.stack(befores),
                torch.stack(afters),
                torch.stack(counts).int(),
                on,
                off,
                first,
                torch.from_numpy(np.asarray(stamps_ns, np.int64)).to(device),
            )
        )
    packed = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=device)
    return refractory(packed, pixels.refractory_ns).cpu().numpy()


def low_pass(x0: torch.Tensor, x1: torch.Tensor, y0: torch.Tensor, turns: float) -> torch.Tensor:
    """Log light behind a 1-pole low-pass after a ramp from `x0` to `x1`, from `y0`. `turns` = 2 pi
    f dt at white."""
    a = ((x1.clamp(-20, 20).exp() + (DARK - LOG_EPS)) * (turns / (1 + DARK))).clamp(1e-6, 60)
    return x1 + (y0 - x0) * torch.exp(-a) + (x1 - x0) * torch.expm1(-a) / a


def _events(before: torch.Tensor, after: torch.Tensor, count: torch.Tensor, on: torch.Tensor,
            off: torch.Tensor, first: int, stamps: torch.Tensor) -> torch.Tensor:
    """(E,) int64 packed, from the signed number of crossings (S, H, W) between two samples."""
    k, y, x = count.nonzero(as_tuple=True)
    signed = count[k, y, x]
    repeats = signed.abs().long()
    ends = repeats.cumsum(0)
    k, y, x, signed = (value.repeat_interleave(repeats) for value in (k, y, x, signed))
    rank = torch.arange(len(k), device=k.device) - (ends - repeats).repeat_interleave(repeats) + 1
    level = rank * torch.where(signed > 0, on[y, x], -off[y, x])
    start, stop = before[k, y, x], after[k, y, x]
    t0, t1 = stamps[first + k], stamps[first + k + 1]
    t = t0 + ((level - start) / (stop - start) * (t1 - t0).double()).long()
    return (t << 29) | (y << 15) | (x << 1) | (signed > 0).long()


def refractory(packed: torch.Tensor, dead_ns: int) -> torch.Tensor:
    """(E',) the events whose pixel did not fire within `dead_ns` before.

    References move on during dead time, so this is a filter. An event `dead_ns` or more after its
    pixel's last crossing always passes; only the runs of closer ones must be walked, all runs at
    once.
    """
    if dead_ns <= 0 or not len(packed):
        return packed
    t, pixel = packed >> 29, (packed >> 1) & 0xFFFFFFF
    by_time = t.argsort(stable=True)
    order = by_time[pixel[by_time].argsort(stable=True)]
    t, pixel, packed = t[order], pixel[order], packed[order]
    index = torch.arange(len(t), device=t.device)
    free = torch.ones_like(t, dtype=torch.bool)
    free[1:] = (pixel[1:] != pixel[:-1]) | (t[1:] - t[:-1] >= dead_ns)
    run = free.long().cumsum(0) - 1
    heads = index[free]
    rank = index - heads[run]
    last = t[heads].clone()
    keep = free.clone()
    for step in range(1, int(rank.max()) + 1):
        here = index[rank == step]
        passes = here[t[here] - last[run[here]] >= dead_ns]
        keep[passes] = True
        last[run[passes]] = t[passes]
    return packed[keep]
