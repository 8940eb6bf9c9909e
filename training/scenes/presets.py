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

    `shot_unevenness`: natural log by which shot noise may differ over the sensor. Rates are per pixel of the rendered
    size: a sensor of 4 x 4 as many pixels, binned down, brings 16 times its own.
    """

    threshold: Range = (0.15, 0.6)
    threshold_sigma: float = 0.03
    refractory_s: Range = (0.0, 1e-3)
    leak_hz: Range = (0.01, 0.2)
    shot_hz: Range = (0.01, 0.5)
    shot_unevenness: float = 0.0
    hot_share: Range = (0.0, 1e-3)


@dataclass(frozen=True)
class Preset:
    """How scenes of this level are drawn and seen.

    `size` (height, width); counts are inclusive; `area` is the share of the image one object covers;
    shares (`empty`, `static_camera`, `start_stop`, `camouflage`, `flicker`) are probabilities;
    `light` scales the photons of the frames, `read_noise` is in 8-bit levels; `step_px` bounds the
    image motion between two samples.
    """

    name: str
    size: tuple[int, int] = (120, 160)
    fps: float = 30.0
    duration_s: float = 8 / 30
    movers: tuple[int, int] = (1, 2)
    look_alikes: tuple[int, int] = (0, 0)
    empty: float = 0.0
    area: Range = (0.03, 0.12)
    object_speed: Range = (0.6, 1.5)
    spin_rad_s: float = 1.5
    start_stop: float = 0.0
    static_camera: float = 1.0
    camera_speed: Range = (0.0, 0.0)
    layers: tuple[int, int] = (1, 1)
    camouflage: float = 0.0
    occlusion: bool = False
    light: Range = (1.0, 1.0)
    read_noise: float = 1.5
    exposure_s: Range = (0.001, 0.001)
    flicker: float = 0.0
    step_px: float = 0.7
    sensor: EventSensor = EventSensor()

    def __post_init__(self) -> None:
        if not 0 < self.duration_s <= MAX_DURATION_S:
            raise ConfigError(f'duration_s {self.duration_s} of preset {self.name} is outside (0, {MAX_DURATION_S}]: '
                              'shorten the clip')
        if min(self.size) < 16 or max(self.size) > 16383:
            raise ConfigError(f'size {self.size} of preset {self.name} is outside 16 to 16383 px a side: '
                              'choose another size')

    @property
    def frame_count(self) -> int:
        """Frames of a clip."""
        return max(1, round(self.duration_s * self.fps))


_EASY = Preset('easy')
_MID = Preset('mid', movers=(3, 5), look_alikes=(3, 3), area=(0.006, 0.03), object_speed=(0.15, 0.6), start_stop=0.4,
              static_camera=0.0, camera_speed=(0.15, 0.45), layers=(2, 3), camouflage=0.2, occlusion=True,
              light=(0.2, 0.2), exposure_s=(0.008, 0.008))
_TRAIN = Preset('train', movers=(1, 4), look_alikes=(0, 3), empty=0.1, area=(0.01, 0.12), object_speed=(0.15, 1.5),
                start_stop=0.3, static_camera=0.6, camera_speed=(0.03, 0.4), layers=(1, 3), camouflage=0.1,
                occlusion=True, light=(0.1, 1.0), exposure_s=(0.001, 0.01), flicker=0.1, step_px=1.0,
                sensor=EventSensor(shot_hz=(0.01, 8.0), shot_unevenness=3.0))
# Sized so that its bag stays under 8 MB: little frame noise (well lit) and a less sensitive event sensor.
_DEMO = Preset('demo', size=(192, 256), duration_s=3.5, movers=(3, 3), look_alikes=(1, 1), area=(0.02, 0.05),
               object_speed=(0.15, 0.4), start_stop=0.6, light=(200.0, 200.0), read_noise=0.08,
               exposure_s=(0.004, 0.004),
               sensor=EventSensor(threshold=(0.4, 0.5), shot_hz=(0.05, 0.1), leak_hz=(0.01, 0.05),
                                  hot_share=(0.0, 1e-4)))
PRESETS = {preset.name: preset for preset in (_EASY, _MID, _TRAIN, _DEMO)}


def find_preset(preset: Preset | str, **changes: object) -> Preset:
    """The preset of that name, or the one given, with fields replaced. Raises ConfigError for an unknown name."""
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f'unknown preset "{preset}": choose one of {", ".join(PRESETS)}')
        preset = PRESETS[preset]
    return replace(preset, **changes) if changes else preset
