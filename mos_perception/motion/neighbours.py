"""Inputs held until the frames around them are there, for models that look at several."""

from __future__ import annotations

from dataclasses import replace

from mos_perception.datatypes import Frame, SyncedInput
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.history import FrameHistory, nearest


class Neighbours:
    """Gives each input the frames near it in time; passes everything on where no model asks."""

    def __init__(self, spec: EvidenceSpec | None) -> None:
        """`spec` of the model's motion evidence; None: it looks at one frame."""
        self._history = FrameHistory(spec) if spec is not None else None
        self._held: list[SyncedInput] = []
        self._settled: dict[int, tuple[Frame, ...]] = {}

    @property
    def delay_ms(self) -> float:
        """How much later than its frame an answer comes, at least."""
        return self._history.delay_ms if self._history is not None else 0.0

    def reset(self) -> None:
        """Forget the frames, and the inputs that wait for later ones."""
        if self._history is not None:
            self._history.reset()
        self._held.clear()
        self._settled.clear()

    def push(self, samples: list[SyncedInput]) -> list[SyncedInput]:
        """The inputs that are complete now, oldest first."""
        if self._history is None:
            return samples
        found = []
        for sample in samples:
            self._held.append(sample)
            found += self._release(self._history.passed(sample.stamp_ns) if sample.frame is None
                                   else self._history.push(sample.frame))
        return found

    def flush(self, samples: list[SyncedInput]) -> list[SyncedInput]:
        """End of the input: these and all that wait, with the frames that are there."""
        found = self.push(samples)
        return found if self._history is None else found + self._release(self._history.flush())

    def _release(self, settled: list[tuple[Frame, tuple[Frame, ...]]]) -> list[SyncedInput]:
        """What is complete before the first that waits: one without a frame keeps its place."""
        self._settled |= {frame.stamp_ns: neighbours for frame, neighbours in settled}
        found = []
        while self._held:
            sample = self._held[0]
            if sample.frame is not None:
                if sample.stamp_ns not in self._settled:
                    break
                neighbours = self._settled.pop(sample.stamp_ns)
                sample = replace(sample, neighbours=neighbours,
                                 missing_gaps=self._missing(sample.frame, neighbours))
            found.append(sample)
            del self._held[0]
        return found

    def _missing(self, frame: Frame, neighbours: tuple[Frame, ...]) -> int:
        gaps = self._history.spec.signed_gaps_ms
        return sum(nearest(frame.stamp_ns, gap, neighbours) is None for gap in gaps)
