"""ROS messages <-> the values of `datatypes`. Shapes: N instances, M tracks, H W pixels.

Bytes are read by view (`np.frombuffer`) and written as `array.array('B')`: anything else makes the
generated Python classes check and copy element by element.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mos_msgs.msg import Instance, Instances, Motion, StageTime, Track, Tracks
from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Events, Frame, Result, SyncedInput
from mos_perception.errors import DecodeError, FrameError
from mos_perception.image_encodings import (
    ENCODINGS,
    check_image_size,
    compressed_to_rgb,
    from_ids,
    from_rgb,
    to_rgb,
)
from mos_perception.recording.instances_message import message_fields, track_fields
from mos_perception.ros.detections import detections_message


def to_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_stamp(stamp_ns: int) -> Time:
    """The stamp of nanoseconds >= 0."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def to_bytes(data: Any) -> array:
    """`array.array('B')` from anything with a contiguous buffer."""
    out = array('B')
    out.frombytes(memoryview(data).cast('B'))
    return out


def frame(message: Image) -> Frame:
    """A Frame from sensor_msgs/Image; encodings that we do not convert go through cv_bridge where
    it is installed. Raises FrameError.
    """
    if message.encoding not in ENCODINGS:
        image = _by_cv_bridge(message)
        return Frame(to_ns(message.header.stamp), image, message.header.frame_id)
    image = to_rgb(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        np.frombuffer(message.data, np.uint8),
    )
    return Frame(to_ns(message.header.stamp), image, message.header.frame_id)


def compressed_frame(message: CompressedImage) -> Frame:
    """A Frame from sensor_msgs/CompressedImage. Raises FrameError."""
    image = compressed_to_rgb(message.format, np.frombuffer(message.data, np.uint8))
    return Frame(to_ns(message.header.stamp), image, message.header.frame_id)


def _by_cv_bridge(message: Image) -> np.ndarray:
    """(H, W, 3) u8 RGB: 16-bit colour and mosaics, NV21, NV24 and what else cv_bridge knows."""
    check_image_size(message.height, message.width)
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # built for another NumPy it raises anything
        raise FrameError(
            f'image encoding {message.encoding!r} is unknown: use one of {", ".join(ENCODINGS)}, '
            f'or install ros-$ROS_DISTRO-cv-bridge ({type(error).__name__}: {error})'
        ) from error
    try:
        image = np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # its own, OpenCV's and NumPy's
        raise FrameError(
            f'image encoding {message.encoding!r} is unknown to us, and cv_bridge says: {error}'
        ) from error
    if image.shape != (message.height, message.width, 3) or image.dtype != np.uint8:
        raise FrameError(
            f'cv_bridge made {image.shape} {image.dtype} of a {message.height} x {message.width} '
            f'{message.encoding} image: must be (height, width, 3) uint8'
        )
    return image


def packet(message: Any) -> EventPacket:
    """An EventPacket from event_camera_msgs/EventPacket.

    Raises DecodeError for a big-endian payload.
    """
    if message.is_bigendian:
        raise DecodeError(
            f'event packet {message.seq} is big-endian: only little-endian recordings are decoded'
        )
    return EventPacket(
        to_ns(message.header.stamp),
        message.encoding,
        message.height,
        message.width,
        message.seq,
        message.time_base,
        np.frombuffer(message.events, np.uint8),
        message.header.frame_id,
    )


def event_array(raw: bytes) -> tuple[Events, tuple[int, int], str]:
    """Events, (height, width) and frame_id from a serialised dvs_msgs/EventArray.

    Raises BagError if cut short.
    """
    # the bag reader's library, needed for this type only
    from mos_perception.recording.messages import read_event_array
    found = read_event_array(raw)
    return found.events, (found.height, found.width), found.frame_id


def header(result: Result) -> Header:
    """Stamp and frame_id of the frame, unchanged."""
    return Header(stamp=to_stamp(result.stamp_ns), frame_id=result.frame_id)


def instances_message(result: Result, with_masks: bool = True,
                      with_digest: bool = True) -> Instances:
    """mos_msgs/Instances, best score first."""
    fields = message_fields(result, with_masks, with_digest)
    for row in fields['instances']:
        row['mask'] = to_bytes(row['mask'])
    fields['instances'] = [Instance(**row) for row in fields['instances']]
    fields['stages'] = [StageTime(**row) for row in fields['stages']]
    return Instances(header=header(result), **fields)


def instance_image_message(result: Result) -> Image:
    """sensor_msgs/Image mono16: pixel = track id, 0 = nothing. Ids above 65535 wrap around to 1."""
    ids = result.tracks.instance_ids(len(result.instances))
    rows, big = from_ids(result.instances.id_image(ids))
    return _image(header(result), rows, result.instances.size, 'mono16', big)


def image_message(head: Header, rgb: np.ndarray, encoding: str = 'rgb8') -> Image:
    """sensor_msgs/Image of an (H, W, 3) uint8 RGB image."""
    return _image(head, from_rgb(rgb, encoding), rgb.shape[:2], encoding, False)


def _image(
    head: Header, rows: np.ndarray, size: tuple[int, int], encoding: str, big: bool
) -> Image:
    return Image(
        header=head,
        height=size[0],
        width=size[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=to_bytes(rows),
    )


def motion_message(result: Result) -> Motion:
    """mos_msgs/Motion: flags of the tracked instances, in the order of `instances_message`."""
    found = result.instances
    ids = result.tracks.instance_ids(len(found))
    order = [n for n in np.argsort(-found.scores, kind='stable').tolist() if ids[n] > 0]
    flags = found.moving[order].tolist()
    covered = np.count_nonzero(found.masks[found.moving & (ids > 0)]) / max(
        found.size[0] * found.size[1], 1
    )
    return Motion(
        header=header(result),
        any_moving=any(flags),
        track_ids=array('I', ids[order].tolist()),
        is_moving=flags,
        moving_fraction=float(covered),
    )


def tracks_message(result: Result) -> Tracks:
    """mos_msgs/Tracks, ids ascending."""
    return Tracks(header=header(result), epoch=result.epoch,
                  tracks=[Track(**row) for row in track_fields(result)])


def overlay_message(result: Result, sample: SyncedInput) -> Image:
    """The frame (without one: its events) with masks and track ids drawn on it, for people."""
    from mos_perception.reports.visualize import event_picture, overlay
    image = sample.frame.image if sample.frame is not None else event_picture(
        sample.window.events, sample.size)
    text = f'{result.model_id} {result.modality.value}'
    drawn = overlay(image, result.instances, result.tracks, text, degraded=result.degraded)
    return image_message(header(result), drawn)


def output_message(name: str, result: Result, sample: SyncedInput, config: Config) -> Any:
    """The message of the output topic `~/<name>`; `config` says what the instances message holds.
    """
    if name == 'instances':
        return instances_message(result, config.publish_masks, config.publish_digest)
    if name == 'overlay':
        return overlay_message(result, sample)
    if name == 'detections':
        return detections_message(header(result), result)
    return {
        'instance_image': instance_image_message,
        'motion': motion_message,
        'tracks': tracks_message,
    }[name](result)
