"""Messages that are wrong or do not come as they should: each has one counted reason, the node
lives, and the next good input works.
"""

import threading
import time
from array import array

import numpy as np
import pytest
from ros_rig import LAST_S

from mos_perception.datatypes import Events
from mos_perception.events.encode import encode_evt3
from mos_perception.ros import convert


@pytest.mark.fault(
    16, 'images of an unknown encoding, a step or data too short, no or huge size',
    'each refused with its numbers (`bad_frame`); the next good one is answered')
@pytest.mark.parametrize(
    'changes',
    [
        {'encoding': 'what'},
        {'step': 7},
        {'data': array('B', bytes(10))},
        {'height': 0},
        {'width': 5_000_000},
    ],
)
def test_fault_16_frames_that_contradict_themselves(rig, changes):
    bench = rig()
    bench.images.publish(bench.image(bench.START_NS + bench.FRAME_NS // 2, **changes))
    assert bench.wait(lambda: bench.counts().get('bad_frame') == 1)
    assert bench.works_after(0)
    assert bench.counts()['frames'] == 2
    assert bench.wait(lambda: bench.counts().get('results') == 1)  # counted once published


@pytest.mark.fault(
    14, 'frames of another size in mid-stream',
    'refused (`size_changed`); the first size goes on')
def test_fault_14_frames_change_size(rig):
    bench = rig()
    assert bench.works_after(0)
    small = convert.image_message(
        convert.Header(stamp=convert.to_stamp(bench.START_NS + 2 * bench.FRAME_NS)),
        convert.frame(bench.image(0)).image[::2, ::2].copy(),
    )
    bench.images.publish(small)
    assert bench.wait(lambda: bench.counts().get('size_changed') == 1)
    assert bench.works_after(2)


@pytest.mark.fault(
    4, 'a frame stamp twice, and one older than the last',
    'both dropped and counted (`duplicate`, `out_of_order`); nothing goes backwards')
def test_fault_04_frames_out_of_order_and_twice(rig):
    bench = rig()
    assert bench.works_after(2)
    bench.images.publish(bench.image(bench.START_NS + 3 * bench.FRAME_NS))
    bench.images.publish(bench.image(bench.START_NS + 2 * bench.FRAME_NS))
    assert bench.wait(
        lambda: bench.counts().get('duplicate') == 1 and bench.counts().get('out_of_order') == 1
    )
    assert bench.works_after(3)


@pytest.mark.fault(
    5, 'stamps jump back: a bag loops',
    'everything is reset once, the epoch grows by one, results go on within 2 frames')
def test_fault_05_stamps_jump_back(rig):
    bench = rig()
    for n in (0, 40, 41):
        assert bench.works_after(n)
    epoch = bench.got['instances'][-1].epoch
    for n in (0, 1):
        bench.send(n)
    assert bench.wait(lambda: bench.got['instances'][-1].epoch == epoch + 1)
    assert (
        convert.to_ns(bench.got['instances'][-1].header.stamp)
        <= bench.START_NS + 2 * bench.FRAME_NS
    )
    assert bench.works_after(2) and bench.got['instances'][-1].epoch == epoch + 1


@pytest.mark.fault(
    13, 'a gap in the sequence numbers of packets',
    'counted (`packet_gap`); the result is degraded and says how many are lost')
def test_fault_13_packets_lost(rig):
    bench = rig()
    assert bench.works_after(0)
    stamp = bench.START_NS + 2 * bench.FRAME_NS
    bench.packets.publish(bench.packet(5, stamp - bench.FRAME_NS, stamp))
    bench.images.publish(bench.image(stamp))
    assert bench.wait_results(2)
    assert bench.counts()['packet_gap'] == 4
    assert (
        bench.got['instances'][1].degraded
        and '4 event packets lost' in bench.got['instances'][1].degraded_reason
    )


@pytest.mark.fault(
    15, 'packets of width 0 or 20000 px, of an unknown encoding, of a big-endian host',
    'refused before anything is allocated (`bad_packet`); the next good one is taken')
@pytest.mark.parametrize(
    'changes, reason',
    [
        ({'encoding': 'aps'}, 'bad_packet'),
        ({'is_bigendian': True}, 'bad_packet'),
        ({'width': 0}, 'bad_packet'),
        ({'width': 20_000}, 'bad_packet'),
    ],
)
def test_fault_15_sizes_and_layouts_nobody_has(rig, changes, reason):
    bench = rig()
    bench.packets.publish(bench.packet(0, bench.START_NS - 1000, bench.START_NS, **changes))
    assert bench.wait(lambda: bench.counts().get(reason, 0) >= 1), bench.counts()
    assert bench.works_after(0)


@pytest.mark.fault(
    15, 'events outside of the sensor', 'left out before any array is indexed (`out_of_bounds`)')
def test_fault_15_events_outside_of_the_sensor(rig):
    bench = rig()
    t = np.linspace(1_000, 30_000_000, 100).astype(np.int64)
    x = np.where(np.arange(100) % 2, 50, bench.WIDTH + 7).astype(np.uint16)
    events = Events(x, np.full(100, 60, np.uint16), np.ones(100, np.uint8), t)
    bench.packets.publish(bench.packet(0, bench.START_NS, bench.START_NS + bench.FRAME_NS, events=(
        convert.to_bytes(encode_evt3(events, until_us=34_000)))))
    bench.images.publish(bench.image(bench.START_NS + bench.FRAME_NS))
    assert bench.wait_results(1)
    assert bench.counts()['out_of_bounds'] == 50
    assert bench.got['instances'][0].event_count == 50


@pytest.mark.fault(
    14, 'event encoding or sensor size changes in mid-stream',
    'refused (`encoding_changed`, `size_changed`), the first goes on; `~/reset` takes the new one')
@pytest.mark.parametrize('changes, reason', [
    ({'encoding': 'mono'}, 'encoding_changed'), ({'width': 80}, 'size_changed')])
def test_fault_14_packets_change(rig, changes, reason):
    bench = rig()
    assert bench.works_after(0)
    stamp = bench.START_NS + bench.FRAME_NS
    other = bench.packet(1, stamp, stamp + 1_000_000, **changes)
    bench.packets.publish(other)
    assert bench.wait(lambda: bench.counts().get(reason) == 1), bench.counts()
    assert bench.works_after(1) or bench.works_after(2)
    bench.node._feed.reset()  # as the service does
    bench.packets.publish(other)
    seen = bench.counts()['events'] + 1
    assert bench.wait(lambda: bench.counts()['events'] == seen)
    assert bench.counts()[reason] == 1


VECTOR = np.array([0x3000 | 20, 0x4FFF], '<u2').tobytes()  # a base column and 12 pixels


@pytest.mark.fault(
    12, 'an EVT3 packet cut inside of a word, with an unknown word, or ending in half a vector',
    'what can be decoded is kept, damage is counted (`bad_packet`); the next packet is whole again')
@pytest.mark.parametrize('damage, counted', [
    (lambda data: data[:-3], 1),
    (lambda data: data[:100] + b'\x00\x90' + data[100:], 1),
    (lambda data: data + VECTOR[:3], 1),
    (lambda data: data + VECTOR, 0)])
def test_fault_12_damaged_packets(rig, damage, counted):
    bench = rig()
    assert bench.works_after(0)
    stamp = bench.START_NS + bench.FRAME_NS
    bad = bench.packet(1, stamp, stamp + 1_000_000)
    bad.events = convert.to_bytes(damage(bytes(bad.events)))
    bench.packets.publish(bad)
    assert bench.wait(lambda: bench.counts()['events'] == 2)
    assert bench.works_after(2)
    assert bench.counts().get('bad_packet', 0) == counted
    assert bench.node.pipeline.status()['total events decoded'] >= 400


@pytest.mark.fault(
    11, 'windows of no event, of one, and of events of one time',
    'a result each, finite, that says how many events it is made of')
def test_fault_11_windows_of_no_or_one_event_or_one_time(rig):
    bench = rig(deadline_s=5.0)
    whole, one_us = (-bench.FRAME_NS, 0), (-900, -100)
    for n, (count, (t0, t1)) in enumerate([(0, whole), (1, whole), (200, one_us)]):
        stamp = bench.START_NS + (n + 1) * bench.FRAME_NS
        bench.packets.publish(bench.packet(n, stamp + t0, stamp + t1, count=count))
        bench.images.publish(bench.image(stamp))
        assert bench.wait_results(n + 1), bench.counts()
        answer = bench.got['instances'][n]
        assert answer.event_count == count and not answer.degraded
        assert np.isfinite([[item.score, *item.box] for item in answer.instances]).all()


@pytest.mark.fault(
    29, 'a callback raises',
    'caught, counted (`exception`); the next message is processed, no lock is held')
def test_fault_29_exception_in_a_callback(rig):
    bench = rig()
    real = bench.node.pipeline.push_frame

    def broken(*_: object) -> None:
        raise ZeroDivisionError('a bug')
    bench.node.pipeline.push_frame = broken
    bench.send(0)
    assert bench.wait(lambda: bench.counts().get('exception') == 1)
    bench.node.pipeline.push_frame = real
    assert bench.works_after(1)


@pytest.mark.fault(
    24, 'callbacks slower than the frames: DDS drops them',
    'each is counted (`lost_frames`)')
def test_fault_24_frames_dropped_before_the_node(rig):
    bench = rig(events_topic='')
    bench.send(0, events=False)
    assert bench.wait_results(1)  # counting starts with the first frame seen
    sent, real = threading.Event(), bench.node.pipeline.push_frame

    def slow(*arguments: object) -> list:
        sent.wait(LAST_S)
        time.sleep(0.05)
        return real(*arguments)
    bench.node.pipeline.push_frame = slow
    for n in range(1, 40):
        bench.send(n, events=False)
    sent.set()
    assert bench.wait(lambda: bench.counts()['frames'] + bench.counts().get('lost_frames', 0) == 40)
    assert bench.counts()['lost_frames'] > 0
    bench.node.pipeline.push_frame = real


@pytest.mark.fault(
    29, 'an inference raises what nobody foresaw',
    'caught, counted (`exception`); the next frame is answered')
def test_fault_29_exception_in_the_worker(rig):
    bench = rig()
    real = bench.node.pipeline.process
    bench.node.pipeline.process = lambda pair: 1 / 0
    bench.send(0)
    assert bench.wait(lambda: bench.counts().get('exception') == 1)
    bench.node.pipeline.process = real
    assert bench.works_after(1)
