"""Sensor time -> ROS time. The only place where one becomes the other."""

from __future__ import annotations

from collections import deque

import numpy as np

_EVT3_WRAP_NS = (1 << 24) * 1000  # 16.78 s
_DRIFT = 10_000  # the offset may rise 1 ns in this many: 100 ppm, above any camera's crystal
STEP_NS = 100_000_000     # packets later than this are no slow transfer ...
CONFIRM_NS = 400_000_000  # ... once none came earlier for so long: the host's clock was set
FLOOR_NS = 4_000_000_000  # the offset never stays below the least seen in a period this long
DRIFT_PERIODS = 5         # the drift is the least offset's change over so many of these
DRIFT_BOUND_PPM = 200.0   # twice a crystal's: the host's clock is slewed, or one of them is broken


class SensorClock:
    """offset = header stamp - first sensor time of the packet, of which the smallest is the truth.

    A packet's header stamp is the host's time when its first data came in, so it is late by the
    transfer, never early: the running minimum of the offset has the least delay. It may rise by 100
    ppm of the time passed, to follow the drift between two clocks, and to the minimum of each
    period of 4 s, which follows a clock that is slewed (500 ppm: never more than 4 ms behind).
    A host clock that was set forward shows as packets that are all late by more than 0.1 s: after
    0.4 s of stamps and of sensor time (a stalled driver that catches up has little of the first)
    the offset is taken anew. Mapped times never go backwards: when the offset falls, or the
    sensor's time steps back, times are held at the newest one given out until the new mapping has
    caught up. Only the packets and their order matter, so a bag gives the very times the live node
    had.
    """

    def __init__(self, encoding: str) -> None:
        """`encoding` of the stream; the zero of `evt3` time is ambiguous by its 16.78 s wrap."""
        self._encoding = encoding
        self.reset()

    def reset(self) -> None:
        """Forget offset and times."""
        self.offset_ns: int | None = None
        self._last_stamp_ns = 0
        self._newest_ns: int | None = None
        self._start_period(0)

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the host's clock runs than the sensor's, over 20 s; None: not known yet.
        """
        if len(self._floors) <= DRIFT_PERIODS:
            return None
        (first_ns, first), (last_ns, last) = self._floors[0], self._floors[-1]
        return (last - first) / (last_ns - first_ns) * 1e6

    def observe(self, stamp_ns: int, first_sensor_ns: int) -> int:
        """Once per packet, before its times are mapped: header stamp and first sensor time.

        Returns by how many ns the host's clock was found set forward just now; mostly 0.
        """
        stamp_ns, first_sensor_ns = int(stamp_ns), int(first_sensor_ns)
        seen, before = stamp_ns - first_sensor_ns, self.offset_ns
        passed_ns, self._last_stamp_ns = stamp_ns - self._last_stamp_ns, stamp_ns
        if before is None:
            self.offset_ns = seen
            self._start_period(stamp_ns)
            return 0
        risen = before + max(passed_ns, 0) // _DRIFT
        if self._encoding == 'evt3' and seen - risen > _EVT3_WRAP_NS // 2:
            # Wraps passed in a gap between packets and were not counted.
            risen += (seen - risen + _EVT3_WRAP_NS // 2) // _EVT3_WRAP_NS * _EVT3_WRAP_NS
            self._start_period(stamp_ns)
            if risen - seen > STEP_NS:  # a gap is a whole number of wraps: this is none
                self.offset_ns = seen
                return seen - before
        if seen - risen > STEP_NS:
            self.offset_ns = risen
            return self._set_forward(stamp_ns, first_sensor_ns, seen - risen)
        self._late, self.offset_ns = None, min(risen, seen)
        self._raise_to_floor(stamp_ns, seen)
        return 0

    def to_ros(self, sensor_ns: np.ndarray | int) -> np.ndarray | int:
        """ROS time (ns) of sensor times in the order they came: (E,) int64 or int.

        Never before an earlier answer. Before the first `observe` the offset is 0.
        """
        times = np.asarray(sensor_ns, np.int64) + (self.offset_ns or 0)
        flat = times.reshape(-1)
        if flat.size:
            if self._newest_ns is not None and flat[0] < self._newest_ns:
                np.maximum(flat, self._newest_ns, out=flat)
            if (flat[1:] < flat[:-1]).any():
                np.maximum.accumulate(flat, out=flat)
            self._newest_ns = int(flat[-1])
        return times if isinstance(sensor_ns, np.ndarray) else int(flat[0])

    def _set_forward(self, stamp_ns: int, sensor_ns: int, late_ns: int) -> int:
        """Note a packet that is too late; takes the offset anew once all have been for a while."""
        first_stamp, first_sensor, least = self._late or (stamp_ns, sensor_ns, late_ns)
        least = min(least, late_ns)
        self._late = first_stamp, first_sensor, least
        if min(stamp_ns - first_stamp, sensor_ns - first_sensor) < CONFIRM_NS:
            return 0
        self.offset_ns += least
        self._start_period(stamp_ns)
        return least

    def _start_period(self, stamp_ns: int) -> None:
        """Begin to look for the least offset, and for its drift, from here."""
        self._late: tuple[int, int, int] | None = None  # first stamp, sensor time; least lateness
        self._floors: deque[tuple[int, int]] = deque(maxlen=DRIFT_PERIODS + 1)  # stamp, offset
        self._period_ns, self._floor = stamp_ns, None

    def _raise_to_floor(self, stamp_ns: int, seen: int) -> None:
        """Book a packet's offset; at the end of a period, the least one is the offset's floor."""
        self._floor = seen if self._floor is None else min(self._floor, seen)
        if stamp_ns - self._period_ns < FLOOR_NS:
            return
        self.offset_ns = max(self.offset_ns, self._floor)
        self._floors.append((stamp_ns, self._floor))
        self._period_ns, self._floor = stamp_ns, None
