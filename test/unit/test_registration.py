"""Events into the frames' view: tables against OpenCV, transforms against SciPy, and refusals."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mos_perception.cli import main
from mos_perception.config import Config
from mos_perception.datatypes import EventPacket, Events, Frame, Result, Skip, SkipReason
from mos_perception.errors import ConfigError, ImuError, SyncError
from mos_perception.events.encode import encode_mono
from mos_perception.motion import pixel_table
from mos_perception.motion.alignment import align
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.gyroscope import AngularVelocity, Gyroscope
from mos_perception.motion.homography_file import Homography, read_homography, write_homography
from mos_perception.motion.registration import Registration
from mos_perception.motion.transforms import Transform, TransformTree
from mos_perception.pipeline import Pipeline
from mos_perception.recording import messages
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.imu_messages import transforms
from mos_perception.replay import Replay, with_topics

EVENT, FRAME = (48, 64), (60, 80)
EVENT_CAMERA = Calibration(EVENT, (60.0, 61.0, 30.0, 25.0), (-0.2, 0.05, 0.001, -0.002), 'dvs')
FRAME_CAMERA = Calibration(FRAME, (70.0, 70.0, 41.0, 29.0), (0.05, -0.02, 0.0, 0.001), 'camera')
CAMERA_INFO = {'registration': 'camera_info', 'camera_info_topic': '/dvs/info',
               'image_camera_info_topic': '/camera/info'}
NONE: list = []


def on_every_pixel(size) -> Events:
    y, x = (side.ravel().astype(np.uint16) for side in np.mgrid[:size[0], :size[1]])
    return Events(x, y, (x % 2).astype(np.uint8), np.arange(len(x), dtype=np.int64))


def matrix(rotation=None, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = np.eye(3) if rotation is None else Rotation.from_rotvec(rotation).as_matrix()
    out[:3, 3] = shift
    return out


def check_table(table, places, known=None):
    """Every event is where OpenCV says, to the rounding, or out of the frame."""
    events = on_every_pixel(table.event_size)
    moved = table.apply(events)
    scale = np.array(table.size[::-1]) / np.array(table.frame_size[::-1])
    wanted = (places + 0.5) * scale - 0.5
    kept = moved.t
    assert np.abs(np.column_stack([moved.x, moved.y]) - wanted[kept]).max() < 0.53
    assert (moved.p == events.p[kept]).all() and (np.diff(kept) > 0).all()
    border = np.array(table.size[::-1]) - 1
    inside = ((wanted > 0.1) & (wanted < border - 0.1)).all(1)
    if known is not None:
        inside &= known
    assert set(np.flatnonzero(inside)) <= set(kept.tolist())


@given(turn=st.floats(-3.1, 3.1), zoom=st.floats(0.3, 3.0), x=st.floats(-20, 20),
       y=st.floats(-20, 20), tilt=st.floats(-2e-3, 2e-3), mirrored=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_homography_puts_events_where_opencv_does(turn, zoom, x, y, tilt, mirrored):
    middle = np.array([[1, 0, -31.5], [0, 1, -23.5], [0, 0, 1.0]])
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    there = np.array([[c, -s, 39.5 + x], [s, c, 29.5 + y], [tilt, 0, 1.0]])
    found = there @ np.diag([-1.0 if mirrored else 1.0, 1, 1]) @ middle
    table = pixel_table.from_homography(found, EVENT, FRAME)
    events = on_every_pixel(EVENT)
    points = np.column_stack([events.x, events.y]).astype(np.float64)[None]
    check_table(table, cv2.perspectiveTransform(points, found)[0])
    assert table.size[0] <= FRAME[0] and table.size[1] <= FRAME[1]


def test_one_and_the_same_view_changes_nothing():
    events = on_every_pixel(EVENT)
    for table in (pixel_table.from_homography(np.eye(3), EVENT, EVENT),
                  pixel_table.from_cameras(EVENT_CAMERA, EVENT_CAMERA, np.eye(4))):
        moved = table.apply(events)
        assert table.size == EVENT and table.share_inside == 1
        assert all((getattr(moved, name) == getattr(events, name)).all() for name in 'xypt')


def test_the_grid_is_as_coarse_as_the_event_camera():
    wide = pixel_table.from_homography(np.diag([2.5, 2.5, 1]), EVENT, (120, 160))
    assert wide.size == (48, 64) and wide.share_inside == 1
    assert np.mean(wide.cells != pixel_table.OUTSIDE) == len(np.unique(wide.cells)) / 48 / 64
    assert pixel_table.from_homography(np.diag([0.5, 0.5, 1]), EVENT, (24, 32)).size == (24, 32)


@pytest.mark.parametrize('plane_m', [0.0, 0.8, 3.0])
@pytest.mark.parametrize('rotation', [(0.0, 0.0, 0.05), (0.1, -0.08, 0.02)])
def test_two_cameras_agree_with_opencv(plane_m, rotation):
    to_frame = matrix(rotation, (0.05, -0.01, 0.02))
    table = pixel_table.from_cameras(EVENT_CAMERA, FRAME_CAMERA, to_frame, plane_m)
    events = on_every_pixel(EVENT)
    pixels = np.column_stack([events.x, events.y]).astype(np.float64)
    flat = cv2.undistortPoints(pixels[:, None], EVENT_CAMERA.matrix,
                               np.array(EVENT_CAMERA.distortion))[:, 0]
    rays = np.column_stack([flat, np.ones(len(flat))]) @ to_frame[:3, :3].T
    if plane_m:  # where the ray meets z = plane_m of the frame camera
        rays = to_frame[:3, 3] + rays * ((plane_m - to_frame[2, 3]) / rays[:, 2])[:, None]
    places = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), FRAME_CAMERA.matrix,
                               np.array(FRAME_CAMERA.distortion))[0][:, 0]
    check_table(table, places)
    assert 0.5 < table.share_inside <= 1


def test_cameras_that_look_elsewhere_are_refused():
    with pytest.raises(ConfigError, match='of the event camera.* pixels land in the frame'):
        pixel_table.from_cameras(EVENT_CAMERA, FRAME_CAMERA, matrix((0.0, 2.0, 0.0)))
    with pytest.raises(ConfigError, match='0.0% of the event'):
        pixel_table.from_homography(np.array([[1, 0, 500.0], [0, 1, 0], [0, 0, 1]]), EVENT, FRAME)


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 6), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_transforms_compose_as_scipy_does(parts):
    tree = TransformTree()
    steps = [matrix(part[:3], part[3:]) for part in parts]
    for (parent, child), step in zip((('base', 'mast'), ('mast', 'dvs'), ('base', 'camera')),
                                     steps):
        tree.add(Transform(parent, child, step))
    found = tree.between('dvs', 'camera')
    turns = [Rotation.from_rotvec(part[:3]) for part in parts]
    assert np.allclose(found[:3, :3], (turns[2].inv() * turns[0] * turns[1]).as_matrix())
    point = turns[0].apply(parts[1][3:]) + parts[0][3:]  # of the dvs in the base
    assert np.allclose(found[:3, 3], turns[2].inv().apply(point - np.array(parts[2][3:])))
    assert np.allclose(tree.between('camera', 'dvs') @ found, np.eye(4))


def test_frames_without_a_path_and_in_a_circle():
    tree = TransformTree()
    tree.add(Transform('a', 'b', np.eye(4)))
    tree.add(Transform('b', 'a', np.eye(4)))
    assert tree.between('a', 'c') is None and tree.between('a', 'b') is not None
    assert np.allclose(tree.between('x', 'x'), np.eye(4))


def tf_message(rotation=(0.0, 0.0, 0.0, 1.0), shift=(0.0, 0.0, 0.0)):
    return SimpleNamespace(transforms=[SimpleNamespace(
        header=SimpleNamespace(frame_id='/base'), child_frame_id='dvs',
        transform=SimpleNamespace(rotation=SimpleNamespace(**dict(zip('xyzw', rotation))),
                                  translation=SimpleNamespace(**dict(zip('xyz', shift)))))])


def test_transforms_are_read_and_bad_ones_refused():
    turn = Rotation.from_rotvec((0.3, -0.2, 0.9))
    (found,) = transforms(tf_message(turn.as_quat(), (1.0, 2.0, 3.0)))
    assert (found.parent, found.child) == ('base', 'dvs')
    assert np.allclose(found.matrix, matrix(turn.as_rotvec(), (1, 2, 3)))
    for bad in ({'rotation': (0.0, 0.0, 0.0, 0.0)}, {'shift': (np.nan, 0.0, 0.0)}):
        with pytest.raises(ImuError, match="'dvs' to '/base'"):
            transforms(tf_message(**bad))


def test_the_homography_file_round_trips(tmp_path):
    wanted = Homography(np.array([[1.25, -0.1, 7], [0.1, 1.25, 3], [1e-5, 0, 1]]), EVENT, FRAME)
    write_homography(tmp_path / 'new' / 'h.json', wanted, correlation=0.5)
    found = read_homography(tmp_path / 'new' / 'h.json')
    assert (found.matrix == wanted.matrix).all()
    assert (found.event_size, found.frame_size) == (EVENT, FRAME)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['h.json']


GOOD = {'event_size': [48, 64], 'frame_size': [60, 80], 'homography': np.eye(3).tolist()}


@pytest.mark.parametrize('text, says', [
    (None, 'cannot be read'), ('{', 'cannot be read'), ('[1]', 'must hold event_size'),
    (json.dumps({**GOOD, 'event_size': [48]}), 'must hold'),
    (json.dumps({**GOOD, 'frame_size': [0, 80]}), 'whole numbers'),
    (json.dumps({**GOOD, 'homography': [[1, 2], [3, 4]]}), '3 x 3'),
    (json.dumps({**GOOD, 'homography': np.zeros((3, 3)).tolist()}), 'singular'),
    (json.dumps(GOOD).replace('1.0', 'NaN', 1), '3 x 3 finite'),
])
def test_a_bad_homography_file_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / 'h.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        read_homography(path)
    assert str(path) in str(error.value)


@given(st.recursive(st.none() | st.floats() | st.integers() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=9))
@settings(max_examples=50, deadline=None)
def test_any_homography_file_is_taken_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / 'any.json'
    for name in GOOD:
        path.write_text(json.dumps({**GOOD, name: value}))
        try:
            assert np.isfinite(read_homography(path).matrix).all()
        except ConfigError as error:
            assert 'homography_file' in str(error)


@pytest.mark.parametrize('values, says', [
    ({'registration': 'homography'}, 'name homography_file'),
    ({'registration': 'homography', 'homography_file': 'h', 'imu_topic': '/imu',
      'camera_info_topic': '/i'}, 'imu_topic needs'),
    ({'registration': 'camera_info'}, "name both calibrations"),
    ({**CAMERA_INFO, 'image_camera_info_topic': '/dvs/info'}, 'name both calibrations'),
    ({**CAMERA_INFO, 'image_topic': ''}, 'name image_topic and events_topic'),
    ({**CAMERA_INFO, 'sync_policy': 'approximate'}, 'use sync_policy event_time'),
])
def test_parameters_that_contradict_each_other_are_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        Registration(Config(**values), Gyroscope())


def test_the_old_parameter_says_the_new_one():
    from mos_perception.config import from_dict
    with pytest.raises(ConfigError, match='same_view is called registration .true: scale. now'):
        from_dict({'same_view': True})


def refusal(registration, frame_size=FRAME, size=EVENT) -> str:
    events, _, skips = registration.apply(on_every_pixel(size), size, NONE, frame_size)
    assert len(events) == 0 and [skip.reason for skip in skips] == [SkipReason.UNREGISTERED]
    assert '\n' not in skips[0].detail
    return skips[0].detail


def test_missing_calibration_is_said_one_by_one():
    registration = Registration(Config(**CAMERA_INFO), Gyroscope())
    assert 'event camera yet: nothing usable on /dvs/info' in refusal(registration)
    registration.take(EVENT_CAMERA)
    assert 'frame camera yet: nothing usable on /camera/info' in refusal(registration)
    registration.take(FRAME_CAMERA, 'frames')
    assert "from frame 'dvs'" in refusal(registration) and '/tf_static' in refusal(registration)
    assert registration.report()['registration'] == refusal(registration)
    registration.take((Transform('camera', 'dvs', matrix((0, 0, 0.05), (0.1, 0, 0))),))
    events, size, skips = registration.apply(on_every_pixel(EVENT), EVENT, NONE, FRAME)
    told = registration.report()
    assert skips == [] and 0 < len(events) < 48 * 64 and size[0] <= FRAME[0]
    assert told['total events outside the frame'] == 48 * 64 - len(events)
    # 0.1 m x 70 px / 1 m
    assert told['registration'] == 'camera_info: baseline 100 mm, 7.0 px off at 1 m, plane at ' \
        'infinity'


def test_wrong_calibration_is_said():
    registration = Registration(Config(**CAMERA_INFO), Gyroscope())
    registration.take((Transform('camera', 'dvs', np.eye(4)),))
    registration.take(EVENT_CAMERA)
    registration.take(FRAME_CAMERA, 'frames')
    assert 'event camera is (24, 32)' in refusal(registration, size=(24, 32))
    assert 'frame is (30, 40)' in refusal(registration, frame_size=(30, 40))
    assert registration.apply(on_every_pixel(EVENT), EVENT, NONE, None)[2] == []
    registration.take((Transform('camera', 'dvs', matrix((0.0, 2.5, 0.0))),))
    assert 'pixels land in the frame' in refusal(registration)
    registration.take((Transform('camera', 'dvs', np.eye(4)),))
    assert registration.apply(on_every_pixel(EVENT), EVENT, NONE, FRAME)[2] == []


def test_the_gyroscope_follows_the_events_into_the_frame():
    """The event camera is mounted on its side: its turn to the right is one up or down there."""
    gyroscope = Gyroscope()
    registration = Registration(Config(**CAMERA_INFO), gyroscope)
    registration.take(Calibration((64, 64), (60.0, 60.0, 31.5, 31.5), (), 'dvs'))
    registration.take(Calibration((64, 64), (60.0, 60.0, 31.5, 31.5), (), 'camera'), 'frames')
    registration.take((Transform('camera', 'dvs', matrix((0, 0, np.pi / 2))),))
    for at in range(0, 60, 5):
        gyroscope.push(AngularVelocity(at * 1_000_000, (0.0, 0.4, 0.0)))
    motion = gyroscope.motion(10_000_000, 40_000_000, (64, 64))
    # y of the event camera is -x of the frame camera: w = (-0.4, 0, 0) there, and dX/dt = -w x X
    middle = motion.displacement[2, 2]
    assert middle[1] == pytest.approx(-60 * 0.4 * 0.03, rel=0.02) and abs(middle[0]) < 0.05


def packet(n: int, events: Events, size) -> EventPacket:
    base = int(events.t[0])
    return EventPacket(base, 'mono', *size, n, base,
                       np.frombuffer(encode_mono(events, base), np.uint8), 'dvs')


def test_the_pipeline_registers_before_anything_else(tmp_path, bright_model):
    """The event camera sees the frame upside down."""
    turned = np.array([[-1, 0, 63], [0, -1, 47], [0, 0, 1.0]])
    write_homography(tmp_path / 'h.json', Homography(turned, EVENT, EVENT))
    pipeline = Pipeline(Config(registration='homography',
                               homography_file=str(tmp_path / 'h.json')), bright_model)
    t = 1_000_000_000 + np.arange(40) * 1_000_000
    corner = np.full(40, 2, np.uint16)
    pipeline.push_packet(packet(0, Events(corner, corner, np.ones(40, np.uint8), t), EVENT))
    pipeline.push_frame(Frame(1_035_000_000, np.zeros((*EVENT, 3), np.uint8), 'camera'), 0)
    (result,) = [pipeline.process(sample) for sample in pipeline.ready(0)]
    assert set(result.window.events.x) == {61} and set(result.window.events.y) == {45}
    assert pipeline.status()['event pixels inside the frame'] == '100.0%'
    late = [packet(n, Events(corner, corner, np.ones(40, np.uint8), t + n * 40_000_000), EVENT)
            for n in range(1, 60)]  # frames are silent: answers stay in the frame camera's pixels
    alone = []
    for item in late:
        assert pipeline.push_packet(item) == []
        alone += pipeline.ready(3_000_000_000)
    assert alone and {sample.frame_id for sample in alone} == {'camera'}
    pipeline.reset()
    pipeline.push_frame(Frame(1_035_000_000, np.zeros((24, 32, 3), np.uint8)), 0)
    (skip,) = pipeline.push_packet(
        packet(0, Events(corner, corner, np.ones(40, np.uint8), t), EVENT))
    assert skip.reason is SkipReason.UNREGISTERED and 'frame is (24, 32)' in skip.detail


def camera_info_cdr(camera: Calibration) -> bytes:
    fx, fy, cx, cy = camera.intrinsics
    roi = messages.make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                        width=0, do_rectify=False)
    return messages.serialize(messages.CAMERA_INFO, messages.make(
        messages.CAMERA_INFO, header=messages.header(1_000_000_000, camera.frame_id),
        height=camera.size[0], width=camera.size[1], distortion_model='plumb_bob',
        d=np.array(camera.distortion), k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0, roi=roi))


def transforms_cdr(parent: str, child: str) -> bytes:
    make = messages.make
    turn = make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0)
    shift = make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
    item = make('geometry_msgs/msg/TransformStamped', header=messages.header(0, parent),
                child_frame_id=child, transform=make('geometry_msgs/msg/Transform',
                                                     rotation=turn, translation=shift))
    return messages.serialize(messages.TRANSFORMS, make(messages.TRANSFORMS, transforms=[item]))


@pytest.mark.parametrize('whole', [True, False])
def test_a_recording_with_both_calibrations(tmp_path, scene, bright_model, whole):
    scene(tmp_path / 'scene')
    frame = Calibration(EVENT, (60.0, 60.0, 31.5, 23.5), (), 'camera')
    event = Calibration(EVENT, (30.0, 30.0, 31.5, 23.5), (), 'dvs')
    start = 900_000_000
    with open_bag(tmp_path / 'scene') as bag, BagWriter(tmp_path / 'bag') as out:
        out.write_raw('/dvs/info', messages.CAMERA_INFO, start, camera_info_cdr(event))
        out.write_raw('/camera/info', messages.CAMERA_INFO, start, camera_info_cdr(frame))
        out.write_raw('/tf_static', messages.TRANSFORMS, start,
                      transforms_cdr('camera' if whole else 'base', 'dvs'))
        for item in bag.messages(['/camera/image_raw', '/events']):
            out.write_raw(item.topic, item.msgtype, item.receive_ns, item.data)
    with open_bag(tmp_path / 'bag') as bag:
        config = with_topics(bag, Config(**CAMERA_INFO))
        steps = list(Replay(bag, config, Pipeline(config, bright_model)))
    results = [step.outcome for step in steps if isinstance(step.outcome, Result)]
    reasons = {step.outcome.reason for step in steps if isinstance(step.outcome, Skip)}
    assert len(results) == 14
    if not whole:
        assert reasons == {SkipReason.UNREGISTERED}
        assert {result.degraded for result in results} == {'no events'}
        return
    # the event camera sees twice as far to each side: of its column 20 (2 * (20 - 31.5) + 31.5 = 8)
    assert not reasons and not results[0].degraded
    window = results[-1].window  # the square's edge stands at x = 20 of the event camera
    assert (window.height, window.width) == (24, 32) or (window.height, window.width) == EVENT
    x = (window.events.x.astype(float) + 0.5) * 64 / window.width - 0.5
    assert abs(np.median(x) - (2 * (20 - 31.5) + 31.5)) <= 1


def test_register_needs_frames_and_events(tmp_path, scene, capsys):
    out = tmp_path / 'out' / 'h.json'
    assert main(['register', str(scene(tmp_path / 'a', events=False)), '--out', str(out)]) == 1
    assert 'has no frames or no events' in capsys.readouterr().err
    assert main(['register', str(scene(tmp_path / 'b')), '--out', str(out)]) == 1
    error = capsys.readouterr().err
    assert 'could not be aligned' in error and error.count('\n') == 1 and not out.parent.exists()


def test_unrelated_pictures_are_not_aligned():
    rng = np.random.default_rng(0)
    pictures = [[cv2.GaussianBlur(rng.standard_normal(size).astype(np.float32), (0, 0), 1.5)
                 for _ in range(3)] for size in ((60, 80), (72, 96))]
    with pytest.raises(SyncError, match='correlation 0.* record 10 s'):
        align(*pictures)
