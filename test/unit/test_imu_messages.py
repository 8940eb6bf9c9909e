"""sensor_msgs/Imu and CameraInfo: from a recording to the motion of its events; what is refused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.config import Config
from mos_perception.datatypes import Result, Skip, SkipReason
from mos_perception.errors import BagError, ImuError
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.gyroscope import AngularVelocity
from mos_perception.pipeline import Pipeline
from mos_perception.recording import messages
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.imu_messages import angular_velocity, calibration
from mos_perception.replay import Replay, with_topics

MS = 1_000_000
START = 1_000_000_000  # of the scene's bag
TOPICS = {'imu_topic': '/imu', 'camera_info_topic': '/camera_info'}


def imu(stamp_ns: int, rad_s=(0.0, 0.0, 0.0), covariance=0.0) -> bytes:
    def vector(x=0.0, y=0.0, z=0.0):
        return messages.make('geometry_msgs/msg/Vector3', x=x, y=y, z=z)

    zeros = np.zeros(9)
    orientation = messages.make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0)
    return messages.serialize(messages.IMU, messages.make(
        messages.IMU, header=messages.header(stamp_ns, 'imu'), orientation=orientation,
        orientation_covariance=zeros, angular_velocity=vector(*rad_s),
        angular_velocity_covariance=np.array([covariance, *zeros[1:]]),
        linear_acceleration=vector(), linear_acceleration_covariance=zeros))


def camera_info(**changes) -> SimpleNamespace:
    values = {'header': SimpleNamespace(frame_id='camera'), 'height': 48, 'width': 64,
              'distortion_model': 'plumb_bob', 'd': [.1, 0, 0, 0, 0.],
              'k': [60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1], 'binning_x': 0, 'binning_y': 0,
              'roi': SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)}
    return SimpleNamespace(**{**values, **changes})


def camera_info_cdr() -> bytes:
    values = {**vars(camera_info()), 'header': messages.header(START, 'camera'), 'r': np.eye(3),
              'p': np.zeros(12)}
    values['roi'] = messages.make('sensor_msgs/msg/RegionOfInterest', **vars(values['roi']))
    for name in 'dkrp':
        values[name] = np.ravel(values[name]).astype(np.float64)
    return messages.serialize(messages.CAMERA_INFO, messages.make(messages.CAMERA_INFO, **values))


def with_imu(path, scene, period_ms=5, until_ms=500, loops=1):
    """The scene's bag with a camera that turns to the right, calibrated."""
    scene(path.parent / 'scene')
    with open_bag(path.parent / 'scene') as bag:
        items = [(item.receive_ns, item.topic, item.msgtype, item.data)
                 for item in bag.messages(['/camera/image_raw', '/events'])]
    items.append((START - 50 * MS, '/camera_info', messages.CAMERA_INFO, camera_info_cdr()))
    items += [(START + at * MS + MS, '/imu', messages.IMU, imu(START + at * MS, (0.0, 0.5, 0.0)))
              for at in range(-50, until_ms, period_ms)]
    with BagWriter(path) as out:
        for loop in range(loops):
            for receive_ns, *item in sorted(items):
                out.write_raw(*item[:2], receive_ns + loop * 1000 * MS, item[2])
    return path


def steps(path, model, **changes):
    with open_bag(path) as bag:
        config = with_topics(bag, Config(**{**TOPICS, **changes}))
        run = Replay(bag, config, Pipeline(config, model))
        return list(run), run


def test_a_recording_gives_the_motion_of_every_window(tmp_path, scene, bright_model):
    found, run = steps(with_imu(tmp_path / 'bag', scene), bright_model)
    assert [type(step.outcome) for step in found] == [Result] * 14
    assert run.pipeline.status()['gyroscope windows'] == 14
    for step in found:
        motion = step.sample.event_motion
        assert (motion.t_ns, motion.span_ns) == (step.sample.stamp_ns, 33 * MS)
        # f w t = 60 * .5 * .033 to the left in the middle
        np.testing.assert_allclose(motion.displacement[1, 2], [-0.99, 0], atol=0.03)


def test_the_gyroscope_is_off_by_default(tmp_path, scene, bright_model):
    found, run = steps(with_imu(tmp_path / 'bag', scene), bright_model, imu_topic='',
                       camera_info_topic='')
    assert {step.sample.event_motion for step in found} == {None}
    assert not run.pipeline.gyroscope.report()


def test_a_sparse_or_ended_gyroscope_costs_no_frame(tmp_path, scene, bright_model):
    found, run = steps(with_imu(tmp_path / 'bag', scene, period_ms=40), bright_model)
    assert len(found) == 14
    assert run.pipeline.gyroscope.report() == {'gyroscope unknown: gap in the samples': 14}
    (tmp_path / 'second').mkdir()
    found, run = steps(with_imu(tmp_path / 'second' / 'bag', scene, until_ms=100), bright_model)
    assert len(found) == 14 and not any(step.outcome.degraded for step in found[:-1])
    assert run.pipeline.gyroscope.report() == {'gyroscope unknown: samples late': 11,
                                               'gyroscope windows': 3}


def test_a_loop_starts_anew(tmp_path, scene, bright_model):
    found, run = steps(with_imu(tmp_path / 'bag', scene, loops=2), bright_model)
    results = [step.outcome for step in found if isinstance(step.outcome, Result)]
    assert len({result.epoch for result in results}) > 1
    assert run.pipeline.gyroscope.report()['gyroscope windows'] >= 25
    assert run.pipeline.gyroscope.last_ns == START + 495 * MS


def test_a_topic_that_is_not_there_is_an_error(tmp_path, scene, bright_model):
    with pytest.raises(BagError, match='no topic /gyro'):
        steps(with_imu(tmp_path / 'bag', scene), bright_model, imu_topic='/gyro')


def test_bad_messages_are_counted(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_raw('/imu', messages.IMU, 1, imu(1, covariance=-1.0))
        bag.write_raw('/imu', messages.IMU, 2, imu(2, (0.0, float('nan'), 0.0)))
        bag.write_raw('/imu', messages.IMU, 3, imu(3)[:100])
        bag.write_raw('/imu', messages.IMU, 4, imu(4, (1.0, 2.0, 3.0)))
        bag.write_raw('/camera_info', messages.CAMERA_INFO, 5, camera_info_cdr()[:60])
        bag.write_raw('/camera_info', messages.CAMERA_INFO, 6, camera_info_cdr())
    with open_bag(tmp_path / 'bag') as bag:
        values = [value for _, value in bag.items(['/imu', '/camera_info'])]
    assert [value.reason for value in values if isinstance(value, Skip)] == [
        *[SkipReason.BAD_IMU] * 3, SkipReason.BAD_CAMERA_INFO]
    assert values[3] == AngularVelocity(4, (1.0, 2.0, 3.0))
    assert values[5] == Calibration((48, 64), (60.0, 60.0, 31.5, 23.5), (.1, 0.0, 0.0, 0.0, 0.0),
                                    'camera')
    assert 'covariance' in values[0].detail and 'finite' in values[1].detail


@pytest.mark.parametrize('changes, says', [
    ({'distortion_model': 'equidistant', 'd': [0.0] * 4}, 'must be plumb_bob'),
    ({'d': [0.0] * 3}, 'has 3 distortion coefficients'),
    ({'distortion_model': ''}, 'has 5 distortion coefficients'),
    ({'k': [0.0] * 9}, 'calibrate the camera'),
    ({'k': [60.0, 1.0, 31, 0, 60, 23, 0, 0, 1]}, 'calibrate the camera'),
    ({'k': [60.0, 0, float('nan'), 0, 60, 23, 0, 0, 1]}, 'must be finite'),
    ({'height': 0}, 'calibrate the camera'),
    ({'binning_x': 2}, 'binned'),
    ({'roi': SimpleNamespace(x_offset=4, y_offset=0, height=48, width=60)}, 'region of interest'),
])
def test_calibrations_that_are_none_are_refused(changes, says):
    with pytest.raises(ImuError, match=says):
        calibration(camera_info(**changes))


def test_calibrations_that_are_one_are_taken():
    whole = SimpleNamespace(x_offset=0, y_offset=0, height=48, width=64)
    for changes in ({}, {'roi': whole}, {'binning_x': 1}, {'distortion_model': '', 'd': []},
                    {'d': [0.1] * 4}, {'distortion_model': 'rational_polynomial', 'd': [0.0] * 8}):
        found = calibration(camera_info(**changes))
        assert found.distortion == tuple(changes.get('d', camera_info().d))
        assert dataclasses.replace(found, distortion=(), frame_id='') == Calibration(
            (48, 64), (60.0, 60.0, 31.5, 23.5))


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS, min_size=9, max_size=9), st.lists(FLOATS, max_size=9),
       st.sampled_from(['plumb_bob', 'rational_polynomial', '', 'x']), st.integers(0, 5),
       st.integers(0, 5))
def test_any_calibration_is_taken_or_refused(k, d, model, height, width):
    try:
        found = calibration(camera_info(k=k, d=d, distortion_model=model, height=height,
                                        width=width))
    except ImuError:
        return
    assert np.isfinite([*found.intrinsics, *found.distortion]).all() and min(found.size) > 0


@given(FLOATS, FLOATS, FLOATS, st.sampled_from([0.0, -1.0]))
def test_any_rate_is_taken_or_refused(x, y, z, covariance):
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2)),
        angular_velocity=SimpleNamespace(x=x, y=y, z=z),
        angular_velocity_covariance=[covariance] + [0.0] * 8)
    try:
        assert angular_velocity(message) == AngularVelocity(1_000_000_002, (x, y, z))
    except ImuError:
        assert covariance == -1 or not np.isfinite([x, y, z]).all()
