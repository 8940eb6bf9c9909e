"""Pixels of a world at any times, by warping textured planes. S samples, C channels.

On the CPU compiled loops (`kernels`) sweep the image row by row; on other devices PyTorch warps
whole surfaces far to near. Both compute the same picture (a test compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional

from training.scenes import kernels
from training.scenes.geometry import DEFORM_TURNS, Surface, World
from training.scenes.tables import Placement, Textures, packed_texture

_CHUNK = 16  # samples per pass: small enough for the cache
BAND = 4     # image rows per task on the CPU
S, T = TypeVar('S'), TypeVar('T')


def parallel_map(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """`map(work, items)` on as many threads as PyTorch may use."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)


def in_bands(height: int, work: Callable[[slice], T]) -> Iterator[T]:
    """`work(rows)` of consecutive bands of the image, on as many threads as PyTorch may use, in
    order of rows."""
    yield from parallel_map(work, [slice(first, min(first + BAND, height))
                                   for first in range(0, height, BAND)])


class Painter:
    """Linear light of one world at fixed times on the CPU, any rows at a time; safe to call from
    several threads."""

    def __init__(self, world: World, times: np.ndarray, size: tuple[int, int],
                 textures: Textures) -> None:
        self._channels = len(textures.flat) // len(textures.kinds) - 1
        self._width = size[1]
        placement = Placement.of(world, times, size)
        self._textures = textures
        self._view = (np.ascontiguousarray(placement.inverse, np.float32),
                      placement.bends.astype(np.float32), placement.boxes)
        self._cover = world.changes.fall(size)
        self._gain = world.gain(times)
        self._skip = np.array([world.resting(surface) for surface in world.surfaces])

    def rows(self, rows: slice, samples: slice = slice(None)) -> np.ndarray:
        """(C, S, rows, W) float32 linear light, of some of the times."""
        inverse, bends, boxes = (part[samples] for part in self._view)
        shape = (self._channels, len(inverse), rows.stop - rows.start, self._width)
        base = np.empty((self._channels, *shape[2:]), np.float32)
        textures = self._textures
        if self._skip.any():
            still = np.empty((self._channels, 1, *shape[2:]), np.float32)
            few = np.flatnonzero(self._skip)
            kernels.composite(still, rows.start, textures.flat, textures.kinds,
                              textures.shapes[few], np.ascontiguousarray(inverse[:1, few]),
                              np.ascontiguousarray(bends[:1, few]),
                              np.ascontiguousarray(boxes[:1, few]), np.zeros(len(few), bool), base,
                              np.ones(shape[2:], np.float32), np.ones(1, np.float32))
            base = still[:, 0]
        out = np.empty(shape, np.float32)
        kernels.composite(out, rows.start, textures.flat, textures.kinds, textures.shapes, inverse,
                          bends, boxes, self._skip, base, self._cover[rows], self._gain[samples])
        return out


class Renderer:
    """Renders one world at one size. `images` in linear light, `ids` as the objects' numbers."""

    def __init__(self, world: World, size: tuple[int, int], device: str = 'cpu',
                 compiled: bool = True) -> None:
        self.world = world
        self.size = size
        self.device = torch.device(device)
        self.compiled = compiled and self.device.type == 'cpu'
        self._textures: dict[int, Textures] = {}

    def painter(self, times: np.ndarray, rgb: bool) -> Painter:
        """The compiled painter of these times; textures are packed once."""
        return Painter(self.world, times, self.size, self.textures(3 if rgb else 1))

    def textures(self, channels: int) -> Textures:
        """Packed for the compiled loops, once; 0 channels: alpha alone."""
        if channels not in self._textures:
            self._textures[channels] = Textures.of(self.world.surfaces, channels)
        return self._textures[channels]

    def images(self, times: np.ndarray, rgb: bool) -> torch.Tensor:
        """(S, C, H, W) float32 linear light at `times` (S,) s; C is 3 or, for luma, 1."""
        if self.compiled:
            bands = list(in_bands(self.size[0], self.painter(times, rgb).rows))
            return torch.from_numpy(np.concatenate(bands, 2)).transpose(0, 1)
        textures = [self._texture(surface, 3 if rgb else 1) for surface in self.world.surfaces]
        views = [self._view(surface, times) for surface in self.world.surfaces]
        resting = [self._warp(*parts) if len(parts[2][0]) == 1 else None
                   for parts in zip(self.world.surfaces, textures, views)]
        image = torch.empty((3 if rgb else 1, len(times), *self.size), device=self.device)
        for first in range(0, len(times), _CHUNK):
            canvas = image[:, first:first + _CHUNK]
            canvas.zero_()
            for surface, texture, view, seen in zip(self.world.surfaces, textures, views, resting):
                part = tuple(value[first:first + _CHUNK] for value in view)
                _paint(canvas, *(seen or self._warp(surface, texture, part)))
        gain = torch.from_numpy(self.world.gain(times)).to(self.device)
        cover = torch.from_numpy(self.world.changes.fall(self.size)).to(self.device)
        return image.transpose(0, 1).mul_(gain[:, None, None, None]).mul_(cover)

    def ids(self, times: np.ndarray) -> np.ndarray:
        """(S, H, W) uint16 number of the object seen at each pixel (half covered or more), 0 =
        background."""
        if self.compiled:
            numbers = np.array([surface.number for surface in self.world.surfaces], np.uint16)
            return numbers[self.hits(times)[0]]
        ids = torch.zeros((len(times), *self.size), dtype=torch.int32, device=self.device)
        for surface in self.world.surfaces:
            if surface.alpha is None or surface.unseen:
                continue
            box, cover = self._warp(surface, self._texture(surface, 0), self._view(surface, times))
            region = ids[(slice(None), *box)]
            region[(cover[0] >= 0.5).expand_as(region)] = surface.number
        return ids.cpu().numpy().astype(np.uint16)

    def hits(self, times: np.ndarray, amodal: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """((S, H, W) int16 index of the nearest surface half covering each pixel, -1 = none; (S, K
        + 1 or 0, H, W) bool each object's own extent, column 0 empty), on the CPU."""
        world, textures = self.world, self.textures(0)
        numbers = np.array([surface.number for surface in world.surfaces], np.int64)
        index = np.full((len(times), *self.size), -1, np.int16)
        extents = np.zeros((len(times), world.count + 1 if amodal else 0, *self.size), bool)
        place = Placement.of(world, times, self.size)
        inverse, bends = place.inverse.astype(np.float32), place.bends.astype(np.float32)

        def work(at: int) -> None:
            part = slice(at, at + 4)
            kernels.first_hit(index[part], extents[part], textures.flat, textures.kinds,
                              textures.shapes, numbers, inverse[part], bends[part],
                              place.boxes[part])

        list(parallel_map(work, range(0, len(times), 4)))
        return index, extents

    def _texture(self, surface: Surface, channels: int) -> torch.Tensor:
        """(1, C or C + 1, n, n): colour, or colour times alpha and then alpha; alpha alone for 0
        channels."""
        texture = torch.from_numpy(packed_texture(surface, channels)).to(self.device).movedim(-1, 0)
        return (texture if surface.alpha is not None or not channels else texture[:-1])[None]

    def _view(self, surface: Surface, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((S, 3, 3) float64 from pixels to plane coordinates, (S, 3) warp); S = 1 where nothing
        ever moves."""
        times = times[:1] if self.world.resting(surface) else times
        maps = self.world.homographies(surface, times, self.size)
        return np.linalg.inv(maps), surface.bend(times)

    def _warp(self, surface: Surface, texture: torch.Tensor,
              view: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[slice, slice], torch.Tensor]:
        """((rows, columns), (C, S, h, w)): the texture seen inside the box that holds it at all S
        times."""
        inverse, bend = view
        rows, columns = self._box(surface, inverse)
        m = torch.from_numpy(inverse.astype(np.float32)).to(self.device)
        x = torch.arange(columns.start, columns.stop, device=self.device, dtype=torch.float32)
        y = torch.arange(rows.start, rows.stop, device=self.device, dtype=torch.float32)
        near = _plane(m[:, 2], x, y)
        grid = torch.stack([_plane(m[:, axis], x, y) for axis in (0, 1)], -1).div_(near[..., None])
        if bend[:, :3].any():
            shape = torch.from_numpy(bend[:, :3].T.astype(np.float32)).to(self.device)
            a, p0, p1 = shape[:, :, None, None]
            u, v = grid.unbind(-1)
            k0, k1 = map(float, DEFORM_TURNS)
            grid = torch.stack([u + a * torch.sin(k0 * v + p0), v + a * torch.sin(k1 * u + p1)], -1)
        if surface.waves is not None:
            grid = _rippled(grid, torch.from_numpy(bend[:, 3:].astype(np.float32)).to(self.device))
        flat = grid.masked_fill_((near <= 0)[..., None], 9.0).view(1, len(m) * len(y), len(x), 2)
        padding = 'reflection' if surface.mirrored else 'zeros'
        sample = functional.grid_sample(texture, flat, 'bilinear', padding, align_corners=False)
        return (rows, columns), sample.view(texture.shape[1], len(m), len(y), len(x))

    def _box(self, surface: Surface, inverse: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns of the image that the plane's square covers at any of the times."""
        height, width = self.size
        corners = np.array([[-1.2, 1.2, 1.2, -1.2], [-1.2, -1.2, 1.2, 1.2], [1, 1, 1, 1]])
        x, y, w = np.moveaxis(np.linalg.inv(inverse) @ corners, 1, 0)
        if surface.mirrored or surface.alpha is None or w.min() <= 0.01:
            return slice(0, height), slice(0, width)
        x, y = x / w, y / w
        x0, x1 = np.clip([np.floor(x.min()), np.ceil(x.max()) + 1], 0, width).astype(int)
        y0, y1 = np.clip([np.floor(y.min()), np.ceil(y.max()) + 1], 0, height).astype(int)
        return slice(int(y0), int(max(y0, y1))), slice(int(x0), int(max(x0, x1)))


def _plane(m: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(S, h, w): m0 x + m1 y + m2 for rows m (S, 3) of a homography."""
    return (m[:, 0, None] * x)[:, None, :] + (m[:, 1, None] * y + m[:, 2, None])[:, :, None]


def _rippled(grid: torch.Tensor, waves: torch.Tensor) -> torch.Tensor:
    """Plane coordinates (S, h, w, 2) moved by the waves (S, 5 M) of `geometry.Waves.at`."""
    moved = grid.clone()
    every = waves.T.reshape(-1, 5, len(waves))[..., None, None]
    for lift_u, lift_v, turns_u, turns_v, phase in every:
        height = torch.sin(turns_u * grid[..., 0] + turns_v * grid[..., 1] + phase)
        moved[..., 0] += lift_u * height
        moved[..., 1] += lift_v * height
    return moved


def _paint(canvas: torch.Tensor, box: tuple[slice, slice], sample: torch.Tensor) -> None:
    """Lay a warped texture (C or C + 1, S or 1, h, w) over the box of `canvas` (C, S, H, W), in
    place."""
    region = canvas[(slice(None), slice(None), *box)]
    if len(sample) == len(canvas):
        region.copy_(sample.expand_as(region))
    else:
        region.mul_(1 - sample[-1:]).add_(sample[:-1])


def speeds_px_s(world: World, size: tuple[int, int], times: np.ndarray) -> np.ndarray:
    """(S,) pixels per second of the fastest surface point at each time: image points carried on by
    their plane."""
    step = 1e-3
    height, width = size
    frame = np.array([[0, width - 1, width - 1, 0], [0, 0, height - 1, height - 1],
                      [1, 1, 1, 1]]) * 1.0
    rim = np.array([[-0.7, 0.7, 0.7, -0.7], [-0.7, -0.7, 0.7, 0.7], [1, 1, 1, 1]])
    fastest = np.zeros(len(times))
    for surface in world.surfaces:
        if world.resting(surface):
            continue
        now, then = (world.homographies(surface, times + shift, size) for shift in (0, step))
        whole = surface.mirrored or surface.tilt
        points = np.linalg.inv(now) @ frame if whole else np.broadcast_to(rim, (len(times), 3, 4))
        a, b = now @ points, then @ points
        if surface.tilt:  # corners above the horizon are not on the plane
            b = np.where(points[:, 2:] > 0, b, a)
        pace = np.linalg.norm(a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:], axis=1).max(1) / step
        if surface.deform:
            turn = np.abs(surface.bend(times + step) - surface.bend(times))[:, 1:3].max(1) / step
            pace += surface.deform[0] * turn * surface.half / surface.depth * width
        if surface.waves is not None:
            pace += _wave_px_s(surface, times, width)
        fastest = np.maximum(fastest, pace)
    return fastest


def _wave_px_s(surface: Surface, times: np.ndarray, width: int, step: float = 1e-3) -> np.ndarray:
    """(S,) pixels per second that the waves of a surface add, at its own distance."""
    turn = np.abs(surface.bend(times + step)[:, 7::5] - surface.bend(times)[:, 7::5]) / step
    return turn @ np.abs(surface.waves.lift).max(1) * surface.half / max(surface.depth, 0.5) * width


def fastest_px_s(world: World, size: tuple[int, int], times: np.ndarray) -> float:
    """Pixels per second of the fastest surface point at any of `times` (S,) s."""
    return float(speeds_px_s(world, size, times).max(initial=0.0))
