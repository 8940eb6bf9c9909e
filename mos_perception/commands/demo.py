"""`mos demo`: a bag played to the real node over DDS in real time, its output recorded, scored and
shown.

Knows processes and files; ROS itself lives in the three processes it starts: the node, the recorder
and the player.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mos_perception.config import Config
from mos_perception.errors import MosError
from mos_perception.recording.bag import open_bag
from mos_perception.recording.results import NODE
from mos_perception.replay import with_topics

OUTPUTS = ('instances', 'instance_image', 'motion', 'tracks')


@dataclass(frozen=True)
class DemoOptions:
    """What `mos demo` was asked for. Topics: None = found by type, '' = none."""

    bag: Path
    out: Path
    image_topic: str | None = None
    events_topic: str | None = None
    rate: float = 1.0
    settings: tuple[str, ...] = ()


def run_demo(options: DemoOptions) -> Path:
    """Play, record. Returns the folder of the recorded output.

    Raises MosError when a process fails.
    """
    with open_bag(options.bag) as bag:
        inputs = with_topics(bag, Config(), options.image_topic, options.events_topic)
    options.out.mkdir(parents=True, exist_ok=True)
    recorded = options.out / 'recorded'
    if recorded.exists():
        shutil.rmtree(recorded)
    params = {
        name: getattr(inputs, name) for name in ('image_topic', 'events_topic', 'events_type')
    }
    # the player keeps all; camera drivers usually do not
    params |= {'input_reliable': 'true', 'input_depth': '1000'}
    params |= dict(setting.split('=', 1) for setting in options.settings)
    outputs = [f'{NODE}/{name}' for name in OUTPUTS] + ['/diagnostics']
    names = ('image_topic', 'events_topic', 'imu_topic', 'camera_info_topic')
    played = [topic for name in names if (topic := params.get(name))]
    with Processes(options.out) as run:
        run.start('dimos_node', '__main__', '--ros-args', *_parameters(params))
        run.start('bag_recorder', 'recorder', '--out', str(recorded), *outputs)
        run.start(
            'bag_player',
            'player',
            str(options.bag),
            '--rate',
            str(options.rate),
            '--topics',
            *played,
        )
        run.wait('bag_player')
        time.sleep(2.5)  # the last frame's deadline, and one more report on /diagnostics
        for name in ('bag_recorder', 'dimos_node'):
            run.interrupt(name)
            run.wait(name)
    return recorded


class Processes:
    """Processes of one private ROS graph, each with its log file; none outlives the `with` block.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._environment = private_graph()
        self._running: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m mos_perception.ros.<module>`; output goes to <name>.log."""
        command = [sys.executable, '-m', f'mos_perception.ros.{module}', *arguments]
        with (self._logs / f'{name}.log').open('w') as log:
            self._running[name] = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def interrupt(self, name: str) -> None:
        """Ask for an orderly end."""
        self._running[name].send_signal(signal.SIGINT)

    def wait(self, name: str) -> None:
        """Until it ends, while the others live.

        Raises MosError for an exit code or an early end of another.
        """
        process = self._running.pop(name)
        try:
            while (code := process.poll()) is None:
                for other, running in self._running.items():
                    if running.poll() is not None:
                        raise MosError(
                            f'{other} ended early with code {running.returncode}: '
                            f'{self._tail(other)}'
                        )
                time.sleep(0.1)
        finally:
            process.kill()
        if code not in (0, -signal.SIGINT):
            raise MosError(f'{name} failed with code {code}: {self._tail(name)}')

    def _tail(self, name: str, count: int = 3) -> str:
        log = self._logs / f'{name}.log'
        return (
            ' | '.join(log.read_text(errors='replace').strip().splitlines()[-count:])
            or f'nothing in {log}'
        )


def private_graph() -> dict[str, str]:
    """An environment whose ROS graph meets nobody else's on this machine."""
    environment = dict(os.environ)
    environment.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 100)))
    environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return environment


def _parameters(params: dict[str, str]) -> list[str]:
    arguments = []
    for name, value in params.items():
        text = (
            value
            if value.replace('.', '', 1).isdigit() or value in ('true', 'false')
            else json.dumps(value)
        )
        arguments += ['-p', f'{name}:={text}']
    return arguments
