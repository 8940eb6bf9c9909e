"""The values that travel along the data path. No behaviour beyond small conversions.

Time is int nanoseconds of ROS time unless a name says otherwise. Image size is always
(height, width). Shape legend: N instances, M tracks, E events, C channels, H W pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from enum import Enum

import numpy as np

from mos_perception.errors import SyncError
from mos_perception.motion.event_compensation import EventMotion

IMAGE_IDS = 65535  # values of a mono16 image besides 0
MOVABLE = 'movable'  # label of what does not move but could


def image_number(track_id: int) -> int:
    """The value of a track id >= 1 in the mono16 instance image, in [1, IMAGE_IDS].

    Ids above it wrap around to 1; living tracks of one tracker never share a value.
    """
    return (track_id - 1) % IMAGE_IDS + 1


class WindowStatus(str, Enum):
    """How complete the events of a window are."""

    COMPLETE = 'complete'  # the event stream passed the window's end
    LATE = 'late'          # the deadline came first: the window may lack its newest events
    MISSING = 'missing'    # no event packet reached us in the window


class Modality(str, Enum):
    """Which inputs a result was made from."""

    BOTH = 'both'
    FRAME = 'frame'
    EVENTS = 'events'


class TrackState(int, Enum):
    """Life of a track; the numbers are those of `mos_msgs/Track`."""

    TENTATIVE = 0
    CONFIRMED = 1
    LOST = 2


class SkipReason(str, Enum):
    """Why an input gave no result. Each is a counter on `/diagnostics`."""

    OUT_OF_ORDER = 'out_of_order'        # stamp older than the last accepted one
    DUPLICATE = 'duplicate'              # stamp equal to the last accepted one
    SIZE_CHANGED = 'size_changed'        # frame or sensor size differs from the first one
    ENCODING_CHANGED = 'encoding_changed'  # event encoding differs from the first packet's
    NEWER_FRAME = 'newer_frame'          # inference was busy and a newer frame arrived
    BAD_FRAME = 'bad_frame'              # image message refused
    BAD_PACKET = 'bad_packet'            # event packet refused, or only its prefix decoded
    BAD_IMU = 'bad_imu'                  # IMU message refused
    BAD_CAMERA_INFO = 'bad_camera_info'  # camera's calibration refused
    UNREGISTERED = 'unregistered'        # nobody knows where these events are in the frame
    PACKET_GAP = 'packet_gap'            # sequence numbers missing before a packet
    BUFFER_FULL = 'buffer_full'          # oldest packets dropped to bound the memory
    OUT_OF_BOUNDS = 'out_of_bounds'      # events outside the sensor were dropped
    CLOCK_STEP = 'clock_step'            # the host's clock was set forward: event times taken anew
    CLOCK_DRIFT = 'clock_drift'          # it runs apart from the event camera's, more than any does
    RESET = 'reset'                      # the clock jumped or a reset was asked for while it waited
    NO_SUBSCRIBER = 'no_subscriber'      # lazy: nobody listens


@dataclass(frozen=True)
class Frame:
    """One image. `image` is (H, W, 3) uint8 RGB, C-contiguous."""

    stamp_ns: int
    image: np.ndarray
    frame_id: str = ''

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class EventPacket:
    """Undecoded events as `event_camera_msgs/EventPacket` carries them.

    `payload` is (bytes,) uint8; `stamp_ns` the header's host time of the first SDK buffer in
    it; `time_base` as in the message (ns; unused by evt3); `seq` counts packets.
    """

    stamp_ns: int
    encoding: str
    height: int
    width: int
    seq: int
    time_base: int
    payload: np.ndarray
    frame_id: str = ''

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the sensor."""
        return self.height, self.width


@dataclass(frozen=True)
class Events:
    """Structure of arrays, each (E,), sorted by `t`.

    `x`, `y` uint16 pixels, `p` uint8 (1 brighter, 0 darker), `t` int64 ns of ROS time.
    """

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    @staticmethod
    def empty() -> Events:
        """No events, with the right types."""
        return Events(*(np.empty(0, kind) for kind in (np.uint16, np.uint16, np.uint8, np.int64)))

    @staticmethod
    def concatenate(parts: list[Events]) -> Events:
        """Join pieces in the order given."""
        if not parts:
            return Events.empty()
        if len(parts) == 1:
            return parts[0]
        return Events(*(np.concatenate([getattr(part, name) for part in parts]) for name in 'xypt'))

    def between(self, t0_ns: int, t1_ns: int) -> Events:
        """The events with `t0 < t <= t1` (views, no copy)."""
        first, last = np.searchsorted(self.t, [t0_ns, t1_ns], side='right')
        return Events(
            self.x[first:last], self.y[first:last], self.p[first:last], self.t[first:last]
        )


@dataclass(frozen=True)
class EventWindow:
    """The events with `t0 < t <= t1` of a (height, width) sensor, and how complete they are."""

    events: Events
    t0_ns: int
    t1_ns: int
    height: int
    width: int
    status: WindowStatus = WindowStatus.COMPLETE
    lost_packets: int = 0

    def digest(self) -> str:
        """SHA-256 over edges, size and events: equal windows, equal digests."""
        sha = hashlib.sha256(
            np.array([self.t0_ns, self.t1_ns, self.height, self.width], '<i8').tobytes()
        )
        for name, kind in (('x', '<u2'), ('y', '<u2'), ('p', 'u1'), ('t', '<i8')):
            sha.update(np.ascontiguousarray(getattr(self.events, name), kind).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class SyncedInput:
    """What one inference gets: a frame, its events, or both. `epoch` counts resets.

    `size` is (height, width) of the answer. `drawn` is an image of the events where there is no
    frame, for models that look at those. `neighbours` are the frames around `frame` or the images
    around `drawn`, oldest first; `missing_gaps` of the gaps in time that the model looks at have
    none.
    `flow` (h, w, 2) float32, px of its own size: pixel x of this frame stood at x + flow(x) in the
    frame of the answer before; `flow_error` (h, w) float32 by how many grey levels the two places
    differ. None where there is no such frame. `event_motion` is how the static scene moves over the
    event sensor in the window, by a gyroscope; None where none knows it. `waited_ms` is the wait
    for the events and for later frames, `decode_ms` what decoding took since the input before.
    """

    stamp_ns: int
    frame_id: str
    frame: Frame | None
    window: EventWindow | None
    size: tuple[int, int]
    waited_ms: float = 0.0
    decode_ms: float = 0.0
    epoch: int = 0
    drawn: Frame | None = None
    neighbours: tuple[Frame, ...] = ()
    missing_gaps: int = 0
    flow: np.ndarray | None = None
    flow_error: np.ndarray | None = None
    event_motion: EventMotion | None = None

    @staticmethod
    def nothing(size: tuple[int, int]) -> SyncedInput:
        """Neither frame nor events, for an answer of this (height, width): to warm a model up."""
        return SyncedInput(0, '', None, None, size)

    @property
    def picture(self) -> Frame | None:
        """What motion is seen in: the frame, else the image drawn of the events."""
        return self.frame or self.drawn

    @property
    def image(self) -> np.ndarray | None:
        """(H, W, 3) of the frame, None without one."""
        return None if self.frame is None else self.frame.image

    @property
    def modality(self) -> Modality:
        """Which inputs there are."""
        if self.frame is None:
            return Modality.EVENTS
        return Modality.FRAME if self.window is None else Modality.BOTH

    def degraded(self, wants_events: bool = True) -> str:
        """What is missing of what the model takes, in words; '' if nothing."""
        if self.frame is None:
            return 'no frames'
        if self.missing_gaps:
            return f'{self.missing_gaps} motion gaps without a frame'
        if not wants_events:
            return ''
        if self.window is None:
            return 'no events'
        if self.window.status is WindowStatus.LATE:
            return 'events late: the window may lack some'
        return f'{self.window.lost_packets} event packets lost' if self.window.lost_packets else ''

    def check_sizes(self, registration: str = 'same_pixels') -> None:
        """Raise SyncError where frame and events have the same pixels and yet another size."""
        if registration != 'same_pixels' or self.frame is None or self.window is None:
            return
        sensor = (self.window.height, self.window.width)
        if sensor != self.frame.size:
            raise SyncError(
                f'frame is {self.frame.size}, event sensor is {sensor} (height, width): set '
                'registration to scale if both see the same field of view, or to homography or '
                'camera_info'
            )


@dataclass(frozen=True)
class GroundTruth:
    """Who is where in one frame: `ids` (H, W) u16 object id, 0 nothing; `moving` id -> moves."""

    stamp_ns: int
    ids: np.ndarray
    moving: dict[int, bool]


@dataclass(frozen=True)
class Instances:
    """What is in one frame: what a model found, and what the tracker holds (not `moving`).

    `masks` (N, H, W) bool, disjoint; `boxes` (N, 4) float32 x0 y0 x1 y1 px, the extents of the
    mask with exclusive far edge; `scores` (N,) = p(moving) x mask quality; `motion_scores` (N,) =
    p(moving) given that it is an object; `moving` (N,) bool; `embeddings` (N, C) float32; `movable`
    (N,) float32 p(could move), by a single picture, -1 where none found it (the default).
    """

    masks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    motion_scores: np.ndarray
    moving: np.ndarray
    embeddings: np.ndarray
    movable: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Put -1 for what could move where nothing is said."""
        if self.movable is None:
            object.__setattr__(self, 'movable', np.full(len(self.scores), -1, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def label(self, row: int) -> str:
        """'moving', MOVABLE where a single picture shows it, else 'static': held."""
        if self.moving[row]:
            return 'moving'
        return MOVABLE if self.movable[row] >= 0 else 'static'

    def of(self, rows: np.ndarray) -> Instances:
        """Some of them: indices, or (N,) bool."""
        return Instances(*(getattr(self, item.name)[rows] for item in fields(self)))

    def and_after(self, others: Instances) -> Instances:
        """These and after them others."""
        return Instances(*(np.concatenate([getattr(part, item.name) for part in (self, others)])
                           for item in fields(self)))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.masks.shape[1], self.masks.shape[2]

    @staticmethod
    def empty(height: int, width: int, channels: int = 0) -> Instances:
        """No instance in an image of this size."""
        none = np.zeros(0, np.float32)
        return Instances(np.zeros((0, height, width), bool), np.zeros((0, 4), np.float32), none,
                         none, none > 0, np.zeros((0, channels), np.float32))

    def id_image(self, ids: np.ndarray) -> np.ndarray:
        """(H, W) uint16: pixel = `image_number` of ids[n] where mask n is set, 0 elsewhere.

        Id 0 stays 0.
        """
        image = np.zeros(self.size, np.uint16)
        for mask, object_id in zip(self.masks, ids):
            image[mask] = image_number(int(object_id)) if object_id else 0
        return image


@dataclass(frozen=True)
class Tracks:
    """All living tracks after a frame, M of them.

    `ids` (M,) int64 >= 1, never reused within an epoch; `states` (M,) int of `TrackState`; `ages_s`
    (M,) seconds since birth; `boxes` (M, 4) px; `velocities` (M, 2) px/s of the box centre;
    `instance` (M,) index into this frame's Instances, -1 for a track without one.
    """

    ids: np.ndarray
    states: np.ndarray
    ages_s: np.ndarray
    boxes: np.ndarray
    velocities: np.ndarray
    instance: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def of_instances(self, count: int) -> np.ndarray:
        """(count,) index into the tracks for each instance, -1 where it has none."""
        rows = np.full(count, -1, np.int64)
        seen = self.instance >= 0
        rows[self.instance[seen]] = np.flatnonzero(seen)
        return rows

    def instance_ids(self, count: int) -> np.ndarray:
        """(count,) int64 track id of each instance, 0 where it has none."""
        return np.append(self.ids, 0)[self.of_instances(count)].astype(np.int64)

    def instance_velocities(self, count: int) -> np.ndarray:
        """(count, 2) px/s of each instance's track, zeros where it has none."""
        table = np.append(self.velocities.reshape(-1, 2), [[0.0, 0.0]], 0)
        return table[self.of_instances(count)]


@dataclass(frozen=True)
class Result:
    """One frame's answer.

    `stage_ms` maps stage name to milliseconds; `degraded` says why, '' if not.
    """

    stamp_ns: int
    frame_id: str
    instances: Instances
    tracks: Tracks
    window: EventWindow | None
    modality: Modality
    model_id: str
    epoch: int
    degraded: str = ''
    stage_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Skip:
    """An input that gave no result, and why. Counted, never silent."""

    reason: SkipReason
    stamp_ns: int
    detail: str = ''
    count: int = 1


@dataclass(frozen=True)
class Fault:
    """A failed inference: the frame is lost, the process lives; where `final`, it must end: no
    later inference can work in it.
    """

    stamp_ns: int
    message: str
    final: bool = False
