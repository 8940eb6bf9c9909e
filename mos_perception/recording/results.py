"""`mos_msgs/Instances` as bytes to and from results: recorded node output and ground truth.

N instances.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mos_perception.datatypes import MOVABLE, Instances, Modality, Result, Tracks, TrackState
from mos_perception.errors import BagError, DatasetError
from mos_perception.image_encodings import MAX_SIDE
from mos_perception.masks import COCO_RLE, mask_from_coco, object_boxes
from mos_perception.recording.instances_message import MODALITIES, message_fields, track_fields
from mos_perception.recording.messages import (
    INSTANCES,
    TRACKS,
    deserialize,
    header,
    make,
    serialize,
    stamp_ns,
)

NODE = '/mos_perception'  # below it are the node's topics, if nobody renamed it
MAX_MASK_BYTES = 1 << 30  # a hundred masks of 10 megapixels


@dataclass(frozen=True)
class NodeResult:
    """What a recorded `mos_msgs/Instances` holds: a Result without its event window and embeddings.

    `tracks` are only those seen in this frame, all of them CONFIRMED, age 0: the message has no
    more.
    """

    stamp_ns: int
    frame_id: str
    instances: Instances
    tracks: Tracks
    modality: Modality
    model_id: str
    epoch: int
    degraded: str
    event_count: int
    window_digest: str
    stage_ms: dict[str, float] = field(default_factory=dict)


def result_digest(result: Result | NodeResult) -> str:
    """SHA-256 over the image of track ids and, by track id, the scores: equal answers, equal
    digests.
    """
    ids = result.tracks.instance_ids(len(result.instances))
    order = np.lexsort((-result.instances.scores, ids))
    sha = hashlib.sha256(np.array(result.instances.size, '<i8').tobytes())
    sha.update(result.instances.id_image(ids).astype('<u2').tobytes())
    sha.update(ids[order].astype('<i8').tobytes())
    sha.update(result.instances.scores[order].astype('<f4').tobytes())
    return sha.hexdigest()


def write_result(result: Result) -> bytes:
    """CDR of a mos_msgs/Instances, as the node publishes it."""
    fields = message_fields(result)
    for row in fields['instances']:
        row['mask'] = np.frombuffer(row['mask'], np.uint8)
    fields['instances'] = [make('mos_msgs/msg/Instance', **row) for row in fields['instances']]
    fields['stages'] = [make('mos_msgs/msg/StageTime', **row) for row in fields['stages']]
    return _message(result.stamp_ns, result.frame_id, **fields)


def write_tracks(result: Result) -> bytes:
    """CDR of a mos_msgs/Tracks, as the node publishes it."""
    tracks = [make('mos_msgs/msg/Track', **row) for row in track_fields(result)]
    return serialize(TRACKS, make(TRACKS, header=header(result.stamp_ns, result.frame_id),
                                  epoch=result.epoch, tracks=tracks))


def read_result(cdr: bytes) -> NodeResult:
    """The result in a mos_msgs/Instances. Raises BagError."""
    message = deserialize(INSTANCES, cdr)
    rows, size = message.instances, (message.height, message.width)
    if not (0 < min(size) and max(size) <= MAX_SIDE):
        raise BagError(
            f'result is of a {size[0]} x {size[1]} px image: each side must be within [1, '
            f'{MAX_SIDE}]'
        )
    if len(rows) * size[0] * size[1] > MAX_MASK_BYTES:
        raise BagError(f'result has {len(rows)} masks of {size[0]} x {size[1]} px: at most '
                       f'{MAX_MASK_BYTES} px in all are read')
    masks = np.zeros((len(rows), *size), bool)
    for n, row in enumerate(rows):
        if row.mask_encoding:  # else its pages stay untouched
            masks[n] = _decode(row, size)
    boxes = np.array([row.box for row in rows], np.float32).reshape(-1, 4)
    instances = Instances(
        masks,
        boxes,
        np.array([row.score for row in rows], np.float32),
        np.array([row.motion_score for row in rows], np.float32),
        np.array([row.is_moving for row in rows], bool),
        np.zeros((len(rows), 0), np.float32),
        np.array([row.score if row.label == MOVABLE else -1 for row in rows], np.float32),
    )
    seen = np.array([n for n, row in enumerate(rows) if row.track_id > 0], np.int64)
    tracks = Tracks(
        np.array([rows[n].track_id for n in seen], np.int64),
        np.full(len(seen), TrackState.CONFIRMED.value),
        np.zeros(len(seen)),
        boxes[seen],
        np.array([rows[n].velocity for n in seen], np.float32).reshape(-1, 2),
        seen,
    )
    if message.modality >= len(MODALITIES):
        raise BagError(f'result has modality {message.modality}: must be below {len(MODALITIES)}')
    return NodeResult(
        stamp_ns(message.header),
        message.header.frame_id,
        instances,
        tracks,
        MODALITIES[message.modality],
        message.model_id,
        message.epoch,
        message.degraded_reason,
        message.event_count,
        message.window_digest,
        {stage.name: stage.milliseconds for stage in message.stages},
    )


def write_truth(stamp: int, ids: np.ndarray, moving: dict[int, bool], frame_id: str = '') -> bytes:
    """CDR of the ground truth's mos_msgs/Instances: id, box, motion of each object in `ids` (H, W).
    """
    rows = []
    for object_id, box in object_boxes(ids).items():
        moves = bool(moving.get(object_id, False))
        rows.append(make(
            'mos_msgs/msg/Instance', track_id=object_id, label='moving' if moves else 'static',
            score=1.0, motion_score=float(moves), is_moving=moves, box=np.array(box, np.float32),
            mask_encoding='', mask_size=np.zeros(2, np.uint32), mask=np.zeros(0, np.uint8),
            velocity=np.zeros(2, np.float32)))
    return _message(stamp, frame_id, height=ids.shape[0], width=ids.shape[1], instances=rows)


def read_truth(cdr: bytes) -> tuple[int, dict[int, bool]]:
    """(stamp ns, id -> moves) of the ground truth's mos_msgs/Instances. Raises BagError."""
    message = deserialize(INSTANCES, cdr)
    return stamp_ns(message.header), {
        int(row.track_id): bool(row.is_moving) for row in message.instances
    }


def _message(stamp: int, frame_id: str, **fields: Any) -> bytes:
    empty = {'modality': 0, 'degraded': False, 'degraded_reason': '', 'model_id': '', 'epoch': 0,
             'event_count': 0, 'window_digest': '', 'stages': []}
    return serialize(
        INSTANCES, make(INSTANCES, header=header(stamp, frame_id), **{**empty, **fields})
    )


def _decode(row: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of an instance message that carries one. Raises BagError."""
    found = tuple(int(value) for value in row.mask_size)
    if row.mask_encoding != COCO_RLE or found != size:
        raise BagError(
            f'instance mask is {row.mask_encoding!r} of {found} px: must be {COCO_RLE!r} of {size} '
            'px'
        )
    try:
        return mask_from_coco({'size': size, 'counts': row.mask.tobytes().decode('latin-1')})
    except DatasetError as error:
        raise BagError(f'instance {error}') from error
