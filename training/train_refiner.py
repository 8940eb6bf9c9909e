"""Train the Temporal Refiner on cached queries: `python -m training.train_refiner --data FOLDER...
--run FOLDER --minutes 15`, or `--steps`. Stage 3 of DVIS.

Segmenter and tracker are frozen: what the one found was cached by `training.tracker_cache`, the
other is a file that runs as the robot runs it. Started again with the same folder a run goes on;
batches depend on (seed, step) alone, so that with `--steps` it does so as if never stopped.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mos_perception.config import Config
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from training.checkpoints import keep
from training.nets.instance_refiner import InstanceRefiner
from training.refiner_batches import CURRICULUM, Batch, FrozenTracker, Pool, load_sources
from training.tracker_batches import IGNORED
from training.train_video import learning_rate

SAVE_EVERY_S = 60.0
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


class Run:
    """Network, optimizer and how far they are; saved and found again in `folder`."""

    def __init__(self, folder: Path, tracker_sha256: str, peak: float, seed: int = 0) -> None:
        """Raises EngineError for a folder whose run is for another tracker."""
        self.folder, self.peak, self.seed = folder, peak, seed
        self.tracker_sha256 = tracker_sha256
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.network = InstanceRefiner()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=peak, weight_decay=0.05)
        self.seconds, self.steps = 0.0, 0
        if (folder / 'run.pt').exists():
            state = torch.load(folder / 'run.pt', weights_only=True)
            if state['tracker'] != tracker_sha256:
                raise EngineError(f'{folder} holds a run behind a tracker of sha256 '
                                  f'{state["tracker"]}, this one has {tracker_sha256}: give '
                                  'another --run or that --tracker-model')
            self.seconds, self.steps = state['seconds'], state['steps']
            self.network.load_state_dict(state['network'])
            self.optimizer.load_state_dict(state['optimizer'])

    def step(self, given: Batch, progress: float) -> tuple[float, float]:
        """One step of AdamW; loss and share of right instances before it."""
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(progress, self.peak)
        self.network.train()
        logits, objects = self.network(**given.inputs, empty=given.empty)
        loss = refiner_loss(logits, objects, given)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        return float(loss.detach()), right(logits.detach(), given)

    def save(self) -> None:
        """`run.pt` to go on from and `refiner.safetensors` to export, each whole or not there."""
        state = {'tracker': self.tracker_sha256, 'seconds': self.seconds, 'steps': self.steps,
                 'network': self.network.state_dict(), 'optimizer': self.optimizer.state_dict()}
        torch.save(state, self.folder / '.run.part')
        os.replace(self.folder / '.run.part', self.folder / 'run.pt')
        keep(self.network, self.folder / 'refiner.safetensors',
             {'tracker': self.tracker_sha256, 'steps': str(self.steps),
              'seconds': f'{self.seconds:.0f}', 'curriculum': str(asdict(CURRICULUM))})


def train(run: Run, pool: Pool, size: int, steps: int, minutes: float) -> None:
    """Until `steps`, or `minutes` of training where steps are 0; prints and saves on the way."""
    clock = saved = time.monotonic()
    means: list[tuple[float, float]] = []

    def progress() -> float:
        return run.steps / steps if steps else run.seconds / (60 * minutes)

    while progress() < 1:
        given = pool.batch(np.random.default_rng([run.seed, run.steps]), size)
        if given is None:  # nothing to learn from: counts as a step, or it would come again
            run.steps += 1
            continue
        means.append(run.step(given, progress()))
        now = time.monotonic()
        run.seconds, clock = run.seconds + now - clock, now
        if run.steps % 20 == 0 or progress() >= 1:
            loss, share = np.nanmean(means, 0)
            means.clear()
            print(f'step {run.steps} {run.seconds:.0f} s loss {loss:.4f} right {share:.4f}',
                  flush=True)
        if now - saved > SAVE_EVERY_S:
            run.save()
            saved = now
    run.save()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Train the Temporal Refiner on cached queries.')
    parser.add_argument('--data', type=Path, nargs='+', required=True,
                        help='folders of training.tracker_cache')
    parser.add_argument('--run', type=Path, required=True)
    parser.add_argument('--tracker-model', default=Config().tracker_model,
                        help='the frozen tracker: a name under models/trackers/ or a path')
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, default=15.0)
    length.add_argument('--steps', type=int, default=0)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--windows', type=int, default=WINDOWS, help='different ones')
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sources = load_sources(given.data)
    tracker = FrozenTracker(find_model(given.tracker_model, 'trackers'))
    run = Run(given.run, tracker.card.sha256, given.learning_rate, given.seed)
    print(f'{len(sources)} sequences')
    train(run, Pool(sources, tracker, CURRICULUM, given.windows, given.seed), given.batch,
          given.steps, given.minutes)


if __name__ == '__main__':
    main()
