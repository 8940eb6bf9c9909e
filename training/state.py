"""What a run carries from step to step, and its checkpoint: safetensors and JSON metadata."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mos_perception.errors import ConfigError
from training.nets.alignment import Alignment
from training.nets.amd import Amd, AmdConfig
from training.nets.dimos import Dimos
from training.nets.dimos_config import DimosConfig
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_whole import make_head
from training.nets.mosis import Mosis, MosisConfig
from training.nets.pwc_lite import PwcConfig, PwcLite
from training.nets.yolo import Yolo, YoloConfig
from training.optimizer import make_optimizer
from training.recipes import Recipe, Training

METADATA = 'checkpoint.json'
_NETWORKS = {DimosConfig: Dimos, MosisConfig: Mosis, AmdConfig: Amd, YoloConfig: Yolo,
             PwcConfig: PwcLite, GmosConfig: make_head}
_PARTS = ('detector', 'motion')  # that networks on pairs of frames share
_DIMOS = Recipe('')


@dataclass
class State:
    """What a run carries from step to step."""

    network: nn.Module
    """What is exported in the end."""
    optimizer: torch.optim.Optimizer
    """Of the network and of the parts for the alignment."""
    alignment: Alignment | None = None
    """Parts that only training needs, if the recipe has losses between the encoders."""
    step: int = 0
    """Steps taken."""
    seconds: float = 0.0
    """Training time."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means of the last line of the log."""
    origin: str = ''
    """Whose network the run began with, if another run's."""

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """What is trained and saved, by the prefix of its tensors' names."""
        return {'net': self.network} | ({'align': self.alignment} if self.alignment else {})


def start(recipe: Training, device: torch.device | str = 'cpu') -> State:
    """Fresh weights from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    network = _NETWORKS[type(recipe.net)](recipe.net).to(memory_format=torch.channels_last)
    alignment = None
    if isinstance(recipe, Recipe) and recipe.alignment.any:
        alignment = Alignment(network.channels, recipe.net.disentangled)
        alignment = alignment.to(device, memory_format=torch.channels_last)
    network = network.to(device)
    modules = {'net': network} | ({'align': alignment} if alignment else {})
    return State(network, make_optimizer(recipe, modules), alignment)


def start_from(folders: Sequence[Path], recipe: Training,
               device: torch.device | str = 'cpu') -> State:
    """Fresh, but with the networks of other runs: each whole, or as its detector or motion network.

    Mosis' motion network may come from a flow network or from Amd's. Raises ConfigError: nothing
    in the recipe's network has the shapes.
    """
    state, origins = start(recipe, device), []
    for folder in folders:
        metadata = read_metadata(folder, 'give the folder of a run')
        tensors = tensors_of(load_file(folder / metadata['weights']), 'net')
        name = metadata['recipe']['name']
        if not _take(state.network, tensors):
            raise ConfigError(f'the network in {folder} ({name}) is not shaped as that of '
                              f'{recipe.name} or as a part of it: give a run of such a network')
        earlier = metadata.get('origin')
        earlier = f' which began with {earlier}' if earlier else ''
        origins.append(f'the network of {name} after {metadata["step"]} steps on '
                       f'{metadata["data"]} ({metadata["command"]}){earlier}')
    state.origin = ' and '.join(origins)
    return state


def _take(network: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Whether the tensors of another network are this one's, which then has them; else whether
    they are, or hold under the same name, those of its detector or its motion network.
    """
    if _fits(network, tensors) and network.state_dict().keys() == tensors.keys():
        network.load_state_dict(tensors)
        return True
    for name, part in network.named_children():
        if name not in _PARTS:
            continue
        for given in (tensors, tensors_of(tensors, name)):
            if _fits(part, given):
                part.load_state_dict({key: given[key] for key in part.state_dict()})
                return True
    return False


def _fits(part: nn.Module, tensors: dict[str, Tensor]) -> bool:
    own = part.state_dict()
    return bool(own) and all(name in tensors and tensors[name].shape == value.shape
                             for name, value in own.items())


def save(state: State, recipe: Training, folder: Path, about: dict) -> None:
    """Weights and moments as step_*.safetensors, then the metadata that names them.

    Each is replaced atomically.
    """
    tensors = {f'{part}.{name}': value.contiguous() for part, module in state.modules.items()
               for name, value in module.state_dict().items()}
    for index, entry in state.optimizer.state_dict()['state'].items():
        tensors |= {f'adam.{index}.{name}': value.contiguous() for name, value in entry.items()}
    weights = folder / f'step_{state.step:07d}.safetensors'
    save_file(tensors, f'{weights}.part')
    os.replace(f'{weights}.part', weights)
    metadata = {'weights': weights.name, 'step': state.step, 'seconds': round(state.seconds, 1),
                'recipe': asdict(recipe), 'metrics': state.metrics, 'origin': state.origin, **about}
    part = folder / f'{METADATA}.part'
    part.write_text(json.dumps(metadata, indent=1))
    os.replace(part, folder / METADATA)
    for old in folder.glob('step_*.safetensors'):
        if old != weights:
            old.unlink()


def load(folder: Path, recipe: Training, data: str = '',
         device: torch.device | str = 'cpu') -> State:
    """The state `save` wrote. Raises ConfigError if there is none or another recipe made it.

    `data`: what a Source says of itself; a note is printed if the run so far had another.
    """
    metadata = read_metadata(folder, 'start without --resume')
    if with_defaults(metadata['recipe'], recipe) != json.loads(json.dumps(asdict(recipe))):
        raise ConfigError(f'the checkpoint in {folder} was made with another recipe than '
                          f'{recipe.name} of this commit: restore that commit or start without '
                          '--resume')
    if data and metadata['data'] != data:
        print(f'note: so far this run had "{metadata["data"]}", from here on "{data}"',
              file=sys.stderr)
    state, tensors = start(recipe, device), load_file(folder / metadata['weights'])
    for part, module in state.modules.items():
        module.load_state_dict(tensors_of(tensors, part))
    _load_moments(state.optimizer, tensors_of(tensors, 'adam'))
    state.step, state.seconds = metadata['step'], metadata['seconds']
    state.metrics, state.origin = metadata['metrics'], metadata.get('origin', '')
    return state


def read_metadata(folder: Path, remedy: str) -> dict:
    """The metadata of a run's checkpoint.

    Raises ConfigError, ending with the remedy, if there is none.
    """
    try:
        return json.loads((folder / METADATA).read_text())
    except OSError as error:
        raise ConfigError(f'no checkpoint in {folder} ({error}): {remedy}') from error


def tensors_of(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors that `save` stored under a prefix, without it."""
    prefix = f'{part}.'
    return {name.removeprefix(prefix): value for name, value in tensors.items()
            if name.startswith(prefix)}


def with_defaults(saved: dict, recipe: Training = _DIMOS) -> dict:
    """A checkpoint's recipe, with fields that later commits added at their defaults.

    These must mean "as before". `recipe` is of the same kind.
    """
    plain = type(recipe)('', net=type(recipe.net)())
    completed = dict(saved)
    for name, default in json.loads(json.dumps(asdict(plain))).items():
        if isinstance(default, dict):
            completed[name] = default | saved.get(name, {})
        else:
            completed[name] = saved.get(name, default)
    return completed


def _load_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back the optimizer's state, stored as 'index of the parameter.name'."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split('.')
        moments.setdefault(int(index), {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    for index, entry in moments.items():
        # the fused update walks memory, so the moments must lie as their parameter does
        for key in ('exp_avg', 'exp_avg_sq'):
            entry[key] = torch.empty_like(parameters[index]).copy_(entry[key])
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': moments, 'param_groups': groups})
