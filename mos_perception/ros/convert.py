"""ROS messages <-> the values of `datatypes`. Shapes: N instances, M tracks, H W pixels.

Bytes are read by view (`np.frombuffer`) and written as `array.array('B')`: anything else makes the
generated Python classes check and copy element by element.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mos_msgs.msg import Instance, Instances, Motion, StageTime, Track, Tracks
from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Events, Frame, Modality, Pair, Result
from mos_perception.errors import DecodeError
from mos_perception.image_encodings import from_ids, from_rgb, to_rgb
from mos_perception.masks import COCO_RLE, coco_codes

_MODALITY = {Modality.BOTH: Instances.MODALITY_BOTH, Modality.FRAME: Instances.MODALITY_FRAME,
             Modality.EVENTS: Instances.MODALITY_EVENTS}
_ID_LIMIT = 65535  # largest mono16 pixel


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
    """A Frame from sensor_msgs/Image. Raises FrameError."""
    image = to_rgb(message.encoding, message.height, message.width, message.step, bool(message.is_bigendian),
                   np.frombuffer(message.data, np.uint8))
    return Frame(to_ns(message.header.stamp), image, message.header.frame_id)


def packet(message: Any) -> EventPacket:
    """An EventPacket from event_camera_msgs/EventPacket. Raises DecodeError for a big-endian payload."""
    if message.is_bigendian:
        raise DecodeError(f'event packet {message.seq} is big-endian: only little-endian recordings are decoded')
    return EventPacket(to_ns(message.header.stamp), message.encoding, message.height, message.width, message.seq,
                       message.time_base, np.frombuffer(message.events, np.uint8), message.header.frame_id)


def event_array(raw: bytes) -> tuple[Events, tuple[int, int], str]:
    """Events, (height, width) and frame_id from a serialised dvs_msgs/EventArray. Raises BagError if cut short."""
    from mos_perception.recording.messages import (
        read_event_array,  # the bag reader's library, needed for this type only
    )
    found = read_event_array(raw)
    return found.events, (found.height, found.width), found.frame_id


def header(result: Result) -> Header:
    """Stamp and frame_id of the frame, unchanged."""
    return Header(stamp=to_stamp(result.stamp_ns), frame_id=result.frame_id)


def track_ids(result: Result) -> np.ndarray:
    """(N,) int64 track id of each instance, 0 without a track."""
    rows = result.tracks.of_instances(len(result.instances))
    ids = np.zeros(len(rows), np.int64)
    ids[rows >= 0] = result.tracks.ids[rows[rows >= 0]]
    return ids


def instances_message(result: Result, with_masks: bool = True, with_digest: bool = True) -> Instances:
    """mos_msgs/Instances, best score first."""
    found = result.instances
    ids, rows = track_ids(result), result.tracks.of_instances(len(found))
    order = np.argsort(-found.scores, kind='stable')
    codes = coco_codes(found.masks) if with_masks else [b''] * len(found)
    window = result.window
    return Instances(
        header=header(result), height=found.size[0], width=found.size[1], modality=_MODALITY[result.modality],
        degraded=bool(result.degraded), degraded_reason=result.degraded, model_id=result.model_id, epoch=result.epoch,
        event_count=len(window.events) if window else 0,
        window_digest=window.digest() if window and with_digest else '',
        instances=[_instance(result, n, int(ids[n]), int(rows[n]), codes[n]) for n in order.tolist()],
        stages=[StageTime(name=name, milliseconds=value) for name, value in result.stage_ms.items()])


def _instance(result: Result, n: int, track_id: int, row: int, code: bytes) -> Instance:
    found = result.instances
    moving = bool(found.moving[n])
    velocity = result.tracks.velocities[row] if row >= 0 else np.zeros(2)
    return Instance(
        track_id=track_id, label='moving' if moving else 'static', score=float(found.scores[n]),
        motion_score=float(found.motion_scores[n]), is_moving=moving, box=found.boxes[n].astype(np.float32),
        mask_encoding=COCO_RLE if code else '', mask_size=np.array(found.size, np.uint32), mask=array('B', code),
        velocity=np.asarray(velocity, np.float32))


def instance_image_message(result: Result) -> Image:
    """sensor_msgs/Image mono16: pixel = track id, 0 = nothing. Ids above 65535 wrap around to 1."""
    ids = track_ids(result)
    rows, big = from_ids(result.instances.id_image(np.where(ids > 0, (ids - 1) % _ID_LIMIT + 1, 0)))
    return _image(header(result), rows, result.instances.size, 'mono16', big)


def image_message(head: Header, rgb: np.ndarray, encoding: str = 'rgb8') -> Image:
    """sensor_msgs/Image of an (H, W, 3) uint8 RGB image."""
    return _image(head, from_rgb(rgb, encoding), rgb.shape[:2], encoding, False)


def _image(head: Header, rows: np.ndarray, size: tuple[int, int], encoding: str, big: bool) -> Image:
    return Image(header=head, height=size[0], width=size[1], encoding=encoding, is_bigendian=int(big),
                 step=rows.shape[1], data=to_bytes(rows))


def motion_message(result: Result) -> Motion:
    """mos_msgs/Motion: flags of the tracked instances, in the order of `instances_message`."""
    found, ids = result.instances, track_ids(result)
    order = [n for n in np.argsort(-found.scores, kind='stable').tolist() if ids[n] > 0]
    flags = found.moving[order].tolist()
    covered = np.count_nonzero(found.masks[found.moving & (ids > 0)]) / max(found.size[0] * found.size[1], 1)
    return Motion(header=header(result), any_moving=any(flags), track_ids=array('I', ids[order].tolist()),
                  is_moving=flags, moving_fraction=float(covered))


def tracks_message(result: Result) -> Tracks:
    """mos_msgs/Tracks, ids ascending."""
    seen = result.tracks
    return Tracks(header=header(result), epoch=result.epoch, tracks=[
        Track(id=int(seen.ids[m]), state=int(seen.states[m]), age=float(seen.ages_s[m]),
              box=np.asarray(seen.boxes[m], np.float32), velocity=np.asarray(seen.velocities[m], np.float32))
        for m in np.argsort(seen.ids, kind='stable').tolist()])


def overlay_message(result: Result, pair: Pair) -> Image:
    """The frame (without one: its events) with masks and track ids drawn on it, for people."""
    from mos_perception.reports.visualize import event_picture, overlay
    image = pair.frame.image if pair.frame is not None else event_picture(pair.window.events, pair.size)
    text = f'{result.model_id} {result.modality.value}'
    drawn = overlay(image, result.instances, result.tracks, text, degraded=result.degraded)
    return image_message(header(result), drawn)


def output_message(name: str, result: Result, pair: Pair, config: Config) -> Any:
    """The message of the output topic `~/<name>`; `config` says what the instances message holds."""
    if name == 'instances':
        return instances_message(result, config.publish_masks, config.publish_digest)
    if name == 'overlay':
        return overlay_message(result, pair)
    return {'instance_image': instance_image_message, 'motion': motion_message, 'tracks': tracks_message}[name](result)
