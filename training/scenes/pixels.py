"""The pixels of an event sensor: what differs from one to the next. H W pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from training.scenes.settings import EventSensor
from training.scenes.splits import log_uniform
from training.scenes.timing import whole_ns

LOG_EPS = 0.01
"""Light below which the front end makes ever fewer events, linear."""
DARK = 20 / 255
"""The corner of v2e's low-pass follows (light + DARK) / (1 + DARK)."""


@dataclass
class Pixels:
    """The sensor's pixels: `on`, `off` (H, W) thresholds, `drift` (H, W) leak in log units per ns,
    `refractory_ns`.

    `state` (H, W): log light above each pixel's reference at the start. `cutoff_hz`: corner of the
    low-pass at white, falling in proportion to light down to a floor of 7 % in the dark (v2e's (I +
    20) / 275); 0 = no low-pass.
    """

    on: np.ndarray
    off: np.ndarray
    drift: np.ndarray
    refractory_ns: int
    state: np.ndarray
    cutoff_hz: float = 0.0

    def rows(self, rows: slice) -> Pixels:
        """The same pixels, those rows only."""
        return replace(self, on=self.on[rows], off=self.off[rows], drift=self.drift[rows],
                       state=self.state[rows])

    @staticmethod
    def draw(rng: np.random.Generator, sensor: EventSensor, size: tuple[int, int]) -> Pixels:
        """Thresholds with spread, leak with a log-normal spread of 0.1 decade, a random state
        between thresholds."""
        mean = log_uniform(rng, sensor.threshold)
        spread = sensor.threshold_sigma * rng.standard_normal((2, *size), np.float32)
        mismatch = sensor.threshold_mismatch
        means = np.array([mean, mean * np.exp(mismatch * rng.standard_normal()) if mismatch
                          else mean])
        on, off = np.maximum(means[:, None, None] + spread, 0.01).astype(np.float32)
        leak = log_uniform(rng, sensor.leak_hz) if sensor.leak_hz[0] > 0 else 0.0
        drift = (leak * on * 1e-9 * np.exp(0.23 * rng.standard_normal(size, np.float32))).astype(
            np.float32
        )
        state = (rng.random(size, np.float32) * (on + off) * 0.98 - off * 0.98).astype(np.float32)
        refractory_ns = whole_ns(rng.uniform(*sensor.refractory_s))
        cutoff = sensor.cutoff_hz
        return Pixels(on, off, drift, refractory_ns, state,
                      log_uniform(rng, cutoff) if cutoff else 0.0)

    @staticmethod
    def ideal(size: tuple[int, int], threshold: float) -> Pixels:
        """Equal thresholds, no noise, no refractory time, every pixel at its reference."""
        level = np.full(size, threshold, np.float32)
        return Pixels(level, level.copy(), np.zeros(size, np.float32), 0,
                      np.zeros(size, np.float32))
