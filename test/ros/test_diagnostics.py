"""The state never says OK, or STALE, of what is not: every case with its reason."""

import numpy as np
import pytest

from mos_perception.datatypes import Fault, Skip, SkipReason
from mos_perception.ros.diagnostics import Monitor

SECOND = 1_000_000_000
START = 100 * SECOND


class Answer:
    """What the monitor reads of a result."""

    def __init__(self, degraded=''):
        self.degraded, self.stage_ms = degraded, {'engine': 2.0}


@pytest.fixture
def monitor():
    return Monitor({'frames': '/cam', 'events': '/dvs'}, SECOND)


def feed(monitor, outcome, roles=('frames', 'events'), seconds=3, rate=10):
    """Inputs at a rate, each with an outcome; the state after the last one."""
    for n in range(seconds * rate):
        now = START + n * SECOND // rate
        for role in roles:
            monitor.received(role, now)
        outcome()
    state, reason = monitor.state(now + SECOND // rate)
    return state.value, reason


def test_ok_while_results_flow(monitor):
    assert feed(monitor, lambda: monitor.published(Answer(), {})) == ('OK', 'ok')


def test_every_frame_refused(monitor):
    why = 'image step is 10 bytes: rgb8 at 640 px needs at least 1920; correct the publisher'
    state, reason = feed(monitor, lambda: monitor.skipped(Skip(SkipReason.BAD_FRAME, 0, why)))
    assert state == 'FAULT' and why in reason
    assert monitor.counts()['bad_frame'] == 30
    # refusals stay said until they were reported
    assert feed(monitor, lambda: monitor.published(Answer(), {}))[0] == 'DEGRADED'
    assert monitor.message('node', START, {}).status[0].message.startswith('DEGRADED')
    assert monitor.state(START + SECOND // 10)[0].value == 'OK'


def test_some_frames_refused(monitor):
    def half():
        monitor.published(Answer(), {})
        monitor.skipped(Skip(SkipReason.BAD_FRAME, 0, 'too short'))
    state, reason = feed(monitor, half)
    assert state == 'DEGRADED'
    assert reason == 'some inputs are refused, the last: bad_frame: too short'


def test_frames_silent_and_events_only_results(monitor):
    state, reason = feed(monitor, lambda: monitor.published(Answer('no frame'), {}), ('events',))
    assert (state, reason) == ('DEGRADED', 'nothing on /cam: events only')


def test_frames_silent_and_a_model_that_needs_them(monitor):
    state, reason = feed(monitor, lambda: None, ('events',))
    assert state == 'DEGRADED' and reason.startswith('no result for 3.0 s: nothing on /cam')


def test_events_silent(monitor):
    state, reason = feed(monitor, lambda: monitor.published(Answer('no events'), {}), ('frames',))
    assert (state, reason) == ('DEGRADED', 'nothing on /dvs: frames only')


def test_stale_only_when_nothing_comes(monitor):
    state, reason = monitor.state(START)
    assert state.value == 'STALE' and 'is the driver running' in reason
    feed(monitor, lambda: monitor.published(Answer(), {}))
    state, reason = monitor.state(START + 10 * SECOND)
    assert state.value == 'STALE' and reason == 'nothing on /cam, /dvs'


def test_nobody_listens_is_no_trouble(monitor):
    quiet = Skip(SkipReason.NO_SUBSCRIBER, 0)
    assert feed(monitor, lambda: monitor.skipped(quiet)) == ('OK', 'ok')


def test_inputs_without_any_result(monitor):
    state, reason = feed(monitor, lambda: None)
    assert state == 'DEGRADED' and reason.startswith('no result for 3.0 s')


def test_a_gyroscope_that_is_silent_or_refused():
    monitor = Monitor({'frames': '/cam', 'events': '/dvs', 'imu': '/imu'}, SECOND)
    state, reason = feed(monitor, lambda: monitor.published(Answer(), {}))
    assert (state, reason) == ('DEGRADED', 'nothing on /imu: no rotation of the camera')
    assert monitor.state(START + 10 * SECOND)[0].value == 'STALE'
    monitor = Monitor({'frames': '/cam', 'events': '/dvs', 'imu': '/imu'}, SECOND)
    bad = Skip(SkipReason.BAD_IMU, 0, 'not finite')
    state, reason = feed(monitor, lambda: monitor.skipped(bad), ('imu',))
    assert state == 'STALE' and reason.startswith('nothing on /cam, /dvs: is the driver running')


def test_faults(monitor):
    assert feed(monitor, lambda: monitor.failed(Fault(0, 'NaN in the output'))) == (
        'FAULT', 'NaN in the output')


def test_times_from_stamp_to_publication(monitor):
    for value in range(100):
        monitor.took('stamp_to_publish', value * 1_000_000)
    values = {item.key: item.value for item in monitor.message('node', START, {}).status[0].values}
    want = np.percentile(np.arange(100), [50, 99])
    assert values['stamp_to_publish p50 ms'] == f'{want[0]:.2f}'
    assert values['stamp_to_publish p99 ms'] == f'{want[1]:.2f}'
