"""Compiled loops of the CPU renderer: a plane sweep per image row, near to far, that stops where
the view is full.

Legend: S samples, N surfaces (far to near), H W pixels, C colours. A surface's texture is C + 1
numbers a texel (colour times alpha, alpha) in one flat float32 array; `kinds` has one number a
texel; `shapes` (N, 4) int64 holds its first texel, its side, whether it is mirrored and whether it
is light only; `inverse` (S, N, 3, 3) goes from pixels to its plane, `bends` (S, N, 3 + 5 M) is its
warp (a bend, then M waves: `geometry.Surface.bend`), `boxes` (S, N, 4) the x0, y0, x1, y1 that hold
it. All kernels release the GIL and never touch a row that is not theirs.
"""

from __future__ import annotations

import math

import numba
import numpy as np

f32, i32 = np.float32, np.int32
K0, K1 = f32(2.1), f32(2.7)  # geometry.DEFORM_TURNS
EMPTY, MIXED, FULL = 0, 1, 2  # whether the four texels from one on are all transparent, all opaque
_FAST = {'contract', 'nsz', 'arcp', 'reassoc'}
# light behind this little transmittance is left out (a quarter of a grey level)
_NEAR_FULL = f32(1e-3)


@numba.njit(nogil=True, cache=True, error_model='numpy', fastmath=_FAST)
def _ripple(bend, us, vs):
    """Plane coordinates `us`, `vs` (w,) moved by the waves of a warp, in place."""
    for x in range(len(us)):
        u, v = us[x], vs[x]
        du, dv = f32(0), f32(0)
        for at in range(3, len(bend), 5):
            height = math.sin(bend[at + 2] * u + bend[at + 3] * v + bend[at + 4])
            du += bend[at] * height
            dv += bend[at + 1] * height
        us[x], vs[x] = u + du, v + dv


@numba.njit(nogil=True, cache=True, error_model='numpy', inline='always')
def wavy(bend: np.ndarray) -> bool:
    """Whether a warp has waves; a surface with fewer than others has zeros at the end."""
    return len(bend) > 3 and (bend[3] != 0 or bend[4] != 0)


@numba.njit(nogil=True, cache=True, error_model='numpy', fastmath=_FAST)
def _aim(m, bend, mirrored, side, y, xs, at, wx, wy):
    """Where the pixels (`xs`, y) of a row meet a surface: `at` the texel (-1: nowhere), its weights
    `wx`, `wy`."""
    one, half, two, four = f32(1), f32(0.5), f32(2), f32(4)
    top, last, scale = f32(side - 1), i32(side - 2), f32(side * 0.5)
    a0, b0, c0 = m[0, 1] * y + m[0, 2], m[1, 1] * y + m[1, 2], m[2, 1] * y + m[2, 2]
    a1, b1, c1 = m[0, 0], m[1, 0], m[2, 0]
    if bend[0] > 0:
        for x in range(len(xs)):
            near = one / (c0 + c1 * xs[x])
            u, v = (a0 + a1 * xs[x]) * near, (b0 + b1 * xs[x]) * near
            wx[x] = u + bend[0] * math.sin(K0 * v + bend[1])
            wy[x] = v + bend[0] * math.sin(K1 * u + bend[2])
    else:
        for x in range(len(xs)):
            near = one / (c0 + c1 * xs[x])
            wx[x], wy[x] = (a0 + a1 * xs[x]) * near, (b0 + b1 * xs[x]) * near
    if wavy(bend):
        _ripple(bend, wx, wy)
    limit = f32(1e30) if mirrored else one
    if mirrored:
        for x in range(len(xs)):
            u, v = wx[x] - one, wy[x] - one
            wx[x] = abs(u - four * np.floor(u / four) - two) - one
            wy[x] = abs(v - four * np.floor(v / four) - two) - one
    for x in range(len(xs)):
        u, v = wx[x], wy[x]
        reach = max(abs(u), abs(v)) if c0 + c1 * xs[x] > 0 else f32(2e30)
        u = min(max((u + one) * scale - half, f32(0)), top)
        v = min(max((v + one) * scale - half, f32(0)), top)
        i, j = min(i32(u), last), min(i32(v), last)
        at[x] = j * i32(side) + i if reach <= limit else i32(-1)
        wx[x], wy[x] = u - f32(i), v - f32(j)


@numba.njit(nogil=True, cache=True, error_model='numpy', fastmath=_FAST)
def _lay(row, left, texture, kinds, side, channels, at, wx, wy):
    """Add a surface's light to `row` (C, w) where the view is not full, and take its cover from
    `left` (w,)."""
    stride = channels + 1
    pitch = side * stride
    for x in range(len(at)):
        rest = left[x]
        if rest < _NEAR_FULL or at[x] < 0:
            continue
        kind = kinds[at[x]]
        if kind == EMPTY:
            continue
        p = at[x] * stride
        q = p + pitch
        w11 = wx[x] * wy[x] * rest
        w10, w01 = wx[x] * rest - w11, wy[x] * rest - w11
        w00 = rest - w10 - w01 - w11
        if kind == FULL:
            left[x] = 0
        else:
            left[x] = rest - (w00 * texture[p + channels] + w10 * texture[p + stride + channels] +
                              w01 * texture[q + channels] + w11 * texture[q + stride + channels])
        row[0, x] += (
            w00 * texture[p]
            + w10 * texture[p + stride]
            + w01 * texture[q]
            + w11 * texture[q + stride]
        )
        if channels == 3:
            row[1, x] += (w00 * texture[p + 1] + w10 * texture[p + 5] + w01 * texture[q + 1] + w11 *
                          texture[q + 5])
            row[2, x] += (w00 * texture[p + 2] + w10 * texture[p + 6] + w01 * texture[q + 2] + w11 *
                          texture[q + 6])


@numba.njit(nogil=True, cache=True, error_model='numpy')
def composite(out: np.ndarray, row0: int, textures: np.ndarray, kinds: np.ndarray,
              shapes: np.ndarray, inverse: np.ndarray, bends: np.ndarray, boxes: np.ndarray,
              skip: np.ndarray, base: np.ndarray, cover: np.ndarray, gain: np.ndarray) -> None:
    """Fill `out` (C, S, rows, W), the image rows from `row0` on.

    Surfaces with `skip` (N,) are in `base` (C, rows, W) already: it is copied wherever no other
    surface's box reaches. `cover` (rows, W) and `gain` (S,) scale the light (vignette, flicker).
    """
    channels, samples, rows, width = out.shape
    left, at = np.empty(width, np.float32), np.empty(width, np.int32)
    wx, wy = np.empty(width, np.float32), np.empty(width, np.float32)
    xs = np.arange(width).astype(np.float32)
    row = np.empty((channels, width), np.float32)
    for r in range(rows):
        y = row0 + r
        for k in range(samples):
            row[:] = 0
            left[:] = 1
            if skip.any():
                left[:] = 0
                for n in range(len(shapes)):
                    if not skip[n] and boxes[k, n, 1] <= y < boxes[k, n, 3]:
                        left[boxes[k, n, 0]:boxes[k, n, 2]] = 1
                for c in range(channels):
                    for x in range(width):
                        row[c, x] = base[c, r, x] * (f32(1) - left[x])
            for n in range(len(shapes) - 1, -1, -1):
                x0, x1 = boxes[k, n, 0], boxes[k, n, 2]
                if x0 < x1 and boxes[k, n, 1] <= y < boxes[k, n, 3]:
                    texel, side = shapes[n, 0], shapes[n, 1]
                    here, u, v = at[x0:x1], wx[x0:x1], wy[x0:x1]
                    _aim(inverse[k, n], bends[k, n], shapes[n, 2] > 0, side, f32(y), xs[x0:x1],
                         here, u, v)
                    _lay(row[:, x0:x1], left[x0:x1], textures[texel * (channels + 1):],
                         kinds[texel:], side, channels, here, u, v)
            for c in range(channels):
                for x in range(width):
                    out[c, k, r, x] = row[c, x] * (cover[r, x] * gain[k])


@numba.njit(nogil=True, cache=True, error_model='numpy', fastmath=_FAST)
def _hit(row, extent, n, alphas, kinds, side, at, wx, wy):
    """`row` (w,) <- n where nothing nearer is and the surface's bilinear alpha is a half or more;
    `extent` (w or 0,) <- True wherever it is."""
    whole = len(extent) > 0
    for x in range(len(row)):
        if at[x] < 0 or not (whole or row[x] < 0):
            continue
        kind = kinds[at[x]]
        if kind == EMPTY:
            continue
        if kind == MIXED:
            p, q = at[x], at[x] + side
            top = alphas[p] + wx[x] * (alphas[p + 1] - alphas[p])
            below = alphas[q] + wx[x] * (alphas[q + 1] - alphas[q])
            if top + wy[x] * (below - top) < f32(0.5):
                continue
        if row[x] < 0:
            row[x] = n
        if whole:
            extent[x] = True


@numba.njit(nogil=True, cache=True, error_model='numpy')
def first_hit(index: np.ndarray, amodal: np.ndarray, alphas: np.ndarray, kinds: np.ndarray,
              shapes: np.ndarray, numbers: np.ndarray, inverse: np.ndarray, bends: np.ndarray,
              boxes: np.ndarray) -> None:
    """`index` (T, H, W) int16 <- nearest surface half covering each pixel; `amodal` (T, K + 1, H,
    W) |= each object's own extent where its second axis is not empty. Surfaces whose shape says
    light only are passed by."""
    times, height, width = index.shape
    at, xs = np.empty(width, np.int32), np.arange(width).astype(np.float32)
    wx, wy = np.empty(width, np.float32), np.empty(width, np.float32)
    nowhere = np.empty(0, np.bool_)
    for k in range(times):
        for n in range(len(shapes) - 1, -1, -1):
            if shapes[n, 3]:
                continue
            x0, x1 = boxes[k, n, 0], boxes[k, n, 2]
            first, side = shapes[n, 0], shapes[n, 1]
            whole = amodal.shape[1] > 0 and numbers[n] > 0
            here, u, v = at[x0:x1], wx[x0:x1], wy[x0:x1]
            for y in range(boxes[k, n, 1], boxes[k, n, 3]):
                _aim(inverse[k, n], bends[k, n], shapes[n, 2] > 0, side, f32(y), xs[x0:x1], here, u,
                     v)
                extent = amodal[k, numbers[n], y, x0:x1] if whole else nowhere
                _hit(index[k, y, x0:x1], extent, n, alphas[first:], kinds[first:], side, here, u, v)


@numba.njit(nogil=True, cache=True, error_model='numpy')
def develop(frame: np.ndarray, light: np.ndarray, draws: np.ndarray, well: float, read_noise: float,
            curve: np.ndarray) -> None:
    """`frame` (H, W, 3) uint8 <- linear `light` (3, S, H, W), its mean over S with shot and read
    noise, through `curve` (n,) of 8-bit levels over sqrt(light) in [0, 1]. `draws` (3, H, W)
    standard normal; read noise takes the next channel's: independent within a channel, half the
    random numbers."""
    samples, height, width = light.shape[1:]
    top = f32(len(curve) - 1)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                value = f32(0)
                for k in range(samples):
                    value += light[c, k, y, x]
                value /= f32(samples)
                value += draws[c, y, x] * math.sqrt(value / well)
                level = math.sqrt(min(max(value, f32(0)), f32(1))) * top
                i = min(i32(level), i32(len(curve) - 2))
                value = curve[i] + (level - i) * (curve[i + 1] -
                                                  curve[i]) + draws[c - 1, y, x] * read_noise
                frame[y, x, c] = np.uint8(min(max(value + f32(0.5), f32(0)), f32(255)))
