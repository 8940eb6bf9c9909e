"""ROS parameters from the fields of `Config`: declared once, checked as a whole, taken over live.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mos_perception.config import FIELDS, RENAMED, Config, check, from_dict
from mos_perception.errors import ConfigError

# Names a node may get without our declaring them.
_FOREIGN = ('use_sim_time', 'start_type_description_service')
_FOREIGN_PREFIX = 'qos_overrides.'


def descriptor(name: str) -> ParameterDescriptor:
    """What `ros2 param describe` shows of one parameter: text with unit, range, choices, read-only.
    """
    spec, meta = FIELDS[name], FIELDS[name].metadata
    text = meta['text'] + (f' [{meta["unit"]}]' if meta['unit'] else '')
    found = ParameterDescriptor(name=name, description=text, read_only=not meta['live'])
    if meta['choices']:
        found.additional_constraints = 'one of ' + ', '.join(meta['choices'])
    if meta['low'] is not None and meta['high'] is not None:
        if isinstance(spec.default, float):
            found.floating_point_range = [
                FloatingPointRange(from_value=meta['low'], to_value=meta['high'])
            ]
        else:
            found.integer_range = [
                IntegerRange(from_value=meta['low'], to_value=meta['high'], step=1)
            ]
    return found


def declare(node: Node) -> Config:
    """Declare every parameter of `Config` on the node, from its overrides (`-p`, parameter files).

    A whole number where a decimal is meant is taken. An unknown name is warned about, naming the
    nearest one. Raises ConfigError for a renamed one, a wrong type or a value out of range.
    """
    overrides: dict[str, Any] = {
        name: item.value for name, item in node._parameter_overrides.items()
    }
    for name in overrides:
        if name in RENAMED:
            # says the new name: an old value is not lost without a word
            check(name, overrides[name])
        if name not in FIELDS and name not in _FOREIGN and not name.startswith(_FOREIGN_PREFIX):
            node.get_logger().warning(f'{_unknown(name)} (ignored)')
    config = from_dict({name: value for name, value in overrides.items() if name in FIELDS})
    for name in FIELDS:
        node.declare_parameter(name, getattr(config, name), descriptor(name), ignore_override=True)
    return config


def on_change(current: Callable[[], Config], apply: Callable[[Config], None],
              ) -> Callable[[list[Parameter]], SetParametersResult]:
    """A callback for `add_on_set_parameters_callback`: the whole set is right and applied, or
    nothing is.
    """
    def changed(parameters: list[Parameter]) -> SetParametersResult:
        values = {item.name: item.value for item in parameters if item.name in FIELDS}
        if not values:
            return SetParametersResult(successful=True)
        try:
            for name, value in values.items():
                check(name, value)
                if not FIELDS[name].metadata['live']:
                    raise ConfigError(f'parameter {name} is read-only: set it at start')
            apply(dataclasses.replace(current(), **values))
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)
    return changed


def _unknown(name: str) -> str:
    try:
        check(name, None)
    except ConfigError as error:
        return str(error)
    return name
