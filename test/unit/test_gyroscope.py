"""The scene's motion by a gyroscope, against scipy's rotations and OpenCV's projection."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mos_perception.config import Config
from mos_perception.datatypes import SkipReason
from mos_perception.errors import ConfigError
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.contrast import SampledEvents, contrast, sampled
from mos_perception.motion.event_compensation import node_count
from mos_perception.motion.gyroscope import (
    MAX_GAP_NS,
    MAX_LAG_NS,
    AngularVelocity,
    Gyroscope,
    rotation_of,
    scene_rotation,
)

MS = 1_000_000
T0 = 1_700_000_000_000_000_000  # as real stamps are: seconds in float64 would lose 100 ns
SIZE = (180, 240)
DAVIS = Calibration(SIZE, (199.09, 198.83, 132.19, 110.71),
                    (-0.368436, 0.150947, -0.000296, -0.000759, 0.0))
PINHOLE = Calibration(SIZE, (200.0, 200.0, 119.5, 89.5))


def gyroscope(rate, calibration=PINHOLE, first_ms=-10, last_ms=120, step_ms=2.0,
              quaternion='0 0 0 1'):
    """Fed with `rate(seconds from T0) -> (3,) rad/s`."""
    found = Gyroscope(rotation_of(quaternion))
    assert found.calibrate(calibration) == []
    for at_ms in np.arange(first_ms, last_ms + step_ms / 2, step_ms):
        value = tuple(float(part) for part in rate(at_ms * 1e-3))
        assert found.push(AngularVelocity(T0 + round(at_ms * MS), value)) == []
    return found


def steady(*rad_s):
    return lambda seconds: rad_s


def displacement_at(motion, pixels):
    """(N, 2) px, bilinear between the nodes, by scipy."""
    from scipy.ndimage import map_coordinates
    places = pixels[:, ::-1].T / 16
    return np.stack([map_coordinates(motion.displacement[..., k], places, order=1)
                     for k in (0, 1)], 1)


def seen(points, orientation, calibration):
    """(N, 2) pixels of world points by a camera at the origin; `orientation` camera -> world."""
    rotation = orientation.inv()
    return cv2.projectPoints(points, rotation.as_rotvec(), np.zeros(3), calibration.matrix,
                             np.array(calibration.distortion))[0].reshape(-1, 2)


def inside(pixels):
    return ((pixels >= 0) & (pixels <= np.array(SIZE[::-1]) - 1)).all(1)


def orientations(rate, end_s, steps=2000):
    """Of the camera at 0 and at `end_s`: body rates integrated finely by scipy."""
    dt = end_s / steps
    increments = Rotation.from_rotvec([np.multiply(rate((n + 0.5) * dt), dt)
                                       for n in range(steps)])
    now = Rotation.identity()
    for n in range(steps):
        now = now * increments[n]
    return Rotation.identity(), now


RATES = st.tuples(*[st.floats(-3, 3)] * 3)


@settings(max_examples=20)
@given(RATES, RATES, st.sampled_from([PINHOLE, DAVIS]))
def test_known_points_move_as_said(start, change, calibration):
    """A rate that changes steadily over 33 ms, and points of a world at rest."""
    def rate(seconds):
        return np.array(start) + np.array(change) * seconds * 20

    motion = gyroscope(rate, calibration).motion(T0, T0 + 33 * MS, SIZE)
    before, after = orientations(rate, 0.033)
    points = np.random.default_rng(0).uniform([-3, -2, 4], [3, 2, 5], (400, 3))
    first, last = (seen(points, one, calibration) for one in (before, after))
    in_view = inside(first) & inside(last)
    assert in_view.sum() > 30 and motion.displacement.shape == (*node_count(SIZE), 2)
    assert (motion.t_ns, motion.span_ns) == (T0 + 33 * MS, 33 * MS)
    # between two nodes the field is bent, through a lens at 7 rad/s by more than without one
    wanted = (last - first)[in_view]
    off = np.abs(displacement_at(motion, first[in_view]) - wanted).max(1)
    assert (off <= 0.15 + 0.02 * np.linalg.norm(wanted, axis=1)).all()


def test_signs_by_hand():
    """Turned to the right the scene goes left, up it goes down, clockwise it goes round."""
    centre = np.array([[119.5, 89.5], [219.5, 89.5]])

    def moved(*rad_s):
        motion = gyroscope(steady(*rad_s)).motion(T0, T0 + 100 * MS, SIZE)
        return displacement_at(motion, centre)

    np.testing.assert_allclose(moved(0, 0.1, 0)[0], [-2, 0], atol=0.05)  # f w t = 200 * .1 * .1
    np.testing.assert_allclose(moved(0.1, 0, 0)[0], [0, 2], atol=0.05)
    np.testing.assert_allclose(moved(0, 0, 0.1)[1], [0, -1], atol=0.05)  # the right side goes up


def test_the_imu_may_be_turned_against_the_camera():
    """A body frame, x ahead, y left, z up: a turn to the left (z) moves the scene to the right."""
    optical = Rotation.from_matrix([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    quaternion = ' '.join(map(str, optical.as_quat()))
    motion = gyroscope(steady(0, 0, 0.1), quaternion=quaternion).motion(T0, T0 + 100 * MS, SIZE)
    found = displacement_at(motion, np.array([[119.5, 89.5]]))
    np.testing.assert_allclose(found, [[2, 0]], atol=0.05)


@settings(max_examples=50)
@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternions_are_those_of_scipy(values):
    unit = np.array(values) / np.linalg.norm(values)
    np.testing.assert_allclose(rotation_of(' '.join(map(repr, unit.tolist()))),
                               Rotation.from_quat(unit).as_matrix(), atol=1e-12)


@pytest.mark.parametrize('text', ['', '0 0 0', '0 0 0 1 0', '0 0 0 x', '0 0 0 0', '0 0 0 2',
                                  'nan 0 0 1', 'inf 0 0 1'])
def test_bad_quaternions_are_refused(text):
    with pytest.raises(ConfigError, match='imu_to_camera_rotation is .*must be'):
        Gyroscope.of(Config(imu_to_camera_rotation=text))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 25 * MS), min_size=8, max_size=60), RATES, st.integers(0, 2 ** 31))
def test_the_rotation_is_that_of_its_parts(gaps, scale, seed):
    """Whatever the samples' times: over [a, c] it is over [a, b], then over [b, c]; and a
    rotation.
    """
    rng = np.random.default_rng(seed)
    times = np.cumsum(gaps)
    rad_s = rng.normal(size=(len(times), 3)) * scale
    a, b, c = np.sort(rng.integers(times[0], times[-1] + 1, 3))
    whole = scene_rotation(times, rad_s, a, c)
    parts = scene_rotation(times, rad_s, b, c) @ scene_rotation(times, rad_s, a, b)
    np.testing.assert_allclose(whole, parts, atol=2e-4)
    np.testing.assert_allclose(whole @ whole.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(whole) > 0


def unknown(found, t0_ms=0, t1_ms=33, size=SIZE):
    assert found.motion(T0 + t0_ms * MS, T0 + t1_ms * MS, size) is None
    (reason,) = [name for name in found.report() if 'unknown' in name]
    return reason.removeprefix('gyroscope unknown: ')


def test_what_is_not_known_is_counted():
    turning = steady(0, 1, 0)
    assert unknown(Gyroscope()) == 'no calibration'
    assert unknown(gyroscope(turning), size=(90, 120)) == 'calibration of another sensor size'
    assert unknown(gyroscope(turning, last_ms=32)) == 'samples late'
    assert unknown(gyroscope(turning, first_ms=2)) == 'gap in the samples'
    assert unknown(gyroscope(turning, step_ms=31)) == 'gap in the samples'
    empty = gyroscope(turning)
    empty.reset()
    assert empty.last_ns is None and unknown(empty) == 'samples late'
    fast = gyroscope(steady(0, 40, 0))
    assert unknown(fast) == 'beyond the lens'
    assert fast.motion(T0, T0 + MS, SIZE) is not None
    assert fast.report() == {'gyroscope unknown: beyond the lens': 1, 'gyroscope windows': 1}


def test_samples_may_be_as_far_apart_as_the_limit():
    found = gyroscope(steady(0, 1, 0), step_ms=MAX_GAP_NS / MS)
    assert found.motion(T0, T0 + 80 * MS, SIZE) is not None


def test_one_motion_whatever_the_rate_of_the_samples():
    slow, fast = (gyroscope(steady(.3, -.2, .5), step_ms=step) for step in (10.0, 1.0))
    windows = T0 + 3 * MS, T0 + 51 * MS
    np.testing.assert_allclose(*(one.motion(*windows, SIZE).displacement for one in (slow, fast)),
                               atol=1e-4)


def test_stamps_move_forward():
    found = gyroscope(steady(0, 0, 0), last_ms=0)
    assert [skip.reason for at in (0, -1) for skip in
            found.push(AngularVelocity(T0 + at * MS, (0.0, 0.0, 0.0)))] == [
        SkipReason.DUPLICATE, SkipReason.OUT_OF_ORDER]


def test_who_is_waited_for():
    found = gyroscope(steady(0, 0, 0), last_ms=0)
    assert not Gyroscope().behind(T0, T0) and not found.behind(T0, T0 + MS)
    assert found.behind(T0 + 5 * MS, T0 + 5 * MS)
    assert not found.behind(T0 + 5 * MS, T0 + MAX_LAG_NS + MS)  # silent


def test_a_lens_that_turns_back_inside_of_the_sensor_is_refused():
    """r (1 - k r^2) has its greatest value at r = .91, inside of the corners."""
    found = Gyroscope()
    wide = Calibration(SIZE, (120.0, 120.0, 119.5, 89.5), (-0.4, 0.0, 0.0, 0.0))
    for _ in range(2):
        (skip,) = found.calibrate(wide)
        assert skip.reason is SkipReason.BAD_CAMERA_INFO and 'pixel (0, 0)' in skip.detail
    assert unknown(found) == 'no calibration'
    assert found.calibrate(DAVIS) == []


def test_a_lens_that_turns_back_beyond_the_sensor_is_taken():
    """The nodes outside of it move as its edge does; inside it is right."""
    calibration = Calibration(SIZE, (266.0, 266.0, 119.5, 89.5), (-0.4, 0.0, 0.0, 0.0))
    found = gyroscope(steady(0.2, -0.3, 0.4), calibration)
    assert not calibration.unproject(np.array([[-20.0, -20.0], [260.0, 200.0]]))[1].any()
    motion = found.motion(T0, T0 + 20 * MS, SIZE)
    before, after = orientations(steady(0.2, -0.3, 0.4), 0.02, 50)
    points = np.random.default_rng(0).uniform([-.5, -.4, 1], [.5, .4, 1.2], (200, 3))
    first, last = (seen(points, one, calibration) for one in (before, after))
    first, last = first[inside(first)], last[inside(first)]
    np.testing.assert_allclose(displacement_at(motion, first), last - first, atol=0.2)


@settings(max_examples=40)
@given(st.floats(-.4, .4), st.floats(-.1, .2), st.floats(-.01, .01), st.floats(-.01, .01),
       st.integers(0, 2 ** 31))
def test_pixels_and_rays_are_each_others_inverse(k1, k2, p1, p2, seed):
    calibration = Calibration(SIZE, (200.0, 190.0, 121.0, 88.0), (k1, k2, p1, p2, 0.0))
    pixels = np.random.default_rng(seed).uniform((0, 0), SIZE[::-1], (100, 2))
    rays, good = calibration.unproject(pixels)
    assert good.mean() > 0.8
    again = cv2.projectPoints(rays[good], np.zeros(3), np.zeros(3), calibration.matrix,
                              np.array(calibration.distortion))[0].reshape(-1, 2)
    np.testing.assert_allclose(again, pixels[good], atol=2e-3)
    there, trusted = calibration.project(rays[good] * 7)
    np.testing.assert_allclose(there, pixels[good], atol=2e-3)
    assert trusted.all() and not calibration.project(-rays)[1].any()


@pytest.mark.parametrize('changes, says', [
    ({'events_topic': ''}, 'name events_topic'),
    ({'camera_info_topic': ''}, 'camera_info_topic'),
    ({'sync_policy': 'approximate'}, 'sync_policy event_time')])
def test_parameters_must_agree(changes, says):
    values = {'imu_topic': '/imu', 'camera_info_topic': '/camera_info', **changes}
    with pytest.raises(ConfigError, match=says):
        Gyroscope.of(Config(**values))


def moved(events, motion, forward):
    """Events brought to the window's end along `motion`, or the other way."""
    rows, columns = events.pixels()
    nodes = motion.displacement
    x, y = (cv2.remap(nodes[..., k], (columns / 16).astype(np.float32)[:, None],
                      (rows / 16).astype(np.float32)[:, None], cv2.INTER_LINEAR)[:, 0]
            for k in (0, 1))
    left = (events.age + 0.5) * (1 if forward else -1)  # age: -1/2 at the window's end
    return SampledEvents((events.x + left * x).astype(np.float32),
                         (events.y + left * y).astype(np.float32), events.age, events.p,
                         events.size)


def test_real_events_get_sharp_with_the_right_sign(data_dir, capsys):
    """shapes_rotation: its angular velocity and calibration are those of the recording."""
    folder = data_dir / 'events' / 'static_scene' / 'shapes_rotation'
    if not folder.is_dir():
        pytest.skip(f'no recording at {folder}')
    from training.evaluate_static import read_recordings
    recording = next(one for one in read_recordings(folder.parent)
                     if one.name == 'shapes_rotation')
    window = next(recording.windows())
    numbers = np.loadtxt(folder / 'calib.txt').tolist()
    found = Gyroscope()
    assert found.calibrate(Calibration(SIZE, tuple(numbers[:4]), tuple(numbers[4:]))) == []
    omega = tuple(np.loadtxt(folder / 'motion.txt').tolist())
    for t in np.linspace(window.t0_ns, window.t1_ns, 20).astype(int).tolist():
        found.push(AngularVelocity(t, omega))
    motion = found.motion(window.t0_ns, window.t1_ns, SIZE)
    events, zero = sampled(window), np.zeros(4)
    still, right, wrong = (contrast(one, zero, 1.0) for one in (
        events, moved(events, motion, True), moved(events, motion, False)))
    with capsys.disabled():
        print(f'\nshapes_rotation, {(window.t1_ns - window.t0_ns) * 1e-6:.1f} ms: contrast '
              f'{still:.2f} untouched, {right:.2f} compensated, {wrong:.2f} with the wrong sign')
    assert right > 1.5 * still and wrong < still
