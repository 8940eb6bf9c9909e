"""A gyroscope over real DDS: its rotation is with the events of each frame."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Imu

from mos_perception.ros import convert, qos

MS = 1_000_000
TOPICS = {'imu_topic': '/imu', 'camera_info_topic': '/camera_info'}


class Turning:
    """Publishers of a gyroscope that turns to the right and of a calibration."""

    def __init__(self, bench):
        self.bench = bench
        self.imu = bench.client.create_publisher(Imu, '/imu', qos.playback(200))
        self.info = bench.client.create_publisher(CameraInfo, '/camera_info', qos.playback(5))
        assert bench.wait(lambda: self.imu.get_subscription_count()
                          and self.info.get_subscription_count())
        assert bench.wait(lambda: all(
            item.get_publisher_count() for item in bench.node.subscriptions
            if item.topic_name in ('/imu', '/camera_info')))
        self.samples = []
        real = bench.node.pipeline.process
        bench.node.pipeline.process = lambda sample: (self.samples.append(sample), real(sample))[1]

    def calibrate(self, **changes):
        values = {'height': self.bench.HEIGHT, 'width': self.bench.WIDTH,
                  'distortion_model': 'plumb_bob', 'd': [-0.1, 0.0, 0.0, 0.0, 0.0],
                  'k': [150.0, 0, 79.5, 0, 150.0, 59.5, 0, 0, 1]}
        self.info.publish(CameraInfo(**{**values, **changes}))

    def turn(self, n: int):
        """Samples of every 3 ms up to the stamp of frame n, from the frame before on."""
        end = self.bench.START_NS + (n + 1) * self.bench.FRAME_NS
        for stamp in range(end - 30 * MS, end + 1, 3 * MS):
            message = Imu()
            message.header.stamp = convert.to_stamp(stamp)
            message.angular_velocity.y = 0.4
            self.imu.publish(message)


def test_the_rotation_comes_with_the_events(rig):
    bench = rig(deadline_s=10.0, **TOPICS)
    turning, reports = Turning(bench), []
    bench.client.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)
    turning.calibrate()
    assert bench.wait(lambda: bench.counts().get('camera_info') == 1)
    turning.turn(-1)  # a gyroscope that is there is waited for
    assert bench.wait(lambda: bench.counts().get('imu') == 11)
    for n in range(2):
        bench.send(n)
        assert bench.wait(lambda: bench.counts().get('frames') == n + 1)
        turning.turn(n)
        assert bench.wait_results(n + 1), bench.counts()
    motion = turning.samples[1].event_motion
    assert motion.t_ns == bench.START_NS + 2 * bench.FRAME_NS
    middle = motion.displacement[4, 5]
    assert middle[0] == pytest.approx(-150 * 0.4 * motion.span_ns * 1e-9, rel=0.05)
    assert abs(middle[1]) < 0.05

    def values() -> dict[str, str]:
        return {item.key: item.value for item in reports[-1].status[0].values}
    # the first report knows no rate yet
    assert bench.wait(lambda: reports and 'imu Hz' in values())
    assert values()['gyroscope windows'] == '2' and values()['total imu'] == '33'


def test_without_samples_frames_are_answered_and_the_node_says_so(rig):
    bench = rig(stale_after_s=0.5, **TOPICS)
    turning = Turning(bench)
    turning.calibrate()
    assert bench.wait(lambda: bench.counts().get('camera_info') == 1)
    bench.send(0)
    assert bench.wait_results(1) and turning.samples[0].event_motion is None
    assert bench.node.pipeline.gyroscope.report() == {'gyroscope unknown: samples late': 1}
    state, reason = bench.node.monitor.state(time.monotonic_ns())
    assert state.value != 'OK' and '/imu' in reason


def test_bad_messages_are_counted_and_the_node_lives(rig):
    bench = rig(**TOPICS)
    turning = Turning(bench)
    turning.calibrate(distortion_model='equidistant')
    turning.calibrate(d=[-3.0, 0.0, 0.0, 0.0, 0.0])
    bad = Imu()
    bad.angular_velocity.x = float('nan')
    turning.imu.publish(bad)
    assert bench.wait(lambda: bench.counts().get('bad_camera_info') == 2
                      and bench.counts().get('bad_imu') == 1), bench.counts()
    bench.send(0)
    assert bench.wait_results(1)


@pytest.mark.parametrize('changes', [{'imu_to_camera_rotation': '0 0 0 2'},
                                     {'camera_info_topic': ''}])
def test_parameters_that_cannot_work_fail_at_configure(rig, changes):
    bench = rig(activate=False, **{**TOPICS, **changes})
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
