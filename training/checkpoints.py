"""Other people's checkpoints: read without running code, checked against a network, kept as
safetensors.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mos_perception.errors import EngineError, UnsafeFileError

_WRAPPERS = ('model_state_dict', 'model', 'state_dict')
_SHOWN = 1000  # names in a message; the networks have fewer keys


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickled checkpoint, by key.

    A pickle may hold tensors and plain containers alone; a wrapping `model_state_dict`, `model` or
    `state_dict` and the prefix `module.` are taken off. Raises UnsafeFileError for a pickle that
    asks for code, EngineError for any other file that is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(f'checkpoint {path} does not exist: give the path of the file')
    if path.suffix == '.safetensors':
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise EngineError(f'{path} is not a safetensors file ({error}): '
                              'it is damaged; fetch it again') from error
    try:
        found = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'WeightsUnpickler error: *(.*)', str(error))
        reason = found[1] if found else str(error).split('\n')[0]
        if 'global' not in reason.lower():
            raise EngineError(f'{path} is not a checkpoint ({reason}): '
                              'it is damaged or another file') from error
        raise UnsafeFileError(f'{path} holds more than tensors ({reason}): refused, nothing of it '
                              'was run; save its state_dict() alone') from error
    except (RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise EngineError(f'{path} is not a checkpoint ({error}): it is damaged or another file'
                          ) from error
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found:
        raise EngineError(f'{path} holds a {type(found).__name__}: must be a state dict')
    wrong = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if wrong:
        raise EngineError(f'{path}: {_listed(wrong)} hold no tensor: must be a state dict')
    return {str(key).removeprefix('module.'): value for key, value in found.items()}


def take(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that fits exactly, in float32.

    Raises EngineError that names every missing and extra key, every wrong shape, and every tensor
    that is not of finite real numbers; the network is unchanged then.
    """
    wanted = network.state_dict()
    trouble = []
    if missing := sorted(wanted.keys() - state.keys()):
        trouble.append(f'missing {_listed(missing)}')
    if extra := sorted(state.keys() - wanted.keys()):
        trouble.append(f'extra {_listed(extra)}')
    shared = [key for key in wanted if key in state]
    for key in shared:
        if state[key].shape != wanted[key].shape:
            trouble.append(f'{key} is {tuple(state[key].shape)}, must be '
                           f'{tuple(wanted[key].shape)}')
        elif not state[key].is_floating_point():
            trouble.append(f'{key} is {state[key].dtype}, must be floating point')
        elif not state[key].isfinite().all():
            trouble.append(f'{key} has values that are not finite')
    if trouble:
        raise EngineError(f'{source} does not fit {type(network).__name__}: '
                          f'{"; ".join(trouble)}: is it the checkpoint of another model or size?')
    network.load_state_dict({key: state[key].float() for key in shared})


def keep(network: nn.Module, path: Path, about: dict[str, str]) -> None:
    """The network's tensors as safetensors with `about` in the header; replaced atomically."""
    part = path.with_suffix('.part.safetensors')
    # tensors that share memory are stored twice
    state = {key: value.detach().clone().contiguous()
             for key, value in network.state_dict().items()}
    save_file(state, part, about)
    os.replace(part, path)


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ', '.join(names[:_SHOWN]) + (f' and {rest} more' if rest > 0 else '')
