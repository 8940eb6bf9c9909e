"""Turn a run's checkpoint into an ONNX file with its card.

`python -m training.export --run runs/dimos_nano --out models/dimos_nano.onnx [--fp16]`

`--fp16` writes `..._fp16.onnx` too: the same graph in half precision for GPUs, inputs and outputs still float32.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from mos_perception.engine.card import (
    ImageSpec,
    ModelCard,
    PostprocessSpec,
    VoxelSpec,
    WindowSpec,
    save_card,
    sha256_of,
)
from mos_perception.engine.interface import TensorSpec
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError, MosError
from training.datasets.clips import MEAN, STD
from training.nets.dimos import Dimos, Inference, count_macs
from training.recipes import RECIPES, Recipe
from training.state import State, load, read_side

OPSET = 18
OUTPUTS = ('class_logits', 'mask_logits', 'boxes', 'embeddings')
LICENCE = 'same as the code; trained on rendered scenes only'


def example(network: Dimos) -> tuple[torch.Tensor, torch.Tensor]:
    """A reproducible input pair that looks like data: image about N(0, 1), voxel sparse in [0, 1]."""
    rng = torch.Generator().manual_seed(0)
    height, width = network.config.size
    voxel = torch.rand(1, network.config.event_channels, height, width, generator=rng)
    return torch.randn(1, 3, height, width, generator=rng), voxel * (voxel > 0.9)


def write_onnx(network: Dimos, path: Path) -> None:
    """One file, static shapes, batch 1; replaced atomically. Raises EngineError if the graph is not valid ONNX."""
    part = path.with_suffix('.part.onnx')
    module = Inference(network.to(memory_format=torch.contiguous_format)).eval()
    program = torch.onnx.export(module, example(network), input_names=['image', 'voxel'], output_names=list(OUTPUTS),
                                opset_version=OPSET, dynamo=True, external_data=False, verbose=False)
    program.save(part, external_data=False)
    onnx.save(without_traces(onnx.load(part)), part)
    try:
        onnx.checker.check_model(part, full_check=True)
    except onnx.checker.ValidationError as error:
        raise EngineError(f'{part} is not valid ONNX ({error}): the exporter of torch {torch.__version__} broke; '
                          'try another version') from error
    os.replace(part, path)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes: stack traces with this machine's paths, in every node."""
    graphs = [model.graph, *model.functions]
    for item in [model.graph, *(part for graph in graphs for part in graph.node), *model.graph.value_info,
                 *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ''
    return model


def write_fp16(path: Path) -> Path:
    """`<name>_fp16.onnx` beside a float32 model: weights and arithmetic in half precision, float32 inputs and outputs.

    Normalisations and softmax stay float32: their sums overflow at 65504 or lose the small terms.
    """
    half = path.with_name(f'{path.stem}_fp16.onnx')
    model = convert_float_to_float16(onnx.load(path), keep_io_types=True, op_block_list=[
        *DEFAULT_OP_BLOCK_LIST, 'LayerNormalization', 'InstanceNormalization', 'GroupNormalization', 'ReduceL2',
        'Softmax'])
    # a weight that two float32 nodes share is cast twice under one name: one cast serves both
    nodes = {node.output[0]: node for node in reversed(model.graph.node)}
    kept = [node for node in model.graph.node if nodes[node.output[0]] is node]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    part = half.with_suffix('.part.onnx')
    onnx.save(model, part)
    os.replace(part, half)
    return half


@torch.no_grad()
def parity(network: Dimos, path: Path) -> dict[str, float]:
    """Largest |torch - ONNX Runtime| of each output, relative to the output's largest magnitude."""
    image, voxel = example(network)
    wanted = dict(zip(OUTPUTS, network.eval().infer(image, voxel)))
    found = OrtEngine(path, 1).run({'image': image.numpy(), 'voxel': voxel.numpy()})
    return {name: float(np.abs(found[name] - value.numpy()).max() / value.abs().max())
            for name, value in wanted.items()}


def card(state: State, recipe: Recipe, path: Path, about: dict) -> ModelCard:
    """The card of an exported run."""
    engine, voxel = OrtEngine(path, 1), recipe.voxel
    specs = [tuple(TensorSpec(s.name, s.shape, s.dtype) for s in side) for side in (engine.inputs, engine.outputs)]
    return ModelCard(
        id=path.stem, architecture='dimos', file=path.name, sha256=sha256_of(path), inputs=specs[0], outputs=specs[1],
        image=ImageSpec(*(tuple(round(float(value), 6) for value in values) for values in (MEAN, STD))),
        voxel=VoxelSpec(voxel.formulation, voxel.bins, voxel.normalise, voxel.norm_floor, voxel.resize),
        window=WindowSpec('before', round(recipe.window_ns / 1e6, 6)),
        # the background query takes one of the Q x 2 slots
        postprocess=PostprocessSpec(top_k=recipe.net.queries, score_threshold=0.1),
        training={'recipe': recipe.name, 'steps': state.step, 'seconds': round(state.seconds),
                  'parameters': sum(p.numel() for p in state.network.parameters()), 'macs': count_macs(state.network),
                  'machine': f'{platform.machine()}, {os.cpu_count()} cores, CPU', 'torch': torch.__version__, **about},
        scores={}, licence=LICENCE)


def commit() -> str:
    """The commit of the code that exports, '+' if the tree differs from it; '' outside a repository."""
    def git(*words: str) -> str:
        done = subprocess.run(['git', *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
        return done.stdout.strip()
    return git('rev-parse', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else '')


def export(run: Path, recipe: Recipe, path: Path, tolerance: float = 1e-4, fp16: bool = False) -> dict[str, float]:
    """Write the ONNX file and its card, and the half-precision pair with `fp16`; returns the (last file's) parity.

    Raises EngineError where the float32 parity exceeds `tolerance`; half precision is only reported.
    """
    state = load(run, recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(state.network, path)
    differences = parity(state.network, path)
    if max(differences.values()) > tolerance:
        raise EngineError(f'{path}: torch and ONNX Runtime differ by {differences} (relative): must be <= {tolerance}; '
                          'do not ship this file')
    side = read_side(run, 'train it first')
    about = {'data': side['data'], 'command': side['command'], 'origin': state.origin, 'commit': commit(),
             'onnx_parity': differences, 'last_losses': state.metrics}
    save_card(card(state, recipe, path, about), path)
    if fp16:
        half = write_fp16(path)
        differences = parity(state.network, half)
        save_card(card(state, recipe, half, {**about, 'precision': 'fp16', 'onnx_parity': differences}), half)
    return differences


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Export a checkpoint as ONNX with its card.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano')
    parser.add_argument('--fp16', action='store_true', help='write a half-precision file too')
    given = parser.parse_args(arguments)
    try:
        differences = export(given.run, RECIPES[given.recipe], given.out, fp16=given.fp16)
    except MosError as error:
        print(f'export: {error}', file=sys.stderr)
        return 1
    size = given.out.stat().st_size / 1e6
    print(f'{given.out} ({size:.1f} MB); torch against ONNX Runtime, relative: '
          + ', '.join(f'{name} {value:.1e}' for name, value in differences.items()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
