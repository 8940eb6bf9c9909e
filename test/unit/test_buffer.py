"""The event buffer: exact windows, bounded bytes, counted drops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.datatypes import Events
from mos_perception.events.buffer import EventBuffer


def at(*times):
    count = len(times)
    return Events(np.arange(count, dtype=np.uint16), np.zeros(count, np.uint16),
                  np.zeros(count, np.uint8), np.array(times, np.int64))


def test_window_is_open_below_and_closed_above():
    buffer = EventBuffer(10_000)
    assert buffer.watermark_ns is None and len(buffer.window(0, 100)) == 0
    for events in (at(1, 2, 3), Events.empty(), at(3, 5), at(8)):
        assert buffer.push(events) == 0
    assert buffer.window(2, 5).t.tolist() == [3, 3, 5]
    assert buffer.window(8, 9).t.tolist() == [] and buffer.window(0, 1).t.tolist() == [1]
    assert (buffer.oldest_ns, buffer.watermark_ns, buffer.nbytes) == (1, 8, 6 * 13)


def test_oldest_whole_packets_go_first_and_are_counted():
    buffer = EventBuffer(5 * 13)
    assert [buffer.push(at(10 * k, 10 * k + 1)) for k in range(4)] == [0, 0, 1, 1]
    assert buffer.nbytes == 4 * 13 and buffer.window(-1, 100).t.tolist() == [20, 21, 30, 31]
    assert buffer.push(at(*range(40, 60))) == 2  # larger than the buffer: it alone stays
    assert len(buffer.window(0, 100)) == 20
    buffer.reset()
    assert buffer.nbytes == 0 and buffer.oldest_ns is None


def test_drop_before_keeps_packets_that_reach_beyond():
    buffer = EventBuffer(10_000)
    for start in (0, 10, 20):
        buffer.push(at(start, start + 5))
    buffer.drop_before(12)
    assert buffer.oldest_ns == 10 and buffer.nbytes == 4 * 13
    buffer.drop_before(1000)
    assert buffer.nbytes == 0 and buffer.watermark_ns is None


@given(st.lists(st.integers(0, 50), max_size=40).map(sorted), st.integers(-1, 51),
       st.integers(0, 20),
       st.integers(1, 7))
def test_window_equals_filter(times, t0, length, packet):
    buffer = EventBuffer(10 ** 6)
    for start in range(0, len(times), packet):
        buffer.push(at(*times[start:start + packet]))
    assert buffer.window(t0, t0 + length).t.tolist() == [t for t in times if t0 < t <= t0 + length]
