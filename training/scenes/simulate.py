"""From (preset, seed, split) to a Clip: build the world, look at it with both sensors, write down
the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import cv2
import numpy as np
import torch

from mos_perception.datatypes import Events
from training.scenes import esim, kernels
from training.scenes.clip import Clip
from training.scenes.geometry import World
from training.scenes.presets import find_preset
from training.scenes.render import Painter, Renderer, in_bands, parallel_map, speeds_px_s
from training.scenes.settings import Preset
from training.scenes.splits import generator
from training.scenes.textures import GAMMA
from training.scenes.timing import FIRST_STAMP_NS, all_to_ns, stamps_ns, to_ns, whole_ns
from training.scenes.world import build_world

_AFTER_S = 0.005            # events go on this long after the last frame
_MOST_HZ = 2000             # event samples per second, however fast something is
_FULL_WELL = 8000           # electrons of a white pixel at light 1
_BLUR_PX = 1.0              # image motion between two samples of an exposure
_SPEED_EVERY_S = 0.01       # how often the fastest speed is looked up
_FRAME_STREAM = 1000        # random stream of the first frame's noise


def render_clip_3d(preset: Preset | str, seed: int, split: str = 'train',
                   device: str = 'cpu') -> Clip:
    """The clip of (preset, seed, split): equal arguments give equal bytes on a device. Raises
    ConfigError."""
    preset = find_preset(preset)
    world = build_world(preset, seed, split)
    renderer = Renderer(world, preset.size, device)
    offsets_s = frame_times(preset, seed, split)
    stamps = stamps_ns(offsets_s)
    with torch.inference_mode():
        frames = _expose(renderer, offsets_s, preset, seed, split)
        events = (render_events(renderer, offsets_s, preset, seed, split) if preset.events else
                  esim.unpack(np.empty(0, np.int64), FIRST_STAMP_NS))
        ids = renderer.ids(offsets_s)
    return Clip(frames, stamps, events, ids, moving(world, offsets_s, 1 / preset.fps), seed,
                preset.name)


def frame_times(preset: Preset, seed: int, split: str) -> np.ndarray:
    """(T,) s of the frames that were not dropped; the first is 0."""
    slots = np.arange(preset.frame_slots)
    if preset.dropped_count:
        lost = generator(seed, split, 3).choice(slots[2:], preset.dropped_count, replace=False)
        slots = np.setdiff1d(slots, lost)
    return slots / preset.fps


def moving(world: World, offsets_s: np.ndarray, window_s: float) -> np.ndarray:
    """(T, K + 1) bool by object number: some part moved faster than v0 in the `window_s` before."""
    found = np.zeros((len(offsets_s), world.count + 1), bool)
    for surface in world.objects():
        found[:, surface.number] |= surface.track.moving(offsets_s, window_s)
    return found


def _expose(renderer: Renderer, offsets_s: np.ndarray, preset: Preset, seed: int,
            split: str) -> np.ndarray:
    """(T, H, W, 3) uint8: mean light over the exposure, shot and read noise, tone curve, 8 bits."""
    exposure, well = renderer.world.exposure_s, _FULL_WELL * renderer.world.light
    frames = np.empty((len(offsets_s), *preset.size, 3), np.uint8)
    speeds = speeds_px_s(renderer.world, preset.size, offsets_s)
    counts = np.clip(np.ceil(speeds * exposure / _BLUR_PX), 1, 16).astype(int)
    times = [at + ((np.arange(count) + 0.5) / count - 0.5) * exposure
             for at, count in zip(offsets_s, counts)]
    curve = tone_curve(split)
    finish = processing(preset, seed, split)
    painter = renderer.painter(np.concatenate(times), rgb=True) if renderer.compiled else None
    ends = np.cumsum(counts)

    def expose(index: int) -> None:
        if painter:
            light = painter.rows(slice(0, preset.size[0]),
                                 slice(ends[index] - counts[index], ends[index]))
        else:
            light = renderer.images(times[index], rgb=True).mean(0)[:, None].cpu().numpy()
        draws = generator(seed, split, _FRAME_STREAM + index).standard_normal(
            (3, *preset.size), np.float32
        )
        kernels.develop(frames[index], light, draws, np.float32(well),
                        np.float32(preset.read_noise), curve)
        finish(frames[index])

    list((parallel_map if renderer.compiled else map)(expose, range(len(offsets_s))))
    return frames


def processing(preset: Preset, seed: int, split: str) -> Callable[[np.ndarray], None]:
    """What the clip's camera does to a frame (H, W, 3) uint8 RGB, in place: an unsharp mask, lossy
    compression."""
    rng = generator(seed, split, 8)
    strength = rng.uniform(*preset.sharpening)
    quality = int(rng.uniform(*preset.jpeg_quality)) if rng.random() < preset.compressed else None

    def finish(frame: np.ndarray) -> None:
        if strength:
            frame[:] = cv2.addWeighted(frame, 1 + strength, cv2.GaussianBlur(frame, (0, 0), 1.0),
                                       -strength, 0)
        if quality is not None:
            _, data = cv2.imencode('.jpg', frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            frame[:] = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]

    return finish


def tone_curve(split: str) -> np.ndarray:
    """(4096,) float32 8-bit levels over the root of linear light; split `other` has a camera of
    more contrast."""
    root = np.linspace(0, 1, 4096)
    levels = root ** (2 / GAMMA)
    if split == 'other':
        levels = 0.5 * levels + 0.5 * levels * levels * (3 - 2 * levels)
    return (255 * levels).astype(np.float32)


def sample_times(world: World, preset: Preset, start_s: float, end_s: float) -> np.ndarray:
    """(S,) s from start to end as close as the preset's `step_px` and `sample_hz` ask; the flicker
    is followed too."""
    at = np.linspace(start_s, end_s, max(2, int(np.ceil((end_s - start_s) / _SPEED_EVERY_S)) + 1))
    speeds = speeds_px_s(world, preset.size, at)
    around = np.maximum(np.maximum(speeds, np.roll(speeds, 1)), np.roll(speeds, -1))
    around[[0, -1]] = np.maximum(speeds[[0, -1]], speeds[[1, -2]])
    rate = np.clip(np.maximum(around / preset.step_px, 4 * world.flicker[1]), preset.sample_hz,
                   _MOST_HZ)
    passed = np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(at))])
    return np.interp(np.linspace(0, passed[-1], int(np.ceil(passed[-1])) + 1), passed, at)


def noise_events(preset: Preset, seed: int, split: str) -> np.ndarray:
    """(E,) int64 packed: the clip's noise events, drawn from a stream of their own."""
    return esim.noise(generator(seed, split, 2), preset.sensor, preset.size,
                      whole_ns(_span_s(preset)))


def event_delay_s(preset: Preset, seed: int, split: str) -> float:
    """How late the clip's events are against its frames, s."""
    return float(generator(seed, split, 6).uniform(*preset.frame_event_offset_s))


def _span_s(preset: Preset) -> float:
    """Length of the events, s: from one frame period before the first frame until after the last
    slot."""
    return preset.frame_slots / preset.fps + _AFTER_S


def _rows(pixels: esim.Pixels, rows: slice) -> esim.Pixels:
    """The sensor's pixels of some image rows."""
    parts = {f.name: getattr(pixels, f.name) for f in fields(pixels)}
    return replace(pixels, **{name: np.ascontiguousarray(value[rows])
                              for name, value in parts.items()
                              if isinstance(value, np.ndarray) and value.ndim == 2})


def render_events(renderer: Renderer, offsets_s: np.ndarray, preset: Preset, seed: int,
                  split: str) -> Events:
    """Events from one frame period before the first frame until after the last; sampled by the
    known speed."""
    rng = generator(seed, split, 4)
    before, length = 1 / preset.fps, _span_s(preset)
    late = event_delay_s(preset, seed, split)
    times = sample_times(renderer.world, preset, -before - late, length - before - late)
    stamps = all_to_ns(times - times[0])
    pixels = esim.Pixels.draw(rng, preset.sensor, preset.size)
    if renderer.compiled:
        packed = _cross_bands(renderer.painter(times, rgb=False), stamps, pixels)
    else:
        logs = renderer.images(times, rgb=False)[:, 0].add_(esim.LOG_EPS).log_()
        packed = esim.crossings(logs, stamps, pixels)
    packed = np.concatenate([packed, noise_events(preset, seed, split)])
    if preset.sensor.bandwidth_hz:
        packed = esim.read_out(packed, preset.sensor.bandwidth_hz)
    return esim.unpack(packed, FIRST_STAMP_NS - to_ns(before))


def _cross_bands(painter: Painter, stamps: np.ndarray, pixels: esim.Pixels) -> np.ndarray:
    """(E,) int64 packed crossings; every band of rows is rendered and crossed by one thread while
    in its cache."""
    def work(rows: slice) -> np.ndarray:
        light = painter.rows(rows)[0]
        light += esim.LOG_EPS
        return esim.crossings(np.log(light, out=light), stamps,
                              _rows(pixels, rows)) + (rows.start << 15)

    return np.concatenate(list(in_bands(len(pixels.on), work)))
