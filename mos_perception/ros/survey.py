"""What is on the network now: topics of cameras and ours, who offers and wants them, and pairs that
cannot connect.
"""

from __future__ import annotations

import importlib
import time

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo

TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage',
         'event_camera_msgs/msg/EventPacket', 'dvs_msgs/msg/EventArray')
PREFIX = 'mos_msgs/'
DISCOVERY_S = 2.0
# message package -> a message of it, and what the node is without
MESSAGES = {
    'sensor_msgs': ('Image', 'broken'),
    'diagnostic_msgs': ('DiagnosticArray', 'broken'),
    'mos_msgs': ('Instances', 'broken'),
    'event_camera_msgs': ('EventPacket', 'absent'),
}
# package -> what it adds where a distribution has it
OPTIONAL = {
    'cv_bridge': 'image encodings that we do not convert',
    'event_camera_py': 'event_decoder: event_camera_py',
    'message_filters': 'sync_policy: approximate',
    'tf2_msgs': 'registration: camera_info',
    'vision_msgs': '~/detections and ~/label_info',
}


def try_messages(package: str) -> str:
    """A message of the package, to bytes and back: its compiled support loads and works.

    Raises ImportError with the remedy.
    """
    name, _ = MESSAGES[package]
    try:
        kind = getattr(importlib.import_module(f'{package}.msg'), name)
        deserialize_message(serialize_message(kind()), kind)
    except Exception as error:  # no common class: a missing library, another NumPy
        raise ImportError(
            f'{package}/{name}: {type(error).__name__}: {error}: '
            + ('build it and source install/setup.bash' if package == 'mos_msgs' else
               f'install ros-$ROS_DISTRO-{package.replace("_", "-")}')
            + '; "NumPy 1.x" in this line: "make ros" installs the NumPy of the distribution'
        ) from error
    return f'{package}/{name} to bytes and back'


def try_optional(name: str) -> str:
    """Import a package that is the user's choice. Raises ImportError saying what it would add."""
    try:
        importlib.import_module(name)
    except Exception as error:  # as above
        raise ImportError(f'{type(error).__name__}: {error}; adds {OPTIONAL[name]}') from error
    return f'adds {OPTIONAL[name]}'


def survey(seconds: float = DISCOVERY_S) -> list[str]:
    """A line per topic of frames, events or results after listening for `seconds`."""
    context = Context()
    rclpy.init(context=context)
    try:
        node = Node(
            'mos_doctor', context=context, enable_rosout=False, start_parameter_services=False
        )
        try:
            time.sleep(seconds)
            return [
                _line(node, topic, types)
                for topic, types in sorted(node.get_topic_names_and_types())
                if any(kind in TYPES or kind.startswith(PREFIX) for kind in types)
            ]
        finally:
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def _line(node: Node, topic: str, types: list[str]) -> str:
    offered, wanted = (
        node.get_publishers_info_by_topic(topic),
        node.get_subscriptions_info_by_topic(topic),
    )
    text = (
        f'{topic} [{", ".join(types)}] published by {_who(offered)}, subscribed by {_who(wanted)}'
    )
    for giver in offered:
        for taker in wanted:
            verdict, reason = qos_check_compatible(giver.qos_profile, taker.qos_profile)
            if verdict == QoSCompatibility.ERROR:
                reason = reason.rstrip(';')
                text += f'; NOTHING FLOWS from {giver.node_name} to {taker.node_name}: {reason}'
    return text


def _who(endpoints: list[TopicEndpointInfo]) -> str:
    names = [f'{end.node_name} ({end.qos_profile.reliability.name.lower()})' for end in endpoints]
    return ' and '.join(names) or 'nobody'
