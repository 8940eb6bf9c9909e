"""Clips of the 2-D scenes of moving shapes: frames, and events of the same scene between them."""

from __future__ import annotations

import numpy as np
import torch

from training.scenes import esim
from training.scenes.clip import Clip
from training.scenes.moving_shapes import Preset2D, Scene, build_scene, find_preset_2d
from training.scenes.splits import generator
from training.scenes.textures import GAMMA
from training.scenes.timing import FIRST_STAMP_NS, all_to_ns, stamps_ns, to_ns

_STREAM = 21
_CHUNK = 16


def render_clip_2d(preset: Preset2D | str, seed: int, split: str = 'train',
                   device: str = 'cpu') -> Clip:
    """The scene as a Clip with events: stamps from 1 s, linear light, sampled so that nothing moves
    0.5 px a sample.

    `moving`: the shape moved in the frame before. Equal arguments give equal bytes on a device.
    """
    preset = find_preset_2d(preset)
    scene, frames = build_scene(preset, seed, split), np.arange(preset.frames)
    with torch.inference_mode():
        image, ids = scene.render(frames, device)
        events = _events(scene, preset, generator(seed, split, _STREAM), device)
    moving = np.zeros((len(frames), len(scene.shapes) + 1), bool)
    for number, shape in enumerate(scene.shapes, 1):
        moving[:, number] = (shape.path(frames) != shape.path(frames - 1)).any(1) | (
            shape.spin != 0
        )
    levels = (
        image.mul(255)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        .contiguous()
        .cpu()
        .numpy()
    )
    stamps = stamps_ns(frames / preset.fps)
    return Clip(levels, stamps, events, ids.cpu().numpy().astype(np.uint16), moving, seed,
                preset.name)


def _events(scene: Scene, preset: Preset2D, rng: np.random.Generator, device: str) -> esim.Events:
    """Events from one frame before the first frame to 0.15 frames after the last."""
    probe = np.linspace(-1, preset.frames, 20 * preset.frames)
    spins = [abs(shape.spin) * shape.size * 0.75 for shape in scene.shapes]
    paths = [scene.path, *(shape.path for shape in scene.shapes)]
    fastest = max(np.linalg.norm(np.diff(path(probe), axis=0),
                                 axis=1).max() / (probe[1] - probe[0]) + spin
                  for path, spin in zip(paths, [0.0, *spins]))
    length = preset.frames + 0.15  # frames
    times = np.linspace(0, length, int(np.ceil(length * max(4, fastest / 0.5))) + 1)
    stamps = all_to_ns(times / preset.fps)
    weights = torch.tensor([0.299, 0.587, 0.114], device=device).view(3, 1, 1)
    logs = torch.cat([(scene.render(part - 1, device)[0] ** GAMMA *
                       weights).sum(1).add_(esim.LOG_EPS).log_().cpu()
                      for part in np.split(times, range(_CHUNK, len(times), _CHUNK))])
    packed = esim.crossings(logs.numpy(), stamps, esim.Pixels.draw(rng, preset.sensor, preset.size))
    packed = np.concatenate([packed, esim.noise(rng, preset.sensor, preset.size, int(stamps[-1]))])
    return esim.unpack(packed, FIRST_STAMP_NS - to_ns(1 / preset.fps))
