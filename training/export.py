"""Turn a run's checkpoint into an ONNX file with its card.

`python -m training.export --run runs/dimos_nano --out models/dimos_nano.onnx [--fp16]`

`--fp16` writes `..._fp16.onnx` too: the same graph in half precision for GPUs, inputs and outputs
still float32.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

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
from mos_perception.errors import EngineError
from training.command import command
from training.datasets.batches import MEAN, STD
from training.nets.dimos import Dimos
from training.nets.macs import count_macs
from training.onnx_files import OUTPUTS, example, write_fp16, write_onnx
from training.recipes import RECIPES, Recipe
from training.state import State, load, read_metadata

LICENCE = 'same as the code; trained on rendered scenes only'


def export(run: Path, recipe: Recipe, path: Path, tolerance: float = 1e-4,
           fp16: bool = False) -> dict[str, float]:
    """Write the ONNX file and its card, and the half-precision pair with `fp16`.

    Returns the (last file's) `difference`. Raises EngineError where that of float32 exceeds
    `tolerance`; that of half precision is only reported.
    """
    state = load(run, recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(state.network, path)
    differences = difference(state.network, path)
    if max(differences.values()) > tolerance:
        raise EngineError(f'{path}: torch and ONNX Runtime differ by {differences} (relative): '
                          f'must be <= {tolerance}; do not ship this file')
    metadata = read_metadata(run, 'train it first')
    about = {'data': metadata['data'], 'command': metadata['command'], 'origin': state.origin,
             'commit': commit(), 'onnx_difference': differences, 'last_losses': state.metrics}
    save_card(card(state, recipe, path, about), path)
    if fp16:
        half = write_fp16(path)
        differences = difference(state.network, half)
        about |= {'precision': 'fp16', 'onnx_difference': differences}
        save_card(card(state, recipe, half, about), half)
    return differences


@torch.no_grad()
def difference(network: Dimos, path: Path) -> dict[str, float]:
    """Largest |torch - ONNX Runtime| of each output, relative to its largest magnitude."""
    inputs = example(network)
    wanted = dict(zip(OUTPUTS, network.eval().infer(*inputs.values())))
    found = OrtEngine(path, 1).run({name: value.numpy() for name, value in inputs.items()})
    return {name: float(np.abs(found[name] - value.numpy()).max() / value.abs().max())
            for name, value in wanted.items()}


def card(state: State, recipe: Recipe, path: Path, about: dict) -> ModelCard:
    """The card of an exported run."""
    about = {'recipe': recipe.name, 'steps': state.step, 'seconds': round(state.seconds),
             'machine': f'{platform.machine()}, {os.cpu_count()} cores, CPU', **about}
    window = WindowSpec('before', round(recipe.window_ns / 1e6, 6))
    return card_of(state.network, recipe, path, about, window, LICENCE)


def card_of(network: Dimos, recipe: Recipe, path: Path, about: dict, window: WindowSpec,
            licence: str) -> ModelCard:
    """The card of an exported network with the voxels of a recipe."""
    engine, voxel = OrtEngine(path, 1), recipe.voxel
    return ModelCard(
        id=path.stem,
        architecture='dimos',
        file=path.name,
        sha256=sha256_of(path),
        inputs=tuple(TensorSpec(s.name, s.shape, s.dtype) for s in engine.inputs),
        outputs=tuple(TensorSpec(s.name, s.shape, s.dtype) for s in engine.outputs),
        image=ImageSpec(_rounded(MEAN), _rounded(STD)),
        voxel=VoxelSpec(voxel.formulation, voxel.bins, voxel.normalise, voxel.norm_floor,
                        voxel.resize, recipe.compensated),
        window=window,
        # the background query takes one of the Q x 2 slots
        postprocess=PostprocessSpec(top_k=recipe.net.queries, score_threshold=0.1),
        training={
            'parameters': sum(p.numel() for p in network.parameters()),
            'macs': count_macs(network),
            'torch': torch.__version__,
            **about,
        },
        scores={},
        licence=licence,
        evidence=recipe.evidence,
    )


def commit() -> str:
    """The commit of the code that exports, '+' if the tree differs from it.

    '' outside a repository.
    """
    def git(*words: str) -> str:
        done = subprocess.run(['git', *words], capture_output=True, text=True,
                              cwd=Path(__file__).parent, check=False)
        return done.stdout.strip()

    return git('rev-parse', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else '')


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


@command('export')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Export a checkpoint as ONNX with its card.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano')
    parser.add_argument('--fp16', action='store_true', help='write a half-precision file too')
    args = parser.parse_args(arguments)
    differences = export(args.run, RECIPES[args.recipe], args.out, fp16=args.fp16)
    size = args.out.stat().st_size / 1e6
    relative = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
    print(f'{args.out} ({size:.1f} MB); torch against ONNX Runtime, relative: {relative}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
