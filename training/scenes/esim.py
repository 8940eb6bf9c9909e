"""Event sensor after ESIM (Rebecq 2018, rpg_esim) with v2e's per-pixel thresholds and noise (Hu 2021).

Events travel packed in one int64 each, so that sorting them sorts by time: ns since the clip's zero << 29 | y << 15 |
x << 1 | p. Legend: S samples, E events, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from mos_perception.datatypes import Events
from training.scenes.presets import EventSensor
from training.scenes.splits import log_uniform
from training.scenes.textures import value_noise

LOG_EPS = 0.01  # the front end's floor: linear light below this makes ever fewer events


@numba.njit(cache=True, nogil=True)
def _cross(logs, stamps, state, previous, on, off, drift, refractory, fired):
    """Crossings of S log images; `state` is log light above each pixel's reference, `previous` the last log image."""
    out = np.empty(4096, np.int64)
    count = 0
    samples, height, width = logs.shape
    for k in range(samples):
        start, span = stamps[k], stamps[k + 1] - stamps[k]
        for y in range(height):
            for x in range(width):
                before = state[y, x]
                after = before + (logs[k, y, x] - previous[y, x]) + drift[y, x] * span
                previous[y, x] = logs[k, y, x]
                state[y, x] = after
                if after < on[y, x] and after > -off[y, x]:
                    continue
                p = 1 if after >= on[y, x] else 0
                step = on[y, x] if p else -off[y, x]
                level = step
                while (after >= level) if p else (after <= level):
                    t = start + np.int64((level - before) / (after - before) * span)
                    if t - fired[y, x] >= refractory:
                        fired[y, x] = t
                        if count == len(out):
                            out = np.concatenate((out, np.empty_like(out)))
                        out[count] = (t << 29) | (y << 15) | (x << 1) | p
                        count += 1
                    level += step
                state[y, x] = after - (level - step)
    return out[:count]


@dataclass
class Pixels:
    """The sensor's pixels: `on`, `off` (H, W) thresholds, `drift` (H, W) leak in log units per ns, `refractory_ns`."""

    on: np.ndarray
    off: np.ndarray
    drift: np.ndarray
    refractory_ns: int
    state: np.ndarray

    @staticmethod
    def draw(rng: np.random.Generator, sensor: EventSensor, size: tuple[int, int]) -> Pixels:
        """Thresholds with spread, leak with a log-normal spread of 0.1 decade, a random state between thresholds."""
        mean = log_uniform(rng, sensor.threshold)
        spread = sensor.threshold_sigma * rng.standard_normal((2, *size), np.float32)
        on, off = np.maximum(mean + spread, 0.01).astype(np.float32)
        leak = log_uniform(rng, sensor.leak_hz) if sensor.leak_hz[0] > 0 else 0.0
        drift = (leak * on * 1e-9 * np.exp(0.23 * rng.standard_normal(size, np.float32))).astype(np.float32)
        state = (rng.random(size, np.float32) * (on + off) * 0.98 - off * 0.98).astype(np.float32)
        return Pixels(on, off, drift, int(rng.uniform(*sensor.refractory_s) * 1e9), state)

    @staticmethod
    def ideal(size: tuple[int, int], threshold: float) -> Pixels:
        """Equal thresholds, no noise, no refractory time, every pixel at its reference."""
        level = np.full(size, threshold, np.float32)
        return Pixels(level, level.copy(), np.zeros(size, np.float32), 0, np.zeros(size, np.float32))


def crossings(logs: np.ndarray, stamps_ns: np.ndarray, pixels: Pixels) -> np.ndarray:
    """(E,) int64 packed events, unsorted, of log images (S + 1, H, W) float32 at `stamps_ns` (S + 1,) from 0.

    Light is taken as linear in log between two samples; each crossing of a threshold is an event at its own time.
    """
    stamps = np.ascontiguousarray(stamps_ns, np.int64)
    fired = np.full(logs.shape[1:], -(1 << 60), np.int64)
    return _cross(logs[1:], stamps, pixels.state.copy(), logs[0].copy(), pixels.on, pixels.off, pixels.drift,
                  pixels.refractory_ns, fired)


def noise(rng: np.random.Generator, sensor: EventSensor, size: tuple[int, int], end_ns: int) -> np.ndarray:
    """(E,) int64 packed noise events in [0, end_ns): uneven Poisson shot noise and a few hot pixels."""
    height, width = size
    rate = log_uniform(rng, sensor.shot_hz) if sensor.shot_hz[0] > 0 else 0.0
    field = rate * unevenness(rng, size, sensor.shot_unevenness) if sensor.shot_unevenness else np.full(size, rate)
    where = np.repeat(np.arange(height * width), rng.poisson(field * end_ns * 1e-9).ravel())
    hot = rng.integers(0, height * width, rng.poisson(rng.uniform(*sensor.hot_share) * height * width))
    where = np.concatenate([where, np.repeat(hot, rng.poisson(rng.uniform(5, 100, len(hot)) * end_ns * 1e-9))])
    y, x = np.divmod(where, width)
    t, p = rng.integers(0, end_ns, len(where)), rng.integers(0, 2, len(where))
    return (t << 29) | (y << 15) | (x << 1) | p


def unevenness(rng: np.random.Generator, size: tuple[int, int], most: float) -> np.ndarray:
    """(H, W) float64 factor of mean 1: exp of smooth noise within +- u(0, most): dark corners, flickering lamps."""
    smooth = value_noise(rng, max(size), int(rng.integers(2, 6)), 2)[:size[0], :size[1]].astype(np.float64)
    factor = np.exp(rng.uniform(0, most) * (2 * smooth - 1))
    return factor / factor.mean()


def unpack(packed: np.ndarray, zero_ns: int) -> Events:
    """Events, sorted by time, from packed ones whose time 0 is `zero_ns`."""
    packed = np.sort(packed)
    return Events(((packed >> 1) & 0x3FFF).astype(np.uint16), ((packed >> 15) & 0x3FFF).astype(np.uint16),
                  (packed & 1).astype(np.uint8), (packed >> 29) + zero_ns)


def pack(events: Events, zero_ns: int) -> np.ndarray:
    """(E,) int64, the inverse of `unpack`."""
    where = (events.y.astype(np.int64) << 15) | (events.x.astype(np.int64) << 1)
    return ((events.t - zero_ns) << 29) | where | events.p
