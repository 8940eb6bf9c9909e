"""The torch network of a light member's ONNX file, so that the models that ship are the start.

Exported convolutions hold their batch normalisation, and layers of sequences lie transposed under
names of their own: both are told by the graph. That the network is the file's is proved by running
both.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from mos_perception.engine.card import ModelCard
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError
from mos_perception.motion.evidence import EvidenceSpec
from training.export_video import Member, example
from training.nets.gmos_nano import GmosNano, GmosNanoConfig

PREFIX = 'network.'
WITHIN = 1e-3  # of an output, as the export allows


def network_of(path: Path, card: ModelCard) -> GmosNano:
    """The network of the ONNX file `path` with its card, in evaluation mode.

    Raises EngineError for a model that is none of the light members, and where the network answers
    otherwise than the file.
    """
    if card.architecture not in ('gmos', 'mosis'):
        raise EngineError(f'model {card.id} is a {card.architecture}: only the light members can '
                          'learn on; use gmos_nano, gmos_s_nano, dimos_light, movable_nano or one '
                          'made of them')
    found = _tensors(onnx.load(path).graph)
    try:
        network = GmosNano(_config(found, card.evidence.gap_count if card.evidence else 0))
        network.load_state_dict(_state(network, found))
    except (KeyError, IndexError, RuntimeError) as error:
        raise EngineError(f'{path} holds no network of this version ({str(error)[:200]}): start '
                          'from a model that training.export_video wrote') from error
    network.eval()
    _compare(network, path, card)
    return network


def evidence_of(card: ModelCard) -> EvidenceSpec:
    """The card's; of a model of single pictures one of their size."""
    if card.evidence is not None:
        return card.evidence
    return EvidenceSpec(next(spec.shape[2:] for spec in card.inputs if spec.name == 'image'))


def _tensors(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Weights by their name in `GmosNano`."""
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    found = {name.removeprefix(PREFIX): value for name, value in values.items()
             if name.startswith(PREFIX)}
    users = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type == 'MatMul' and node.input[1] in values:
            bias = [name for name in users[node.output[0]].input if name.startswith(PREFIX)]
            if len(bias) == 1:
                name = bias[0].removeprefix(PREFIX)
                weight = name.replace('in_proj_bias', 'in_proj_weight').replace('.bias', '.weight')
                found[weight] = values[node.input[1]].T
    width = len(found.get('decoder.mask.0.bias', ()))
    queries = [value for value in values.values()
               if value.ndim == 3 and value.shape[0] == 1 and value.shape[2] == width]
    if width and len(queries) == 1:
        found['decoder.queries'] = queries[0]
    return found


def _config(found: dict[str, np.ndarray], gaps: int) -> GmosNanoConfig:
    """The sizes that the weights have."""
    def outputs(name: str) -> int:
        return found[f'{name}.weight'].shape[0]

    levels = sum(name.startswith('fusion.down') and name.endswith('0.0.weight') for name in found)
    looks = sum(name.startswith('appearance.levels') and name.endswith('weight') for name in found)
    events = found.get('events.layers.0.0.weight')
    queries = found.get('decoder.queries')
    return GmosNanoConfig(
        gaps=gaps,
        stem=outputs('geometry.stem.0') if gaps else 0,
        widths=(outputs('fusion.fuse.0'),
                *(outputs(f'fusion.down.{n}.1.0') for n in range(levels))),
        appearance=(outputs('appearance.stem.0'),
                    *(outputs(f'appearance.levels.{n}.0') for n in range(looks))),
        events=0 if events is None else events.shape[0],
        event_channels=0 if events is None else events.shape[1],
        queries=0 if queries is None else queries.shape[1],
        width=96 if queries is None else queries.shape[2],
    )


def _state(network: GmosNano, found: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The state of a network with these weights; a batch normalisation adds the bias alone."""
    state = network.state_dict()
    for name, value in state.items():
        owner, _, part = name.rpartition('.')
        if f'{owner}.running_var' in state:
            before = f'{owner.rpartition(".")[0]}.0'
            fresh = {'weight': math.sqrt(1 + network.fusion.fuse[1].eps), 'running_mean': 0.0,
                     'running_var': 1.0, 'num_batches_tracked': 0}
            if part == 'bias':
                state[name] = torch.from_numpy(found[f'{before}.weight_bias'].copy())
            else:
                state[name] = torch.full_like(value, fresh[part])
        else:
            state[name] = torch.from_numpy(found[name].copy())
    return state


def _compare(network: GmosNano, path: Path, card: ModelCard) -> None:
    """Raise EngineError unless both answer alike."""
    inputs = example(network, evidence_of(card))
    expected = OrtEngine(path, threads=1).run({key: value.numpy() for key, value in inputs.items()})
    module = Member(network)
    with torch.no_grad():
        found = dict(zip(module.outputs, module(*inputs.values()), strict=True))
    differences = {name: float(np.abs(found[name].numpy() - expected[name]).max())
                   for name in module.outputs}
    if max(differences.values()) > WITHIN:
        raise EngineError(f'{path}: the network read from it answers otherwise, by {differences}: '
                          f'must be <= {WITHIN}; start from a model that training.export_video '
                          'wrote')
