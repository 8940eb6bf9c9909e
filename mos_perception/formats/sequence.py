"""One recording of a data set, whatever its format. Legend: T frames, H W pixels, E events."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from mos_perception.datatypes import Events, Frame
from mos_perception.errors import DatasetError

START_NS = 1_000_000_000  # where formats without times begin: ROS reads a stamp of 0 as "not set"

Moving = tuple[dict[int, bool], ...]  # per frame: id -> moves
Box = tuple[float, float, float, float]
Boxes = tuple[dict[int, Box], ...]  # per frame: id -> x0, y0, x1, y1 px, far edges exclusive


class LazyArray:
    """A (T, ...) array whose rows are read from disk when they are asked for.

    So long recordings need no memory. Takes an index or a slice; `np.asarray` reads all. Errors of
    the files are raised then.
    """

    def __init__(self, count: int, row: Callable[[int], np.ndarray]) -> None:
        self._count, self._row = count, row

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if isinstance(index, slice):
            rows = [self._row(n) for n in range(*index.indices(self._count))]
            return np.stack(rows) if rows else np.empty((0, *self.shape[1:]), self.dtype)
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._row(int(index) % self._count)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._row(n) for n in range(self._count))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, ...); reads the first row."""
        return (self._count, *(self._row(0).shape if self._count else ()))

    @property
    def dtype(self) -> np.dtype:
        """That of the first row."""
        return self._row(0).dtype if self._count else np.dtype(np.uint8)


Rows = np.ndarray | LazyArray


@dataclass(frozen=True)
class Sequence:
    """What the sensors saw and what was true. None where the data set does not say.

    name        within its data set, 'split/folder' where there are splits
    size        (height, width) of the frames and the truth
    stamps_ns   (T,) int64, rising
    frames      (T, H, W, 3) u8 RGB
    events      sorted by time, on the clock of the stamps
    event_size  (height, width) of the sensor of the events
    ids         (T, H, W) u16 id of the visible object, 0 background; stable over time
    moving      per frame: id -> moves
    boxes       per frame: id -> (x0, y0, x1, y1) px, far edges exclusive
    flow        (T - 1, H, W, 2) f32 px, x then y, to the next frame
    depth       (T, H, W) f32 m, 0 unknown
    has_frame   (T,) bool, which rows of `frames` are real; None: all
    has_label   (T,) bool, which rows of `ids` are real; None: all
    split       of the data set: 'train', 'val', ...
    notes       what the reader had to change, for a person to read
    void        (T, H, W) bool pixels that must not be scored; background in `ids`
    """

    name: str
    size: tuple[int, int]
    stamps_ns: np.ndarray
    frames: Rows | None = None
    events: Events | None = None
    event_size: tuple[int, int] | None = None
    ids: Rows | None = None
    moving: Moving | None = None
    boxes: Boxes | None = None
    flow: Rows | None = None
    depth: Rows | None = None
    has_frame: np.ndarray | None = None
    has_label: np.ndarray | None = None
    split: str = ''
    notes: tuple[str, ...] = ()
    void: Rows | None = None

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def file_name(self) -> str:
        """The name as that of one file or folder."""
        return self.name.replace('/', '_') or 'sequence'

    def frame(self, index: int) -> Frame | None:
        """Frame `index` as the runtime sees it; None where there is none."""
        if not self.frame_exists(index):
            return None
        return Frame(int(self.stamps_ns[index]), np.ascontiguousarray(self.frames[index]))

    def truth(self, index: int) -> np.ndarray | None:
        """(H, W) u16 ids of frame `index`; None where there are none."""
        return self.ids[index] if self.truth_exists(index) else None

    def frame_exists(self, index: int) -> bool:
        """Whether `frame` gives one; nothing is read."""
        return self.frames is not None and (self.has_frame is None or bool(self.has_frame[index]))

    def truth_exists(self, index: int) -> bool:
        """Whether `truth` gives ids; nothing is read."""
        return self.ids is not None and (self.has_label is None or bool(self.has_label[index]))

    def flags(self, index: int) -> dict[int, bool]:
        """id -> moves of what is visible in frame `index`.

        A data set that does not say annotates what moves, so all its objects count as moving
        there, as in the papers.
        """
        ids = self.truth(index)
        seen = [] if ids is None else [int(value) for value in np.unique(ids) if value]
        if self.moving is None:
            return dict.fromkeys(seen, True)
        return {object_id: bool(self.moving[index].get(object_id, False)) for object_id in seen}

    def require_frames(self, form: str, at_least: int = 0) -> Rows:
        """The frames. Raises DatasetError: there are none, or too few, for the format `form`."""
        if self.frames is None or len(self) < at_least:
            raise DatasetError(f'sequence {self.name} has no frames: {form} needs them')
        return self.frames

    def shifted(self, by_ns: int) -> Sequence:
        """The same, `by_ns` later."""
        events = self.events
        if events is not None:
            events = Events(events.x, events.y, events.p, events.t + by_ns)
        return replace(self, stamps_ns=self.stamps_ns + by_ns, events=events)


def regular_stamps(numbers: np.ndarray | range, fps: float) -> np.ndarray:
    """(T,) int64 ns of frames `numbers`, 1 / fps apart, number 0 at START_NS."""
    return START_NS + np.rint(np.asarray(numbers) * 1e9 / fps).astype(np.int64)


def unless_all(has_row: np.ndarray) -> np.ndarray | None:
    """(T,) bool as `Sequence` keeps it: None where it is true of all rows."""
    return None if has_row.all() else has_row


def rows_in(known: Container, keys: Iterable) -> np.ndarray | None:
    """Which of the rows with these keys (T,) are known, as `unless_all` has it."""
    return unless_all(np.array([key in known for key in keys], bool))


def clean_events(x: np.ndarray, y: np.ndarray, p: np.ndarray, t_ns: np.ndarray,
                 size: tuple[int, int], notes: list[str]) -> Events:
    """Events of a sensor of `size` from raw columns (E,): whole pixels, none outside, by time.

    Polarity above 0 is 1. What was changed goes into `notes`.
    Raises DatasetError where the columns differ in length.
    """
    lengths = [len(column) for column in (x, y, p, t_ns)]
    if len(set(lengths)) != 1:
        raise DatasetError(f'event columns x, y, p, t have {lengths} rows: they must agree; '
                           'fetch the file again')
    height, width = size
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    outside = len(x) - int(np.count_nonzero(inside))
    if outside:
        notes.append(f'{outside} events outside {width} x {height} px dropped')
        x, y, p, t_ns = x[inside], y[inside], p[inside], t_ns[inside]
    t_ns = np.asarray(t_ns, np.int64)
    rank: slice | np.ndarray = slice(None)
    if (t_ns[1:] < t_ns[:-1]).any():
        notes.append('events were not in order of time: sorted')
        rank = np.argsort(t_ns, kind='stable')
    return Events(np.asarray(x).astype(np.uint16)[rank], np.asarray(y).astype(np.uint16)[rank],
                  (np.asarray(p) > 0).astype(np.uint8)[rank], t_ns[rank])
