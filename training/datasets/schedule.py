"""Which clip a sample comes from, when scenes are rendered while training.

Settled beforehand by (seed, step), never by how fast the clips come. Clips are numbered from 0; a
clip is drawn `reuse` times:

    block        0   1   2   3   4  ...     R = reuse, D clips to a block, R D samples to a block
    stream 0     2   3   4   5   6          stream r plays, in an order of its own, the clips that
    stream 1     1   2   3   4   5          stream 0 played r blocks before; sample s belongs to
    stream R-1   0   1   2   3   4          stream s mod R

so a batch mixes clips of R ages, each sample of a clip is another frame (while there are frames),
and R D clips are held at a time.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


class Schedule:
    """Which clip sample s is of."""

    def __init__(self, seed: int, reuse: int, block: int) -> None:
        """`reuse` >= 1 draws of a clip, `block` >= 1 clips."""
        self.seed, self.reuse, self.block = seed, reuse, block
        self._order = lru_cache(4 * reuse)(self._shuffled)

    def at(self, sample: int) -> tuple[int, int]:
        """(clip, stream) of a sample; the clip is never drawn again after stream reuse - 1."""
        turn, stream = divmod(sample, self.reuse)
        block, place = divmod(turn, self.block)
        first = (block + self.reuse - 1 - stream) * self.block
        return first + int(self._order(block, stream)[place]), stream

    def _shuffled(self, block: int, stream: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 1, block, stream)).permutation(self.block)
