"""`mos demo`: a bag played to the real node over DDS in real time, its output recorded, scored and shown.

Knows processes and files; ROS itself lives in the three processes it starts: the node, the recorder and the player.
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

from mos_perception.bag import open_bag
from mos_perception.config import Config
from mos_perception.errors import MosError
from mos_perception.replay import with_topics

NODE = '/mos_perception'
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
    """Play, record. Returns the folder of the recorded output. Raises MosError when a process fails."""
    with open_bag(options.bag) as bag:
        inputs = with_topics(bag, Config(), options.image_topic, options.events_topic)
    options.out.mkdir(parents=True, exist_ok=True)
    recorded = options.out / 'recorded'
    if recorded.exists():
        shutil.rmtree(recorded)
    environment = private_graph()
    params = {name: getattr(inputs, name) for name in ('image_topic', 'events_topic', 'events_type')}
    params |= {'input_reliable': 'true', 'input_depth': '1000'}  # the player keeps all; a camera driver usually does not
    params |= dict(setting.split('=', 1) for setting in options.settings)
    processes = []
    try:
        node = _start('dimos_node', ['mos_perception.ros.node', '--ros-args', *_parameters(params)], environment, options.out)
        processes.append(node)
        topics = [f'{NODE}/{name}' for name in OUTPUTS] + ['/diagnostics']
        recorder = _start('bag_recorder', ['mos_perception.ros.recorder', '--out', str(recorded), *topics], environment, options.out)
        processes.append(recorder)
        player = _start('bag_player', ['mos_perception.ros.player', str(options.bag), '--rate', str(options.rate), '--topics',
                                       *[topic for topic in (inputs.image_topic, inputs.events_topic) if topic]], environment, options.out)
        processes.append(player)
        _wait(player, 'bag_player', options.out, others={'dimos_node': node, 'bag_recorder': recorder})
        time.sleep(2.5)  # the last frame's deadline, and one more report on /diagnostics
        for name, process in (('bag_recorder', recorder), ('dimos_node', node)):
            process.send_signal(signal.SIGINT)
            _wait(process, name, options.out)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    return recorded


def private_graph() -> dict[str, str]:
    """An environment whose ROS graph meets nobody else's on this machine."""
    environment = dict(os.environ)
    environment.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 100)))
    environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return environment


def _parameters(params: dict[str, str]) -> list[str]:
    arguments = []
    for name, value in params.items():
        text = value if value.replace('.', '', 1).isdigit() or value in ('true', 'false') else json.dumps(value)
        arguments += ['-p', f'{name}:={text}']
    return arguments


def _start(name: str, arguments: list[str], environment: dict[str, str], out: Path) -> subprocess.Popen:
    with (out / f'{name}.log').open('w') as log:
        return subprocess.Popen([sys.executable, '-m', *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT)


def _wait(process: subprocess.Popen, name: str, out: Path, others: dict[str, subprocess.Popen] | None = None) -> None:
    """Wait for an exit with code 0, while the `others` must stay alive."""
    while (code := process.poll()) is None:
        for other, running in (others or {}).items():
            if running.poll() is not None:
                raise MosError(f'{other} ended early with code {running.returncode}: {_last_lines(out / f"{other}.log")}')
        time.sleep(0.1)
    if code not in (0, -signal.SIGINT):
        raise MosError(f'{name} failed with code {code}: {_last_lines(out / f"{name}.log")}')


def _last_lines(log: Path, count: int = 3) -> str:
    lines = log.read_text(errors='replace').strip().splitlines()
    return ' | '.join(lines[-count:]) or f'nothing in {log}'
