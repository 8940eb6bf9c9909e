"""What an event camera and a frame camera saw of the same moments of a recording, as images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.datatypes import EventPacket, Events, Frame
from mos_perception.errors import BagError
from mos_perception.events.buffer import EventBuffer
from mos_perception.events.decode import EventStream
from mos_perception.recording.bag import Bag
from mos_perception.recording.messages import EventArray

MOST_PAIRS = 24          # spread over the recording
MOST_WIDTH = 640         # px: wider frames are halved and more
LONGEST_NS = 250_000_000  # between two frames; more is a gap
BUFFER_BYTES = 512_000_000
_DARK = 8.0              # grey levels: below, the logarithm is noise


@dataclass(frozen=True)
class FramePair:
    """Two frames after each other and the events between: `events` (He, We) float32, brighter minus
    darker; `change` (Hf', Wf') float32 of the log of the frame; `frame` (Hf', Wf', 3) uint8 RGB,
    the second; `window` the events themselves. Hf' Wf': the frame, or smaller, of `MOST_WIDTH`.
    """

    events: np.ndarray
    change: np.ndarray
    frame: np.ndarray
    window: Events


@dataclass(frozen=True)
class Pairs:
    """Of one recording; sizes (height, width) as recorded."""

    pairs: list[FramePair]
    event_size: tuple[int, int]
    frame_size: tuple[int, int]


def frame_pairs(bag: Bag, image_topic: str, events_topic: str) -> Pairs:
    """The pairs with the most events of MOST_PAIRS spans of the recording.

    Raises BagError where there are none.
    """
    count = next(topic.count for topic in bag.topics if topic.name == image_topic)
    stream, buffer = EventStream(), EventBuffer(BUFFER_BYTES)
    waiting: list[Frame] = []
    best: dict[int, FramePair] = {}
    size, frame_size, seen, watermark = (0, 0), (0, 0), 0, -1
    for _, value in bag.items([image_topic, events_topic]):
        if isinstance(value, Frame):
            if not waiting or value.size == waiting[-1].size:
                waiting.append(value)
        elif isinstance(value, (EventPacket, EventArray)):
            size = value.height, value.width
            events, reached, _ = (stream.push(value) if isinstance(value, EventPacket) else
                                  stream.push_events(value.events, *size))
            buffer.push(events)
            watermark = watermark if reached is None else max(watermark, reached)
        while len(waiting) > 1 and watermark >= waiting[1].stamp_ns:
            first, second = waiting[:2]
            frame_size = second.size
            window = buffer.window(first.stamp_ns, second.stamp_ns)
            slot = seen * MOST_PAIRS // max(count, 1)
            kept = best.get(slot)
            if (0 < second.stamp_ns - first.stamp_ns <= LONGEST_NS and len(window)
                    and (kept is None or len(window) > len(kept.window))):
                best[slot] = _pair(first, second, window, size)
            seen += 1
            buffer.drop_before(second.stamp_ns)
            del waiting[0]
    if not best:
        raise BagError(f'{bag.path}: no two frames on {image_topic} with events on {events_topic} '
                       'between them: record both at once, with clocks in step')
    return Pairs(list(best.values()), size, frame_size)


def _pair(first: Frame, second: Frame, window: Events, size: tuple[int, int]) -> FramePair:
    signs = 2.0 * window.p - 1
    cells = window.y.astype(np.int64) * size[1] + window.x
    sums = np.bincount(cells, signs, size[0] * size[1]).reshape(size).astype(np.float32)
    before, after = (_reduced(frame.image) for frame in (first, second))
    change = np.subtract(*(np.log(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
                                  + _DARK) for image in (after, before)))
    return FramePair(sums, change, after, window)


def _reduced(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if width <= MOST_WIDTH:
        return image
    size = MOST_WIDTH, max(round(height * MOST_WIDTH / width), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
