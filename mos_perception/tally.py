"""What happened in a run: frames in, results out, skips by reason, stage times, when things moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from mos_perception.datatypes import Fault, Result, Skip
from mos_perception.results import NodeResult

MERGE_GAP_NS = 250_000_000  # motion seen again within this is the same motion


class Tally:
    """Books the outcomes of a run in order. Times in the summary are seconds after `start_ns`."""

    def __init__(self, start_ns: int = 0) -> None:
        """`start_ns` is the stamp of the first message; it may be set later."""
        self.start_ns = start_ns
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._stages: dict[str, list[float]] = {}
        self._moving: list[list[int]] = []
        self._last_fault = ''

    def add(self, outcome: Result | NodeResult | Skip | Fault) -> None:
        """Book one outcome."""
        if isinstance(outcome, Skip):
            self.skipped[outcome.reason.value] += outcome.count
        elif isinstance(outcome, Fault):
            self.counts['faults'] += 1
            self._last_fault = outcome.message
        else:
            self.counts['results'] += 1
            self.counts[f'results from {outcome.modality.value}'] += 1
            self.counts['degraded results'] += bool(outcome.degraded)
            for name, value in outcome.stage_ms.items():
                self._stages.setdefault(name, []).append(value)
            if outcome.instances.moving.any():
                self._moved(outcome.stamp_ns)

    def _moved(self, stamp_ns: int) -> None:
        last = self._moving[-1] if self._moving else None
        if last is not None and 0 <= stamp_ns - last[1] <= MERGE_GAP_NS:
            last[1] = stamp_ns
        else:
            self._moving.append([stamp_ns, stamp_ns])

    def intervals_s(self) -> list[tuple[float, float]]:
        """(first, last) seconds of each stretch in which an instance moves; gaps up to 0.25 s are bridged."""
        return [tuple(round((stamp - self.start_ns) / 1e9, 3) for stamp in pair) for pair in self._moving]

    def stages(self) -> dict[str, dict[str, float]]:
        """Stage name -> p50 and p99 in milliseconds."""
        return {name: dict(zip(('p50', 'p99'), np.percentile(values, [50, 99]).round(3).tolist()))
                for name, values in self._stages.items()}

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {'counts': dict(self.counts), 'skipped': dict(self.skipped), 'last_fault': self._last_fault,
                'stage_ms': self.stages(), 'moving_s': self.intervals_s()}


def tables(run: dict[str, Any]) -> Sequence[Table]:
    """The summary of a run as tables: counts, stage times."""
    counts = Table('what', 'count', title='run')
    for name, value in run['counts'].items():
        counts.add_row(name, str(value))
    for name, value in sorted(run['skipped'].items()):
        counts.add_row(f'skipped: {name}', str(value))
    stages = Table('stage', 'p50 ms', 'p99 ms', title='time per frame')
    for name, value in run['stage_ms'].items():
        stages.add_row(name, f'{value["p50"]:.2f}', f'{value["p99"]:.2f}')
    return counts, stages


def motion_text(intervals_s: Sequence[tuple[float, float]]) -> str:
    """When something moves, in words."""
    if not intervals_s:
        return 'nothing moves'
    return 'something moves at ' + ', '.join(f'{first:.2f}-{last:.2f} s' for first, last in intervals_s)
