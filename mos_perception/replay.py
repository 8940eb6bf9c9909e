"""A recording through the pipeline, offline: the same object the node drives, no ROS graph.

Time is the recorder's: each message is pushed at its receive time, and deadlines pass on that
clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Fault, Frame, Result, Skip, SyncedInput
from mos_perception.errors import DeviceLostError
from mos_perception.motion.gyroscope import AngularVelocity
from mos_perception.motion.registration import Geometry
from mos_perception.pipeline import Pipeline
from mos_perception.recording.bag import Bag


@dataclass(frozen=True)
class Step:
    """One outcome, and the inputs it was made from (None for inputs refused before)."""

    outcome: Result | Skip | Fault
    sample: SyncedInput | None


class Replay:
    """Iterate once over the steps of a recording; counters grow while it runs."""

    def __init__(self, bag: Bag, config: Config, pipeline: Pipeline | None = None) -> None:
        """`config` names the topics, see `with_topics`.

        Raises MosError when the model cannot be used.
        """
        self.bag, self.config = bag, config
        self.pipeline = pipeline if pipeline is not None else Pipeline(config)
        self.pipeline.warm_up()
        self.topics = [topic for topic in (config.image_topic, config.events_topic) if topic]
        self.topics += config.side_topics().values()
        self.total = sum(topic.count for topic in bag.topics if topic.name in self.topics)
        self.messages = self.frames = self.packets = 0
        self.start_ns: int | None = None

    def __iter__(self) -> Iterator[Step]:
        """Steps in recorded order.

        Raises BagError for a topic that is not there or holds another type, DeviceLostError after
        the step that met it.
        """
        for topic, receive_ns, value in self.bag.labelled(self.topics):
            self.messages += 1
            # deadlines that passed before this message
            yield from self._process(self.pipeline.ready(receive_ns))
            for skip in self._push(topic, value, receive_ns):
                yield Step(skip, None)
            yield from self._process(self.pipeline.ready(receive_ns))
        yield from self._process(self.pipeline.flush())

    def _push(self, topic: str, value: object, now_ns: int) -> list[Skip]:
        if isinstance(value, Skip):
            return [value]
        if isinstance(value, Geometry):
            camera = 'frames' if topic == self.config.image_camera_info_topic else 'events'
            return self.pipeline.push_calibration(value, camera)
        if isinstance(value, AngularVelocity):
            return self.pipeline.push_imu(value)
        if self.start_ns is None:
            self.start_ns = value.stamp_ns
        if isinstance(value, Frame):
            self.frames += 1
            return self.pipeline.push_frame(value, now_ns)
        self.packets += 1
        if isinstance(value, EventPacket):
            return self.pipeline.push_packet(value)
        return self.pipeline.push_events(value.events, (value.height, value.width), value.frame_id)

    def _process(self, samples: list[SyncedInput]) -> Iterator[Step]:
        for sample in samples:
            step = Step(self.pipeline.process(sample), sample)
            yield step
            if isinstance(step.outcome, Fault) and step.outcome.final:
                raise DeviceLostError(step.outcome.message)


def replay(
    bag: Bag, config: Config, pipeline: Pipeline | None = None
) -> Iterator[Result | Skip | Fault]:
    """The outcomes of a recording. Raises MosError for a model or topics that cannot be used."""
    for step in Replay(bag, config, pipeline):
        yield step.outcome


def with_topics(
    bag: Bag, config: Config, image_topic: str | None = None, events_topic: str | None = None
) -> Config:
    """The configuration with the topics named, or those found by type where None.

    Raises BagError.
    """
    image, events = bag.pick(image_topic, events_topic)
    return dataclasses.replace(
        config,
        image_topic=image,
        image_type=bag.image_type(image),
        events_topic=events,
        events_type=bag.events_type(events),
    )
