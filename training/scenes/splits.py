"""The splits and the random streams that keep them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mos_perception.errors import ConfigError

SPLITS = ('train', 'val', 'test', 'other')  # 'other': other families and another camera
T = TypeVar('T')


def generator(seed: int, split: str, stream: int) -> np.random.Generator:
    """An independent random stream for (seed, split, stream). Raises ConfigError for another split
    or a seed < 0."""
    if split not in SPLITS:
        raise ConfigError(f'unknown split "{split}": choose one of {", ".join(SPLITS)}')
    if seed < 0:
        raise ConfigError(f'seed {seed} is negative: use 0 or more')
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, SPLITS.index(split), stream]))
    )


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """A value whose logarithm is uniform between the (positive) bounds."""
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
