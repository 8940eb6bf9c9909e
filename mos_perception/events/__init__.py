"""Event packets -> events in ROS time -> windows -> voxel grids."""

from __future__ import annotations


def warm_up() -> None:
    """Compile, or load from the cache, every loop here, so that the first packet does not wait."""
    import numpy as np

    from mos_perception.datatypes import EventPacket, Events
    from mos_perception.events.decode import WORD_BYTES, EventStream
    from mos_perception.events.voxel import voxelize
    from mos_perception.motion.event_compensation import EventMotion, node_count

    payload = np.array([0x8001, 0x6001, 0x0001, 0x2001], '<u2').view(np.uint8)
    for encoding in WORD_BYTES:
        EventStream().push(EventPacket(1, encoding, 4, 4, 1, 0, payload))
    for count in (16, 1):  # the dense and the direct loop
        zeros = np.zeros(count, np.uint16)
        events = Events(zeros, zeros, zeros.astype(np.uint8), np.full(count, 1, np.int64))
        voxelize(events, 0, 2, size=(2, 2))
    at_rest = EventMotion(np.zeros((*node_count((2, 2)), 2), np.float32), 2, 2)
    voxelize(events, 0, 2, size=(2, 2), motion=at_rest)
