"""What the tests of this folder share: messages, a rig of node and client, fixtures.

Used through conftest.py.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from dvs_msgs.msg import EventArray
from event_camera_msgs.msg import EventPacket
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from bench.tiny_model import make_tiny_model
from mos_perception.datatypes import Events
from mos_perception.events.encode import encode_evt3
from mos_perception.ros import convert, qos
from mos_perception.ros.node import OUTPUTS, MosNode
from mos_perception.ros.transport import prepare_transport

prepare_transport()
HEIGHT, WIDTH = 120, 160
FRAME_NS = 33_000_000
START_NS = 1_000_000_000_000
# a process or condition that takes longer hangs: loaded machines are slow, and waiting costs
# nothing
LAST_S = 240.0


def wait_until(test: Callable[[], Any], timeout_s: float = LAST_S) -> bool:
    """True as soon as `test()` is; False after the time."""
    end = time.monotonic() + timeout_s
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def image(stamp_ns: int, column: int = 40, **changes: Any) -> Image:
    """A dark frame with a bright square at `column`."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[40:80, column:column + 40] = 255
    message = convert.image_message(
        convert.Header(stamp=convert.to_stamp(stamp_ns), frame_id='camera_optical'), rgb
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def packet(seq: int, t0_ns: int, t1_ns: int, count: int = 200, **changes: Any) -> EventPacket:
    """An evt3 packet of `count` events below the square, spread over (t0, t1], whose time words
    pass t1.
    """
    rng = np.random.default_rng(seq)
    t = np.linspace(t0_ns, t1_ns, count + 1)[1:].astype(np.int64) - START_NS + 1_000_000
    events = Events(
        rng.integers(40, 80, count).astype(np.uint16),
        rng.integers(92, 112, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
        t,
    )
    until_us = (t1_ns - START_NS + 1_000_000) // 1000 + 1
    message = EventPacket(
        height=HEIGHT,
        width=WIDTH,
        seq=seq,
        encoding='evt3',
        events=convert.to_bytes(encode_evt3(events, until_us=until_us)),
    )
    message.header.stamp = convert.to_stamp(
        int(t[0]) + START_NS - 1_000_000 if count else t1_ns + 1000
    )
    message.header.frame_id = 'events_optical'
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


def square(message: Any) -> Any:
    """The instance of the bright square in an instances message (the other is where events are)."""
    return min(message.instances, key=lambda item: item.box[1])


class Rig:
    """A MosNode and a client with publishers for its inputs and lists of what its outputs said."""

    START_NS, FRAME_NS, HEIGHT, WIDTH = START_NS, FRAME_NS, HEIGHT, WIDTH
    image, packet, square, wait = map(staticmethod, (image, packet, square, wait_until))

    def __init__(self, parameters: dict[str, Any], listen: tuple[str, ...],
                 namespace: str = '') -> None:
        overrides = [
            Parameter(name, value=value)
            for name, value in {'autostart': False, **parameters}.items()
        ]
        self.node = MosNode(parameter_overrides=overrides, namespace=namespace)
        self.client = rclpy.create_node('client', namespace=namespace)
        self.prefix = f'/{namespace}' if namespace else ''
        self.got: dict[str, list] = {name: [] for name in listen}
        for name in listen:
            self.client.create_subscription(
                OUTPUTS[name], f'{self.prefix}/mos_perception/{name}', self.got[name].append,
                qos.output()
            )
        self.images = self.client.create_publisher(Image, f'{self.prefix}/image', qos.playback(50))
        # One process cannot have two types on one topic.
        config = self.node.config
        kind = Image if config.sync_policy == 'approximate' else {
            'event_array': EventArray, 'event_packet': EventPacket}[config.events_type]
        self.packets = self.client.create_publisher(
            kind, f'{self.prefix}/events', qos.playback(200))
        self._threads = []
        for item in (self.node, self.client):
            executor = SingleThreadedExecutor()
            executor.add_node(item)
            thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
            thread.start()
            self._threads.append((executor, thread))

    def activate(self) -> None:
        """Configure, activate, and wait until all ends see each other."""
        from rclpy.lifecycle import TransitionCallbackReturn
        good = TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_configure() == good and self.node.trigger_activate() == good
        self.matched()

    def matched(self) -> None:
        """Wait until inputs and outputs are connected, both ways."""
        inputs = [
            (pub, topic)
            for pub, topic in (
                (self.images, self.node.config.image_topic),
                (self.packets, self.node.config.events_topic),
            )
            if topic
        ]
        assert wait_until(
            lambda: (
                all(pub.get_subscription_count() for pub, _ in inputs)
                and all(self.node._outputs[name].get_subscription_count() for name in self.got)
                and all(
                    item.get_publisher_count()
                    for node, names in (
                        (self.node, [f'{self.prefix}/{topic}' for _, topic in inputs]),
                        (self.client,
                         [f'{self.prefix}/mos_perception/{name}' for name in self.got]),
                    )
                    for item in node.subscriptions
                    if item.topic_name in names
                )
            )
        )

    def send(self, n: int, events: bool = True, frame: bool = True) -> None:
        """Frame n and the packet that ends at its stamp (numbered n, from 0)."""
        stamp = START_NS + (n + 1) * FRAME_NS
        if events:
            self.packets.publish(packet(n, stamp - FRAME_NS, stamp))
        if frame:
            self.images.publish(image(stamp, 20 + 4 * n))

    def counts(self) -> dict[str, int]:
        """The node's counters."""
        return self.node.monitor.counts()

    def state(self) -> tuple[str, str]:
        """The node's state and the reason for it, as /diagnostics would say now."""
        state, reason = self.node.monitor.state(time.monotonic_ns())
        return state.value, reason

    def wait_results(self, count: int, timeout_s: float = LAST_S) -> bool:
        """Wait for so many instances messages."""
        return wait_until(lambda: len(self.got['instances']) >= count, timeout_s)

    def works_after(self, n: int) -> bool:
        """A good packet and frame number n give a result."""
        before = len(self.got['instances'])
        self.send(n)
        return self.wait_results(before + 1)

    def close(self) -> None:
        """Stop both."""
        for executor, thread in self._threads:
            executor.shutdown()
            thread.join(5)
        self.node.release()
        self.node.destroy_node()
        self.client.destroy_node()


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a small deterministic model."""
    pytest.importorskip('onnx', reason='onnx makes the test model')
    return str(make_tiny_model(tmp_path_factory.mktemp('model') / 'tiny.onnx'))


@pytest.fixture
def ros() -> Iterator[None]:
    """rclpy, up and down."""
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def rig(ros: None, tiny_model: str) -> Iterator[Callable[..., Rig]]:
    """Makes rigs with the tiny model; closes them."""
    made = []

    def make(
        listen: tuple[str, ...] = ('instances',), activate: bool = True, namespace: str = '',
        **parameters: Any
    ) -> Rig:
        made.append(Rig({'model': tiny_model, 'input_reliable': True, **parameters}, listen,
                        namespace))
        if activate:
            made[-1].activate()
        return made[-1]
    yield make
    for item in made:
        item.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts executables of the package, by their module, as processes; ends them."""
    made = []

    def run(module: str, *arguments: str) -> subprocess.Popen:
        made.append(
            subprocess.Popen(
                [sys.executable, '-m', f'mos_perception.{module}', *arguments],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return made[-1]
    yield run
    for process in made:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def messages() -> type[Rig]:
    """The makers of test messages: `.image`, `.packet`, and their constants."""
    return Rig
