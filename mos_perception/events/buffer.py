"""The newest decoded events, bounded in bytes."""

from __future__ import annotations

from collections import deque

from mos_perception.datatypes import Events


class EventBuffer:
    """A queue of whole packets' events in time order. O(1) per push and drop.

    Full, it drops its oldest packets.
    """

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` of event arrays (13 an event); the newest packet stays even if larger."""
        self.max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Forget all events."""
        self._packets: deque[Events] = deque()
        self.nbytes = 0

    @property
    def watermark_ns(self) -> int | None:
        """Time of the newest event held; None: empty."""
        return int(self._packets[-1].t[-1]) if self._packets else None

    @property
    def oldest_ns(self) -> int | None:
        """Time of the oldest event held; None: empty."""
        return int(self._packets[0].t[0]) if self._packets else None

    def push(self, events: Events) -> int:
        """Append one packet's events, none older than those held; returns the packets dropped."""
        if len(events) == 0:
            return 0
        self._packets.append(events)
        self.nbytes += _size(events)
        dropped = 0
        while self.nbytes > self.max_bytes and len(self._packets) > 1:
            self.nbytes -= _size(self._packets.popleft())
            dropped += 1
        return dropped

    def window(self, t0_ns: int, t1_ns: int) -> Events:
        """The events held with `t0 < t <= t1`; nothing is removed."""
        parts = []
        for packet in reversed(self._packets):  # windows are near the newest packets
            if packet.t[-1] <= t0_ns:
                break
            if packet.t[0] <= t1_ns:
                parts.append(packet.between(t0_ns, t1_ns))
        return Events.concatenate(parts[::-1])

    def drop_before(self, t_ns: int) -> None:
        """Forget packets whose newest event is before `t_ns`."""
        while self._packets and self._packets[0].t[-1] < t_ns:
            self.nbytes -= _size(self._packets.popleft())


def _size(events: Events) -> int:
    return events.x.nbytes + events.y.nbytes + events.p.nbytes + events.t.nbytes
