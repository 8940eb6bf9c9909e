"""Surface textures in linear light: procedural families and the photographs that scikit-image
ships, split by family.

A family returns an (n, n) float32 field in [0, 1] that three colours are mapped onto, or an (n, n,
3) sRGB picture. Photographs (split by file; licences in docs/photographs.md) are used only where
scikit-image is installed: without them the same seed gives another picture.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from training.scenes.splits import pick

GAMMA = 2.2
_PHOTOS = {'train': ('astronaut.png', 'brick.png', 'camera.png', 'chelsea.png', 'coins.png',
                     'color.png', 'moon.png', 'page.png', 'rocket.jpg'),
           'val': ('cell.png', 'clock_motion.png', 'retina.jpg', 'text.png'),
           'test': ('coffee.png', 'grass.png', 'gravel.png', 'hubble_deep_field.jpg', 'ihc.png'),}


@lru_cache(maxsize=8)
def _coordinates(n: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    return np.broadcast_to(axis[None], (n, n)), np.broadcast_to(axis[:, None], (n, n))


def _along(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotated coordinates (n, n) each."""
    x, y = _coordinates(n)
    c, s = np.float32(np.cos(angle := rng.uniform(0, 2 * np.pi))), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def value_noise(rng: np.random.Generator, n: int, cells: int, octaves: int = 5) -> np.ndarray:
    """(n, n) float32 in [0, 1]: octaves of smoothly interpolated random values, `cells` a side at
    the coarsest."""
    field = np.zeros((n, n), np.float32)
    fall = rng.uniform(0.45, 0.75)
    for octave in range(octaves):
        side = cells * 2 ** octave
        if side > n // 2:
            break
        grid = rng.random((side, side), np.float32)
        field += np.float32(fall**octave) * cv2.resize(grid, (n, n), interpolation=cv2.INTER_CUBIC)
    low, high = field.min(), field.max()
    return (field - low) / max(high - low, np.float32(1e-6))


def _noise(rng: np.random.Generator, n: int) -> np.ndarray:
    return value_noise(rng, n, int(rng.integers(2, 9)))


def _soft_square(wave: np.ndarray, sharpness: float) -> np.ndarray:
    return 0.5 + 0.5 * np.clip(wave * np.float32(sharpness), -1, 1)


def _stripes(rng: np.random.Generator, n: int) -> np.ndarray:
    u, _ = _along(rng, n)
    warp = value_noise(rng, n, 3, 2) * np.float32(rng.uniform(0, 2))
    return _soft_square(np.sin(u * np.float32(rng.uniform(6, 25)) + warp), rng.uniform(1, 6))


def _spots(rng: np.random.Generator, n: int) -> np.ndarray:
    field = np.zeros((n, n), np.uint8)
    radius = rng.uniform(0.03, 0.12)
    for x, y, size, tone in rng.random((int(0.5 / radius ** 2), 4)):
        centre = (int(x * n * 16), int(y * n * 16))
        cv2.circle(field, centre, int((0.4 + 0.8 * size) * radius * n * 16), int(80 + 175 * tone),
                   -1, cv2.LINE_AA, 4)
    return field.astype(np.float32) / 255


def _gradient(rng: np.random.Generator, n: int) -> np.ndarray:
    u, _ = _along(rng, n)
    return np.clip(0.5 + 0.35 * u + np.float32(rng.uniform(0.1, 0.5)) *
                   (value_noise(rng, n, 6, 3) - 0.5), 0, 1)


def _checks(rng: np.random.Generator, n: int) -> np.ndarray:
    u, v = _along(rng, n)
    k = np.float32(rng.uniform(6, 20))
    return _soft_square(np.sin(k * u) * np.sin(k * v), rng.uniform(3, 10))


def _cells(rng: np.random.Generator, n: int) -> np.ndarray:
    seeds = np.full((n, n), 255, np.uint8)
    count = int(rng.integers(15, 120))
    seeds[tuple(rng.integers(0, n, (2, count)))] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5,
                                                labelType=cv2.DIST_LABEL_PIXEL)
    field = rng.random(int(labels.max()) + 1, np.float32)[labels]
    return np.clip(field + 0.3 * (value_noise(rng, n, 8, 3) - 0.5), 0, 1)


def _waves(rng: np.random.Generator, n: int) -> np.ndarray:
    x, y = _coordinates(n)
    field = np.zeros((n, n), np.float32)
    for cx, cy in rng.uniform(-1.5, 1.5, (3, 2)):
        field += np.sin(
            np.float32(rng.uniform(8, 25)) * np.hypot(x - np.float32(cx), y - np.float32(cy))
        )
    return 0.5 + field / 6


def _marks(rng: np.random.Generator, n: int) -> np.ndarray:
    field = np.full((n, n), 230, np.uint8)
    for x, y, size, letter in rng.random((int(rng.integers(20, 80)), 4)):
        cv2.putText(field, chr(65 + int(letter * 26)), (int(x * n), int(y * n)),
                    cv2.FONT_HERSHEY_SIMPLEX, (0.3 + size) * n / 256, 20,
                    max(1, round(2 * n / 256)), cv2.LINE_AA)
    return field.astype(np.float32) / 255


def _weave(rng: np.random.Generator, n: int) -> np.ndarray:
    u, v = _along(rng, n)
    a, b = (np.sin(np.float32(rng.uniform(8, 30)) * axis + 2 * value_noise(rng, n, 4, 2))
            for axis in (u, v))
    return 0.5 + 0.3 * np.maximum(a, b) + 0.2 * (value_noise(rng, n, 16, 3) - 0.5)


def _scales(rng: np.random.Generator, n: int) -> np.ndarray:
    field = value_noise(rng, n, int(rng.integers(3, 8)), 3) * np.float32(rng.uniform(3, 8))
    return np.clip(field % 1 * 0.8 + 0.2 * (value_noise(rng, n, 20, 2) - 0.5), 0, 1)


@lru_cache(maxsize=32)
def _photograph(name: str) -> np.ndarray | None:
    """(h, w, 3) uint8 sRGB of at most 640 px a side, None where scikit-image or the file is
    missing."""
    spec = importlib.util.find_spec('skimage')
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / 'data' / name
    if not path.is_file():
        return None
    from PIL import Image  # comes with scikit-image
    image = np.asarray(Image.open(path).convert('RGB'))
    scale = min(1.0, 640 / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _photo(rng: np.random.Generator, n: int, split: str) -> np.ndarray | None:
    if split not in _PHOTOS:
        return None
    photo = _photograph(pick(rng, _PHOTOS[split]))
    if photo is None:
        return None
    side = int(min(photo.shape[:2]) * rng.uniform(0.5, 1))
    y, x = (int(rng.integers(0, limit - side + 1)) for limit in photo.shape[:2])
    crop = photo[y:y + side, x:x + side, ::1]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    shape = cv2.INTER_AREA if side > n else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(crop), (n, n),
                      interpolation=shape).astype(np.float32) / 255


_FAMILIES = {'train': (_noise, _stripes, _spots, _gradient), 'val': (_waves, _marks),
             'test': (_checks, _cells), 'other': (_weave, _scales)}


def _colours(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) float32 sRGB ramp whose ends differ by at least 0.25 in lightness."""
    while True:
        ramp = rng.uniform(0.08, 0.95, (3, 3))
        ramp = ramp * 0.6 + ramp.mean(1, keepdims=True) * 0.4
        if np.ptp(ramp.mean(1)) > 0.25:
            return ramp[np.argsort(ramp.mean(1))].astype(np.float32)


def texture(rng: np.random.Generator, split: str, n: int, photo_share: float = 0.3) -> np.ndarray:
    """(n, n, 3) float32 linear light in (0, 1] of a random family of the split."""
    # small textures are drawn larger and averaged down, so that they do not alias
    work = max(n, 128)
    picture = _photo(rng, work, split) if rng.random() < photo_share else None
    if picture is None:
        field = pick(rng, _FAMILIES[split])(rng, work)[..., None]
        low, middle, high = _colours(rng)
        rise, rest = 2 * np.minimum(field, 0.5), 2 * np.maximum(field - 0.5, 0)
        picture = low + rise * (middle - low) + rest * (high - middle)
    if work != n:
        picture = cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA)
    return np.power(np.clip(picture, 0.02, 1), np.float32(GAMMA), dtype=np.float32)
