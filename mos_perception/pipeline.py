"""The whole data path on one screen: packets and frames in, Result | Skip | Fault out.

    packet -> EventStream (decode, clock) -> Synchronizer (buffer, windows) -> Pair
    frame  ------------------------------->        "                          |
    Pair -> model.voxel + model.image -> engine -> model.postprocess -> tracker -> Result

The node and the bag replay drive this very object. `push_*` and `ready` belong to one thread,
`process` may run in another; `reset` may come at any time and makes older pairs void.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Events, Fault, Frame, Instances, Pair, Result, Skip, SkipReason
from mos_perception.errors import MosError
from mos_perception.events.decode import EventStream
from mos_perception.models import Model, load_model
from mos_perception.sync import Synchronizer
from mos_perception.tracking import Tracker
from mos_perception.tracking.hungarian import HungarianTracker


class Pipeline:
    """One camera's perception. Raises MosError from the constructor when the configuration cannot work."""

    def __init__(self, config: Config, model: Model | None = None) -> None:
        self.config = config
        self.model: Model = model if model is not None else load_model(config)
        self.sync = Synchronizer(
            side=self.model.card.window.side, length_ns=round(self.model.card.window.length_ms * 1e6),
            deadline_ns=round(config.deadline_s * 1e9), tick_ns=round(1e9 / config.events_only_rate_hz),
            max_bytes=config.event_buffer_bytes, frames=bool(config.image_topic), events=bool(config.events_topic),
            stale_ns=round(config.stale_after_s * 1e9))
        self.stream = EventStream()
        self.tracker: Tracker = HungarianTracker(config)
        self._lock = threading.Lock()
        self.events_in = 0  # decoded since the start, over all epochs
        self._decode_ms = 0.0
        self._last_packet_ns: int | None = None
        self._frame_size: tuple[int, int] | None = None

    @property
    def model_id(self) -> str:
        """The model card's id."""
        return self.model.card.id

    @property
    def epoch(self) -> int:
        """Counts resets."""
        return self.sync.epoch

    def push_packet(self, packet: EventPacket) -> list[Skip]:
        """Take one event packet: decode it at once (the encodings are stateful). Never raises."""
        if self.sync.jumped_back(packet.stamp_ns, self._last_packet_ns):
            self.reset()
        self._last_packet_ns = packet.stamp_ns
        return self._take_events(packet.frame_id, lambda: self.stream.push(packet), (packet.height, packet.width))

    def push_events(self, events: Events, size: tuple[int, int], frame_id: str) -> list[Skip]:
        """Take events that came decoded, stamps in ROS time (`dvs_msgs/EventArray`); `size` (height, width)."""
        if len(events):
            if self.sync.jumped_back(int(events.t[0]), self._last_packet_ns):
                self.reset()
            self._last_packet_ns = int(events.t[-1])
        return self._take_events(frame_id, lambda: self.stream.push_events(events, *size, None), size)

    def push_frame(self, frame: Frame, now_ns: int) -> list[Skip]:
        """Take one frame. Refuses other sizes than the first and stamps that do not move forward."""
        if self.sync.frame_jumped_back(frame.stamp_ns):
            self.reset()
        if self._frame_size is None:
            self._frame_size = frame.size
        if frame.size != self._frame_size:
            return [Skip(SkipReason.SIZE_CHANGED, frame.stamp_ns, f'frame is {frame.size}, the first was '
                         f'{self._frame_size}: reset the node to change size')]
        return self.sync.push_frame(frame, now_ns)

    def ready(self, now_ns: int) -> list[Pair]:
        """Pairs to process now, oldest first."""
        return self.sync.ready(now_ns)

    def flush(self) -> list[Pair]:
        """End of the input: the pairs still waiting."""
        return self.sync.flush()

    def process(self, pair: Pair) -> Result | Skip | Fault:
        """One inference: voxel, pre, engine, post, track. Never raises for bad input."""
        stages = {'wait': pair.waited_ms, 'decode': self._decode_ms}
        self._decode_ms = 0.0
        try:
            if not self.config.same_view:
                pair.check_sizes()
            voxel = _timed(stages, 'voxel', self.model.voxel, pair.window)
            image = _timed(stages, 'pre', self.model.image, pair.frame)
            outputs = _timed(stages, 'engine', self.model.infer, image, voxel)
            instances = _timed(stages, 'post', self.model.postprocess, outputs, pair.size)
            with self._lock:
                if pair.epoch != self.epoch:
                    return Skip(SkipReason.RESET, pair.stamp_ns, 'the clock was reset while this frame was processed')
                tracks = _timed(stages, 'track', self.tracker.update, instances, pair.stamp_ns)
        except MosError as error:
            return Fault(pair.stamp_ns, str(error))
        return Result(pair.stamp_ns, pair.frame_id, instances, tracks, pair.window, pair.modality,
                      self.model_id, pair.epoch, pair.degraded, stages)

    def warm_up(self, size: tuple[int, int] = (480, 640)) -> Instances:
        """One inference on nothing: compiles, allocates and proves that the model runs. Raises EngineError."""
        outputs = self.model.infer(self.model.image(None), self.model.voxel(None))
        return self.model.postprocess(outputs, size)

    def update(self, config: Config) -> None:
        """Take changed live parameters."""
        self.config = config
        self.sync.deadline_ns = round(config.deadline_s * 1e9)
        self.sync.stale_ns = round(config.stale_after_s * 1e9)
        self.model.score_threshold, self.model.max_objects = config.score_threshold, config.max_objects
        with self._lock:
            self.tracker.configure(config)

    def reset(self) -> int:
        """Forget everything that depends on the past; returns the new epoch."""
        with self._lock:
            self.sync.reset()
            self.tracker.reset()
        self.stream.reset()
        self._last_packet_ns = self._frame_size = None
        return self.epoch

    def _take_events(self, frame_id: str, decode: Callable[[], Any], size: tuple[int, int]) -> list[Skip]:
        start = time.perf_counter()
        events, watermark_ns, skips = decode()
        self._decode_ms += (time.perf_counter() - start) * 1e3
        self.events_in += len(events)
        if any(skip.reason in (SkipReason.SIZE_CHANGED, SkipReason.ENCODING_CHANGED) for skip in skips):
            return skips
        lost = sum(skip.count for skip in skips if skip.reason is SkipReason.PACKET_GAP)
        return skips + self.sync.push_events(events, watermark_ns, size, lost, frame_id)


def _timed(stages: dict[str, float], name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call and book the milliseconds under `name`."""
    start = time.perf_counter()
    value = function(*args)
    stages[name] = (time.perf_counter() - start) * 1e3
    return value
