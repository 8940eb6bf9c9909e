"""Named presets: levels of difficulty, one factor off `mid` at a time, video, and scenes like those
of real data sets.

| factor | easy | mid | hard |
|---|---|---|---|
| area: object area, % of the image | 3-12 | 0.6-3 | 0.05-0.6 |
| count: moving objects / distractors | 1-2 / 0 | 3-5 / 3 | 6-8 / 8 |
| camera: background motion, % of the width per frame at 30 Hz | 0 | 0.5-1.5 | 2-6 |
| speed: object motion, likewise | 2-5 | 0.5-2 | 0.1-0.5 |
| parallax: mean residue of static surfaces, px per frame (160 px width) | 0 | 0.5-2 | 2-6 |
| light: gain of the frames' photons | 1 | 0.2 | 0.03, events: noise 1-5 Hz, cut-off 30 Hz |
| exposure, ms | 1 | 8 | 20 |
| occlusion: camouflage / occlusion, share of objects | 0 / 0 | 0.2 / 0.2 | 0.6 / 0.5 |

`camera_speed` is in image widths per second, of which the share `translation` moves the camera by
as much at depth 1 and the rest pans: a far plane at depth 4 shifts by speed x (1 - 3/4
translation). Camera and parallax therefore share these two fields: each level sets both, so that
the other's row stays at mid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mos_perception.errors import ConfigError
from training.scenes.settings import MAX_DURATION_S, EventSensor, Preset, Range

__all__ = ['FACTORS', 'MAX_DURATION_S', 'PRESETS', 'EventSensor', 'Preset', 'Range', 'find_preset',
           'renamed']

# the median mid clip makes 3-15 events per pixel per second
_SENSOR = EventSensor(threshold=(0.3, 0.6))
_DARK = replace(_SENSOR, shot_hz=(1.0, 5.0), cutoff_hz=(30.0, 30.0))
FACTORS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    'area': ({'area': (0.03, 0.12)}, {'area': (0.006, 0.03)}, {'area': (0.0005, 0.006)}),
    'count': (
        {'moving_objects': (1, 2), 'distractors': (0, 0)},
        {'moving_objects': (3, 5), 'distractors': (3, 3)},
        {'moving_objects': (6, 8), 'distractors': (8, 8)},
    ),
    'camera': (
        {'static_camera': 1.0},
        {'static_camera': 0.0, 'camera_speed': (0.6, 1.35), 'translation': (0.75, 0.95)},
        {'static_camera': 0.0, 'camera_speed': (1.2, 2.8), 'translation': (0.45, 0.6)},
    ),
    'speed': (
        {'object_speed': (0.6, 1.5)},
        {'object_speed': (0.15, 0.6)},
        {'object_speed': (0.03, 0.15)},
    ),
    'parallax': (
        {'translation': (0.0, 0.0), 'camera_speed': (0.25, 0.65)},
        {},
        {'translation': (0.95, 1.0), 'camera_speed': (1.6, 2.8)},
    ),
    'light': (
        {'light': (1.0, 1.0)},
        {'light': (0.2, 0.2)},
        {'light': (0.03, 0.03), 'sensor': _DARK},
    ),
    'exposure': (
        {'exposure_s': (0.001, 0.001)},
        {'exposure_s': (0.008, 0.008)},
        {'exposure_s': (0.02, 0.02)},
    ),
    'occlusion': (
        {'camouflage': 0.0, 'occlusion': False, 'occluders': 0.0},
        {'camouflage': 0.2, 'occlusion': True, 'occluders': 0.2},
        {'camouflage': 0.6, 'occlusion': True, 'occluders': 0.5},
    ),
}
"""Per difficulty factor, what `easy`, `mid` and `hard` set."""


def _level(level: int) -> dict[str, Any]:
    """All factors at one level; a later one overrules an earlier one."""
    return {field: value for factor in FACTORS.values() for field, value in factor[level].items()}


def _presets() -> dict[str, Preset]:
    easy = Preset('easy')  # the table's easy column is what a Preset is by default
    mid = Preset('mid', start_stop=0.4, empty=0.2, layers=(3, 5), clutter=(2, 4), articulated=0.2,
                 deforming=0.2, shadows=0.2, sensor=_SENSOR, **_level(1))
    # camera and parallax hard at once
    both = {'camera_speed': (2.4, 4.5), 'translation': (0.6, 0.75)}
    hard = replace(mid, name='hard', **_level(2) | both)
    changed = [replace(mid, name=f'{factor}-{level}', **changes)
               for factor, (low, _, high) in FACTORS.items()
               for level, changes in (('easy', low), ('hard', high))]
    others = (_train(), _still(), _frames(), _video(), _video_water(), _video_still(),
              _video_long(), _demo(), _other(mid), *_like_data_sets())
    return {preset.name: preset for preset in (easy, mid, hard, *changed, *others)}


def _train() -> Preset:
    """What models learn from: covers easy and mid, and some of hard."""
    return Preset('train', moving_objects=(1, 5), distractors=(0, 4), clutter=(0, 4), empty=0.15,
                  area=(0.005, 0.12), object_speed=(0.1, 1.5), start_stop=0.35, articulated=0.2,
                  deforming=0.2, epipolar=0.05, static_camera=0.4, camera_speed=(0.03, 0.9),
                  camera_stops=0.1, layers=(1, 5), ground=0.3, camouflage=0.15, occlusion=True,
                  occluders=0.1, light=(0.1, 1.0), flicker=0.1, light_ramp=0.1, light_step=0.05,
                  vignette=0.2, specular=0.1, shadows=0.2, exposure_s=(0.001, 0.01), step_px=1.0,
                  sample_hz=120.0, sensor=EventSensor(shot_hz=(0.01, 8.0), shot_unevenness=3.0))


def _still() -> Preset:
    """What a robot sees where nothing moves by itself: every kind of sensor noise, mostly at rest.
    For false alarms."""
    return replace(_train(), name='still', empty=1.0, static_camera=0.6, flicker=0.2,
                   light_ramp=0.2, sensor=EventSensor(shot_hz=(0.1, 8.0), shot_unevenness=3.0))


def _frames() -> Preset:
    """The scenes of `train` as a camera alone sees them, a frame longer: for models without
    events."""
    return replace(_train(), name='train-frames', duration_s=9 / 30, events=False)


def _video() -> Preset:
    """Ordinary hand-held outdoor video without events: objects as large as DAVIS', most of them
    bend or walk, the camera moves, and so do water and leaves."""
    return replace(_train(), name='video', size=(144, 256), fps=24.0, duration_s=9 / 24,
                   moving_objects=(1, 3), distractors=(0, 2), clutter=(0, 3), empty=0.1,
                   area=(0.008, 0.18), object_speed=(0.04, 1.2), articulated=0.4, deforming=0.5,
                   epipolar=0.1, static_camera=0.12, camera_speed=(0.02, 1.6), camera_shake=0.6,
                   camera_bob_rad_s=(0.02, 0.25), roll_shake_rad_s=(0.0, 0.12), ground=0.4,
                   light=(0.3, 3.0), exposure_s=(0.001, 0.018), lens_px=0.55, natural=0.75,
                   standing=0.55, water=0.25, foliage=0.4, figures=0.45, partial=0.15, poles=(0, 4),
                   follows=0.45, sharpening=(0.0, 0.8), compressed=0.5, shadows=0.5, events=False)


def _video_water() -> Preset:
    """Video of what swims or floats on water that fills the view, mostly with the camera held on
    it."""
    return replace(_video(), name='video-water', sea=1.0, standing=0.0, follows=0.7, empty=0.12,
                   moving_objects=(1, 2), area=(0.02, 0.2), object_speed=(0.02, 0.6), figures=0.15,
                   layers=(1, 1), clutter=(0, 0), distractors=(0, 0), articulated=0.2,
                   static_camera=0.1, ground=0.0)


def _video_still() -> Preset:
    """Video of a static world under every motion of the camera, water and leaves aside: for false
    alarms."""
    return replace(_video(), name='video-still', empty=1.0, static_camera=0.0, distractors=(1, 5))


def _video_long() -> Preset:
    """Video long enough for windows of 480 ms, in which most objects start, stop or pause."""
    return replace(_video(), name='video-long', duration_s=30 / 24, start_stop=0.6)


def _demo() -> Preset:
    """A camera that pans and moves past layers, objects that start and stop. Sized so that its bag
    stays under 8 MB: little frame noise (well lit) and a less sensitive event sensor."""
    return Preset('demo', size=(160, 216), duration_s=3.1, moving_objects=(3, 3),
                  distractors=(1, 1), area=(0.02, 0.05), object_speed=(0.15, 0.4), start_stop=0.6,
                  static_camera=0.0, camera_speed=(0.12, 0.2), translation=(0.3, 0.6),
                  layers=(2, 3),
                  light=(200.0, 200.0), read_noise=0.08, exposure_s=(0.004, 0.004),
                  sensor=EventSensor(threshold=(0.4, 0.5), shot_hz=(0.05, 0.1),
                                     leak_hz=(0.01, 0.05), hot_share=(0.0, 1e-4)))


def _other(mid: Preset) -> Preset:
    """Mid as other sensors see it; score it on split `other`, whose renderer differs too."""
    return replace(mid, name='other', exposure_s=(0.004, 0.016), read_noise=3.0, vignette=1.0,
                   flicker=0.3, dropped_frames=0.05, frame_event_offset_s=(0.0, 0.002),
                   sensor=EventSensor(threshold=(0.1, 0.9), threshold_sigma=0.08,
                                      refractory_s=(0.0, 5e-4), leak_hz=(0.1, 1.0),
                                      shot_hz=(0.1, 5.0), hot_share=(0.0, 2e-3),
                                      cutoff_hz=(60.0, 300.0), threshold_mismatch=0.2))


def _like_data_sets() -> tuple[Preset, ...]:
    """Sensor shape, camera, object count and size and event rate of a real set, at a smaller
    size."""
    mousesis = Preset('like-mousesis', size=(180, 320), duration_s=4.0, moving_objects=(3, 7),
                      area=(0.004, 0.012), object_speed=(0.1, 0.8), start_stop=0.8, articulated=0.3,
                      deforming=0.7, camouflage=0.2, occlusion=True, occluders=0.2,
                      light=(0.3, 1.0), shadows=0.5, shadow_depth=(0.1, 0.4), vignette=0.5,
                      exposure_s=(0.005, 0.015), sensor=EventSensor(shot_hz=(0.1, 0.5)))
    # CARLA's DVS has no noise
    simulator = EventSensor(threshold=(0.3, 0.3), threshold_sigma=0.0, refractory_s=(0.0, 0.0),
                            leak_hz=(0.0, 0.0), shot_hz=(0.0, 0.0), hot_share=(0.0, 0.0))
    sevd = Preset('like-sevd', size=(192, 256), fps=10.0, duration_s=4.0, moving_objects=(3, 8),
                  distractors=(2, 6), clutter=(2, 6), area=(0.0008, 0.02), object_speed=(0.05, 0.5),
                  spin_rad_s=0.1, start_stop=0.4, layers=(2, 4), ground=1.0, occlusion=True,
                  occluders=0.2, light=(0.3, 1.0), shadows=0.7, exposure_s=(0.001, 0.005),
                  sensor=simulator)
    evimo = Preset('like-evimo', size=(260, 346), fps=40.0, duration_s=2.0, moving_objects=(1, 3),
                   clutter=(2, 6), area=(0.01, 0.2), object_speed=(0.2, 1.2), start_stop=0.2,
                   static_camera=0.0, camera_speed=(0.3, 1.2), translation=(0.3, 1.0),
                   camera_shake=1.0, camera_bob_rad_s=(0.05, 0.3), layers=(3, 5), occlusion=True,
                   light=(0.2, 0.6), exposure_s=(0.004, 0.015),
                   sensor=EventSensor(threshold=(0.15, 0.4), shot_hz=(0.1, 1.0)))
    return mousesis, sevd, evimo


PRESETS = _presets()
_RENAMED = {'hiding-easy': 'occlusion-easy', 'hiding-hard': 'occlusion-hard'}
_RENAMED_FIELDS = {'movers': 'moving_objects', 'look_alikes': 'distractors'}


def renamed(name: str) -> str:
    """A sentence that says what the preset `name` is called now, or nothing."""
    return f'; "{name}" is called "{_RENAMED[name]}" now' if name in _RENAMED else ''


def find_preset(preset: Preset | str, **changes: object) -> Preset:
    """The preset of that name, or the one given, with fields replaced.

    Raises ConfigError for an unknown name or a field that has another name now.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f'unknown preset "{preset}"{renamed(preset)}: '
                              f'choose one of {", ".join(PRESETS)}')
        preset = PRESETS[preset]
    for old in changes:
        if old in _RENAMED_FIELDS:
            raise ConfigError(f'presets have no field {old}: it is {_RENAMED_FIELDS[old]} now')
    return replace(preset, **changes) if changes else preset
