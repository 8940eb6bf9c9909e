"""Event packets -> events: decoding, counting what is wrong, mapping to ROS time."""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.datatypes import EventPacket, Events, Skip, SkipReason
from mos_perception.errors import DecodeError
from mos_perception.events import event_camera
from mos_perception.events.clock import DRIFT_BOUND_PPM, SensorClock
from mos_perception.events.decoder import WORD_BYTES, Decoded, Decoder

MAX_TIME_BASE = 1 << 62  # ns; int64 holds the sums


class EventStream:
    """One camera's packets in order -> events in ROS time, the watermark, and what was lost.

    Never raises.
    The watermark is 1 ns below the newest time seen, because more events of that very time may
    still come: no later packet gives an event at or before it.
    """

    def __init__(self, decoder: str = 'native') -> None:
        """`decoder` as `Config.event_decoder`.

        Raises ConfigError when its package is not here.
        """
        self._decoder_class: Any = Decoder
        if decoder == 'event_camera_py':
            event_camera.require_event_camera_py()
            self._decoder_class = event_camera.EventCameraPyDecoder
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next packet may have another encoding and size."""
        self._decoder: Any = None
        self._clock: SensorClock | None = None
        self._size: tuple[int, int] | None = None
        self._seq: int | None = None
        self.last_ns: int | None = None  # stamp of the newest packet, or of its last event

    def clock_report(self) -> dict[str, Any]:
        """ROS time minus sensor time, and how they drift apart; None: not known yet."""
        offset, drift = (None, None) if self._clock is None else (
            self._clock.offset_ns, self._clock.drift_ppm)
        return {'event clock offset ns': offset,
                'event clock drift ppm': None if drift is None else round(drift)}

    def push(self, packet: EventPacket) -> tuple[Events, int | None, list[Skip]]:
        """(events, watermark or None, skips) of the next packet.

        A gap in `seq` is counted and decoding goes on.
        """
        skips, self.last_ns = self._gap(packet.seq, packet.stamp_ns), packet.stamp_ns
        if self._decoder is None:
            try:
                self._decoder = self._decoder_class(packet.encoding, packet.height, packet.width)
            except DecodeError as error:
                return Events.empty(), None, [*skips, _bad(packet, str(error))]
            self._size = (packet.height, packet.width)
            self._clock = SensorClock(packet.encoding)
        refused = self._changed(packet)
        if refused is not None:
            return Events.empty(), None, [*skips, refused]
        if not 0 <= packet.time_base < MAX_TIME_BASE:
            refused = _bad(packet, f'time_base is {packet.time_base} ns: must be within [0, 2^62)')
            return Events.empty(), None, [*skips, refused]
        try:
            decoded = self._decoder.decode(packet)
        except DecodeError as error:
            return Events.empty(), None, [*skips, _bad(packet, str(error))]
        skips += _damage(decoded, packet)
        if decoded.first_sensor_ns is not None:
            skips += self._observe(packet.stamp_ns, decoded.first_sensor_ns)
        times_ns = self._clock.to_ros(decoded.t_sensor)
        events, watermark = Events(decoded.x, decoded.y, decoded.p, times_ns), None
        if decoded.last_sensor_ns is not None:
            watermark = self._clock.to_ros(decoded.last_sensor_ns) - 1
        return events, watermark, skips

    def push_events(self, events: Events, height: int, width: int,
                    seq: int | None = None) -> tuple[Events, int | None, list[Skip]]:
        """The same for events that came decoded, already in ROS time (`dvs_msgs/EventArray`)."""
        stamp = int(events.t[0]) if len(events) else 0
        self.last_ns = int(events.t[-1]) if len(events) else self.last_ns
        skips = [] if seq is None else self._gap(seq, stamp)
        if self._size is None:
            self._size, self._clock = (height, width), SensorClock('ros')
        if (height, width) != self._size:
            return Events.empty(), None, [*skips, _size_skip(stamp, (height, width), self._size)]
        inside = (events.x < width) & (events.y < height)
        outside = len(events) - int(np.count_nonzero(inside))
        if outside:
            events = Events(events.x[inside], events.y[inside], events.p[inside], events.t[inside])
            skips.append(_outside_skip(stamp, (height, width), outside))
        if len(events) == 0:
            return events, None, skips
        events = Events(events.x, events.y, events.p, self._clock.to_ros(events.t))
        return events, int(events.t[-1]) - 1, skips

    def _gap(self, seq: int, stamp_ns: int) -> list[Skip]:
        last, self._seq = self._seq, seq
        # A lower number is a new stream: stamps tell when to reset.
        if last is None or seq <= last + 1:
            return []
        return [Skip(SkipReason.PACKET_GAP, stamp_ns,
                     f'packets {last + 1}..{seq - 1} did not arrive', seq - last - 1)]

    def _observe(self, stamp_ns: int, first_sensor_ns: int) -> list[Skip]:
        """Show the clock a packet; what it found of the host's clock."""
        known, step_ns = self._clock.drift_ppm, self._clock.observe(stamp_ns, first_sensor_ns)
        if step_ns:
            return [Skip(SkipReason.CLOCK_STEP, stamp_ns,
                         f"the host's clock was set forward by {step_ns / 1e9:.2f} s against the "
                         "event camera's: event times taken anew; let the time service slew "
                         'instead of step')]
        drift = self._clock.drift_ppm
        if drift is None or drift == known or abs(drift) <= DRIFT_BOUND_PPM:
            return []
        return [Skip(SkipReason.CLOCK_DRIFT, stamp_ns,
                     f"the host's clock gains {drift:.0f} ppm on the event camera's: beyond "
                     f'{DRIFT_BOUND_PPM:.0f} ppm events may be some ms early; is the time service '
                     'slewing, or the camera overloaded?')]

    def _changed(self, packet: EventPacket) -> Skip | None:
        if packet.encoding != self._decoder.encoding:
            return Skip(SkipReason.ENCODING_CHANGED, packet.stamp_ns,
                        f'encoding is {packet.encoding!r}, the first was '
                        f'{self._decoder.encoding!r}: reset the node to change it')
        if (packet.height, packet.width) != self._size:
            return _size_skip(packet.stamp_ns, (packet.height, packet.width), self._size)
        return None


def _damage(decoded: Decoded, packet: EventPacket) -> list[Skip]:
    """What one packet had to leave out."""
    skips = []
    if decoded.bad_words:
        skips.append(_bad(packet, f'{decoded.bad_words} unknown {packet.encoding} words skipped, '
                                  'the rest kept'))
    if decoded.truncated:
        skips.append(_bad(packet, f'{len(packet.payload)} bytes are no whole number of '
                                  f'{WORD_BYTES[packet.encoding]}-byte words: the last was '
                                  'ignored, the rest kept'))
    if decoded.out_of_bounds:
        skips.append(_outside_skip(packet.stamp_ns, (packet.height, packet.width),
                                   decoded.out_of_bounds))
    return skips


def _bad(packet: EventPacket, detail: str) -> Skip:
    return Skip(SkipReason.BAD_PACKET, packet.stamp_ns, detail)


def _outside_skip(stamp_ns: int, size: tuple[int, int], count: int) -> Skip:
    return Skip(SkipReason.OUT_OF_BOUNDS, stamp_ns,
                f'events outside {size[1]} x {size[0]} px dropped', count)


def _size_skip(stamp_ns: int, size: tuple[int, int], first: tuple[int, int]) -> Skip:
    return Skip(SkipReason.SIZE_CHANGED, stamp_ns,
                f'sensor is (height, width) {size}, the first was {first}: reset the node to '
                'change it')


def refused(skips: list[Skip]) -> bool:
    """Whether a packet was refused as a whole: its sensor size or encoding is another, or it cannot
    be registered.
    """
    changes = SkipReason.SIZE_CHANGED, SkipReason.ENCODING_CHANGED, SkipReason.UNREGISTERED
    return any(skip.reason in changes for skip in skips)


def packets_lost(skips: list[Skip]) -> int:
    """How many packets were missing before one, by its sequence number.

    One more after a step of the clock: those before it lie at a wrong time.
    """
    missing = SkipReason.PACKET_GAP, SkipReason.CLOCK_STEP
    return sum(skip.count for skip in skips if skip.reason in missing)
