"""What was true in a clip, made on request at any stamps: see `render_truth`.

World axes are the resting camera's (x right, y down, z forward), lengths metres. T times, K
objects, H W pixels. All of it is computed on the CPU from the scene's planes; nothing is estimated
from pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import ConfigError
from training.scenes import esim, paths, timing, truth_kernels
from training.scenes.geometry import Surface, World, intrinsics
from training.scenes.presets import find_preset
from training.scenes.render import Renderer, parallel_map
from training.scenes.settings import MAX_DURATION_S, Preset
from training.scenes.simulate import event_delay_s, frame_times, noise_events
from training.scenes.tables import Placement, Textures
from training.scenes.timing import FIRST_STAMP_NS, to_ns, to_s
from training.scenes.world import build_world

UNKNOWN = (0.5, 1.5)    # times v0: between these speeds the moving flag says little
VISIBLE_PX_S = 30.0     # 0.3 px per 10 ms against the static world is visible motion
PARTS = ('amodal', 'dense')
_LABEL_S = 1e-3         # event labels look the scene up this often


@dataclass(frozen=True)
class Truth:
    """The truth of one clip at `stamps_ns` (T,) int64.

    `ids` (T, H, W) uint16 of the object half covering a pixel or more, 0 = background; `moving` (T,
    K + 1) bool, its 3-D speed (mean over the frame period before, parts and rotation included) is
    above v0; `unknown` (T, K + 1) bool, that speed is within 0.5 to 1.5 v0; `visible_motion` (T, K
    + 1) bool, some point of it moves more than 0.3 px per 10 ms against the static world at its
    depth; `degenerate` (K + 1,) bool, it moves along the camera's own direction; `boxes` (T, K + 1,
    4) float32 x0 y0 x1 y1 px around its visible pixels, ends exclusive, zeros where none shows.
    `amodal` (T, K + 1, H, W) bool, each object's whole extent in the image (`amodal` asked for,
    else None). `pose` (T, 4, 4) float64 camera to world; `intrinsics` (3, 3) float64. With `dense`,
    else None: `depth` (T, H, W) float32 m along the optical axis; `points` (T, H, W, 3) float32
    world; `flow` (T - 1, H, W, 2) float32 px of the surface point seen at t, to t + 1; `flow_valid`
    (T - 1, H, W) bool, it lands inside the image among four pixels that show the same surface.
    """

    stamps_ns: np.ndarray
    ids: np.ndarray
    moving: np.ndarray
    unknown: np.ndarray
    visible_motion: np.ndarray
    degenerate: np.ndarray
    boxes: np.ndarray
    pose: np.ndarray
    intrinsics: np.ndarray
    amodal: np.ndarray | None
    depth: np.ndarray | None
    points: np.ndarray | None
    flow: np.ndarray | None
    flow_valid: np.ndarray | None
    _scene: tuple[World, Preset, int, str] = field(repr=False, compare=False)

    def event_labels(self, events: Events) -> np.ndarray:
        """(E,) uint16: the object whose surface half covers the event's pixel at its time, 0 =
        background or noise.

        `events` of the same clip. The scene is looked up every millisecond; the sensor's own noise
        events (shot noise, hot pixels) are known by their exact time and place.
        """
        world, preset, seed, split = self._scene
        zero = FIRST_STAMP_NS - to_ns(1 / preset.fps)
        start = -1 / preset.fps - event_delay_s(preset, seed, split)
        seconds = to_s(events.t - zero)
        last = int(np.ceil(seconds.max(initial=0) / _LABEL_S))
        slots = np.round(seconds / _LABEL_S).astype(np.int64)
        numbers = np.array([surface.number for surface in world.surfaces], np.int64)
        textures = Textures.of(world.surfaces, 0)
        place = Placement.of(world, start + np.arange(last + 1) * _LABEL_S, preset.size)
        labels = np.zeros(len(events), np.uint16)
        truth_kernels.hit_events(
            labels, events.x.astype(np.int64), events.y.astype(np.int64), slots, textures.flat,
            textures.shapes, numbers, place.inverse, place.bends, place.boxes)
        labels[np.isin(esim.pack(events, zero), noise_events(preset, seed, split))] = 0
        return labels


def render_truth(preset: Preset | str, seed: int, split: str = 'train',
                 stamps_ns: np.ndarray | None = None, parts: tuple[str, ...] = PARTS) -> Truth:
    """The truth of the clip (preset, seed, split) at `stamps_ns` (default: its frames'), of `parts`
    of PARTS.

    Raises ConfigError for stamps that do not rise or lie outside of the clip, or an unknown part.
    """
    preset = find_preset(preset)
    if stamps_ns is None:
        stamps_ns = timing.stamps_ns(frame_times(preset, seed, split))
    stamps = np.asarray(stamps_ns, np.int64)
    times = timing.offsets_s(stamps)
    _check(preset, times, parts)
    world = build_world(preset, seed, split)
    renderer = Renderer(world, preset.size)
    index, amodal = renderer.hits(times, 'amodal' in parts)
    numbers = np.array([surface.number for surface in world.surfaces], np.uint16)
    ids = numbers[index]
    moving, unknown, visible = flags(world, preset, times)
    degenerate = np.zeros(world.count + 1, bool)
    for surface in world.objects():
        degenerate[surface.number] |= surface.degenerate
    dense = _dense(world, preset.size, times, index) if 'dense' in parts else (None,) * 4
    return Truth(stamps, ids, moving, unknown, visible, degenerate, extents(ids, world.count),
                 _poses(world, times), intrinsics(preset.size),
                 amodal if 'amodal' in parts else None, *dense, (world, preset, seed, split))


def flow_to_previous(preset: Preset | str, seed: int,
                     split: str = 'train') -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flow (T - 1, H, W, 2) float32 px of the surface point seen in frame 1 and later, to the frame
    before; where it is `valid` (T - 1, H, W) bool, as `Truth.flow_valid`; and the frames' `ids` (T,
    H, W) uint16.
    """
    preset = find_preset(preset)
    # played backwards, the next frame is the one before
    times = frame_times(preset, seed, split)[::-1].copy()
    world = build_world(preset, seed, split)
    index, _ = Renderer(world, preset.size).hits(times, False)
    _, _, flow, valid = _dense(world, preset.size, times, index)
    numbers = np.array([surface.number for surface in world.surfaces], np.uint16)
    return flow[::-1], valid[::-1], numbers[index[::-1]]


def _check(preset: Preset, times: np.ndarray, parts: tuple[str, ...]) -> None:
    if len(times) == 0 or (np.diff(times) <= 0).any():
        raise ConfigError(f'{len(times)} stamps that do not rise: give one or more, in order')
    low, high = -paths.MARGIN_S, min(preset.duration_s, MAX_DURATION_S) + paths.MARGIN_S
    if times[0] < low or times[-1] > high:
        raise ConfigError(
            f'stamps from {times[0]:.3f} to {times[-1]:.3f} s after the first frame are outside of '
            f'{low} to {high:.3f} s: keep to the clip'
        )
    if unknown := set(parts) - set(PARTS):
        raise ConfigError(
            f'unknown parts {sorted(unknown)} of the truth: choose of {", ".join(PARTS)}'
        )


def flags(world: World, preset: Preset,
          times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`moving`, `unknown`, `visible_motion` of `Truth`; an articulated object counts by its fastest
    part."""
    window = 1 / preset.fps
    speed, pixels = np.zeros((2, len(times), world.count + 1))
    for surface in world.objects():
        mean = surface.track.speed(times, window)
        speed[:, surface.number] = np.maximum(speed[:, surface.number], mean)
        pixels[:, surface.number] = np.maximum(pixels[:, surface.number],
                                               _residual(world, surface, times, preset.size))
    v0 = paths.MOVING_SPEED
    return speed > v0, (speed > UNKNOWN[0] * v0) & (speed < UNKNOWN[1] * v0), pixels > VISIBLE_PX_S


def _residual(world: World, surface: Surface, times: np.ndarray, size: tuple[int, int],
              step: float = 0.01) -> np.ndarray:
    """(T,) px/s of its fastest rim point in the image over the 10 ms before, its pose then against
    its pose now, both seen by the camera of now: zero for what stands still."""
    rim = np.array([[-0.7, 0.7, 0.7, -0.7, 0], [-0.7, -0.7, 0.7, 0.7, 0], [1, 1, 1, 1, 1]])
    centre, rotation = world.camera.at(times)
    now, then = (_seen(world.poses(surface, at) @ rim, centre, rotation, size)
                 for at in (times, times - step))
    return np.linalg.norm(now - then, axis=1).max(1) / step


def _seen(points: np.ndarray, centre: np.ndarray, rotation: np.ndarray,
          size: tuple[int, int]) -> np.ndarray:
    """(T, 2, P) px of world points (T, 3, P)."""
    image = intrinsics(size) @ rotation @ (points - centre[:, :, None])
    return image[:, :2] / image[:, 2:]


def extents(ids: np.ndarray, count: int) -> np.ndarray:
    """(T, K + 1, 4) float32 boxes x0 y0 x1 y1 (ends exclusive) of each number's pixels in `ids` (T,
    H, W)."""
    boxes = np.zeros((len(ids), count + 1, 4), np.int64)
    truth_kernels.extents(boxes, ids)
    return boxes.astype(np.float32)


def _poses(world: World, times: np.ndarray) -> np.ndarray:
    centre, rotation = world.camera.at(times)
    pose = np.tile(np.eye(4), (len(times), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation.transpose(0, 2, 1), centre
    return pose


def _dense(world: World, size: tuple[int, int], times: np.ndarray,
           index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`depth`, `points`, `flow`, `flow_valid` of `Truth`."""
    place = Placement.of(world, times, size)
    poses = np.stack([world.poses(surface, times) for surface in world.surfaces], 1)
    count = len(times)
    rays, steps = poses @ place.inverse, place.forward[1:] @ place.inverse[:-1]
    depth, points = np.zeros((count, *size), np.float32), np.zeros((count, *size, 3), np.float32)
    flow, valid = np.zeros((count - 1, *size, 2), np.float32), np.zeros((count - 1, *size), bool)

    def work(at: int) -> None:
        one, ahead, then = slice(at, at + 1), slice(at, at + 2), min(at, count - 2)
        truth_kernels.geometry(
            depth[at], points[at], flow[one], valid[one], index[ahead], place.inverse[at], rays[at],
            place.forward[min(at + 1, count - 1)], steps[then] if count > 1 else rays[at],
            place.bends[ahead])

    for _ in parallel_map(work, range(count)):
        pass
    return depth, points, flow, valid
