"""rosbag2 recordings (sqlite3, mcap) to and from the values the ROS node receives. No ROS needed.

Order is that of recording: `receive_ns` is when the recorder got a message. A message that cannot
be used becomes a Skip; a damaged file is read as far as it goes and `Bag.fault` says where it ends.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode, StoragePlugin

from mos_perception.datatypes import EventPacket, Frame, GroundTruth, Result, Skip, SkipReason
from mos_perception.errors import BagError, FrameError, ImuError
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.gyroscope import AngularVelocity
from mos_perception.motion.registration import Geometry
from mos_perception.motion.transforms import Transform
from mos_perception.recording import imu_messages, messages
from mos_perception.recording.messages import (
    CAMERA_INFO,
    COMPRESSED,
    EVENT_ARRAYS,
    EVENT_PACKET,
    IMAGE,
    IMU,
    INSTANCES,
    TRANSFORMS,
    EventArray,
)
from mos_perception.recording.results import (
    NodeResult,
    read_result,
    read_truth,
    write_result,
    write_truth,
)
from mos_perception.recording.storage import TRUTH_IMAGE, TRUTH_INSTANCES, Recorded, Storage, Topic


class TruthTable(Mapping[int, GroundTruth]):
    """Ground truth by frame stamp; the id images are kept compressed, so long recordings fit."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[bytes, tuple[int, int], dict[int, bool]]] = {}

    def add(self, truth: GroundTruth) -> None:
        """Keep one."""
        self._rows[truth.stamp_ns] = (
            zlib.compress(truth.ids.tobytes(), 1),
            truth.ids.shape,
            truth.moving,
        )

    def __getitem__(self, stamp_ns: int) -> GroundTruth:
        data, shape, moving = self._rows[stamp_ns]
        return GroundTruth(
            stamp_ns, np.frombuffer(zlib.decompress(data), np.uint16).reshape(shape), moving
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


Item = (Frame | EventPacket | EventArray | AngularVelocity | Geometry | GroundTruth | NodeResult
        | Skip)
_BAD_BYTES = {IMAGE: SkipReason.BAD_FRAME, COMPRESSED: SkipReason.BAD_FRAME,
              IMU: SkipReason.BAD_IMU, CAMERA_INFO: SkipReason.BAD_CAMERA_INFO,
              TRANSFORMS: SkipReason.BAD_CAMERA_INFO}  # others: BAD_PACKET


class Bag:
    """An open recording. Use as a context manager."""

    def __init__(self, path: str | Path) -> None:
        """Open a rosbag2 folder, .mcap or .db3 file. Raises BagError."""
        self.path = Path(path)
        self._storage = Storage(self.path)
        self.topics: list[Topic] = self._storage.topics

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._storage.close()

    @property
    def fault(self) -> str:
        """File, offset and cause where a damaged recording ends; '' while all was read."""
        return self._storage.fault

    def candidates(self, role: str) -> list[str]:
        """Topic names of a role ('image', 'events', 'truth', 'results'), those with most messages
        first.
        """
        found = [topic for topic in self.topics if topic.count and topic.role == role]
        return [topic.name for topic in sorted(found, key=lambda topic: (-topic.count, topic.name))]

    def pick(
        self, image_topic: str | None = None, events_topic: str | None = None
    ) -> tuple[str, str]:
        """(image topic, events topic) to use: the one named, else the fullest of the right type, ''
        for none.

        A name of '' asks for none. Raises BagError listing the topics there are when a named one is
        missing, holds another type, or nothing is left.
        """
        names = []
        for role, name in (('image', image_topic), ('events', events_topic)):
            found = self.candidates(role)
            if name:
                self._require(name, role)
            names.append(name if name is not None else (found[0] if found else ''))
        if not any(names):
            raise BagError(
                f'{self.path} holds no {IMAGE}, {EVENT_PACKET} or {EVENT_ARRAYS[0]} messages to '
                'use; '
                f'its topics: {self.listing()}'
            )
        return names[0], names[1]

    def events_type(self, topic: str) -> str:
        """The parameter `events_type` that fits a topic of `pick`."""
        kind = next((item.msgtype for item in self.topics if item.name == topic), '')
        return 'event_array' if kind in EVENT_ARRAYS else 'event_packet'

    def image_type(self, topic: str) -> str:
        """The parameter `image_type` that fits a topic of `pick`."""
        kind = next((item.msgtype for item in self.topics if item.name == topic), '')
        return 'compressed' if kind == COMPRESSED else 'raw'

    def listing(self) -> str:
        """Topics with type and number of messages, on one line."""
        return (
            ', '.join(f'{topic.name} ({topic.msgtype}, {topic.count})' for topic in self.topics)
            or 'none'
        )

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """Raw messages of these topics (all by default) in recorded order. Raises BagError."""
        return self._storage.messages(
            {topic.name for topic in self.topics} if topics is None else set(topics)
        )

    def items(self, topics: Collection[str]) -> Iterator[tuple[int, Item]]:
        """(receive_ns, value) of these topics in recorded order; a Skip for what cannot be used.

        The two ground-truth topics give one GroundTruth per stamp, when its second half arrives.
        Raises BagError for a topic whose type holds none of the values.
        """
        for _, receive_ns, value in self.labelled(topics):
            yield receive_ns, value

    def labelled(self, topics: Collection[str]) -> Iterator[tuple[str, int, Item]]:
        """`items` with the topic of each first."""
        for name in topics:
            self._require(name)
        halves: dict[int, GroundTruth] = {}
        for item in self.messages(topics):
            try:
                value = _value(item, halves)
            except FrameError as error:
                value = Skip(SkipReason.BAD_FRAME, item.receive_ns, f'{item.topic}: {error}')
            except (BagError, ImuError) as error:
                reason = _BAD_BYTES.get(item.msgtype, SkipReason.BAD_PACKET)
                value = Skip(reason, item.receive_ns, f'{item.topic}: {error}')
            if value is not None:
                yield item.topic, item.receive_ns, value

    def truth(self) -> TruthTable:
        """All ground truth by frame stamp. Raises BagError where the bag has none."""
        names = self.candidates('truth')
        if not {TRUTH_IMAGE, TRUTH_INSTANCES} <= set(names):
            raise BagError(
                f'{self.path} has no ground truth on {TRUTH_IMAGE} and {TRUTH_INSTANCES}: name a '
                'bag that '
                f'has it with --ground-truth; its topics: {self.listing()}'
            )
        table = TruthTable()
        for _, value in self.items(names):
            if isinstance(value, GroundTruth):
                table.add(value)
        if not table:
            raise BagError(
                f'{self.path}: no image on {TRUTH_IMAGE} has the stamp of a message on '
                f'{TRUTH_INSTANCES}'
            )
        return table

    def _require(self, name: str, role: str = '') -> None:
        kinds = {topic.msgtype for topic in self.topics if topic.name == name}
        if not kinds:
            raise BagError(f'{self.path} has no topic {name}; its topics: {self.listing()}')
        right = {'image': {IMAGE, COMPRESSED}, 'events': {EVENT_PACKET, *EVENT_ARRAYS}}.get(
            role, {IMAGE, COMPRESSED, EVENT_PACKET, *EVENT_ARRAYS, IMU, CAMERA_INFO, TRANSFORMS,
                   INSTANCES})
        if not kinds <= right:
            raise BagError(f'{self.path}: topic {name} holds {", ".join(sorted(kinds))}: '
                           f'must be {" or ".join(sorted(right))}')


def open_bag(path: str | Path) -> Bag:
    """An open recording. Raises BagError."""
    return Bag(path)


def _read_imu(cdr: bytes) -> AngularVelocity:
    return imu_messages.angular_velocity(messages.deserialize(IMU, cdr))


def _read_camera_info(cdr: bytes) -> Calibration:
    return imu_messages.calibration(messages.deserialize(CAMERA_INFO, cdr))


def _read_transforms(cdr: bytes) -> tuple[Transform, ...]:
    return imu_messages.transforms(messages.deserialize(TRANSFORMS, cdr))


def _value(item: Recorded, halves: dict[int, GroundTruth]) -> Item | None:
    """The value in a message; None for half of a ground truth. Raises BagError, FrameError."""
    if item.topic == TRUTH_IMAGE:
        stamp, ids = messages.read_ids(item.data)
        half = GroundTruth(stamp, ids, {})
    elif item.topic == TRUTH_INSTANCES:
        stamp, moving = read_truth(item.data)
        half = GroundTruth(stamp, np.zeros((0, 0), np.uint16), moving)
    else:
        read = {
            IMAGE: messages.read_frame,
            COMPRESSED: messages.read_compressed,
            EVENT_PACKET: messages.read_packet,
            IMU: _read_imu,
            CAMERA_INFO: _read_camera_info,
            TRANSFORMS: _read_transforms,
            INSTANCES: read_result,
        }
        return read.get(item.msgtype, messages.read_event_array)(item.data)
    other = halves.pop(stamp, None)
    if other is None:
        halves[stamp] = half
        return None
    return (
        replace(half, ids=other.ids) if half.ids.size == 0 else replace(half, moving=other.moving)
    )


class BagWriter:
    """Writes a new bag folder; nothing exists at its path until `close` has put the whole bag
    there.

    Use as a context manager: an exception inside leaves no bag. `storage` is 'mcap' (a cut-off file
    stays readable) or 'sqlite3'; `compress` uses zstd (mcap: per chunk, sqlite3: per message).
    """

    def __init__(self, path: str | Path, storage: str = 'mcap', compress: bool = False) -> None:
        """Start a bag.

        Raises BagError: the path exists, its folder cannot be written, unknown storage.
        """
        self.path = Path(path)
        if storage not in ('mcap', 'sqlite3'):
            raise BagError(f'bag storage {storage!r} is unknown: use mcap or sqlite3')
        if self.path.exists():
            raise BagError(f'{self.path} exists: remove it or name another bag')
        self.counts: Counter[str] = Counter()
        self._connections: dict[tuple[str, str], object] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(
                tempfile.mkdtemp(prefix=f'.{self.path.name}.', dir=self.path.parent)
            )
        except OSError as error:
            raise BagError(f'{self.path} cannot be written: {error}') from error
        # the last part of the name goes into the storage file's name, so it is the final one from
        # the start
        self._writer = Writer(
            self._folder / self.path.name,
            version=9,
            storage_plugin=StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3,
        )
        if compress:
            self._writer.set_compression(
                CompressionMode.STORAGE if storage == 'mcap' else CompressionMode.MESSAGE,
                CompressionFormat.ZSTD,
            )
        self._writer.open()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish and put the bag in its place. Raises BagError, leaving nothing."""
        try:
            self._writer.close()
            (self._folder / self.path.name).rename(self.path)
        except (OSError, sqlite3.Error) as error:
            raise BagError(
                f'{self.path} could not be finished: {error}; free space or name another folder'
            ) from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Give up: remove what was written."""
        self._writer.abort()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write_raw(self, topic: str, msgtype: str, receive_ns: int, cdr: bytes) -> None:
        """Pass a CDR message through unchanged.

        Raises BagError for an unknown type or a failed write.
        """
        key = (topic, msgtype)
        if key not in self._connections:
            if msgtype not in messages.typestore().fielddefs:
                raise BagError(
                    f'topic {topic}: message type {msgtype} is unknown here: leave the topic out'
                )
            self._connections[key] = self._writer.add_connection(
                topic, msgtype, typestore=messages.typestore()
            )
        try:
            self._writer.write(self._connections[key], receive_ns, cdr)
        except (OSError, sqlite3.Error) as error:
            raise BagError(
                f'{self.path}: writing {topic} failed: {error}; free space or use another folder'
            ) from error
        self.counts[topic] += 1

    def write_frame(
        self, topic: str, frame: Frame, receive_ns: int | None = None, encoding: str = 'rgb8'
    ) -> None:
        """Write a frame as sensor_msgs/Image; received at its stamp unless told otherwise."""
        self.write_raw(topic, IMAGE, _at(receive_ns, frame), messages.write_frame(frame, encoding))

    def write_packet(self, topic: str, packet: EventPacket, receive_ns: int | None = None) -> None:
        """Write an event packet; received at its stamp unless told otherwise (live: after its last
        event).
        """
        self.write_raw(topic, EVENT_PACKET, _at(receive_ns, packet), messages.write_packet(packet))

    def write_truth(
        self, truth: GroundTruth, frame_id: str = '', receive_ns: int | None = None
    ) -> None:
        """Write both messages of a ground truth."""
        at = _at(receive_ns, truth)
        self.write_raw(
            TRUTH_IMAGE, IMAGE, at, messages.write_ids(truth.stamp_ns, truth.ids, frame_id)
        )
        self.write_raw(
            TRUTH_INSTANCES,
            INSTANCES,
            at,
            write_truth(truth.stamp_ns, truth.ids, truth.moving, frame_id),
        )

    def write_result(self, topic: str, result: Result, receive_ns: int) -> None:
        """Write a result as mos_msgs/Instances."""
        self.write_raw(topic, INSTANCES, receive_ns, write_result(result))


def _at(receive_ns: int | None, value: Frame | EventPacket | GroundTruth) -> int:
    return value.stamp_ns if receive_ns is None else receive_ns
