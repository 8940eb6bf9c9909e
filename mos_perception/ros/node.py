"""The lifecycle node: parameters, topics, states.

What happens to the messages is in `feed.py` and `pipeline.py`.

`configure` loads the model and proves that it runs; `activate` subscribes, so a player that waits
for subscribers waits for an active node. One executor thread for callbacks, one worker thread for
inference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image

from mos_msgs.msg import Instances, Motion, Tracks
from mos_msgs.srv import Reset
from mos_perception import events
from mos_perception.config import Config
from mos_perception.datatypes import Result, SyncedInput
from mos_perception.pipeline import Pipeline
from mos_perception.ros import convert, detections, params, qos
from mos_perception.ros.diagnostics import Monitor
from mos_perception.ros.feed import Feed, one_line
from mos_perception.ros.inputs import Inputs, check_inputs
from mos_perception.ros.process import EXIT_AUTOSTART, EXIT_DEVICE_LOST, run

OUTPUTS = {'instances': Instances, 'instance_image': Image, 'motion': Motion, 'tracks': Tracks,
           'overlay': Image}
LOG_PERIOD_S = 5.0
CLOCK_GRACE_S = 2.0  # without /clock, when it is asked for


class MosNode(LifecycleNode):
    """Any model whose card we know, as a ROS node. Raises ConfigError for bad parameters."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of rclpy's Node (namespace, parameter_overrides, ...)."""
        super().__init__('mos_perception', **options)
        self.config: Config = params.declare(self)
        self.exit_code = 0
        self.pipeline: Pipeline | None = None
        self.monitor: Monitor | None = None
        self._feed: Feed | None = None
        self._outputs: dict[str, Any] = {}
        self._undo_configure: list[Callable[[], Any]] = []
        self._undo_activate: list[Callable[[], Any]] = []
        self._logged: dict[str, float] = {}
        self._state = ''
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.add_on_set_parameters_callback(params.on_change(lambda: self.config, self._apply))
        if self.config.autostart:
            self._autostart = self.create_timer(0.01, self._start, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, compile, run once. FAILURE, one line in the log, if it cannot work."""
        try:
            check_inputs(self.config)
            self.pipeline = Pipeline(self.config)
            events.warm_up()
            self.pipeline.warm_up()
        except Exception as error:  # rclpy would swallow it
            self.pipeline = None
            self.get_logger().error(f'cannot configure: {one_line(error)}')
            return TransitionCallbackReturn.FAILURE
        for name, kind in (OUTPUTS | detections.outputs()).items():
            publisher = self.create_lifecycle_publisher(kind, f'~/{name}', qos.output(),
                                                        qos_overriding_options=qos.overridable())
            self._outputs[name] = publisher
            self._undo_configure.append(partial(self.destroy_lifecycle_publisher, publisher))
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.output())
        service = self.create_service(Reset, '~/reset', self._on_reset)
        self._undo_configure += [partial(self.destroy_publisher, self._diagnostics),
                                 partial(self.destroy_service, service), *detections.announce(self)]
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker, subscribe. FAILURE, one line in the log, if a topic cannot be had."""
        try:
            self._begin()
        except Exception as error:  # rclpy would swallow it
            _undo(self._undo_activate)
            self._feed = None
            self.get_logger().error(f'cannot activate: {one_line(error)}')
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def _begin(self) -> None:
        config = self.config
        roles = {'frames': config.image_topic, 'events': config.events_topic,
                 'imu': config.imu_topic}
        topics = {role: topic for role, topic in roles.items() if topic}
        self.monitor = Monitor(topics, round(config.stale_after_s * 1e9))
        self.pipeline.reset()
        self._active_since = time.monotonic()
        self._feed = Feed(self.pipeline, self.monitor, self._wanted, self._publish, self._warn,
                          self._give_up)
        self._undo_activate.append(self._feed.close)
        timer = self.create_timer(1.0, self._report, clock=self._steady)
        self._undo_activate.append(lambda: self.destroy_timer(timer))
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1))
        jump = self.get_clock().create_jump_callback(backward, post_callback=self._on_jump)
        self._undo_activate.append(jump.unregister)
        inputs = Inputs(self, self._feed)
        self._undo_activate.append(inputs.close)
        inputs.open(config)
        status = self.pipeline.status()
        sources = ', '.join(f'{role} from {topic}' for role, topic in topics.items())
        self.get_logger().info(f'active: {status["model"]} on {status["engine backend"]} '
                               f'({status["engine provider"]}), {sources}')

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; finish the inference in work."""
        _undo(self._undo_activate)
        self._feed = None
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything, the model too."""
        self.release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured."""
        return self.on_cleanup(state)

    def release(self) -> None:
        """Stop the worker and drop topics, timers and the model, in any state; safe to repeat."""
        _undo(self._undo_activate)
        _undo(self._undo_configure)
        self._outputs, self._feed, self.pipeline = {}, None, None

    def destroy_node(self) -> None:
        """Also let go of the state machine, which rclpy leaves to the end of the interpreter: with
        it the node lives on, and its 64 MiB of shared memory outlive a process that just exits.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _start(self) -> None:
        """autostart: configure and activate; the process ends with exit code 1 when that fails."""
        self.destroy_timer(self._autostart)
        good = TransitionCallbackReturn.SUCCESS
        failed = self.trigger_configure() != good or self.trigger_activate() != good
        if failed and self.context.ok():  # else a signal ended it
            self.exit_code = EXIT_AUTOSTART
            self.context.try_shutdown()

    def _give_up(self, reason: str) -> None:
        """End the process for a reason that only a new one can mend. Called by the worker."""
        self.get_logger().fatal(f'ends with exit code {EXIT_DEVICE_LOST}: {reason}')
        self.exit_code = EXIT_DEVICE_LOST
        self.context.try_shutdown()

    def _apply(self, config: Config) -> None:
        """Take changed live parameters."""
        self.config = config
        if self._feed is not None:
            self._feed.update(config)
            self.monitor.stale_ns = round(config.stale_after_s * 1e9)
        elif self.pipeline is not None:
            self.pipeline.update(config)

    def _wanted(self) -> bool:
        return self.config.force_inference or any(map(_has_subscriber, self._outputs.values()))

    def _publish(self, sample: SyncedInput, result: Result) -> None:
        """Every output somebody listens to. Called by the worker."""
        for name, publisher in self._outputs.items():
            if _has_subscriber(publisher):
                publisher.publish(convert.output_message(name, result, sample, self.config))
        self.monitor.took('stamp_to_publish', self.get_clock().now().nanoseconds - result.stamp_ns)

    def _on_jump(self, jump: Any) -> None:
        epoch = self._feed.jumped_to(self.get_clock().now().nanoseconds)
        if epoch is not None:
            self.get_logger().info(f'ROS time jumped back: everything reset, epoch {epoch}')

    def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        held = self.pipeline.status()['event buffer bytes']
        response.success = True
        response.epoch = self._feed.reset() if self._feed is not None else self.pipeline.reset()
        response.message = f'dropped {held} bytes of events, all waiting frames and all tracks'
        return response

    def _report(self) -> None:
        """/diagnostics, once per second."""
        clock = self.get_clock()
        waited_s = time.monotonic() - self._active_since
        if clock.ros_time_is_active and not clock.now().nanoseconds and waited_s > CLOCK_GRACE_S:
            self._warn('clock', 'use_sim_time is set but nothing comes on /clock: start the player '
                                'with --clock')
        message = self.monitor.message(
            self.get_fully_qualified_name(), time.monotonic_ns(), self.pipeline.status())
        self._log_change(message.status[0].message)
        message.header.stamp = clock.now().to_msg()
        self._diagnostics.publish(message)

    def _log_change(self, status: str) -> None:
        """A line per change of the state, with its reason."""
        before, self._state = self._state, status.partition(':')[0]
        if before != self._state == 'OK':
            self.get_logger().info(f'state {status}')
        elif before != self._state:  # rclpy wants one severity per line of code
            self.get_logger().warning(f'state {status}')

    def _warn(self, key: str, text: str) -> None:
        """Log, each key at most once per LOG_PERIOD_S; /diagnostics has all counts."""
        now = time.monotonic()
        if now - self._logged.get(key, -LOG_PERIOD_S) >= LOG_PERIOD_S:
            self._logged[key] = now
            self.get_logger().warning(text)


def _has_subscriber(publisher: Any) -> bool:
    return publisher.get_subscription_count() > 0


def _undo(steps: list[Callable[[], Any]]) -> None:
    while steps:
        steps.pop()()


def main(args: list[str] | None = None) -> int:
    """See `process.run`; `dimos_node` begins in `__main__.py`."""
    return run(MosNode, args)
