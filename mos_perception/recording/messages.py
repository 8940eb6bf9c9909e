"""ROS messages as bytes (CDR) to and from our values, without ROS: what bags carry, on any machine.

Definitions come from the `rosbags` library, from the `.msg` files of `mos_msgs`, and from the text
below for event types, so that bags without definitions can be read. E events, N instances.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mos_perception.datatypes import EventPacket, Events, Frame
from mos_perception.errors import BagError
from mos_perception.image_encodings import compressed_to_rgb, from_ids, from_rgb, to_ids, to_rgb

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
IMU = 'sensor_msgs/msg/Imu'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'
EVENT_PACKET = 'event_camera_msgs/msg/EventPacket'
EVENT_ARRAY = 'dvs_msgs/msg/EventArray'
EVENT_ARRAYS = (EVENT_ARRAY, 'prophesee_event_msgs/msg/EventArray')  # the same layout
INSTANCES = 'mos_msgs/msg/Instances'
TRACKS = 'mos_msgs/msg/Tracks'

_PACKET_TEXT = """std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""
_ARRAY_TEXT = 'std_msgs/Header header\nuint32 height\nuint32 width\nEvent[] events\n'
_EVENT_TEXT = 'uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity\n'


@dataclass(frozen=True)
class EventArray:
    """Already decoded events, as `dvs_msgs/EventArray` carries them, of a (height, width) sensor.
    """

    stamp_ns: int
    height: int
    width: int
    events: Events
    frame_id: str = ''


def definitions_folder() -> Path:
    """The folder of the `mos_msgs` definitions: this source tree's, or an installed share folder.

    Raises BagError.
    """
    prefixes = [
        Path(part) for part in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if part
    ]
    places = [Path(__file__).resolve().parents[2] / 'mos_msgs' / 'msg',
              *(prefix / 'share' / 'mos_msgs' / 'msg' for prefix in (*prefixes, Path(sys.prefix)))]
    for place in places:
        if (place / 'Instances.msg').is_file():
            return place
    raise BagError(
        f'mos_msgs definitions not found in {", ".join(map(str, places))}: build it or source its '
        'setup'
    )


@functools.cache
def typestore() -> Typestore:
    """Every message type this package reads or writes, standard ones included. Raises BagError."""
    types = get_types_from_msg(_PACKET_TEXT, EVENT_PACKET)
    for package in ('dvs_msgs', 'prophesee_event_msgs'):
        types.update(get_types_from_msg(_ARRAY_TEXT, f'{package}/msg/EventArray'))
        types.update(get_types_from_msg(_EVENT_TEXT, f'{package}/msg/Event'))
    for file in sorted(definitions_folder().glob('*.msg')):
        types.update(get_types_from_msg(file.read_text(), f'mos_msgs/msg/{file.stem}'))
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(types)
    return store


def deserialize(msgtype: str, cdr: bytes | memoryview) -> Any:
    """The message object in the bytes; byte arrays are read-only views of them. Raises BagError."""
    try:
        return typestore().deserialize_cdr(cdr, msgtype)
    except (SerdeError, KeyError, IndexError, struct.error) as error:
        raise BagError(
            f'{len(cdr)} bytes are no {msgtype}: {error}; record with the same definitions'
        ) from error


def serialize(msgtype: str, message: Any) -> bytes:
    """CDR bytes of a message object."""
    return bytes(typestore().serialize_cdr(message, msgtype))


def make(msgtype: str, **fields: Any) -> Any:
    """A message object of a known type with all its fields."""
    return typestore().types[msgtype](**fields)


def stamp_ns(header: Any) -> int:
    """ROS time of a header, ns."""
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def header(stamp_ns: int, frame_id: str) -> Any:
    """A std_msgs/Header."""
    seconds, nanoseconds = divmod(int(stamp_ns), 10**9)
    return make(
        'std_msgs/msg/Header',
        stamp=make('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds),
        frame_id=frame_id,
    )


def read_frame(cdr: bytes) -> Frame:
    """Frame of a sensor_msgs/Image. Raises FrameError for its pixels, BagError for its bytes."""
    message = deserialize(IMAGE, cdr)
    image = to_rgb(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        message.data,
    )
    return Frame(stamp_ns(message.header), image, message.header.frame_id)


def read_compressed(cdr: bytes) -> Frame:
    """Frame of a sensor_msgs/CompressedImage. Raises FrameError for its picture, BagError for its
    bytes.
    """
    message = deserialize(COMPRESSED, cdr)
    return Frame(stamp_ns(message.header), compressed_to_rgb(message.format, message.data),
                 message.header.frame_id)


def read_ids(cdr: bytes) -> tuple[int, np.ndarray]:
    """(stamp ns, (H, W) u16 object ids) of a ground-truth instance image.

    Raises FrameError, BagError.
    """
    message = deserialize(IMAGE, cdr)
    return stamp_ns(message.header), to_ids(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        message.data,
    )


def _image(
    stamp: int, frame_id: str, encoding: str, rows: np.ndarray, width: int, is_bigendian: bool
) -> bytes:
    return serialize(IMAGE, make(
        IMAGE, header=header(stamp, frame_id), height=len(rows), width=width, encoding=encoding,
        is_bigendian=int(is_bigendian), step=rows.shape[1], data=rows.reshape(-1)))


def write_frame(frame: Frame, encoding: str = 'rgb8') -> bytes:
    """CDR of a sensor_msgs/Image in one of the encodings of `images.from_rgb`."""
    return _image(
        frame.stamp_ns,
        frame.frame_id,
        encoding,
        from_rgb(frame.image, encoding),
        frame.size[1],
        False,
    )


def write_ids(stamp: int, ids: np.ndarray, frame_id: str = '') -> bytes:
    """CDR of a mono16 sensor_msgs/Image whose pixels are (H, W) ids."""
    rows, is_bigendian = from_ids(ids)
    return _image(stamp, frame_id, 'mono16', rows, ids.shape[1], is_bigendian)


def read_packet(cdr: bytes) -> EventPacket:
    """EventPacket of an event_camera_msgs/EventPacket; the payload is a view. Raises BagError."""
    message = deserialize(EVENT_PACKET, cdr)
    if message.is_bigendian:
        raise BagError(
            'event packet was recorded on a big-endian host: only little-endian payloads are '
            'decoded'
        )
    return EventPacket(
        stamp_ns(message.header),
        message.encoding,
        message.height,
        message.width,
        message.seq,
        message.time_base,
        message.events,
        message.header.frame_id,
    )


def write_packet(packet: EventPacket) -> bytes:
    """CDR of an event_camera_msgs/EventPacket."""
    return serialize(
        EVENT_PACKET,
        make(
            EVENT_PACKET,
            header=header(packet.stamp_ns, packet.frame_id),
            height=packet.height,
            width=packet.width,
            seq=packet.seq,
            time_base=packet.time_base,
            encoding=packet.encoding,
            is_bigendian=False,
            events=np.ascontiguousarray(packet.payload, np.uint8),
        ),
    )


def read_event_array(cdr: bytes | memoryview) -> EventArray:
    """EventArray of a dvs_msgs/EventArray, by strided views of the bytes, sorted by time. Raises
    BagError.

    CDR aligns to 4 bytes, so the first event takes 14 bytes and the others 16 with their time two
    bytes later.
    """
    try:
        order = {0: '>', 1: '<'}[cdr[1]]
        sec, nsec, length = struct.unpack_from(f'{order}iII', cdr, 4)
        name = bytes(cdr[16:16 + max(length - 1, 0)]).decode()
        start = 4 + (12 + length + 3) // 4 * 4
        height, width, count = struct.unpack_from(f'{order}III', cdr, start)
        end = start + 12 + (0, 13)[count > 0] + 16 * max(count - 1, 0)
        if not end <= len(cdr) <= end + 3:
            raise ValueError(f'{count} events need {end}')
        events = _event_records(cdr, start + 12, count, order)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise BagError(f'{len(cdr)} bytes are no event array: {error}; record it again') from error
    return EventArray(sec * 10**9 + nsec, height, width, events, name)


def _event_records(cdr: bytes | memoryview, start: int, count: int, order: str) -> Events:
    """The `count` events from byte `start` on."""
    if count == 0:
        return Events.empty()
    formats = [f'{order}u2', f'{order}u2', f'{order}i4', f'{order}u4', 'u1']
    names = ['x', 'y', 'sec', 'nsec', 'p']
    head = np.dtype(
        {'names': names, 'formats': formats, 'offsets': [0, 2, 4, 8, 12], 'itemsize': 13}
    )
    tail = np.dtype(
        {'names': names, 'formats': formats, 'offsets': [0, 2, 6, 10, 14], 'itemsize': 15}
    )
    parts = [np.ndarray(1, head, cdr, start)]
    if count > 1:
        parts.append(np.ndarray(count - 1, tail, cdr, start + 14, strides=(16,)))
    column = {name: np.concatenate([part[name] for part in parts]) for name in names}
    t = column['sec'].astype(np.int64) * 10**9 + column['nsec']
    rank = np.argsort(t, kind='stable') if np.any(t[1:] < t[:-1]) else slice(None)
    return Events(column['x'].astype(np.uint16)[rank], column['y'].astype(np.uint16)[rank],
                  (column['p'] != 0).astype(np.uint8)[rank], t[rank])
