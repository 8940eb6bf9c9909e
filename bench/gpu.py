"""What only a GPU can show, in one call of five minutes, also from a bare checkout. Says "no GPU"
where there is none.

    python -m bench.gpu [--json PATH]

The device; both driver layers (copy, event times, graph capture); with each, every kernel against
the CPU path, bit by bit; event-timed medians; compute-sanitizer over the kernels; the network on
each backend that runs, with its difference to ONNX Runtime on the CPU, and the whole frame around
it; DIMOS with ResNet-50 in torch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_kernels import Gpu, compare, measure
from mos_perception.datatypes import EventWindow, Frame, SyncedInput
from mos_perception.engine.driver import DRIVERS, Driver, open_driver
from mos_perception.engine.interface import DeviceEngine
from mos_perception.engine.kernels import compile_cubin
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import EngineError, MosError
from mos_perception.models.dimos.cuda import SOURCES

COPY_BYTES = 64 << 20
REPEATS = 50


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when everything that can run here ran right, 1 on a wrong result, 3 without a GPU.
    """
    parser = argparse.ArgumentParser(prog='bench.gpu')
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the results there')
    parser.add_argument('--model', default='dimos_nano', metavar='NAME')
    parser.add_argument(
        '--kernels-only', action='store_true', help='compare small cases: what a sanitizer watches'
    )
    args = parser.parse_args(arguments)
    try:
        gpu = find_gpu()
    except EngineError as error:
        print(f'no GPU: nothing was measured. {error}', file=sys.stderr)
        return 3
    if args.kernels_only:
        return int(kernel_check('auto', (0, 1, 20_000), False)['wrong'])
    result: dict[str, Any] = {
        'device': vars(gpu),
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'commit': _commit(),
        'drivers': {},
    }
    for name in DRIVERS:
        result['drivers'][name] = _try(lambda name=name: driver_check(name))
        result['drivers'][f'{name}, kernels'] = _try(lambda name=name: kernel_check(name))
    result['sanitizer'] = {
        tool: _try(lambda tool=tool: sanitizer_check(tool)) for tool in ('memcheck', 'racecheck')
    }
    result['network'] = _try(lambda: network_check(args.model))
    result['torch'] = _try(torch_check)
    print(json.dumps(result, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    checks = [
        *result['drivers'].values(),
        *result['sanitizer'].values(),
        result['network'],
        result['torch'],
    ]
    return int(any(check.get('wrong') for check in checks))


def driver_check(name: str) -> dict[str, Any]:
    """Bytes there and back, by call and by graph, with event-timed copy bandwidth in GB/s."""
    driver = open_driver(name)
    try:
        source, target = (
            driver.pinned((COPY_BYTES,), 'uint8'),
            driver.pinned((COPY_BYTES,), 'uint8'),
        )
        source[:] = np.random.default_rng(0).integers(0, 256, COPY_BYTES, np.uint8)
        memory, stream = driver.alloc(COPY_BYTES), driver.stream()
        start, end, times = driver.event(), driver.event(), []
        for _ in range(REPEATS):
            driver.record(start, stream)
            driver.h2d(memory, source, stream)
            driver.record(end, stream)
            times.append(driver.elapsed_ms(start, end))
        replay = driver.capture(lambda: driver.d2h(target, memory, stream), stream)
        replay()
        driver.synchronize(stream)
        wrong = not np.array_equal(source, target)
        driver.memset(memory, 7, COPY_BYTES, stream)
        replay()
        driver.synchronize(stream)
        wrong = wrong or bool((target != 7).any())
        return {'wrong': wrong, 'upload_gb_s': round(COPY_BYTES / np.median(times) / 1e6, 2)}
    finally:
        driver.close()


def kernel_check(
    name: str, sizes: tuple[int, ...] = (0, 1, 20_000, 1_000_000), timing: bool = True
) -> dict[str, Any]:
    """Which kernels differ from the CPU path, and the medians of `gpu_kernels.measure`."""
    driver: Driver = open_driver(name)
    try:
        sources = SOURCES | {'evt3': SOURCES['voxel'].with_name('evt3.cu')}
        modules = {kernels: driver.load_cubin(compile_cubin(path, find_gpu().capability))
                   for kernels, path in sources.items()}
        gpu = Gpu(driver, driver.stream(), modules)
        cases = compare(gpu, sizes)
        found = {'wrong': not all(cases.values()), 'cases': len(cases),
                 'different': [case for case, same in cases.items() if not same]}
        return found | (measure(gpu) if timing else {})
    finally:
        driver.close()


def sanitizer_check(tool: str) -> dict[str, Any]:
    """compute-sanitizer over the small cases."""
    path = shutil.which('compute-sanitizer') or shutil.which(
        'compute-sanitizer', path='/usr/local/cuda/bin'
    )
    if path is None:
        return {
            'not measured': 'compute-sanitizer is not installed: it comes with the CUDA toolkit'
        }
    done = subprocess.run(
        [
            path,
            '--tool',
            tool,
            '--error-exitcode',
            '9',
            sys.executable,
            '-m',
            'bench.gpu',
            '--kernels-only',
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return {'wrong': done.returncode != 0, 'says': (done.stdout + done.stderr)[-300:]}


def network_check(model: str) -> dict[str, Any]:
    """Median latency in ms per backend; largest relative difference of any output to ONNX
    Runtime's.
    """
    from mos_perception.engine import BACKENDS, load_engine
    from mos_perception.engine.model_files import find_model
    path = find_model(model)
    reference = load_engine(path, 'onnxruntime')
    random = np.random.default_rng(0)
    feeds = {
        spec.name: random.standard_normal(spec.shape).astype(spec.dtype)
        for spec in reference.inputs
    }
    wanted = reference.run(feeds)
    found: dict[str, Any] = {}
    for backend in BACKENDS[1:]:
        try:
            engine = load_engine(path, backend)
            got = engine.run(feeds)
            error = max(
                float(np.abs(got[key] - wanted[key]).max() / max(np.abs(wanted[key]).max(), 1e-9))
                for key in wanted
            )
            found[backend] = {
                'median_ms': _median_ms(lambda engine=engine: engine.run(feeds)),
                'relative_error': error,
            }
            if isinstance(engine, DeviceEngine):
                found[backend] |= frame_check(engine, path)
        except MosError as error:
            found[backend] = {'not measured': str(error)}
    found['wrong'] = any(not value.get('relative_error', 0.0) < 5e-2 for value in found.values())
    return found


def frame_check(engine: DeviceEngine, path: Path) -> dict[str, Any]:
    """The whole frame at 640x480 with 100,000 events, upload to label image, and what of it is not
    the network.
    """
    from bench.gpu_kernels import SENSOR, SPAN_NS, events
    from mos_perception.engine.card import load_card
    from mos_perception.models.dimos.cuda import DimosCuda
    from mos_perception.stages import StageTimes
    model = DimosCuda(engine, load_card(path))
    window = EventWindow(events('clustered', 100_000), 0, SPAN_NS, *SENSOR)
    frame = Frame(0, np.random.default_rng(0).integers(0, 256, (*SENSOR, 3)).astype(np.uint8))

    def whole() -> None:
        model.detect(SyncedInput(0, '', frame, window, SENSOR), StageTimes())

    def network() -> None:
        engine.enqueue()
        engine.driver.synchronize(engine.stream)
    whole()
    both = _median_ms(whole), _median_ms(network)
    return {
        'whole_frame_ms': both[0],
        'network_alone_ms': both[1],
        'beyond_network_ms': both[0] - both[1],
    }


def torch_check() -> dict[str, Any]:
    """DIMOS with ResNet-50 at 384x512, random weights: torch eager fp32, and fp16 in a CUDA graph.
    """
    try:
        import torch

        from training.nets.dimos import Dimos
        from training.nets.dimos_config import RELEASED
    except ImportError as error:
        return {'not measured': str(error)}
    if not torch.cuda.is_available():
        return {'not measured': 'this torch has no CUDA: install its CUDA build'}
    torch.manual_seed(0)
    network = Dimos(RELEASED).eval().cuda()
    image, voxel = torch.rand(1, 3, 384, 512).cuda(), torch.rand(1, 10, 384, 512).cuda()

    def run() -> Any:
        with torch.inference_mode():
            return network.infer(image, voxel)

    def eager() -> None:
        run()
        torch.cuda.synchronize()
    eager()
    found = {'eager_fp32_ms': _median_ms(eager)}
    network, image, voxel = network.half(), image.half(), voxel.half()
    for _ in range(3):
        eager()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()
    found['graph_fp16_ms'] = _median_ms(replay)
    return found | {'times_faster': found['eager_fp32_ms'] / found['graph_fp16_ms']}


def _median_ms(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - before))
    return round(float(np.median(times)), 3)


def _try(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return check()
    except (MosError, ImportError, subprocess.TimeoutExpired) as error:
        return {'not measured': str(error)}


def _commit() -> str:
    try:
        return subprocess.run(
            ['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


if __name__ == '__main__':
    sys.exit(main())
