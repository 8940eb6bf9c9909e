"""What differs between ROS distributions, driven by stand-ins of the other one's calling
convention.
"""

import inspect
import sys
import threading
import types

import numpy as np
import pytest
from rclpy.subscription import Subscription

from mos_perception.commands import doctor
from mos_perception.config import Config
from mos_perception.errors import FrameError
from mos_perception.pipeline import Pipeline
from mos_perception.ros import convert, inputs
from mos_perception.ros.diagnostics import Monitor
from mos_perception.ros.feed import Feed
from mos_perception.ros.inputs import Inputs


class HumbleNode:
    """Subscriptions as rclpy 3.3 has them: callbacks get the message and nothing else."""

    def __init__(self):
        self.callbacks = {}

    def create_subscription(self, msg_type, topic, callback, qos_profile, *, callback_group=None,
                            event_callbacks=None, qos_overriding_options=None, raw=False):
        self.callbacks[topic] = callback
        return topic

    def destroy_subscription(self, subscription):
        del self.callbacks[subscription]

    def count_publishers(self, topic_name):
        return 1

    def deliver(self, topic, message):
        self.callbacks[topic](message)


@pytest.fixture
def humble(monkeypatch):
    monkeypatch.delattr(Subscription, 'CallbackType')
    monkeypatch.setattr(inputs, 'GIVES_INFO', hasattr(Subscription, 'CallbackType'))
    return HumbleNode()


def test_humble_calls_back_with_the_message_alone(humble, tiny_model, messages):
    config = Config(model=tiny_model)
    pipeline, results, enough = Pipeline(config), [], threading.Event()
    monitor = Monitor({'frames': 'image', 'events': 'events'}, 1_000_000_000)

    def publish(sample, result):
        results.append(result)
        if len(results) == 3:
            enough.set()

    feed = Feed(pipeline, monitor, lambda: True, publish, lambda key, text: results.append(text),
                results.append)
    subscribed = Inputs(humble, feed)
    try:
        subscribed.open(config)
        for n in range(3):
            stamp = messages.START_NS + (n + 1) * messages.FRAME_NS
            humble.deliver('events', messages.packet(n, stamp - messages.FRAME_NS, stamp))
            humble.deliver('image', messages.image(stamp, 20 + 4 * n))
            messages.wait(lambda: len(results) > n)
        assert enough.wait(60)
    finally:
        subscribed.close()
        feed.close()
    assert [result.degraded for result in results] == ['', '', '']
    assert monitor.counts() == {'frames': 3, 'events': 3, 'results': 3}
    assert not humble.callbacks


def test_distributions_with_message_info_get_it():
    """The condition that tells the two apart is the class that came with the second argument."""
    taken = inspect.getsource(Subscription)
    assert inputs.GIVES_INFO == ('WithMessageInfo' in taken)


class CvBridge:
    """`imgmsg_to_cv2` as cv_bridge has it, for 16-bit RGB."""

    def imgmsg_to_cv2(self, img_msg, desired_encoding='passthrough'):
        if (img_msg.encoding, desired_encoding) != ('rgb16', 'rgb8'):
            raise RuntimeError(f'[{img_msg.encoding}] is not a color format')
        wide = np.frombuffer(img_msg.data, '<u2').reshape(img_msg.height, img_msg.width, 3)
        return np.rint(wide / 257).astype(np.uint8)


def wide(messages, encoding='rgb16'):
    """A message of an encoding that we do not convert."""
    pixels = np.arange(2 * 3 * 3, dtype='<u2') * 1000
    return messages.image(5, height=2, width=3, step=18, encoding=encoding,
                          data=convert.to_bytes(pixels)), pixels.reshape(2, 3, 3)


@pytest.fixture
def cv_bridge(monkeypatch):
    module = types.ModuleType('cv_bridge')
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)


def test_cv_bridge_converts_what_we_do_not(cv_bridge, messages):
    message, pixels = wide(messages)
    frame = convert.frame(message)
    assert np.abs(frame.image * 257.0 - pixels).max() <= 128.5 and frame.stamp_ns == 5
    with pytest.raises(FrameError, match=r"'32FC7' is unknown to us, and cv_bridge says: \[32FC7"):
        convert.frame(wide(messages, '32FC7')[0])


def test_cv_bridge_is_not_asked_for_what_we_convert(monkeypatch, messages):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    assert convert.frame(messages.image(5)).image.shape == (messages.HEIGHT, messages.WIDTH, 3)


@pytest.mark.parametrize('change', [{'width': 0}, {'height': 20_000}, {'width': 4}])
def test_sizes_that_lie_do_not_reach_far(cv_bridge, messages, change):
    message = wide(messages)[0]
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(FrameError):
        convert.frame(message)


def test_without_cv_bridge_the_remedy_is_named(monkeypatch, messages):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    with pytest.raises(FrameError, match="'rgb16' is unknown.*install ros-.ROS_DISTRO-cv-bridge"):
        convert.frame(wide(messages)[0])


class Subscriber:
    """message_filters' wrapper of a subscription: `.sub`, and callbacks with their arguments."""

    def __init__(self, node, msg_type, topic, qos_profile):
        self.callbacks = {}
        self.sub = node.create_subscription(msg_type, topic, self.callback, qos_profile)

    def registerCallback(self, callback, *args):
        self.callbacks[len(self.callbacks)] = (callback, args)

    def callback(self, message):
        for callback, args in self.callbacks.values():
            callback(message, *args)


class ApproximateTimeSynchronizer:
    """The pairs of two topics whose stamps differ by at most `slop` seconds, in order."""

    def __init__(self, fs, queue_size, slop):
        self.slop_ns, self.size, self.waiting = round(slop * 1e9), queue_size, ({}, {})
        for n, part in enumerate(fs):
            part.registerCallback(self.add, n)

    def registerCallback(self, callback):
        self.callback = callback

    def add(self, message, n):
        stamp = convert.to_ns(message.header.stamp)
        mine, other = self.waiting[n], self.waiting[1 - n]
        near = min(other, key=lambda at: abs(at - stamp), default=None)
        if near is None or abs(near - stamp) > self.slop_ns:
            mine[stamp] = message
            while len(mine) > self.size:
                del mine[min(mine)]
            return
        pair = message, other.pop(near)
        self.callback(*(pair if n == 0 else pair[::-1]))


def test_approximate_pairs_through_message_filters(monkeypatch, rig):
    """The calling convention of message_filters, between real nodes; its own pairing is its own."""
    module = types.ModuleType('message_filters')
    module.Subscriber, module.ApproximateTimeSynchronizer = Subscriber, ApproximateTimeSynchronizer
    monkeypatch.setitem(sys.modules, 'message_filters', module)
    bench = rig(activate=False, sync_policy='approximate')
    bench.activate()
    counts = bench.image(0, height=bench.HEIGHT, width=bench.WIDTH, encoding='8UC2',
                         step=2 * bench.WIDTH,
                         data=convert.to_bytes(np.ones(2 * bench.WIDTH * bench.HEIGHT, np.uint8)))
    for stamp, later in ((bench.START_NS, 1_000_000), (bench.START_NS + 10**9, 30_000_000)):
        counts.header.stamp = convert.to_stamp(stamp + later)
        bench.packets.publish(counts)
        bench.images.publish(bench.image(stamp))
    assert bench.wait_results(1)
    assert bench.wait(lambda: bench.counts().get('frames') == 1)  # the second pair is 30 ms apart
    result = bench.got['instances'][0]
    assert convert.to_ns(result.header.stamp) == bench.START_NS
    assert result.event_count == 2 * bench.WIDTH * bench.HEIGHT


def test_doctor_tries_messages_and_says_what_is_optional(monkeypatch):
    found = {item.what: item for item in doctor._messages()}
    for package in ('sensor_msgs', 'diagnostic_msgs', 'mos_msgs', 'event_camera_msgs'):
        assert found[f'messages {package}'].state == 'ok', found[f'messages {package}'].text
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    monkeypatch.setitem(sys.modules, 'sensor_msgs.msg', None)
    found = {item.what: item for item in doctor._messages()}
    assert found['cv_bridge'].state == 'absent' and 'encodings' in found['cv_bridge'].text
    assert found['messages sensor_msgs'].state == 'broken'
    assert 'ros-$ROS_DISTRO-sensor-msgs' in found['messages sensor_msgs'].text
