"""Train the referring tracker on cached queries: `python -m training.train_tracker --data FOLDER...
--run FOLDER --minutes 20`, or `--steps`.

The segmenter is frozen: what it found was cached by `training.tracker_cache`. Started again with
the same folder a run goes on; batches depend on (seed, step) alone, so that with `--steps` it does
so as if never stopped.
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

from mos_perception.errors import EngineError
from training.checkpoints import keep
from training.nets.instance_tracker import InstanceTracker
from training.tracker_batches import IGNORED, NOISES, Batch, Curriculum, batch
from training.tracker_cache import Sequence, load_folder
from training.train_video import learning_rate

SAVE_EVERY_S = 60.0


def unroll(network: InstanceTracker, given: Batch) -> Tensor:
    """Logits (T, blocks, B, S, N + 1) of a batch, slots carried from frame to frame."""
    found, empty_at_all = [], given.empty.all(-1)
    reference = given.frame.new_zeros(*given.initial[:, 0].shape[:2], network.config.width)
    for at in range(given.frame.shape[1]):
        padding, empty = given.padding[:, at].clone(), given.empty[:, at].clone()
        padding[:, 0] = False  # attention to nothing is not a number
        empty[empty_at_all[:, at], 0] = False
        queries, slots, logits = network(given.frame[:, at], given.initial[:, at], reference,
                                         given.place[:, at], given.pairs[:, at], padding, empty)
        found.append(logits)
        born = given.born[:, at, :, None].expand_as(reference)
        reference = torch.where(born >= 0, queries.gather(1, born.clamp(min=0)), slots[-1])
    return torch.stack(found)


def tracker_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of (T, blocks, B, S, N + 1) to `target` (B, T, S), mean over blocks and slots
    that have one.
    """
    wanted = target.transpose(0, 1)[:, None].expand(logits.shape[:-1])
    if not (wanted != IGNORED).any():
        return logits.new_zeros(())
    return F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=IGNORED)


def right(logits: Tensor, target: Tensor) -> float:
    """Share of the slots whose largest logit of the last block is their target."""
    known = (target != IGNORED).transpose(0, 1)
    hits = logits[:, -1].argmax(-1) == target.transpose(0, 1)
    return float(hits[known].float().mean()) if known.any() else float('nan')


class Run:
    """Network, optimizer and how far they are; saved and found again in `folder`."""

    def __init__(self, folder: Path, channels: int, peak: float, seed: int = 0) -> None:
        """Raises EngineError for a folder whose run is for other embeddings."""
        self.folder, self.peak, self.seed = folder, peak, seed
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.network = InstanceTracker(channels)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=peak, weight_decay=0.05)
        self.seconds, self.steps = 0.0, 0
        if (folder / 'run.pt').exists():
            state = torch.load(folder / 'run.pt', weights_only=True)
            if state['channels'] != channels:
                raise EngineError(f'{folder} holds a run for embeddings of {state["channels"]} '
                                  f'channels, the data has {channels}: give another --run')
            self.seconds, self.steps = state['seconds'], state['steps']
            self.network.load_state_dict(state['network'])
            self.optimizer.load_state_dict(state['optimizer'])

    def step(self, given: Batch, progress: float) -> tuple[float, float]:
        """One step of AdamW; loss and share of right slots before it."""
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(progress, self.peak)
        self.network.train()
        logits = unroll(self.network, given)
        loss = tracker_loss(logits, given.target)
        self.optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
        self.steps += 1
        return float(loss.detach()), right(logits.detach(), given.target)

    def save(self, made: Curriculum) -> None:
        """`run.pt` to go on from and `tracker.safetensors` to export, each whole or not there."""
        state = {'channels': self.network.channels, 'seconds': self.seconds, 'steps': self.steps,
                 'network': self.network.state_dict(), 'optimizer': self.optimizer.state_dict()}
        torch.save(state, self.folder / '.run.part')
        os.replace(self.folder / '.run.part', self.folder / 'run.pt')
        keep(self.network, self.folder / 'tracker.safetensors',
             {'channels': str(self.network.channels), 'steps': str(self.steps),
              'seconds': f'{self.seconds:.0f}', 'curriculum': str(asdict(made))})


def train(run: Run, data: list[Sequence], made: Curriculum, size: int, steps: int,
          minutes: float) -> None:
    """Until `steps`, or `minutes` of training where steps are 0; prints and saves on the way."""
    clock = saved = time.monotonic()
    means: list[tuple[float, float]] = []

    def progress() -> float:
        return run.steps / steps if steps else run.seconds / (60 * minutes)

    while progress() < 1:
        rng = np.random.default_rng([run.seed, run.steps])
        means.append(run.step(batch(data, made, rng, size), progress()))
        now = time.monotonic()
        run.seconds, clock = run.seconds + now - clock, now
        if run.steps % 50 == 0 or progress() >= 1:
            loss, share = np.nanmean(means, 0)
            means.clear()
            print(f'step {run.steps} {run.seconds:.0f} s loss {loss:.4f} right {share:.4f}',
                  flush=True)
        if now - saved > SAVE_EVERY_S:
            run.save(made)
            saved = now
    run.save(made)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Train the referring tracker on cached queries.')
    parser.add_argument('--data', type=Path, nargs='+', required=True,
                        help='folders of training.tracker_cache')
    parser.add_argument('--run', type=Path, required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, default=15.0)
    length.add_argument('--steps', type=int, default=0)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--noise', choices=NOISES, default=Curriculum().noise)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data = load_folder(given.data)
    run = Run(given.run, data[0].frames[0].embeddings.shape[1], given.learning_rate, given.seed)
    made = Curriculum(noise=given.noise)
    print(f'{len(data)} sequences, {sum(len(one.frames) for one in data)} frames')
    train(run, data, made, given.batch, given.steps, given.minutes)


if __name__ == '__main__':
    main()
