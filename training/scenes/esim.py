"""Event sensor after ESIM (Rebecq 2018, rpg_esim) with v2e's per-pixel thresholds, low-pass and
noise (Hu 2021).

Events travel packed in one int64 each, so that sorting them sorts by time: ns since the clip's zero
<< 29 | y << 15 | x << 1 | p. Legend: S samples, E events, H W pixels. Nothing here depends on how
many threads work.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

from mos_perception.datatypes import Events
from training.scenes import esim_torch
from training.scenes.pixels import DARK, LOG_EPS, Pixels
from training.scenes.settings import EventSensor
from training.scenes.splits import log_uniform
from training.scenes.textures import value_noise

PACKET_NS = 1_000_000
_ROWS = 20          # rows a thread takes at a time


@numba.njit(cache=True, nogil=True, inline='always')
def _exp(x):
    """exp of float32 in [-80, 80] to 3e-6, written so that LLVM vectorises it: 2^whole by bits,
    2^rest by series."""
    scaled = x * np.float32(1.44269504)
    whole = np.floor(scaled + np.float32(0.5))
    z = (scaled - whole) * np.float32(0.69314718)
    rest = np.float32(1) + z * (np.float32(1) + z * (np.float32(0.5) + z * (
        np.float32(1 / 6) + z * (np.float32(1 / 24) + z * np.float32(1 / 120)))))
    return rest * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(cache=True, nogil=True)
def _low_pass(row, seen, passed, turns):
    """One row through the 1-pole low-pass, in place in `passed`; light is linear in log from `seen`
    to `row`.

    `turns` = 2 pi f dt at white. Exact response to a ramp: x1 + (y0 - x0) e - (x1 - x0) (1 - e) /
    a, e = exp(-a).
    """
    shift, scale = np.float32(DARK - LOG_EPS), np.float32(turns / (1 + DARK))
    for x in range(len(row)):
        light = _exp(min(max(row[x], np.float32(-20)), np.float32(20)))
        a = min(max((light + shift) * scale, np.float32(1e-6)), np.float32(60))
        e = _exp(-a)
        mean = (np.float32(1) - e) / a if a > np.float32(0.03) else np.float32(1) - a * (
            np.float32(0.5) - a * np.float32(1 / 6))
        passed[x] = row[x] + (passed[x] - seen[x]) * e - (row[x] - seen[x]) * mean


@numba.njit(cache=True, nogil=True)
def _climb(row, passed, state, drift, span, on, off):
    """Move `state`, the light above the references of a row, on to the next sample; whether any
    pixel crossed."""
    hit = False
    for x in range(len(row)):
        level = state[x] + (row[x] - passed[x]) + drift[x] * span
        state[x] = level
        hit |= (level >= on[x]) | (level <= -off[x])
    return hit


@numba.njit(cache=True, nogil=True)
def _emit(out, count, y, start, span, row, passed, state, drift, on, off, refractory, fired):
    """Append the crossings of one row between two samples; `state` becomes what is left above the
    new references."""
    for x in range(len(state)):
        end = state[x]
        if end < on[x] and end > -off[x]:
            continue
        before = end - (row[x] - passed[x]) - drift[x] * np.float32(span)
        p = 1 if end >= on[x] else 0
        step = on[x] if p else -off[x]
        level = step
        while (end >= level) if p else (end <= level):
            t = start + np.int64((level - before) / (end - before) * span)
            if t - fired[x] >= refractory:
                fired[x] = t
                if count == len(out):
                    out = np.concatenate((out, np.empty_like(out)))
                out[count] = (t << 29) | (np.int64(y) << 15) | (np.int64(x) << 1) | p
                count += 1
            level += step
        state[x] = end - (level - step)
    return out, count


@numba.njit(cache=True, nogil=True)
def _cross(first, shift, logs, stamps, state, seen, passed, fired, on, off, drift, refractory,
           cutoff_hz):
    """(E,) packed crossings of the rows from `first` of S log images; `stamps` (S + 1,) has the
    image before them too.

    The pixels' arrays hold those rows only; the images are whole, so that they stay contiguous and
    vectorise. `shift` is added to the rows of the events.
    """
    out, count = np.empty(4096, np.int64), 0
    samples, _, width = logs.shape
    low = np.empty(width, np.float32)
    for k in range(samples):
        span = stamps[k + 1] - stamps[k]
        for y in range(len(state)):
            light = logs[k, first + y]
            if cutoff_hz > 0:
                low[:] = passed[y]
                _low_pass(light, seen[y], low, 2 * np.pi * cutoff_hz * span * 1e-9)
                seen[y] = light
                light = low
            if _climb(light, passed[y], state[y], drift[y], np.float32(span), on[y], off[y]):
                out, count = _emit(out, count, shift + first + y, stamps[k], span, light, passed[y],
                                   state[y], drift[y], on[y], off[y], refractory, fired[y])
            passed[y] = light
    return out[:count]


class Crosser:
    """Crossings of log images that come in pieces; holds two images' worth of state, no matter how
    long it runs."""

    def __init__(self, pixels: Pixels, log: np.ndarray, start_ns: int, threads: int = 1,
                 first_row: int = 0) -> None:
        """`log` (H, W) float32, the image at `start_ns`; a band of an image starts at `first_row`
        of it."""
        self._pixels, self._end_ns, self._threads, self._first = (
            pixels,
            int(start_ns),
            threads,
            first_row,
        )
        self._state = pixels.state.copy()
        self._seen = np.array(log, np.float32)
        self._passed = self._seen.copy()
        self._fired = np.full(log.shape, -(1 << 60), np.int64)

    def feed(self, logs: np.ndarray, stamps_ns: np.ndarray) -> np.ndarray:
        """(E,) int64 packed events, unsorted, of the next log images (S, H, W) float32 at
        `stamps_ns` (S,)."""
        stamps = np.concatenate([[self._end_ns], stamps_ns]).astype(np.int64)
        self._end_ns = int(stamps[-1])
        mine, logs = self._pixels, np.ascontiguousarray(logs, np.float32)

        def block(first: int) -> np.ndarray:
            rows = slice(first, first + _ROWS)
            return _cross(first, self._first, logs, stamps, self._state[rows], self._seen[rows],
                          self._passed[rows], self._fired[rows], mine.on[rows], mine.off[rows],
                          mine.drift[rows], mine.refractory_ns, float(mine.cutoff_hz))

        firsts = range(0, logs.shape[1], _ROWS)
        if self._threads == 1:
            return np.concatenate([block(first) for first in firsts])
        with ThreadPoolExecutor(self._threads) as pool:
            return np.concatenate(list(pool.map(block, firsts)))


def crossings(logs: np.ndarray | torch.Tensor, stamps_ns: np.ndarray, pixels: Pixels,
              threads: int = 1, first_row: int = 0) -> np.ndarray:
    """(E,) int64 packed events, unsorted, of log images (S + 1, H, W) float32 at `stamps_ns` (S +
    1,) from 0.

    Light is taken as linear in log between two samples; each crossing of a threshold is an event at
    its own time. A tensor is worked on by torch where it lies, an array by Numba: the same events
    up to rounding. A band of an image starts at its row `first_row`, with `pixels.rows(...)`.
    """
    if isinstance(logs, torch.Tensor):
        return esim_torch.crossings(logs, stamps_ns, pixels) + (first_row << 15)
    return Crosser(pixels, logs[0], stamps_ns[0], threads, first_row).feed(logs[1:], stamps_ns[1:])


def noise(rng: np.random.Generator, sensor: EventSensor, size: tuple[int, int],
          end_ns: int) -> np.ndarray:
    """(E,) int64 packed noise events in [0, end_ns): uneven Poisson shot noise and a few hot
    pixels."""
    height, width = size
    rate = log_uniform(rng, sensor.shot_hz) if sensor.shot_hz[0] > 0 else 0.0
    field = (
        rate * unevenness(rng, size, sensor.shot_unevenness)
        if sensor.shot_unevenness
        else np.full(size, rate)
    )
    where = np.repeat(np.arange(height * width), rng.poisson(field * end_ns * 1e-9).ravel())
    hot = rng.integers(
        0, height * width, rng.poisson(rng.uniform(*sensor.hot_share) * height * width)
    )
    where = np.concatenate(
        [where, np.repeat(hot, rng.poisson(rng.uniform(5, 100, len(hot)) * end_ns * 1e-9))]
    )
    y, x = np.divmod(where, width)
    t, p = rng.integers(0, end_ns, len(where)), rng.integers(0, 2, len(where))
    return (t << 29) | (y << 15) | (x << 1) | p


def unevenness(rng: np.random.Generator, size: tuple[int, int], most: float) -> np.ndarray:
    """(H, W) float64 factor of mean 1: exp of smooth noise within +- u(0, most): dark corners,
    flickering lamps."""
    smooth = value_noise(rng, max(size), int(rng.integers(2, 6)),
                         2)[:size[0], :size[1]].astype(np.float64)
    factor = np.exp(rng.uniform(0, most) * (2 * smooth - 1))
    return factor / factor.mean()


def read_out(packed: np.ndarray, bandwidth_hz: float) -> np.ndarray:
    """(E',) sorted packed events that a read-out of so many events per second carries: the rest of
    a 1 ms is lost."""
    packed = np.sort(packed)
    packet = (packed >> 29) // PACKET_NS
    rank = np.arange(len(packed)) - np.searchsorted(packet, packet)
    return packed[rank < max(1, round(bandwidth_hz * PACKET_NS / 1e9))]


def unpack(packed: np.ndarray, zero_ns: int) -> Events:
    """Events, sorted by time, from packed ones whose time 0 is `zero_ns`."""
    packed = np.sort(packed)
    return Events(((packed >> 1) & 0x3FFF).astype(np.uint16),
                  ((packed >> 15) & 0x3FFF).astype(np.uint16), (packed & 1).astype(np.uint8),
                  (packed >> 29) + zero_ns)


def pack(events: Events, zero_ns: int) -> np.ndarray:
    """(E,) int64, the inverse of `unpack`."""
    where = (events.y.astype(np.int64) << 15) | (events.x.astype(np.int64) << 1)
    return ((events.t - zero_ns) << 29) | where | events.p
