"""The camera's rotation, from a gyroscope, as the motion of the static scene over the event sensor.

A gyroscope measures the angular velocity w of the camera itself, in its own frame, right-handed. A
static point X in the camera's optical frame (REP 103: x right, y down, z forward) then moves by
dX/dt = -w x X (Longuet-Higgins and Prazdny 1980, without translation). So w = (0, +, 0), the camera
turned to the right, moves the scene to the left. w is linear in time between two samples, and
over each such piece the rotation is exp(-[w]x dt) with w from the middle.

Translation is not seen: near things keep their parallax.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Skip, SkipReason
from mos_perception.errors import ConfigError
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.event_compensation import EventMotion, from_displacement, node_pixels
from mos_perception.motion.transforms import rotation_matrix

MAX_GAP_NS = 30_000_000   # between two samples: what is held or flies shakes at 10 Hz and more
MAX_LAG_NS = 100_000_000  # behind the events: for a gyroscope further behind nothing waits
MAX_SAMPLES = 20_000
UNIT_TOLERANCE = 0.01     # of a quaternion's length


@dataclass(frozen=True)
class AngularVelocity:
    """One sample: `rad_s` around x, y, z of the IMU's frame, right-handed."""

    stamp_ns: int
    rad_s: tuple[float, float, float]


class Gyroscope:
    """Keeps the newest angular velocities and knows the scene's motion in a window of time.

    Where it does not, `report` counts why.
    """

    @classmethod
    def of(cls, config: Config) -> Gyroscope:
        """As the parameters say. Raises ConfigError where they contradict each other."""
        if config.imu_topic and not (config.camera_info_topic and config.events_topic):
            raise ConfigError(
                'imu_topic moves events along the rotation of their camera: name events_topic and '
                "camera_info_topic (the event camera's calibration) too, or leave imu_topic empty")
        if config.imu_topic and config.sync_policy != 'event_time':
            raise ConfigError('imu_topic needs the times of events, which event frames do not '
                              'have: use sync_policy event_time, or leave imu_topic empty')
        return cls(rotation_of(config.imu_to_camera_rotation))

    def __init__(self, imu_to_camera: np.ndarray | None = None) -> None:
        """`imu_to_camera` (3, 3) takes a vector of the IMU's frame to the camera's optical frame.
        """
        self._imu_to_camera = np.eye(3) if imu_to_camera is None else imu_to_camera
        self._turned = np.eye(3)
        self._calibration: Calibration | None = None  # the newest one, refused or not
        self._refusal: list[Skip] = []
        self._nodes = self._rays = np.empty((0, 0))
        self._counts: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget the samples; calibration and counts stay."""
        self._samples: deque[tuple[int, tuple[float, float, float]]] = deque(maxlen=MAX_SAMPLES)

    @property
    def last_ns(self) -> int | None:
        """Stamp of the newest sample; None without one."""
        return self._samples[-1][0] if self._samples else None

    def push(self, sample: AngularVelocity) -> list[Skip]:
        """Take one sample, in the IMU's frame. Refuses stamps that do not move forward."""
        last = self.last_ns
        if last is not None and sample.stamp_ns <= last:
            reason = SkipReason.DUPLICATE if sample.stamp_ns == last else SkipReason.OUT_OF_ORDER
            return [Skip(reason, sample.stamp_ns, f'imu stamp {sample.stamp_ns} after {last}')]
        self._samples.append((sample.stamp_ns, sample.rad_s))
        return []

    def calibrate(self, calibration: Calibration,
                  turned: np.ndarray | None = None) -> list[Skip]:
        """Take the calibration of the pixels that events are in: the event camera's, or another's
        that they were moved to; `turned` (3, 3) then takes vectors of the event camera to that one.
        Refuses one that its own sensor's pixels leave.
        """
        self._turned = np.eye(3) if turned is None else turned
        if calibration != self._calibration:
            self._calibration, self._refusal = calibration, []
            nodes = node_pixels(calibration.size).reshape(-1, 2)
            rays, good = calibration.unproject(nodes)
            if not good.all():  # nodes beyond the sensor's edge are taken from the edge
                corner = np.array(calibration.size[::-1]) - 1
                nodes[~good] = np.minimum(nodes[~good], corner)
                rays, good = calibration.unproject(nodes)
            self._nodes, self._rays = nodes, rays
            if not good.all():
                x, y = nodes[~good][0]
                self._refusal = [Skip(
                    SkipReason.BAD_CAMERA_INFO, 0, f'lens distortion {calibration.distortion}: '
                    f'pixel ({x:g}, {y:g}) of the sensor sees nothing through it; calibrate with '
                    'points up to the corners')]
        return self._refusal

    def behind(self, t_ns: int, watermark_ns: int | None) -> bool:
        """Whether samples up to `t_ns` are still to come, while the events reached `watermark_ns`.

        A gyroscope that is silent, or far behind the events, is not waited for.
        """
        last = self.last_ns
        return (last is not None and watermark_ns is not None and last < t_ns
                and watermark_ns - last <= MAX_LAG_NS)

    def motion(self, t0_ns: int, t1_ns: int, size: tuple[int, int]) -> EventMotion | None:
        """How the static scene moves in (t0, t1] over an event sensor `size` (height, width).

        None, counted, where it is not known for all of the window.
        """
        found = self._motion(t0_ns, t1_ns, size)
        known = isinstance(found, EventMotion)
        self._counts['windows' if known else f'unknown: {found}'] += 1
        return found if known else None

    def report(self) -> dict[str, int]:
        """Of how many windows the motion was known, and why it was not, since the start."""
        counts = dict(self._counts)  # at once: another thread may count
        return {f'gyroscope {name}': counts[name] for name in sorted(counts)}

    def _motion(self, t0_ns: int, t1_ns: int, size: tuple[int, int]) -> EventMotion | str:
        if self._calibration is None or self._refusal:
            return 'no calibration'
        if size != self._calibration.size:
            return 'calibration of another sensor size'
        times_ns, rad_s = self._between(t0_ns, t1_ns)
        if not times_ns or times_ns[-1] < t1_ns:
            return 'samples late'
        if times_ns[0] > t0_ns or max(np.diff(times_ns), default=0) > MAX_GAP_NS:
            return 'gap in the samples'
        rad_s = rad_s @ (self._turned @ self._imu_to_camera).T
        turned = scene_rotation(times_ns, rad_s, t0_ns, t1_ns)
        pixels, good = self._calibration.project(self._rays @ turned.T)
        shape = node_pixels(size).shape
        motion = from_displacement((pixels - self._nodes).reshape(shape), t1_ns, t1_ns - t0_ns)
        return motion if motion is not None and good.all() else 'beyond the lens'

    def _between(self, t0_ns: int, t1_ns: int) -> tuple[list[int], np.ndarray]:
        """Stamps and (S, 3) rad/s from the last sample up to t0 to the first from t1 on."""
        found: deque[tuple[int, tuple[float, float, float]]] = deque()
        for sample in reversed(self._samples):
            if sample[0] >= t1_ns:
                found.clear()
            found.appendleft(sample)
            if sample[0] <= t0_ns:
                break
        return [stamp for stamp, _ in found], np.array([value for _, value in found])


def scene_rotation(times_ns: Sequence[int], rad_s: np.ndarray, t0_ns: int,
                   t1_ns: int) -> np.ndarray:
    """(3, 3) that takes a static point in the camera's frame at t0 to its place there at t1.

    `rad_s` (S, 3) of the camera, in its frame, at S ascending `times_ns` that reach around t0, t1.
    """
    seconds = (np.array(times_ns, np.int64) - t0_ns) * 1e-9
    end = (t1_ns - t0_ns) * 1e-9
    at = np.array([0.0, *seconds[(seconds > 0) & (seconds < end)], end])
    rates = np.column_stack([np.interp(at, seconds, axis) for axis in rad_s.T])
    turned = np.eye(3)
    for vector in -(rates[1:] + rates[:-1]) / 2 * np.diff(at)[:, None]:
        turned = cv2.Rodrigues(vector)[0] @ turned
    return turned


def rotation_of(quaternion: str) -> np.ndarray:
    """(3, 3) rotation of a quaternion 'x y z w'. Raises ConfigError unless its length is 1."""
    try:
        values = np.array([float(part) for part in quaternion.split()])
        if len(values) != 4:
            raise ValueError
    except ValueError:
        raise ConfigError(f'parameter imu_to_camera_rotation is {quaternion!r}: must be four '
                          "numbers 'x y z w'") from None
    length = float(np.linalg.norm(values))
    if not abs(length - 1) <= UNIT_TOLERANCE:
        raise ConfigError(f'parameter imu_to_camera_rotation is {quaternion!r}: its length is '
                          f'{length:g}, must be 1')
    return rotation_matrix(*(values / length))
