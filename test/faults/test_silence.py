"""Inputs that fall silent, pause, drift or flood: the state says so, and is right again after."""

import gc
import os
import time

import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticArray

from bench.flood import COLUMNS, EVENTS_PER_US, flood_payload
from mos_perception.ros import convert

SILENT_S = 0.4  # stale_after_s of these nodes


@pytest.mark.fault(
    1, 'frames fall silent while events come',
    'events alone are answered at `events_only_rate_hz`, DEGRADED names the topic; frames again: '
    'OK without a restart')
def test_fault_01_frames_silent(rig):
    bench = rig(stale_after_s=SILENT_S, deadline_s=0.02)
    assert bench.works_after(0)
    n = 0

    def events_alone():
        nonlocal n
        n += 1
        bench.send(n, frame=False)
        time.sleep(0.02)
        answer = bench.got['instances'][-1]
        return answer.modality == answer.MODALITY_EVENTS and bench.state() == (
            'DEGRADED', 'nothing on image: events only')
    assert bench.wait(events_alone), bench.state()
    assert bench.got['instances'][-1].degraded_reason == 'no frames'
    assert bench.works_after(n + 1) and bench.works_after(n + 2)
    assert not bench.got['instances'][-1].degraded and bench.state() == ('OK', 'ok')


@pytest.mark.fault(
    1, 'frames fall silent and the node has nothing else',
    'STALE names the topic; no old mask is published again; frames again: OK without a restart')
def test_fault_01_the_only_input_silent(rig):
    bench = rig(events_topic='', stale_after_s=SILENT_S)
    bench.send(0, events=False)
    assert bench.wait_results(1)
    assert bench.wait(lambda: bench.state() == ('STALE', 'nothing on image'))
    assert len(bench.got['instances']) == 1
    bench.send(1, events=False)
    assert bench.wait_results(2) and bench.state()[0] != 'STALE'


@pytest.mark.fault(
    2, 'the event sensor sees no motion, then its packets stop',
    'no motion is OK with 0 events; no packets is DEGRADED: frames alone are answered, each says '
    'so')
def test_fault_02_events_silent(rig):
    bench = rig(stale_after_s=SILENT_S, deadline_s=0.02)
    for n in range(3):  # the sensor's time goes on, nothing moves
        stamp = bench.START_NS + (n + 1) * bench.FRAME_NS
        bench.packets.publish(bench.packet(n, stamp - bench.FRAME_NS, stamp, count=0))
        bench.images.publish(bench.image(stamp))
        assert bench.wait_results(n + 1)
        answer = bench.got['instances'][-1]
        assert not answer.degraded and answer.event_count == 0
    assert bench.state() == ('OK', 'ok')
    n = 2

    def frames_alone():
        nonlocal n
        n += 1
        bench.send(n, events=False)
        time.sleep(0.02)
        return (bench.state() == ('DEGRADED', 'nothing on events: frames only')
                and bench.got['instances'][-1].degraded_reason == 'no events')
    assert bench.wait(frames_alone), bench.state()
    answer = bench.got['instances'][-1]
    assert answer.modality == answer.MODALITY_FRAME


@pytest.mark.fault(
    6, 'a minute without input, in stamps',
    'one result for the frame that comes then, no burst of empty ones; tracks from before are gone')
def test_fault_06_a_long_pause(rig):
    bench = rig(deadline_s=0.02)
    for n in range(3):
        assert bench.works_after(n)
    before = bench.square(bench.got['instances'][-1]).track_id
    later = 3 + 60_000_000_000 // bench.FRAME_NS
    assert bench.works_after(later)
    assert bench.works_after(later + 1)
    time.sleep(0.2)  # what a burst would need
    stamps = [convert.to_ns(message.header.stamp) for message in bench.got['instances']]
    assert stamps == [bench.START_NS + (n + 1) * bench.FRAME_NS
                      for n in (0, 1, 2, later, later + 1)]
    answer = bench.got['instances'][-1]
    assert answer.epoch == bench.got['instances'][0].epoch
    assert bench.square(answer).track_id > before


@pytest.mark.fault(
    9, "the host's clock runs 400 ppm faster than the event camera's",
    'windows stay right; `clock_drift` is counted and logged, /diagnostics says how much')
def test_fault_09_the_clocks_drift(rig, capfd):
    bench, reports = rig(deadline_s=10.0), []
    bench.client.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)
    step_ns = 200_000_000
    for n in range(160):  # 32 s of stamps
        stamp = bench.START_NS + (n + 1) * step_ns
        late = (n + 1) * step_ns * 400 // 1_000_000
        events = bench.packet(n, stamp - step_ns, stamp)
        events.header.stamp = convert.to_stamp(convert.to_ns(events.header.stamp) + late)
        bench.packets.publish(events)
        bench.images.publish(bench.image(stamp + late))
        assert bench.wait(lambda: bench.counts().get('frames') == n + 1)
        assert bench.wait(lambda: bench.counts().get('events') == n + 1)
    assert bench.wait_results(20), bench.counts()  # on a loaded machine newer frames win
    assert bench.counts()['clock_drift'] >= 1
    assert "the host's clock gains 400 ppm" in capfd.readouterr().err
    counts = {message.event_count for message in bench.got['instances'] if not message.degraded}
    assert counts <= set(range(29, 37)), counts  # 33 ms of 1000 events/s

    def values():
        return {item.key: item.value for item in reports[-1].status[0].values} if reports else {}
    assert bench.wait(lambda: values().get('event clock drift ppm') == '400'), values()


@pytest.mark.fault(
    10, '108 million events a second',
    'no more than `event_buffer_bytes` are held: the oldest packets are dropped whole and counted '
    '(`buffer_full`), the newest kept; every frame is answered, and says so; memory stays flat')
def test_fault_10_a_flood_of_events(rig):
    bench, limit = rig(event_buffer_bytes=16_000_000, stale_after_s=60.0), 16_000_000
    process, seen, resident = psutil.Process(os.getpid()), [], []
    assert COLUMNS <= bench.WIDTH
    for n in range(24):
        start_us = 1_000_000 + n * 32_000
        for part in range(8):
            begin_us = start_us + part * 4000
            message = bench.packet(8 * n + part, bench.START_NS, bench.START_NS + 1)
            message.header.stamp = convert.to_stamp(
                bench.START_NS + (begin_us - 1_000_000) * 1000)
            message.events = convert.to_bytes(flood_payload(begin_us, 4000))
            bench.packets.publish(message)
        bench.images.publish(bench.image(bench.START_NS + (start_us - 1_000_000 + 30_000) * 1000))
        assert bench.wait_results(n + 1), bench.counts()
        assert bench.wait(lambda: bench.counts()['events'] == 8 * (n + 1))
        seen.append(bench.node.pipeline.sync.buffer.nbytes)
        resident.append(process.memory_info().rss)
    gc.collect()
    status = bench.node.pipeline.status()
    assert status['total events decoded'] == 24 * 32_000 * EVENTS_PER_US
    assert max(seen) <= limit and bench.counts()['buffer_full'] > 100
    assert all(message.degraded_reason.startswith('events late') for message in
               bench.got['instances'][1:])
    assert all(message.event_count for message in bench.got['instances'])
    assert max(resident[12:]) - max(resident[4:12]) < 30e6, resident
