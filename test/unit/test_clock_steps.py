"""A host clock that is set or slewed while the robot runs: frames find their events again."""

import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Events, Frame, SkipReason
from mos_perception.events.clock import CONFIRM_NS, DRIFT_BOUND_PPM, FLOOR_NS, STEP_NS, SensorClock
from mos_perception.events.encode import encode_evt3, encode_mono
from mos_perception.pipeline import Pipeline

MS, SECOND = 1_000_000, 1_000_000_000
BOOT_NS = 5_000 * SECOND      # host time when the sensor's clock showed 1 s
PACKET_NS = 10 * MS
EVENTS_PER_PACKET = 10        # 1 kHz
SIZE = (48, 64)


def stepped(by_ns, at_ns):
    """The host's time at a true time, of a clock that is set forward."""
    return lambda t: BOOT_NS + t + (by_ns if t >= at_ns else 0)


def slewed(ppm, at_ns):
    return lambda t: BOOT_NS + t + int(max(t - at_ns, 0) * ppm / 1e6)


class Robot:
    """Frames and packets of a host whose time at true time t (ns) is `host(t)`.

    An event's pixel is the number of its millisecond, so that a window says what time it holds.
    """

    def __init__(self, pipeline, host, encoding='evt3', frame_ns=SECOND // 60):
        self.pipeline, self.host, self.encoding, self.frame_ns = pipeline, host, encoding, frame_ns
        self.rng, self.skips, self.samples = np.random.default_rng(0), [], []
        self.seq, self.next_frame_ns = 0, frame_ns

    def packet(self, end_ns):
        t = end_ns - PACKET_NS + np.arange(1, EVENTS_PER_PACKET + 1) * MS
        ms = (t // MS % 3072).astype(np.uint16)
        ones = np.ones(len(t), np.uint8)
        events = Events(ms % 64, ms // 64, ones, t)
        payload = (encode_evt3(events, until_us=int(t[-1]) // 1000 + 1)
                   if self.encoding == 'evt3' else encode_mono(events, int(t[0])))
        delay = int(self.rng.exponential(0.3 * MS))
        self.seq += 1
        return EventPacket(self.host(int(t[0]) + delay), self.encoding, *SIZE, self.seq - 1,
                           int(t[0]), np.frombuffer(payload, np.uint8), 'camera')

    def run(self, begin_ns, end_ns):
        for now in range(begin_ns, end_ns, PACKET_NS):
            self.skips += self.pipeline.push_packet(self.packet(now))
            while self.next_frame_ns <= now:
                image = np.zeros((*SIZE, 3), np.uint8)
                self.skips += self.pipeline.push_frame(
                    Frame(self.host(self.next_frame_ns), image, 'camera'), now)
                self.samples.append(self.next_frame_ns)
                self.next_frame_ns += self.frame_ns
            yield from ((now, sample) for sample in self.pipeline.ready(now))

    def found(self, reason):
        return [skip for skip in self.skips if skip.reason is reason]


def window_error_ns(robot, sample, true_ns):
    """How far the true times of a window's events are from those it should hold; None: no events.
    """
    if sample.window is None or not len(sample.window.events):
        return None
    events = sample.window.events
    newest = int(events.y[-1]) * 64 + int(events.x[-1])
    wanted = (true_ns // MS) % (64 * 48)
    return abs((newest - wanted + 1536) % 3072 - 1536) * MS


def good(robot, sample, true_ns):
    error = window_error_ns(robot, sample, true_ns)
    return (error is not None and error <= 4 * MS and sample.degraded() == ''
            and abs(len(sample.window.events) - 33) <= 4)


def true_time(robot, stamp_ns):
    """The true time of a frame's stamp."""
    return next(t for t in robot.samples if robot.host(t) == stamp_ns)


@pytest.mark.parametrize('encoding', ['evt3', 'mono'])
@pytest.mark.parametrize('rate_hz', [10, 60])
@pytest.mark.parametrize('step_s', [0.3, 5, 10, 20, 3600])
def test_a_step_forward_is_repaired_within_a_second(bright_model, encoding, rate_hz, step_s):
    at = 4 * SECOND
    robot = Robot(Pipeline(Config(), bright_model), stepped(int(step_s * SECOND), at), encoding,
                  SECOND // rate_hz)
    before, after = [], []
    for now, sample in robot.run(SECOND, at + 6 * SECOND):
        assert sample.frame is not None or now < at + SECOND
        if sample.frame is None:
            continue
        true_ns = true_time(robot, sample.stamp_ns)
        right = good(robot, sample, true_ns)
        if 1.2 * SECOND < true_ns < at - 50 * MS:
            before.append(right)
        if true_ns >= at + SECOND:
            after.append(right)
    assert all(before) and len(before) > 25 * rate_hz // 10
    assert all(after) and len(after) > 45 * rate_hz // 10
    assert len(robot.found(SkipReason.CLOCK_STEP)) == 1
    assert not robot.found(SkipReason.CLOCK_DRIFT)
    assert 'set forward by' in robot.found(SkipReason.CLOCK_STEP)[0].detail


@pytest.mark.parametrize('rate_hz', [10, 60])
@pytest.mark.parametrize('ppm', [500, -500])
def test_a_slewed_clock_never_loses_the_events(bright_model, rate_hz, ppm):
    at = 4 * SECOND
    robot = Robot(Pipeline(Config(), bright_model), slewed(ppm, at), 'mono', SECOND // rate_hz)
    outcomes = []
    for _, sample in robot.run(SECOND, 50 * SECOND):
        if sample.frame is not None and robot.host(2 * SECOND) < sample.stamp_ns:
            outcomes.append(good(robot, sample, true_time(robot, sample.stamp_ns)))
            robot.samples = robot.samples[-50:]
    assert all(outcomes) and len(outcomes) > 450 * rate_hz // 10
    drifts = robot.found(SkipReason.CLOCK_DRIFT)
    assert 3 <= len(drifts) <= 10
    assert 'ppm on the event camera' in drifts[0].detail
    assert not robot.found(SkipReason.CLOCK_STEP)
    assert robot.pipeline.status()['event clock drift ppm'] == pytest.approx(ppm, abs=60)


def test_a_step_back_resets(bright_model):
    at = 4 * SECOND
    robot = Robot(Pipeline(Config(), bright_model), stepped(-5 * SECOND, at))
    after = [good(robot, sample, true_time(robot, sample.stamp_ns))
             for _, sample in robot.run(SECOND, at + 4 * SECOND)
             if robot.pipeline.epoch and sample.frame is not None
             and sample.stamp_ns >= robot.host(at + SECOND)]
    assert robot.pipeline.epoch in (1, 2) and all(after) and len(after) > 100
    assert not robot.found(SkipReason.CLOCK_STEP)


def test_a_driver_that_stalls_and_catches_up_is_no_step():
    clock = SensorClock('mono')
    for n in range(1000):
        sensor = n * PACKET_NS
        # from 3 s to 5 s nothing is read, then all of it within 100 ms
        stamp = 5 * SECOND + (n - 300) * MS // 2 if 300 <= n < 500 else sensor
        assert clock.observe(BOOT_NS + max(stamp, sensor), sensor) == 0
    assert BOOT_NS <= clock.offset_ns <= BOOT_NS + 2 * MS


def test_a_step_too_small_to_tell_from_delay_is_made_good_in_two_periods():
    clock = SensorClock('mono')
    for n in range(2000):
        host = n * PACKET_NS + (50 * MS if n >= 600 else 0)
        assert clock.observe(host, n * PACKET_NS) == 0
        if n * PACKET_NS > 6 * SECOND + 2 * FLOOR_NS:
            assert abs(clock.offset_ns - 50 * MS) < MS


def test_slow_packets_are_no_drift_and_a_camera_that_starts_anew_is_found():
    clock, rng = SensorClock('mono'), np.random.default_rng(1)
    for n in range(6000):
        assert clock.observe(n * PACKET_NS + int(rng.exponential(3 * MS)), n * PACKET_NS) == 0
    assert abs(clock.drift_ppm) < DRIFT_BOUND_PPM and 0 <= clock.offset_ns < 2 * MS
    start = 6000 * PACKET_NS
    steps = [clock.observe(start + n * PACKET_NS, n * PACKET_NS) for n in range(100)]
    assert sum(step > 0 for step in steps) == 1 and abs(clock.offset_ns - start) < 2 * MS
    assert clock.drift_ppm is None


def test_windows_across_a_step_say_that_events_are_lost(bright_model):
    at = 4 * SECOND
    robot = Robot(Pipeline(Config(), bright_model), stepped(5 * SECOND, at))
    said = [(true_time(robot, sample.stamp_ns), sample.degraded())
            for now, sample in robot.run(SECOND, at + 2 * SECOND)
            if now > at and sample.frame is not None]
    lost = [t for t, text in said if 'event packets lost' in text]
    assert lost and all(at + CONFIRM_NS - 50 * MS < t < at + CONFIRM_NS + 100 * MS for t in lost)
    assert STEP_NS >= Config().deadline_s * 1e9, 'smaller steps are what the deadline bridges'
