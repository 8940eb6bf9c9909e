"""A network as an ONNX file, in single and in half precision."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import torch
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from mos_perception.errors import EngineError
from training.nets.dimos import Dimos, Inference

OPSET = 18
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
