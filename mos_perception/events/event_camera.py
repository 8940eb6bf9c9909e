"""`event_decoder: event_camera_py`: packets decoded by the ROS package of that name.

Its events come as x, y u16, p i8 {0, 1} and t i32 us, which wraps after 36 minutes.
"""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import EventPacket
from mos_perception.errors import ConfigError, DecodeError
from mos_perception.events.decoder import Decoded, check_stream


def require_event_camera_py() -> None:
    """Raise ConfigError, saying what to install, where event_camera_py cannot be imported."""
    try:
        import event_camera_py  # noqa: F401
    except Exception as error:  # built for another NumPy it raises anything
        raise ConfigError(
            f'event_decoder is event_camera_py, which cannot be imported ({type(error).__name__}: '
            f'{error}): install ros-$ROS_DISTRO-event-camera-py or use event_decoder: native'
        ) from error


class EventCameraPyDecoder:
    """Decodes the packets of one stream, in order, like `decoder.Decoder`.

    What that package does not tell stays unsaid: unknown words are not counted, and a packet
    without events has no time.
    """

    def __init__(self, encoding: str, height: int, width: int) -> None:
        """One encoding and sensor size. Raises DecodeError."""
        check_stream(encoding, height, width)
        self.encoding, self.height, self.width = encoding, height, width
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        from event_camera_py import Decoder

        self._decoder, self._last_us = Decoder(), None

    def decode(self, packet: EventPacket) -> Decoded:
        """The events of the next packet. Raises DecodeError with what the package says."""
        try:
            self._decoder.decode_bytes(
                self.encoding, self.width, self.height, int(packet.time_base),
                np.ascontiguousarray(packet.payload).tobytes())
            found = self._decoder.get_cd_events()
        except Exception as error:  # no class of its own
            self.reset()
            raise DecodeError(f'event_camera_py: {error}') from error
        inside = (found['x'] < self.width) & (found['y'] < self.height)
        outside = len(found) - int(np.count_nonzero(inside))
        found = found[inside] if outside else found
        times = self._unwrap(found['t'])
        timed = len(times) > 0
        return Decoded(
            x=np.ascontiguousarray(found['x']), y=np.ascontiguousarray(found['y']),
            p=found['p'].astype(np.uint8), t_sensor=times,
            first_sensor_ns=int(times.min()) if timed else None,
            last_sensor_ns=int(times.max()) if timed else None,
            out_of_bounds=outside, bad_words=0, truncated=False)

    def _unwrap(self, t: np.ndarray) -> np.ndarray:
        """(E,) i32 us -> int64 ns without wraps: steps are below 2^31 us."""
        if len(t) == 0:
            return np.empty(0, np.int64)
        start = int(t[0]) if self._last_us is None else self._last_us
        steps = np.diff(t.astype(np.int32), prepend=np.int64(start).astype(np.int32))
        times = start + np.cumsum(steps, dtype=np.int64)
        self._last_us = int(times[-1])
        return times * 1000
