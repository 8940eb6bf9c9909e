"""What differs between ROS distributions, driven by stand-ins of the other one's calling
convention.
"""

import inspect
import threading

import pytest
from rclpy.subscription import Subscription

from mos_perception.config import Config
from mos_perception.pipeline import Pipeline
from mos_perception.ros import inputs
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

    feed = Feed(pipeline, monitor, lambda: True, publish, lambda key, text: results.append(text))
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
