"""A refiner's run as an ONNX file with its card: `python -m training.export_refiner --run FOLDER`.

For any number of frames, instances and slots. The card gets no scores: `bench.refiner` measures.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mos_perception.engine.card import save_card, sha256_of
from mos_perception.tracking.tracker_card import RefinerCard
from mos_perception.tracking.windows import RELATION, STATE
from training.checkpoints import read_state, take
from training.export import LICENCE
from training.nets.instance_refiner import InstanceRefiner
from training.onnx_files import write_dynamic

INPUTS = ('queries', 'padding', 'slots', 'state', 'relations')
OUTPUTS = ('logits', 'objects')
_SIZES = ((6, 5, 3), (2, 1, 1), (20, 7, 12))  # frames, instances and slots that are compared


class Answer(nn.Module):
    """The last block's logits alone."""

    def __init__(self, network: InstanceRefiner) -> None:
        super().__init__()
        self.network = network

    def forward(self, queries: Tensor, padding: Tensor, slots: Tensor, state: Tensor,
                relations: Tensor) -> tuple[Tensor, Tensor]:
        """As `InstanceRefiner.forward`."""
        logits, objects = self.network(queries, padding, slots, state, relations)
        return logits[-1], objects[-1]


def example(network: InstanceRefiner, frames: int, instances: int,
            slots: int) -> tuple[Tensor, ...]:
    """Reproducible inputs, in the order of `INPUTS`."""
    rng, width = torch.Generator().manual_seed(frames), network.config.width
    shapes = ((frames, instances, width), (frames, instances), (frames, slots, width),
              (frames, slots, STATE), (frames, slots, instances, RELATION))
    values = [torch.randn(1, *shape, generator=rng) for shape in shapes]
    values[1] = (values[1] > 1).float()
    return tuple(values)


def write_refiner(network: InstanceRefiner, path: Path) -> float:
    """One ONNX file, replaced atomically. Returns the largest difference between torch and ONNX
    Runtime. Raises EngineError above 1e-4.
    """
    frames, instances, slots = (torch.export.Dim(name, min=1)
                                for name in ('frames', 'instances', 'slots'))
    shapes = ({1: frames, 2: instances}, {1: frames, 2: instances}, {1: frames, 2: slots},
              {1: frames, 2: slots}, {1: frames, 2: slots, 3: instances})
    return write_dynamic(Answer(network.eval()).eval(), path, INPUTS, OUTPUTS, shapes,
                         [example(network, *sizes) for sizes in _SIZES])


def load_run(run: Path) -> tuple[InstanceRefiner, dict[str, str]]:
    """The network of a run of `training.train_refiner`, and what the run was. Raises EngineError.
    """
    path = run / 'refiner.safetensors'
    state = read_state(path)
    with safe_open(path, 'pt') as file:
        about = file.metadata()
    network = InstanceRefiner()
    take(network, state, str(path))
    return network, about


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Export a Temporal Refiner as ONNX.')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=Path('models/trackers/refiner_nano.onnx'))
    given = parser.parse_args(arguments)
    network, about = load_run(given.run)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    difference = write_refiner(network, given.out)
    parameters = sum(value.numel() for value in network.parameters())
    training = {'command': 'python -m training.train_refiner', 'parameters': parameters,
                'onnx_difference': difference, 'config': asdict(network.config), **about}
    card = RefinerCard(given.out.stem, given.out.name, sha256_of(given.out), network.config.width,
                       training, {}, LICENCE, about['tracker'])
    save_card(card, given.out)
    print(f'{given.out} {given.out.stat().st_size / 1e6:.1f} MB, {parameters} parameters, '
          f'differs from torch by {difference:.1e}')


if __name__ == '__main__':
    main()
