"""`bag_player`: a recording played over DDS as its drivers would, byte for byte and in time.

The schedule is absolute (no drift), a thread reads ahead, messages go out as recorded CDR. Playing
starts when the topics have subscribers, so that a starting node misses nothing.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from mos_perception.config import TF_STATIC
from mos_perception.errors import BagError, ConfigError, MosError
from mos_perception.recording.bag import Bag, open_bag
from mos_perception.recording.storage import Recorded
from mos_perception.ros import qos
from mos_perception.ros.convert import to_stamp
from mos_perception.ros.inputs import message_class
from mos_perception.ros.process import begin

READ_AHEAD = 64        # messages
DEPTH = 200            # of each publisher
CLOCK_PERIOD_S = 0.01  # between two messages on /clock, wall time


def parse(args: list[str]) -> argparse.Namespace:
    """The command line, without ROS arguments."""
    parser = argparse.ArgumentParser(
        prog='bag_player', description='Play a rosbag2 recording in real time.'
    )
    parser.add_argument('bag', type=Path, help='rosbag2 folder, .mcap or .db3 file')
    parser.add_argument(
        '--topics', nargs='+', default=[], help='play only these; the default is every topic'
    )
    parser.add_argument('--rate', type=float, default=1.0, help='1 = as recorded')
    parser.add_argument(
        '--loop', action='store_true', help='start again at the end, until a signal'
    )
    parser.add_argument(
        '--clock', action='store_true', help='publish /clock, for nodes with use_sim_time'
    )
    parser.add_argument(
        '--wait-for-subscribers',
        type=int,
        metavar='N',
        help='start when N topics have a subscriber (default: all of --topics, else 1; 0: at once)',
    )
    parser.add_argument(
        '--wait-timeout', type=float, default=120.0, metavar='S', help='give up waiting after it'
    )
    parser.add_argument(
        '--start-delay',
        type=float,
        default=1.0,
        metavar='S',
        help='between the last subscriber and the first message: the subscribers must see us too',
    )
    options = parser.parse_args(args)
    if not options.rate > 0:
        parser.error(f'--rate is {options.rate}: must be above 0')
    return options


class Player:
    """Publishes the messages of one bag."""

    def __init__(self, node: Node, bag: Bag, options: argparse.Namespace) -> None:
        """Create the publishers. Topics whose type is not installed are left out with a warning.

        Raises BagError.
        """
        self._node, self._bag, self._options = node, bag, options
        self.counts: Counter[str] = Counter()
        self.late_ms: list[float] = []
        missing = set(options.topics) - {topic.name for topic in bag.topics}
        if missing:
            raise BagError(
                f'{bag.path} has no topic {", ".join(sorted(missing))}; its topics: {bag.listing()}'
            )
        self._publishers: dict[str, Any] = {}
        for topic in bag.topics:
            if topic.name not in options.topics and options.topics:
                continue
            try:
                package, _, name = topic.msgtype.split('/')
                kind = message_class(package, name)
            except (ConfigError, ValueError):
                node.get_logger().warning(
                    f'{topic.name} is left out: type {topic.msgtype} is not installed'
                )
                continue
            self._publishers[topic.name] = node.create_publisher(
                kind, topic.name, qos.playback(DEPTH, latched=topic.name == TF_STATIC),
                qos_overriding_options=qos.overridable()
            )
        if not self._publishers:
            raise BagError(
                f'{bag.path} has no topic that can be played; its topics: {bag.listing()}'
            )
        self._clock = node.create_publisher(Clock, '/clock', 1) if options.clock else None

    def wait(self) -> None:
        """Until enough topics have subscribers, and these see us.

        Raises BagError at the timeout.
        """
        wanted = self._options.wait_for_subscribers
        if wanted is None:
            wanted = len(self._publishers) if self._options.topics else 1
        end = time.monotonic() + self._options.wait_timeout
        while wanted > len(
            heard := [
                name for name, item in self._publishers.items() if item.get_subscription_count()
            ]
        ):
            if time.monotonic() > end:
                alone = ', '.join(sorted(set(self._publishers) - set(heard)))
                raise BagError(
                    f'nobody subscribed to {alone} within {self._options.wait_timeout:g} s: start '
                    'the node '
                    'first, remap the topics, or use --wait-for-subscribers 0'
                )
            _sleep_until(time.monotonic() + 0.05)
        _sleep_until(time.monotonic() + self._options.start_delay)

    def play(self) -> None:
        """Publish everything once, each message at its time."""
        start, first_ns, clock_due = time.monotonic(), None, 0.0
        for item in _read_ahead(self._bag, list(self._publishers)):
            first_ns = item.receive_ns if first_ns is None else first_ns
            due = start + (item.receive_ns - first_ns) / 1e9 / self._options.rate
            _sleep_until(due)
            if self._clock is not None and due >= clock_due:
                self._clock.publish(serialize_message(Clock(clock=to_stamp(item.receive_ns))))
                clock_due = due + CLOCK_PERIOD_S
            self._publishers[item.topic].publish(bytes(item.data))
            self.counts[item.topic] += 1
            self.late_ms.append((time.monotonic() - due) * 1e3)

    def finish(self) -> None:
        """Wait until reliable subscribers have everything, a few seconds at most."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=3))

    def report(self) -> str:
        """What was played, and how late."""
        lines = [f'played {count} on {name}' for name, count in sorted(self.counts.items())]
        if self.late_ms:
            late = np.percentile(self.late_ms, [50, 99])
            lines.append(f'lateness p50 {late[0]:.1f} ms, p99 {late[1]:.1f} ms')
        return '\n'.join(lines)


def _read_ahead(bag: Bag, topics: list[str]) -> Iterator[Recorded]:
    """The messages, read by a thread up to READ_AHEAD before they are asked for.

    Raises what reading raises.
    """
    ahead: queue.Queue[Any] = queue.Queue(READ_AHEAD)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                ahead.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in bag.messages(topics):
                if not put(item):
                    return
            put(None)
        except Exception as error:  # handed to the other thread
            put(error)

    thread = threading.Thread(target=read, name='read-ahead', daemon=True)
    thread.start()
    try:
        while (item := ahead.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _sleep_until(when: float) -> None:
    """Sleep to a `time.monotonic()`; a signal ends it early by exception."""
    while (left := when - time.monotonic()) > 0:
        if not rclpy.ok():
            raise ExternalShutdownException
        time.sleep(min(left, 0.1))


def main(args: list[str] | None = None) -> int:
    """`bag_player`. Exit code 0 after the end or a signal, 1 when the bag cannot be played."""
    arguments = sys.argv if args is None else ['bag_player', *args]
    options = parse(remove_ros_args(arguments)[1:])
    player = None
    try:
        begin(arguments)
        node = rclpy.create_node('bag_player')
        with open_bag(options.bag) as bag:
            player = Player(node, bag, options)
            player.wait()
            player.play()
            while options.loop:
                player.play()
            if bag.fault:
                print(f'bag_player: {bag.fault}', file=sys.stderr)
            player.finish()
    except ExternalShutdownException:
        pass
    except MosError as error:
        print(f'bag_player: {error}', file=sys.stderr)
        return 1
    except Exception:
        if rclpy.ok():  # otherwise a signal has ended the context in the middle of a call
            raise
    finally:
        rclpy.try_shutdown()
    if player is not None:
        print(player.report())
    return 0


if __name__ == '__main__':
    sys.exit(main())
