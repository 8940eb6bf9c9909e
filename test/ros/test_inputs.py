"""Inputs of other kinds: decoded events, and frames and events joined by their header stamps."""

import importlib.util
from array import array

import pytest
from dvs_msgs.msg import Event, EventArray
from rclpy.lifecycle import TransitionCallbackReturn

from mos_perception.ros import convert


def test_event_arrays(rig):
    bench = rig(events_type='event_array')
    stamp = bench.START_NS + bench.FRAME_NS
    message = EventArray(height=bench.HEIGHT, width=bench.WIDTH)
    message.events = [
        Event(
            x=40 + n % 40, y=50, polarity=True, ts=convert.to_stamp(bench.START_NS + n * 1_000_000)
        )
        for n in range(40)
    ]
    bench.packets.publish(message)
    bench.images.publish(bench.image(stamp))
    assert bench.wait_results(1)
    assert bench.got['instances'][0].event_count == 33


@pytest.mark.skipif(
    importlib.util.find_spec('message_filters') is not None,
    reason='message_filters is installed here',
)
def test_approximate_without_message_filters(rig, capfd):
    bench = rig(activate=False, sync_policy='approximate')
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'message_filters, which is not installed' in capfd.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec('message_filters') is None,
                    reason='message_filters comes with a ROS distribution')
def test_approximate_pairs_by_header_stamp(rig):
    bench = rig(activate=False, sync_policy='approximate')
    assert bench.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert bench.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    kind = type(bench.image(0))
    assert bench.wait(
        lambda: bench.packets.get_subscription_count() and bench.images.get_subscription_count()
    )
    counts = kind(height=bench.HEIGHT, width=bench.WIDTH, encoding='8UC2', step=2 * bench.WIDTH,
                  data=array('B', bytes([1]) * (2 * bench.WIDTH * bench.HEIGHT)))
    counts.header.stamp = convert.to_stamp(bench.START_NS + 1_000_000)
    bench.packets.publish(counts)
    bench.images.publish(bench.image(bench.START_NS))
    assert bench.wait_results(1)
    assert bench.got['instances'][0].event_count == 2 * bench.WIDTH * bench.HEIGHT
