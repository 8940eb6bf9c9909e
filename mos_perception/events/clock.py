"""Sensor time -> ROS time. The only place where one becomes the other."""

from __future__ import annotations

import numpy as np

_EVT3_WRAP_NS = (1 << 24) * 1000  # 16.78 s
_DRIFT = 10_000  # the offset may rise 1 ns in this many: 100 ppm, above any camera's crystal


class SensorClock:
    """offset = header stamp - first sensor time of the packet, of which the smallest is the truth.

    A packet's header stamp is the host's time when its first data came in, so it is late by the
    transfer, never early: the running minimum of the offset has the least delay. It may rise by 100
    ppm of the time passed, to follow the drift between two clocks. Mapped times never go backwards:
    when the offset falls, or the sensor's time steps back, times are held at the newest one given
    out until the new mapping has caught up. Only the packets and their order matter, so a bag gives
    the very times the live node had.
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

    def observe(self, stamp_ns: int, first_sensor_ns: int) -> None:
        """Once per packet, before its times are mapped: header stamp and first sensor time."""
        seen = int(stamp_ns) - int(first_sensor_ns)
        if self.offset_ns is None:
            self.offset_ns = seen
        else:
            risen = self.offset_ns + max(int(stamp_ns) - self._last_stamp_ns, 0) // _DRIFT
            if self._encoding == 'evt3' and seen - risen > _EVT3_WRAP_NS // 2:
                # Wraps passed in a gap between packets and were not counted.
                risen += (seen - risen + _EVT3_WRAP_NS // 2) // _EVT3_WRAP_NS * _EVT3_WRAP_NS
            self.offset_ns = min(risen, seen)
        self._last_stamp_ns = int(stamp_ns)

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
