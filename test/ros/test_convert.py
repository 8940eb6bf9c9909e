"""Messages to values and back, each against the generated classes or an independent library."""

from array import array
from dataclasses import replace

import numpy as np
import pytest
from dvs_msgs.msg import Event, EventArray
from event_camera_msgs.msg import EventPacket
from pycocotools import mask as coco
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from mos_perception.datatypes import (
    Events,
    EventWindow,
    Frame,
    Instances,
    Modality,
    Result,
    SyncedInput,
    Tracks,
    WindowStatus,
)
from mos_perception.errors import DecodeError, FrameError, MosError
from mos_perception.ros import approximate, convert


def result(stamp_ns: int = 1_234_567_890_123) -> Result:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 2:6, 3:9], masks[1, 10:18, 12:30] = True, True
    boxes = np.array([[3, 2, 9, 6], [12, 10, 30, 18]], np.float32)
    instances = Instances(
        masks,
        boxes,
        np.array([0.4, 0.9], np.float32),
        np.array([0.2, 0.95], np.float32),
        np.array([False, True]),
        np.zeros((2, 4), np.float32),
    )
    tracks = Tracks(np.array([70_000, 3]), np.array([0, 1]), np.array([0.1, 2.5]), instances.boxes,
                    np.array([[1.0, 2.0], [-3.0, 4.0]]), np.array([1, -1]))
    window = EventWindow(Events.empty(), 0, 10, 20, 30, WindowStatus.COMPLETE)
    return Result(
        stamp_ns,
        'camera',
        instances,
        tracks,
        window,
        Modality.BOTH,
        'tiny',
        7,
        'late',
        {'engine': 1.5},
    )


def again(message):
    """What a subscriber gets."""
    return deserialize_message(serialize_message(message), type(message))


def test_instances_message():
    message = again(convert.instances_message(result(), True))
    assert (
        convert.to_ns(message.header.stamp) == 1_234_567_890_123
        and message.header.frame_id == 'camera'
    )
    assert (message.height, message.width, message.epoch, message.model_id) == (20, 30, 7, 'tiny')
    assert (
        message.degraded and message.degraded_reason == 'late' and len(message.window_digest) == 64
    )
    assert message.modality == message.MODALITY_BOTH
    assert [(stage.name, stage.milliseconds) for stage in message.stages] == [('engine', 1.5)]
    best, other = message.instances  # best score first
    assert (best.track_id, best.label, best.is_moving) == (70_000, 'moving', True)
    assert (other.track_id, other.label, other.is_moving) == (0, 'static', False)
    np.testing.assert_allclose(best.velocity, [1, 2])
    np.testing.assert_allclose(best.box, [12, 10, 30, 18])
    for item, mask in ((best, result().instances.masks[1]), (other, result().instances.masks[0])):
        assert item.mask_encoding == 'coco_rle'
        code = {'size': list(map(int, item.mask_size)), 'counts': bytes(item.mask)}
        np.testing.assert_array_equal(coco.decode(code).astype(bool), mask)


def test_instances_without_masks():
    message = again(convert.instances_message(result(), False))
    assert all(item.mask_encoding == '' and len(item.mask) == 0 for item in message.instances)


def test_instance_image_is_the_track_id():
    message = again(convert.instance_image_message(result()))
    ids = np.frombuffer(message.data, np.uint16).reshape(20, 30)
    assert message.encoding == 'mono16' and message.step == 60
    assert ids[12, 15] == 70_000 - 65_535 and ids[3, 4] == 0 and ids[0, 0] == 0


def test_motion_and_tracks():
    motion = again(convert.motion_message(result()))
    assert (
        motion.any_moving
        and list(motion.track_ids) == [70_000]
        and list(motion.is_moving) == [True]
    ), 'tracked only'
    assert motion.moving_fraction == pytest.approx(8 * 18 / 600)
    tracks = again(convert.tracks_message(result())).tracks
    assert [(track.id, track.state) for track in tracks] == [(3, 1), (70_000, 0)]
    assert tracks[0].age == 2.5


def test_nothing_moves_where_all_is_held():
    still = replace(result().instances, moving=np.zeros(2, bool))
    motion = again(convert.motion_message(replace(result(), instances=still)))
    assert not motion.any_moving and motion.moving_fraction == 0
    assert list(motion.track_ids) == [70_000] and list(motion.is_moving) == [False]


def test_no_instances():
    empty = Tracks(*(np.zeros(shape) for shape in (0, 0, 0, (0, 4), (0, 2))), np.zeros(0, int))
    nothing = Result(5, '', Instances.empty(20, 30), empty, None, Modality.FRAME, 'tiny', 1)
    assert not again(convert.instances_message(nothing, True)).instances
    assert not again(convert.motion_message(nothing)).any_moving
    assert not any(again(convert.instance_image_message(nothing)).data)


@pytest.mark.parametrize('image', [np.zeros((20, 30, 3), np.uint8), None])
def test_overlay(image):
    frame = Frame(1, image) if image is not None else None
    message = again(
        convert.overlay_message(result(), SyncedInput(1, '', frame, result().window, (20, 30)))
    )
    assert (message.encoding, message.height, message.width, len(message.data)) == (
        'rgb8',
        20,
        30,
        1800,
    )


def test_frame_is_a_view_of_the_message():
    rgb = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    message = again(
        convert.image_message(convert.Header(frame_id='cam', stamp=convert.to_stamp(7)), rgb)
    )
    frame = convert.frame(message)
    np.testing.assert_array_equal(frame.image, rgb)
    assert frame.stamp_ns == 7 and frame.frame_id == 'cam'
    message.data[0] = 200
    assert frame.image[0, 0, 0] == 200


@pytest.mark.parametrize(
    'changes', [{'encoding': 'what'}, {'step': 3}, {'height': 9}, {'width': 0}]
)
def test_bad_frame(changes):
    message = Image(height=2, width=2, encoding='rgb8', step=6, data=array('B', bytes(12)))
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(FrameError):
        convert.frame(message)


def test_packet():
    message = again(
        EventPacket(
            height=3, width=4, seq=5, time_base=6, encoding='evt3', events=array('B', b'abc')
        )
    )
    packet = convert.packet(message)
    assert (packet.height, packet.width, packet.seq, packet.time_base, packet.encoding) == (
        3,
        4,
        5,
        6,
        'evt3',
    )
    assert packet.payload.tobytes() == b'abc'
    message.is_bigendian = True
    with pytest.raises(DecodeError, match='big-endian'):
        convert.packet(message)


@pytest.mark.parametrize('frame_id', ['', 'a', 'abc', 'camera'])
@pytest.mark.parametrize('count', [0, 1, 2, 50])
def test_event_array(frame_id, count):
    rng = np.random.default_rng(count)
    message = EventArray(height=480, width=640)
    message.header.frame_id = frame_id
    times = np.sort(rng.integers(0, 5_000_000_000, count)).tolist()
    message.events = [
        Event(
            x=int(rng.integers(640)),
            y=int(rng.integers(480)),
            ts=convert.to_stamp(t),
            polarity=bool(rng.integers(2)),
        )
        for t in times
    ]
    raw = serialize_message(message)
    events, size, name = convert.event_array(raw)
    assert size == (480, 640) and name == frame_id
    assert events.x.tolist() == [event.x for event in message.events]
    assert events.y.tolist() == [event.y for event in message.events]
    assert events.p.tolist() == [event.polarity for event in message.events]
    assert events.t.tolist() == times
    if count:
        with pytest.raises(MosError):
            convert.event_array(raw[:-8])


def test_event_frame_becomes_events_at_the_middle():
    counts = np.zeros((4, 5, 2), np.uint8)
    counts[1, 2] = 3, 1
    counts[3, 4] = 0, 2
    message = Image(height=4, width=5, encoding='8UC2', step=10, data=array('B', counts.tobytes()))
    window = approximate.window(message, 100, 200)
    assert (window.t0_ns, window.t1_ns, len(window.events)) == (100, 200, 6)
    assert set(window.events.t.tolist()) == {150}
    back = np.zeros_like(counts)
    np.add.at(back, (window.events.y, window.events.x, 1 - window.events.p.astype(int)), 1)
    np.testing.assert_array_equal(back, counts)
    message.encoding = 'mono8'
    with pytest.raises(FrameError, match='8UC2'):
        approximate.window(message, 100, 200)


@pytest.mark.parametrize(
    'encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8', 'yuv422_yuy2']
)
def test_frames_equal_cv_bridge(encoding):
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge comes with a ROS distribution')
    rng = np.random.default_rng(1)
    channels = {'mono8': 1, 'bayer_rggb8': 1, 'yuv422_yuy2': 2, 'rgba8': 4, 'bgra8': 4}.get(
        encoding, 3
    )
    pixels = rng.integers(0, 256, (12, 16 * channels), np.uint8)
    message = Image(
        height=12, width=16, encoding=encoding, step=16 * channels, data=convert.to_bytes(pixels)
    )
    expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
    assert np.abs(convert.frame(message).image.astype(int) - expected).max() <= 1
