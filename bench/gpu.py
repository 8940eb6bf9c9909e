"""What only a GPU can show, in one call of five minutes, also from a bare checkout. Says "no GPU" where there is none.

    python -m bench.gpu [--json PATH]

Here: the device, both driver layers (copy, event times, graph capture), and the network on each backend that runs,
with its difference to ONNX Runtime on the CPU. Not run on a GPU by us yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.engine.driver import DRIVERS, open_driver
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import EngineError, MosError

COPY_BYTES = 64 << 20
REPEATS = 50


def main() -> int:
    """Returns 0 when everything that can run here ran right, 1 on a wrong result, 3 without a GPU."""
    parser = argparse.ArgumentParser(prog='bench.gpu')
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the results there')
    parser.add_argument('--model', default='dimos_nano', metavar='NAME')
    args = parser.parse_args()
    try:
        gpu = find_gpu()
    except EngineError as error:
        print(f'no GPU: nothing was measured. {error}', file=sys.stderr)
        return 3
    result: dict[str, Any] = {'device': vars(gpu), 'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
                              'commit': _commit()}
    result['drivers'] = {name: _try(driver_check, name) for name in DRIVERS}
    result['network'] = _try(network_check, args.model)
    print(json.dumps(result, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return 1 if any(check.get('wrong') for check in [*result['drivers'].values(), result['network']]) else 0


def driver_check(name: str) -> dict[str, Any]:
    """Bytes there and back, by call and by graph, with event-timed copy bandwidth in GB/s."""
    driver = open_driver(name)
    try:
        source, target = driver.pinned((COPY_BYTES,), 'uint8'), driver.pinned((COPY_BYTES,), 'uint8')
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


def network_check(model: str) -> dict[str, Any]:
    """Median latency in ms per backend; largest relative difference of any output to ONNX Runtime's."""
    from mos_perception.engine import load_engine
    from mos_perception.engine.card import find_model
    path = find_model(model)
    reference = load_engine(path, 'onnxruntime')
    random = np.random.default_rng(0)
    feeds = {spec.name: random.standard_normal(spec.shape).astype(spec.dtype) for spec in reference.inputs}
    wanted = reference.run(feeds)
    found: dict[str, Any] = {}
    for backend in ('onnxruntime', 'tensorrt', 'tensorrt_rtx'):
        try:
            engine = load_engine(path, backend)
            got, times = engine.run(feeds), []
            for _ in range(REPEATS):
                before = time.perf_counter()
                engine.run(feeds)
                times.append(1e3 * (time.perf_counter() - before))
            error = max(float(np.abs(got[key] - wanted[key]).max() / max(np.abs(wanted[key]).max(), 1e-9))
                        for key in wanted)
            found[backend] = {'median_ms': round(float(np.median(times)), 3), 'relative_error': error}
        except MosError as error:
            found[backend] = {'not measured': str(error)}
    found['wrong'] = any(not value.get('relative_error', 0.0) < 1e-2 for value in found.values())
    return found


def _try(check: Any, argument: str) -> dict[str, Any]:
    try:
        return check(argument)
    except (MosError, ImportError) as error:
        return {'not measured': str(error)}


def _commit() -> str:
    try:
        return subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


if __name__ == '__main__':
    sys.exit(main())
