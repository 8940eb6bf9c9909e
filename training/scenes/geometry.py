"""What a scene is made of: textured planes in 3-D, a camera path, the light. S times, N
surfaces."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from training.scenes import paths

# spatial frequency (rad per half extent) of the warp of x by y, and of y by x
DEFORM_TURNS = np.array([2.1, 2.7])


@dataclass(frozen=True)
class Waves:
    """M waves that run over a surface and move what it shows: water, leaves in the wind.

    `lift` (M, 2) displacement in half extents, `turns` (M, 2) rad per half extent, `phases` (G, M)
    rad at each of the track's times. The point (u, v) shows the texture at (u, v) + sum of lift
    sin(turns . (u, v) + phase).
    """

    lift: np.ndarray
    turns: np.ndarray
    phases: np.ndarray

    def at(self, times: np.ndarray, grid_s: np.ndarray) -> np.ndarray:
        """(S, 5 M): lift, turns and phase of each wave at `times` (S,) s; `grid_s` (G,) s is the
        track's grid."""
        phases = np.stack([np.interp(times, grid_s, phase) for phase in self.phases.T], 1)
        fixed = np.broadcast_to(np.concatenate([self.lift, self.turns], 1),
                                (len(times), len(self.lift), 4))
        return np.concatenate([fixed, phases[..., None]], 2).reshape(len(times), -1)


@dataclass(frozen=True)
class Surface:
    """A plane, facing the resting camera unless `tilt` (rad about x) turns it.

    `colour` (n, n, 3) linear light over [-1, 1] x [-1, 1], mirrored beyond if `mirrored`; `alpha`
    (n, n) coverage, None = opaque; `half` its half extent in world units; `number` of the object, 0
    = background. `unseen` marks light (shadow, highlight): it has no place in the truth. `deform`
    (amplitude in half extents, phase rad about x, y at each of the track's times (G, 2)) bends a
    deforming one; `waves` run over it (after the bend). `degenerate`: it moves along the camera's
    own direction. `family`: an object's outline family or kind of figure, that of its body.
    """

    colour: np.ndarray
    alpha: np.ndarray | None
    half: float
    track: paths.Track
    number: int = 0
    mirrored: bool = False
    unseen: bool = False
    tilt: float = 0.0
    deform: tuple[float, np.ndarray] | None = None
    degenerate: bool = False
    waves: Waves | None = None
    family: str = ''

    @property
    def depth(self) -> float:
        """Median distance along z: the painting order."""
        return float(np.median(self.track.position[:, 2]))

    def bend(self, times: np.ndarray) -> np.ndarray:
        """(S, 3 + 5 M) amplitude and the two phases of its bend at `times` s, zeros for a rigid
        one, then its waves.

        The point (u, v) of the plane shows the texture at u + a sin(k0 v + p0), v + a sin(k1 u +
        p1), moved by the waves there.
        """
        bend = np.zeros((len(times), 3))
        if self.deform is not None:
            amplitude, phases = self.deform
            bend = np.stack([np.full(len(times), amplitude)] +
                            [np.interp(times, self.track.times, axis) for axis in phases.T], 1)
        if self.waves is None:
            return bend
        return np.concatenate([bend, self.waves.at(times, self.track.times)], 1)


@dataclass(frozen=True)
class Camera:
    """Pinhole whose focal length is the image width. `position` (G, 3), `turn` (G, 3) rad about x,
    y, z."""

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


def intrinsics(size: tuple[int, int]) -> np.ndarray:
    """(3, 3) pinhole matrix of an image (height, width): focal length = width, centre in the
    middle."""
    height, width = size
    return np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])


@dataclass(frozen=True)
class Light:
    """Changes of the light: `flicker` (share, hertz), `ramp` (share gained over `span_s`), `step`
    (time s, factor), `vignette` (share lost in the corners)."""

    flicker: tuple[float, float] = (0.0, 0.0)
    ramp: tuple[float, float] = (0.0, 1.0)
    step: tuple[float, float] = (0.0, 1.0)
    vignette: float = 0.0

    def gain(self, times: np.ndarray) -> np.ndarray:
        """(T,) float32 factor of the light at `times` s."""
        share, hertz = self.flicker
        drift = 1 + self.ramp[0] * np.clip(times / self.ramp[1], -0.2, 1.2)
        rise = np.clip((times - self.step[0]) / 5e-3, 0, 1)
        return ((1 + share * np.sin(2 * np.pi * hertz * times)) * drift *
                (1 + (self.step[1] - 1) * rise)).astype(np.float32)

    def fall(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) float32 factor of the lens: 1 in the middle, less towards the corners."""
        y, x = (np.linspace(-1, 1, n) for n in size)
        return (1 - self.vignette * (x[None] ** 2 + y[:, None] ** 2) / 2).astype(np.float32)


@dataclass(frozen=True)
class World:
    """Everything drawn for a clip. `surfaces` from far to near; `flicker` (share, hertz) of the
    light."""

    surfaces: tuple[Surface, ...]
    camera: Camera
    flicker: tuple[float, float]
    light: float
    exposure_s: float
    changes: Light = field(default_factory=Light)

    def objects(self) -> list[Surface]:
        """Moving objects and distractors by number; an articulated one's parts follow each
        other."""
        return sorted((s for s in self.surfaces if s.number), key=lambda s: s.number)

    @property
    def count(self) -> int:
        """K, the highest object number."""
        return max((s.number for s in self.surfaces), default=0)

    def gain(self, times: np.ndarray) -> np.ndarray:
        """(T,) float32 factor of the light at `times` s."""
        return self.changes.gain(times) * Light(self.flicker).gain(times)

    def poses(self, surface: Surface, times: np.ndarray) -> np.ndarray:
        """(T, 3, 3) from plane coordinates (u, v, 1) to world points: [h e1, h e2, P]."""
        position, angle = surface.track.at(times)
        c, s, nil = np.cos(angle) * surface.half, np.sin(angle) * surface.half, np.zeros_like(angle)
        axes = [np.stack([c, s, nil], 1), np.stack([-s, c, nil], 1), position]
        if surface.tilt:  # turn the two axes about x
            for axis in axes[:2]:
                axis[:, 1], axis[:, 2] = (
                    axis[:, 1] * np.cos(surface.tilt),
                    axis[:, 1] * np.sin(surface.tilt),
                )
        return np.stack(axes, 2)

    def homographies(self, surface: Surface, times: np.ndarray,
                     size: tuple[int, int]) -> np.ndarray:
        """(T, 3, 3) from plane coordinates ([-1, 1] is the texture) to pixels: K R [h e1, h e2, P -
        C].

        The third homogeneous coordinate is the depth; that of the inverse, applied to (x, y, 1), is
        1 / depth.
        """
        centre, rotation = self.camera.at(times)
        plane = self.poses(surface, times)
        plane[..., 2] -= centre
        return intrinsics(size) @ rotation @ plane

    def resting(self, surface: Surface) -> bool:
        """Whether neither the surface nor the camera ever moves."""
        return surface.track.still and self.camera.still and surface.waves is None
