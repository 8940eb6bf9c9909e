"""Inputs held until the frames around them are there, for models that look at several.

Where there is no frame an image is drawn of the events, if the model looks at those: such images
have neighbours of their own.
"""

from __future__ import annotations

from dataclasses import replace

from mos_perception.datatypes import Frame, SyncedInput
from mos_perception.motion.event_image import event_image
from mos_perception.motion.history import FrameHistory, Surroundings, nearest


class Neighbours:
    """Gives each input the frames near it in time; passes everything on where no model asks."""

    def __init__(self, spec: Surroundings | None) -> None:
        """`spec` of what the model looks at around a frame; None: it looks at one frame."""
        self._history = FrameHistory(spec) if spec is not None else None
        self._drawn = FrameHistory(spec) if spec is not None and spec.fade_ms else None
        self._held: list[SyncedInput] = []
        self._settled: dict[int, tuple[Frame, ...]] = {}

    @property
    def delay_ms(self) -> float:
        """How much later than its frame an answer comes, at least."""
        return self._history.delay_ms if self._history is not None else 0.0

    def reset(self) -> int:
        """Forget the frames, and the inputs that wait for later ones: returns how many of frames.
        """
        held = sum(sample.frame is not None for sample in self._held)
        for history in (self._history, self._drawn):
            if history is not None:
                history.reset()
        self._held.clear()
        self._settled.clear()
        return held

    def push(self, samples: list[SyncedInput]) -> list[SyncedInput]:
        """The inputs that are complete now, oldest first."""
        if self._history is None:
            return samples
        found = []
        for sample in map(self._seen, samples):
            self._held.append(sample)
            found += self._release(self._settle(sample))
        return found

    def flush(self, samples: list[SyncedInput]) -> list[SyncedInput]:
        """End of the input: these and all that wait, with the frames that are there."""
        found = self.push(samples)
        if self._history is None:
            return found
        drawn = self._drawn.flush() if self._drawn is not None else []
        return found + self._release(self._history.flush() + drawn)

    def _seen(self, sample: SyncedInput) -> SyncedInput:
        """The input, with an image of its events where it has no frame."""
        if self._drawn is None or sample.frame is not None or sample.window is None:
            return sample
        image = event_image(sample.window, self._drawn.spec.fade_ms)
        return replace(sample, drawn=Frame(sample.stamp_ns, image, sample.frame_id))

    def _settle(self, sample: SyncedInput) -> list[tuple[Frame, tuple[Frame, ...]]]:
        """The images, of either kind, that wait for no other once this input is there."""
        if sample.frame is not None:  # the camera is back: no image will be drawn after these
            drawn = self._drawn.flush() if self._drawn is not None else []
            return drawn + self._history.push(sample.frame)
        frames = self._history.passed(sample.stamp_ns)
        return frames + (self._drawn.push(sample.drawn) if sample.drawn is not None else [])

    def _release(self, settled: list[tuple[Frame, tuple[Frame, ...]]]) -> list[SyncedInput]:
        """What is complete before the first that waits: one without a frame keeps its place."""
        self._settled |= {frame.stamp_ns: neighbours for frame, neighbours in settled}
        found = []
        while self._held:
            sample = self._held[0]
            if sample.picture is not None:
                if sample.stamp_ns not in self._settled:
                    break
                neighbours = self._settled.pop(sample.stamp_ns)
                sample = replace(sample, neighbours=neighbours,
                                 waited_ms=sample.waited_ms + _waited_ms(sample, neighbours),
                                 missing_gaps=self._missing(sample.stamp_ns, neighbours))
            found.append(sample)
            del self._held[0]
        return found

    def _missing(self, stamp_ns: int, neighbours: tuple[Frame, ...]) -> int:
        gaps = self._history.spec.signed_gaps_ms
        return sum(nearest(stamp_ns, gap, neighbours) is None for gap in gaps)


def _waited_ms(sample: SyncedInput, neighbours: tuple[Frame, ...]) -> float:
    """How much later than the input the last of its neighbours is, by the stamps."""
    last_ns = max((frame.stamp_ns for frame in neighbours), default=sample.stamp_ns)
    return max(0, last_ns - sample.stamp_ns) * 1e-6
