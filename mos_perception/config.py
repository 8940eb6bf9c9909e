"""Every parameter once: default, unit, bounds, live or read-only, and what it does.

The ROS parameters, the generated parameter files, `docs/parameters.md` and the command line
are all made from the fields of `Config`. There is no other source of defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any

from mos_perception.errors import ConfigError

TF_STATIC = '/tf_static'


def parameter(
    default: Any,
    text: str,
    *,
    unit: str = '',
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A dataclass field with its unit, bounds (inclusive) and whether it may change while running.
    """
    return field(default=default, metadata={'text': text, 'unit': unit, 'low': low, 'high': high,
                                            'choices': choices, 'live': live})


@dataclass(frozen=True)
class Config:
    """All parameters of a perception node or a replay."""

    model: str = parameter(
        'auto',
        'a name under models/, or a path to an .onnx file with its card beside it; auto: '
        'dimos_light, or gmos_nano without events_topic, or dimos_nano without image_topic',
    )
    movable_model: str = parameter(
        '',
        'a single-picture model beside it, a name or path likewise (movable_nano): objects that it '
        'finds and that do not move are published too, with is_moving false; needs frames and '
        'tracker hungarian; empty: none',
    )
    backend: str = parameter(
        'auto',
        'what runs the network; auto: where there is a GPU an engine made by `mos build`, else '
        'onnxruntime_cuda (onnxruntime-gpu); else onnxruntime',
        choices=('auto', 'onnxruntime', 'onnxruntime_cuda', 'openvino', 'tensorrt',
                 'tensorrt_rtx'),
    )
    cuda_driver: str = parameter(
        'auto', 'package that talks to the GPU', choices=('auto', 'cuda_bindings', 'pycuda')
    )
    threads: int = parameter(
        0, 'threads of the network on a CPU; 0 = one per core', low=0, high=256
    )

    causal: bool = parameter(
        False,
        'models that look at frames around each frame look at earlier ones alone: an answer comes '
        'at once, a little less exact, instead of after the "model delay ms" of /diagnostics',
    )

    image_topic: str = parameter(
        'image', 'frames, sensor_msgs/Image or CompressedImage; empty: events only'
    )
    image_type: str = parameter(
        'raw',
        'message type on image_topic; compressed: sensor_msgs/CompressedImage, JPEG or PNG, as '
        'image_transport publishes it on <base>/compressed',
        choices=('raw', 'compressed'),
    )
    events_topic: str = parameter(
        'events', 'events, event_camera_msgs/EventPacket or dvs_msgs/EventArray; empty: frames only'
    )
    events_type: str = parameter(
        'event_packet', 'message type on events_topic', choices=('event_packet', 'event_array')
    )
    event_decoder: str = parameter(
        'native',
        'what decodes event packets; event_camera_py: the package of that name, which only a ROS '
        'distribution has and which tells no time of packets without events',
        choices=('native', 'event_camera_py'),
    )
    imu_topic: str = parameter(
        '', "the event camera's gyroscope, sensor_msgs/Imu: events are moved along its rotation; "
        'empty: none',
    )
    camera_info_topic: str = parameter(
        '', "the event camera's calibration, sensor_msgs/CameraInfo (plumb_bob or "
        'rational_polynomial), published again and again; read with imu_topic and with '
        'registration camera_info',
    )
    image_camera_info_topic: str = parameter(
        '', "the frame camera's calibration, likewise; read with registration camera_info",
    )
    imu_to_camera_rotation: str = parameter(
        '0 0 0 1', "quaternion 'x y z w' that takes vectors of the IMU's frame to the event "
        "camera's optical frame (x right, y down, z forward)",
    )
    sync_policy: str = parameter(
        'event_time',
        'how frames and events are joined; approximate: already binned event frames '
        'by header stamp, through message_filters',
        choices=('event_time', 'approximate'),
    )
    input_reliable: bool = parameter(
        False, 'ask publishers of frames and events for reliable delivery'
    )
    input_depth: int = parameter(
        256, 'queue depth of the event subscription (frames: 10)', unit='messages', low=1, high=1000
    )

    registration: str = parameter(
        'same_pixels',
        'how events get into the view of the frames (docs/calibration.md). same_pixels: they are '
        'there, and other sizes are refused; scale: same field of view, sizes may differ; '
        'homography: homography_file; camera_info: both calibrations and the transform between '
        'the cameras on /tf_static',
        choices=('same_pixels', 'scale', 'homography', 'camera_info'),
    )
    homography_file: str = parameter(
        '', 'with registration homography: the file that `mos register` writes'
    )
    plane_distance_m: float = parameter(
        0.0,
        'with registration camera_info: depth, from the frame camera, at which the distance '
        'between the cameras is made up for; 0 = infinity',
        unit='m',
        low=0.0,
        high=100_000.0,
    )
    deadline_s: float = parameter(
        0.1,
        'longest wait for the events of a frame; after it the result is DEGRADED',
        unit='s',
        low=0.0,
        high=10.0,
        live=True,
    )
    events_only_rate_hz: float = parameter(
        30.0,
        'results per second of event time when there are no frames',
        unit='Hz',
        low=0.1,
        high=1000.0,
    )
    event_buffer_bytes: int = parameter(
        64_000_000,
        'decoded events kept; the oldest whole packets go first',
        unit='bytes',
        low=1_000_000,
        high=4_000_000_000,
    )
    stale_after_s: float = parameter(
        1.0, 'an input silent for this long is STALE', unit='s', low=0.01, high=60.0, live=True
    )

    score_threshold: float = parameter(
        -1.0,
        'keep instances with p(moving) x mask quality above it (theta of DIMOS); negative = as the '
        'model card '
        'says',
        low=-1.0,
        high=1.0,
        live=True,
    )
    top_k: int = parameter(
        0,
        'class probabilities looked at, the largest first, over all queries and both classes: no '
        'more instances than this; 0 = as the model card says',
        low=0,
        high=65535,
        live=True,
    )

    ego_motion: str = parameter(
        'auto',
        'auto: while the camera moves, instances that its motion explains are dropped (by the '
        'events; models that take them); off: all are published',
        choices=('auto', 'off'),
        live=True,
    )

    tracker: str = parameter(
        'hungarian',
        'what decides which instance is which object; hungarian: overlap and '
        'embeddings, one assignment per frame; referring: the network of tracker_model; '
        "propagation_flow, propagation_sam2: GMOS' propagator, which carries masks along the flow "
        'or through the memory of SAM 2.1 (docs/gmos.md)',
        choices=('hungarian', 'referring', 'propagation_flow', 'propagation_sam2'),
    )
    tracker_model: str = parameter(
        'referring_nano',
        'network of the tracker referring, made for models of one size of embeddings: a name under '
        'models/trackers/, or a path to an .onnx file with its card beside it',
    )

    track_birth_score: float = parameter(
        0.5,
        'a new track starts only from an instance with at least this score; weaker '
        'ones may continue a track, else they are published with track id 0',
        low=0.0,
        high=1.0,
        live=True,
    )
    track_min_iou: float = parameter(
        0.1, 'mask IoU below which two instances are never the same', low=0.0, high=1.0, live=True
    )
    track_embedding_weight: float = parameter(
        0.3,
        'weight of embedding cosine beside mask IoU in the association',
        low=0.0,
        high=1.0,
        live=True,
    )
    track_confirm_s: float = parameter(
        0.1, 'a track seen for this long is confirmed', unit='s', low=0.0, high=10.0, live=True
    )
    track_lost_s: float = parameter(
        1.0,
        'a track neither seen nor held for this long dies; one that was covered while it may have '
        'stopped lives on for track_hold_s',
        unit='s',
        low=0.0,
        high=60.0,
        live=True,
    )
    track_hold_s: float = parameter(
        2.0,
        'an object that stopped is still published, with is_moving false, until this long after it '
        'was last seen; 0 = not at all',
        unit='s',
        low=0.0,
        high=60.0,
        live=True,
    )

    force_inference: bool = parameter(False, 'infer even when nobody subscribes', live=True)
    publish_masks: bool = parameter(
        True, 'put the run-length masks into the instances message', live=True
    )
    publish_digest: bool = parameter(
        False,
        'put the SHA-256 of the event window into the instances message, to compare '
        'runs; costs about 1 ms per 2 MB of events',
        live=True,
    )
    autostart: bool = parameter(True, 'configure and activate by itself at start')

    def __post_init__(self) -> None:
        """Check each value. Raises ConfigError naming the parameter, value and limit."""
        for spec in dataclasses.fields(self):
            check(spec.name, getattr(self, spec.name))
        if self.movable_model and self.tracker != 'hungarian':
            raise ConfigError(
                f'parameter movable_model is {self.movable_model!r} with tracker {self.tracker}: '
                'that one follows what moves alone; set tracker to hungarian, or no movable_model'
            )

    def side_topics(self) -> dict[str, str]:
        """Role -> topic of what is read beside frames and events."""
        registers = self.registration == 'camera_info'
        roles = {
            'imu': self.imu_topic,
            'camera_info': self.camera_info_topic if self.imu_topic or registers else '',
            'image_camera_info': self.image_camera_info_topic if registers else '',
            'tf_static': TF_STATIC if registers else '',
        }
        return {role: topic for role, topic in roles.items() if topic}


FIELDS = {spec.name: spec for spec in dataclasses.fields(Config)}
# old name -> the one that took its place
RENAMED = {'max_objects': 'top_k', 'same_view': 'registration (true: scale)'}


def check(name: str, value: Any) -> None:
    """Raise ConfigError unless `value` is right for the parameter `name`."""
    if name in RENAMED:
        raise ConfigError(
            f'parameter {name} is called {RENAMED[name]} now: rename it where you set it'
        )
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, 1)
        raise ConfigError(
            f'unknown parameter {name!r}' + (f': did you mean {near[0]!r}?' if near else '')
        )
    spec, meta = FIELDS[name], FIELDS[name].metadata
    kind = type(spec.default)
    good = isinstance(value, kind) and not (kind is not bool and isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        good = True
    if not good:
        raise ConfigError(f'parameter {name} is {value!r}: must be {kind.__name__}')
    if meta['choices'] and value not in meta['choices']:
        raise ConfigError(
            f'parameter {name} is {value!r}: must be one of {", ".join(meta["choices"])}'
        )
    low, high = meta['low'], meta['high']
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise ConfigError(
            f'parameter {name} is {value!r}: must be within [{low}, {high}] {meta["unit"]}'.rstrip()
        )


def from_dict(values: dict[str, Any]) -> Config:
    """A Config from names and values; the rest default. Raises ConfigError."""
    for name, value in values.items():
        check(name, value)
    return Config(**{name: type(FIELDS[name].default)(value) for name, value in values.items()})
