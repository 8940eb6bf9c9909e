"""Moving objects and distractors (static ones that look alike): outlines, skins, limbs and
paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.scenes import figures, outlines, paths
from training.scenes.backdrop import OBJECTS, Stage, extent_of, skin
from training.scenes.geometry import Camera, Surface
from training.scenes.settings import Preset
from training.scenes.splits import pick


def objects(rng: np.random.Generator, preset: Preset, split: str, camera: Camera,
            behind: np.ndarray, stage: Stage) -> list[Surface]:
    """Moving objects and distractors, far to near. Numbers are drawn so that a low one says nothing
    about motion."""
    moving = (
        0
        if rng.random() < preset.empty
        else int(rng.integers(preset.moving_objects[0], preset.moving_objects[1] + 1))
    )
    count = moving + int(rng.integers(preset.distractors[0], preset.distractors[1] + 1))
    numbers = rng.permutation(count) + 1
    depths = np.sort(rng.uniform(*OBJECTS, count))[::-1]
    moves = rng.permutation(count) < moving
    surfaces: list[Surface] = []
    for number, depth, goes in zip(numbers, depths, moves):
        if preset.figures and rng.random() < preset.figures:
            surfaces += _figure(rng, preset, split, camera, behind, stage, int(number),
                                float(depth), bool(goes))
            continue
        family = pick(rng, outlines.FAMILIES[split])
        shape = outlines.of_family(rng, family)
        half, side = extent_of(rng, preset, shape, depth)
        going = paths.stop_and_go(rng, camera.times,
                                  preset.start_stop) if goes else np.zeros_like(camera.times)
        if stage.low is None:
            track, degenerate = _track(rng, preset, camera, going, depth, half, surfaces)
        else:
            track, degenerate = _standing(rng, preset, going, depth, stage.low, half, shape), False
        body = Surface(skin(rng, preset, split, side, behind, stage), outlines.raster(shape, side),
                       half, track, int(number), degenerate=degenerate, family=family)
        kind = rng.random()
        if kind < preset.articulated:
            surfaces += _limbs(rng, split, body, going)
        elif kind < preset.articulated + preset.deforming:
            surfaces.append(_soft(rng, body, going))
        else:
            surfaces.append(body)
    return surfaces


def _standing(rng: np.random.Generator, preset: Preset, going: np.ndarray, depth: float, low: float,
              half: float, shape: np.ndarray) -> paths.Track:
    """A path on the ground at `low` for an outline that has been turned anyhow."""
    angle = rng.uniform(0, 6.283)
    return paths.stroll(rng, paths.grid(preset.duration_s), going,
                        rng.uniform(*preset.object_speed), depth,
                        low - half * outlines.below(shape, angle), 0.36, angle)


def _figure(rng: np.random.Generator, preset: Preset, split: str, camera: Camera,
            behind: np.ndarray, stage: Stage, number: int, depth: float,
            goes: bool) -> list[Surface]:
    """A walker or vehicle; some of them rest and only move their limbs."""
    figure = pick(rng, figures.FIGURES)
    parts, reach = figure(rng)
    aspect = preset.size[0] / preset.size[1]
    half = figures.half_of(parts, rng.uniform(*preset.area), aspect) * depth
    going = (
        paths.stop_and_go(rng, camera.times, preset.start_stop)
        if goes
        else np.zeros_like(camera.times)
    )
    swings = any(part.swing for part in parts)
    walking = np.zeros_like(going) if swings and rng.random() < preset.partial else going
    low = rng.uniform(0.1, 0.9) * aspect / 2 if stage.low is None else stage.low
    track = paths.stroll(rng, camera.times, walking, rng.uniform(*preset.object_speed), depth,
                         low - reach * half, 0.36, 0.0)
    body = Surface(np.zeros((2, 2, 3), np.float32), None, half, track, number,
                   family=figure.__name__)
    return figures.surfaces(rng, parts, body, going,
                            lambda n: skin(rng, preset, split, n, behind, stage),
                            half / depth * preset.size[1])


def _limbs(rng: np.random.Generator, split: str, body: Surface, going: np.ndarray) -> list[Surface]:
    """The body, made smaller, and one or two parts that swing about joints on its rim while it
    goes."""
    small = replace(body, half=body.half * 0.72)
    parts, moved = [], np.cumsum(going) * paths.STEP_S
    for way in rng.uniform(0, 6.283) + np.arange(int(rng.integers(1, 3))) * rng.uniform(2, 4):
        half = body.half * rng.uniform(0.38, 0.5)
        swing = rng.uniform(0.3, 0.9) * np.sin(
            6.283 * rng.uniform(0.5, 2) * moved + rng.uniform(0, 6.283)
        )
        joint, angle = small.track.angle + way, small.track.angle + way + swing
        offset = (0.75 * small.half * np.stack([np.cos(joint), np.sin(joint), 0 * joint], 1) +
                  0.7 * half * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1))
        side = max(12, int(np.ceil(len(body.colour) * half / body.half)))
        shape = outlines.outline(rng, split) * [1, 0.6]
        parts.append(Surface(body.colour[:side, :side], outlines.raster(shape, side), half,
                             paths.carried(small.track, offset, angle, half), body.number,
                             degenerate=body.degenerate, family=body.family))
    return [*parts, small] if rng.random() < 0.5 else [small, *parts]


def _soft(rng: np.random.Generator, body: Surface, going: np.ndarray) -> Surface:
    """The body with an outline that bends while it goes."""
    moved, amplitude = np.cumsum(going) * paths.STEP_S, rng.uniform(0.06, 0.14)
    phases = rng.uniform(0, 6.283, 2) + moved[:, None] * rng.uniform(2, 6, 2)
    steps = np.abs(np.gradient(phases, axis=0)).max(1) * amplitude * body.half / body.depth
    track = replace(body.track, travelled=body.track.travelled + np.cumsum(steps))
    return replace(body, track=track, deform=(amplitude, phases))


def _track(rng: np.random.Generator, preset: Preset, camera: Camera, going: np.ndarray,
           depth: float, half: float, others: list[Surface]) -> tuple[paths.Track, bool]:
    """(path, whether it follows the camera's direction).

    Where the preset has no occlusion, a path that keeps clear of the others if one of 40 draws
    does.
    """
    limits = (0.42, 0.42 * preset.size[0] / preset.size[1])
    times = camera.times
    if going.any() and rng.random() < preset.epipolar:
        track = paths.follow(rng, times, going, camera.position, rng.uniform(*preset.object_speed),
                             depth, limits)
        if track is not None:
            return track, True
    for _ in range(1 if preset.occlusion else 40):
        track = paths.roam(rng, times, going, rng.uniform(*preset.object_speed), preset.spin_rad_s,
                           depth, limits, half)
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
