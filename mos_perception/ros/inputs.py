"""The node's subscriptions: frames, events and a gyroscope, or frames and events joined by
`message_filters`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu

from mos_perception.config import Config
from mos_perception.errors import ConfigError
from mos_perception.recording.imu_messages import angular_velocity, calibration, transforms
from mos_perception.ros import convert, qos
from mos_perception.ros.feed import Feed

# events_type -> the package and message it needs
_TYPES = {
    'event_packet': ('event_camera_msgs', 'EventPacket'),
    'event_array': ('dvs_msgs', 'EventArray'),
}
_TRANSFORMS = ('tf2_msgs', 'TFMessage')
# rclpy hands a callback of two arguments the message and its info since 3.4; Humble's 3.3 calls
# every callback with the message alone
GIVES_INFO = hasattr(Subscription, 'CallbackType')


def message_class(package: str, name: str) -> Any:
    """A message class. Raises ConfigError if its package is not installed."""
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f'message {package}/{name} is not available ({error}): install ros-$ROS_DISTRO-'
            f'{package.replace("_", "-")} or build it in your workspace'
        ) from error


def check_inputs(config: Config) -> None:
    """Raise ConfigError when the inputs asked for cannot be subscribed here."""
    if not config.image_topic and not config.events_topic:
        raise ConfigError('image_topic and events_topic are both empty: name at least one')
    if config.sync_policy == 'approximate':
        if not config.image_topic or not config.events_topic:
            raise ConfigError(
                'sync_policy is approximate: it joins two topics, so name image_topic and '
                'events_topic'
            )
        if config.image_type != 'raw':
            raise ConfigError('sync_policy is approximate: it takes raw images; set image_type to '
                              'raw, or use sync_policy: event_time')
        try:
            importlib.import_module('message_filters')
        except ImportError as error:
            raise ConfigError(
                'sync_policy is approximate: it needs message_filters, which is not installed; '
                'install '
                'ros-$ROS_DISTRO-message-filters or use sync_policy: event_time'
            ) from error
    elif config.events_topic:
        message_class(*_TYPES[config.events_type])
    if 'tf_static' in config.side_topics():
        message_class(*_TRANSFORMS)


class Inputs:
    """Subscriptions that push into a `Feed`, in the executor's thread."""

    def __init__(self, node: Node, feed: Feed) -> None:
        """Nothing is subscribed yet."""
        self._node, self._feed = node, feed
        self._subscriptions: list[Any] = []

    def open(self, config: Config) -> None:
        """Subscribe.

        Raises ConfigError as `check_inputs` does, and what rclpy raises for a bad topic.
        """
        if config.sync_policy == 'approximate':
            from mos_perception.ros import approximate
            self._subscriptions = approximate.join(self._node, config, self._feed)
            return
        if config.image_topic:
            kind, handler = ((Image, self._on_frame) if config.image_type == 'raw' else
                             (CompressedImage, self._on_compressed))
            self._subscribe(
                'frames', kind, config.image_topic, handler, qos.image_input(config)
            )
        if config.events_topic:
            kind, raw = (
                message_class(*_TYPES[config.events_type]),
                config.events_type == 'event_array',
            )
            handler = self._on_event_array if raw else self._on_packet
            self._subscribe(
                'events', kind, config.events_topic, handler, qos.events_input(config), raw
            )
        self._open_sides(config)

    def _open_sides(self, config: Config) -> None:
        """What is known of the cameras beside what they see."""
        ways = {
            'imu': (Imu, self._on_imu, qos.imu_input(config)),
            'camera_info': (CameraInfo, self._on_camera_info, qos.image_input(config)),
            'image_camera_info': (CameraInfo, self._on_image_camera_info, qos.image_input(config)),
        }
        for role, topic in config.side_topics().items():
            kind, handler, profile = ways.get(role) or (
                message_class(*_TRANSFORMS), self._on_transforms, qos.latched())
            self._subscribe(role, kind, topic, handler, profile)

    def _subscribe(
        self,
        role: str,
        kind: Any,
        topic: str,
        handler: Callable[[Any], None],
        profile: QoSProfile,
        raw: bool = False,
    ) -> None:
        last = 0

        def received(message: Any, info: dict[str, Any]) -> None:
            """Count gaps in the publisher's own numbering: what the network or a full queue dropped
            before us. Humble does not tell the numbers: there it stays uncounted.
            """
            nonlocal last
            number = info.get('publication_sequence_number') or 0
            if 0 < last < number - 1 and self._node.count_publishers(topic) == 1:
                self._feed.lost(role, number - last - 1)
            last = number
            handler(message)
        self._subscriptions.append(self._node.create_subscription(
            kind, topic, received if GIVES_INFO else handler, profile, raw=raw,
            qos_overriding_options=qos.overridable()))

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _on_frame(self, message: Image) -> None:
        self._feed.take('frames', lambda pipeline, now: (
            pipeline.push_frame(convert.frame(message), now), pipeline.ready(now)))

    def _on_compressed(self, message: CompressedImage) -> None:
        self._feed.take('frames', lambda pipeline, now: (
            pipeline.push_frame(convert.compressed_frame(message), now), pipeline.ready(now)))

    def _on_packet(self, message: Any) -> None:
        self._feed.take('events', lambda pipeline, now: (
            pipeline.push_packet(convert.packet(message)), pipeline.ready(now)))

    def _on_imu(self, message: Imu) -> None:
        self._feed.take('imu', lambda pipeline, now: (
            pipeline.push_imu(angular_velocity(message)), pipeline.ready(now)))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._feed.take('camera_info', lambda pipeline, now: (
            pipeline.push_calibration(calibration(message)), pipeline.ready(now)))

    def _on_image_camera_info(self, message: CameraInfo) -> None:
        self._feed.take('image_camera_info', lambda pipeline, now: (
            pipeline.push_calibration(calibration(message), 'frames'), pipeline.ready(now)))

    def _on_transforms(self, message: Any) -> None:
        self._feed.take('tf_static', lambda pipeline, now: (
            pipeline.push_calibration(transforms(message)), pipeline.ready(now)))

    def _on_event_array(self, raw: bytes) -> None:
        self._feed.take('events', lambda pipeline, now: (
            pipeline.push_events(*convert.event_array(raw)), pipeline.ready(now)))
