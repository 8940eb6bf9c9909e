"""ONNX to engine, on the machine that will run it: strongly typed, static shapes, precision as the
ONNX file says.

Uses only what TensorRT 10.3, 10.16, 11.x and TensorRT-RTX share.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mos_perception.engine.cache import Cache, Key, Miss
from mos_perception.engine.card import ModelCard, load_card
from mos_perception.engine.probe import Gpu, find_gpu
from mos_perception.errors import EngineError, mos_command

FLAVOURS = ('tensorrt', 'tensorrt_rtx')
MIN_TENSORRT = (10, 3)
WORKSPACE_BYTES = 4 << 30  # Pi3's attention over five frames needs 2.9e9
Progress = Callable[[str, int, int], bool]  # phase, step, steps -> go on?


def import_tensorrt(flavour: str) -> ModuleType:
    """The TensorRT module. Raises EngineError if absent or too old.

    Its Runtime needs a driver: `find_gpu` first.
    """
    try:
        trt = importlib.import_module(flavour)
    except (ImportError, OSError) as error:
        remedy = (
            'install the package python3-libnvinfer of your JetPack or CUDA repository'
            if flavour == 'tensorrt'
            else 'pip install tensorrt-rtx'
        )
        raise EngineError(
            f'{flavour} cannot be imported ({error}): {remedy}, or use "backend: onnxruntime"'
        ) from error
    version = str(getattr(trt, '__version__', 'unknown'))
    numbers = tuple(int(part) for part in version.split('.')[:2] if part.isdigit())
    if flavour == 'tensorrt' and numbers < MIN_TENSORRT:
        raise EngineError(
            f'TensorRT is {version}: at least {".".join(map(str, MIN_TENSORRT))} is needed; '
            'update to JetPack 6.1 or newer, or use "backend: onnxruntime"'
        )
    return trt


def engine_key(
    card: ModelCard, flavour: str, version: str, gpu: Gpu | None, target: str = ''
) -> Key:
    """Everything a plan depends on.

    `gpu` None: built ahead for the compute capability `target` (RTX only).
    """
    device = (
        target
        if gpu is None
        else {
            'name': gpu.name,
            'capability': list(gpu.capability),
            'sm_count': gpu.sm_count,
            'cuda': gpu.cuda,
            'driver': gpu.driver,
            'l4t': gpu.l4t,
        }
    )
    return {'onnx': card.sha256 + (card.data_sha256 or ''), 'flavour': flavour,
            'version': version, 'device': device,
            'shapes': [str(spec) for spec in card.inputs], 'workspace': WORKSPACE_BYTES}


def build_command(path: Path, flavour: str) -> str:
    """What the user should run to get the engine."""
    return mos_command(f'build --model {path} --backend {flavour}')


def build(
    path: Path,
    flavour: str,
    cache: Cache,
    progress: Progress,
    force: bool = False,
    builder: Callable[[ModuleType, Path, str, Progress], bytes] | None = None,
) -> tuple[Path, bool]:
    """Build the engine of `path` for this machine's GPU unless the cache has it.

    Returns its path and whether it was built. Raises EngineError: no GPU, no TensorRT, cancelled,
    or a failed build.
    """
    gpu = find_gpu()
    trt = import_tensorrt(flavour)
    card = load_card(path)
    key = engine_key(card, flavour, trt.__version__, gpu)
    if not force and not isinstance(cache.load(path.stem, key), Miss):
        return cache.path(path.stem, key), False
    cache.prepare()
    plan = (builder or build_plan)(trt, path, '', progress)
    if not plan:
        raise EngineError(f'{flavour} built an empty engine from {path}: see its messages above')
    return cache.store(path.stem, key, plan), True


def build_plan(trt: ModuleType, path: Path, target: str, progress: Progress) -> bytes:
    """The serialised engine. `target` ('SM89', TensorRT-RTX only) builds for another GPU and needs
    none here.

    Raises EngineError when the file does not parse, has open shapes, the build fails, or `progress`
    says no.
    """
    messages: list[str] = []
    logger = _logger(trt, messages)
    builder = trt.Builder(logger)
    # 10.x needs the flag, 11.x and RTX are strongly typed always and may lack it
    typed = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):  # finds weights in a file beside the graph
        errors = [str(parser.get_error(n)) for n in range(parser.num_errors)]
        raise EngineError(
            f'{trt.__name__} {trt.__version__} cannot parse {path}: {"; ".join(errors)[:500]}: '
            'export it again with static shapes and supported operators'
        )
    inputs = [network.get_input(n) for n in range(network.num_inputs)]
    if any(size < 0 for tensor in inputs for size in tensor.shape):
        raise EngineError(
            f'{path} has open sizes: engines are built for fixed ones; export it with static shapes'
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if target:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise EngineError(f'building the engine of {path} was cancelled: nothing was written')
    if plan is None:
        raise EngineError(
            f'{trt.__name__} {trt.__version__} cannot build {path}: {"; ".join(messages)[-500:]}'
        )
    return bytes(plan)


def model_builds(path: Path, target: str = 'SM89') -> int:
    """Bytes of the engine TensorRT-RTX builds ahead of time, without a GPU. Raises EngineError."""
    return len(build_plan(import_tensorrt('tensorrt_rtx'), path, target, lambda *_: True))


def _logger(trt: ModuleType, messages: list[str]) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                messages.append(message)
    return Logger()


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                go_on = progress(phase, step + 1, self._steps.get(phase, 0))
            except KeyboardInterrupt:  # must not travel through TensorRT's C++ frames
                go_on = False
            self.cancelled = self.cancelled or not go_on
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)
    return Monitor()
