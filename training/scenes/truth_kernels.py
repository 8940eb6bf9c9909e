"""Compiled loops of the truth: which surface is hit, where it is in space, where it goes.

The legend is that of `kernels`. All release the GIL.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from training.scenes.kernels import K0, K1, wavy


@numba.njit(nogil=True, cache=True, inline='always')
def _texel(u, v, mirrored, side):
    """(column, row) in texels of plane coordinates, or a column below -1e8 outside of the
    texture."""
    if mirrored:
        u = abs((u - 1) - 4 * math.floor((u - 1) * 0.25) - 2) - 1
        v = abs((v - 1) - 4 * math.floor((v - 1) * 0.25) - 2) - 1
    elif not (-1 <= u <= 1 and -1 <= v <= 1):
        return -1e9, 0.0
    top = side - 1.0
    return (min(max((u + 1) * 0.5 * side - 0.5, 0.0), top),
            min(max((v + 1) * 0.5 * side - 0.5, 0.0), top))


@numba.njit(nogil=True, cache=True, error_model='numpy', inline='always')
def _rippled(bend, u, v):
    """(u, v) moved by the waves of a warp."""
    du, dv = 0.0, 0.0
    for at in range(3, len(bend), 5):
        height = math.sin(bend[at + 2] * u + bend[at + 3] * v + bend[at + 4])
        du += bend[at] * height
        dv += bend[at + 1] * height
    return du, dv


@numba.njit(nogil=True, cache=True, error_model='numpy', inline='always')
def coverage(alphas: np.ndarray, shape: np.ndarray, m: np.ndarray, bend: np.ndarray, x: float,
             y: float) -> tuple[float, float, float, float]:
    """(alpha, u, v, 1 / depth) of one surface at the pixel; alpha 0 outside. `alphas` flat (one
    number a texel)."""
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    if depth <= 0:
        return 0.0, 0.0, 0.0, 0.0
    u, v = (
        (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / depth,
        (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / depth,
    )
    tu, tv = u, v
    if bend[0] > 0:
        tu, tv = u + bend[0] * math.sin(K0 * v + bend[1]), v + bend[0] * math.sin(K1 * u + bend[2])
    if wavy(bend):
        du, dv = _rippled(bend, tu, tv)
        tu, tv = tu + du, tv + dv
    side = shape[1]
    fx, fy = _texel(tu, tv, shape[2], side)
    if fx < 0:
        return 0.0, u, v, depth
    x0, y0 = int(fx), int(fy)
    wx, wy = fx - x0, fy - y0
    right, below = (1 if x0 + 1 < side else 0), (side if y0 + 1 < side else 0)
    at = shape[0] + y0 * side + x0
    value = ((1 - wx) * (1 - wy) * alphas[at] + wx * (1 - wy) * alphas[at + right] +
             (1 - wx) * wy * alphas[at + below] + wx * wy * alphas[at + right + below])
    return value, u, v, depth


@numba.njit(nogil=True, cache=True, error_model='numpy')
def hit_events(labels: np.ndarray, x: np.ndarray, y: np.ndarray, slot: np.ndarray,
               alphas: np.ndarray, shapes: np.ndarray, numbers: np.ndarray, inverse: np.ndarray,
               bends: np.ndarray, boxes: np.ndarray) -> None:
    """`labels` (E,) <- object number of the nearest surface half covering pixel (x, y) at table
    entry `slot` (E,)."""
    for e in range(len(labels)):
        k = slot[e]
        for n in range(len(shapes) - 1, -1, -1):
            box = boxes[k, n]
            if shapes[n, 3] or not (box[0] <= x[e] < box[2] and box[1] <= y[e] < box[3]):
                continue
            if coverage(alphas, shapes[n], inverse[k, n], bends[k, n], x[e], y[e])[0] >= 0.5:
                labels[e] = numbers[n]
                break


@numba.njit(nogil=True, cache=True)
def extents(boxes: np.ndarray, ids: np.ndarray) -> None:
    """`boxes` (T, K + 1, 4) int64 of zeros <- x0 y0 x1 y1, ends exclusive, of each number in `ids`
    (T, H, W)."""
    for k in range(len(ids)):
        for y in range(ids.shape[1]):
            for x in range(ids.shape[2]):
                n = ids[k, y, x]
                if n == 0:
                    continue
                box = boxes[k, n]
                if box[3] == 0:
                    box[0], box[1], box[2] = x, y, x + 1
                box[0], box[2], box[3] = min(box[0], x), max(box[2], x + 1), y + 1


@numba.njit(nogil=True, cache=True, error_model='numpy')
def carry(u: float, v: float, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Plane coordinates that show with the warp `b` (3 + 5 M,) the texture point that (u, v) shows
    with the warp `a`."""
    moved = wavy(a)
    if a[0] == 0 and not moved:
        return u, v
    tu, tv = u + a[0] * math.sin(K0 * v + a[1]), v + a[0] * math.sin(K1 * u + a[2])
    if moved:
        du, dv = _rippled(a, tu, tv)
        tu, tv = tu + du, tv + dv
        wu, wv = tu, tv  # before the waves of then: a contraction, see nature.waves
        for _ in range(40):
            du, dv = _rippled(b, wu, wv)
            wu, wv = tu - du, tv - dv
        tu, tv = wu, wv
        u, v = tu, tv
    if a[0] == 0:
        return u, v
    for _ in range(30):  # a contraction: amplitude times K1 is under 0.4
        u, v = tu - b[0] * math.sin(K0 * v + b[1]), tv - b[0] * math.sin(K1 * u + b[2])
    return u, v


@numba.njit(nogil=True, cache=True, error_model='numpy')
def _times(m: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    """m (3, 3) times (x, y, 1)."""
    return (m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2],
            m[2, 0] * x + m[2, 1] * y + m[2, 2])


@numba.njit(nogil=True, cache=True, error_model='numpy')
def geometry(depth: np.ndarray, points: np.ndarray, flow: np.ndarray, valid: np.ndarray,
             index: np.ndarray, inverse: np.ndarray, rays: np.ndarray, forward: np.ndarray,
             steps: np.ndarray, bends: np.ndarray) -> None:
    """Of one time: `depth` (H, W), world `points` (H, W, 3), `flow` (1 or 0, H, W, 2) to the next
    time and `valid`: the point lands inside, among four pixels that show the same surface.

    `index`, `bends` hold this time and the next, where there is one. (N, 3, 3): `inverse` of now;
    `rays`, from pixels to world points at depth 1; `forward` of the next time; `steps` = forward .
    inverse, from pixels now to pixels then.
    """
    height, width = index.shape[1:]
    for y in range(height):
        end = 0
        while end < width:  # runs of one surface
            x, n = end, index[0, y, end]
            while end < width and index[0, y, end] == n:
                end += 1
            if n < 0:
                continue
            _depth_run(depth[y], points[y], x, end, y, inverse[n], rays[n])
            if len(flow):
                _flow_run(flow[0, y], valid[0, y], x, end, y, n, index[1], inverse[n], forward[n],
                          steps[n], bends[0, n], bends[1, n])


@numba.njit(nogil=True, cache=True, error_model='numpy')
def _depth_run(depth, points, start, end, y, m, ray):
    """Depth and points of the pixels from `start` to `end` of row y."""
    for x in range(start, end):
        away = 1 / (m[2, 0] * x + m[2, 1] * y + m[2, 2])
        depth[x] = away
        for axis in range(3):
            points[x, axis] = (ray[axis, 0] * x + ray[axis, 1] * y + ray[axis, 2]) * away


@numba.njit(nogil=True, cache=True, error_model='numpy')
def _flow_run(flow, valid, start, end, y, n, after, m, forward, step, bend, then):
    """Flow and its validity of the pixels from `start` to `end` of row y, which show the surface
    n."""
    height, width = after.shape
    for x in range(start, end):
        if bend[0] == 0 and not wavy(bend):
            a, b, far = _times(step, x, y)
        else:
            a, b, c = _times(m, x, y)
            u, v = carry(a / c, b / c, bend, then)
            a, b, far = _times(forward, u, v)
        if far <= 0:
            continue
        a, b = a / far, b / far
        flow[x, 0], flow[x, 1] = a - x, b - y
        if 0 <= a <= width - 1 and 0 <= b <= height - 1:
            i, j = min(int(a), width - 2), min(int(b), height - 2)
            valid[x] = (
                after[j, i] == n
                and after[j, i + 1] == n
                and after[j + 1, i] == n
                and after[j + 1, i + 1] == n
            )
