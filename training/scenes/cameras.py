"""How the camera moves: panning, dollying, shaken by a hand, or held on what moves."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from training.scenes import paths
from training.scenes.geometry import Camera, Surface
from training.scenes.settings import Preset


def draw_camera(rng: np.random.Generator, preset: Preset, times: np.ndarray) -> Camera:
    """A path of its own on the grid `times` (G,) s, or none."""
    position, turn = np.zeros((len(times), 3)), np.zeros((len(times), 3))
    if rng.random() < preset.static_camera:
        return Camera(times, position, turn)
    if preset.camera_stops:  # its own clock stops
        times_of = (
            times[0] + np.cumsum(paths.stop_and_go(rng, times, preset.camera_stops)) * paths.STEP_S
        )
    else:
        times_of = times
    speed, pan = rng.uniform(*preset.camera_speed), 1 - rng.uniform(*preset.translation)
    direction = rng.uniform(0, 2 * np.pi)
    for axis, part in ((0, np.cos(direction)), (1, np.sin(direction))):
        position[:, axis] = paths.sway(rng, times_of, speed * (1 - pan) * part)
        turn[:, 1 - axis] = paths.sway(rng, times_of, speed * pan * part)
    position[:, 2] = paths.sway(rng, times_of, speed * (1 - pan) * rng.uniform(0, 0.4))
    turn[:, 2] = paths.sway(rng, times_of, rng.uniform(0, 0.15))
    if rng.random() < preset.camera_shake:  # hand-held
        for axis in (0, 1):
            turn[:, axis] += paths.sway(rng, times_of, rng.uniform(*preset.camera_bob_rad_s),
                                        (2, 8))
    return Camera(times, position, turn)


def shaken(rng: np.random.Generator, preset: Preset, camera: Camera) -> Camera:
    """The camera with the roll and the steps of who carries it."""
    if camera.still or not preset.roll_shake_rad_s[1]:
        return camera
    turn, position = camera.turn.copy(), camera.position.copy()
    for _ in range(2):
        turn[:, 2] += paths.sway(rng, camera.times, rng.uniform(*preset.roll_shake_rad_s), (1, 7))
    position[:, 1] += paths.sway(rng, camera.times, rng.uniform(0, 0.08), (1, 3))
    return replace(camera, turn=turn, position=position)


def following(rng: np.random.Generator, preset: Preset, camera: Camera,
              objects: list[Surface]) -> Camera:
    """The camera held on one moving object, late and not quite right: it pans, or goes along, or
    some of both."""
    bodies = [body for body in objects if not body.track.still]
    if rng.random() >= preset.follows or not bodies or any(body.degenerate for body in objects):
        return camera
    track, times = bodies[int(rng.integers(len(bodies)))].track, camera.times
    late = rng.uniform(0.02, 0.2) / paths.STEP_S
    gain, along = rng.uniform(0.6, 1.1), rng.choice([0.0, 1.0, rng.random()])
    middle = len(times) // 2
    x, y, z = (cv2.GaussianBlur(axis[:, None], (0, 0), late, borderType=cv2.BORDER_REPLICATE)[:, 0]
               for axis in track.position.T)
    x, y = ((axis - axis[middle]) for axis in (x, y))
    position, turn = camera.position.copy(), camera.turn.copy()
    wander = rng.uniform(0, 0.5)  # its own motion, much of which is given up
    position[:, :2] = wander * position[:, :2] + gain * along * np.stack([x, 0.3 * y], 1)
    turn[:, 1] = wander * turn[:, 1] - gain * (1 - along) * np.arctan2(x, z)
    turn[:, 0] = wander * turn[:, 0] + gain * (1 - along) * np.arctan2(y, z)
    return replace(camera, position=position, turn=turn)


def above_ground(camera: Camera, low: float | None) -> Camera:
    """The camera kept well above the ground at the height `low`, if there is one in view."""
    if low is None:
        return camera
    position = camera.position.copy()
    dive = max(float(position[:, 1].max()) / (0.3 * low), float(-position[:, 1].min()) / low, 1.0)
    position[:, 1] /= dive
    return replace(camera, position=position)
