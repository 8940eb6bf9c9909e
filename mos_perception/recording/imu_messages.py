"""What a gyroscope, a camera's calibration and `/tf_static` say, from messages of rclpy and of bags
alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.errors import ImuError
from mos_perception.motion.calibration import Calibration
from mos_perception.motion.gyroscope import UNIT_TOLERANCE, AngularVelocity
from mos_perception.motion.transforms import Transform, rotation_matrix

# distortion models of sensor_msgs that OpenCV's functions take -> how many coefficients
MODELS = {'plumb_bob': (4, 5), 'rational_polynomial': (8,), '': (0,)}


def angular_velocity(message: Any) -> AngularVelocity:
    """Of a sensor_msgs/Imu. Raises ImuError where it holds none."""
    stamp, rate = message.header.stamp, message.angular_velocity
    if message.angular_velocity_covariance[0] == -1:
        raise ImuError('imu message says that it holds no angular velocity (its covariance begins '
                       'with -1): use a topic with a gyroscope')
    if not np.isfinite([rate.x, rate.y, rate.z]).all():
        raise ImuError(f'angular velocity is ({rate.x}, {rate.y}, {rate.z}): must be finite')
    return AngularVelocity(stamp.sec * 10**9 + stamp.nanosec, (rate.x, rate.y, rate.z))


def calibration(message: Any) -> Calibration:
    """Of a sensor_msgs/CameraInfo. Raises ImuError where it is none for whole, unbinned images."""
    size, matrix = (int(message.height), int(message.width)), np.asarray(message.k, np.float64)
    distortion = np.asarray(message.d, np.float64)
    if message.distortion_model not in MODELS:
        raise ImuError(f'distortion model is {message.distortion_model!r}: must be plumb_bob or '
                       'rational_polynomial; calibrate with one of them')
    if len(distortion) not in (0, *MODELS[message.distortion_model]):
        raise ImuError(f'{message.distortion_model!r} has {len(distortion)} distortion '
                       f'coefficients: must be {" or ".join(map(str, MODELS["plumb_bob"]))} for '
                       'plumb_bob, 8 for rational_polynomial, or none')
    fx, skew, cx, _, fy, cy = matrix[:6]
    good = np.isfinite(matrix).all() and np.isfinite(distortion).all() and min(size) > 0
    if not good or fx <= 0 or fy <= 0 or skew or matrix[[3, 6, 7]].any():
        raise ImuError(f'camera info of a {size} (height, width) sensor has k {matrix.tolist()}, '
                       f'd {distortion.tolist()}: must be finite, fx 0 cx 0 fy cy 0 0 1 with '
                       'fx and fy above 0; calibrate the camera')
    roi = message.roi
    part = (roi.height, roi.width) not in ((0, 0), size) or roi.x_offset or roi.y_offset
    if part or message.binning_x > 1 or message.binning_y > 1:
        raise ImuError('camera info is of a region of interest or of binned pixels: publish that '
                       'of the whole sensor')
    return Calibration(size, (float(fx), float(fy), float(cx), float(cy)),
                       tuple(distortion.tolist()), message.header.frame_id.lstrip('/'))


def transforms(message: Any) -> tuple[Transform, ...]:
    """Of a tf2_msgs/TFMessage. Raises ImuError where one is no rigid transform."""
    found = []
    for item in message.transforms:
        rotation, shift = item.transform.rotation, item.transform.translation
        turn = np.array([rotation.x, rotation.y, rotation.z, rotation.w])
        matrix, length = np.eye(4), float(np.linalg.norm(turn))
        matrix[:3, 3] = shift.x, shift.y, shift.z
        if not (np.isfinite(matrix).all() and abs(length - 1) <= UNIT_TOLERANCE):
            raise ImuError(
                f'transform of {item.child_frame_id!r} to {item.header.frame_id!r} has rotation '
                f'{turn.tolist()}, translation {matrix[:3, 3].tolist()}: must be a quaternion of '
                'length 1 and finite metres; correct its publisher')
        matrix[:3, :3] = rotation_matrix(*(turn / length))
        found.append(Transform(item.header.frame_id.lstrip('/'), item.child_frame_id.lstrip('/'),
                               matrix))
    return tuple(found)
