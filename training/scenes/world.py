"""A scene before any pixel: textured planes in 3-D, a camera path and the light, all drawn from one seed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from training.scenes import outlines, paths
from training.scenes.geometry import Camera, Light, Surface, World
from training.scenes.presets import Preset
from training.scenes.splits import generator
from training.scenes.textures import texture, value_noise

__all__ = ['Camera', 'Surface', 'World', 'build_world']
_FAR = (3.0, 5.0)
_NEAR = (1.6, 2.6)
_FRONT = (0.6, 0.75)
_OBJECTS = (0.85, 1.25)


@lru_cache(maxsize=2)  # a clip and then its truth
def build_world(preset: Preset, seed: int, split: str) -> World:
    """Draw the scene (preset, seed, split); the same three give the same scene."""
    rng = generator(seed, split, 0)
    times = paths.grid(preset.duration_s)
    camera = _camera(rng, preset, times)
    layers = _layers(rng, preset, split, times)
    objects = _objects(rng, preset, split, camera, layers[0].colour)
    flicker = ((rng.uniform(*preset.flicker_share), rng.uniform(*preset.flicker_hz))
               if rng.random() < preset.flicker else (0.0, 0.0))
    light, exposure = rng.uniform(*preset.light), rng.uniform(*preset.exposure_s)
    extras = generator(seed, split, 5)
    far, middle = layers[:1], layers[1:]
    if extras.random() < preset.ground:
        far.append(_ground(extras, preset, split, times, far[0].depth))
        middle = [_above(layer, far[1].track.position[0, 1]) for layer in middle]
    middle += [_clutter(extras, preset, split, times, layers[0].colour)
               for _ in range(int(extras.integers(preset.clutter[0], preset.clutter[1] + 1)))]
    if extras.random() < preset.occluders:
        middle.append(_layer(extras, preset, split, times, extras.uniform(*_FRONT), extras.uniform(0.85, 0.92)))
    shadows = _shadows(extras, preset, objects, far[0].depth)
    middle = sorted(middle + objects, key=lambda surface: -surface.depth)
    spot = [_highlight(extras, times)] if extras.random() < preset.specular else []
    seen = [_through_lens(surface, preset) for surface in (*far, *shadows, *middle, *spot)]
    return World(tuple(seen), camera, flicker, light, exposure, _changes(extras, preset))


def _through_lens(surface: Surface, preset: Preset) -> Surface:
    """The surface blurred once, in its own plane, as lens and pixel aperture blur it at its distance.

    No sensor sees steps sharper than its pixels; light that changes smoothly also needs fewer samples for its events.
    """
    if surface.unseen or surface.tilt or preset.lens_px == 0:  # shadows are soft, the ground is blurred by its distance
        return surface
    texel_px = 2 * surface.half / surface.depth * preset.size[1] / len(surface.colour)  # focal length = image width
    colour, alpha = (None if image is None else
                     cv2.GaussianBlur(image, (0, 0), preset.lens_px / texel_px, borderType=cv2.BORDER_REFLECT)
                     for image in (surface.colour, surface.alpha))
    if alpha is not None:
        alpha = np.round(alpha * 255) / np.float32(255)  # the inside stays 1, the outside 0: both are drawn faster
    return replace(surface, colour=colour, alpha=alpha)


def _changes(rng: np.random.Generator, preset: Preset) -> Light:
    """Slow and sudden changes of the light, and the lens' fall-off."""
    span = preset.duration_s
    ramp = rng.uniform(0.2, 0.5) * rng.choice([-1, 1]) if rng.random() < preset.light_ramp else 0.0
    step = 1 + rng.uniform(0.2, 0.5) * rng.choice([-1, 1]) if rng.random() < preset.light_step else 1.0
    vignette = rng.uniform(0.2, 0.6) if rng.random() < preset.vignette else 0.0
    return Light(ramp=(float(ramp), span), step=(rng.uniform(0.2, 0.8) * span, float(step)), vignette=vignette)


def _camera(rng: np.random.Generator, preset: Preset, times: np.ndarray) -> Camera:
    position, turn = np.zeros((len(times), 3)), np.zeros((len(times), 3))
    if rng.random() < preset.static_camera:
        return Camera(times, position, turn)
    if preset.camera_stops:  # its own clock stops
        times_of = times[0] + np.cumsum(paths.gate(rng, times, preset.camera_stops)) * paths.STEP_S
    else:
        times_of = times
    speed, pan = rng.uniform(*preset.camera_speed), 1 - rng.uniform(*preset.translation)
    direction = rng.uniform(0, 2 * np.pi)
    for axis, part in ((0, np.cos(direction)), (1, np.sin(direction))):
        position[:, axis] = paths.sway(rng, times_of, speed * (1 - pan) * part)
        turn[:, 1 - axis] = paths.sway(rng, times_of, speed * pan * part)
    position[:, 2] = paths.sway(rng, times_of, speed * (1 - pan) * rng.uniform(0, 0.4))
    turn[:, 2] = paths.sway(rng, times_of, rng.uniform(0, 0.15))
    if rng.random() < preset.camera_shake:  # hand-held
        for axis in (0, 1):
            turn[:, axis] += paths.sway(rng, times_of, rng.uniform(*preset.camera_bob_rad_s), (2, 8))
    return Camera(times, position, turn)


def _layers(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray) -> list[Surface]:
    """A far plane and, in front of it, planes with holes, far to near."""
    count = int(rng.integers(preset.layers[0], preset.layers[1] + 1)) - 1
    depths = np.sort(_NEAR[0] + (_NEAR[1] - _NEAR[0]) * (np.arange(count) + rng.random(count)) / max(count, 1))[::-1]
    far = _layer(rng, preset, split, times, rng.uniform(*_FAR), 0.0)
    return [far] + [_layer(rng, preset, split, times, depth, rng.uniform(0.55, 0.7)) for depth in depths]


def _layer(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray, depth: float,
           holes: float) -> Surface:
    """A static plane as large as the view and more; what is below `holes` in a smooth noise is open."""
    side = int(np.ceil(preset.size[1] * 1.24))
    colour, alpha = texture(rng, split, side, photo_share=0.5), None
    if holes:
        field = value_noise(rng, side, int(rng.integers(2, 5)), 2)
        alpha = np.clip((field - holes) * side / 6, 0, 1)
    return Surface(colour, alpha, 0.62 * depth, paths.still(times, (0, 0, depth)), mirrored=True)


def _ground(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray, far: float) -> Surface:
    """A floor that meets the far plane; blurred along its depth in step with its foreshortening."""
    side, half = int(np.ceil(preset.size[1] * 2.5)), far
    low = rng.uniform(0.5, 0.62) * 1.45 * preset.size[0] / preset.size[1]  # below every object at its nearest
    colour = texture(rng, split, side, photo_share=0.3)
    z = np.linspace(-half, far, side, endpoint=False)  # by row; a pixel spans z^2 / (low W) along z
    reach = np.clip(z * z / (low * preset.size[1]) * side / (2 * half), 1, side / 4)
    total = np.concatenate([np.zeros((1, side, 3)), np.cumsum(colour, 0, dtype=np.float64)])
    start, end = (np.clip(np.arange(side) + 0.5 + sign * reach / 2, 0, side).astype(int) for sign in (-1, 1))
    end = np.maximum(end, start + 1)
    colour = ((total[np.minimum(end, side)] - total[np.minimum(start, side - 1)]) /
              (np.minimum(end, side) - np.minimum(start, side - 1))[:, None, None]).astype(np.float32)
    track = paths.still(times, (0, low, far - half))
    return Surface(colour, np.ones((side, side), np.float32), half, track, tilt=np.pi / 2)


def _above(layer: Surface, ground: float) -> Surface:
    """The layer without what would be below the ground."""
    y = (np.arange(len(layer.colour)) + 0.5) * 2 * layer.half / len(layer.colour) - layer.half
    return replace(layer, alpha=layer.alpha * np.float32(y <= ground)[:, None])


def _clutter(rng: np.random.Generator, preset: Preset, split: str, times: np.ndarray, behind: np.ndarray) -> Surface:
    """Something static of the movers' shapes and textures that is part of the background."""
    depth = rng.uniform(_OBJECTS[0], _NEAR[1])
    shape = outlines.outline(rng, split)
    half, side = _half(rng, preset, shape, depth)
    x, y = (rng.uniform(-0.5, 0.5) * depth for _ in range(2))
    track = paths.still(times, (x, y * preset.size[0] / preset.size[1], depth), rng.uniform(0, 6.283))
    return Surface(_skin(rng, preset, split, side, behind), outlines.raster(shape, side), half, track)


def _half(rng: np.random.Generator, preset: Preset, shape: np.ndarray, depth: float) -> tuple[float, int]:
    """(half extent in world units, texture side) of an outline that covers a share `area` of the image."""
    aspect = preset.size[0] / preset.size[1]
    half = float(np.sqrt(rng.uniform(*preset.area) * aspect / outlines.area(shape)) * depth)
    return half, int(np.clip(np.ceil(2.3 * half / depth * preset.size[1]), 12, 1024))


def _skin(rng: np.random.Generator, preset: Preset, split: str, side: int, behind: np.ndarray) -> np.ndarray:
    """(side, side, 3) a texture, or a piece of the background's where the object is camouflaged."""
    colour = texture(rng, split, side)
    if rng.random() < preset.camouflage and side < len(behind):
        y, x = rng.integers(0, len(behind) - side, 2)
        colour = behind[y:y + side, x:x + side]
    return colour


def _objects(rng: np.random.Generator, preset: Preset, split: str, camera: Camera,
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
        half, side = _half(rng, preset, shape, depth)
        going = paths.gate(rng, camera.times, preset.start_stop) if mover else np.zeros_like(camera.times)
        track, degenerate = _track(rng, preset, camera, going, depth, half, surfaces)
        body = Surface(_skin(rng, preset, split, side, behind), outlines.raster(shape, side), half, track, int(number),
                       degenerate=degenerate)
        kind = rng.random()
        if kind < preset.articulated:
            surfaces += _limbs(rng, split, body, going)
        elif kind < preset.articulated + preset.deforming:
            surfaces.append(_soft(rng, body, going))
        else:
            surfaces.append(body)
    return surfaces


def _limbs(rng: np.random.Generator, split: str, body: Surface, going: np.ndarray) -> list[Surface]:
    """The body, made smaller, and one or two parts that swing about joints on its rim while it goes."""
    small = replace(body, half=body.half * 0.72)
    parts, moved = [], np.cumsum(going) * paths.STEP_S
    for way in rng.uniform(0, 6.283) + np.arange(int(rng.integers(1, 3))) * rng.uniform(2, 4):
        half = body.half * rng.uniform(0.38, 0.5)
        swing = rng.uniform(0.3, 0.9) * np.sin(6.283 * rng.uniform(0.5, 2) * moved + rng.uniform(0, 6.283))
        joint, angle = small.track.angle + way, small.track.angle + way + swing
        offset = (0.75 * small.half * np.stack([np.cos(joint), np.sin(joint), 0 * joint], 1) +
                  0.7 * half * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1))
        side = max(12, int(np.ceil(len(body.colour) * half / body.half)))
        shape = outlines.outline(rng, split) * [1, 0.6]
        parts.append(Surface(body.colour[:side, :side], outlines.raster(shape, side), half,
                             paths.carried(small.track, offset, angle, half), body.number,
                             degenerate=body.degenerate))
    return [*parts, small] if rng.random() < 0.5 else [small, *parts]


def _soft(rng: np.random.Generator, body: Surface, going: np.ndarray) -> Surface:
    """The body with an outline that bends while it goes."""
    moved, amplitude = np.cumsum(going) * paths.STEP_S, rng.uniform(0.06, 0.14)
    phases = rng.uniform(0, 6.283, 2) + moved[:, None] * rng.uniform(2, 6, 2)
    steps = np.abs(np.gradient(phases, axis=0)).max(1) * amplitude * body.half / body.depth
    track = replace(body.track, travelled=body.track.travelled + np.cumsum(steps))
    return replace(body, track=track, deform=(amplitude, phases))


def _track(rng: np.random.Generator, preset: Preset, camera: Camera, going: np.ndarray, depth: float, half: float,
           others: list[Surface]) -> tuple[paths.Track, bool]:
    """(path, whether it follows the camera's direction).

    Where the preset has no occlusion, a path that keeps clear of the others if one of 40 draws does.
    """
    limits = (0.42, 0.42 * preset.size[0] / preset.size[1])
    times = camera.times
    if going.any() and rng.random() < preset.epipolar:
        track = paths.follow(rng, times, going, camera.position, rng.uniform(*preset.object_speed), depth, limits)
        if track is not None:
            return track, True
    for _ in range(1 if preset.occlusion else 40):
        track = paths.roam(rng, times, going, rng.uniform(*preset.object_speed), preset.spin_rad_s, depth, limits, half)
        if all(_apart(track, half, other) for other in others):
            break
    if others and going.any() and rng.random() < preset.occluders:
        track = paths.crossing(rng, track, others[int(rng.integers(len(others)))].track, limits)
    return track, False


def _apart(track: paths.Track, half: float, other: Surface) -> bool:
    """Whether the two discs never overlap as a resting camera sees them."""
    a, b = (path.position[:, :2] / path.position[:, 2:] for path in (track, other.track))
    reach = half / track.position[:, 2] + other.half / other.track.position[:, 2]
    return bool((np.linalg.norm(a - b, axis=1) > reach).all())


def _shadows(rng: np.random.Generator, preset: Preset, objects: list[Surface], far: float) -> list[Surface]:
    """Soft shadows of the objects on the far plane, of a lamp beside the camera."""
    if rng.random() >= preset.shadows:
        return []
    lamp, depth = np.append(rng.uniform(-0.25, 0.25, 2), 0.0), rng.uniform(*preset.shadow_depth)
    shadows = []
    for body in objects:
        side = 64
        alpha = np.pad(cv2.resize(body.alpha, (40, 40), interpolation=cv2.INTER_AREA), 12)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 3.0) * np.float32(depth)
        alpha[[0, -1]] = alpha[:, [0, -1]] = 0
        stretch = 0.99 * far / body.track.position[:, 2:]
        track = replace(body.track, position=lamp + (body.track.position - lamp) * stretch)
        shadows.append(Surface(np.zeros((side, side, 3), np.float32), alpha, body.half * side / 40 * far / body.depth,
                               track, unseen=True, deform=None))
    return shadows


def _highlight(rng: np.random.Generator, times: np.ndarray) -> Surface:
    """A bright spot that wanders over everything."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    alpha = np.clip(np.exp(-3 * (x * x + y * y)) - np.exp(-3), 0, 1) * rng.uniform(0.3, 0.7)
    start = rng.uniform(-0.15, 0.15, 2)
    position = np.stack([start[i] * 0.5 + paths.sway(rng, times, rng.uniform(0.02, 0.1)) for i in (0, 1)] +
                        [np.full_like(times, 0.5)], 1)
    track = paths.Track(times, position, np.zeros_like(times), np.arange(len(times)) * 1.0)
    return Surface(np.ones((64, 64, 3), np.float32), alpha.astype(np.float32), rng.uniform(0.03, 0.1), track,
                   unseen=True)
