"""A scene before any pixel: textured planes in 3-D, a camera path and the light, all drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.scenes import outlines, paths
from training.scenes.presets import Preset
from training.scenes.splits import generator
from training.scenes.textures import texture, value_noise

_FAR = (3.0, 5.0)
_NEAR = (1.6, 2.6)
_OBJECTS = (0.85, 1.25)


@dataclass(frozen=True)
class Surface:
    """A plane facing the resting camera.

    `colour` (n, n, 3) linear light over [-1, 1] x [-1, 1], mirrored beyond if `mirrored`; `alpha` (n, n) coverage, None
    = opaque; `half` its half extent in world units; `number` of the object, 0 = background.
    """

    colour: np.ndarray
    alpha: np.ndarray | None
    half: float
    track: paths.Track
    number: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class Camera:
    """Pinhole whose focal length is the image width. `position` (G, 3), `turn` (G, 3) rad about x, y, z."""

    times: np.ndarray
    position: np.ndarray
    turn: np.ndarray

    @property
    def still(self) -> bool:
        """Whether it never moves."""
        return not (self.position.any() or self.turn.any())

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((T, 3) centre, (T, 3, 3) world-to-camera rotation)."""
        centre, turn = (np.stack([np.interp(times, self.times, axis) for axis in value.T], 1)
                        for value in (self.position, self.turn))
        (ca, cb, cc), (sa, sb, sc) = np.cos(turn).T, np.sin(turn).T
        one, nil = np.ones_like(ca), np.zeros_like(ca)
        about_x = np.array([[one, nil, nil], [nil, ca, -sa], [nil, sa, ca]])
        about_y = np.array([[cb, nil, sb], [nil, one, nil], [-sb, nil, cb]])
        about_z = np.array([[cc, -sc, nil], [sc, cc, nil], [nil, nil, one]])
        return centre, np.einsum('ijt,jkt,klt->til', about_z, about_y, about_x)


@dataclass(frozen=True)
class World:
    """Everything drawn for a clip. `surfaces` from far to near; `flicker` (share, hertz) of the light."""

    surfaces: tuple[Surface, ...]
    camera: Camera
    flicker: tuple[float, float]
    light: float
    exposure_s: float

    def objects(self) -> list[Surface]:
        """Movers and static look-alikes by number."""
        return sorted((s for s in self.surfaces if s.number), key=lambda s: s.number)

    def gain(self, times: np.ndarray) -> np.ndarray:
        """(T,) float32 factor of the light at `times` s."""
        share, hertz = self.flicker
        return (1 + share * np.sin(2 * np.pi * hertz * times)).astype(np.float32)

    def homographies(self, surface: Surface, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(T, 3, 3) from plane coordinates ([-1, 1] is the texture) to pixels: K R [h e1, h e2, P - C]."""
        height, width = size
        intrinsics = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        centre, rotation = self.camera.at(times)
        position, angle = surface.track.at(times)
        c, s, nil = np.cos(angle) * surface.half, np.sin(angle) * surface.half, np.zeros_like(angle)
        plane = np.stack([np.stack([c, s, nil], 1), np.stack([-s, c, nil], 1), position - centre], 2)
        return intrinsics @ rotation @ plane


def build_world(preset: Preset, seed: int, split: str) -> World:
    """Draw the scene (preset, seed, split); the same three give the same scene."""
    rng = generator(seed, split, 0)
    times = paths.grid(preset.duration_s)
    camera = _camera(rng, preset, times)
    background = _background(rng, preset, split, times)
    objects = _objects(rng, preset, split, times, background[0].colour)
    flicker = (rng.uniform(0.02, 0.2), rng.uniform(1, 50)) if rng.random() < preset.flicker else (0.0, 0.0)
    return World((*background, *objects), camera, flicker, rng.uniform(*preset.light), rng.uniform(*preset.exposure_s))


def _camera(rng: np.random.Generator, preset: Preset, times: np.ndarray) -> Camera:
    position, turn = np.zeros((len(times), 3)), np.zeros((len(times), 3))
    if rng.random() < preset.static_camera:
        return Camera(times, position, turn)
    speed, pan, direction = rng.uniform(*preset.camera_speed), rng.uniform(), rng.uniform(0, 2 * np.pi)
    for axis, part in ((0, np.cos(direction)), (1, np.sin(direction))):
        position[:, axis] = paths.sway(rng, times, speed * (1 - pan) * part)
        turn[:, 1 - axis] = paths.sway(rng, times, speed * pan * part)
    position[:, 2] = paths.sway(rng, times, speed * (1 - pan) * rng.uniform(0, 0.4))
    turn[:, 2] = paths.sway(rng, times, rng.uniform(0, 0.15))
    if rng.random() < 0.3:  # hand-held shake
        for axis in (0, 1):
            turn[:, axis] += paths.sway(rng, times, rng.uniform(0, 0.06), (2, 8))
    return Camera(times, position, turn)


def _background(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray) -> list[Surface]:
    """A far plane and, in front of it, planes with holes."""
    layers = int(rng.integers(preset.layers[0], preset.layers[1] + 1))
    depths = np.sort(rng.uniform(*_NEAR, layers - 1))[::-1]
    surfaces = []
    for depth in (rng.uniform(*_FAR), *depths):
        half = 0.62 * depth
        side = int(np.ceil(preset.size[1] * 1.24))
        colour, alpha = texture(rng, split, side, photo_share=0.5), None
        if surfaces:
            field = value_noise(rng, side, int(rng.integers(2, 5)), 2)
            alpha = np.clip((field - rng.uniform(0.55, 0.7)) * side / 6, 0, 1)
        surfaces.append(Surface(colour, alpha, half, paths.still(times, (0, 0, depth)), mirrored=True))
    return surfaces


def _objects(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray,
             behind: np.ndarray) -> list[Surface]:
    """Movers and look-alikes, far to near. Numbers are drawn so that a low number says nothing about motion."""
    movers = 0 if rng.random() < preset.empty else int(rng.integers(preset.movers[0], preset.movers[1] + 1))
    count = movers + int(rng.integers(preset.look_alikes[0], preset.look_alikes[1] + 1))
    numbers = rng.permutation(count) + 1
    depths = np.sort(rng.uniform(*_OBJECTS, count))[::-1]
    moves = rng.permutation(count) < movers
    surfaces: list[Surface] = []
    for number, depth, mover in zip(numbers, depths, moves):
        shape = outlines.outline(rng, split)
        aspect = preset.size[0] / preset.size[1]
        half = float(np.sqrt(rng.uniform(*preset.area) * aspect / outlines.area(shape)) * depth)
        track = _track(rng, preset, times, mover, depth, half, surfaces)
        side = int(np.clip(np.ceil(2.3 * half / depth * preset.size[1]), 12, 1024))
        colour = texture(rng, split, side)
        if rng.random() < preset.camouflage and side < len(behind):
            y, x = rng.integers(0, len(behind) - side, 2)
            colour = behind[y:y + side, x:x + side]
        surfaces.append(Surface(colour, outlines.raster(shape, side), half, track, int(number)))
    return surfaces


def _track(rng: np.random.Generator, preset: Preset, times: np.ndarray, mover: bool, depth: float, half: float,
           others: list[Surface]) -> paths.Track:
    """A path; where the preset has no occlusion, one that keeps clear of the others if one of 40 draws does."""
    limits = (0.42, 0.42 * preset.size[0] / preset.size[1])
    track = None
    for _ in range(1 if preset.occlusion else 40):
        going = paths.gate(rng, times, preset.start_stop) if mover else np.zeros_like(times)
        track = paths.roam(rng, times, going, rng.uniform(*preset.object_speed), preset.spin_rad_s, depth, limits, half)
        if all(_apart(track, half, other) for other in others):
            break
    return track


def _apart(track: paths.Track, half: float, other: Surface) -> bool:
    """Whether the two discs never overlap as a resting camera sees them."""
    a, b = (path.position[:, :2] / path.position[:, 2:] for path in (track, other.track))
    reach = half / track.position[:, 2] + other.half / other.track.position[:, 2]
    return bool((np.linalg.norm(a - b, axis=1) > reach).all())
