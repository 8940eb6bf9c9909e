"""`mos doctor`: what this machine has, what is missing and what to do; the text to send with a
report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mos_perception.engine import load_engine
from mos_perception.engine.build import FLAVOURS, import_tensorrt
from mos_perception.engine.cache import Cache
from mos_perception.engine.driver import DRIVERS, open_driver
from mos_perception.engine.model_files import find_model
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import MosError
from mos_perception.ros.transport import SHARED_MEMORY

# what the runtime imports outside ROS (requirements/run.txt): module -> distributions that hold it
PACKAGES = {
    'numpy': ('numpy',),
    'cv2': ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python'),
    'scipy': ('scipy',),
    'numba': ('numba',),
    'onnxruntime': ('onnxruntime', 'onnxruntime-gpu'),
    'rosbags': ('rosbags',),
    'mcap': ('mcap',),
    'pycocotools': ('pycocotools',),
    'rich': ('rich',),
    'yaml': ('pyyaml',),
}


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `state` is ok, absent or broken."""

    what: str
    state: str
    text: str


def examine(model: str, backend: str = 'auto') -> list[Finding]:
    """Look at everything; raises nothing.

    Broken can be a package, the messages where there is ROS, the engine of `model` on `backend`:
    the node then does not run. The rest is absent.
    """
    found = [
        _look(
            'machine',
            lambda: f'{platform.machine()}, {platform.platform()}, Python {sys.version.split()[0]}',
        ),
        _look('interpreter', _interpreter),
        *(_look(f'package {name}', lambda name=name: _package(name), 'broken')
          for name in PACKAGES),
        _look('NumPy ABI', _numpy),
        _look('gpu', lambda: f'{(gpu := find_gpu())}, CUDA {gpu.cuda}, {gpu.driver}, {gpu.l4t}'),
    ]
    # TensorRT and the driver layers crash or fail obscurely without a GPU
    if found[-1].state == 'ok':
        for flavour in FLAVOURS:
            found.append(
                _look(flavour, lambda flavour=flavour: import_tensorrt(flavour).__version__)
            )
        for name in DRIVERS:
            found.append(_look(f'driver {name}', lambda name=name: _driver(name)))
    found += [
        _look('engine cache', _cache),
        _look('ROS', _ros),
        *_messages(),
        _look('topics', _topics),
        _look('shared memory', _shared_memory),
        _look('colcon paths', _paths),
        _look('engine', lambda: str(load_engine(find_model(model), backend).report()), 'broken'),
    ]
    return found


def _look(what: str, question: Callable[[], str], bad: str = 'absent') -> Finding:
    try:
        return Finding(what, 'ok', question())
    except (MosError, OSError, ImportError, AttributeError, ValueError) as error:
        return Finding(what, bad, ' '.join(str(error).split()))


def _interpreter() -> str:
    """Ours is the node's: colcon and pip write it into every executable they install."""
    kind = 'a virtual environment' if sys.prefix != sys.base_prefix else 'no virtual environment'
    return f'{sys.executable}, {kind}'


def _package(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # a compiled module of another NumPy raises anything
        raise ImportError(
            f'{type(error).__name__}: {error}: "make ros" beside a ROS distribution, else '
            f'{sys.executable} -m pip install -r requirements/run.txt'
        ) from error
    for distribution in PACKAGES[name]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return 'of the system'


def _numpy() -> str:
    """Compiled packages made for NumPy 1 fail against NumPy 2, at import."""
    import cv2
    import numpy as np
    import onnxruntime

    return (
        f'NumPy {np.__version__}, OpenCV {cv2.__version__}, onnxruntime {onnxruntime.__version__}'
    )


def _driver(name: str) -> str:
    driver = open_driver(name)
    driver.close()
    package = 'cuda-bindings' if name == 'cuda_bindings' else name
    return f'opens, {importlib.metadata.version(package)}'


def _cache() -> str:
    cache = Cache()
    if not cache.folder.exists():
        return f'{cache.folder}: not made yet'
    cache.prepare()
    return f'{cache.folder}: {len(list(cache.folder.glob("*.plan")))} engines'


def _ros() -> str:
    if importlib.util.find_spec('rclpy') is None:
        raise ImportError(
            'no rclpy on the path: source your workspace, or use only the commands without ROS'
        )
    return (
        f'rclpy found, ROS_DISTRO {os.environ.get("ROS_DISTRO", "unset")}, '
        f'RMW {os.environ.get("RMW_IMPLEMENTATION", "default")}, domain '
        f'{os.environ.get("ROS_DOMAIN_ID", "0")}'
    )


def _messages() -> list[Finding]:
    """Messages through their compiled support, and the packages that are the user's choice."""
    if importlib.util.find_spec('rclpy') is None:
        return []
    from mos_perception.ros import survey
    return [
        *(_look(f'messages {name}', lambda name=name: survey.try_messages(name), bad)
          for name, (_, bad) in survey.MESSAGES.items()),
        *(_look(name, lambda name=name: survey.try_optional(name)) for name in survey.OPTIONAL),
    ]


def _topics() -> str:
    """Who publishes and subscribes what concerns us, with pairs whose QoS keeps them apart."""
    if importlib.util.find_spec('rclpy') is None:
        raise ImportError('no rclpy on the path')
    from mos_perception.ros.survey import survey
    return '; '.join(survey()) or 'no topic of frames, events or results on the network'


def _shared_memory() -> str:
    """Fast DDS takes a segment per process there; one that was killed leaves its own."""
    segments = [path.stat().st_size for path in SHARED_MEMORY.glob('fastrtps_*')]
    free = shutil.disk_usage(SHARED_MEMORY).free
    return (f'{SHARED_MEMORY}: {free >> 20} MiB free, {sum(segments) >> 20} MiB held by Fast DDS '
            '("fastdds shm clean" removes what killed processes left)')


def _paths() -> str:
    """Entries of the prefix paths that do not exist make packages vanish without a word."""
    prefixes = [path for name in ('COLCON_PREFIX_PATH', 'AMENT_PREFIX_PATH')
                for path in os.environ.get(name, '').split(os.pathsep) if path]
    if lost := [path for path in prefixes if not Path(path).is_dir()]:
        raise ValueError(f'{", ".join(lost)} does not exist: build or source the workspace again')
    return ', '.join(prefixes) or 'none set'
