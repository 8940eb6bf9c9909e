"""A tracker's run as an ONNX file with its card: `python -m training.export_tracker --run FOLDER`.

One step for any number of instances and slots. The card gets no scores: `bench.trackers` measures.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mos_perception.engine.card import save_card, sha256_of
from mos_perception.tracking.tokens import PAIR, PLACE, width
from mos_perception.tracking.tracker_card import TrackerCard
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


def load_run(run: Path) -> tuple[InstanceTracker, dict[str, str]]:
    """The network of a run of `training.train_tracker`, and what the run was. Raises EngineError.
    """
    path = run / 'tracker.safetensors'
    state = read_state(path)
    with safe_open(path, 'pt') as file:
        about = file.metadata()
    network = InstanceTracker(int(about['channels']))
    take(network, state, str(path))
    return network, about


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Export a referring tracker as ONNX.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=Path('models/trackers/referring_nano.onnx'))
    given = parser.parse_args(arguments)
    network, about = load_run(given.run)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    difference = write_step(network, given.out)
    parameters = sum(value.numel() for value in network.parameters())
    training = {'command': 'python -m training.train_tracker', 'parameters': parameters,
                'onnx_difference': difference, 'config': asdict(network.config), **about}
    card = TrackerCard(given.out.stem, given.out.name, sha256_of(given.out), network.config.width,
                       training, {}, LICENCE, network.channels)
    save_card(card, given.out)
    print(f'{given.out} {given.out.stat().st_size / 1e6:.1f} MB, {parameters} parameters, '
          f'difference {difference:.1g}')


if __name__ == '__main__':
    main()
