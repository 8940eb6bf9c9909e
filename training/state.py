"""What a run carries from step to step, and how it is kept: safetensors and JSON, each replaced atomically."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mos_perception.errors import ConfigError
from training.nets.alignment import Alignment
from training.nets.dimos import Dimos
from training.optimizer import make_optimizer
from training.recipes import Recipe


@dataclass
class State:
    """What a run carries from step to step; `origin` says whose network it began with, if another run's."""

    network: Dimos
    optimizer: torch.optim.Optimizer
    alignment: Alignment | None = None
    step: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    origin: str = ''

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """What is trained and saved, by the prefix of its tensors' names."""
        return {'net': self.network} | ({'align': self.alignment} if self.alignment else {})


def start(recipe: Recipe, device: torch.device | str = 'cpu') -> State:
    """Fresh weights from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    network = Dimos(recipe.net).to(memory_format=torch.channels_last)
    alignment = None
    if recipe.alignment.any:
        alignment = Alignment(network.channels, recipe.net.disentangled).to(memory_format=torch.channels_last)
    network, alignment = network.to(device), alignment.to(device) if alignment else None
    modules = {'net': network} | ({'align': alignment} if alignment else {})
    return State(network, make_optimizer(recipe, modules), alignment)


def start_from(folder: Path, recipe: Recipe, device: torch.device | str = 'cpu') -> State:
    """Fresh, but with the network of another run, whose layers have the same shapes. Raises ConfigError."""
    state, side = start(recipe, device), read_side(folder, 'give the folder of a run')
    try:
        state.network.load_state_dict(part_of(load_file(folder / side['weights']), 'net'))
    except RuntimeError as error:
        raise ConfigError(f'the network in {folder} is not shaped as that of {recipe.name}: {error}') from error
    earlier = f' which began with {side["origin"]}' if side.get('origin') else ''
    state.origin = (f'the network of {side["recipe"]["name"]} after {side["step"]} steps on {side["data"]} '
                    f'({side["command"]}){earlier}')
    return state


def save(state: State, recipe: Recipe, folder: Path, about: dict) -> None:
    """Weights and moments as step_*.safetensors, then checkpoint.json that names them; each replaced atomically."""
    tensors = {f'{part}.{name}': value.contiguous() for part, module in state.modules.items()
               for name, value in module.state_dict().items()}
    for index, entry in state.optimizer.state_dict()['state'].items():
        tensors |= {f'adam.{index}.{name}': value.contiguous() for name, value in entry.items()}
    weights = folder / f'step_{state.step:07d}.safetensors'
    save_file(tensors, f'{weights}.part')
    os.replace(f'{weights}.part', weights)
    side = {'weights': weights.name, 'step': state.step, 'seconds': round(state.seconds, 1), 'recipe': asdict(recipe),
            'metrics': state.metrics, 'origin': state.origin, **about}
    part = folder / 'checkpoint.json.part'
    part.write_text(json.dumps(side, indent=1))
    os.replace(part, folder / 'checkpoint.json')
    for old in folder.glob('step_*.safetensors'):
        if old != weights:
            old.unlink()


def read_side(folder: Path, remedy: str) -> dict:
    """checkpoint.json of a run. Raises ConfigError, ending with the remedy, if there is none."""
    try:
        return json.loads((folder / 'checkpoint.json').read_text())
    except OSError as error:
        raise ConfigError(f'no checkpoint in {folder} ({error}): {remedy}') from error


def part_of(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors that `save` stored under a prefix, without it."""
    return {name[len(part) + 1:]: value for name, value in tensors.items() if name.startswith(f'{part}.')}


def completed(saved: dict) -> dict:
    """A checkpoint's recipe, with fields that later commits added at their defaults: these must mean "as before"."""
    defaults = json.loads(json.dumps(asdict(Recipe(''))))
    return saved | {name: value | saved.get(name, {}) if isinstance(value, dict) else saved.get(name, value)
                    for name, value in defaults.items()}


def load(folder: Path, recipe: Recipe, data: str = '', device: torch.device | str = 'cpu') -> State:
    """The state `save` wrote. Raises ConfigError if there is none or it was made by another recipe.

    `data`: what a Source says of itself; a note is printed if the run so far had another.
    """
    side = read_side(folder, 'start without --resume')
    if completed(side['recipe']) != json.loads(json.dumps(asdict(recipe))):
        raise ConfigError(f'the checkpoint in {folder} was made with another recipe than {recipe.name} of this commit: '
                          'restore that commit or start without --resume')
    if data and side['data'] != data:
        print(f'note: so far this run had "{side["data"]}", from here on "{data}"', file=sys.stderr)
    state, tensors = start(recipe, device), load_file(folder / side['weights'])
    for part, module in state.modules.items():
        module.load_state_dict(part_of(tensors, part))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in part_of(tensors, 'adam').items():
        index, key = name.split('.')
        moments.setdefault(int(index), {})[key] = value
    parameters = [p for group in state.optimizer.param_groups for p in group['params']]
    for index, entry in moments.items():
        # the fused update walks memory, so the moments must lie as their parameter does
        entry |= {key: torch.empty_like(parameters[index]).copy_(entry[key]) for key in ('exp_avg', 'exp_avg_sq')}
    state.optimizer.load_state_dict({'state': moments, 'param_groups': state.optimizer.state_dict()['param_groups']})
    state.step, state.seconds, state.metrics = side['step'], side['seconds'], side['metrics']
    state.origin = side.get('origin', '')
    return state
