"""The node as a process: how it begins, spins and ends, and its exit codes.

    0   ended by a signal (SIGINT, SIGTERM) or by a shutdown of the context, in 2 s at most: what
        has not ended by itself by then, a model that loads or an inference, is cut off
    1   autostart failed: the model or a topic cannot be used
    2   bad arguments, parameters or parameter files
    70  the GPU is lost to this process (an illegal address, a launch that failed, a device that is
        gone): a new process may have it again, so `respawn:=true` or a supervisor helps
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from mos_perception.ros.feed import one_line
from mos_perception.ros.transport import prepare_transport

GRACE_S = 1.2  # after the end of the context; what holds the GIL for longer is not cut off
WATCH_S = 0.1
EXIT_OK, EXIT_AUTOSTART, EXIT_PARAMETERS, EXIT_DEVICE_LOST = 0, 1, 2, 70


def begin(args: list[str] | None = None) -> None:
    """`rclpy.init`, with a SIGINT that ends the context, as SIGTERM does, and nothing else.

    rclpy hands SIGINT on to Python, and the KeyboardInterrupt may fall into compiled code that
    converts a message: rclpy 7.1.5 crashes there, or cannot convert an argument. For the main
    thread of a process of its own: the handler stays.
    """
    asked: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    prepare_transport()
    rclpy.init(args=args)
    if asked:  # before rclpy listened
        rclpy.try_shutdown()


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` gives until its context ends, then end the process; returns
    the exit code only where there was no context.
    """
    nodes: list[Any] = []
    try:
        begin(args)
    except Exception as error:  # rclpy has no common class for bad arguments
        print(f'dimos_node: {one_line(error)}', file=sys.stderr)
        return EXIT_PARAMETERS
    threading.Thread(target=_end_in_time, args=(nodes,), name='end', daemon=True).start()
    _leave(_serve(make_node, nodes))


def _serve(make_node: Callable[[], Any], nodes: list[Any]) -> int:
    """Make the node, put it into `nodes`, spin it, let go of it; returns the exit code."""
    try:
        node = make_node()
    except Exception as error:  # nor for parameter files
        if not rclpy.ok():  # a signal came
            return EXIT_OK
        print(f'dimos_node: {one_line(error)}', file=sys.stderr)
        rclpy.try_shutdown()
        return EXIT_PARAMETERS
    nodes.append(node)
    try:
        spin(node)
    finally:
        node.release()
        node.destroy_node()
        nodes.clear()
        rclpy.try_shutdown()
    return node.exit_code


def spin(node: Node) -> None:
    """Serve a node in this thread until its context ends, by a signal too."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception:
        if rclpy.ok():  # otherwise a signal has ended the context in the middle of a call
            raise


def _leave(code: int) -> NoReturn:
    """End here, once others on the network know that we are gone: the interpreter's own end runs
    every library's destructors, for seconds on a busy machine, and nothing can cut it off.

    The node goes when nothing holds it: cycles, and what a signal left behind, would keep it and
    its 64 MiB of shared memory.
    """
    gc.collect()
    rclpy.get_default_context().destroy()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_in_time(nodes: list[Any]) -> None:
    """Wait for the end of the context, then a while for that of the process; else end it."""
    context = rclpy.get_default_context()
    while context.ok():
        time.sleep(WATCH_S)
    code = nodes[0].exit_code if nodes else EXIT_OK
    time.sleep(GRACE_S)
    print(f'dimos_node: still busy {GRACE_S} s after its end was asked for: cut off',
          file=sys.stderr, flush=True)
    os._exit(code)
