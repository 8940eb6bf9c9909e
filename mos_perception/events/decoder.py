"""The native decoder: the packets of one stream, compiled loops around the encodings' state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mos_perception.datatypes import EventPacket
from mos_perception.errors import DecodeError
from mos_perception.events import evt3, libcaer
from mos_perception.events.arrays import EventArrays, read_only
from mos_perception.events.libcaer import PacketCounts

WORD_BYTES = {'evt3': 2, 'libcaer_cmp': 2, 'libcaer': 8, 'mono': 8}
MAX_SIDE = 16384


@dataclass(frozen=True)
class Decoded:
    """One packet's events: x, y, p (E,) as in Events; `t_sensor` (E,) int64 ns, unwrapped.

    `first_sensor_ns`, `last_sensor_ns`: oldest and newest time in the packet, known even without
    events, None where it has no time; `out_of_bounds` events dropped; `bad_words` skipped;
    `truncated`: a last incomplete word was ignored.
    """

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t_sensor: np.ndarray
    first_sensor_ns: int | None
    last_sensor_ns: int | None
    out_of_bounds: int
    bad_words: int
    truncated: bool


def check_stream(encoding: str, height: int, width: int) -> None:
    """Raise DecodeError for an encoding or a sensor size that cannot be decoded."""
    if encoding not in WORD_BYTES:
        raise DecodeError(f'event encoding is {encoding!r}: set the driver to one of '
                          f'{", ".join(WORD_BYTES)}')
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise DecodeError(f'sensor size is {width} x {height} px: sides must be within '
                          f'[1, {MAX_SIDE}]')


class Decoder:
    """Decodes the packets of one stream, in order. Compiled, releases the GIL."""

    def __init__(self, encoding: str, height: int, width: int) -> None:
        """One encoding and sensor size. Raises DecodeError."""
        check_stream(encoding, height, width)
        self.encoding, self.height, self.width = encoding, height, width
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._state = np.zeros(evt3.STATE_SIZE, np.int64)

    def decode(self, packet: EventPacket) -> Decoded:
        """The events of the next packet. Damage costs its words and is counted; nothing raises."""
        word_bytes = WORD_BYTES[self.encoding]
        whole = len(packet.payload) // word_bytes * word_bytes
        payload = np.ascontiguousarray(packet.payload[:whole])
        kind = np.uint16 if word_bytes == 2 else np.uint64
        words = read_only(payload.view(kind), kind)
        if self.encoding == 'evt3':
            events, counts = self._evt3(words)
        else:
            events, counts = self._libcaer(words, int(packet.time_base))
        events, timed = events.first(counts.kept), counts.first_ns >= 0
        return Decoded(
            x=events.x, y=events.y, p=events.p, t_sensor=events.t,
            first_sensor_ns=counts.first_ns if timed else None,
            last_sensor_ns=counts.last_ns if timed else None,
            out_of_bounds=counts.found - counts.kept, bad_words=counts.bad_words,
            truncated=whole != len(packet.payload))

    def _evt3(self, words: np.ndarray) -> tuple[EventArrays, PacketCounts]:
        if self._state[evt3.READY] == 2:
            bad_before = 0
            first_ns = evt3.seek_time(words, self._state.copy()).time_ns
        else:
            skipped, bad_before, first_ns = evt3.seek_time(words, self._state)
            words = words[skipped:]
        found = evt3.count_evt3(words)
        events = EventArrays.allocate(found + evt3.SLACK)
        if self._state[evt3.READY] < 2:
            return events, PacketCounts(0, 0, bad_before, -1, -1)
        kept, bad, last_ns = evt3.decode_evt3(
            words, self.width, self.height, self._state, events)
        return events, PacketCounts(kept, found, bad_before + bad, first_ns, last_ns)

    def _libcaer(self, words: np.ndarray, time_base: int) -> tuple[EventArrays, PacketCounts]:
        size = self.width, self.height
        if self.encoding == 'libcaer_cmp':
            events = EventArrays.allocate(8 * len(words) + 8)
            return events, libcaer.decode_libcaer_cmp(words, *size, time_base, events, self._state)
        events = EventArrays.allocate(len(words))
        loop = libcaer.decode_mono if self.encoding == 'mono' else libcaer.decode_libcaer
        return events, loop(words, *size, time_base, events)
