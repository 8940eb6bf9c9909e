"""Train the Temporal Refiner on cached queries: `python -m training.train_refiner --data FOLDER...
--run FOLDER --minutes 15`, or `--steps`. Stage 3 of DVIS.

Segmenter and tracker are frozen: what the one found was cached by `training.tracker_cache`, the
other is a file that runs as the robot runs it. Started again with the same folder a run goes on;
batches depend on (seed, step) alone, so that with `--steps` it does so as if never stopped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mos_perception.config import Config
from mos_perception.engine.model_files import find_model
from training.nets.dvis import NANO, PARTS
from training.nets.instance_refiner import InstanceRefiner
from training.refiner_batches import CURRICULUM, Batch, FrozenTracker, Pool, load_sources
from training.timed_run import TimedRun, run_parser
from training.tracker_batches import IGNORED

WINDOWS = 600  # different ones; each is made once


def refiner_loss(logits: Tensor, objects: Tensor, given: Batch) -> Tensor:
    """Mean over blocks of two cross-entropies: which instance, over slots and frames whose object
    is known; whether the slot is an object.
    """
    blocks = len(logits)
    wanted = given.target.expand(blocks, *given.target.shape)
    which = logits.new_zeros(())
    if (wanted != IGNORED).any():
        which = F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=IGNORED)
    there = ~given.empty
    flags = given.objects[there].expand(blocks, -1)
    return which + F.binary_cross_entropy_with_logits(objects[:, there], flags)


def right(logits: Tensor, given: Batch) -> float:
    """Share of known slots and frames whose largest logit of the last block is their target."""
    known = given.target != IGNORED
    hits = logits[-1].argmax(-1) == given.target
    return float(hits[known].float().mean()) if known.any() else float('nan')


class Run(TimedRun):
    """A run behind the tracker of sha256 `made_for`."""

    kind, key, print_every = 'refiner', 'tracker', 20
    mismatch = ('behind a tracker of sha256 {}, this one has {}: give another --run or that '
                '--tracker-model')

    def __init__(self, *given: Any, without: str = '') -> None:
        """`given` as `TimedRun`; `without` a part of `PARTS`."""
        self.without = without
        super().__init__(*given)

    def make(self) -> InstanceRefiner:
        """A new network."""
        return InstanceRefiner(replace(NANO, without=self.without))

    def about(self) -> dict[str, str]:
        """See `TimedRun.about`."""
        return {**super().about(), 'without': self.without}

    def judge(self, given: Batch) -> tuple[Tensor, float]:
        """See `TimedRun.judge`."""
        logits, objects = self.network(**given.inputs, empty=given.empty)
        return refiner_loss(logits, objects, given), right(logits.detach(), given)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = run_parser('Train the Temporal Refiner on cached queries.', batch=8)
    parser.add_argument('--tracker-model', default=Config().tracker_model,
                        help='the frozen tracker: a name under models/trackers/ or a path')
    parser.add_argument('--without', choices=PARTS, default='', help='for an ablation')
    parser.add_argument('--windows', type=int, default=WINDOWS, help='different ones')
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sources = load_sources(given.data)
    tracker = FrozenTracker(find_model(given.tracker_model, 'trackers'))
    run = Run(given.run, tracker.card.sha256, CURRICULUM, given.learning_rate, given.seed,
              without=given.without)
    print(f'{len(sources)} sequences')
    pool = Pool(sources, tracker, CURRICULUM, given.windows, given.seed)
    run.train(lambda rng: pool.batch(rng, given.batch), given.steps, given.minutes)


if __name__ == '__main__':
    main()
