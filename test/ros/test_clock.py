"""The node and its clocks, over DDS: set forward, or asked for and absent."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_rig import FRAME_NS, START_NS, image, packet

from mos_perception.ros import convert

STEP_NS = 5_000_000_000


def send(bench, n, step_ns):
    """Frame n and its packet, of a host clock that is `step_ns` ahead; the sensor's is not."""
    stamp = START_NS + (n + 1) * FRAME_NS
    events = packet(n, stamp - FRAME_NS, stamp)
    events.header.stamp = convert.to_stamp(convert.to_ns(events.header.stamp) + step_ns)
    bench.packets.publish(events)
    bench.images.publish(image(stamp + step_ns))


def answers_within(bench, count):
    return bench.wait(lambda: len(bench.got['instances']) >= count)


@pytest.mark.fault(6, "the host's clock is set forward by 5 s",
                   'frames alone for a second at most, then windows are whole again (`clock_step`)')
def test_a_host_clock_set_forward(rig, capfd):
    bench = rig(deadline_s=0.02)
    for n in range(5):
        send(bench, n, 0)
        assert answers_within(bench, n + 1)
    assert not bench.got['instances'][-1].degraded
    one_second = 5 + 1_000_000_000 // FRAME_NS
    for n in range(5, one_second + 6):
        send(bench, n, STEP_NS)
        assert answers_within(bench, n + 1)
    assert [message.degraded_reason for message in bench.got['instances'][5:8]] == ['no events'] * 3
    after = bench.got['instances'][one_second:]
    assert all(not message.degraded and message.event_count == 200 for message in after), [
        (message.degraded_reason, message.event_count) for message in after]
    assert bench.counts()['clock_step'] == 1
    assert "host's clock was set forward by 5.00 s" in capfd.readouterr().err
    assert len({message.epoch for message in bench.got['instances']}) == 1


@pytest.mark.fault(7, '`use_sim_time` without anything on /clock',
                   'a warning after 2 s; stamps are answered and the watchdog runs on steady time')
def test_sim_time_without_a_clock(rig, capfd):
    bench, reports = rig(use_sim_time=True), []
    bench.client.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)
    start = time.monotonic()
    bench.send(0)
    assert answers_within(bench, 1), 'results depend on stamps and steady time alone'
    assert bench.wait(lambda: 'nothing comes on /clock' in capfd.readouterr().err)
    assert time.monotonic() - start > 1.0
    count = len(reports)
    assert bench.wait(lambda: len(reports) >= count + 2), 'the watchdog runs on steady time'
    assert reports[-1].status[0].message.startswith('STALE: nothing on ')
