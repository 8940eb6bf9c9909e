"""`sync_policy: approximate`: frames and already binned event frames, joined by header stamp.

An event frame is a sensor_msgs/Image of encoding 8UC2: per pixel how often it got brighter and how
often darker since the last event frame. Its events have no times of their own, so all stand at the
middle of the model's window. Needs message_filters, which only a ROS distribution has.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from mos_perception.config import Config
from mos_perception.datatypes import Events, EventWindow, Skip, SyncedInput
from mos_perception.errors import FrameError
from mos_perception.pipeline import Pipeline
from mos_perception.ros import convert, qos
from mos_perception.ros.feed import Feed

SLOP_S = 0.02  # half a frame period at 25 Hz: stamps further apart are not one pair
ENCODING = '8UC2'


def join(node: Node, config: Config, feed: Feed) -> list[Any]:
    """Subscribe both topics and feed each pair. Returns the subscriptions to destroy."""
    import message_filters  # only a ROS distribution has it; `inputs.check_inputs` says so in words

    def paired(frame: Image, counts: Image) -> None:
        # counts the message; its content comes with the frame
        feed.take('events', lambda pipeline, now: ([], []))
        feed.take('frames', lambda pipeline, now: push(pipeline, frame, counts, now))

    parts = [message_filters.Subscriber(node, Image, topic, qos_profile=qos.image_input(config))
             for topic in (config.image_topic, config.events_topic)]
    message_filters.ApproximateTimeSynchronizer(parts, queue_size=10, slop=SLOP_S).registerCallback(
        paired
    )
    return [part.sub for part in parts]


def push(
    pipeline: Pipeline, frame: Image, counts: Image, now_ns: int
) -> tuple[list[Skip], list[SyncedInput]]:
    """Push a frame and give it the event frame as its window. Raises FrameError."""
    converted = convert.frame(frame)
    events = window(counts, *pipeline.sync.edges(converted.stamp_ns))
    skips = pipeline.push_frame(converted, now_ns)
    return skips, [dataclasses.replace(sample, window=events) for sample in pipeline.flush()]


def window(message: Image, t0_ns: int, t1_ns: int) -> EventWindow:
    """The event frame as a window with edges `t0 < t <= t1`. Raises FrameError."""
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    if message.encoding != ENCODING:
        raise FrameError(
            f'event frame encoding is {message.encoding!r}: must be {ENCODING} (brighter, darker '
            'counts)'
        )
    if step < 2 * width or len(data) < height * step:
        raise FrameError(
            f'event frame of {height} x {width}, step {step} has {len(data)} bytes: too short'
        )
    counts = data[:height * step].reshape(height, step)[:, :2 * width].reshape(height, width, 2)
    y, x, darker = np.nonzero(counts)
    times = counts[y, x, darker]
    fields = x.astype(np.uint16), y.astype(np.uint16), (1 - darker).astype(np.uint8)
    x, y, p = (np.repeat(field, times) for field in fields)
    events = Events(x, y, p, np.full(len(x), (t0_ns + t1_ns + 1) // 2, np.int64))
    return EventWindow(events, t0_ns, t1_ns, height, width)
