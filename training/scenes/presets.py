"""Named difficulty levels: every knob of a scene with its range.

(low, high) pairs are drawn uniformly per clip or object. Speeds are image widths per second at the object's depth:
"2 % of the width per frame at 30 Hz" is 0.6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mos_perception.errors import ConfigError

Range = tuple[float, float]
MAX_DURATION_S = 16.0  # event stamps are packed in 34 bits of nanoseconds


@dataclass(frozen=True)
class EventSensor:
    """Ranges of the event sensor. `threshold` (natural log units) and the noise rates are drawn log-uniformly.

    `cutoff_hz`: corner of the low-pass at white, `bandwidth_hz` events per second the read-out carries,
    `threshold_mismatch` sigma of the clip's factor OFF / ON. `shot_unevenness`: natural log by which shot noise may
    differ over the sensor. Rates are per pixel of the rendered size: a sensor of 4 x 4 as many pixels, binned down,
    brings 16 times its own.
    """

    threshold: Range = (0.15, 0.6)
    threshold_sigma: float = 0.03
    refractory_s: Range = (0.0, 1e-3)
    leak_hz: Range = (0.01, 0.2)
    shot_hz: Range = (0.01, 0.5)
    shot_unevenness: float = 0.0
    hot_share: Range = (0.0, 1e-3)
    cutoff_hz: Range | None = None
    bandwidth_hz: float | None = None
    threshold_mismatch: float = 0.0


@dataclass(frozen=True)
class Preset:
    """How scenes of this level are drawn and seen.

    `size` (height, width); counts are inclusive; `area` is the share of the image one object covers. Numbers between 0
    and 1 are probabilities: per clip for `empty`, `static_camera`, `camera_stops`, `camera_shake`, `ground`, `flicker`,
    `light_ramp`, `light_step`, `vignette`, `specular`, `shadows`; per object for `start_stop`, `camouflage`,
    `articulated`, `deforming`, `occluders` (also: per clip, a layer in front of the objects) and `epipolar` (movers
    along the camera's own direction). `clutter` counts static objects without an id; `translation` is the share of the
    camera's speed that is no pan; `camera_bob_rad_s` the pace of shake; `shadow_depth` the share of light it takes;
    `dropped_frames` the share of frames missing; `frame_event_offset_s` how late events are; `light` scales the
    photons of the frames, `read_noise` is in 8-bit levels; `lens_px` is the
    standard deviation of lens and pixel aperture together; the events' samples are at most `step_px` of image motion
    and 1 / `sample_hz` apart.
    """

    name: str
    size: tuple[int, int] = (120, 160)
    fps: float = 30.0
    duration_s: float = 8 / 30
    movers: tuple[int, int] = (1, 2)
    look_alikes: tuple[int, int] = (0, 0)
    clutter: tuple[int, int] = (0, 0)
    empty: float = 0.0
    area: Range = (0.03, 0.12)
    object_speed: Range = (0.6, 1.5)
    spin_rad_s: float = 1.5
    start_stop: float = 0.0
    articulated: float = 0.0
    deforming: float = 0.0
    epipolar: float = 0.0
    static_camera: float = 1.0
    camera_speed: Range = (0.0, 0.0)
    translation: Range = (0.0, 1.0)
    camera_stops: float = 0.0
    camera_shake: float = 0.3
    camera_bob_rad_s: Range = (0.0, 0.06)
    layers: tuple[int, int] = (1, 1)
    ground: float = 0.0
    camouflage: float = 0.0
    occlusion: bool = False
    occluders: float = 0.0
    light: Range = (1.0, 1.0)
    flicker: float = 0.0
    flicker_hz: Range = (1.0, 50.0)
    flicker_share: Range = (0.02, 0.2)
    light_ramp: float = 0.0
    light_step: float = 0.0
    vignette: float = 0.0
    specular: float = 0.0
    shadows: float = 0.0
    shadow_depth: Range = (0.3, 0.7)
    read_noise: float = 1.5
    exposure_s: Range = (0.001, 0.001)
    dropped_frames: float = 0.0
    frame_event_offset_s: Range = (0.0, 0.0)
    lens_px: float = 0.7
    step_px: float = 0.5
    sample_hz: float = 700.0
    sensor: EventSensor = EventSensor()
    events: bool = True
    """Whether an event sensor looks on; without one a clip's `events` are empty."""
    natural: float = 0.0
    """Share of clips whose surfaces look like outdoor video: see `natural`."""
    standing: float = 0.0
    """Share of clips whose objects stand and go on a ground in view, beside poles and clutter that stand there too."""
    water: float = 0.0
    """Share of the standing clips whose ground is water: it ripples, drifts and mirrors what is above it."""
    foliage: float = 0.0
    """Share of a natural clip's background planes that are leaves, which sway in the wind; no object, no id."""
    foliage_px: Range = (0.3, 3.0)
    """How far leaves sway, px."""
    figures: float = 0.0
    """Share of objects that are walkers or vehicles: a body with thin limbs or wheels."""
    partial: float = 0.0
    """Share of figures whose body rests while the limbs move."""
    poles: tuple[int, int] = (0, 0)
    """Thin static things per standing clip, also before the objects."""
    follows: float = 0.0
    """Share of clips whose camera is held on a moving object."""
    roll_shake_rad_s: Range = (0.0, 0.0)
    """Pace at which a carried camera rolls."""
    sharpening: Range = (0.0, 0.0)
    """Strength of the camera's unsharp mask."""
    compressed: float = 0.0
    """Share of clips whose frames went through lossy compression."""
    jpeg_quality: Range = (50.0, 95.0)
    """Quality of that compression."""

    def __post_init__(self) -> None:
        if not 0 < self.duration_s <= MAX_DURATION_S:
            raise ConfigError(f'duration_s {self.duration_s} of preset {self.name} is outside (0, {MAX_DURATION_S}]: '
                              'shorten the clip')
        if min(self.size) < 16 or max(self.size) > 16383:
            raise ConfigError(f'size {self.size} of preset {self.name} is outside 16 to 16383 px a side: '
                              'choose another size')

    @property
    def frame_slots(self) -> int:
        """Frames a clip would have if none were dropped."""
        return max(1, round(self.duration_s * self.fps))

    @property
    def frame_count(self) -> int:
        """Frames of a clip."""
        return self.frame_slots - self.dropped_count

    @property
    def dropped_count(self) -> int:
        """Frames missing from a clip; the first two always stay."""
        return min(round(self.dropped_frames * self.frame_slots), max(0, self.frame_slots - 2))


def find_preset(preset: Preset | str, **changes: object) -> Preset:
    """The preset of that name, or the one given, with fields replaced. Raises ConfigError for an unknown name."""
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f'unknown preset "{preset}": choose one of {", ".join(PRESETS)}')
        preset = PRESETS[preset]
    return replace(preset, **changes) if changes else preset


from training.scenes.levels import PRESETS  # noqa: E402  (the named presets are made of the classes above)
