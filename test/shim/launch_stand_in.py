"""The part of ROS 2's `launch` and `launch_ros` that our launch files use, for where it is not
installed.

Descriptions are evaluated as `ros2 launch` does it: depth first, in order, one set of launch
configurations for all included files. Nothing is started: a node is a record of what would be.
"""

from __future__ import annotations

import runpy
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Context:
    """What actions see while they run."""

    def __init__(self, arguments: dict[str, str]) -> None:
        self.launch_configurations = dict(arguments)
        self.environment: dict[str, str] = {}
        self.is_shutdown = False


class LaunchConfiguration:
    def __init__(self, variable_name: str) -> None:
        self.name = variable_name

    def perform(self, context: Context) -> str:
        if self.name not in context.launch_configurations:
            raise LookupError(f"launch configuration '{self.name}' does not exist")
        return context.launch_configurations[self.name]


def perform(context: Context, value: Any) -> str:
    """Text as it is, substitutions performed; nothing else is taken, as `launch` does."""
    if isinstance(value, str):
        return value
    if not isinstance(value, LaunchConfiguration):
        raise TypeError(f'{value!r} is neither text nor a substitution')
    return value.perform(context)


class Action:
    def __init__(self, *, condition: IfCondition | None = None) -> None:
        self.condition = condition

    def entities(self) -> list[Any]:
        """What is known to be inside without running anything."""
        return []

    def execute(self, context: Context) -> list[Any]:
        return []


class IfCondition:
    def __init__(self, predicate: Any) -> None:
        self.predicate = predicate

    def evaluate(self, context: Context) -> bool:
        text = perform(context, self.predicate).lower()
        if text not in ('true', 'false', '1', '0'):
            raise ValueError(f'condition is {text!r}: must be true, false, 1 or 0')
        return text in ('true', '1')


class LaunchDescription(Action):
    def __init__(self, initial_entities: Iterable[Any] = ()) -> None:
        super().__init__()
        self._entities = list(initial_entities)

    def entities(self) -> list[Any]:
        return self._entities

    def execute(self, context: Context) -> list[Any]:
        return self._entities


class DeclareLaunchArgument(Action):
    def __init__(self, name: str, *, default_value: Any = None, description: str = '',
                 choices: Iterable[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.default_value, self.description = name, default_value, description
        self.choices = choices

    def execute(self, context: Context) -> list[Any]:
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f"required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = perform(context, self.default_value)
        return []


class SetLaunchConfiguration(Action):
    def __init__(self, name: str, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: Context) -> list[Any]:
        context.launch_configurations[self.name] = perform(context, self.value)
        return []


class SetEnvironmentVariable(Action):
    def __init__(self, name: str, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: Context) -> list[Any]:
        context.environment[self.name] = perform(context, self.value)
        return []


class OpaqueFunction(Action):
    def __init__(self, *, function: Callable, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def execute(self, context: Context) -> list[Any]:
        return self.function(context) or []


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path: str) -> None:
        self.path = launch_file_path

    def load(self) -> LaunchDescription:
        return runpy.run_path(self.path)['generate_launch_description']()


class IncludeLaunchDescription(Action):
    def __init__(self, source: PythonLaunchDescriptionSource, *,
                 launch_arguments: Iterable[tuple[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source, self.launch_arguments = source, list(launch_arguments)

    def entities(self) -> list[Any]:
        return [self.source.load()]

    def execute(self, context: Context) -> list[Any]:
        given = [SetLaunchConfiguration(name, value) for name, value in self.launch_arguments]
        return [*given, self.source.load()]


class Shutdown:
    def __init__(self, *, reason: str = 'reason not given') -> None:
        self.reason = reason


class EmitEvent(Action):
    def __init__(self, *, event: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event = event


class OnProcessExit:
    def __init__(self, *, target_action: Node, on_exit: Any) -> None:
        self.target, self.on_exit = target_action, on_exit


class RegisterEventHandler(Action):
    def __init__(self, event_handler: OnProcessExit, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.handler = event_handler


class Node(Action):
    """An executable that would be started; its texts are those of the moment it was executed."""

    def __init__(self, *, executable: str, package: str, name: str = '', namespace: Any = '',
                 parameters: Iterable[Any] = (), arguments: Iterable[Any] = (), output: str = 'log',
                 emulate_tty: bool = False, respawn: bool = False, respawn_delay: float = 0.0,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.executable, self.package, self.name = executable, package, name
        self.namespace, self.parameters = namespace, list(parameters)
        self.arguments, self.output, self.respawn = list(arguments), output, respawn
        self.emulate_tty, self.respawn_delay = emulate_tty, respawn_delay

    def execute(self, context: Context) -> list[Any]:
        self.namespace = perform(context, self.namespace)
        self.arguments = [perform(context, item) for item in self.arguments]
        self.environment = dict(context.environment)
        return []


class Launch:
    """A launch file, evaluated: `nodes` by executable, `configurations`, `environment`."""

    def __init__(self, path: Path, **arguments: str) -> None:
        self._context = Context(arguments)
        self._handlers: list[OnProcessExit] = []
        self.nodes: dict[str, Node] = {}
        self.reason: str | None = None
        self._visit(PythonLaunchDescriptionSource(str(path)).load())
        self.configurations = self._context.launch_configurations

    def exit(self, executable: str, code: int) -> str:
        """What the end of a process does: 'respawn', 'shutdown' (see `reason`) or 'nothing'."""
        node = self.nodes[executable]
        event = types.SimpleNamespace(
            process_name=f'{executable}-1', returncode=code, action=node, pid=1)
        for handler in self._handlers:
            if handler.target is node:
                actions = handler.on_exit
                for action in actions(event, self._context) if callable(actions) else actions:
                    self._visit(action)
        if self.reason is not None:
            return 'shutdown'
        return 'respawn' if node.respawn else 'nothing'

    def _visit(self, action: Any) -> None:
        if action.condition is not None and not action.condition.evaluate(self._context):
            return
        for inside in action.execute(self._context):
            self._visit(inside)
        if isinstance(action, Node):
            self.nodes[action.executable] = action
        elif isinstance(action, RegisterEventHandler):
            self._handlers.append(action.handler)
        elif isinstance(action, EmitEvent) and isinstance(action.event, Shutdown):
            self.reason = action.event.reason
            self._context.is_shutdown = True


def shown_arguments(path: Path) -> dict[str, str | None]:
    """Argument -> default, as `ros2 launch --show-args` finds them: without running functions."""
    found: dict[str, str | None] = {}

    def look(action: Any) -> None:
        if isinstance(action, DeclareLaunchArgument):
            found.setdefault(action.name, action.default_value)
        for inside in action.entities():
            look(inside)
    look(PythonLaunchDescriptionSource(str(path)).load())
    return found


_MODULES = {
    'launch': [LaunchDescription],
    'launch.actions': [DeclareLaunchArgument, EmitEvent, IncludeLaunchDescription, OpaqueFunction,
                       RegisterEventHandler, SetEnvironmentVariable, SetLaunchConfiguration],
    'launch.conditions': [IfCondition],
    'launch.event_handlers': [OnProcessExit],
    'launch.events': [Shutdown],
    'launch.launch_description_sources': [PythonLaunchDescriptionSource],
    'launch.substitutions': [LaunchConfiguration],
    'launch_ros': [],
    'launch_ros.actions': [Node],
}


def install(monkeypatch: Any, prefix: Path) -> None:
    """Put the stand-in in the place of `launch`, and `prefix` in that of our installed folder."""
    for name, classes in _MODULES.items():
        module = types.ModuleType(name)
        module.__path__ = []
        for item in classes:
            setattr(module, item.__name__, item)
        monkeypatch.setitem(sys.modules, name, module)
    packages = types.ModuleType('ament_index_python.packages')
    packages.get_package_prefix = lambda name: str(prefix)
    packages.get_package_share_directory = lambda name: str(prefix / 'share' / name)
    monkeypatch.setitem(sys.modules, 'ament_index_python', types.ModuleType('ament_index_python'))
    monkeypatch.setitem(sys.modules, 'ament_index_python.packages', packages)
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
