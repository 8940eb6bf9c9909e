"""A network as an ONNX file, in single and in half precision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from mos_perception.errors import EngineError
from training.nets.dimos import Dimos, Inference

OPSET = 18
MAX_DIFFERENCE = 1e-4
OUTPUTS = ('class_logits', 'mask_logits', 'boxes', 'embeddings')
# their sums overflow at 65504 or lose the small terms
_FLOAT32_OPERATIONS = ('LayerNormalization', 'InstanceNormalization', 'GroupNormalization',
                       'ReduceL2', 'Softmax')


def example(network: Dimos) -> dict[str, torch.Tensor]:
    """Reproducible inputs that look like data, by name.

    Image and evidence about N(0, 1), voxel sparse in [0, 1].
    """
    rng = torch.Generator().manual_seed(0)
    shapes = {name: (1, planes, *network.config.size)
              for name, planes in network.config.inputs.items()}
    voxel = torch.rand(shapes['voxel'], generator=rng)
    return {name: voxel * (voxel > 0.9) if name == 'voxel' else
            torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def write_onnx(network: Dimos, path: Path) -> None:
    """One file, static shapes, batch 1; replaced atomically.

    Raises EngineError if the graph is not valid ONNX.
    """
    part = path.with_suffix('.part.onnx')
    module = Inference(network.to(memory_format=torch.contiguous_format)).eval()
    inputs = example(network)
    program = torch.onnx.export(
        module, tuple(inputs.values()), input_names=list(inputs), output_names=list(OUTPUTS),
        opset_version=OPSET, dynamo=True, external_data=False, verbose=False)
    program.save(part, external_data=False)
    onnx.save(without_traces(onnx.load(part)), part)
    try:
        onnx.checker.check_model(part, full_check=True)
    except onnx.checker.ValidationError as error:
        raise EngineError(f'{part} is not valid ONNX ({error}): the exporter of torch '
                          f'{torch.__version__} broke; try another version') from error
    os.replace(part, path)


def write_dynamic(module: torch.nn.Module, path: Path, inputs: Sequence[str],
                  outputs: Sequence[str], shapes: Any,
                  examples: Sequence[tuple[torch.Tensor, ...]]) -> float:
    """One file whose sizes are left open as `shapes` says (torch.export's dynamic shapes), traced
    with the first of the examples and compared on all of them; replaced atomically.

    Returns the largest difference between torch and ONNX Runtime. Raises EngineError above 1e-4.
    """
    part = path.with_suffix('.part.onnx')
    program = torch.onnx.export(module, examples[0], input_names=list(inputs),
                                output_names=list(outputs), dynamic_shapes=shapes,
                                opset_version=OPSET, dynamo=True, external_data=False,
                                verbose=False)
    program.save(part, external_data=False)
    onnx.save(without_traces(onnx.load(part)), part)
    onnx.checker.check_model(part, full_check=True)
    session = onnxruntime.InferenceSession(part, providers=['CPUExecutionProvider'])
    largest = 0.0
    for example_inputs in examples:
        found = session.run(list(outputs), {name: value.numpy() for name, value
                                            in zip(inputs, example_inputs, strict=True)})
        with torch.no_grad():
            expected = module(*example_inputs)
        largest = max([largest, *(float(np.abs(a - b.numpy()).max())
                                  for a, b in zip(found, expected, strict=True))])
    if not largest <= MAX_DIFFERENCE:
        part.unlink()
        raise EngineError(f'{path}: torch and ONNX Runtime differ by {largest}: must be <= '
                          f'{MAX_DIFFERENCE}; do not ship this file')
    os.replace(part, path)
    return largest


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes: stack traces with this machine's paths."""
    graph = model.graph
    nodes = [node for part in (graph, *model.functions) for node in part.node]
    for item in (graph, *nodes, *graph.value_info, *graph.input, *graph.output,
                 *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ''
    return model


def write_fp16(path: Path) -> Path:
    """`<name>_fp16.onnx` beside a float32 model: weights and arithmetic in half precision.

    Inputs and outputs are float32, and normalisations and softmax stay so.
    """
    half = path.with_name(f'{path.stem}_fp16.onnx')
    model = convert_float_to_float16(
        onnx.load(path), keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATIONS])
    # a weight that two float32 nodes share is cast twice under one name: one cast serves both
    nodes = {node.output[0]: node for node in reversed(model.graph.node)}
    kept = [node for node in model.graph.node if nodes[node.output[0]] is node]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    part = half.with_suffix('.part.onnx')
    onnx.save(model, part)
    os.replace(part, half)
    return half
