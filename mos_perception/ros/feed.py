"""Between the node's callbacks and the pipeline: what comes in, what waits, what is counted. No
messages here.

    executor thread   `take`: convert, decode, join; never infers
    worker thread     newest input -> `Pipeline.process` -> publish; also wakes for deadlines

`take` and the worker's `_infer` are the boundaries where every exception ends: counted, logged, and
the next input is processed. Times are steady nanoseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mos_perception.config import Config
from mos_perception.datatypes import Fault, Result, Skip, SkipReason, SyncedInput
from mos_perception.errors import MosError
from mos_perception.pipeline import Pipeline
from mos_perception.ros.diagnostics import Monitor
from mos_perception.ros.worker import Worker

Push = Callable[[Pipeline, int], tuple[list[Skip], list[SyncedInput]]]
# what comes in, by role -> how it is counted where it is refused
_REFUSED = {'frames': SkipReason.BAD_FRAME, 'events': SkipReason.BAD_PACKET,
            'imu': SkipReason.BAD_IMU, 'camera_info': SkipReason.BAD_CAMERA_INFO,
            'image_camera_info': SkipReason.BAD_CAMERA_INFO,
            'tf_static': SkipReason.BAD_CAMERA_INFO}


def one_line(error: Exception) -> str:
    """Our own errors as they are, others with their type; never more than one line."""
    return (
        str(error)
        if isinstance(error, MosError)
        else f'{type(error).__name__}: {error}'.replace('\n', ' ')
    )


class Feed:
    """Feeds one pipeline while the node is active."""

    def __init__(
        self,
        pipeline: Pipeline,
        monitor: Monitor,
        wanted: Callable[[], bool],
        publish: Callable[[SyncedInput, Result], None],
        warn: Callable[[str, str], None],
        give_up: Callable[[str], None],
    ) -> None:
        """`wanted()`: does anybody listen; `publish` runs in the worker; `warn(key, text)`
        throttles by key; `give_up(reason)`, called by the worker, must end the process.
        """
        self._pipeline, self._monitor = pipeline, monitor
        self._wanted, self._publish, self._warn = wanted, publish, warn
        self._give_up = give_up
        self._given_up = False
        self._lock = threading.Lock()  # pushes, and what resets or changes the pipeline
        self._worker = Worker(self._infer, self._on_deadline)

    def take(self, role: str, push: Push) -> None:
        """Count one message of a role ('frames', 'events', ...) and push it. Never raises."""
        now = time.monotonic_ns()
        self._monitor.received(role, now)
        try:
            with self._lock:
                skips, samples = push(self._pipeline, now)
                self._worker.wake_at(self._pipeline.sync.due_ns)
            for skip in skips:
                self.skip(skip)
            self._offer(samples)
        except MosError as error:
            self.skip(Skip(_REFUSED[role], 0, str(error)))
        except Exception as error:
            self._monitor.raised()
            self._warn('exception', f'{role}: {one_line(error)}')

    def reset(self) -> int:
        """Forget the past, count what waited; returns the new epoch."""
        with self._lock:
            older = self._worker.take()
            epoch = self._pipeline.reset()
            self._worker.wake_at(None)
        if older is not None:
            self.skip(Skip(SkipReason.RESET, older.stamp_ns))
        return epoch

    def jumped_to(self, now_ns: int) -> int | None:
        """ROS time jumped back to `now_ns`: reset, unless the stamps said so first.

        Returns the new epoch or None.
        """
        last = self._pipeline.sync.last_stamp_ns
        return self.reset() if last is not None and last > now_ns else None

    def update(self, config: Config) -> None:
        """Take changed live parameters."""
        with self._lock:
            self._pipeline.update(config)

    def close(self) -> bool:
        """Stop after the inference in work; False if it does not end in time."""
        return self._worker.stop()

    def lost(self, role: str, count: int) -> None:
        """Count messages that were published but never reached us."""
        self._monitor.lost(role, count)
        self._warn(
            f'lost_{role}',
            f'{count} {role} lost before the node: the machine is overloaded, or the network '
            'drops them (input_reliable, input_depth)',
        )

    def skip(self, skip: Skip) -> None:
        """Count an input that gave no result."""
        self._monitor.skipped(skip)
        if skip.reason is not SkipReason.NO_SUBSCRIBER:
            self._warn(
                skip.reason.value, f'{skip.reason.value}: {skip.detail or f"frame {skip.stamp_ns}"}'
            )

    def _on_deadline(self) -> None:
        """A frame has waited long enough: hand over what is ready, and wake again for the next."""
        try:
            with self._lock:
                samples = self._pipeline.ready(time.monotonic_ns())
                self._worker.wake_at(self._pipeline.sync.due_ns)
            self._offer(samples)
        except Exception as error:
            self._monitor.raised()
            self._warn('exception', f'deadline: {one_line(error)}')

    def _offer(self, samples: list[SyncedInput]) -> None:
        for sample in samples:
            if not self._wanted():
                self.skip(Skip(SkipReason.NO_SUBSCRIBER, sample.stamp_ns))
            elif (older := self._worker.offer(sample)) is not None:
                self.skip(Skip(SkipReason.NEWER_FRAME, older.stamp_ns))

    def _infer(self, sample: SyncedInput) -> None:
        try:
            if self._given_up:  # no inference can work any more
                return
            if sample.epoch != self._pipeline.epoch:
                self.skip(Skip(SkipReason.RESET, sample.stamp_ns))
                return
            outcome = self._pipeline.process(sample)
            if isinstance(outcome, Result):
                start = time.perf_counter()
                self._publish(sample, outcome)
                self._monitor.published(outcome, {'publish': (time.perf_counter() - start) * 1e3})
            elif isinstance(outcome, Fault):
                self._monitor.failed(outcome)
                self._warn('fault', f'inference failed: {outcome.message}')
                if outcome.final:
                    self._given_up = True
                    self._give_up(outcome.message)
            else:
                self.skip(outcome)
        except Exception as error:
            self._monitor.raised()
            self._warn('exception', f'inference: {one_line(error)}')
