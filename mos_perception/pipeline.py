"""The whole data path on one screen: packets and frames in, Result | Skip | Fault out.

    packet -> EventStream (decode, clock) -> Registration -> Synchronizer (windows) -> SyncedInput
    imu    -> Gyroscope (rotation) ------------------------>      "
    frame  ----------------------------------------------->       " -> Neighbours (frames around) |
    SyncedInput -> BackwardFlow -> Model.detect (voxel ... ego) -> Tracker.update -> Result

The node and the bag replay drive this very object. `push_*` and `ready` belong to one thread,
`process` may run in another; `reset` may come at any time and makes older inputs void.
"""

from __future__ import annotations

import threading
from typing import Any

from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Events, Fault, Frame, Result, Skip, SyncedInput
from mos_perception.errors import DeviceLostError, MosError
from mos_perception.events.decode import EventStream, packets_lost, refused
from mos_perception.models import Model, load_model
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.motion.gyroscope import AngularVelocity, Gyroscope
from mos_perception.motion.neighbours import Neighbours
from mos_perception.motion.registration import Geometry, Registration
from mos_perception.stages import StageTimes
from mos_perception.sync import Synchronizer
from mos_perception.tracking import load_tracker


class Pipeline:
    """One camera's perception. Raises MosError when made for a configuration that cannot work."""

    def __init__(self, config: Config, model: Model | None = None) -> None:
        self.config = config
        self.model = model if model is not None else load_model(config)
        self.gyroscope = Gyroscope.of(config)
        self.registration = Registration(config, self.gyroscope)
        self.sync = Synchronizer.of(config, self.model.card.window, self.gyroscope)
        self.neighbours = Neighbours(self.model.card.surroundings)
        self.stream = EventStream(config.event_decoder)
        self.flow = BackwardFlow()
        self.tracker = load_tracker(config, self.model.card,
                                    getattr(self.model, 'appearance', None))
        self._lock = threading.Lock()

    @property
    def epoch(self) -> int:
        """Counts resets."""
        return self.sync.epoch

    def push_packet(self, packet: EventPacket) -> list[Skip]:
        """Take one event packet: decode it at once (the encodings are stateful). Never raises."""
        if self.sync.jumped_back(packet.stamp_ns, self.stream.last_ns):
            self.reset()
        return self._take_events(packet.frame_id, packet.size, self.stream.push, packet)

    def push_events(self, events: Events, size: tuple[int, int], frame_id: str) -> list[Skip]:
        """Take decoded events in ROS time (`dvs_msgs/EventArray`); `size` (height, width)."""
        if len(events) and self.sync.jumped_back(int(events.t[0]), self.stream.last_ns):
            self.reset()
        return self._take_events(frame_id, size, self.stream.push_events, events, *size, None)

    def push_frame(self, frame: Frame, now_ns: int) -> list[Skip]:
        """Take one frame. Refuses other sizes than the first and stamps that do not move on."""
        if self.sync.frame_jumped_back(frame.stamp_ns):
            self.reset()
        return self.sync.push_frame(frame, now_ns)

    def push_imu(self, sample: AngularVelocity) -> list[Skip]:
        """Take one sample of `imu_topic`."""
        if self.sync.jumped_back(sample.stamp_ns, self.gyroscope.last_ns):
            self.reset()
        return self.gyroscope.push(sample)

    def push_calibration(self, told: Geometry, camera: str = 'events') -> list[Skip]:
        """Take the calibration of a camera, 'events' or 'frames', or transforms between frames."""
        return self.registration.take(told, camera)

    def ready(self, now_ns: int) -> list[SyncedInput]:
        """Inputs to process now, oldest first."""
        return self.neighbours.push(self.sync.ready(now_ns))

    def flush(self) -> list[SyncedInput]:
        """End of the input: what still waits."""
        return self.neighbours.flush(self.sync.flush())

    def process(self, sample: SyncedInput) -> Result | Skip | Fault:
        """One inference: flow, detect, track. Never raises for bad input."""
        stages = StageTimes(wait=sample.waited_ms, decode=sample.decode_ms)
        try:
            sample.check_sizes(self.config.registration)
            with stages.timed('flow'):
                sample = self.flow.attach(sample)
            instances = self.model.detect(sample, stages)
            with self._lock:
                if (void := self.sync.void(sample)) is not None:
                    return void
                with stages.timed('track'):
                    instances, tracks = self.tracker.update(
                        instances, sample.stamp_ns, sample.flow, sample.flow_error, sample.image)
                self.flow.answered(sample)
            if self.tracker.store.used_up:
                self.reset()
        except MosError as error:
            return Fault(sample.stamp_ns, str(error), isinstance(error, DeviceLostError))
        return Result(sample.stamp_ns, sample.frame_id, instances, tracks, sample.window,
                      sample.modality, self.model.card.id, sample.epoch,
                      sample.degraded(self.model.card.window is not None), stages)

    def warm_up(self, size: tuple[int, int] = (480, 640)) -> None:
        """One inference on nothing: compiles, allocates, proves it runs. Raises EngineError."""
        self.model.detect(SyncedInput.nothing(size), StageTimes())

    def update(self, config: Config) -> None:
        """Take changed live parameters."""
        self.config = config
        self.sync.configure(config)
        self.model.configure(config)
        with self._lock:
            self.tracker.configure(config)

    def reset(self) -> int:
        """Forget everything that depends on the past; returns the new epoch."""
        with self._lock:
            self.sync.reset(self.neighbours.reset())
            for part in (self.tracker, self.stream, self.gyroscope):
                part.reset()
        return self.epoch

    def status(self) -> dict[str, Any]:
        """What `/diagnostics` says of the pipeline itself."""
        return {'model': self.model.card.id, 'epoch': self.epoch,
                'model delay ms': self.neighbours.delay_ms,
                **self.sync.report(),
                **self.stream.clock_report(), **self.gyroscope.report(),
                **self.registration.report(), **self.tracker.store.report(),
                **{f'engine {key}': value for key, value in self.model.report().items()}}

    def _take_events(self, frame_id: str, size: tuple[int, int], decode: Any,
                     *given: Any) -> list[Skip]:
        stages = StageTimes()
        with stages.timed('decode'):
            events, watermark_ns, skips = decode(*given)
            events, size, skips = self.registration.apply(events, size, skips, self.sync.frame_size)
        if refused(skips):
            return skips
        return skips + self.sync.push_events(events, watermark_ns, size, packets_lost(skips),
                                             frame_id, stages['decode'])
