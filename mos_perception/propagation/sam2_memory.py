"""SAM 2.1's video memory as a propagator, over the graphs of `mos import sam2` (Ravi et al. 2024).

An object remembers the frame it was prompted on first, its last 6 masks and its last 15 pointers:
the published bookkeeping (sam2/sam2_video_predictor.py as github.com/Jyxarthur/gmos has it), pruned
to what a later frame may look at, so memory is flat however long a video is. A prompt on a frame
that a sweep has passed is remembered like a tracked mask, not like a first one, as published. Other
than published: of several first frames (stage 2) the nearest one is attended to, not all; holes of
up to 8 pixels are not filled; where a frame gets several prompts all of them are seen at once.

Shapes: g grid side, C channels of a pointer, M memory channels, S = 16 g the image's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.propagation import Carried

GRAPHS = ('memory_encoder', 'mask_prompt', 'mask_from_memory')
RECENT, POINTERS = 6, 15  # frames that a mask and a pointer are remembered for
_SURE = 100.0  # a logit whose sigmoid is 1 in float32

Levels = Mapping[str, np.ndarray]
"""A frame's `appearance`, `middle` and `fine`, as the graph `appearance` gives them."""


@dataclass
class _Memory:
    """What one frame left of an object: `features` (g * g, M), None once too old to be looked at;
    `pointer` (C,); `logits` (4g, 4g), None once the sweep has passed; `iou`.
    """

    features: np.ndarray | None
    pointer: np.ndarray
    logits: np.ndarray | None
    iou: float


@dataclass
class _Object:
    first: dict[int, _Memory] = field(default_factory=dict)  # by frame: prompted before tracked
    tracked: dict[int, _Memory] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)  # recent frames that a sweep has been at


class Sam2Propagator:
    """Up to ten or so objects, one after the other: time grows with their number."""

    def __init__(self, engines: Mapping[str, Engine], levels: Callable[[int], Levels],
                 size: tuple[int, int]) -> None:
        """`engines` has `GRAPHS`; `levels` gives a frame's features, asked for frames near the
        sweep alone; `size` (height, width) of the frames. Raises EngineError for other graphs.
        """
        missing = [name for name in GRAPHS if name not in engines]
        if missing:
            raise EngineError(f'SAM 2 needs the graphs {", ".join(missing)}: run "mos import sam2"')
        self.engines, self.levels, self.size = engines, levels, size
        shapes = {spec.name: spec.shape for spec in engines['mask_from_memory'].inputs}
        try:
            self._shapes = {name: tuple(map(int, shapes[name])) for name in (
                'memory', 'memory_valid', 'pointers', 'pointer_age', 'pointer_valid')}
            self.side = 16 * int(shapes['appearance'][-1])
        except (KeyError, TypeError) as error:
            raise EngineError('mask_from_memory has not the inputs of SAM 2 at a fixed size: run '
                              '"mos import sam2" again') from error
        self.reset()

    def reset(self) -> None:
        """Drop everything."""
        self._objects: dict[int, _Object] = {}
        self._sweep: tuple[int, int, int] | None = None  # first frame, present one, step

    def forget(self, number: int) -> None:
        """Drop an object."""
        self._objects.pop(number, None)

    def prompt(self, frame: int, number: int, mask: np.ndarray) -> Carried:
        """See `MaskPropagator`. Raises EngineError for a failed inference."""
        item = self._objects.setdefault(number, _Object())
        levels = self.levels(frame)
        square = self._square(mask)
        answer = self.engines['mask_prompt'].run({**levels, 'mask': square[None, None]})
        logits = _shrunk(20 * square - 10)
        sure = np.where(_enlarged(logits, (self.side,) * 2) > 0, _SURE, -_SURE)
        memory = self._remember(levels, sure, answer, logits, 1.0)
        if frame in item.passed:
            item.tracked[frame] = memory
        else:
            item.first[frame] = memory
            item.tracked.pop(frame, None)
        return self._on(frame)

    def carry(self, frame: int, step: int = 1) -> Carried:
        """See `MaskPropagator`. Raises EngineError for a failed inference."""
        start, now, before = self._sweep or (frame, frame - step, step)
        if now != frame - step or before != step:
            start = frame
        self._sweep = start, frame, step
        levels = self.levels(frame) if self._objects else {}
        for item in self._objects.values():
            if frame not in item.first:
                item.tracked[frame] = self._track(item, levels, frame, step)
            item.passed.add(frame)
            self._prune(item, start, frame)
        return self._on(frame)

    def _track(self, item: _Object, levels: Levels, frame: int, step: int) -> _Memory:
        """The object on a frame, from its memory."""
        first = min(item.first, key=lambda other: (abs(other - frame), other))
        known = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}
        known['memory'][0], known['memory_valid'][0] = item.first[first].features, 1
        if (age := (frame - first) * step) >= 0:
            _point(known, 0, item.first[first].pointer, age)
        for back in range(1, POINTERS + 1):
            at = frame - back * step
            memory = item.tracked.get(at)
            if memory is None and at != first:
                memory = item.first.get(at)
            if memory is None:
                continue
            if back <= RECENT and memory.features is not None:
                known['memory'][back], known['memory_valid'][back] = memory.features, 1
            _point(known, back, memory.pointer, back)
        answer = self.engines['mask_from_memory'].run({**levels, **known})
        logits = answer['mask_logits'][0, 0]
        return self._remember(levels, _enlarged(logits, (self.side,) * 2), answer, logits,
                              float(answer['iou'].ravel()[0]))

    def _remember(self, levels: Levels, mask_logits: np.ndarray, answer: Mapping[str, np.ndarray],
                  logits: np.ndarray, iou: float) -> _Memory:
        features = self.engines['memory_encoder'].run({
            'appearance': levels['appearance'], 'object_score': answer['object_score'],
            'mask_logits': mask_logits[None, None].astype(np.float32)})['memory'][0]
        return _Memory(features, answer['pointer'][0], logits.astype(np.float32), iou)

    def _prune(self, item: _Object, start: int, frame: int) -> None:
        """Forget what neither this sweep nor one that turns back at its start will look at."""
        for at in list(item.tracked):
            if at != frame:
                item.tracked[at].logits = None
            away = min(abs(at - frame), abs(at - start))
            if away > POINTERS:
                del item.tracked[at]
            elif away > RECENT:
                item.tracked[at].features = None
        item.passed = {at for at in item.passed if at == frame}

    def _on(self, frame: int) -> Carried:
        numbers, found = [], []
        for number, item in sorted(self._objects.items()):
            memory = item.first.get(frame) or item.tracked.get(frame)
            if memory is not None and memory.logits is not None:
                numbers.append(number)
                found.append(memory)
        logits = np.zeros((len(found), *self.size), np.float32)
        for row, memory in enumerate(found):
            logits[row] = _enlarged(memory.logits, self.size)
        return Carried(tuple(numbers), logits, np.array([memory.iou for memory in found],
                                                        np.float32))

    def _square(self, mask: np.ndarray) -> np.ndarray:
        """(S, S) float32 of 0 and 1: half covered or more."""
        if mask.shape == (self.side, self.side):
            return mask.astype(np.float32)
        shrinks = max(mask.shape) > self.side
        square = cv2.resize(mask.astype(np.float32), (self.side, self.side),
                            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return (square >= 0.5).astype(np.float32)


def _point(known: dict[str, np.ndarray], slot: int, pointer: np.ndarray, age: int) -> None:
    known['pointers'][slot], known['pointer_age'][slot] = pointer, age
    known['pointer_valid'][slot] = 1


def _enlarged(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR)


def _shrunk(logits: np.ndarray) -> np.ndarray:
    """(S / 4, S / 4) of (S, S) logits by a triangle of 8 taps (torch's antialiased bilinear)."""
    taps = 1 - np.abs(np.arange(8) - 3.5) / 4
    for axis in (0, 1):
        side = logits.shape[axis]
        padding = [(2, 2) if other == axis else (0, 0) for other in (0, 1)]
        padded = np.pad(logits, padding)
        inside = np.pad(np.ones(side), 2)
        starts = np.arange(0, side, 4)
        total = sum(tap * padded.take(starts + n, axis) for n, tap in enumerate(taps))
        weight = sum(tap * inside[starts + n] for n, tap in enumerate(taps))
        logits = total / (weight[:, None] if axis == 0 else weight)
    return logits.astype(np.float32)
