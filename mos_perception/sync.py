"""Frames x event stream -> synced inputs, joined by event time.

Knows stamps and windows; knows nothing of ROS, bytes or networks. A frame at `t` gets exactly the
events of its window, released when the event stream's watermark passes the window's end, or when
the deadline expires (the window is then LATE or MISSING, and the result DEGRADED, not dropped).

    side 'before'   (t - length, t]   no added latency
    side 'after'    (t, t + length]   as DIMOS trains: one frame period of latency

A gyroscope's samples are waited for likewise, as long as they come.

`now_ns` is any clock that only moves forward while the object lives (steady time in the node,
receive time in a replay); it decides deadlines only. Everything else follows from stamps, so the
same packets give the same windows, live or from a bag.
"""

from __future__ import annotations

from collections import deque

from mos_perception.config import Config
from mos_perception.datatypes import (
    Events,
    EventWindow,
    Frame,
    Skip,
    SkipReason,
    SyncedInput,
    WindowStatus,
)
from mos_perception.engine.card import WindowSpec
from mos_perception.events.buffer import EventBuffer
from mos_perception.motion.gyroscope import Gyroscope

JUMP_BACK_NS = 500_000_000   # a stamp this far behind the last one is a new recording, not disorder
HISTORY_NS = 500_000_000    # events kept behind the watermark for frames that arrive late


class Synchronizer:
    """Joins frames and events.

    `length_ns` > 0 is the window; `tick_ns` the period without frames.
    """

    @classmethod
    def of(cls, config: Config, window: WindowSpec | None,
           gyroscope: Gyroscope | None = None) -> Synchronizer:
        """As the parameters and the model's window ask for; None: the model takes no events.

        `gyroscope` is asked where the parameters name its topic. The one place where seconds
        become ns.
        """
        wants_events = window is not None and bool(config.events_topic)
        window = window or WindowSpec('before', 1.0)
        return cls(side=window.side, length_ns=round(window.length_ms * 1e6),
                   deadline_ns=round(config.deadline_s * 1e9),
                   tick_ns=round(1e9 / config.events_only_rate_hz),
                   max_bytes=config.event_buffer_bytes, frames=bool(config.image_topic),
                   events=wants_events, stale_ns=round(config.stale_after_s * 1e9),
                   gyroscope=gyroscope if config.imu_topic else None,
                   other_camera=config.registration != 'same_pixels')

    def __init__(self, *, side: str, length_ns: int, deadline_ns: int, tick_ns: int, max_bytes: int,
                 frames: bool, events: bool, stale_ns: int,
                 gyroscope: Gyroscope | None = None, other_camera: bool = False) -> None:
        self.side, self.length_ns = side, length_ns
        self.deadline_ns, self.tick_ns, self.stale_ns = deadline_ns, tick_ns, stale_ns
        self._frames, self._events = frames, events
        self._gyroscope = gyroscope
        # events are brought into the frames' view: without a frame, answers are in its pixels too
        self._other_camera = other_camera
        self.buffer = EventBuffer(max_bytes)
        self.events_in = 0  # since the start, over all epochs
        self.ticks = 0      # inputs without a frame, likewise
        self._forgotten = 0
        self._waiting: deque[tuple[Frame, int]] = deque()
        self.epoch = -1
        self.reset()

    def configure(self, config: Config) -> None:
        """Take the live parameters `deadline_s` and `stale_after_s`."""
        self.deadline_ns = round(config.deadline_s * 1e9)
        self.stale_ns = round(config.stale_after_s * 1e9)

    def reset(self, held: int = 0) -> None:
        """Forget frames, events and gaps; the epoch grows by one.

        The frames that waited here, and `held` that waited elsewhere, are a Skip of the next push.
        """
        self.epoch += 1
        self._forgotten += len(self._waiting) + held
        self.buffer.reset()
        self._waiting.clear()
        self._gaps: deque[tuple[int, int, int]] = deque()
        self._watermark_ns: int | None = None
        self._last_frame_ns: int | None = None
        self._next_tick_ns: int | None = None
        self._frame_size: tuple[int, int] | None = None
        self._sensor_size: tuple[int, int] | None = None
        self._sensor_frame_id = self._frame_id = ''
        self._silent = False
        self._decode_ms = 0.0
        self._kept_from_ns = -(1 << 62)  # events before this have been dropped

    @property
    def watermark_ns(self) -> int | None:
        """The newest event time seen; all events up to it have arrived."""
        return self._watermark_ns

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(height, width) of the frames; None before the first."""
        return self._frame_size

    @property
    def last_stamp_ns(self) -> int | None:
        """The newest stamp seen, of a frame or of the events."""
        return max(
            (stamp for stamp in (self._watermark_ns, self._last_frame_ns) if stamp is not None),
            default=None,
        )

    @property
    def waiting(self) -> bool:
        """True while a frame waits for its events."""
        return bool(self._waiting)

    @property
    def due_ns(self) -> int | None:
        """When the oldest waiting frame's deadline passes, on the clock of `now_ns`; None: no frame
        waits.
        """
        return self._waiting[0][1] + self.deadline_ns if self._waiting else None

    def report(self) -> dict[str, int]:
        """What `/diagnostics` says of it."""
        return {'total events decoded': self.events_in, 'total inputs without frame': self.ticks,
                'event buffer bytes': self.buffer.nbytes}

    def jumped_back(self, stamp_ns: int, last_ns: int | None) -> bool:
        """True when a stamp says that time started anew (bag loop, restarted driver)."""
        return last_ns is not None and stamp_ns < last_ns - JUMP_BACK_NS

    def frame_jumped_back(self, stamp_ns: int) -> bool:
        """`jumped_back` against the last accepted frame."""
        return self.jumped_back(stamp_ns, self._last_frame_ns)

    def push_events(
        self,
        events: Events,
        watermark_ns: int | None,
        size: tuple[int, int],
        lost: int,
        frame_id: str = '',
        decode_ms: float = 0.0,
    ) -> list[Skip]:
        """Take one decoded packet: its events, the time it reached, `lost` packets missing before
        it.

        `decode_ms`, what decoding took, is booked on the next input that is released.
        """
        self._decode_ms += decode_ms
        self.events_in += len(events)
        self._sensor_size, self._sensor_frame_id = size, frame_id
        self._silent = False
        before = self._watermark_ns
        if watermark_ns is not None:
            self._watermark_ns = watermark_ns if before is None else max(before, watermark_ns)
        if lost and self._watermark_ns is not None:
            self._gaps.append(
                (before if before is not None else self._watermark_ns, self._watermark_ns, lost)
            )
        dropped = self.buffer.push(events) if len(events) else 0
        self._trim()
        if dropped:
            self._kept_from_ns = max(self._kept_from_ns, self.buffer.oldest_ns)
        # What went beyond the window of the next frame is history for late ones, and no loss yet.
        if dropped and self._kept_from_ns > self._needed_from_ns():
            return self._said() + [
                Skip(
                    SkipReason.BUFFER_FULL,
                    self._watermark_ns or 0,
                    f'buffer of {self.buffer.max_bytes} bytes is full: oldest packets dropped',
                    dropped,
                )
            ]
        return self._said()

    def push_frame(self, frame: Frame, now_ns: int) -> list[Skip]:
        """Take one frame; refuses other sizes than the first, and stamps that do not move forward.
        """
        self._frame_size = self._frame_size or frame.size
        if frame.size != self._frame_size:
            return self._said() + [
                Skip(
                    SkipReason.SIZE_CHANGED,
                    frame.stamp_ns,
                    f'frame is {frame.size}, the first '
                    f'was {self._frame_size}: reset the node to change size',
                )
            ]
        last = self._last_frame_ns
        if last is not None and frame.stamp_ns <= last:
            reason = SkipReason.DUPLICATE if frame.stamp_ns == last else SkipReason.OUT_OF_ORDER
            return self._said() + [
                Skip(reason, frame.stamp_ns, f'frame stamp {frame.stamp_ns} after {last}')]
        self._last_frame_ns, self._frame_id = frame.stamp_ns, frame.frame_id
        self._next_tick_ns = None
        self._waiting.append((frame, now_ns))
        return self._said()

    def _said(self) -> list[Skip]:
        """The frames that a reset made void since the last push."""
        count, self._forgotten = self._forgotten, 0
        why = 'these waited for their events, or for later frames, when everything was reset'
        return [Skip(SkipReason.RESET, 0, why, count)] if count else []

    def ready(self, now_ns: int) -> list[SyncedInput]:
        """The inputs whose window is complete or whose deadline has passed, oldest first."""
        samples = []
        while self._waiting:
            frame, arrived_ns = self._waiting[0]
            expired = now_ns - arrived_ns >= self.deadline_ns
            status = self._status(frame.stamp_ns, expired)
            if status is None or not expired and self._gyroscope_behind(frame.stamp_ns):
                break
            self._waiting.popleft()
            samples.append(self._join(frame.stamp_ns, frame, status, (now_ns - arrived_ns) / 1e6))
        return samples + self._ticks()

    def flush(self) -> list[SyncedInput]:
        """End of the input: release every waiting frame with what has arrived."""
        samples = []
        while self._waiting:
            frame, _ = self._waiting.popleft()
            samples.append(
                self._join(frame.stamp_ns, frame, self._status(frame.stamp_ns, True), 0.0)
            )
        return samples + self._ticks()

    def void(self, sample: SyncedInput) -> Skip | None:
        """A Skip for an input that was made before the last reset; None for one that still counts.
        """
        if sample.epoch == self.epoch:
            return None
        return Skip(SkipReason.RESET, sample.stamp_ns, 'the clock was reset meanwhile')

    def edges(self, stamp_ns: int) -> tuple[int, int]:
        """(t0, t1) of the window of a frame."""
        if self.side == 'before':
            return stamp_ns - self.length_ns, stamp_ns
        return stamp_ns, stamp_ns + self.length_ns

    def _status(self, stamp_ns: int, expired: bool) -> WindowStatus | None:
        """How complete the window of a frame is now; None: keep waiting."""
        t0, t1 = self.edges(stamp_ns)
        if not self._events:
            return WindowStatus.MISSING
        if self._watermark_ns is not None and self._watermark_ns >= t1:
            return WindowStatus.COMPLETE if t0 >= self._kept_from_ns else WindowStatus.LATE
        if not expired and not self._silent:
            return None
        if self._watermark_ns is not None and self._watermark_ns > t0:
            return WindowStatus.LATE
        # The deadline was paid once: until a packet comes, later frames need not pay it again.
        self._silent = True
        return WindowStatus.MISSING

    def _gyroscope_behind(self, stamp_ns: int) -> bool:
        """Whether the gyroscope's samples of the window of a frame are still to come."""
        return self._gyroscope is not None and self._gyroscope.behind(
            self.edges(stamp_ns)[1], self._watermark_ns)

    def _join(
        self, stamp_ns: int, frame: Frame | None, status: WindowStatus, waited_ms: float
    ) -> SyncedInput:
        window = motion = None
        if status is not WindowStatus.MISSING and self._sensor_size is not None:
            t0, t1 = self.edges(stamp_ns)
            lost = sum(count for first, last, count in self._gaps if last > t0 and first < t1)
            window = EventWindow(
                self.buffer.window(t0, t1), t0, t1, *self._sensor_size, status, lost
            )
            if self._gyroscope is not None:
                motion = self._gyroscope.motion(t0, t1, self._sensor_size)
        size, frame_id = self._sensor_size, self._sensor_frame_id
        if frame is not None:
            size, frame_id = frame.size, frame.frame_id
        elif self._other_camera and self._frame_size is not None:
            size, frame_id = self._frame_size, self._frame_id
        decode_ms, self._decode_ms = self._decode_ms, 0.0
        return SyncedInput(
            stamp_ns, frame_id, frame, window, size, waited_ms, decode_ms, self.epoch,
            event_motion=motion,
        )

    def _ticks(self) -> list[SyncedInput]:
        """Inputs without frames: at a fixed rate of event time where no frames come."""
        mark = self._watermark_ns
        if mark is None or not self._events or self._waiting:
            return []
        if self._next_tick_ns is None:
            last = self._last_frame_ns
            quiet_from = (
                mark if not self._frames else (last if last is not None else mark) + self.stale_ns
            )
            self._next_tick_ns = quiet_from + self.tick_ns
        if mark - self._next_tick_ns > HISTORY_NS:
            # After a pause: no burst of empty results, and the frame of this packet may yet come.
            self._next_tick_ns = mark + self.tick_ns
        samples = []
        while (self.edges(self._next_tick_ns)[1] <= mark
               and not self._gyroscope_behind(self._next_tick_ns)):
            samples.append(self._join(self._next_tick_ns, None, WindowStatus.COMPLETE, 0.0))
            self.ticks += 1
            self._last_frame_ns = self._next_tick_ns if self._frames else None
            self._next_tick_ns += self.tick_ns
        return samples

    def _needed_from_ns(self) -> int:
        """Where the window begins of the frame that waits, or of one that came now."""
        now = (self._watermark_ns or 0) - self.length_ns
        return min(now, self.edges(self._waiting[0][0].stamp_ns)[0]) if self._waiting else now

    def _trim(self) -> None:
        """Drop events and gaps no later window can ask for."""
        if self._watermark_ns is None:
            return
        oldest = self._watermark_ns - self.length_ns - HISTORY_NS
        oldest = min(oldest, self._needed_from_ns())
        self.buffer.drop_before(oldest)
        self._kept_from_ns = max(self._kept_from_ns, oldest)
        while self._gaps and self._gaps[0][1] < oldest:
            self._gaps.popleft()
