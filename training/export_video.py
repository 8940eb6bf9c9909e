"""A video run as ONNX files with what the runtime needs beside them: `python -m
training.export_video --run FOLDER`.

Writes `gmos_s_nano` (foreground alone), `gmos_nano` (queries too) and, of a run with events,
`dimos_light` (which sees them): one network, cut as each needs it. Of a run of single pictures
(`--movable`) `movable_nano`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mos_perception.engine.card import (
    ImageSpec,
    ModelCard,
    PostprocessSpec,
    WindowSpec,
    save_card,
    sha256_of,
)
from mos_perception.engine.interface import TensorSpec
from mos_perception.errors import EngineError
from mos_perception.models.gmos.model import half
from mos_perception.motion.evidence import EvidenceSpec, channel_count
from training.export import LICENCE
from training.nets.gmos_nano import GmosNano, resized_to
from training.onnx_files import OPSET, without_traces
from training.video_batches import MEAN, STD
from training.video_cache import OF_EVENTS, OF_VIDEO, VOXEL, WINDOW_NS
from training.video_run import load_run

FOREGROUND = ('foreground_logits', 'foreground_quality')
OBJECTS = ('mask_logits', 'motion_logits', 'quality', 'embeddings')
MEMBERS = {
    'gmos_s_nano': (False, False, 0.3),
    'gmos_nano': (True, False, 0.3),
    'dimos_light': (True, True, 0.43),
    'movable_nano': (True, False, 0.5),
}
"""By name: whether it has queries, whether it sees events, and from which score on it reports,
chosen on rendered clips of split `val`.
"""
OF_PICTURES = 'movable_nano'
DATA = {
    True: 'frames of rendered clips of the presets video, video-still, video-water and train-frames'
    ', all objects labelled, those at rest too (training.scenes.cache)',
    False: 'rendered clips of the presets video, video-still, video-water, train-frames, mid, '
    'train, still and easy (training.scenes.cache)',
}
"""What a run saw, by whether it was of single pictures."""


class Member(nn.Module):
    """The outputs of one member, in order."""

    def __init__(self, network: GmosNano) -> None:
        super().__init__()
        self.network = network
        self.outputs = FOREGROUND if network.decoder is None else FOREGROUND + OBJECTS

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As `GmosNano.forward`, as a tuple; of the image alone where there are no gaps."""
        found = self.network(*inputs)
        return tuple(found[name] for name in self.outputs)


def example(network: GmosNano, spec: EvidenceSpec) -> dict[str, Tensor]:
    """Reproducible inputs by name."""
    rng = torch.Generator().manual_seed(0)
    planes = {'image': 3, 'evidence': channel_count(spec), 'colour': 1}
    if network.geometry is None:
        planes = {'image': 3}
    inputs = {name: torch.randn(1, count, *spec.size, generator=rng)
              for name, count in planes.items()}
    if network.events is not None:
        shape = (1, network.config.event_channels, *half(spec.size))
        inputs['voxel'] = torch.rand(shape, generator=rng)
    return inputs


def write_member(network: GmosNano, path: Path, spec: EvidenceSpec) -> dict[str, float]:
    """One ONNX file, batch 1, static shapes; replaced atomically.

    Returns the largest difference between torch and ONNX Runtime by output. Raises EngineError
    above 1e-3.
    """
    inputs = example(network, spec)
    module = Member(network).eval()
    outputs = module.outputs
    part = path.with_suffix('.part.onnx')
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        input_names=list(inputs),
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
    found = session.run(list(outputs), {key: value.numpy() for key, value in inputs.items()})
    with torch.no_grad():
        expected = module(*inputs.values())
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
    _, sees_events, threshold = MEMBERS[name]
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
            'mosis' if name == OF_PICTURES else 'gmos',
            path.name,
            sha256_of(path),
            inputs,
            outputs,
            ImageSpec(MEAN, STD),
            VOXEL if sees_events else None,
            WindowSpec('before', WINDOW_NS / 1e6) if sees_events else None,
            PostprocessSpec(8, threshold),
            about,
            {},
            LICENCE,
            None if name == OF_PICTURES else spec,
        ),
        path,
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Export a video run as ONNX.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=Path('models'))
    parser.add_argument('--members', nargs='+', choices=MEMBERS, default=list(MEMBERS))
    parser.add_argument(
        '--foreground-from',
        type=float,
        default=0.0,
        help="logit from which a pixel is foreground: taken off the map, so that the files' is 0",
    )
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    network, state = load_run(given.run)
    with torch.no_grad():
        network.foreground.bias -= given.foreground_from
    config = network.config
    for name in given.members:
        queries, events, _ = MEMBERS[name]
        missing = queries > bool(config.queries) or events > bool(config.event_channels)
        if missing or (name == OF_PICTURES) == bool(config.gaps):
            continue
        member = resized_to(network, dataclasses.replace(
            config, queries=config.queries * queries, event_channels=config.event_channels * events
        )).eval()
        path = given.out / f'{name}.onnx'
        spec = OF_EVENTS if events else OF_VIDEO
        differences = write_member(member, path, spec)
        parameters = sum(value.numel() for value in member.parameters())
        about = {
            'data': DATA[name == OF_PICTURES],
            'command': 'python -m training.train_video',
            'foreground_from': given.foreground_from,
            'parameters': parameters,
            'onnx_difference': differences,
            **{key: state.get(key) for key in ('seconds', 'steps', 'origin', 'config')},
        }
        describe(name, path, spec, about)
        print(f'{path} {path.stat().st_size / 1e6:.1f} MB, {parameters} parameters, {differences}')


if __name__ == '__main__':
    main()
