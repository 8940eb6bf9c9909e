"""Frames kept until those near them in time are there.

    push(frame) -> the frames that are settled, oldest first, each with its neighbours; flush()

Frames are chosen by their stamps, so a camera of 10 Hz and one of 60 Hz show the same gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mos_perception.datatypes import Frame
from mos_perception.errors import ConfigError
from mos_perception.motion.evidence import EvidenceSpec

MAX_DELAY_MS = 150.0
"""A slower camera gets its answer at once, from the past alone."""
REACH = (0.5, 3.0)
"""Times the gap: a frame nearer or farther shows another motion than the network learned."""


@dataclass(frozen=True)
class FrameWindow:
    """Which five frames a model sees, `stride_ms` = s apart: [-2s, -s, 0, s, 2s] where `centred`,
    as GMOS is published, else [-4s, -3s, -2s, -s, 0].

    120 ms are the published int(rate / 8) frames at 10, 24, 25, 50 and 60 Hz, and no rate in use
    has two frames that are as near to 240 ms: that would make the delay jump.
    """

    stride_ms: float = 120.0
    centred: bool = True
    fade_ms = 0.0  # nothing is drawn of events

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        if not 1 <= self.stride_ms <= 2000:
            raise ConfigError(f'window stride_ms is {self.stride_ms}: must be in [1, 2000] ms')

    @property
    def gaps_ms(self) -> tuple[float, ...]:
        """The distances from the frame, rising."""
        return tuple(n * self.stride_ms for n in range(1, 3 if self.centred else 5))

    @property
    def signed_gaps_ms(self) -> tuple[float, ...]:
        """The same, negative before the frame."""
        before = tuple(-gap for gap in self.gaps_ms)
        return before + self.gaps_ms if self.centred else before


Surroundings = EvidenceSpec | FrameWindow
"""What a model looks at around a frame."""


def nearest(stamp_ns: int, gap_ms: float, frames: Sequence[Frame]) -> Frame | None:
    """The frame whose distance from `stamp_ns` is nearest to the gap (negative: before it).

    None where no frame lies on that side within `REACH`.
    """
    low, high = (abs(gap_ms) * part * 1e6 for part in REACH)
    sign = 1 if gap_ms > 0 else -1
    near = [frame for frame in frames if low <= sign * (frame.stamp_ns - stamp_ns) <= high]
    return min(near, default=None,
               key=lambda frame: abs(frame.stamp_ns - stamp_ns - gap_ms * 1e6))


def longest_wait_ms(spec: Surroundings) -> float:
    """How long a frame may wait for later ones: `MAX_DELAY_MS`, and more for longer gaps."""
    return max(MAX_DELAY_MS, 1.25 * spec.gaps_ms[-1])


def settled(stamp_ns: int, newest_ns: int, period_ns: int, spec: Surroundings) -> bool:
    """Whether no later frame could be nearer to the longest gap, or waiting on takes too long."""
    if not spec.centred:
        return True
    wanted = stamp_ns + spec.gaps_ms[-1] * 1e6
    too_late = stamp_ns + longest_wait_ms(spec) * 1e6
    return newest_ns + period_ns / 2 >= wanted or newest_ns + period_ns > too_late


class FrameHistory:
    """The frames of one camera that a model may still need. Not for two threads at once."""

    def __init__(self, spec: Surroundings = EvidenceSpec()) -> None:
        self.spec = spec
        self._frames: list[Frame] = []
        self._waiting: list[Frame] = []

    @property
    def delay_ms(self) -> float:
        """How long a frame waits for later ones where frames come often; 0 = looks back alone."""
        return self.spec.gaps_ms[-1] if self.spec.centred else 0.0

    def reset(self) -> None:
        """Forget all frames; those that wait get no answer."""
        self._frames, self._waiting = [], []

    def push(self, frame: Frame) -> list[tuple[Frame, tuple[Frame, ...]]]:
        """Take a frame later than the one before; (frame, neighbours) of each that is settled."""
        self._frames.append(frame)
        self._waiting.append(frame)
        newest = frame.stamp_ns
        period = newest - self._frames[-2].stamp_ns if len(self._frames) > 1 else 0
        count = sum(settled(waiting.stamp_ns, newest, period, self.spec)
                    for waiting in self._waiting)
        return self._release(count)

    def passed(self, stamp_ns: int) -> list[tuple[Frame, tuple[Frame, ...]]]:
        """The camera has been silent until `stamp_ns`: as `push`, those that waited too long."""
        limit = stamp_ns - longest_wait_ms(self.spec) * 1e6
        return self._release(sum(waiting.stamp_ns < limit for waiting in self._waiting))

    def flush(self) -> list[tuple[Frame, tuple[Frame, ...]]]:
        """The frames that still wait, with the neighbours that are there."""
        return self._release(len(self._waiting))

    def _release(self, count: int) -> list[tuple[Frame, tuple[Frame, ...]]]:
        """The first `count` waiting frames; then forget what no waiting or later one can reach."""
        found = [(frame, tuple(other for other in self._frames if other is not frame))
                 for frame in self._waiting[:count]]
        del self._waiting[:count]
        first = self._waiting[0] if self._waiting else self._frames[-1] if self._frames else None
        if first is not None:
            oldest = first.stamp_ns - REACH[1] * self.spec.gaps_ms[-1] * 1e6
            self._frames = [frame for frame in self._frames if frame.stamp_ns >= oldest]
        return found
