"""What is wrong with the events of one sequence. Legend: E events, T frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mos_perception.formats.findings import Report, some


class EventInspector:
    """Looks at events piece by piece, in bounded memory; `finish` tells."""

    def __init__(self, report: Report, file: str | Path, size: tuple[int, int]) -> None:
        """`file`: where findings are said to be; `size`: (height, width) of the sensor."""
        self._report, self._file, self._size = report, file, size
        self._count = self._outside = self._unsorted = 0
        self._polarities: set[float] = set()
        self._last_outside = (0.0, 0.0)
        self._first_ns: int | None = None
        self._last_ns = np.iinfo(np.int64).min

    def add(self, x: np.ndarray, y: np.ndarray, p: np.ndarray, t_ns: np.ndarray) -> None:
        """The next events, raw columns (E,)."""
        lengths = [len(column) for column in (x, y, p, t_ns)]
        if len(set(lengths)) != 1:
            self._report.add('event-columns', self._file, f'x, y, p, t have {lengths} rows')
        count = min(lengths)
        if not count:
            return
        x, y, p, t = (np.asarray(column[:count]) for column in (x, y, p, t_ns))
        height, width = self._size
        outside = ~((x >= 0) & (x < width) & (y >= 0) & (y < height))
        self._count += count
        if outside.any():
            self._outside += int(outside.sum())
            at = int(np.flatnonzero(outside)[0])
            self._last_outside = (float(x[at]), float(y[at]))
        self._unsorted += int((np.diff(t) < 0).sum()) + int(t[0] < self._last_ns)
        self._polarities |= {float(value) for value in np.unique(p)}
        first = int(t.min())
        self._first_ns = first if self._first_ns is None else min(self._first_ns, first)
        self._last_ns = max(self._last_ns, int(t.max()))

    def finish(self, stamps_ns: np.ndarray) -> None:
        """Add what was found to the report; (T,) frame times for comparison."""
        report, file = self._report, self._file
        if not self._count:
            report.add('no-events', file, 'it has no events')
            return
        if self._outside:
            x, y = self._last_outside
            report.add('coordinates', file, f'{self._outside} of {self._count} events outside '
                       f'{self._size[1]} x {self._size[0]} px, one at ({x:g}, {y:g})')
        if self._unsorted:
            report.add('events-unsorted', file,
                       f'{self._unsorted} of {self._count} events are older than the last')
        if not (self._polarities <= {0.0, 1.0} or self._polarities <= {-1.0, 1.0}):
            report.add('polarity', file, f'polarity has the values {some(self._polarities)}')
        if len(stamps_ns) > 1:
            self._compare_times(int(stamps_ns.min()), int(stamps_ns.max()))

    def _compare_times(self, first: int, last: int) -> None:
        """Frames from `first` to `last` ns must overlap the events."""
        if self._first_ns > last or self._last_ns < first:
            self._report.add('times-apart', self._file,
                             f'frames from {first / 1e9:.3f} to {last / 1e9:.3f} s, events '
                             f'from {self._first_ns / 1e9:.3f} to {self._last_ns / 1e9:.3f} s')
