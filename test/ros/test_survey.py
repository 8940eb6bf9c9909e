"""`mos doctor` on a live network: who is there, and a pair that QoS keeps apart."""

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_rig import wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from mos_perception.commands.doctor import examine
from mos_perception.ros.survey import survey


def test_survey_names_cameras_and_pairs_that_cannot_connect(ros):
    node = rclpy.create_node('cameras')
    best = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_publisher(Image, '/cam/image', best)
    node.create_publisher(Image, '/rear/image', 1)
    node.create_publisher(String, '/chatter', 1)
    node.create_subscription(Image, '/cam/image', lambda message: None, 1)
    lines: dict[str, str] = {}

    def seen() -> bool:
        lines.update((line.split()[0], line) for line in survey())
        return '/rear/image' in lines and '(reliable)' in lines.get('/cam/image', '')
    assert wait_until(seen)  # a loaded machine may need to listen more than once
    assert '/chatter' not in lines
    assert (
        'published by cameras (best_effort), subscribed by cameras (reliable)'
        in lines['/cam/image']
    )
    assert 'NOTHING FLOWS from cameras to cameras: ' in lines['/cam/image']
    assert 'subscribed by nobody' in lines['/rear/image'] and 'NOTHING' not in lines['/rear/image']

    def reported() -> bool:
        topics = next(finding for finding in examine('dimos_nano') if finding.what == 'topics')
        return topics.state == 'ok' and '/rear/image [sensor_msgs/msg/Image]' in topics.text
    assert wait_until(reported)
    node.destroy_node()
