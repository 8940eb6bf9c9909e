"""Windows by event time: edges, completeness, deadlines, resets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events, Frame, SkipReason, WindowStatus
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.gyroscope import MAX_LAG_NS, AngularVelocity, Gyroscope
from mos_perception.sync import HISTORY_NS, JUMP_BACK_NS, Synchronizer

MS = 1_000_000
SIZE = (6, 8)


def make(side='before', **changes) -> Synchronizer:
    values = dict(
        side=side,
        length_ns=30 * MS,
        deadline_ns=100 * MS,
        tick_ns=33 * MS,
        max_bytes=1 << 24,
        frames=True,
        events=True,
        stale_ns=1000 * MS,
    )
    return Synchronizer(**{**values, **changes})


def events(*stamps) -> Events:
    t = np.array(stamps, np.int64)
    zero = np.zeros(len(t), np.uint16)
    return Events(zero, zero, np.ones(len(t), np.uint8), t)


def frame(stamp_ns: int) -> Frame:
    return Frame(stamp_ns, np.zeros((*SIZE, 3), np.uint8), 'camera')


def feed(sync, *stamps, mark=None, lost=0):
    return sync.push_events(events(*stamps), mark if mark is not None else stamps[-1], SIZE, lost)


def test_window_before_is_left_open_right_closed():
    sync = make()
    feed(sync, 70 * MS, 70 * MS + 1, 100 * MS, 100 * MS + 1)
    sync.push_frame(frame(100 * MS), 0)
    (pair,) = sync.ready(0)
    assert pair.window.events.t.tolist() == [70 * MS + 1, 100 * MS]
    assert (pair.window.t0_ns, pair.window.t1_ns, pair.window.status) == (
        70 * MS,
        100 * MS,
        WindowStatus.COMPLETE,
    )
    assert pair.frame_id == 'camera'


def test_window_after_waits_one_period():
    sync = make('after')
    sync.push_frame(frame(100 * MS), 0)
    feed(sync, 90 * MS, 110 * MS, 129 * MS)
    assert sync.ready(1) == [] and sync.waiting
    feed(sync, 130 * MS, 131 * MS)
    (pair,) = sync.ready(2)
    assert pair.window.events.t.tolist() == [110 * MS, 129 * MS, 130 * MS]


def test_a_quiet_sensor_still_moves_the_watermark():
    sync = make()
    sync.push_frame(frame(100 * MS), 0)
    sync.push_events(Events.empty(), 105 * MS, SIZE, 0)
    (pair,) = sync.ready(0)
    assert pair.window.status is WindowStatus.COMPLETE and len(pair.window.events) == 0


def test_deadline_gives_a_late_window_not_a_lost_frame():
    sync = make()
    sync.push_frame(frame(100 * MS), 0)
    feed(sync, 80 * MS)
    assert sync.ready(99 * MS) == []
    (pair,) = sync.ready(100 * MS)
    assert pair.window.status is WindowStatus.LATE and pair.window.events.t.tolist() == [80 * MS]


def test_silent_events_cost_one_deadline_only():
    sync = make()
    sync.push_frame(frame(100 * MS), 0)
    assert sync.ready(50 * MS) == []
    assert [pair.window for pair in sync.ready(100 * MS)] == [None]
    sync.push_frame(frame(133 * MS), 133 * MS)
    assert len(sync.ready(133 * MS)) == 1
    feed(sync, 150 * MS)
    sync.push_frame(frame(166 * MS), 166 * MS)
    assert sync.ready(166 * MS) == [], 'packets are back: wait for them again'


def test_frames_that_do_not_move_forward_are_refused_by_name():
    sync = make()
    sync.push_frame(frame(100), 0)
    assert sync.push_frame(frame(100), 0)[0].reason is SkipReason.DUPLICATE
    assert sync.push_frame(frame(99), 0)[0].reason is SkipReason.OUT_OF_ORDER
    assert sync.push_frame(frame(101), 0) == []


def test_only_a_large_step_back_is_a_jump():
    sync = make()
    sync.push_frame(frame(10 * JUMP_BACK_NS), 0)
    assert not sync.frame_jumped_back(9 * JUMP_BACK_NS)
    assert sync.frame_jumped_back(9 * JUMP_BACK_NS - 1)


def test_lost_packets_mark_the_windows_they_fall_in():
    sync = make()
    feed(sync, 50 * MS)
    feed(sync, 95 * MS, lost=3)
    feed(sync, 200 * MS)
    for stamp in (90, 160, 199):
        sync.push_frame(frame(stamp * MS), 0)
    assert [pair.window.lost_packets for pair in sync.ready(0)] == [3, 0, 0]


def test_a_full_buffer_is_counted_and_the_window_called_late():
    sync = make(max_bytes=100 * 13 * 3)
    skips = []
    for step in range(6):
        skips += feed(sync, *(np.arange(100) + step * 100 + 1))
    assert sum(skip.count for skip in skips if skip.reason is SkipReason.BUFFER_FULL) >= 2
    sync.push_frame(frame(590), 0)
    (pair,) = sync.ready(0)
    assert pair.window.status is WindowStatus.LATE


def test_history_that_gives_way_is_no_loss_until_a_late_frame_wants_it():
    sync, skips = make(max_bytes=100 * 13 * 3), []
    for step in range(6):
        skips += feed(sync, *(np.arange(100) + step * 40 * MS + 1))
    assert skips == []
    sync.push_frame(frame(45 * MS), 0)
    assert sync.ready(0)[0].window.status is WindowStatus.LATE
    sync.push_frame(frame(190 * MS), 0)
    assert sync.ready(0)[0].window.status is WindowStatus.COMPLETE


def test_events_only_ticks_at_the_rate_of_event_time():
    sync = make(frames=False, tick_ns=10 * MS)
    stamps = []
    for mark in range(5, 105, 5):
        feed(sync, mark * MS)
        stamps += [pair.stamp_ns for pair in sync.ready(0)]
    assert np.diff(stamps).tolist() == [10 * MS] * (len(stamps) - 1) and len(stamps) == 9


def test_no_burst_of_empty_results_after_a_pause():
    sync = make(frames=False, tick_ns=10 * MS)
    feed(sync, 1)
    sync.ready(0)
    feed(sync, 100 * HISTORY_NS)
    assert len(sync.ready(0)) <= 1
    feed(sync, 100 * HISTORY_NS + 10 * MS)
    assert [pair.stamp_ns for pair in sync.ready(0)] == [100 * HISTORY_NS + 10 * MS]


def test_the_frame_after_a_pause_may_come_after_its_events():
    sync = make()
    feed(sync, 10 * MS)
    sync.push_frame(frame(10 * MS), 0)
    assert len(sync.ready(0)) == 1
    later = 100 * HISTORY_NS
    feed(sync, later + MS)
    assert sync.ready(0) == []
    assert sync.push_frame(frame(later), 0) == []
    assert [pair.frame.stamp_ns for pair in sync.ready(0)] == [later]


def test_events_take_over_when_frames_fall_silent():
    sync = make(stale_ns=200 * MS, tick_ns=50 * MS)
    feed(sync, 10 * MS)
    sync.push_frame(frame(10 * MS), 0)
    assert len(sync.ready(0)) == 1
    feed(sync, 200 * MS)
    assert sync.ready(0) == []
    feed(sync, 320 * MS)
    assert [pair.stamp_ns for pair in sync.ready(0)] == [260 * MS, 310 * MS]


def test_frames_only_never_waits():
    sync = make(events=False)
    sync.push_frame(frame(5), 0)
    assert [pair.window for pair in sync.ready(0)] == [None]


def test_reset_forgets_everything():
    sync = make()
    feed(sync, 500 * MS)
    sync.push_frame(frame(400 * MS), 0)
    sync.reset()
    assert sync.watermark_ns is None and not sync.waiting and sync.flush() == []
    (said,) = sync.push_frame(frame(1 * MS), 0)
    assert said.reason is SkipReason.RESET and said.count == 1, 'the frame that waited is counted'
    assert sync.push_frame(frame(2 * MS), 0) == []
    sync.reset(3)
    assert [skip.count for skip in feed(sync, 500 * MS) or sync.push_frame(frame(3 * MS), 0)] == [5]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=20),
    st.data(),
)
def test_windows_do_not_depend_on_how_arrivals_interleave(gaps, cuts, data):
    """The same packets give the same windows however frames and packets are mixed on arrival.

    Only a frame that comes when its events are no longer kept gets fewer, and is told so.
    """
    t = np.cumsum(gaps).astype(np.int64) * MS // 4
    packets, at = [], 0
    for cut in cuts:
        if at < len(t):
            packets.append(t[at:at + cut])
        at += cut
    last = int(packets[-1][-1])
    frames = [stamp for stamp in range(30 * MS, last, 33 * MS)][:20]

    def run(order):
        sync, packet_iter, frame_iter, out = (
            make(deadline_ns=1 << 60, stale_ns=1 << 60),
            iter(packets),
            iter(frames),
            {},
        )
        for is_frame in order:
            if is_frame:
                sync.push_frame(frame(next(frame_iter)), 0)
            else:
                feed(sync, *next(packet_iter))
            for pair in sync.ready(0):
                if pair.frame is None:
                    continue
                out[pair.stamp_ns] = pair.window.digest()
                if pair.window.status is WindowStatus.LATE:
                    assert sync.watermark_ns - pair.window.t0_ns > HISTORY_NS
                    out[pair.stamp_ns] = None
        return out

    order = [True] * len(frames) + [False] * len(packets)
    first, second = run(order), run(data.draw(st.permutations(order)))
    assert first.keys() == second.keys()
    for stamp in first:
        assert first[stamp] == second[stamp] or None in (first[stamp], second[stamp])


@pytest.mark.parametrize('side, edges', [('before', (70, 100)), ('after', (100, 130))])
def test_edges(side, edges):
    assert make(side, length_ns=30).edges(100) == edges


def turning(*stamps) -> Gyroscope:
    """A gyroscope of a calibrated camera with samples at these times."""
    found = Gyroscope()
    found.calibrate(Calibration(SIZE, (20.0, 20.0, 4.0, 3.0)))
    for stamp in stamps:
        found.push(AngularVelocity(stamp, (0.0, 1.0, 0.0)))
    return found


def test_a_window_waits_for_the_gyroscope_until_the_deadline():
    gyroscope = turning(*range(60 * MS, 99 * MS, 4 * MS))
    sync = make(gyroscope=gyroscope)
    feed(sync, 80 * MS, 100 * MS)
    sync.push_frame(frame(100 * MS), 0)
    assert sync.ready(99 * MS) == []
    gyroscope.push(AngularVelocity(100 * MS, (0.0, 1.0, 0.0)))
    (pair,) = sync.ready(99 * MS)
    assert (pair.event_motion.t_ns, pair.event_motion.span_ns) == (100 * MS, 30 * MS)
    sync.push_frame(frame(101 * MS), 0)
    feed(sync, 101 * MS)
    assert sync.ready(99 * MS) == []
    (pair,) = sync.ready(100 * MS)
    assert pair.event_motion is None and pair.window.status is WindowStatus.COMPLETE


def test_a_silent_gyroscope_is_not_waited_for():
    sync = make(gyroscope=turning(10 * MS))
    feed(sync, 500 * MS)
    sync.push_frame(frame(500 * MS), 0)
    (pair,) = sync.ready(0)
    assert pair.event_motion is None


def test_events_alone_wait_for_the_gyroscope_while_it_comes():
    gyroscope = turning(*range(0, 61 * MS, 4 * MS))
    sync = make(frames=False, gyroscope=gyroscope)
    feed(sync, 10 * MS)
    assert sync.ready(0) == []
    feed(sync, 90 * MS)  # results at 43, 76 ms: samples reach 60
    assert [pair.stamp_ns // MS for pair in sync.ready(0)] == [43]
    feed(sync, 60 * MS + MAX_LAG_NS + MS)
    late = sync.ready(0)
    assert [pair.stamp_ns // MS for pair in late] == [76, 109, 142]
    assert [pair.event_motion for pair in late] == [None] * 3


def test_without_a_window_there_is_no_motion():
    sync = make(events=False, gyroscope=turning(60 * MS, 80 * MS, 100 * MS))
    sync.push_frame(frame(100 * MS), 0)
    (pair,) = sync.ready(0)
    assert pair.window is None and pair.event_motion is None
