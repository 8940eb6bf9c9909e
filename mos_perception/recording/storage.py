"""Raw rosbag2 recordings: topics and bytes in recorded order, from healthy and from damaged files.

`rosbags` reads whole files, `mcap` reads a damaged .mcap record by record. Message definitions
inside a bag are not needed, so a schema nobody can parse does no harm: `messages.py` knows the
types.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from mcap.exceptions import EndOfFile
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader

from mos_perception.errors import BagError
from mos_perception.recording.messages import (
    COMPRESSED,
    EVENT_ARRAYS,
    EVENT_PACKET,
    IMAGE,
    INSTANCES,
)

TRUTH_IMAGE = '/ground_truth/instance_image'
TRUTH_INSTANCES = '/ground_truth/instances'
_NODE_IMAGES = ('/instance_image', '/overlay')  # what our node publishes is no camera
MAX_MESSAGE = 1 << 30  # bytes: above the largest image that is taken
_PIECE = 1 << 20  # bytes unpacked at a time
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # cannot start a CDR message, whose first byte is 0


@dataclass(frozen=True)
class Topic:
    """One recorded topic. `qos` is what rosbags knows of the publisher's profiles."""

    name: str
    msgtype: str
    count: int
    qos: tuple = ()

    @property
    def role(self) -> str:
        """What it is to us, by type: 'image', 'events', 'truth', 'results' or ''."""
        if (self.name, self.msgtype) in ((TRUTH_IMAGE, IMAGE), (TRUTH_INSTANCES, INSTANCES)):
            return 'truth'
        if self.msgtype == INSTANCES:
            return 'results'
        if self.msgtype == EVENT_PACKET or self.msgtype in EVENT_ARRAYS:
            return 'events'
        ours = self.name.removesuffix('/compressed').endswith(_NODE_IMAGES)
        return 'image' if self.msgtype in (IMAGE, COMPRESSED) and not ours else ''


@dataclass(frozen=True)
class Recorded:
    """One message as recorded: `data` is CDR, `receive_ns` the recorder's time of reception."""

    topic: str
    msgtype: str
    receive_ns: int
    data: bytes


class WholeFile:
    """A bag folder or storage file that `rosbags` can open."""

    def __init__(self, path: Path) -> None:
        """Open. Raises whatever rosbags raises for what it cannot read."""
        self.path, self.fault = path, ''
        self._reader = Reader(path)
        self._reader.open()
        self.topics = [
            Topic(item.topic, item.msgtype, item.msgcount, tuple(item.ext.offered_qos_profiles))
            for item in self._reader.connections
        ]
        nameless = [topic for topic in self.topics if not (topic.name and topic.msgtype)]
        if nameless:
            raise BagError(
                f'{len(nameless)} of {len(self.topics)} topics have no name or no type: the file '
                'is damaged'
            )

    def messages(self, names: set[str]) -> Iterator[Recorded]:
        """Messages of these topics in recorded order.

        A damaged .mcap chunk ends it and sets `fault`.
        """
        wanted = [item for item in self._reader.connections if item.topic in names]
        if not wanted:
            return
        try:
            for connection, receive_ns, data in self._reader.messages(wanted):
                yield Recorded(connection.topic, connection.msgtype, receive_ns, _unpacked(data))
        except Exception as error:  # rosbags raises errors of many libraries on damaged data
            self.fault = f'{self.path}: reading stopped early: {error}'

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class DamagedMcap:
    """An .mcap file without a usable footer: every whole record before the damage is read."""

    def __init__(self, path: Path) -> None:
        """Scan it once for topics and order. Raises BagError when no message can be read."""
        self.path, self.fault = path, ''
        counts: dict[tuple[str, str], int] = {}
        self._ordered, last = True, 0
        for item in self._scan():
            counts[item.topic, item.msgtype] = counts.get((item.topic, item.msgtype), 0) + 1
            self._ordered, last = self._ordered and item.receive_ns >= last, item.receive_ns
        if not counts:
            raise BagError(
                f'{path}: no message can be read: {self.fault or "the file holds none"}; record it '
                'again'
            )
        self.topics = [Topic(name, msgtype, count) for (name, msgtype), count in counts.items()]

    def messages(self, names: set[str]) -> Iterator[Recorded]:
        """Messages of these topics in recorded order."""
        found = (item for item in self._scan() if item.topic in names)
        return found if self._ordered else iter(sorted(found, key=lambda item: item.receive_ns))

    def close(self) -> None:
        """Nothing stays open."""

    def _scan(self) -> Iterator[Recorded]:
        schemas: dict[int, str] = {}
        channels: dict[int, tuple[str, str]] = {}
        with self.path.open('rb') as file:
            exact = _ExactReads(file)
            try:
                for record in StreamReader(exact).records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record.name
                    elif isinstance(record, Channel):
                        channels[record.id] = (record.topic, schemas.get(record.schema_id, ''))
                    elif isinstance(record, Message):
                        yield Recorded(
                            *channels[record.channel_id], record.log_time, _unpacked(record.data)
                        )
            # damaged bytes fail in every way: short, bad length, bad zstd
            except Exception as error:
                what = (
                    'the file ends inside a record'
                    if isinstance(error, EndOfFile)
                    else f'{error!r}'
                )
                self.fault = (
                    f'{self.path}: {what} at byte {exact.offset}; only what lies before it was read'
                )


class _ExactReads:
    """A file whose short reads are EndOfFile: `mcap` would hand out cut-off messages as whole ones.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.offset = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise EndOfFile
        self.offset += size
        return data


class Storage:
    """All files of one recording."""

    def __init__(self, path: Path) -> None:
        """Open a bag folder or a single .mcap or .db3 file.

        Raises BagError naming the file and what is wrong.
        """
        if not path.exists():
            raise BagError(f'{path}: no such bag: give a rosbag2 folder, a .mcap or a .db3 file')
        self._parts = _open(path)
        merged: dict[tuple[str, str], Topic] = {}
        for topic in (topic for part in self._parts for topic in part.topics):
            old = merged.get((topic.name, topic.msgtype))
            merged[topic.name, topic.msgtype] = (
                replace(old, count=old.count + topic.count) if old else topic
            )
        self.topics = sorted(merged.values(), key=lambda topic: topic.name)

    @property
    def fault(self) -> str:
        """Why the recording was read only in part, '' if it is whole (as far as read)."""
        return '; '.join(part.fault for part in self._parts if part.fault)

    def messages(self, names: set[str]) -> Iterator[Recorded]:
        """Messages of these topics in recorded order. Raises BagError where a .db3 file breaks."""
        yield from heapq.merge(
            *(part.messages(names) for part in self._parts), key=lambda item: item.receive_ns
        )
        broken = [part.fault for part in self._parts if part.fault and part.path.suffix == '.db3']
        if broken:
            raise BagError('; '.join(broken))

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            part.close()


def _unpacked(data: bytes) -> bytes:
    """Undo per-message zstd, which is declared only in a metadata file that may be missing.

    Raises BagError for more than MAX_MESSAGE bytes, before the rest is unpacked. Piece by piece: to
    ask for all at once is to allocate MAX_MESSAGE for every message.
    """
    if bytes(data[:4]) != _ZSTD_MAGIC:
        return data
    import zstandard  # comes with mcap
    parts, size = [], 0
    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        while part := reader.read(_PIECE):
            size += len(part)
            if size > MAX_MESSAGE:
                raise BagError(f'a message of {len(data)} bytes unpacks to more than '
                               f'{MAX_MESSAGE}: refused, it is made to fill the memory')
            parts.append(part)
    return b''.join(parts)


def _open(path: Path) -> list[WholeFile | DamagedMcap]:
    """The readers of a path. Raises BagError.

    A folder's storage files are opened one by one: its metadata.yaml is often missing, foreign or
    at odds with them (other quality-of-service text makes rosbags skip a topic). Only file
    compression needs it.
    """
    if path.is_file():
        return [_open_file(path)]
    files = sorted([*path.glob('*.mcap'), *path.glob('*.db3')])
    if files:
        return [_open_file(file) for file in files]
    try:
        return [WholeFile(path)]
    except Exception as error:  # rosbags raises errors of many libraries on damaged data
        raise BagError(f'{path}: no readable .mcap or .db3 file in this folder: {error}') from error


def _open_file(file: Path) -> WholeFile | DamagedMcap:
    try:
        return WholeFile(file)
    except Exception as error:  # as above
        if file.suffix != '.mcap':
            raise BagError(
                f'{file} ({file.stat().st_size} bytes) cannot be read: {error}; a cut-off sqlite3 '
                'bag is '
                'lost: record to mcap, which survives it'
            ) from error
    return DamagedMcap(file)
