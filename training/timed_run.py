"""Runs of a number of steps or minutes, saved and gone on with: those of DVIS' three stages."""

from __future__ import annotations

import argparse
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mos_perception.errors import EngineError
from training.checkpoints import keep
from training.train_video import learning_rate

SAVE_EVERY_S = 60.0


class TimedRun(ABC):
    """Network, optimizer and how far they are; saved and found again in `folder`."""

    kind: ClassVar[str]
    """What is trained: names the file to export."""
    key: ClassVar[str]
    """Under which a run keeps what its network is made for."""
    mismatch: ClassVar[str]
    """What is said of a folder whose run is made for another: for which, for which now, what to do.
    """
    print_every: ClassVar[int]
    """Steps."""

    def __init__(self, folder: Path, made_for: int | str, augmentation: Any, peak: float,
                 seed: int = 0) -> None:
        """`augmentation`: a dataclass, what is done to the samples; `peak` of the learning rate.
        Raises EngineError for a folder whose run is for another `made_for`.
        """
        self.folder, self.made_for, self.augmentation = folder, made_for, augmentation
        self.peak, self.seed = peak, seed
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.network = self.make()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=peak, weight_decay=0.05)
        self.seconds, self.steps = 0.0, 0
        if (folder / 'run.pt').exists():
            state = torch.load(folder / 'run.pt', weights_only=True)
            if state[self.key] != made_for:
                raise EngineError(f'{folder} holds a run '
                                  + self.mismatch.format(state[self.key], made_for))
            self.seconds, self.steps = state['seconds'], state['steps']
            self.network.load_state_dict(state['network'])
            self.optimizer.load_state_dict(state['optimizer'])

    @abstractmethod
    def make(self) -> nn.Module:
        """A new network."""

    @abstractmethod
    def judge(self, given: Any) -> tuple[Tensor, float]:
        """The loss of a batch, and what share of it is right: of slots, their instance."""

    def step(self, given: Any, progress: float) -> tuple[float, float]:
        """One step of AdamW; what `judge` says before it."""
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(progress, self.peak)
        self.network.train()
        loss, share = self.judge(given)
        self.optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
        self.steps += 1
        return float(loss.detach()), share

    def save(self) -> None:
        """`run.pt` to go on from and the file to export, each whole or not there."""
        state = {self.key: self.made_for, 'seconds': self.seconds, 'steps': self.steps,
                 'network': self.network.state_dict(), 'optimizer': self.optimizer.state_dict()}
        torch.save(state, self.folder / '.run.part')
        os.replace(self.folder / '.run.part', self.folder / 'run.pt')
        keep(self.network, self.folder / f'{self.kind}.safetensors', self.about())

    def about(self) -> dict[str, str]:
        """What is said of the run in the file to export."""
        return {self.key: str(self.made_for), 'steps': str(self.steps),
                'seconds': f'{self.seconds:.0f}', 'augmentation': str(asdict(self.augmentation))}

    def train(self, draw: Callable[[np.random.Generator], Any], steps: int, minutes: float) -> None:
        """Until `steps`, or `minutes` of training where steps are 0; prints and saves on the way.
        Batches that `draw` has nothing for are None.
        """
        clock = saved = time.monotonic()
        means: list[tuple[float, float]] = []

        def progress() -> float:
            return self.steps / steps if steps else self.seconds / (60 * minutes)

        while progress() < 1:
            given = draw(np.random.default_rng([self.seed, self.steps]))
            if given is None:  # nothing to learn from: counts as a step, or it would come again
                self.steps += 1
                continue
            means.append(self.step(given, progress()))
            now = time.monotonic()
            self.seconds, clock = self.seconds + now - clock, now
            if self.steps % self.print_every == 0 or progress() >= 1:
                loss, share = np.nanmean(means, 0)
                means.clear()
                print(f'step {self.steps} {self.seconds:.0f} s loss {loss:.4f} right {share:.4f}',
                      flush=True)
            if now - saved > SAVE_EVERY_S:
                self.save()
                saved = now
        self.save()


def run_parser(description: str, batch: int,
               data: str = 'folders of training.tracker_cache') -> argparse.ArgumentParser:
    """The arguments of the trainings; `data` says what the folders are."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--data', type=Path, nargs='+', required=True, help=data)
    parser.add_argument('--run', type=Path, required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, default=15.0)
    length.add_argument('--steps', type=int, default=0)
    parser.add_argument('--batch', type=int, default=batch)
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    return parser
