"""A video run as ONNX files with what the runtime needs beside them: `python -m
training.export_video --run FOLDER`.

Writes `gmos_s_nano` (foreground alone) and `gmos_nano` (queries too): one network, cut twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mos_perception.engine.card import ImageSpec, ModelCard, PostprocessSpec, save_card, sha256_of
from mos_perception.engine.interface import TensorSpec
from mos_perception.errors import EngineError
from mos_perception.motion.evidence import EvidenceSpec, channel_count
from training.export import LICENCE
from training.nets.gmos_nano import GmosNano, GmosNanoConfig
from training.onnx_files import OPSET, without_traces
from training.video_batches import MEAN, STD

SCORE_THRESHOLD = 0.3
INPUTS = ('image', 'evidence', 'colour')
FOREGROUND = ('foreground_logits', 'foreground_quality')
MEMBERS = {
    'gmos_s_nano': FOREGROUND,
    'gmos_nano': (*FOREGROUND, 'mask_logits', 'motion_logits', 'quality', 'embeddings'),
}


class Member(nn.Module):
    """The outputs of one member, in order."""

    def __init__(self, network: GmosNano, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, image: Tensor, evidence: Tensor, colour: Tensor) -> tuple[Tensor, ...]:
        """As `GmosNano.forward`, as a tuple."""
        found = self.network(image, evidence, colour)
        return tuple(found[name] for name in self.outputs)


def load_run(run: Path) -> tuple[GmosNano, dict[str, Any]]:
    """The averaged weights of a run, in evaluation mode, and its `state.json`."""
    state = json.loads((run / 'state.json').read_text(encoding='utf-8'))
    config = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in state['config'].items()
    }
    network = GmosNano(GmosNanoConfig(**config))
    network.load_state_dict(load_file(run / 'average.safetensors'))
    return network.eval(), state


def write_member(network: GmosNano, name: str, path: Path, spec: EvidenceSpec) -> dict[str, float]:
    """One ONNX file, batch 1, static shapes; replaced atomically.

    Returns the largest difference between torch and ONNX Runtime by output. Raises EngineError
    above 1e-3.
    """
    outputs = MEMBERS[name]
    rng = torch.Generator().manual_seed(0)
    example = (
        torch.randn(1, 3, *spec.size, generator=rng),
        torch.randn(1, channel_count(spec), *spec.size, generator=rng),
        torch.randn(1, 1, *spec.size, generator=rng),
    )
    module = Member(network, outputs).eval()
    part = path.with_suffix('.part.onnx')
    program = torch.onnx.export(
        module,
        example,
        input_names=list(INPUTS),
        output_names=list(outputs),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    program.save(part, external_data=False)
    onnx.save(without_traces(onnx.load(part)), part)
    onnx.checker.check_model(part, full_check=True)
    session = onnxruntime.InferenceSession(part, providers=['CPUExecutionProvider'])
    found = session.run(list(outputs), dict(zip(INPUTS, (x.numpy() for x in example), strict=True)))
    with torch.no_grad():
        expected = module(*example)
    differences = {
        key: float(np.abs(a - b.numpy()).max())
        for key, a, b in zip(outputs, found, expected, strict=True)
    }
    if max(differences.values()) > 1e-3:
        raise EngineError(
            f'{path}: torch and ONNX Runtime differ by {differences}: '
            'must be <= 0.001; do not ship this file'
        )
    os.replace(part, path)
    return differences


def describe(name: str, path: Path, spec: EvidenceSpec, about: dict[str, Any]) -> None:
    """The card beside the model: tensors, normalisation, evidence, training."""
    graph = onnx.load(path).graph
    inputs, outputs = (
        tuple(
            TensorSpec(
                value.name,
                tuple(size.dim_value for size in value.type.tensor_type.shape.dim),
                'float32',
            )
            for value in values
        )
        for values in (graph.input, graph.output)
    )
    save_card(
        ModelCard(
            name,
            'gmos',
            path.name,
            sha256_of(path),
            inputs,
            outputs,
            ImageSpec(MEAN, STD),
            None,
            None,
            PostprocessSpec(8, SCORE_THRESHOLD),
            about,
            {},
            LICENCE,
            spec,
        ),
        path,
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Export a video run as ONNX.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=Path('models'))
    parser.add_argument(
        '--foreground-from',
        type=float,
        default=0.0,
        help="logit from which a pixel is foreground: taken off the map, so that the files' is 0",
    )
    given = parser.parse_args(arguments)
    spec = EvidenceSpec()
    network, state = load_run(given.run)
    with torch.no_grad():
        network.foreground.bias -= given.foreground_from
    for name in MEMBERS:
        if network.decoder is None and name == 'gmos_nano':
            continue
        member = network if name == 'gmos_nano' else foreground_alone(network)
        path = given.out / f'{name}.onnx'
        differences = write_member(member, name, path, spec)
        parameters = sum(value.numel() for value in member.parameters())
        about = {
            'data': 'rendered clips of the presets video, video-still, video-water and '
            'train-frames (training.scenes.cache)',
            'command': 'python -m training.train_video',
            'foreground_from': given.foreground_from,
            'parameters': parameters,
            'onnx_difference': differences,
            **{key: state[key] for key in ('seconds', 'steps', 'config')},
        }
        describe(name, path, spec, about)
        print(f'{path} {path.stat().st_size / 1e6:.1f} MB, {parameters} parameters, {differences}')


def foreground_alone(network: GmosNano) -> GmosNano:
    """The same network without its queries."""
    alone = GmosNano(dataclasses.replace(network.config, queries=0)).eval()
    wanted = alone.state_dict().keys()
    alone.load_state_dict(
        {key: value for key, value in network.state_dict().items() if key in wanted}
    )
    return alone


if __name__ == '__main__':
    main()
