"""`bag_recorder`: topics into a rosbag2 recording, bytes as they come.

The bag appears when it is whole.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.utilities import remove_ros_args

from mos_perception.errors import ConfigError, MosError
from mos_perception.recording.bag import BagWriter
from mos_perception.ros import qos
from mos_perception.ros.inputs import message_class
from mos_perception.ros.process import begin, spin

LOOK_PERIOD_S = 0.1  # between two looks for topics that are not there yet


def parse(args: list[str]) -> argparse.Namespace:
    """The command line, without ROS arguments."""
    parser = argparse.ArgumentParser(
        prog='bag_recorder', description='Record topics into a rosbag2 recording.'
    )
    parser.add_argument('topics', nargs='+', help='waits for those that do not exist yet')
    parser.add_argument('--out', type=Path, required=True, help='bag folder to make')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument(
        '--count', type=int, default=0, metavar='N', help='stop after N messages; 0: no limit'
    )
    parser.add_argument(
        '--idle-timeout',
        type=float,
        default=0.0,
        metavar='S',
        help='stop when nothing came for this long after the first message; 0: never',
    )
    return parser.parse_args(args)


class Recorder(Node):
    """Subscribes as topics appear, with the quality of service their publishers offer."""

    def __init__(self, writer: BagWriter, options: argparse.Namespace) -> None:
        """Start looking for the topics."""
        super().__init__('bag_recorder')
        self._writer, self._options = writer, options
        self._missing = {self.resolve_topic_name(topic) for topic in options.topics}
        self._total, self._last = 0, 0.0
        self.done = False
        self.error: MosError | None = None
        self.create_timer(LOOK_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look(self) -> None:
        types = dict(self.get_topic_names_and_types()) if self._missing else {}
        for topic in sorted(self._missing & set(types)):
            offers = [item.qos_profile for item in self.get_publishers_info_by_topic(topic)]
            if offers:
                self._subscribe(topic, types[topic][0], offers)
        idle = self._options.idle_timeout
        if idle and self._total and time.monotonic() - self._last > idle:
            self._stop()

    def _subscribe(self, topic: str, msgtype: str, offers: list[Any]) -> None:
        self._missing.discard(topic)
        package, _, name = msgtype.split('/')
        try:
            kind = message_class(package, name)
        except ConfigError as error:
            self.get_logger().warning(f'{topic} is not recorded: {error}')
            return
        profile = qos.recording(
            all(item.reliability == ReliabilityPolicy.RELIABLE for item in offers),
            all(item.durability == DurabilityPolicy.TRANSIENT_LOCAL for item in offers),
        )
        self.create_subscription(
            kind, topic, lambda raw: self._write(topic, msgtype, raw), profile, raw=True
        )
        self.get_logger().info(f'recording {topic} ({msgtype})')

    def _write(self, topic: str, msgtype: str, raw: bytes) -> None:
        if self.done:
            return
        try:
            self._writer.write_raw(topic, msgtype, self.get_clock().now().nanoseconds, raw)
        except MosError as error:
            self.error = error
            self._stop()
            return
        self._total, self._last = self._total + 1, time.monotonic()
        if self._total == self._options.count:
            self._stop()

    def _stop(self) -> None:
        self.done = True
        self.context.try_shutdown()


def main(args: list[str] | None = None) -> int:
    """`bag_recorder`. Exit code 0 after a signal or its limit, 1 when the bag cannot be written."""
    arguments = sys.argv if args is None else ['bag_recorder', *args]
    options = parse(remove_ros_args(arguments)[1:])
    try:
        with BagWriter(options.out, options.storage) as writer:
            begin(arguments)
            recorder = Recorder(writer, options)
            spin(recorder)
            if recorder.error is not None:
                raise recorder.error
    except MosError as error:
        print(f'bag_recorder: {error}', file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    lines = [f'recorded {count} of {name}' for name, count in sorted(writer.counts.items())]
    print('\n'.join(lines) or 'recorded nothing')
    return 0


if __name__ == '__main__':
    sys.exit(main())
