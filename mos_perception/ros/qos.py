"""Quality of service of every topic, in one place; all of it can be overridden by parameters.

Inputs follow REP 2003: sensor data, best effort, unless `input_reliable`. Results are reliable and
shallow. Overrides are parameters `qos_overrides.<topic>.<publisher|subscription>.<policy>`.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from mos_perception.config import Config

# the node itself keeps the newest and counts the rest; DDS would drop them without a word
FRAME_DEPTH = 10
OUTPUT_DEPTH = 5
LATCHED_DEPTH = 100


def image_input(config: Config) -> QoSProfile:
    """Frames and the camera's calibration: shallow, the newest wins."""
    return _profile(config.input_reliable, FRAME_DEPTH)


def events_input(config: Config) -> QoSProfile:
    """Event packets: deep, since stateful encodings want every packet."""
    return _profile(config.input_reliable, config.input_depth)


def imu_input(config: Config) -> QoSProfile:
    """The gyroscope: deep, since a missing sample is a gap in the rotation."""
    return _profile(config.input_reliable, config.input_depth)


def latched() -> QoSProfile:
    """`/tf_static` and what else is published once: kept for those who come later."""
    return recording(True, True, LATCHED_DEPTH)


def output() -> QoSProfile:
    """Results: reliable."""
    return _profile(True, OUTPUT_DEPTH)


def playback(depth: int, latched: bool = False) -> QoSProfile:
    """What the player offers: reliable, deep enough that nothing is lost on the way out."""
    return recording(True, latched, depth)


def recording(reliable: bool, latched: bool, depth: int = 1000) -> QoSProfile:
    """What the recorder asks for: as good as all publishers of the topic offer."""
    profile = _profile(reliable, depth)
    if latched:
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def overridable() -> QoSOverridingOptions:
    """History, depth and reliability may be overridden by parameters."""
    return QoSOverridingOptions.with_default_policies()


def _profile(reliable: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        durability=DurabilityPolicy.VOLATILE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )
