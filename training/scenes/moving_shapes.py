"""The MoSIS thesis' 2-D scenes (3.9, 4.1, 9.2): textured shapes that move over a zoomed-in picture
that sways.

Frames are drawn on demand at any time, counted in frames, so events can be made from the same
scene. An image is sRGB in [0, 1]; pixel (x, y) has its centre at (x, y). Values that the thesis
leaves open are fields of `Preset2D`. Legend: T times, D objects in drawing order (the last in
front), H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mos_perception.errors import ConfigError
from training.scenes.settings import EventSensor, Range
from training.scenes.splits import generator, pick
from training.scenes.textures import GAMMA, texture

CORNERS = {'circle': 0, 'square': 4, 'triangle': 3, 'pentagon': 5, 'hexagon': 6, 'star': 5}
_STREAM = 20
_SUPERSAMPLE = 4
_CHUNK = 16
Path = Callable[[np.ndarray], np.ndarray]  # (T,) frames -> (T, 2) px (x, y)


@dataclass(frozen=True)
class Preset2D:
    """How scenes are drawn. Pairs are drawn uniformly; sizes in px, speeds in px per frame, counts
    inclusive.

    `object_px`: the longer side of the upright shape. `path` of the background: 'sine' (x sine, y
    cosine with amplitude `sway_px` and period `sway_frames`), 'linear' (at `speed_px`) or 'still'.
    `zoom` magnifies the background picture; `background` is 'image' or 'colour'; `plain` is the
    share of objects in one colour; `softness_px` the blur of textures. `spin_rad` per frame is 0 in
    the thesis. Objects that show fewer than `min_visible` px are not labelled.
    """

    name: str = 'mosis2d'
    size: tuple[int, int] = (128, 128)
    frames: int = 120
    fps: float = 30.0
    objects: tuple[int, int] = (1, 4)
    shapes: tuple[str, ...] = ('square', 'triangle', 'circle', 'star')
    object_px: Range = (12, 40)
    speed_px: Range = (1, 4)
    spin_rad: Range = (0, 0)
    background: str = 'image'
    zoom: Range = (1.5, 3)
    path: str = 'sine'
    sway_px: Range = (25, 52)
    sway_frames: Range = (60, 80)
    plain: float = 0.0
    softness_px: float = 1.0
    min_visible: int = 16
    sensor: EventSensor = field(default_factory=EventSensor)

    def __post_init__(self) -> None:
        for what, value, known in (('shape', self.shapes, CORNERS),
                                   ('path', (self.path,), ('sine', 'linear', 'still')),
                                   ('background', (self.background,), ('image', 'colour'))):
            if unknown := [name for name in value if name not in known]:
                raise ConfigError(
                    f'unknown {what} "{unknown[0]}" in {self.name}: choose from {", ".join(known)}'
                )
        if self.frames < 2 or self.object_px[0] < 4:
            raise ConfigError(
                f'{self.name} has {self.frames} frames and objects of {self.object_px[0]} px: '
                'use 2 frames or more and 4 px or more'
            )

    @property
    def frame_count(self) -> int:
        """Frames of a scene."""
        return self.frames


THESIS = Preset2D()  # 24 of these are the comparison set of 4.1
PRESETS_2D = {'mosis2d': Preset2D(frames=8)}  # short clips for training/datasets/online.py


@dataclass(frozen=True)
class Bounce:
    """Constant velocity (px per frame) from `start` that turns round at `low` and `high` (px), per
    axis."""

    start: np.ndarray
    velocity: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """(T, 2) px."""
        span = self.high - self.low
        travelled = (self.start - self.low + times[:, None] * self.velocity) % (2 * span)
        return self.low + span - np.abs(travelled - span)


@dataclass(frozen=True)
class Sway:
    """Displacement (px) along (sin, cos) with amplitude (px), period (frames) and phase (rad) per
    axis, plus a drift (px per frame)."""

    amplitude: np.ndarray
    period: np.ndarray
    phase: np.ndarray
    drift: np.ndarray

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """(T, 2) px."""
        angle = 2 * np.pi * times[:, None] / self.period + self.phase + np.array([0, np.pi / 2])
        return self.amplitude * np.sin(angle) + times[:, None] * self.drift


def outline(kind: str) -> np.ndarray | None:
    """(N, 2) corners about the origin with the longer side 1, y down, point upwards; None for the
    circle."""
    if kind == 'circle':
        return None
    sides = CORNERS[kind]
    count = 2 * sides if kind == 'star' else sides
    angle = (
        2 * np.pi * np.arange(count) / count - np.pi / 2 + (np.pi / 4 if kind == 'square' else 0)
    )
    # a regular pentagram's inner corners lie at (3 - sqrt 5) / 2 of the outer radius
    radius = np.where(np.arange(count) % 2, (3 - np.sqrt(5)) / 2,
                      1.0) if kind == 'star' else np.ones(count)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    points -= (points.max(0) + points.min(0)) / 2
    return points / np.ptp(points, 0).max()


@dataclass(frozen=True)
class Shape:
    """One object: `size` px of its longer side, `picture` (n, n, 3) sRGB over a square of 1.5 x
    `size`, `path` of its centre, `spin` rad per frame (clockwise on screen)."""

    kind: str
    size: float
    picture: np.ndarray
    path: Path
    spin: float = 0.0

    def local(self, x: Tensor, y: Tensor, times: np.ndarray) -> tuple[Tensor, Tensor]:
        """Coordinates of image points (T, ...) px in the upright shape, in units of its size."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        centre = torch.from_numpy(self.path(times)).to(x)
        angle = torch.from_numpy(self.spin * times).to(x).view(shape)
        dx, dy = x - centre[:, 0].view(shape), y - centre[:, 1].view(shape)
        c, s = angle.cos() / self.size, angle.sin() / self.size
        return c * dx + s * dy, c * dy - s * dx

    def covers(self, u: Tensor, v: Tensor) -> Tensor:
        """Whether local points are inside (even-odd rule)."""
        points = outline(self.kind)
        if points is None:
            return u * u + v * v < 0.25
        inside = torch.zeros_like(u, dtype=torch.bool)
        for (x0, y0), (x1, y1) in zip(points.tolist(), np.roll(points, -1, 0).tolist()):
            if y0 != y1:
                inside ^= ((v < y0) != (v < y1)) & (u < x0 + (x1 - x0) / (y1 - y0) * (v - y0))
        return inside


@dataclass(frozen=True)
class Scene:
    """A scene: `background` (n, m, 3) sRGB at the size it is seen, mirrored at its edges, moved by
    `path`."""

    size: tuple[int, int]
    background: np.ndarray
    path: Path
    shapes: tuple[Shape, ...]

    def render(self, times: np.ndarray, device: str = 'cpu') -> tuple[Tensor, Tensor]:
        """((T, 3, H, W) float32 image, (T, H, W) uint8 ids: 1 + index of the shape that covers half
        the pixel)."""
        times = np.asarray(times, np.float64)
        parts = [self._render(times[i:i + _CHUNK], device) for i in range(0, len(times), _CHUNK)]
        image, ids = zip(*parts)
        return torch.cat(image), torch.cat(ids)

    def _render(self, times: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
        shift = torch.from_numpy(self.path(times)).float().to(device).view(-1, 2, 1, 1)
        y, x = _pixels(self.size, device)
        middle = [(length - 1) / 2 for length in self.size]
        image = _sample(self.background, x - middle[1] - shift[:, 0], y - middle[0] - shift[:, 1])
        ids = torch.zeros((len(times), *self.size), dtype=torch.uint8, device=device)
        for number, shape in enumerate(self.shapes, 1):
            (rows, columns), alpha, colour = _look(shape, times, self.size, device)
            frame = torch.arange(len(times), device=device)[:, None, None]
            seen = image.permute(0, 2, 3, 1)[frame, rows, columns]
            image.permute(0, 2, 3, 1)[frame, rows, columns] = seen + alpha[..., None] * (
                colour - seen
            )
            ids[frame, rows, columns] = torch.where(alpha >= 0.5, number,
                                                    ids[frame, rows, columns]).to(torch.uint8)
        return image, ids

    def flow(self, time: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Forward flow of the pixels of frame `time`, whose ids (H, W) are given, to the next
        frame.

        Returns ((2, H, W) float32 px (x, y), (H, W) bool: the point is in the next frame and
        nothing hides it there).
        """
        y, x = _pixels(self.size, ids.device)
        both = np.array([time, time + 1.0])
        step = np.diff(self.path(both), axis=0)[0]
        to_x, to_y = x + step[0], y + step[1]
        for number, shape in enumerate(self.shapes, 1):
            (x0, y0), (x1, y1) = shape.path(both)
            c, s = np.cos(shape.spin), np.sin(shape.spin)
            mine = ids == number
            to_x = torch.where(mine, x1 + c * (x - x0) - s * (y - y0), to_x)
            to_y = torch.where(mine, y1 + s * (x - x0) + c * (y - y0), to_y)
        height, width = self.size
        valid = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
        for number, shape in enumerate(self.shapes, 1):
            hidden = shape.covers(*shape.local(to_x[None], to_y[None], both[1:]))[0]
            valid &= ~(hidden & (ids < number))
        return torch.stack([to_x - x, to_y - y]).float(), valid


def _pixels(size: tuple[int, int], device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Rows (H, W) and columns (H, W), float32."""
    return torch.meshgrid(*(torch.arange(n, device=device, dtype=torch.float32) for n in size),
                          indexing='ij')


def _sample(picture: np.ndarray, u: Tensor, v: Tensor) -> Tensor:
    """(T, 3, h, w): the picture (n, m, 3), mirrored at its edges, at (T, h, w) px from its middle,
    bilinear."""
    texels = (
        torch.from_numpy(picture)
        .float()
        .to(u.device)
        .permute(2, 0, 1)[None]
        .expand(len(u), -1, -1, -1)
    )
    grid = torch.stack([u * (2 / picture.shape[1]), v * (2 / picture.shape[0])], -1)
    return F.grid_sample(texels, grid, 'bilinear', 'reflection', align_corners=False)


def _look(shape: Shape, times: np.ndarray, size: tuple[int, int],
          device: str) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """((rows (T, h, 1), columns (T, 1, w)), alpha (T, h, w), colour (T, h, w, 3)) of a window that
    holds the shape.

    The window is moved into the image where the shape reaches over its edge.
    """
    reach = shape.size * (0.51 if shape.spin == 0 else 0.71) + 1
    corner = np.floor(shape.path(times)[:, ::-1] - reach)
    sides = [min(int(2 * reach) + 2, limit) for limit in size]
    corner = np.clip(corner, 0, np.array(size) - sides).astype(np.int64)
    rows, columns = (torch.from_numpy(corner[:, axis, None] + np.arange(sides[axis])).to(device)
                     for axis in (0, 1))
    rows, columns = rows[:, :, None], columns[:, None, :]
    parts = (torch.arange(_SUPERSAMPLE, device=device) + 0.5) / _SUPERSAMPLE - 0.5
    fine_y = (rows[..., None] + parts.repeat_interleave(_SUPERSAMPLE)).float()
    fine_x = (columns[..., None] + parts.repeat(_SUPERSAMPLE)).float()
    alpha = shape.covers(*shape.local(*torch.broadcast_tensors(fine_x, fine_y),
                                      times)).float().mean(-1)
    u, v = shape.local(*torch.broadcast_tensors(columns.float(), rows.float()), times)
    scale = len(shape.picture) / 1.5
    colour = _sample(shape.picture, u * scale, v * scale).permute(0, 2, 3, 1)
    return (rows, columns), alpha, colour


def find_preset_2d(preset: Preset2D | str) -> Preset2D:
    """The preset of that name, or the one given. Raises ConfigError for an unknown name."""
    if isinstance(preset, Preset2D):
        return preset
    if preset not in PRESETS_2D:
        raise ConfigError(f'unknown 2-D preset "{preset}": choose one of {", ".join(PRESETS_2D)}')
    return PRESETS_2D[preset]


def build_scene(preset: Preset2D | str, seed: int, split: str = 'train') -> Scene:
    """Draw the scene (preset, seed, split); the same three give the same scene. Textures are the
    split's."""
    preset = find_preset_2d(preset)
    rng = generator(seed, split, _STREAM)
    side = max(preset.size)
    zoom = rng.uniform(*preset.zoom)
    if preset.background == 'image':
        background = cv2.resize(_picture(rng, split, side), None, fx=zoom, fy=zoom,
                                interpolation=cv2.INTER_CUBIC)
        background = _soft(background, preset.softness_px)
    else:
        background = _plain(rng)
    count = int(rng.integers(preset.objects[0], preset.objects[1] + 1))
    path = _background_path(rng, preset)
    return Scene(
        preset.size, background, path, tuple(_shape(rng, preset, split) for _ in range(count))
    )


def _background_path(rng: np.random.Generator, preset: Preset2D) -> Sway:
    amplitude, period = rng.uniform(*preset.sway_px, 2), rng.uniform(*preset.sway_frames, 2)
    phase, direction, speed = (
        rng.uniform(0, 2 * np.pi, 2),
        rng.uniform(0, 2 * np.pi),
        rng.uniform(*preset.speed_px),
    )
    drift = speed * np.array([np.cos(direction), np.sin(direction)]) * (preset.path == 'linear')
    return Sway(amplitude * (preset.path == 'sine'), period, phase, drift)


def _shape(rng: np.random.Generator, preset: Preset2D, split: str) -> Shape:
    size, speed, direction = (
        rng.uniform(*preset.object_px),
        rng.uniform(*preset.speed_px),
        rng.uniform(0, 2 * np.pi),
    )
    kind, spin = pick(rng, preset.shapes), rng.uniform(*preset.spin_rad) * pick(rng, (-1, 1))
    high = np.array(preset.size[::-1], float) - 1
    margin = np.minimum(size / 2, high / 2 - 1)
    path = Bounce(rng.uniform(margin, high - margin),
                  speed * np.array([np.cos(direction), np.sin(direction)]), margin, high - margin)
    if rng.random() < preset.plain:
        return Shape(kind, size, _plain(rng), path, spin)
    return Shape(kind, size, _soft(_picture(rng, split, round(1.5 * size)), preset.softness_px),
                 path, spin)


def _picture(rng: np.random.Generator, split: str, side: int) -> np.ndarray:
    """(side, side, 3) float32 sRGB."""
    return texture(rng, split, side) ** np.float32(1 / GAMMA)


def _plain(rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(rng.uniform(0.05, 0.95, 3).astype(np.float32), (8, 8, 3)).copy()


def _soft(picture: np.ndarray, sigma: float) -> np.ndarray:
    if sigma > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.clip(picture, 0, 1)
