"""What a result's `mos_msgs/Instances` holds: one owner, for the node's messages and for bags.

Plain values only, so that neither rclpy nor a bag library is needed: `ros/convert.py` makes rclpy
messages of them, `results.py` those of `rosbags`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.datatypes import Modality, Result
from mos_perception.masks import COCO_RLE, coco_codes

MODALITIES = (Modality.BOTH, Modality.FRAME, Modality.EVENTS)  # by the message's constants


def message_fields(result: Result, with_masks: bool = True,
                   with_digest: bool = True) -> dict[str, Any]:
    """All fields of mos_msgs/Instances but `header`.

    `instances`: the fields of each mos_msgs/Instance, best score first, with `mask` as bytes;
    `stages`: the fields of each mos_msgs/StageTime. The window's digest costs about 1 ms per 2 MB.
    """
    height, width = result.instances.size
    window = result.window
    return {
        'height': height, 'width': width, 'modality': MODALITIES.index(result.modality),
        'degraded': bool(result.degraded), 'degraded_reason': result.degraded,
        'model_id': result.model_id, 'epoch': result.epoch,
        'event_count': len(window.events) if window else 0,
        'window_digest': window.digest() if window and with_digest else '',
        'instances': _instances(result, with_masks),
        'stages': [{'name': name, 'milliseconds': float(value)}
                   for name, value in result.stage_ms.items()]}


def track_fields(result: Result) -> list[dict[str, Any]]:
    """The fields of each mos_msgs/Track of a mos_msgs/Tracks, ids ascending."""
    seen = result.tracks
    return [{'id': int(seen.ids[m]), 'state': int(seen.states[m]), 'age': float(seen.ages_s[m]),
             'box': np.asarray(seen.boxes[m], np.float32),
             'velocity': np.asarray(seen.velocities[m], np.float32)}
            for m in np.argsort(seen.ids, kind='stable').tolist()]


def _instances(result: Result, with_masks: bool) -> list[dict[str, Any]]:
    found, count = result.instances, len(result.instances)
    ids = result.tracks.instance_ids(count)
    velocities = result.tracks.instance_velocities(count).astype(np.float32)
    codes = coco_codes(found.masks) if with_masks else [b''] * count
    rows = []
    for n in np.argsort(-found.scores, kind='stable').tolist():
        moving = bool(found.moving[n])
        rows.append({
            'track_id': int(ids[n]), 'label': found.label(n),
            'score': float(found.scores[n]), 'motion_score': float(found.motion_scores[n]),
            'is_moving': moving, 'box': found.boxes[n].astype(np.float32),
            'mask_encoding': COCO_RLE if with_masks else '',
            'mask_size': np.array(found.size, np.uint32), 'mask': codes[n],
            'velocity': velocities[n]})
    return rows
