"""The homography between an event camera and a frame camera, from what both saw of one scene.

Between two frames, a pixel's events sum up to the change of its log brightness: events are emitted
per step of it (Gallego et al. 2020, "Event-based vision: a survey", equation 3). So signed sums of
events look like differences of log frames, seen from another place. Found in two steps: a
similarity by correlation over all shifts (FFT) of every scale and turn, then a homography through
the shifts of patches, RANSAC over all pairs at once.

E_k (He, We) and D_k (Hf, Wf) are the K pairs' event sums and frame differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.errors import SyncError
from mos_perception.motion.event_compensation import resize_matrix

LEAST_CORRELATION = 0.2   # of aligned pairs; unrelated ones stay below 0.1
COARSE_PX = 96            # width of the frames in the search over scale and turn
COARSE_PAIRS = 8
SCALES = np.geomspace(0.5, 2.0, 36)     # of an event pixel, around equal fields of view
TURNS_DEG = np.arange(-12.5, 12.6, 2.5)
FINE_SCALES = np.linspace(0.96, 1.04, 9)
FINE_TURNS_DEG = np.linspace(-2.5, 2.5, 11)
LEAST_OVERLAP = 0.25      # of the frame
PATCHES = 8, 11           # rows, columns of the frame
REACH = 0.05, 0.025, 0.0125, 0.0125     # of the width: how far a patch may be off, per round
LEAST_PATCH_CORRELATION = 0.25
LEAST_PATCHES = 12
RANSAC_PX = 1.0


@dataclass(frozen=True)
class Alignment:
    """`matrix` (3, 3) takes event pixels to frame pixels; `correlation` of the pairs under it;
    `patches` that agree, of how many were matched, and their median error.
    """

    matrix: np.ndarray
    correlation: float
    patches: int
    matched: int
    error_px: float


def align(events: Sequence[np.ndarray], frames: Sequence[np.ndarray]) -> Alignment:
    """The homography between E_k and D_k, (He, We) and (Hf, Wf) float each.

    Raises SyncError where the two do not show the same scene.
    """
    signals = [_flat(image) for image in events]
    changes = [_flat(image) for image in frames]
    matrix = _similarity(signals[:: -(-len(signals) // COARSE_PAIRS)],
                         changes[:: -(-len(changes) // COARSE_PAIRS)])
    patches = matched = 0
    error = float('nan')
    for reach in REACH:
        source, target = _patch_shifts(matrix, signals, changes, reach)
        matched = len(source)
        found = None
        if matched >= LEAST_PATCHES:
            found, good = cv2.findHomography(source, target, cv2.RANSAC, RANSAC_PX, maxIters=5000)
        if found is None or good.sum() < LEAST_PATCHES:
            break
        matrix, good = found, good.ravel() > 0
        patches = int(good.sum())
        error = float(np.median(np.linalg.norm(_apply(matrix, source) - target, axis=1)[good]))
    correlation = float(_correlation(matrix, signals, changes))
    if correlation < LEAST_CORRELATION or patches < LEAST_PATCHES:
        raise SyncError(
            f'events and frames could not be aligned: correlation {correlation:.2f} (needs '
            f'{LEAST_CORRELATION}), {patches} patches agree (needs {LEAST_PATCHES}): record 10 s '
            'of a far, textured scene with a camera that moves both ways, both clocks in step')
    return Alignment(matrix, correlation, patches, matched, error)


def _flat(image: np.ndarray) -> np.ndarray:
    """Without slow shading, and no place louder than another: v / (|v| + mean |v|)."""
    image = image.astype(np.float32)
    image = image - cv2.GaussianBlur(image, (0, 0), image.shape[1] / 16)
    return image / (np.abs(image) + np.abs(image).mean() + 1e-6)


def _similarity(events: list[np.ndarray], frames: list[np.ndarray]) -> np.ndarray:
    """(3, 3) event pixels -> frame pixels: scale, turn and shift of the highest correlation."""
    full, width = frames[0].shape, COARSE_PX
    size = max(round(full[0] * width / full[1]), 8), width
    coarse = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in frames]
    search = _Search(coarse)
    rows, columns = events[0].shape
    fit = max(size[0] / rows, size[1] / columns)
    best = max((search.best(events, fit * scale, turn) for scale in SCALES for turn in TURNS_DEG),
               key=lambda found: found[0])
    scale, turn = best[1:3]
    best = max((search.best(events, scale * more, turn + by)
                for more in FINE_SCALES for by in FINE_TURNS_DEG), key=lambda found: found[0])
    return resize_matrix(size, full) @ best[3]


class _Search:
    """Correlates event images with the frames' differences at every shift."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.size = frames[0].shape
        self._pad = tuple(cv2.getOptimalDFTSize(3 * side) for side in self.size)
        self._frames = [self._spectrum(image) for image in frames]
        self._energy = self._spectrum(sum(image * image for image in frames))
        self._ones = self._spectrum(np.ones(self.size, np.float32))

    def best(self, events: list[np.ndarray], scale: float,
             turn_deg: float) -> tuple[float, float, float, np.ndarray]:
        """(correlation, scale, turn, matrix) of the best shift; `scale` frame px per event px."""
        rows, columns = events[0].shape
        height, width = tuple(2 * side for side in self.size)
        matrix = np.vstack([cv2.getRotationMatrix2D(
            ((columns - 1) / 2, (rows - 1) / 2), turn_deg, scale), [0, 0, 1]])
        matrix[:2, 2] += [(width - columns) / 2, (height - rows) / 2]
        blur = max(0.5 / scale - 0.5, 0)
        warped = [cv2.warpAffine(cv2.GaussianBlur(image, (0, 0), blur) if blur else image,
                                 matrix[:2], (width, height), flags=cv2.INTER_LINEAR)
                  for image in events]
        seen = cv2.warpAffine(np.ones((rows, columns), np.float32), matrix[:2], (width, height))
        product = sum(frame * np.conj(self._spectrum(image))
                      for frame, image in zip(self._frames, warped))
        energy = self._spectrum(sum(image * image for image in warped))
        seen = np.conj(self._spectrum(seen))
        top, events_energy, frames_energy, overlap = (
            np.fft.irfft2(values, self._pad) for values in (
                product, self._ones * np.conj(energy), self._energy * seen, self._ones * seen))
        good = overlap > LEAST_OVERLAP * self.size[0] * self.size[1]
        values = np.where(good, top, 0) / np.sqrt(
            np.maximum(events_energy * frames_energy, 1e-9))
        y, x = np.unravel_index(np.argmax(np.where(good, values, -1)), values.shape)
        shift = np.eye(3)
        shift[:2, 2] = [at - pad if at >= side else at for at, side, pad in (
            (x, self.size[1], self._pad[1]), (y, self.size[0], self._pad[0]))]
        return float(values[y, x]), scale, turn_deg, shift @ matrix

    def _spectrum(self, image: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(image, self._pad)


def _patch_shifts(matrix: np.ndarray, events: list[np.ndarray], frames: list[np.ndarray],
                  reach: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) event pixels and (N, 2) frame pixels of the patches whose shift is clear."""
    height, width = frames[0].shape
    warped, seen = _warped(matrix, events, (height, width))
    radius = max(round(reach * width), 3)
    side = round(width / PATCHES[1] * 1.5)
    source, target = [], []
    for y in np.linspace(radius, height - radius - side, PATCHES[0]).astype(int):
        for x in np.linspace(radius, width - radius - side, PATCHES[1]).astype(int):
            inner = slice(y, y + side), slice(x, x + side)
            outer = slice(y - radius, y + side + radius), slice(x - radius, x + side + radius)
            if y < radius or x < radius or seen[inner].min() < 0.99:
                continue
            shift = _shift([image[inner] for image in warped], [image[outer] for image in frames])
            if shift is not None:
                middle = np.array([x, y]) + (side - 1) / 2
                source.append(middle)
                target.append(middle + shift - radius)
    source, target = np.array(source).reshape(-1, 2), np.array(target).reshape(-1, 2)
    return _apply(np.linalg.inv(matrix), source), target


def _shift(patches: list[np.ndarray], regions: list[np.ndarray]) -> np.ndarray | None:
    """(2,) x, y of the best place of the patches in the regions, to a fraction of a pixel; None
    where it is not clear.
    """
    ones = np.ones_like(patches[0])
    top = sum(cv2.matchTemplate(region, patch, cv2.TM_CCORR)
              for region, patch in zip(regions, patches))
    energy = sum(cv2.matchTemplate(region * region, ones, cv2.TM_CCORR) for region in regions)
    own = sum(float((patch * patch).sum()) for patch in patches)
    values = top / np.sqrt(np.maximum(energy * own, 1e-9))
    y, x = np.unravel_index(np.argmax(values), values.shape)
    if values[y, x] < LEAST_PATCH_CORRELATION or y in (0, len(values) - 1) or x in (
            0, values.shape[1] - 1):
        return None
    return np.array([x + _peak(values[y, x - 1:x + 2]), y + _peak(values[y - 1:y + 2, x])])


def _peak(values: np.ndarray) -> float:
    """Where the parabola through three values around a maximum has its top, in (-1, 1)."""
    left, middle, right = (float(value) for value in values)
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _correlation(matrix: np.ndarray, events: list[np.ndarray], frames: list[np.ndarray]) -> float:
    warped, seen = _warped(matrix, events, frames[0].shape)
    seen = seen > 0.99
    top = sum(float((image * frame)[seen].sum()) for image, frame in zip(warped, frames))
    energy = [sum(float((image * image)[seen].sum()) for image in images)
              for images in (warped, frames)]
    return top / max(np.sqrt(energy[0] * energy[1]), 1e-9)


def _warped(matrix: np.ndarray, events: list[np.ndarray],
            size: tuple[int, int]) -> tuple[list[np.ndarray], np.ndarray]:
    """The event images seen as the frames are, and where they are seen at all, (Hf, Wf) each."""
    images = [cv2.warpPerspective(image, matrix, size[::-1], flags=cv2.INTER_LINEAR)
              for image in events]
    return images, cv2.warpPerspective(np.ones_like(events[0]), matrix, size[::-1])


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) points through a homography."""
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return moved[:, :2] / moved[:, 2:]
