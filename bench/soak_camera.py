"""A frame camera and an event camera that work, and every few seconds do not: what `bench.soak`
feeds over DDS. Needs rclpy.init.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import rclpy
from event_camera_msgs.msg import EventPacket
from sensor_msgs.msg import Image

from bench.flood import flood_payload
from mos_perception.datatypes import Events
from mos_perception.events.encode import encode_evt3
from mos_perception.ros import convert, qos

HEIGHT, WIDTH = 120, 160
PERIOD_NS = 33_000_000
START_NS = 1_700_000_000_000_000_000
FLOOD_US = 4000   # of a packet
LOOP_NS = 20_000_000_000
STEP_NS = 3_000_000_000


class Camera:
    """Publishes frame after frame with the packet that ends at it, and counts what it sent.

    `sent` counts 'frames' and 'events'; `published` has the steady time (ns) of each frame's
    publication by its stamp.
    """

    def __init__(self, seed: int) -> None:
        """Everything random follows from the seed."""
        self.node = rclpy.create_node('soak_camera')
        self._images = self.node.create_publisher(Image, '/image', qos.playback(50))
        self._packets = self.node.create_publisher(EventPacket, '/events', qos.playback(300))
        self._rng = Random(seed)
        self._squares = [self._picture(column) for column in range(8, 112, 8)]
        self.sent: Counter[str] = Counter()
        self.published: dict[int, int] = {}
        self._sensor_us, self._seq, self._count = 1_000_000, 0, 0
        self._host_ns = START_NS - self._sensor_us * 1000  # ROS time minus sensor time
        self._next = 0.0

    def matched(self) -> bool:
        """Whether the node listens to both."""
        return bool(self._images.get_subscription_count()
                    and self._packets.get_subscription_count())

    @property
    def stamp_ns(self) -> int:
        """ROS time of the last frame."""
        return self._sensor_us * 1000 + self._host_ns

    def period(self, frames: bool = True, events: bool = True,
               payload: Callable[[bytes], bytes] = bytes) -> int:
        """Let a frame period pass and publish what there is; returns the frame's stamp, ns.

        `payload` changes the packet's bytes.
        """
        self._wait()
        start_us, self._sensor_us = self._sensor_us, self._sensor_us + PERIOD_NS // 1000
        if events:
            self._publish_packet(start_us, payload(self._payload(start_us)))
        if frames:
            self._count += 1
            self.publish_frame(self._squares[self._count % len(self._squares)])
        return self.stamp_ns

    def publish_frame(self, image: np.ndarray) -> None:
        """One frame (H, W, 3) at the present time."""
        header = convert.Header(stamp=convert.to_stamp(self.stamp_ns), frame_id='camera')
        message = convert.image_message(header, image)
        self.sent['frames'] += 1
        self.published[self.stamp_ns] = time.monotonic_ns()
        self._images.publish(message)

    def flood(self, seconds: float) -> None:
        """108 million events a second for so long, as fast as DDS takes them, frames too."""
        for n in range(int(seconds * 1e6 / FLOOD_US)):
            start_us, self._sensor_us = self._sensor_us, self._sensor_us + FLOOD_US
            self._publish_packet(start_us, flood_payload(start_us, FLOOD_US))
            if n % 8 == 7:
                self.publish_frame(self._squares[n % len(self._squares)])
        self._next = 0.0

    def other_size(self) -> None:
        """A frame of half the size."""
        self._wait()
        self._sensor_us += PERIOD_NS // 1000
        self.publish_frame(np.ascontiguousarray(self._squares[0][::2, ::2]))

    def other_encoding(self) -> None:
        """A packet of another encoding."""
        self._publish_packet(self._sensor_us, bytes(80), 'mono')

    def loop(self) -> None:
        """A bag that starts anew: all times jump back."""
        self._host_ns -= LOOP_NS + self._rng.randrange(10**9)
        self._seq = 0

    def step(self) -> None:
        """The host's clock is set forward; the sensor's is not."""
        self._host_ns += STEP_NS

    def sleep(self, seconds: float) -> None:
        """Nothing comes; the sensor's time goes on."""
        time.sleep(seconds)
        self._sensor_us += int(seconds * 1e6)
        self._next = 0.0

    def _publish_packet(self, start_us: int, payload: bytes, encoding: str = 'evt3') -> None:
        message = EventPacket(height=HEIGHT, width=WIDTH, seq=self._seq, encoding=encoding,
                              events=convert.to_bytes(payload))
        message.header.stamp = convert.to_stamp(start_us * 1000 + self._host_ns)
        message.header.frame_id = 'events'
        self.sent['events'] += 1
        self._seq += 1
        self._packets.publish(message)

    def _payload(self, start_us: int) -> bytes:
        draw = np.random.default_rng(self._rng.getrandbits(32))
        t = (start_us + np.sort(draw.integers(0, PERIOD_NS // 1000, 300))) * 1000
        t[0] = start_us * 1000
        found = Events(draw.integers(40, 80, 300).astype(np.uint16),
                       draw.integers(92, 112, 300).astype(np.uint16),
                       draw.integers(0, 2, 300).astype(np.uint8), t)
        return encode_evt3(found, until_us=self._sensor_us + 1)

    def _wait(self) -> None:
        now = time.monotonic()
        self._next = max(self._next + PERIOD_NS / 1e9, now)
        time.sleep(self._next - now)

    @staticmethod
    def _picture(column: int) -> np.ndarray:
        rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        rgb[40:80, column:column + 40] = 255
        return rgb
