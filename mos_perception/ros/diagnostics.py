"""Health of the node: counts, rates, stage times and one state, as `diagnostic_msgs`.

    OK        results come, from everything configured; or nobody listens
    DEGRADED  results come, from less than configured; or some inputs are refused; or results wait
    STALE     no fresh input at all
    FAULT     inference fails, or inputs come and all are refused

The stage `stamp_to_publish` is ROS time between a result's stamp and its publication: what a robot
waits, exposure and transport included.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from enum import Enum
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mos_perception.datatypes import Fault, Result, Skip, SkipReason

HISTORY = 300          # results over which the percentiles go
FAULTS_IN_A_ROW = 3    # failed inferences before the state is FAULT
# inputs that were refused for what they are, not for when they came
_REFUSALS = (SkipReason.BAD_FRAME, SkipReason.BAD_PACKET, SkipReason.SIZE_CHANGED,
             SkipReason.ENCODING_CHANGED, SkipReason.OUT_OF_ORDER)
# inputs that results can be made without
_SIDE_REFUSALS = (SkipReason.BAD_IMU, SkipReason.BAD_CAMERA_INFO, SkipReason.UNREGISTERED)


class State(str, Enum):
    """Of the node as a whole."""

    OK = 'OK'
    DEGRADED = 'DEGRADED'
    STALE = 'STALE'
    FAULT = 'FAULT'


_LEVEL = {
    State.OK: DiagnosticStatus.OK,
    State.DEGRADED: DiagnosticStatus.WARN,
    State.STALE: DiagnosticStatus.STALE,
    State.FAULT: DiagnosticStatus.ERROR,
}


class Monitor:
    """Books what comes in and goes out; any thread may call. Times are steady nanoseconds."""

    def __init__(self, inputs: dict[str, str], stale_ns: int) -> None:
        """`inputs` maps a role ('frames', 'events', 'imu') to its topic."""
        self.stale_ns = stale_ns
        self._inputs = inputs
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._totals: Counter[str] = Counter()
        self._skips: Counter[str] = Counter()
        self._stages: dict[str, deque[float]] = {}
        self._faults_in_a_row = 0
        self._last_fault = self._degraded = ''
        self._troubles = 0
        self._refused = ''              # the last refusal since the last report
        self._refused_since_result = ''
        self._waiting_ns: int | None = None  # since when inputs come without a result
        self._period_start: tuple[int, Counter[str]] | None = None

    def received(self, role: str, now_ns: int) -> None:
        """One message of an input arrived."""
        with self._lock:
            self._seen[role] = now_ns
            self._totals[role] += 1
            if self._waiting_ns is None and role in ('frames', 'events'):
                self._waiting_ns = now_ns

    def skipped(self, skip: Skip) -> None:
        """One input gave no result."""
        with self._lock:
            self._skips[skip.reason.value] += skip.count
            if skip.reason is SkipReason.NO_SUBSCRIBER:
                self._waiting_ns, self._refused_since_result = None, ''
            elif skip.reason in _REFUSALS + _SIDE_REFUSALS:
                self._refused = f'{skip.reason.value}: {skip.detail}'.rstrip(': ')
                if skip.reason in _REFUSALS:
                    self._refused_since_result = self._refused

    def lost(self, role: str, count: int) -> None:
        """Messages of an input were published but never arrived."""
        with self._lock:
            self._skips[f'lost_{role}'] += count

    def raised(self) -> None:
        """A callback raised something unforeseen; the message is lost."""
        with self._lock:
            self._skips['exception'] += 1
            self._troubles += 1

    def failed(self, fault: Fault) -> None:
        """One inference failed."""
        with self._lock:
            self._totals['faults'] += 1
            self._faults_in_a_row += 1
            self._last_fault = fault.message

    def published(self, result: Result, extra_ms: dict[str, float]) -> None:
        """One result went out; `extra_ms` holds stages after the pipeline."""
        with self._lock:
            self._totals['results'] += 1
            self._faults_in_a_row = 0
            self._degraded = result.degraded
            self._waiting_ns, self._refused_since_result = None, ''
            for name, value in {**result.stage_ms, **extra_ms}.items():
                self._stages.setdefault(name, deque(maxlen=HISTORY)).append(value)

    def took(self, stage: str, nanoseconds: int) -> None:
        """A stage outside the pipeline took so long."""
        with self._lock:
            self._stages.setdefault(stage, deque(maxlen=HISTORY)).append(nanoseconds / 1e6)

    def counts(self) -> dict[str, int]:
        """All counters by name."""
        with self._lock:
            return {**self._totals, **self._skips}

    def state(self, now_ns: int) -> tuple[State, str]:
        """The state and the reason for it."""
        with self._lock:
            return self._state(now_ns)

    def _state(self, now_ns: int) -> tuple[State, str]:
        if self._faults_in_a_row >= FAULTS_IN_A_ROW:
            return State.FAULT, self._last_fault
        silent = {role: topic for role, topic in self._inputs.items()
                  if now_ns - self._seen.get(role, -1 << 62) > self.stale_ns}
        missing = f'nothing on {", ".join(silent.values())}'
        if silent and not self._inputs.keys() - silent.keys() - {'imu'}:
            advice = ': is the driver running, and does its QoS match (input_reliable)?'
            return State.STALE, missing + ('' if silent.keys() & self._seen.keys() else advice)
        if self._faults_in_a_row or self._troubles:
            self._troubles = 0
            return State.DEGRADED, self._last_fault or 'an input raised an exception, see the log'
        waited_ns = 0 if self._waiting_ns is None else now_ns - self._waiting_ns
        if waited_ns > self.stale_ns and self._refused_since_result:
            return State.FAULT, f'every input is refused, the last: {self._refused_since_result}'
        if waited_ns > self.stale_ns:
            why = missing if silent else 'inference is slow, or the model waits for frames'
            return State.DEGRADED, f'no result for {waited_ns / 1e9:.1f} s: {why}'
        if silent:
            lacking = {'frames': 'events only', 'events': 'frames only',
                       'imu': 'no rotation of the camera'}
            return State.DEGRADED, f'{missing}: ' + ', '.join(lacking[role] for role in silent)
        if self._refused:
            return State.DEGRADED, f'some inputs are refused, the last: {self._refused}'
        return (State.DEGRADED, self._degraded) if self._degraded else (State.OK, 'ok')

    def message(self, name: str, now_ns: int, facts: dict[str, Any]) -> DiagnosticArray:
        """`/diagnostics` content, without a stamp; `facts` are further key values.

        Starts a new rate period.
        """
        with self._lock:
            state, reason = self._state(now_ns)
            self._refused = ''
            values: dict[str, Any] = {'state': state.value, **self._rates(now_ns)}
            for stage, times in self._stages.items():
                values[f'{stage} p50 ms'], values[f'{stage} p99 ms'] = (
                    f'{value:.2f}' for value in np.percentile(times, [50, 99]))
            values.update({f'total {key}': count for key, count in self._totals.items()})
            values.update({f'skipped {key}': count for key, count in sorted(self._skips.items())})
        values.update(facts)
        status = DiagnosticStatus(
            level=_LEVEL[state],
            name=f'{name}: perception',
            message=f'{state.value}: {reason}',
            hardware_id='none',
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        return DiagnosticArray(status=[status])

    def _rates(self, now_ns: int) -> dict[str, str]:
        """Hz of each counter since the last call."""
        before, self._period_start = self._period_start, (now_ns, self._totals.copy())
        if before is None or now_ns <= before[0]:
            return {}
        seconds = (now_ns - before[0]) / 1e9
        return {f'{key} Hz': f'{(self._totals[key] - before[1][key]) / seconds:.1f}'
                for key in [*self._inputs, 'results']}
