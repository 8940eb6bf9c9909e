"""The event encodings in plain Python, word by word: their documentation, and the decoders' oracle.

Little-endian words:

- `mono` u64: dt 0..31, x 32..47, y 48..62, polarity 63; ns = time_base + dt.
- `libcaer` u32 d, i32 t: x = d >> 17 & 7FFF, y = d >> 2 & 7FFF, polarity = d >> 1 & 1;
  ns = time_base + t * 1000, plus 2^31 us each time t drops inside a packet.
- `libcaer_cmp` u16, code = bits 12..15: 0 TIME_HIGH(12), 1 TIME_LOW(12), 2 ADDR_X(11),
  3 ADDR_Y(11, polarity bit 11; an event), 4 VECT_BASE_Y(11, polarity), 5 VECT_8(mask 8, then
  base += 8); us = time_base / 1000 + (high << 12 | low), where high and low start at 0 in each
  packet. 6 (VECT_12) is defined upstream but never sent: unknown here.
- `evt3` u16: 0 ADDR_Y(11), 2 ADDR_X(11, polarity bit 11; an event), 3 VECT_BASE_X(11, polarity),
  4 VECT_12(mask, then base += 12), 5 VECT_8(mask, then base += 8), 6 TIME_LOW(12),
  8 TIME_HIGH(12); 7, 10, 14, 15 carry no events; the rest is unknown.
  us = (high << 12 | low) + 2^24 * wraps. No event before a TIME_HIGH followed by a TIME_LOW. A
  TIME_HIGH below the last is a wrap only if it is more than 10 smaller. Row, base, polarity and
  time carry over between packets.

(Prophesee EVT 3.0 format description; ros-event-camera/event_camera_codecs.)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Reference:
    """Decodes the packets of one stream.

    After each `decode`: events [(x, y, p, ns)] and the counts of that packet.
    """

    encoding: str
    width: int
    height: int
    events: list[tuple[int, int, int, int]] = field(default_factory=list)
    out_of_bounds: int = 0
    bad_words: int = 0

    def __post_init__(self) -> None:
        self.row = self.column = self.base = self.polarity = 0
        self.high = self.low = self.wraps = self.seen = 0

    def decode(self, payload: bytes, time_base: int = 0) -> list[tuple[int, int, int, int]]:
        """The events of one packet; a last incomplete word is ignored."""
        self.events, self.out_of_bounds, self.bad_words = [], 0, 0
        getattr(self, '_' + self.encoding)(payload, time_base)
        return self.events

    def _emit(self, x: int, y: int, p: int, ns: int) -> None:
        if x < self.width and y < self.height:
            self.events.append((x, y, p, ns))
        else:
            self.out_of_bounds += 1

    def _mono(self, payload: bytes, time_base: int) -> None:
        for (word,) in struct.iter_unpack('<Q', payload[:len(payload) // 8 * 8]):
            ns = time_base + (word & 0xFFFFFFFF)
            self._emit(word >> 32 & 0xFFFF, word >> 48 & 0x7FFF, word >> 63, ns)

    def _libcaer(self, payload: bytes, time_base: int) -> None:
        previous = high = 0
        for d, us in struct.iter_unpack('<Ii', payload[:len(payload) // 8 * 8]):
            us &= 0x7FFFFFFF
            high += (us < previous) << 31
            previous = us
            ns = time_base + (high + us) * 1000
            self._emit(d >> 17 & 0x7FFF, d >> 2 & 0x7FFF, d >> 1 & 1, ns)

    def _libcaer_cmp(self, payload: bytes, time_base: int) -> None:
        high = low = 0
        for (word,) in struct.iter_unpack('<H', payload[:len(payload) // 2 * 2]):
            code, value, bit = word >> 12, word & 0x7FF, word >> 11 & 1
            ns = (time_base // 1000 + (high << 12 | low)) * 1000
            if code == 0:
                high = word & 0xFFF
            elif code == 1:
                low = word & 0xFFF
            elif code == 2:
                self.column = value
            elif code == 3:
                self._emit(self.column, value, bit, ns)
            elif code == 4:
                self.base, self.polarity = value, bit
            elif code == 5:
                for k in range(8):
                    if word >> k & 1:
                        self._emit(self.column, self.base + k, self.polarity, ns)
                self.base += 8
            else:
                self.bad_words += 1

    def _evt3(self, payload: bytes, time_base: int) -> None:
        for (word,) in struct.iter_unpack('<H', payload[:len(payload) // 2 * 2]):
            code, value, bit = word >> 12, word & 0x7FF, word >> 11 & 1
            ns = ((self.wraps << 24) + (self.high << 12 | self.low)) * 1000
            if code == 0:
                self.row = value
            elif code == 2 and self.seen == 2:
                self._emit(value, self.row, bit, ns)
            elif code == 3:
                self.base, self.polarity = value, bit
            elif code in (4, 5):
                size = 12 if code == 4 else 8
                for k in range(size if self.seen == 2 else 0):
                    if word >> k & 1:
                        self._emit(self.base + k, self.row, self.polarity, ns)
                self.base += size
            elif code == 6 and self.seen:
                self.low, self.seen = word & 0xFFF, 2
            elif code == 8:
                high = word & 0xFFF
                self.wraps += bool(self.seen) and high < self.high - 10
                self.high, self.seen = high, max(self.seen, 1)
            elif code in (1, 9, 11, 12, 13):
                self.bad_words += 1
