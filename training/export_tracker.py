"""A tracker's run as an ONNX file with its card: `python -m training.export_tracker --run FOLDER`.

One step for any number of instances and slots. The card gets no scores: `bench.trackers` measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mos_perception.engine.card import save_card, sha256_of
from mos_perception.tracking.tokens import PAIR, PLACE, width
from mos_perception.tracking.tracker_card import TrackerCard, TrackingCard
from training.checkpoints import read_state, take
from training.export import LICENCE
from training.nets.instance_tracker import InstanceTracker
from training.onnx_files import write_dynamic

INPUTS = ('frame', 'initial', 'reference', 'place', 'pairs')
OUTPUTS = ('queries', 'slots', 'logits')
_SIZES = ((5, 3), (1, 1), (7, 12))  # instances and slots that are compared


class Step(nn.Module):
    """The last block's slots and logits alone."""

    def __init__(self, network: InstanceTracker) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, initial: Tensor, reference: Tensor, place: Tensor,
                pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `InstanceTracker.forward`."""
        queries, slots, logits = self.network(frame, initial, reference, place, pairs)
        return queries, slots[-1], logits[-1]


def example(network: InstanceTracker, instances: int, slots: int) -> tuple[Tensor, ...]:
    """Reproducible inputs, in the order of `INPUTS`."""
    rng = torch.Generator().manual_seed(instances)
    vector = width(network.channels)
    shapes = ((instances, vector), (slots, vector), (slots, network.config.width), (slots, PLACE),
              (slots, instances, PAIR))
    return tuple(torch.randn(1, *shape, generator=rng) for shape in shapes)


def write_step(network: InstanceTracker, path: Path) -> float:
    """One ONNX file, replaced atomically. Returns the largest difference between torch and ONNX
    Runtime. Raises EngineError above 1e-4.
    """
    instances, slots = torch.export.Dim('instances', min=1), torch.export.Dim('slots', min=1)
    shapes = ({1: instances}, {1: slots}, {1: slots}, {1: slots}, {1: slots, 2: instances})
    return write_dynamic(Step(network.eval()).eval(), path, INPUTS, OUTPUTS, shapes,
                         [example(network, *sizes) for sizes in _SIZES])


def export_run(arguments: list[str] | None, kind: type[TrackingCard], name: str,
               made: Callable[[dict[str, str]], tuple[nn.Module, Any]],
               write: Callable[[Any, Path], float]) -> None:
    """The command line of an export to models/trackers/`name`.onnx with a card of a `kind`. Of what
    the run was, `made` gives its network and what that is made for, the card's own field. Raises
    EngineError.
    """
    parser = argparse.ArgumentParser(description=f'Export a {kind.kind} as ONNX.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=Path(f'models/trackers/{name}.onnx'))
    given = parser.parse_args(arguments)
    path = given.run / f'{kind.kind}.safetensors'
    state = read_state(path)
    with safe_open(path, 'pt') as file:
        about = file.metadata()
    network, made_for = made(about)
    take(network, state, str(path))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    difference = write(network, given.out)
    parameters = sum(value.numel() for value in network.parameters())
    training = {'command': f'python -m training.train_{kind.kind}', 'parameters': parameters,
                'onnx_difference': difference, 'config': asdict(network.config), **about}
    save_card(kind(given.out.stem, given.out.name, sha256_of(given.out), network.config.width,
                   training, {}, LICENCE, made_for), given.out)
    print(f'{given.out} {given.out.stat().st_size / 1e6:.1f} MB, {parameters} parameters, '
          f'differs from torch by {difference:.1e}')


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    def made(about: dict[str, str]) -> tuple[InstanceTracker, int]:
        channels = int(about['channels'])
        return InstanceTracker(channels), channels

    export_run(arguments, TrackerCard, 'referring_nano', made, write_step)


if __name__ == '__main__':
    main()
