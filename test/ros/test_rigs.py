"""Over real DDS: compressed frames, two calibrated cameras and `/tf_static`, vision_msgs out."""

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage

from mos_perception.ros import convert, qos

GOOD = TransitionCallbackReturn.SUCCESS
CALIBRATED = {'registration': 'camera_info', 'camera_info_topic': '/dvs/info',
              'image_camera_info_topic': '/camera/info'}


def start(bench):
    """Configure and activate, without the rig's own publisher of frames."""
    assert bench.node.trigger_configure() == GOOD and bench.node.trigger_activate() == GOOD


def test_compressed_frames_are_decoded_in_the_node(rig):
    bench = rig(activate=False, image_type='compressed', image_topic='/image/compressed')
    start(bench)
    frames = bench.client.create_publisher(CompressedImage, '/image/compressed', qos.playback(10))
    assert bench.wait(lambda: frames.get_subscription_count()
                      and bench.packets.get_subscription_count()
                      and bench.node._outputs['instances'].get_subscription_count())
    raw = bench.image(bench.START_NS + bench.FRAME_NS, 24)
    rgb = convert.frame(raw).image
    message = CompressedImage(header=raw.header, format='rgb8; png compressed bgr8')
    message.data = convert.to_bytes(cv2.imencode('.png', rgb[..., ::-1])[1])
    bad = CompressedImage(header=raw.header, format='jpeg', data=convert.to_bytes(bytes(50)))
    assert bench.wait(lambda: any(item.get_publisher_count() for item in bench.node.subscriptions
                                  if item.topic_name == '/image/compressed'))
    frames.publish(bad)
    assert bench.wait(lambda: bench.counts().get('bad_frame') == 1)
    bench.send(0, frame=False)
    frames.publish(message)
    assert bench.wait_results(1), bench.counts()
    found = bench.square(bench.got['instances'][0])
    assert list(found.box) == [24, 40, 64, 80]
    assert bench.got['instances'][0].header.frame_id == 'camera_optical'


def test_compressed_frames_are_not_paired_by_header(rig):
    bench = rig(activate=False, image_type='compressed', sync_policy='approximate')
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE


def info(bench, frame_id: str, focal: float, size=None) -> CameraInfo:
    height, width = size or (bench.HEIGHT, bench.WIDTH)
    message = CameraInfo(height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5,
                         k=[focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1.0])
    message.header.frame_id = frame_id
    return message


def test_two_cameras_by_their_calibrations_and_tf_static(rig):
    tf2_msgs = pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs is not built here')
    from geometry_msgs.msg import TransformStamped
    bench = rig(deadline_s=1.0, stale_after_s=60.0, **CALIBRATED)
    windows, reports, real = [], [], bench.node.pipeline.process
    bench.client.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)
    bench.node.pipeline.process = lambda sample: (windows.append(sample.window), real(sample))[1]
    calibrations = {topic: bench.client.create_publisher(CameraInfo, topic, qos.playback(5))
                    for topic in ('/dvs/info', '/camera/info')}
    assert bench.wait(lambda: all(item.get_subscription_count() for item in calibrations.values()))
    assert bench.wait(lambda: all(item.get_publisher_count() for item in bench.node.subscriptions
                                  if item.topic_name.endswith('/info')))
    bench.send(0)
    assert bench.wait(lambda: bench.counts().get('unregistered') == 1), bench.counts()
    assert bench.wait_results(1) and bench.got['instances'][0].degraded_reason == 'no events'
    said = 'DEGRADED: some inputs are refused, the last: unregistered: no calibration of the event'
    assert bench.wait(lambda: any(item.status[0].message.startswith(said) for item in reports))
    calibrations['/dvs/info'].publish(info(bench, 'dvs', 150.0))
    calibrations['/camera/info'].publish(info(bench, 'camera_optical', 150.0))
    static = bench.client.create_publisher(tf2_msgs.TFMessage, '/tf_static', qos.latched())
    message = TransformStamped(child_frame_id='dvs')
    message.header.frame_id = 'camera_optical'
    message.transform.rotation.z, message.transform.rotation.w = 1.0, 0.0  # upside down
    static.publish(tf2_msgs.TFMessage(transforms=[message]))
    assert bench.wait(lambda: bench.node.pipeline.status()['registration'] == 'camera_info')
    bench.send(1, frame=False)  # first: while events are refused, frames do not wait for them
    assert bench.wait(lambda: bench.counts().get('events') == 2)
    bench.send(1, events=False)
    assert bench.wait(lambda: len(windows) > 1 and windows[-1] is not None, 20.0), windows
    events = windows[-1].events  # sent at x 40..79, y 92..111
    assert len(events) and np.all((events.x >= bench.WIDTH - 80) & (events.x < bench.WIDTH - 40))
    assert np.all((events.y >= bench.HEIGHT - 112) & (events.y < bench.HEIGHT - 92))


def test_detections_and_labels_for_stacks_that_speak_vision_msgs(rig):
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not built here')
    bench = rig(listen=('instances', 'tracks'), track_confirm_s=0.0, track_birth_score=0.0)
    found, labels = [], []
    bench.client.create_subscription(vision.Detection2DArray, '/mos_perception/detections',
                                     found.append, qos.output())
    bench.client.create_subscription(vision.LabelInfo, '/mos_perception/label_info',
                                     labels.append, qos.latched())
    assert bench.wait(lambda: labels)  # although it was published before
    assert {item.class_id: item.class_name for item in labels[0].class_map} == {
        0: 'background', 1: 'moving', 2: 'static', 3: 'movable'}
    assert bench.wait(lambda: bench.node._outputs['detections'].get_subscription_count())
    bench.send(0)
    assert bench.wait_results(1) and bench.wait(lambda: found), bench.counts()
    instances = [item for item in bench.got['instances'][0].instances if item.track_id]
    assert instances and len(found[0].detections) == len(instances)
    assert found[0].header == bench.got['instances'][0].header
    for detection, instance in zip(found[0].detections, instances):
        x0, y0, x1, y1 = instance.box
        assert detection.id == str(instance.track_id)
        assert detection.bbox.center.position.x == pytest.approx((x0 + x1) / 2)
        assert detection.bbox.size_y == pytest.approx(y1 - y0)
        (guess,) = detection.results
        assert guess.hypothesis.class_id == ('1' if instance.is_moving else '2')
        assert guess.hypothesis.score == pytest.approx(instance.score)
