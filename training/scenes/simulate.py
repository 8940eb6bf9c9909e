"""From (preset, seed, split) to a Clip: build the world, look at it with both sensors, write down the truth."""

from __future__ import annotations

import numpy as np
import torch

from mos_perception.datatypes import Events
from training.scenes import esim
from training.scenes.clip import Clip
from training.scenes.presets import Preset, find_preset
from training.scenes.render import Renderer, fastest_px_s
from training.scenes.splits import generator
from training.scenes.textures import GAMMA
from training.scenes.world import World, build_world

FIRST_STAMP_NS = 1_000_000_000
_AFTER_S = 0.005            # events go on this long after the last frame
_SAMPLE_HZ = (120, 2000)    # event samples per second
_FULL_WELL = 8000           # electrons of a white pixel at light 1


def render_clip(preset: Preset | str, seed: int, split: str = 'train', device: str = 'cpu') -> Clip:
    """The clip of (preset, seed, split): equal arguments give equal bytes on a device."""
    preset = find_preset(preset)
    world = build_world(preset, seed, split)
    renderer = Renderer(world, preset.size, device)
    offsets_s = np.arange(preset.frame_count) / preset.fps
    stamps = FIRST_STAMP_NS + np.round(offsets_s * 1e9).astype(np.int64)
    sensors = generator(seed, split, 1)
    with torch.inference_mode():
        probes = np.linspace(offsets_s[0], offsets_s[-1], max(16, 4 * len(offsets_s)))
        fastest = fastest_px_s(world, preset.size, probes)
        frames = _expose(renderer, offsets_s, fastest, preset, sensors)
        events = _events(renderer, offsets_s, fastest, preset, sensors)
        ids = renderer.ids(offsets_s)
    return Clip(frames, stamps, events, ids, _moving(world, offsets_s, 1 / preset.fps), seed, preset.name)


def _moving(world: World, offsets_s: np.ndarray, window_s: float) -> np.ndarray:
    """(T, K + 1) bool by object number."""
    objects = world.objects()
    moving = np.zeros((len(offsets_s), len(objects) + 1), bool)
    for surface in objects:
        moving[:, surface.number] = surface.track.moving(offsets_s, window_s)
    return moving


def _expose(renderer: Renderer, offsets_s: np.ndarray, fastest: float, preset: Preset,
            rng: np.random.Generator) -> np.ndarray:
    """(T, H, W, 3) uint8: mean light over the exposure, shot and read noise, gamma, 8 bits."""
    exposure = renderer.world.exposure_s
    count = int(np.clip(np.ceil(fastest * exposure / 0.7) + 1, 1, 16))
    shifts = ((np.arange(count) + 0.5) / count - 0.5) * exposure
    light = renderer.images((offsets_s[:, None] + shifts).ravel(), rgb=True)
    light = light.view(len(offsets_s), count, 3, *preset.size).mean(1)
    draw = torch.from_numpy(rng.standard_normal(tuple(light.shape), np.float32)).to(light.device)
    light = light + draw * (light / (_FULL_WELL * renderer.world.light)).sqrt_()
    levels = light.clamp_(0, 1).pow_(1 / GAMMA).mul_(255)
    # Read noise reuses the neighbouring channel's shot draws: independent within a channel, half the random numbers.
    levels += draw.roll(1, 1) * preset.read_noise
    return levels.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _events(renderer: Renderer, offsets_s: np.ndarray, fastest: float, preset: Preset,
            rng: np.random.Generator) -> Events:
    """Events from one frame period before the first frame until after the last; sampled by the known speed."""
    before = 1 / preset.fps
    length = before + offsets_s[-1] + _AFTER_S
    rate = float(np.clip(max(fastest / preset.step_px, 4 * renderer.world.flicker[1]), *_SAMPLE_HZ))
    times = np.linspace(0, length, int(np.ceil(length * rate)) + 1)
    logs = renderer.images(times - before, rgb=False)[:, 0].add_(esim.LOG_EPS).log_().cpu().numpy()
    pixels = esim.Pixels.draw(rng, preset.sensor, preset.size)
    packed = esim.crossings(logs, np.round(times * 1e9).astype(np.int64), pixels)
    packed = np.concatenate([packed, esim.noise(rng, preset.sensor, preset.size, int(length * 1e9))])
    return esim.unpack(packed, FIRST_STAMP_NS - round(before * 1e9))
