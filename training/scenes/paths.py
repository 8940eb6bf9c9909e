"""Smooth paths on a 1 kHz grid: where a surface or the camera is, and how fast it goes. G grid
times.

World axes are the camera's at rest (x right, y down, z forward); lengths are in image widths at
depth 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP_S = 1e-3
MARGIN_S = 0.2  # the grid reaches this far before the first and after the last frame
RAMP_S = 0.08   # time to start or stop
MOVING_SPEED = 0.03  # v0: slower than this many image widths per second (at its depth) is static


@dataclass(frozen=True)
class Track:
    """Pose over time: `times` (G,) s, `position` (G, 3), `angle` (G,) rad about the viewing axis,
    `travelled` (G,) the path length of the rim (centre plus rotation) so far in image widths at the
    object's depth."""

    times: np.ndarray
    position: np.ndarray
    angle: np.ndarray
    travelled: np.ndarray

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((T, 3) position, (T,) angle) at `times` (T,) s, linear between grid points."""
        position = np.stack([np.interp(times, self.times, axis) for axis in self.position.T], 1)
        return position, np.interp(times, self.times, self.angle)

    def moving(self, times: np.ndarray, window_s: float) -> np.ndarray:
        """(T,) bool: the mean world speed in the `window_s` before each time is above v0."""
        return self.speed(times, window_s) > MOVING_SPEED

    def speed(self, times: np.ndarray, window_s: float) -> np.ndarray:
        """(T,) mean world speed in the `window_s` before each time, image widths per second at its
        depth."""
        length = np.interp(times, self.times, self.travelled) - np.interp(
            times - window_s, self.times, self.travelled
        )
        return length / window_s

    @property
    def still(self) -> bool:
        """Whether it never moves."""
        return bool(self.travelled[-1] == 0)


def grid(duration_s: float) -> np.ndarray:
    """(G,) seconds; 0 is the first frame."""
    return np.arange(-MARGIN_S, duration_s + MARGIN_S, STEP_S)


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def stop_and_go(rng: np.random.Generator, times: np.ndarray, start_stop: float) -> np.ndarray:
    """(G,) in [0, 1]: 1 while it goes; a share of the objects starts or stops once, or pauses in
    clips over 1 s."""
    if rng.random() >= start_stop:
        return np.ones_like(times)
    duration = times[-1] - MARGIN_S
    kinds = ('start', 'stop', 'pause') if duration > 1 else ('start', 'stop')
    kind = kinds[int(rng.integers(len(kinds)))]
    first = duration * rng.uniform(0.25, 0.6)
    off = _smooth((times - first) / RAMP_S)
    if kind == 'start':
        return off
    if kind == 'stop':
        return 1 - off
    return 1 - off + _smooth((times - first - duration * rng.uniform(0.2, 0.35)) / RAMP_S)


def _fold(x: np.ndarray, limit: float) -> np.ndarray:
    """Bounce between -limit and limit."""
    return np.abs((x - limit) % (4 * limit) - 2 * limit) - limit


def still(times: np.ndarray, position: tuple[float, float, float], angle: float = 0.0) -> Track:
    """A surface that stays where it is."""
    ones = np.ones_like(times)
    return Track(times, ones[:, None] * np.array(position), ones * angle, np.zeros_like(times))


def roam(rng: np.random.Generator, times: np.ndarray, going: np.ndarray, speed: float, spin: float,
         depth: float, limits: tuple[float, float], radius: float) -> Track:
    """A curving path inside `limits` (half width, half height in image widths) around `depth`.

    `going` (G,) is that of `stop_and_go`, `speed` image widths/s, `spin` rad/s at most, `radius`
    that of the object in world units.
    """
    # motion time: everything below is a function of it, so all of it stops together
    moved = np.cumsum(going) * STEP_S
    heading, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.2)
    heading = heading + bend * np.sin(2 * np.pi * rng.uniform(0.2, 0.8) * moved + rng.uniform(0, 6))
    advance = speed * depth * STEP_S * going
    x, y = (rng.uniform(-0.9, 0.9) * limit * depth + np.cumsum(advance * part)
            for limit, part in zip(limits, (np.cos(heading), np.sin(heading))))
    z = depth * (
        1
        + rng.uniform(0, 0.12)
        * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * moved + rng.uniform(0, 6))
    )
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-spin, spin) * moved
    position = np.stack([_fold(x, limits[0] * depth), _fold(y, limits[1] * depth), z], 1)
    steps = np.hypot(advance, np.gradient(z)) + radius * np.abs(np.gradient(angle))
    return Track(times, position, angle, np.cumsum(steps) / depth)


def sway(rng: np.random.Generator, times: np.ndarray, speed: float,
         bands_hz: tuple[float, float] = (0.1, 0.5)) -> np.ndarray:
    """(G,) a smooth oscillation about 0 whose fastest pace is `speed` per second."""
    frequency = rng.uniform(*bands_hz)
    phase = rng.uniform(0, 2 * np.pi)
    return speed / (2 * np.pi * frequency) * (np.sin(2 * np.pi * frequency * times + phase) -
                                              np.sin(phase))


def carried(base: Track, offset: np.ndarray, angle: np.ndarray, radius: float) -> Track:
    """The path of a part at `offset` (G, 3) from `base` turned to `angle` (G,); `radius` as in
    `roam`."""
    position = base.position + offset
    steps = np.linalg.norm(np.gradient(position, axis=0),
                           axis=1) + radius * np.abs(np.gradient(angle))
    return Track(base.times, position, angle, np.cumsum(steps) / np.median(position[:, 2]))


def follow(rng: np.random.Generator, times: np.ndarray, going: np.ndarray, camera: np.ndarray,
           speed: float, depth: float, limits: tuple[float, float]) -> Track | None:
    """A path whose velocity is always along that of the camera's centre `camera` (G, 3): its
    residual against a static world lies on the epipolar lines, as that of something static at
    another depth does. None where the camera only turns or no start keeps it in view."""
    pace = np.diff(camera, axis=0, prepend=camera[:1]) * going[:, None]
    mean = np.linalg.norm(pace, axis=1).mean() / STEP_S
    if mean < 1e-3:
        return None
    factor = float(np.clip(speed * depth / mean, 0.3, 1.5)) * (1 if rng.random() < 0.5 else -1)
    for _ in range(20):
        start = np.array([*(rng.uniform(-0.8, 0.8, 2) * limits * depth), depth])
        position = start + factor * np.cumsum(pace, 0)
        seen = np.abs((position - camera)[:, :2]) / np.maximum((position - camera)[:, 2:], 0.3)
        if (seen < np.array(limits) * 1.1).all():
            steps = np.linalg.norm(np.gradient(position, axis=0), axis=1)
            return Track(times, position, np.full_like(times, rng.uniform(0, 6.283)),
                         np.cumsum(steps) / depth)
    return None


def crossing(rng: np.random.Generator, track: Track, other: Track,
             limits: tuple[float, float]) -> Track:
    """The path shifted (and folded back into `limits`) so that it meets the other, as seen at rest,
    inside the clip."""
    at = int(len(track.times) * rng.uniform(0.3, 0.7))
    depth = float(np.median(track.position[:, 2]))
    target = other.position[at, :2] / other.position[at, 2] * track.position[at, 2]
    shifted = track.position.copy()
    for axis, limit in enumerate(limits):
        shifted[:, axis] = _fold(shifted[:, axis] + target[axis] - track.position[at, axis],
                                 limit * depth)
    return Track(track.times, shifted, track.angle, track.travelled)


def stroll(rng: np.random.Generator, times: np.ndarray, going: np.ndarray, speed: float,
           depth: float, y: float, half_width: float, angle: float) -> Track:
    """A path on a level ground: mostly sideways at height `y`, in view at the clip's middle, with a
    small bob and tilt.

    `half_width` in image widths: how far from the view's middle it is there; `angle` rad it is
    turned by.
    """
    moved = np.cumsum(going) * STEP_S
    heading = rng.normal(0, 0.4) if rng.random() < 0.75 else rng.uniform(0, 2 * np.pi)
    heading += np.pi if rng.random() < 0.5 else 0
    advance = speed * depth * STEP_S * going
    x, z = np.cumsum(advance * np.cos(heading)), np.cumsum(advance * np.sin(heading))
    middle = len(times) // 2
    z = np.maximum(depth + z - z[middle], 0.6 * depth)
    x = x - x[middle] + rng.uniform(-half_width, half_width) * depth
    pace, phase = rng.uniform(1, 3), rng.uniform(0, 6)
    bob = -rng.uniform(0, 0.012) * depth * np.abs(np.sin(2 * np.pi * pace * moved + phase))
    angle = angle + rng.uniform(0, 0.06) * np.sin(2 * np.pi * pace * moved + phase)
    position = np.stack([x, y + bob, z], 1)
    return Track(
        times,
        position,
        angle,
        np.cumsum(np.linalg.norm(np.gradient(position, axis=0), axis=1)) / depth,
    )


def drift(times: np.ndarray, position: tuple[float, float, float],
          velocity: tuple[float, float, float]) -> Track:
    """Steady motion, at `position` when the first frame is taken; `velocity` in world units per
    second."""
    place = np.array(position) + times[:, None] * np.array(velocity)
    travelled = np.linalg.norm(velocity) * (times - times[0]) / position[2]
    return Track(times, place, np.zeros_like(times), travelled)
