"""A refiner's run as an ONNX file with its card: `python -m training.export_refiner --run FOLDER`.

For any number of frames, instances and slots. The card gets no scores: `bench.refiner` measures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mos_perception.tracking.tracker_card import RefinerCard
from mos_perception.tracking.windows import RELATION, STATE
from training.export_tracker import export_run
from training.nets.dvis import NANO
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


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    export_run(arguments, RefinerCard, 'refiner_nano',
               lambda about: (InstanceRefiner(replace(NANO, without=about.get('without', ''))),
                              about['tracker']), write_refiner)


if __name__ == '__main__':
    main()
