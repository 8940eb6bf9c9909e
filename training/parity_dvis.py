"""What DVIS' tracker and refiner are at the published size, in one command: `python -m
training.parity_dvis`.

Parameters beside the paper's, tensors in and out, the difference between torch and ONNX Runtime,
and the time of one step of the tracker with 10 queries, for the published size and for the shipped
`referring_nano`. The arithmetic is held against the equations in `test/training/test_dvis.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from mos_perception.engine.model_files import find_model
from mos_perception.engine.ort import OrtEngine
from mos_perception.tracking.tracker_card import load_tracker_card, tensors
from training.import_dvis import Answer
from training.nets.dvis import ReferringTracker, TemporalRefiner
from training.onnx_files import OPSET

PUBLISHED = {'tracker': 9.68, 'refiner': 14.41}
QUERIES = 10
_STEPS = 50


def exported(network: ReferringTracker | TemporalRefiner, inputs: tuple[Tensor, ...],
             folder: Path) -> tuple[onnxruntime.InferenceSession, float]:
    """The network in ONNX Runtime on two threads, and its largest difference from torch."""
    module, path = Answer(network).eval(), folder / 'network.onnx'
    torch.onnx.export(module, inputs, path, opset_version=OPSET, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    found = session.run(None, feed(session, inputs))
    with torch.no_grad():
        expected = module(*inputs)
    return session, max(float(np.abs(a - b.numpy()).max())
                        for a, b in zip(found, expected, strict=True))


def feed(session: onnxruntime.InferenceSession,
         inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """Inputs by name."""
    return {spec.name: value.numpy()
            for spec, value in zip(session.get_inputs(), inputs, strict=True)}


def published(folder: Path) -> None:
    """Print what the published sizes are."""
    torch.manual_seed(0)
    slots, width = (1, QUERIES, 256), 256
    cases = {'tracker': (ReferringTracker(), [slots, slots, slots]),
             'refiner': (TemporalRefiner(), [(1, 21, QUERIES, width)] * 2)}
    for name, (network, shapes) in cases.items():
        inputs = tuple(torch.randn(shape) for shape in shapes)
        session, difference = exported(network, inputs, folder)
        count = sum(value.numel() for value in network.parameters())
        print(f'{name}: {count} parameters, published {PUBLISHED[name]} M; {shapes} -> '
              f'{[tuple(value.shape) for value in Answer(network)(*inputs)]}; torch and ONNX '
              f'Runtime differ by {difference:.1g}')
        if name == 'tracker':
            values = feed(session, inputs)
            print(f'  one step, {QUERIES} queries, 2 threads: '
                  f'{milliseconds(partial(session.run, None, values)):.2f} ms')


def nano() -> None:
    """Print what a step of the shipped tracker takes."""
    path = find_model('referring_nano', 'trackers')
    card, engine = load_tracker_card(path), OrtEngine(path, threads=1)
    values = {spec.name: np.zeros([size or QUERIES for size in spec.shape], np.float32)
              for spec in tensors(card.embeddings, card.width)[0]}
    print(f'referring_nano: {card.training["parameters"]} parameters; one step, {QUERIES} queries '
          f'and slots, 1 thread: {milliseconds(lambda: engine.run(values)):.2f} ms')


def milliseconds(step: Callable[[], object]) -> float:
    """The fastest of some calls: what others on the machine take is left out."""
    found = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return 1e3 * min(found)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        published(Path(folder))
    nano()


if __name__ == '__main__':
    main()
