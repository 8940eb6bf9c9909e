"""Events into the view of the frames, before anything else looks at them.

    same_pixels  one sensor, or rectified: nothing to do
    scale        same view, other size: nothing to do here, grids scale by themselves
    homography   a table from `homography_file`
    camera_info  a table from both cameras' calibrations and the transform between them

Where the table cannot be made, events are refused with the reason (SkipReason.UNREGISTERED): never
used at wrong places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.config import TF_STATIC, Config
from mos_perception.datatypes import Events, Skip, SkipReason
from mos_perception.errors import ConfigError
from mos_perception.events.decode import refused
from mos_perception.motion import pixel_table
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.gyroscope import Gyroscope
from mos_perception.motion.homography_file import read_homography
from mos_perception.motion.pixel_table import PixelTable
from mos_perception.motion.transforms import TransformTree

Geometry = Calibration | tuple  # of Transforms: what is told of the cameras
_TABLES = ('homography', 'camera_info')
_NAMES = {'events': 'event camera', 'frames': 'frame camera'}


class Registration:
    """Knows both cameras, builds the table once, and hands the gyroscope the calibration of the
    pixels that events end in.
    """

    def __init__(self, config: Config, gyroscope: Gyroscope) -> None:
        """Raises ConfigError where the parameters contradict each other or the file is bad."""
        self._way, self._plane_m = config.registration, config.plane_distance_m
        self._topics = {'events': config.camera_info_topic,
                        'frames': config.image_camera_info_topic}
        self._gyroscope = gyroscope
        self._cameras: dict[str, Calibration] = {}
        self._tree = TransformTree()
        self._table: PixelTable | None = None
        self._made_of: Any = None
        self._why = self._baseline = ''
        self._outside = 0
        self._refusal: list[Skip] = []
        _check(config)
        if self._way == 'homography':
            found = read_homography(config.homography_file)
            self._table = pixel_table.from_homography(found.matrix, found.event_size,
                                                      found.frame_size)
        elif self._way == 'camera_info':
            self._build()

    def take(self, told: Geometry, camera: str = 'events') -> list[Skip]:
        """Take the calibration of a camera, 'events' or 'frames', or transforms of `/tf_static`.

        Refuses what the gyroscope refuses.
        """
        if isinstance(told, Calibration):
            if self._cameras.get(camera) == told:
                return self._refusal
            self._cameras[camera] = told
        else:
            for transform in told:
                self._tree.add(transform)
        if self._way == 'camera_info':
            self._build()
        elif camera == 'events' and isinstance(told, Calibration):
            self._refusal = self._gyroscope.calibrate(told)
        return self._refusal

    def apply(self, events: Events, size: tuple[int, int], skips: list[Skip],
              frame_size: tuple[int, int] | None,
              ) -> tuple[Events, tuple[int, int], list[Skip]]:
        """Events of a sensor `size` in the frame's view, the size of their grid there, and `skips`
        with why they are refused. `frame_size` of the frames that came, None before the first.
        """
        table = self._table
        if self._way not in _TABLES or refused(skips):
            return events, size, skips
        why = self._why or (_other_size('event camera', size, table.event_size)
                            or _other_size('frame', frame_size or table.frame_size,
                                           table.frame_size))
        if why:
            stamp_ns = int(events.t[0]) if len(events) else 0
            return Events.empty(), size, [*skips, Skip(SkipReason.UNREGISTERED, stamp_ns, why)]
        moved = table.apply(events)
        self._outside += len(events) - len(moved)
        return moved, table.size, skips

    def report(self) -> dict[str, Any]:
        """How events are registered, or why not, and how many the frame camera does not see."""
        if self._way == 'same_pixels':
            return {}
        told = {'registration': self._why or f'{self._way}{self._baseline}'}
        if self._table is not None:
            told['event pixels inside the frame'] = f'{self._table.share_inside:.1%}'
            told['total events outside the frame'] = self._outside
        return told

    def _build(self) -> None:
        """The table of both cameras, or why there is none; the gyroscope's calibration with it:
        registered events are in the frame camera's pixels, seen along its axes.
        """
        self._why = self._lacking()
        if self._why:
            return
        event, frame = self._cameras['events'], self._cameras['frames']
        to_frame = self._tree.between(event.frame_id, frame.frame_id)
        made_of = event, frame, to_frame.tobytes()
        if made_of == self._made_of:  # every publisher of /tf_static sends what others do not need
            return
        self._made_of, self._table, self._baseline = made_of, None, ''
        try:
            table = pixel_table.from_cameras(event, frame, to_frame, self._plane_m)
        except ConfigError as error:
            self._why = str(error)
            return
        self._table = table
        self._baseline = _parallax(float(np.linalg.norm(to_frame[:3, 3])), frame, self._plane_m)
        self._refusal = self._gyroscope.calibrate(frame.at_size(table.size), to_frame[:3, :3])

    def _lacking(self) -> str:
        for camera, topic in self._topics.items():
            if camera not in self._cameras:
                return f'no calibration of the {_NAMES[camera]} yet: nothing usable on {topic}'
        event, frame = (self._cameras[camera].frame_id for camera in self._topics)
        if not (event and frame) or self._tree.between(event, frame) is None:
            return (f'no transform from frame {event!r} (event camera) to {frame!r} (frame '
                    f'camera) yet: publish it on {TF_STATIC}')
        return ''


def _check(config: Config) -> None:
    way = config.registration
    if way == 'homography' and not config.homography_file:
        raise ConfigError('registration is homography: name homography_file, made by '
                          '`mos register BAG`')
    if way == 'homography' and config.imu_topic:
        raise ConfigError('registration is homography: it does not say how the cameras are turned, '
                          'which imu_topic needs; use registration camera_info, or no imu_topic')
    if way in _TABLES and not (config.image_topic and config.events_topic):
        raise ConfigError(f'registration is {way}: it takes events into frames, so name '
                          'image_topic and events_topic, or use same_pixels')
    if way in _TABLES and config.sync_policy != 'event_time':
        raise ConfigError(f'registration is {way}: it moves events, which event frames do not '
                          'have; use sync_policy event_time, or same_pixels')
    topics = config.camera_info_topic, config.image_camera_info_topic
    if way == 'camera_info' and (not all(topics) or topics[0] == topics[1]):
        raise ConfigError(
            f'registration is camera_info with camera_info_topic {topics[0]!r} and '
            f'image_camera_info_topic {topics[1]!r}: name both calibrations, the event '
            "camera's and the frame camera's")


def _other_size(what: str, size: tuple[int, int], wanted: tuple[int, int]) -> str:
    if size == wanted:
        return ''
    return (f'{what} is {size} (height, width), its calibration is for {wanted}: calibrate at '
            'the size that is used')


def _parallax(baseline_m: float, frame: Calibration, plane_m: float) -> str:
    """What the distance between the cameras costs off the plane: focal length x baseline x
    |1 / Z - 1 / plane| px at depth Z (Hartley and Zisserman 2003, section 13.1)."""
    if baseline_m < 1e-4:
        return ''
    off = frame.intrinsics[0] * baseline_m * (1 / plane_m if plane_m else 1)
    where = f'at infinity, plane at {plane_m:g} m' if plane_m else 'at 1 m, plane at infinity'
    return f': baseline {1e3 * baseline_m:.0f} mm, {off:.1f} px off {where}'
