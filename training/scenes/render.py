"""Pixels of a world at any times, by warping textured planes far to near, on any device. S samples, C channels."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from training.scenes.world import Surface, World

LUMA = (0.299, 0.587, 0.114)
_CHUNK = 16  # samples per pass: small enough for the cache


class Renderer:
    """Renders one world at one size. `images` in linear light, `ids` as the objects' numbers."""

    def __init__(self, world: World, size: tuple[int, int], device: str = 'cpu') -> None:
        self.world = world
        self.size = size
        self.device = torch.device(device)

    def images(self, times: np.ndarray, rgb: bool) -> torch.Tensor:
        """(S, C, H, W) float32 linear light at `times` (S,) s; C is 3 or, for luma, 1."""
        textures = [self._texture(surface, rgb) for surface in self.world.surfaces]
        inverses = [self._inverse(surface, times) for surface in self.world.surfaces]
        resting = [self._warp(*parts) if len(parts[2]) == 1 else None
                   for parts in zip(self.world.surfaces, textures, inverses)]
        image = torch.empty((3 if rgb else 1, len(times), *self.size), device=self.device)
        for first in range(0, len(times), _CHUNK):
            canvas = image[:, first:first + _CHUNK]
            for surface, texture, inverse, seen in zip(self.world.surfaces, textures, inverses, resting):
                _paint(canvas, *(seen or self._warp(surface, texture, inverse[first:first + _CHUNK])))
        gain = torch.from_numpy(self.world.gain(times)).to(self.device)
        return image.transpose(0, 1).mul_(gain[:, None, None, None])

    def ids(self, times: np.ndarray) -> np.ndarray:
        """(S, H, W) uint16 number of the object seen at each pixel (half covered or more), 0 = background."""
        ids = torch.zeros((len(times), *self.size), dtype=torch.int32, device=self.device)
        for surface in self.world.objects() and self.world.surfaces:
            if surface.alpha is None:
                continue
            texture = torch.from_numpy(surface.alpha).to(self.device)[None, None]
            inverse = self._inverse(surface, times)
            box, cover = self._warp(surface, texture, inverse)
            region = ids[(slice(None), *box)]
            region[(cover[0] >= 0.5).expand_as(region)] = surface.number
        return ids.cpu().numpy().astype(np.uint16)

    def _texture(self, surface: Surface, rgb: bool) -> torch.Tensor:
        """(1, C or C + 1, n, n): colour, or colour times alpha and then alpha."""
        colour = torch.from_numpy(surface.colour).to(self.device).movedim(-1, 0)
        if not rgb:
            colour = (colour * torch.tensor(LUMA, device=self.device)[:, None, None]).sum(0, keepdim=True)
        if surface.alpha is not None:
            alpha = torch.from_numpy(surface.alpha).to(self.device)[None]
            colour = torch.cat([colour * alpha, alpha])
        return colour[None]

    def _inverse(self, surface: Surface, times: np.ndarray) -> np.ndarray:
        """(S, 3, 3) float64 from pixels to plane coordinates, (1, 3, 3) where neither surface nor camera moves."""
        resting = surface.track.still and self.world.camera.still
        return np.linalg.inv(self.world.homographies(surface, times[:1] if resting else times, self.size))

    def _warp(self, surface: Surface, texture: torch.Tensor,
              inverse: np.ndarray) -> tuple[tuple[slice, slice], torch.Tensor]:
        """((rows, columns), (C, S, h, w)): the texture seen inside the box that holds it at all S times."""
        rows, columns = self._box(surface, inverse)
        tilted = np.abs(inverse[:, 2, :2]).max() > 1e-9 * np.abs(inverse[:, 2, 2]).min()
        m = torch.from_numpy((inverse / inverse[:, 2:, 2:]).astype(np.float32)).to(self.device)
        x = torch.arange(columns.start, columns.stop, device=self.device, dtype=torch.float32)
        y = torch.arange(rows.start, rows.stop, device=self.device, dtype=torch.float32)
        grid = torch.empty((len(m), len(y), len(x), 2), device=self.device)
        scale = _plane(m[:, 2], x, y).reciprocal_() if tilted else None
        for axis in (0, 1):
            if tilted:
                torch.mul(_plane(m[:, axis], x, y), scale, out=grid[..., axis])
            else:
                _plane(m[:, axis], x, y, grid[..., axis])
        flat = grid.view(1, len(m) * len(y), len(x), 2)
        padding = 'reflection' if surface.mirrored else 'zeros'
        sample = functional.grid_sample(texture, flat, 'bilinear', padding, align_corners=False)
        return (rows, columns), sample.view(texture.shape[1], len(m), len(y), len(x))

    def _box(self, surface: Surface, inverse: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns of the image that the plane's square covers at any of the times."""
        height, width = self.size
        if surface.mirrored or surface.alpha is None:
            return slice(0, height), slice(0, width)
        corners = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]]) * 1.0
        x, y, w = np.moveaxis(np.linalg.inv(inverse) @ corners, 1, 0)
        x, y = x / w, y / w
        x0, x1 = np.clip([np.floor(x.min()), np.ceil(x.max()) + 1], 0, width).astype(int)
        y0, y1 = np.clip([np.floor(y.min()), np.ceil(y.max()) + 1], 0, height).astype(int)
        return slice(int(y0), int(max(y0, y1))), slice(int(x0), int(max(x0, x1)))


def _plane(m: torch.Tensor, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """(S, h, w): m0 x + m1 y + m2 for rows m (S, 3) of a homography."""
    return torch.add((m[:, 0, None] * x)[:, None, :], (m[:, 1, None] * y + m[:, 2, None])[:, :, None], out=out)


def _paint(canvas: torch.Tensor, box: tuple[slice, slice], sample: torch.Tensor) -> None:
    """Lay a warped texture (C or C + 1, S or 1, h, w) over the box of `canvas` (C, S, H, W), in place."""
    region = canvas[(slice(None), slice(None), *box)]
    if len(sample) == len(canvas):
        region.copy_(sample.expand_as(region))
    else:
        region.mul_(1 - sample[-1:]).add_(sample[:-1])


def fastest_px_s(world: World, size: tuple[int, int], times: np.ndarray) -> float:
    """Pixels per second of the fastest surface point at `times` (S,) s: image points carried on by its plane."""
    step = 1e-3
    height, width = size
    frame = np.array([[0, width - 1, width - 1, 0], [0, 0, height - 1, height - 1], [1, 1, 1, 1]]) * 1.0
    rim = np.array([[-0.7, 0.7, 0.7, -0.7], [-0.7, -0.7, 0.7, 0.7], [1, 1, 1, 1]])
    fastest = 0.0
    for surface in world.surfaces:
        if surface.track.still and world.camera.still:
            continue
        now, then = (world.homographies(surface, times + shift, size) for shift in (0, step))
        points = np.linalg.inv(now) @ frame if surface.mirrored else np.broadcast_to(rim, (len(times), 3, 4))
        a, b = now @ points, then @ points
        fastest = max(fastest, float(np.linalg.norm(a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:], axis=1).max()) / step)
    return fastest
