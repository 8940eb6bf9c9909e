"""Modules as ONNX graphs of fixed shapes with their cards: what an import writes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mos_perception.engine.card import (
    ImageSpec,
    ModelCard,
    PostprocessSpec,
    data_file,
    save_card,
    sha256_of,
)
from mos_perception.engine.interface import TensorSpec
from mos_perception.engine.model_files import HEAD
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError
from mos_perception.motion.history import FrameWindow
from training.onnx_files import OPSET, without_traces

TOLERANCE = 1e-4
_ONE_FILE = 1 << 30  # bytes of weights: protobuf ends at 2 GiB


@dataclass(frozen=True)
class Graph:
    """A module, the inputs it is traced and checked with by name, and its outputs' names."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    image: ImageSpec
    """How the runtime must normalise an image input."""
    architecture: str = 'gmos'
    frames: FrameWindow | None = None
    """Of the graph that stands for a model of several: the frames that the model sees."""


def write_graph(graph: Graph, path: Path) -> dict[str, float]:
    """One ONNX file, with `path`.data beside it where the weights exceed 1 GiB.

    Returns the largest difference between torch and ONNX Runtime of each output, relative to the
    output's largest magnitude. Raises EngineError above `TOLERANCE`: the files are left then.
    """
    module = graph.module.eval()
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    example = tuple(graph.inputs.values())
    with torch.no_grad():
        wanted = module(*example)
        program = torch.onnx.export(
            module, example, input_names=list(graph.inputs), output_names=list(graph.outputs),
            opset_version=OPSET, dynamo=True, external_data=False, verbose=False)
    program.save(path, external_data=size > _ONE_FILE)
    del program
    onnx.save(without_traces(onnx.load(path, load_external_data=False)), path)
    onnx.checker.check_model(path)
    wanted = (wanted,) if isinstance(wanted, Tensor) else wanted
    found = OrtEngine(path, 1).run({name: value.numpy() for name, value in graph.inputs.items()})
    differences = {
        name: float(np.abs(found[name] - value.numpy()).max() / max(1.0, float(value.abs().max())))
        for name, value in zip(graph.outputs, wanted, strict=True)}
    if not max(differences.values()) <= TOLERANCE:
        raise EngineError(f'{path.name}: torch and ONNX Runtime differ by {differences}: '
                          f'must be <= {TOLERANCE}; do not use this file')
    return differences


def write_card(graph: Graph, path: Path, licence: str, about: dict[str, Any]) -> None:
    """The card beside a graph; that of a model of several graphs has the model's name."""
    loaded = onnx.load(path, load_external_data=False).graph
    inputs, outputs = (_specs(values) for values in (loaded.input, loaded.output))
    data, whole = data_file(path), graph.frames is not None
    save_card(ModelCard(
        path.stem.removesuffix(HEAD) if whole else path.stem,
        'gmos_whole' if whole else graph.architecture,
        path.name, sha256_of(path), inputs, outputs, graph.image, None, None,
        PostprocessSpec(20, 0.5), about, {}, licence,
        data_sha256=sha256_of(data) if data.exists() else None, frames=graph.frames), path)


def card_of_import(graph: Graph, path: Path, differences: dict[str, float], licence: str,
                   command: str, sources: list[str]) -> None:
    """The card of an imported graph; prints how near ONNX Runtime is to torch."""
    about: dict[str, Any] = {'command': command, 'sources': sources,
                             'onnx_difference': differences}
    if 'image' in graph.inputs:
        about['image_size'] = list(graph.inputs['image'].shape[2:])
    write_card(graph, path, licence, about)
    print(f'{path.name}: ' + ', '.join(f'{key} {value:.1e}' for key, value in differences.items()),
          flush=True)


def move_in(staged: Path, out: Path) -> list[Path]:
    """Everything of a finished folder into `out`, graphs after what they need; returns the paths.
    """
    order = {'.data': 0, '.safetensors': 1, '.onnx': 2, '.json': 3}
    found = sorted(staged.iterdir(), key=lambda path: (order.get(path.suffix, 4), path.name))
    for path in found:
        os.replace(path, out / path.name)
    return [out / path.name for path in found]


def import_parser(what: str, description: str,
                  checkpoint: str | None = None) -> argparse.ArgumentParser:
    """The arguments of every `mos import`; `checkpoint`: which file that is."""
    parser = argparse.ArgumentParser(prog=f'mos import {what}', description=description)
    parser.add_argument('--checkpoint', type=Path, required=True, help=checkpoint)
    parser.add_argument('--out', type=Path, default=Path('models'))
    return parser


def _specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(value.name, tuple(size.dim_value for size in value.type.tensor_type.shape.dim),
                   'float32') for value in values)
