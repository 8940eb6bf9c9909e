"""The peer of bench.scenes: the same scene by OpenCV warps far to near, per sample, and a plain
Numba crossing loop.

It is what one would write without this package: same textures, same homographies, same sample
times, same outputs (frames, events, ids). Each thread does its own half of the image. Legend: S
samples, E events, H W pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numba
import numpy as np

from training.scenes.esim import Pixels
from training.scenes.geometry import DEFORM_TURNS, Surface, World
from training.scenes.textures import GAMMA

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
LOG_EPS = 0.01


@numba.njit(cache=True, nogil=True)
def blend(canvas: np.ndarray, sample: np.ndarray) -> None:
    """Lay `sample` (h, w, C + 1), colour times alpha and alpha, over `canvas` (h, w, C) in place.
    """
    height, width, colours = canvas.shape
    for y in range(height):
        for x in range(width):
            rest = 1 - sample[y, x, colours]
            for c in range(colours):
                canvas[y, x, c] = canvas[y, x, c] * rest + sample[y, x, c]


@numba.njit(cache=True, nogil=True)
def cross(
    log: np.ndarray,
    before: np.ndarray,
    state: np.ndarray,
    on: np.ndarray,
    off: np.ndarray,
    start: int,
    span: int,
    row: int,
    out: np.ndarray,
    count: int,
) -> tuple[np.ndarray, int]:
    """Append the packed crossings from image `before` to `log` (both (H, W)); returns (out, count).
    """
    height, width = log.shape
    for y in range(height):
        for x in range(width):
            low = state[y, x]
            high = low + log[y, x] - before[y, x]
            state[y, x] = high
            if -off[y, x] < high < on[y, x]:
                continue
            p = 1 if high >= on[y, x] else 0
            step = on[y, x] if p else -off[y, x]
            level = step
            while (high >= level) if p else (high <= level):
                t = start + np.int64((level - low) / (high - low) * span)
                if count == len(out):
                    out = np.concatenate((out, np.empty_like(out)))
                out[count] = (t << 29) | ((y + row) << 15) | (x << 1) | p
                count += 1
                level += step
            state[y, x] = high - (level - step)
    return out, count


class Painter:
    """Rows `first` ... `last` of a world at any time, by cv2.warpPerspective."""

    def __init__(
        self, world: World, size: tuple[int, int], rgb: bool, first: int, last: int
    ) -> None:
        self.world, self.size, self.first, self.last = world, size, first, last
        self.colours = 3 if rgb else 1
        self.textures = [self._texture(surface, rgb) for surface in world.surfaces]

    def _texture(self, surface: Surface, rgb: bool) -> np.ndarray:
        """(n, n, C) where opaque, else (n, n, C + 1)."""
        colour = surface.colour if rgb else (surface.colour @ LUMA)[..., None]
        if surface.alpha is None:
            return np.ascontiguousarray(colour)
        return np.concatenate(
            [colour * surface.alpha[..., None], surface.alpha[..., None]], 2
        ).astype(np.float32)

    def views(self, times: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Per surface (S, 3, 3) pixel to texel, (S, 4) box x0 y0 x1 y1, (S, 3) warp."""
        found = []
        for surface in self.world.surfaces:
            forward = self.world.homographies(surface, times, self.size)
            half = len(surface.colour) / 2
            texel = np.array([[half, 0, half - 0.5], [0, half, half - 0.5], [0, 0, 1]])
            found.append(
                (texel @ np.linalg.inv(forward), self._boxes(surface, forward), surface.bend(times))
            )
        return found

    def _boxes(self, surface: Surface, forward: np.ndarray) -> np.ndarray:
        width = self.size[1]
        if surface.mirrored or surface.tilt:
            return np.tile([0, self.first, width, self.last], (len(forward), 1))
        corners = forward @ (np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1 / 1.1] * 4]) * 1.1)
        x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
        return np.stack(
            [
                np.clip(x.min(1), 0, width),
                np.clip(y.min(1), self.first, self.last),
                np.clip(x.max(1) + 2, 0, width),
                np.clip(y.max(1) + 2, self.first, self.last),
            ],
            1,
        ).astype(int)

    def warp(self, index: int, texture: np.ndarray, view: tuple[np.ndarray, np.ndarray, np.ndarray],
             ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """((rows, columns) of this half, (h, w, channels)) of surface `index`, None where out of
        sight.
        """
        surface, (m, (x0, y0, x1, y1), bend) = self.world.surfaces[index], view
        if x1 <= x0 or y1 <= y0:
            return None
        m = m @ np.array([[1, 0, x0], [0, 1, y0], [0, 0, 1.0]])
        border = cv2.BORDER_REFLECT if surface.mirrored else cv2.BORDER_CONSTANT
        if bend[0] or surface.tilt:
            sample = cv2.remap(
                texture,
                *self._maps(m, bend, (y1 - y0, x1 - x0), len(texture)),
                cv2.INTER_LINEAR,
                borderMode=border,
            )
        else:
            sample = cv2.warpPerspective(
                texture,
                m,
                (int(x1 - x0), int(y1 - y0)),
                borderMode=border,
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            )
        return ((slice(y0 - self.first, y1 - self.first), slice(x0, x1)),
                sample.reshape(y1 - y0, x1 - x0, texture.shape[2]))

    @staticmethod
    def _maps(
        m: np.ndarray, bend: np.ndarray, size: tuple[int, int], side: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Texel maps (h, w) float32 of a plane that bends or ends at a horizon."""
        y, x = np.mgrid[:size[0], :size[1]].astype(np.float32)
        near = m[2, 0] * x + m[2, 1] * y + m[2, 2]
        u, v = ((m[axis, 0] * x + m[axis, 1] * y + m[axis, 2]) / near for axis in (0, 1))
        if bend[0]:
            u, v = ((value + 0.5) / (side / 2) - 1 for value in (u, v))
            u, v = (u + bend[0] * np.sin(DEFORM_TURNS[0] * v + bend[1]),
                    v + bend[0] * np.sin(DEFORM_TURNS[1] * u + bend[2]))
            u, v = ((value + 1) * (side / 2) - 0.5 for value in (u, v))
        return np.where(near > 0, u, -9.0).astype(np.float32), np.where(near > 0, v, -9.0).astype(
            np.float32
        )

    def light(self, views: list, k: int, gain: float, fall: np.ndarray) -> np.ndarray:
        """(h, W, C) float32 linear light at sample k of `views`."""
        canvas = np.zeros((self.last - self.first, self.size[1], self.colours), np.float32)
        for index, (texture, view) in enumerate(zip(self.textures, views, strict=True)):
            warped = self.warp(index, texture, tuple(part[k] for part in view))
            if warped is None:
                continue
            if texture.shape[2] == self.colours:
                canvas[warped[0]] = warped[1]
            else:
                blend(canvas[warped[0]], warped[1])
        canvas *= fall[self.first:self.last, :, None] * np.float32(gain)
        return canvas


def events(world: World, size: tuple[int, int], times: np.ndarray, pixels: Pixels, first: int,
           last: int) -> np.ndarray:
    """(E,) int64 packed, unsorted, of the rows `first` ... `last`."""
    painter = Painter(world, size, False, first, last)
    views, gains, fall = painter.views(times), world.gain(times), world.changes.fall(size)
    stamps = np.round((times - times[0]) * 1e9).astype(np.int64)
    out, count, before = np.empty(4096, np.int64), 0, None
    rows = slice(first, last)
    state, on, off = pixels.state[rows].copy(), pixels.on[rows], pixels.off[rows]
    for k in range(len(times)):
        log = cv2.log(painter.light(views, k, gains[k], fall)[..., 0] + np.float32(LOG_EPS))
        if k:
            out, count = cross(
                log,
                before,
                state,
                on,
                off,
                stamps[k - 1],
                stamps[k] - stamps[k - 1],
                first,
                out,
                count,
            )
        before = log
    return out[:count]


def frames(
    world: World,
    size: tuple[int, int],
    offsets_s: np.ndarray,
    counts: np.ndarray,
    first: int,
    last: int,
) -> tuple[np.ndarray, np.ndarray]:
    """((T, h, W, 3) uint8, (T, h, W) uint16 ids) of the rows `first` ...

    `last`; `counts` (T,) samples per exposure.
    """
    painter = Painter(world, size, True, first, last)
    rng, fall = np.random.default_rng(first), world.changes.fall(size)
    images, ids = [], np.zeros((len(offsets_s), last - first, size[1]), np.uint16)
    for k, (offset, count) in enumerate(zip(offsets_s, counts, strict=True)):
        times = offset + ((np.arange(count) + 0.5) / count - 0.5) * world.exposure_s
        views, gains = painter.views(np.append(times, offset)), world.gain(times)
        light = sum(painter.light(views, j, gains[j], fall) for j in range(count)) / count
        light += rng.standard_normal(light.shape, np.float32) * np.sqrt(
            light / (8000 * world.light)
        )
        levels = (
            cv2.pow(np.clip(light, 0, 1), 1 / GAMMA) * 255
            + rng.standard_normal(light.shape, np.float32) * 1.5
        )
        images.append(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        for index, surface in enumerate(world.surfaces):
            if surface.alpha is not None and not surface.unseen:
                warped = painter.warp(
                    index, surface.alpha[..., None], tuple(part[-1] for part in views[index])
                )
                if warped is not None:
                    ids[k][warped[0]][warped[1][..., 0] >= 0.5] = surface.number
    return np.stack(images), ids


def render(
    world: World,
    size: tuple[int, int],
    times: np.ndarray,
    pixels: Pixels,
    offsets_s: np.ndarray,
    counts: np.ndarray,
    threads: int = 2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frames (T, H, W, 3), ids (T, H, W), sorted packed events (E,)) by `threads` threads, each
    with its rows.
    """
    cv2.setNumThreads(1)  # the threads are ours: one per band of rows
    edges = np.linspace(0, size[0], threads + 1).astype(int).tolist()
    bands = list(zip(edges[:-1], edges[1:], strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(lambda band: frames(world, size, offsets_s, counts, *band), bands))
        found = list(pool.map(lambda band: events(world, size, times, pixels, *band), bands))
    return (
        np.concatenate([part[0] for part in seen], 1),
        np.concatenate([part[1] for part in seen], 1),
        np.sort(np.concatenate(found)),
    )
