"""What may be wrong with a data set, and the report that the formats' `inspect` add it to.

An error makes a reader refuse the data or read something false; a warning is what a reader copes
with and says so. Legend: T frames, N rows, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mos_perception.errors import MissingLibraryError, MosError, UnsafeFileError
from mos_perception.formats.image_files import read_rgb

GAP = 2.0  # frame gaps above this many median periods are told
_FETCH = 'fetch the sequence again'

# name -> (level, remedy)
KINDS = {
    'unknown-layout': ('error', 'name the format with --from, or bring it into a layout of '
                                'docs/formats.md'),
    'missing-file': ('error', 'fetch it again, or remove the sequence'),
    'unreadable': ('error', 'the file is cut off or damaged: fetch it again'),
    'missing-array': ('error', 'the file is of another version or incomplete: fetch it again'),
    'empty-sequence': ('error', 'remove it'),
    'count-differs': ('error', _FETCH),
    'size-differs': ('error', 'export all pictures and masks of the sequence at one size'),
    'times-unsorted': ('error', 'order the frames by time and export again'),
    'frame-gap': ('warning', 'frames are missing: skip pairs across the gap'),
    'events-unsorted': ('warning', 'readers sort them; export them in order of time'),
    'coordinates': ('warning', 'readers drop such events; check the sensor size and the '
                               'rectification'),
    'polarity': ('error', 'use 0 and 1, or -1 and 1'),
    'event-columns': ('error', 'fetch the events again'),
    'no-events': ('warning', 'only frames can be used'),
    'no-frames': ('warning', 'only events can be used'),
    'packet-gap': ('warning', 'event packets were lost in recording: record to a faster disk'),
    'times-apart': ('error', 'frames and events need one clock and one unit: check us against ns'),
    'index-range': ('error', 'make the index again from the event times'),
    'missing-annotations': ('warning', 'only unsupervised use; put the annotations beside the '
                                       'split'),
    'mask-code': ('error', 'make the masks again'),
    'mask-values': ('error', 'the format has other mask values: see docs/formats.md'),
    'ids-without-annotation': ('error', 'add the objects to the annotations, or clear them from '
                                        'the masks'),
    'annotation-without-mask': ('warning', 'such objects are never seen'),
    'missing-library': ('error', 'install it, then check again'),
    'unsafe': ('error', 'the file holds code, not data: do not open it with other tools either'),
}


@dataclass(frozen=True)
class DataFinding:
    """One thing that is wrong: a name of KINDS, where, and what."""

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
        self.findings: list[DataFinding] = []

    def add(self, name: str, file: str | Path, detail: str) -> None:
        """Keep one finding, unless this file has one of that name."""
        finding = DataFinding(name, str(file), ' '.join(detail.split()))
        known = {(other.name, other.file) for other in self.findings}
        if (finding.name, finding.file) not in known:
            self.findings.append(finding)

    @contextmanager
    def guard(self, file: str | Path, name: str = 'unreadable') -> Iterator[None]:
        """Whatever goes wrong inside becomes a finding on `file`: the check goes on after it."""
        try:
            yield
        except UnsafeFileError as error:
            self.add('unsafe', file, str(error))
        except MissingLibraryError as error:
            self.add('missing-library', file, str(error))
        except MosError as error:
            self.add(name, file, str(error))
        except Exception as error:  # a broken file may do anything to the libraries that read it
            self.add(name, file, f'{type(error).__name__}: {error}')

    def frame_times(self, file: str | Path, stamps_ns: np.ndarray) -> None:
        """Frame times (T,): rising, no gaps, at least one."""
        if not len(stamps_ns):
            self.add('empty-sequence', file, 'it has no frames')
            return
        steps = np.diff(np.asarray(stamps_ns, np.int64))
        if (steps <= 0).any():
            at = int(np.flatnonzero(steps <= 0)[0])
            self.add('times-unsorted', file,
                     f'frame {at + 1} is {-int(steps[at]) / 1e6:.3f} ms before frame {at}')
        elif len(steps) > 1:
            period = float(np.median(steps))
            gaps = np.flatnonzero(steps > GAP * period)
            if len(gaps):
                self.add('frame-gap', file,
                         f'{len(gaps)} gaps, the first of {steps[gaps[0]] / 1e6:.1f} ms after '
                         f'frame {gaps[0]}; frames are {period / 1e6:.1f} ms apart')

    def index(self, file: str | Path, name: str, index: np.ndarray, count: int) -> None:
        """Event numbers (N,): within the `count` events and never falling."""
        values = np.asarray(index, np.int64)
        if not len(values):
            return
        first, last, falls = values.min(), values.max(), (np.diff(values) < 0).any()
        if first < 0 or last > max(count, 0) or falls:
            self.add('index-range', file, f'{name} runs from {first} to {last}, '
                     f'{"not rising, " if falls else ""}for {count} events')

    def object_ids(self, file: str | Path, seen: set[int], known: set[int]) -> None:
        """Ids in the masks against ids in the annotations."""
        if seen - known:
            self.add('ids-without-annotation', file,
                     f'masks show objects {some(seen - known)}, annotations do not')
        if known - seen:
            self.add('annotation-without-mask', file,
                     f'no mask shows the annotated objects {some(known - seen)}')

    def picture_sizes(self, where: str | Path, pictures: Iterable[Path]) -> tuple[int, int]:
        """(height, width) of the first picture that can be read; the others must agree."""
        size: tuple[int, int] | None = None
        for file in pictures:
            with self.guard(file):
                found = read_rgb(file).shape[:2]
                size = size or found
                if found != size:
                    self.add('size-differs', where,
                             f'{file.name} has {found} px, those before it {size}')
        return size or (0, 0)


def some(values: Iterable[float]) -> str:
    """The smallest eight of the values and how many more there are."""
    ordered = sorted(values)
    more = f' and {len(ordered) - 8} more' if len(ordered) > 8 else ''
    return ', '.join(f'{value:g}' for value in ordered[:8]) + more
