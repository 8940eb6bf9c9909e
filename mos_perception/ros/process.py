"""The node as a process: how it begins, spins and ends, and its exit codes.

    0   ended by a signal or by a shutdown of the context
    1   autostart failed: the model or a topic cannot be used
    2   bad arguments, parameters or parameter files
    70  the GPU is lost to this process (an illegal address, a launch that failed, a device that is
        gone): a new process may have it again, so `respawn:=true` or a supervisor helps
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from mos_perception.ros.feed import one_line
from mos_perception.ros.transport import prepare_transport

EXIT_OK, EXIT_AUTOSTART, EXIT_PARAMETERS, EXIT_DEVICE_LOST = 0, 1, 2, 70


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` gives until its context ends; returns the exit code."""
    prepare_transport()
    try:
        rclpy.init(args=args)
        node = make_node()
    except Exception as error:  # rclpy has no common class for bad arguments and parameter files
        print(f'dimos_node: {one_line(error)}', file=sys.stderr)
        rclpy.try_shutdown()
        return EXIT_PARAMETERS
    try:
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # otherwise a signal has ended the context in the middle of a call
            raise
    finally:
        node.release()
        node.destroy_node()
        rclpy.try_shutdown()
    return node.exit_code
