"""Our networks against the official code, through the same random weights.

`python -m training.parity --official FOLDER [--full] [--out goldens.json]`

FOLDER is a clone of github.com/Jyxarthur/gmos; its code is run as it is, never copied. Prints the
largest difference of each output; `--full` adds the published sizes; `--out` keeps samples of the
official outputs, which the tests hold ours against. Weights and inputs come from seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mos_perception.errors import EngineError
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.pi3 import Pi3Config, Pi3Trunk

TOLERANCE = 1e-4
SAMPLES = 64
TINY = GmosConfig(width=64, heads=2, queries=6)
TINY_PI3 = Pi3Config(size=(56, 84), width=64, heads=4, encoder_depth=2, decoder_depth=4)


def fill(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Set every parameter from the seed and its key alone; returns the state dict."""
    state = network.state_dict()
    for key, value in state.items():
        if key not in ('image_mean', 'image_std'):
            value.copy_(weight(tuple(value.shape), seed, key))
    return state


def weight(shape: tuple[int, ...], seed: int, key: str) -> Tensor:
    """A parameter's value: of a size that keeps what passes through near 1."""
    noise = seeded(shape, seed, key)
    if 'pos_embed' in key or 'token' in key.rpartition('.')[2]:
        return 0.5 * noise
    if len(shape) > 1:
        return noise * float(np.prod(shape[1:])) ** -0.5
    return 0.1 * noise + key.endswith(('weight', 'gamma'))


def seeded(shape: tuple[int, ...], seed: int, name: str) -> Tensor:
    """Standard normal numbers that depend on the seed and the name alone."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(rng.standard_normal(shape, np.float32))


def summary(value: Tensor) -> dict[str, Any]:
    """Shape, mean, deviation and samples evenly spread over a tensor."""
    flat = value.double().flatten()
    places = torch.linspace(0, len(flat) - 1, SAMPLES).long()
    deviation = float(flat.std()) if len(flat) > 1 else 0.0
    return {'shape': list(value.shape), 'mean': float(flat.mean()), 'std': deviation,
            'samples': [round(float(sample), 6) for sample in flat[places]]}


def head_inputs(config: GmosConfig) -> tuple[Tensor, ...]:
    """Geometry on 9 x 14 patches, appearance, middle and fine levels."""
    grid, width = config.grid, config.width
    shapes = {'geometry': (1, 9, 14, config.geometry_width),
              'appearance': (1, config.appearance_width, grid, grid),
              'middle': (1, width // 4, 2 * grid, 2 * grid),
              'fine': (1, width // 8, 4 * grid, 4 * grid)}
    return tuple(seeded(shape, 7, name) for name, shape in shapes.items())


def window(config: Pi3Config) -> Tensor:
    """(1, 5, 3, H, W) in [0, 1]."""
    return seeded((1, 5, 3, *config.size), 7, 'window').sigmoid()


@dataclass(frozen=True)
class Case:
    """One network: how ours is made, and how to run ours and the official one with weights."""

    make: Callable[[], nn.Module]
    ours: Callable[[nn.Module], dict[str, Tensor]]
    official: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    full: bool = False


def _run_head(inputs: GmosConfig, network: nn.Module) -> dict[str, Tensor]:
    found = network(*head_inputs(inputs))
    found.pop('embeddings', None)
    return found


def _run_trunk(config: Pi3Config, network: nn.Module) -> dict[str, Tensor]:
    return {'tokens': network(window(config))[:, 2]}


def _official_proposer(config: GmosConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    kind = importlib.import_module('core.gmos_proposer').GMOSProposer
    network = kind(config.width, num_heads=config.heads, num_obj_tokens=config.queries)
    network.eval().load_state_dict(state)
    geometry, appearance, middle, fine = head_inputs(config)
    found = network(geometry, appearance, [fine, middle])
    return {'mask_logits': found['mask'], 'motion_logits': found['motion_logits'].squeeze(2),
            'quality': torch.cat([found['iou_pred'], found['conf_pred']], 2)}


def _official_s(config: GmosConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    network = importlib.import_module('core.gmos_s').GMOS_S(config.width, num_heads=config.heads)
    network.eval().load_state_dict(state)
    geometry, appearance, middle, fine = head_inputs(config)
    found = network(geometry, appearance, [fine, middle])
    return {'foreground_logits': found['fg_mask'],
            'foreground_quality': torch.cat([found['iou_pred'], found['conf_pred']], 1)}


def _official_trunk(config: Pi3Config, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pi3's own layers; a narrow trunk is put together from them, as theirs has one size."""
    module = importlib.import_module('core.pi3_encoder')
    dino = importlib.import_module('core.Pi3.pi3.models.dinov2.models.vision_transformer')
    if config.width == 1024:
        network = module.Pi3Encoder()
    else:
        network = module.Pi3Encoder.__new__(module.Pi3Encoder)
        nn.Module.__init__(network)
        network.encoder = dino.DinoVisionTransformer(
            518, 14, 3, config.width, config.encoder_depth, config.heads, init_values=1.0,
            block_chunks=0, num_register_tokens=4, interpolate_antialias=True,
            interpolate_offset=0.0)
        del network.encoder.mask_token
        network.patch_size, network.pos_type, network.patch_start_idx = 14, 'rope100', 5
        network.rope, network.position_getter = module.RoPE2D(100.0), module.PositionGetter()
        network.decoder = nn.ModuleList(module.BlockRope(
            config.width, config.heads, 4, True, True, True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), init_values=0.01, qk_norm=True,
            attn_class=module.FlashAttentionRope, rope=network.rope)
            for _ in range(config.decoder_depth))
        network.register_token = nn.Parameter(torch.zeros(1, 1, 5, config.width))
        for name in ('image_mean', 'image_std'):
            network.register_buffer(name, state[name].clone())
    network.eval().load_state_dict(state)
    return {'tokens': network(window(config))[:, 2]}


def _cases() -> dict[str, Case]:
    found = {}
    for suffix, config, trunk in (('_tiny', TINY, TINY_PI3),
                                  ('', GmosConfig(), Pi3Config(size=TINY_PI3.size))):
        found[f'gmos{suffix}'] = Case(
            partial(GmosProposer, config), partial(_run_head, config),
            partial(_official_proposer, config), not suffix)
        found[f'gmos_s{suffix}'] = Case(
            partial(GmosS, config), partial(_run_head, config),
            partial(_official_s, config), not suffix)
        found[f'pi3{suffix}'] = Case(
            partial(Pi3Trunk, trunk), partial(_run_trunk, trunk),
            partial(_official_trunk, trunk), not suffix)
    return found


CASES = _cases()


def digest(state: dict[str, Tensor]) -> dict[str, Any]:
    """How many keys a state dict has, and the sha256 of its sorted keys and shapes."""
    lines = sorted(f'{key} {"x".join(map(str, value.shape))}' for key, value in state.items())
    return {'keys': len(lines), 'sha256': hashlib.sha256('\n'.join(lines).encode()).hexdigest()}


@contextmanager
def without_memory() -> Iterator[None]:
    """Networks that are built in here have shapes and no values."""
    linspace = torch.linspace
    torch.linspace = partial(linspace, device='cpu')  # whose values are read when ViTs are built
    try:
        with torch.device('meta'):
            yield
    finally:
        torch.linspace = linspace


def official_digests() -> dict[str, dict[str, Any]]:
    """Of the official networks at their published sizes, built without memory for weights."""
    kinds = {'gmos': ('core.gmos_proposer', 'GMOSProposer'), 'gmos_s': ('core.gmos_s', 'GMOS_S'),
             'pi3': ('core.pi3_encoder', 'Pi3Encoder')}
    with without_memory():
        return {name: digest(getattr(importlib.import_module(module), kind)().state_dict())
                for name, (module, kind) in kinds.items()}


@torch.no_grad()
def ours(name: str, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our outputs of a case and the weights that gave them."""
    network = CASES[name].make().eval()
    state = fill(network, seed)
    return CASES[name].ours(network), state


@torch.no_grad()
def compare(name: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Largest absolute difference by output, and the official outputs' summaries.

    Raises EngineError above `TOLERANCE`.
    """
    found, state = ours(name)
    wanted = CASES[name].official(state)
    return (differences_of(name, found, wanted),
            {key: summary(value) for key, value in wanted.items()})


def differences_of(name: str, found: dict[str, Tensor],
                   wanted: dict[str, Tensor]) -> dict[str, float]:
    """Largest absolute difference by output, of ours and the official ones.

    Raises EngineError above `TOLERANCE` and for other outputs.
    """
    differences = {key: float((found[key] - value).abs().max())
                   for key, value in wanted.items() if key in found}
    if found.keys() != wanted.keys() or not max(differences.values()) <= TOLERANCE:
        raise EngineError(f'{name}: ours and the official network differ by {differences}: '
                          f'must be <= {TOLERANCE}; is the clone another version?')
    return differences


def spelled(differences: dict[str, float]) -> str:
    """On one line."""
    return ', '.join(f'{key} {value:.1e}' for key, value in differences.items())


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options of every command that runs the official code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--official', type=Path, required=True, help='a clone of Jyxarthur/gmos')
    parser.add_argument('--out', type=Path, help='keep samples of the official outputs there')
    return parser


def use_official(clone: Path) -> None:
    """Make the packages of a clone importable."""
    sys.path[:0] = [str(clone), str(clone / 'core' / 'sam2')]


def keep_goldens(path: Path | None, kept: dict[str, Any]) -> None:
    """Write samples as JSON, where there is a path."""
    if path is not None:
        path.write_text(json.dumps(kept) + '\n', encoding='utf-8')


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = parser_of('Hold our networks against the official code.')
    parser.add_argument('--full', action='store_true',
                        help='the published sizes too; Pi3 is 3 GB, twice')
    parser.add_argument('--only', help='one of them', choices=['keys', *CASES])
    given = parser.parse_args(arguments)
    use_official(given.official)
    kept = {}
    if given.only in (None, 'keys'):
        kept['keys'] = official_digests()
        print(f'keys: {kept["keys"]}', flush=True)
    for name, case in CASES.items():
        if given.only not in (None, name) or (case.full and not given.full):
            continue
        begun = time.monotonic()
        differences, kept[name] = compare(name)
        print(f'{name}: {time.monotonic() - begun:.1f} s, '
              + spelled(differences), flush=True)
    if given.out is not None and given.out.exists():
        kept = json.loads(given.out.read_text(encoding='utf-8')) | kept
    keep_goldens(given.out, kept)


if __name__ == '__main__':
    main()
