"""What stands still behind, under and before the objects: planes with holes, the ground, clutter,
poles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from mos_perception.errors import ConfigError
from training.scenes import natural, nature, outlines, paths
from training.scenes.geometry import Surface
from training.scenes.settings import Preset
from training.scenes.textures import texture, value_noise

FAR = (3.0, 5.0)
NEAR = (1.6, 2.6)
OBJECTS = (0.85, 1.25)
NATURAL = 0.8  # share of a natural clip's surfaces that are; the rest are any texture


@dataclass(frozen=True)
class Stage:
    """What a clip is set in: `natural` surfaces or plain textures; `low`, the height (y) of the
    ground its objects stand on, None where they fly; `wet`, that ground is water."""

    natural: bool = False
    low: float | None = None
    wet: bool = False

    @staticmethod
    def draw(rng: np.random.Generator, preset: Preset) -> Stage:
        """A stage of the preset."""
        half_height = preset.size[0] / preset.size[1] / 2
        natural_, stands, wet = rng.random(3) < (preset.natural, preset.standing, preset.water)
        low = float(rng.uniform(0.4, 0.9) * half_height) if stands else None
        return Stage(bool(natural_), low, bool(stands and wet))


def layers(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray,
           stage: Stage = Stage()) -> list[Surface]:
    """A far plane and, in front of it, planes with holes, far to near."""
    count = int(rng.integers(preset.layers[0], preset.layers[1] + 1)) - 1
    depths = np.sort(NEAR[0] + (NEAR[1] - NEAR[0]) * (np.arange(count) + rng.random(count)) /
                     max(count, 1))[::-1]
    if preset.sea and stage.low is None and rng.random() < preset.sea:
        return sea(rng, preset, times)
    far = layer(rng, preset, split, times, rng.uniform(*FAR), 0.0, stage)
    return [far] + [layer(rng, preset, split, times, depth, rng.uniform(0.55, 0.7), stage)
                    for depth in depths]


def sea(rng: np.random.Generator, preset: Preset, times: np.ndarray) -> list[Surface]:
    """Water from above that fills the view, and what glitters on it and drifts its own way."""
    side, depth = int(np.ceil(preset.size[1] * 1.24)), rng.uniform(1.4, FAR[0])

    def sheet(colour: np.ndarray, alpha: np.ndarray | None, depth: float) -> Surface:
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25) * depth
        track = paths.drift(times, (0, 0, depth),
                            (speed * np.cos(angle), speed * np.sin(angle), 0.0))
        return Surface(colour, alpha, 0.62 * depth, track, mirrored=True,
                       waves=nature.swell(rng, times, preset.size[1]))

    found = [sheet(natural.sea(rng, side), None, depth)]
    for _ in range(int(rng.integers(0, 3))):
        field = value_noise(rng, side, int(rng.integers(8, 60)), 3)
        alpha = np.clip((field - rng.uniform(0.5, 0.75)) * 6, 0, 1)
        depth *= 0.99
        found.append(sheet(natural.sea(rng, side), alpha * np.float32(rng.uniform(0.2, 0.8)),
                           depth))
    return found


def layer(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray, depth: float,
          holes: float, stage: Stage = Stage()) -> Surface:
    """A static plane as large as the view and more; what is below `holes` in a smooth noise is
    open."""
    side = int(np.ceil(preset.size[1] * 1.24))
    if stage.natural and rng.random() < NATURAL:
        return _natural_layer(rng, preset, split, times, depth, holes, side)
    colour, alpha = texture(rng, split, side, photo_share=0.5), None
    if holes:
        field = value_noise(rng, side, int(rng.integers(2, 5)), 2)
        alpha = np.clip((field - holes) * side / 6, 0, 1)
    return Surface(colour, alpha, 0.62 * depth, paths.still(times, (0, 0, depth)), mirrored=True)


def _natural_layer(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray,
                   depth: float, holes: float, side: int) -> Surface:
    """Leaves that sway, or a wall or landscape."""
    leafy, alpha, waves = rng.random() < preset.foliage, None, None
    if holes:  # leaves have finer rims
        field = value_noise(rng, side, int(rng.integers(2, 5)), 6 if leafy else 2)
        alpha = np.clip((field - holes) * side / 6, 0, 1)
    colour = natural.foliage(rng, split, side) if leafy else natural.backdrop(rng, split, side)
    if leafy:
        waves = nature.wind(rng, times, rng.uniform(*preset.foliage_px) / (0.62 * preset.size[1]))
    return Surface(colour, alpha, 0.62 * depth, paths.still(times, (0, 0, depth)), mirrored=True,
                   waves=waves)


def floor(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray, far: float,
          stage: Stage) -> Surface:
    """The ground of a standing clip, from before the objects to the far plane."""
    if stage.low is None:
        raise ConfigError('a stage without a height has no floor: draw one with `standing` 1')
    half = 0.75 * far
    side = int(np.ceil(preset.size[1] * 3.6))
    if stage.wet:
        colour = natural.water(rng, side)
    elif stage.natural and rng.random() < NATURAL:
        colour = natural.ground(rng, split, side)
    else:
        colour = texture(rng, split, side, photo_share=0.3)
    z = far - half + np.linspace(-half, half, side, endpoint=False)  # by row
    colour = _foreshortened(colour, z, half, stage.low, preset.size[1])
    if stage.wet:
        return nature.water(rng, times, colour, half, (0.0, stage.low, far - half))
    return Surface(colour, np.ones((side, side), np.float32), half,
                   paths.still(times, (0, stage.low, far - half)), tilt=np.pi / 2)


def _foreshortened(colour: np.ndarray, z: np.ndarray, half: float, low: float,
                   width: int) -> np.ndarray:
    """A ground's texture blurred by what one pixel spans of it: z^2 / (low W) along the rows' `z`,
    z / W across."""
    blurred, side = colour.copy(), len(colour)
    z = np.maximum(z, 0.2)
    reach = z * z / (low * width) * side / (2 * half)
    for size in 1.5 ** np.arange(1, 12):
        rows = np.flatnonzero(reach > size)
        if not len(rows):
            break
        along = int(np.ceil(size)) | 1
        across = max(1, round(float(z[rows[0]]) / width * side / (2 * half)))
        first = max(0, rows[0] - along)
        blurred[rows[0]:] = cv2.blur(colour[first:], (across, along))[rows[0] - first:]
    return blurred


def poles(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray,
          stage: Stage) -> list[Surface]:
    """Posts and trunks on the ground, near and far."""
    if stage.low is None or stage.wet:
        return []
    found = []
    for depth in rng.uniform(0.6, NEAR[1], int(rng.integers(preset.poles[0], preset.poles[1] + 1))):
        half, wide = rng.uniform(0.1, 0.4) * depth, rng.uniform(0.02, 0.12)
        side = int(np.clip(2.3 * half / depth * preset.size[1], 24, 512))
        alpha = np.zeros((side, side), np.float32)
        edge = max(1, round(side * wide / 2))
        alpha[1:-1, side // 2 - edge:side // 2 + edge] = 1
        track = paths.still(times, (rng.uniform(-0.5, 0.5) * depth, stage.low - half, depth),
                            rng.uniform(-0.03, 0.03))
        found.append(Surface(natural.skin(rng, side), alpha, half, track))
    return found


def ground(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray,
           far: float) -> Surface:
    """A floor that meets the far plane; blurred along its depth in step with its foreshortening."""
    side, half = int(np.ceil(preset.size[1] * 2.5)), far
    # below every object at its nearest
    low = rng.uniform(0.5, 0.62) * 1.45 * preset.size[0] / preset.size[1]
    colour = texture(rng, split, side, photo_share=0.3)
    z = np.linspace(-half, far, side, endpoint=False)  # by row; a pixel spans z^2 / (low W) along z
    reach = np.clip(z * z / (low * preset.size[1]) * side / (2 * half), 1, side / 4)
    total = np.concatenate([np.zeros((1, side, 3)), np.cumsum(colour, 0, dtype=np.float64)])
    start, end = (np.clip(np.arange(side) + 0.5 + sign * reach / 2, 0, side).astype(int)
                  for sign in (-1, 1))
    end = np.maximum(end, start + 1)
    colour = (
        (total[np.minimum(end, side)] - total[np.minimum(start, side - 1)])
        / (np.minimum(end, side) - np.minimum(start, side - 1))[:, None, None]
    ).astype(np.float32)
    track = paths.still(times, (0, low, far - half))
    return Surface(colour, np.ones((side, side), np.float32), half, track, tilt=np.pi / 2)


def above(layer: Surface, ground: float) -> Surface:
    """The layer without what would be below the ground."""
    y = (np.arange(len(layer.colour)) + 0.5) * 2 * layer.half / len(layer.colour) - layer.half
    return replace(layer, alpha=layer.alpha * np.float32(y <= ground)[:, None])


def clutter(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray,
            behind: np.ndarray, stage: Stage = Stage()) -> Surface:
    """Something static of the objects' shapes and textures that is part of the background."""
    depth = rng.uniform(OBJECTS[0], NEAR[1])
    shape = outlines.outline(rng, split)
    half, side = extent_of(rng, preset, shape, depth)
    x, y = (rng.uniform(-0.5, 0.5) * depth for _ in range(2))
    y, angle = y * preset.size[0] / preset.size[1], rng.uniform(0, 6.283)
    if stage.low is not None:
        y = stage.low - half * outlines.below(shape, angle)
    return Surface(skin(rng, preset, split, side, behind, stage), outlines.raster(shape, side),
                   half, paths.still(times, (x, y, depth), angle))


def extent_of(rng: np.random.Generator, preset: Preset, shape: np.ndarray,
              depth: float) -> tuple[float, int]:
    """(half extent in world units, texture side) of an outline that covers a share `area` of the
    image."""
    aspect = preset.size[0] / preset.size[1]
    half = float(np.sqrt(rng.uniform(*preset.area) * aspect / outlines.area(shape)) * depth)
    return half, int(np.clip(np.ceil(2.3 * half / depth * preset.size[1]), 12, 1024))


def skin(rng: np.random.Generator, preset: Preset, split: str, side: int, behind: np.ndarray,
         stage: Stage = Stage()) -> np.ndarray:
    """(side, side, 3) a texture, or a piece of the background's where the object is camouflaged."""
    if stage.natural and rng.random() < NATURAL:
        colour = natural.skin(rng, side)
    else:
        colour = texture(rng, split, side)
    if rng.random() < preset.camouflage and side < len(behind):
        y, x = rng.integers(0, len(behind) - side, 2)
        colour = behind[y:y + side, x:x + side]
    return colour
