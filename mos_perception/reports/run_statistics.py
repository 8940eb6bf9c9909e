"""What happened in a run: frames in, results out, skips by reason, stage times, when things moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from mos_perception.datatypes import Fault, Result, Skip
from mos_perception.recording.results import NodeResult

MERGE_GAP_NS = 250_000_000  # motion seen again within this is the same motion
TRACKS_NAMED = 8            # in the text for people; the JSON has them all


class RunStatistics:
    """Books the outcomes of a run in order."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._stages: dict[str, list[float]] = {}
        self._moving: dict[str, list[list[int]]] = {}
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
            ids = outcome.tracks.instance_ids(len(outcome.instances))
            for track_id in ids[outcome.instances.moving & (ids > 0)]:
                self.moved(outcome.stamp_ns)
                # ids are unique within an epoch only
                prefix = f'{outcome.epoch}:' if outcome.epoch else ''
                self.moved(outcome.stamp_ns, f'{prefix}{track_id}')

    def moved(self, stamp_ns: int, track: str = '') -> None:
        """Something, or this track, moves at this stamp."""
        pairs = self._moving.setdefault(track, [])
        if pairs and 0 <= stamp_ns - pairs[-1][1] <= MERGE_GAP_NS:
            pairs[-1][1] = stamp_ns
        else:
            pairs.append([stamp_ns, stamp_ns])

    def intervals_s(self, start_ns: int, track: str = '') -> list[tuple[float, float]]:
        """(first, last) seconds after `start_ns` of each stretch in which any track, or this one,
        moves; gaps to 0.25 s are bridged.
        """
        return [(round((first - start_ns) / 1e9, 3), round((last - start_ns) / 1e9, 3))
                for first, last in self._moving.get(track, [])]

    def stages(self) -> dict[str, dict[str, float]]:
        """Stage name -> p50 and p99 in milliseconds."""
        return {name: dict(zip(('p50', 'p99'), np.percentile(values, [50, 99]).round(3).tolist()))
                for name, values in self._stages.items()}

    def summary(self, start_ns: int) -> dict[str, Any]:
        """Everything, ready for JSON; times are seconds after `start_ns`, the first message's
        stamp.
        """
        return {'counts': dict(self.counts), 'skipped': dict(self.skipped),
                'last_fault': self._last_fault, 'stage_ms': self.stages(),
                'moving_s': self.intervals_s(start_ns),
                'track_moving_s': {track: self.intervals_s(start_ns, track)
                                   for track in self._moving if track}}


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


def motion_text(run: dict[str, Any]) -> str:
    """When something moves, and the longest-moving tracks, in words, from the summary of a run."""
    if not run['moving_s']:
        return 'nothing moves'
    by_length = sorted(
        run['track_moving_s'].items(),
        key=lambda item: -sum(last - first for first, last in item[1]),
    )
    lines = [f'something moves at {_spans(run["moving_s"])}',
             *(f'  track {track} at {_spans(pairs)}' for track, pairs in by_length[:TRACKS_NAMED])]
    return '\n'.join(
        lines
        + [f'  and {len(by_length) - TRACKS_NAMED} more tracks'] * (len(by_length) > TRACKS_NAMED)
    )


def _spans(pairs: Sequence[tuple[float, float]]) -> str:
    return ', '.join(f'{first:.2f}-{last:.2f} s' for first, last in pairs)
