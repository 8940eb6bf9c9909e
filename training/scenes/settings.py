"""What a scene and its sensors can be: a field per setting, each with a value for an easy scene.

(low, high) pairs are drawn uniformly per clip or object; a number said to be a share is a
probability. Speeds are image widths per second at the object's depth: "2 % of the width per frame
at 30 Hz" is 0.6.
"""

from __future__ import annotations

from dataclasses import dataclass

from mos_perception.errors import ConfigError

Range = tuple[float, float]
MAX_DURATION_S = 16.0
"""Event stamps are packed in 34 bits of nanoseconds."""


@dataclass(frozen=True)
class EventSensor:
    """The event sensor. Rates are per pixel of the rendered size.

    A sensor of 4 x 4 as many pixels, binned down, brings 16 times its own.
    """

    threshold: Range = (0.15, 0.6)
    """Change of log light (natural) that makes an event; drawn log-uniformly."""
    threshold_sigma: float = 0.03
    """Standard deviation of the threshold over the pixels."""
    refractory_s: Range = (0.0, 1e-3)
    """Time for which a pixel is silent after an event, s."""
    leak_hz: Range = (0.01, 0.2)
    """ON events of a pixel in constant light; drawn log-uniformly."""
    shot_hz: Range = (0.01, 0.5)
    """Noise events of a pixel; drawn log-uniformly."""
    shot_unevenness: float = 0.0
    """Natural log by which shot noise may differ over the sensor."""
    hot_share: Range = (0.0, 1e-3)
    """Share of pixels that fire all the time."""
    cutoff_hz: Range | None = None
    """Corner of the low-pass at white; None = no low-pass. Drawn log-uniformly."""
    bandwidth_hz: float | None = None
    """Events per second the read-out carries; None = any number."""
    threshold_mismatch: float = 0.0
    """Sigma of the natural log of the clip's factor OFF / ON."""


@dataclass(frozen=True)
class Preset:
    """How scenes of one name are drawn and seen. The defaults are the preset `easy`'s."""

    name: str
    """Clips carry it."""
    size: tuple[int, int] = (120, 160)
    """(height, width), px."""
    fps: float = 30.0
    """Frames per second."""
    duration_s: float = 8 / 30
    """Length of a clip, s: at most MAX_DURATION_S."""
    moving_objects: tuple[int, int] = (1, 2)
    """Fewest and most that move, unless the clip is `empty`."""
    distractors: tuple[int, int] = (0, 0)
    """Fewest and most static objects of the same looks; they have ids."""
    clutter: tuple[int, int] = (0, 0)
    """Fewest and most static objects of the same looks that belong to the background: no id."""
    empty: float = 0.0
    """Share of clips in which nothing moves by itself."""
    area: Range = (0.03, 0.12)
    """Share of the image that one object covers."""
    object_speed: Range = (0.6, 1.5)
    """Image widths per second at the object's depth."""
    spin_rad_s: float = 1.5
    """Fastest turn of an object about the viewing axis."""
    start_stop: float = 0.0
    """Share of the moving objects that start or stop in the clip."""
    articulated: float = 0.0
    """Share of objects with one or two parts that swing."""
    deforming: float = 0.0
    """Share of objects whose outline bends."""
    epipolar: float = 0.0
    """Share of moving objects that go along the camera's own direction."""
    static_camera: float = 1.0
    """Share of clips whose camera never moves."""
    camera_speed: Range = (0.0, 0.0)
    """Fastest pace of the camera, image widths per second."""
    translation: Range = (0.0, 1.0)
    """Share of the camera's speed that is no pan; it moves the camera as much at depth 1."""
    camera_stops: float = 0.0
    """Share of clips whose camera starts or stops."""
    camera_shake: float = 0.3
    """Share of the moving cameras that are hand-held."""
    camera_bob_rad_s: Range = (0.0, 0.06)
    """Pace of a hand's shake about x and y."""
    layers: tuple[int, int] = (1, 1)
    """Fewest and most background planes, the far one included."""
    ground: float = 0.0
    """Share of clips with a ground plane below all objects."""
    camouflage: float = 0.0
    """Share of objects in the far plane's texture."""
    occlusion: bool = False
    """Whether objects may cover each other as a resting camera sees them."""
    occluders: float = 0.0
    """Share of objects whose path crosses another's, and of clips with a layer before the
    objects."""
    light: Range = (1.0, 1.0)
    """Factor of the photons of the frames."""
    flicker: float = 0.0
    """Share of clips whose light flickers."""
    flicker_hz: Range = (1.0, 50.0)
    """Frequency of the flicker."""
    flicker_share: Range = (0.02, 0.2)
    """Amplitude of the flicker over the light."""
    light_ramp: float = 0.0
    """Share of clips that grow brighter or darker."""
    light_step: float = 0.0
    """Share of clips in which a lamp is switched."""
    vignette: float = 0.0
    """Share of clips that are darker towards the corners."""
    specular: float = 0.0
    """Share of clips with a bright spot that wanders."""
    shadows: float = 0.0
    """Share of clips whose objects cast shadows; a shadow is not the object."""
    shadow_depth: Range = (0.3, 0.7)
    """Share of the light a shadow takes."""
    read_noise: float = 1.5
    """Of the frames, in 8-bit levels."""
    exposure_s: Range = (0.001, 0.001)
    """Of the frames: what moves meanwhile is blurred."""
    dropped_frames: float = 0.0
    """Share of frames that are missing."""
    frame_event_offset_s: Range = (0.0, 0.0)
    """How late the events are against the frames."""
    lens_px: float = 0.7
    """Standard deviation of the blur of lens and pixel aperture together."""
    step_px: float = 0.5
    """Image motion between two samples of the events' light, at most."""
    sample_hz: float = 700.0
    """Samples of the events' light per second, at least."""
    sensor: EventSensor = EventSensor()
    """The event sensor."""
    events: bool = True
    """Whether an event sensor looks on; without one a clip's `events` are empty."""
    natural: float = 0.0
    """Share of clips whose surfaces look like outdoor video: see `natural`."""
    standing: float = 0.0
    """Share of clips whose objects go on a ground in view, beside poles and clutter that stand
    there too."""
    water: float = 0.0
    """Share of the standing clips whose ground is water: it ripples, drifts, mirrors what is above
    it."""
    sea: float = 0.0
    """Share of the clips without a ground whose far plane is water seen from above."""
    foliage: float = 0.0
    """Share of a natural clip's background planes that are leaves, which sway; they have no id."""
    foliage_px: Range = (0.3, 3.0)
    """How far leaves sway, px."""
    figures: float = 0.0
    """Share of objects that are walkers or vehicles: a body with thin limbs or wheels."""
    partial: float = 0.0
    """Share of figures whose body rests while the limbs move."""
    poles: tuple[int, int] = (0, 0)
    """Fewest and most thin static things in a standing clip, also before the objects."""
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
            raise ConfigError(f'duration_s {self.duration_s} of preset {self.name} is outside '
                              f'(0, {MAX_DURATION_S}]: shorten the clip')
        if min(self.size) < 16 or max(self.size) > 16383:
            raise ConfigError(f'size {self.size} of preset {self.name} is outside 16 to 16383 px '
                              'a side: choose another size')

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
