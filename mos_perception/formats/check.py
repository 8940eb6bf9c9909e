"""What is wrong with a folder of data: named findings, never a traceback. `mos check-data FOLDER`.

An error makes a reader refuse the data or read something false; a warning is what a reader copes with and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mos_perception.errors import MosError

GAP = 2.0  # frame gaps above this many median periods are told

# name -> (level, remedy)
KINDS = {
    'unknown-layout': ('error', 'name the format with --from, or bring it into a layout of docs/formats.md'),
    'missing-file': ('error', 'fetch it again, or remove the sequence'),
    'unreadable': ('error', 'the file is cut off or damaged: fetch it again'),
    'missing-array': ('error', 'the file is of another version or incomplete: fetch it again'),
    'empty-sequence': ('error', 'remove it'),
    'count-differs': ('error', 'fetch the sequence again'),
    'size-differs': ('error', 'export all pictures and masks of the sequence at one size'),
    'times-unsorted': ('error', 'order the frames by time and export again'),
    'frame-gap': ('warning', 'frames are missing: skip pairs across the gap'),
    'events-unsorted': ('warning', 'readers sort them; export them in order of time'),
    'coordinates': ('warning', 'readers drop such events; check the sensor size and the rectification'),
    'polarity': ('error', 'use 0 and 1, or -1 and 1'),
    'event-columns': ('error', 'fetch the events again'),
    'no-events': ('warning', 'only frames can be used'),
    'no-frames': ('warning', 'only events can be used'),
    'packet-gap': ('warning', 'event packets were lost in recording: record to a faster disk'),
    'times-apart': ('error', 'frames and events need one clock and one unit: check us against ns'),
    'index-range': ('error', 'make the index again from the event times'),
    'missing-annotations': ('warning', 'only unsupervised use; put the annotations beside the split'),
    'mask-code': ('error', 'make the masks again'),
    'mask-values': ('error', 'the format has other mask values: see docs/formats.md'),
    'ids-without-annotation': ('error', 'add the objects to the annotations, or clear them from the masks'),
    'annotation-without-mask': ('warning', 'such objects are never seen'),
    'missing-library': ('error', 'install it, then check again'),
    'unsafe': ('error', 'the file holds code, not data: do not open it with other tools either'),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a name of KINDS, where, what, and what to do. `level` is 'error' or 'warning'."""

    name: str
    file: str
    detail: str

    @property
    def level(self) -> str:
        """'error' or 'warning'."""
        return KINDS[self.name][0]

    @property
    def remedy(self) -> str:
        """What the user can do."""
        return KINDS[self.name][1]


class Report:
    """Collects findings, each kind once per file."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, name: str, file: str | Path, detail: str) -> None:
        """Keep one finding, unless this file has one of that name."""
        finding = Finding(name, str(file), ' '.join(detail.split()))
        if all((known.name, known.file) != (finding.name, finding.file) for known in self.findings):
            self.findings.append(finding)

    @contextmanager
    def guard(self, file: str | Path, name: str = 'unreadable') -> Iterator[None]:
        """Whatever goes wrong inside becomes a finding on `file`: the check goes on with the next thing."""
        try:
            yield
        except MosError as error:
            special = {'could run any code': 'unsafe', 'pip install': 'missing-library'}
            self.add(next((kind for text, kind in special.items() if text in str(error)), name), file, str(error))
        except Exception as error:  # a broken file may do anything to the libraries that read it
            self.add(name, file, f'{type(error).__name__}: {error}')

    def times(self, file: str | Path, stamps_ns: np.ndarray) -> None:
        """Frame times (T,): rising, no gaps, at least one."""
        if not len(stamps_ns):
            self.add('empty-sequence', file, 'it has no frames')
            return
        steps = np.diff(np.asarray(stamps_ns, np.int64))
        if (steps <= 0).any():
            at = int(np.flatnonzero(steps <= 0)[0])
            self.add('times-unsorted', file, f'frame {at + 1} is {-int(steps[at]) / 1e6:.3f} ms before frame {at}')
        elif len(steps) > 1:
            period = float(np.median(steps))
            gaps = np.flatnonzero(steps > GAP * period)
            if len(gaps):
                self.add('frame-gap', file, f'{len(gaps)} gaps, the first of {steps[gaps[0]] / 1e6:.1f} ms after frame '
                         f'{gaps[0]}; frames are {period / 1e6:.1f} ms apart')

    def index(self, file: str | Path, name: str, index: np.ndarray, count: int) -> None:
        """Event numbers (N,): within the events and never falling."""
        values = np.asarray(index, np.int64)
        if len(values) and (values.min() < 0 or values.max() > max(count, 0) or (np.diff(values) < 0).any()):
            self.add('index-range', file, f'{name} runs from {values.min()} to {values.max()}, '
                     f'{"not rising, " if (np.diff(values) < 0).any() else ""}for {count} events')

    def object_ids(self, file: str | Path, seen: set[int], known: set[int]) -> None:
        """Ids in the masks against ids in the annotations."""
        if seen - known:
            self.add('ids-without-annotation', file, f'masks show objects {_some(seen - known)}, annotations do not')
        if known - seen:
            self.add('annotation-without-mask', file, f'no mask shows the annotated objects {_some(known - seen)}')


class EventCheck:
    """Looks at one sequence's events piece by piece, in bounded memory; `done` tells."""

    def __init__(self, report: Report, file: str | Path, size: tuple[int, int]) -> None:
        self._report, self._file, self._size = report, file, size
        self._count = self._outside = self._unsorted = 0
        self._values: set[float] = set()
        self._worst = (0.0, 0.0)
        self.first_ns: int | None = None
        self.last_ns = np.iinfo(np.int64).min

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
            self._worst = (float(x[at]), float(y[at]))
        self._unsorted += int((np.diff(t) < 0).sum()) + int(t[0] < self.last_ns)
        self._values |= {float(value) for value in np.unique(p)}
        self.first_ns = int(t.min()) if self.first_ns is None else min(self.first_ns, int(t.min()))
        self.last_ns = max(self.last_ns, int(t.max()))

    def done(self, stamps_ns: np.ndarray) -> None:
        """Tell what was found; (T,) frame times for comparison."""
        report, file = self._report, self._file
        if not self._count:
            report.add('no-events', file, 'it has no events')
            return
        if self._outside:
            report.add('coordinates', file, f'{self._outside} of {self._count} events outside {self._size[1]} x '
                       f'{self._size[0]} px, one at ({self._worst[0]:g}, {self._worst[1]:g})')
        if self._unsorted:
            report.add('events-unsorted', file, f'{self._unsorted} of {self._count} events are older than the last')
        if not (self._values <= {0.0, 1.0} or self._values <= {-1.0, 1.0}):
            report.add('polarity', file, f'polarity has the values {_some(self._values)}')
        first, last = (int(stamps_ns.min()), int(stamps_ns.max())) if len(stamps_ns) else (0, 0)
        if len(stamps_ns) > 1 and (self.first_ns > last or self.last_ns < first):
            report.add('times-apart', file, f'frames from {first / 1e9:.3f} to {last / 1e9:.3f} s, events '
                       f'from {self.first_ns / 1e9:.3f} to {self.last_ns / 1e9:.3f} s')


def check(path: str | Path, form: str = 'auto') -> list[Finding]:
    """All findings on what lies at `path`; `form` a format's name or 'auto'. Never raises."""
    from mos_perception.formats import looks
    report = Report()
    with report.guard(path):
        if not Path(path).exists():
            report.add('missing-file', path, 'there is nothing')
        else:
            looks.look(Path(path), form, report)
    return report.findings


def table(findings: Iterable[Finding]) -> object:
    """A rich table of findings."""
    from rich.table import Table
    shown = Table(title='what is wrong')
    for column in ('level', 'name', 'file', 'detail', 'remedy'):
        shown.add_column(column, overflow='fold')
    for finding in findings:
        shown.add_row(finding.level, finding.name, finding.file, finding.detail, finding.remedy)
    return shown


def _some(values: Iterable[float]) -> str:
    ordered = sorted(values)
    more = f' and {len(ordered) - 8} more' if len(ordered) > 8 else ''
    return ', '.join(f'{value:g}' for value in ordered[:8]) + more


Inspector = Callable[[Path, Report], None]
