"""A clip whose event camera is another one: other size, turned and shifted. For registration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from training.scenes.clip import Clip
from training.scenes.geometry import Surface, World
from training.scenes.presets import find_preset
from training.scenes.render import Renderer
from training.scenes.settings import Preset
from training.scenes.simulate import frame_times, render_clip_3d, render_events
from training.scenes.world import build_world


@dataclass(frozen=True)
class SecondView(World):
    """The world as a camera sees it whose pixels are `matrix` (3, 3) of those of a camera of
    `first_size` (height, width) at the same place.
    """

    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    first_size: tuple[int, int] = (1, 1)

    def homographies(self, surface: Surface, times: np.ndarray,
                     size: tuple[int, int]) -> np.ndarray:
        """As World's, into the second camera."""
        return self.matrix @ super().homographies(surface, times, self.first_size)


def mounting(frame_size: tuple[int, int], event_size: tuple[int, int], frame_px: float,
             turn_deg: float, shift_px: tuple[float, float]) -> np.ndarray:
    """(3, 3) event pixel -> frame pixel: each covers `frame_px` of the frame, turned, and the
    middle lies `shift_px` (x, y) of the frame's.
    """
    c, s = np.cos(np.radians(turn_deg)) * frame_px, np.sin(np.radians(turn_deg)) * frame_px
    turn = np.array([[c, -s], [s, c]])
    middle = [(np.array(size[::-1]) - 1) / 2 for size in (frame_size, event_size)]
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, middle[0] + shift_px - turn @ middle[1]
    return matrix


def render_rig(preset: Preset | str, seed: int, split: str, event_size: tuple[int, int],
               matrix: np.ndarray) -> Clip:
    """The clip with the events of a camera of `event_size` (height, width), whose pixels `matrix`
    (3, 3) takes to the frames'. Raises ConfigError as `render_clip_3d`.
    """
    preset = find_preset(preset)
    clip = render_clip_3d(replace(preset, events=False), seed, split)
    world = build_world(preset, seed, split)
    parts = {item.name: getattr(world, item.name) for item in fields(world)}
    view = SecondView(**parts, matrix=np.linalg.inv(matrix), first_size=preset.size)
    with torch.inference_mode():
        events = render_events(Renderer(view, event_size), frame_times(preset, seed, split),
                               replace(preset, size=event_size), seed, split)
    return replace(clip, events=events)
