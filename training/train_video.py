"""Train GMOS' light members on cached motion evidence: `python -m training.train_video --data CACHE
--run FOLDER`.

One run trains the trunk, the foreground's head and the queries together; `training.export_video`
cuts both members from it. Ends after `--minutes` of training or `--steps`; started again with the
same folder it goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from mos_perception.events.voxel import channels
from mos_perception.models.gmos.colour import ColourModel
from training.losses.gmos import gmos_loss
from training.nets.gmos_nano import MOVABLE, GmosNano, GmosNanoConfig, resized_to
from training.video_batches import Batch, Batches
from training.video_cache import VOXEL
from training.video_run import load_run

SAVE_EVERY_S = 90.0
WITH_COLOURS = 0.6    # of the samples
COLOURS_FROM = 300    # steps; before it the masks are chance


def learning_rate(progress: float, peak: float, warm_up: float = 0.03) -> float:
    """A ramp over the first `warm_up` of the run, then half a cosine to 1 % of the peak."""
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Run:
    """Network, average of its weights, optimizer and how long they have trained; saved and found
    again in `folder`.
    """

    def __init__(
        self, folder: Path, config: GmosNanoConfig, peak: float, start_from: Path | None,
        seed: int = 0
    ) -> None:
        self.folder, self.peak, self.seed = folder, peak, seed
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.net, self.average = GmosNano(config), GmosNano(config)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=peak, weight_decay=0.02)
        self.seconds, self.steps, self.origin = 0.0, 0, ''
        if (folder / 'state.json').exists():
            values = json.loads((folder / 'state.json').read_text(encoding='utf-8'))
            self.seconds, self.steps = values['seconds'], values['steps']
            self.origin = values.get('origin', '')
            self.net.load_state_dict(load_file(folder / 'net.safetensors'))
            self.optimizer.load_state_dict(torch.load(folder / 'optimizer.pt', weights_only=True))
        elif start_from is not None:
            begun, earlier = load_run(start_from)
            self.origin = f'{earlier["steps"]} steps, {earlier["seconds"]:.0f} s before'
            self.net.load_state_dict(resized_to(begun, config).state_dict())
        self.average.load_state_dict(self.net.state_dict())
        if (folder / 'state.json').exists():
            self.average.load_state_dict(load_file(folder / 'average.safetensors'))

    def colours(self, batch: Batch) -> Tensor:
        """(B, 1, H, W): the log-odds that the averaged weights' own masks give, for a share of the
        samples; zeros for the others, as on a camera's first frame, and for a single picture.
        """
        odds = torch.zeros_like(batch.image[:, :1])
        rows = np.flatnonzero(np.random.default_rng(self.steps).random(len(odds)) < WITH_COLOURS)
        if self.net.geometry is None or self.steps < COLOURS_FROM or not len(rows):
            return odds
        with torch.no_grad():
            logits = self.average.eval()(
                batch.image[rows], batch.evidence[rows], odds[rows], batch.voxel[rows]
            )['foreground_logits']
        logits = functional.interpolate(logits, scale_factor=2.0, mode='bilinear')[:, 0].numpy()
        for row, found in zip(rows, logits, strict=True):
            model = ColourModel()
            model.learn(batch.bins[row], found)
            odds[row, 0] = torch.from_numpy(model.log_odds(batch.bins[row]))
        return odds

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """`foreground` and, with queries, `queries` of the loss."""
        self.net.train()
        outputs = self.net(batch.image, batch.evidence, self.colours(batch), batch.voxel)
        return gmos_loss(outputs, batch.labels)

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """One step of AdamW; the terms of the loss before it."""
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(progress, self.peak)
        terms = self.terms(batch)
        loss = terms['foreground'] + 0.4 * terms.get('queries', torch.zeros(()))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        decay = min(0.99, self.steps / (self.steps + 10))
        for kept, new in zip(
            self.average.state_dict().values(), self.net.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
        return {name: float(term.detach()) for name, term in terms.items()}

    def save(self) -> None:
        """Weights as safetensors, what the run was as JSON, each file whole or not there."""
        for name, net in (('net', self.net), ('average', self.average)):
            save_file(
                {key: value.contiguous() for key, value in net.state_dict().items()},
                self.folder / f'.{name}.part',
            )
            (self.folder / f'.{name}.part').replace(self.folder / f'{name}.safetensors')
        torch.save(self.optimizer.state_dict(), self.folder / '.optimizer.part')
        (self.folder / '.optimizer.part').replace(self.folder / 'optimizer.pt')
        state = {
            'seconds': self.seconds,
            'steps': self.steps,
            'origin': self.origin,
            'config': dataclasses.asdict(self.net.config),
        }
        (self.folder / 'state.json').write_text(json.dumps(state), encoding='utf-8')


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Train GMOS' light members on cached motion evidence."
    )
    parser.add_argument(
        '--data', type=Path, nargs='+', required=True, help='folders of training.video_cache'
    )
    parser.add_argument('--run', type=Path, required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, default=30.0)
    length.add_argument('--steps', type=int, default=0)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--learning-rate', type=float, default=2e-3)
    parser.add_argument('--queries', type=int, default=8, help='0 trains the binary member alone')
    parser.add_argument('--events', action='store_true', help='with an event encoder')
    parser.add_argument('--movable', action='store_true',
                        help='sees one picture alone: on a cache made with --movable')
    parser.add_argument('--start-from', type=Path, help='folder of a run to begin with')
    parser.add_argument('--seed', type=int, default=0, help='of first weights and of samples')
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    planes = channels(VOXEL.formulation, VOXEL.bins) if given.events else 0
    config = GmosNanoConfig(queries=given.queries, event_channels=planes)
    if given.movable:
        config = MOVABLE
    run = Run(given.run, config, given.learning_rate, given.start_from, given.seed)
    batches = Batches(given.data, np.random.default_rng([run.seed, run.steps]))
    clock = saved = time.monotonic()
    sums: dict[str, float] = {}

    def progress() -> float:
        if given.steps:
            return run.steps / given.steps
        return run.seconds / (60 * given.minutes) if given.minutes else 1.0

    while progress() < 1:
        terms = run.step(batches.take(given.batch), progress())
        now = time.monotonic()
        run.seconds, clock = run.seconds + now - clock, now
        for name, value in terms.items():
            sums[name] = 0.95 * sums.get(name, value) + 0.05 * value
        if run.steps % 10 == 0:
            text = ' '.join(f'{name} {value:.3f}' for name, value in sums.items())
            print(
                f'step {run.steps} {run.seconds / 60:.1f} min, {100 * progress():.1f} % '
                f'samples {len(batches)} {text}',
                flush=True,
            )
        if now - saved > SAVE_EVERY_S:
            run.save()
            saved = now
    run.save()


if __name__ == '__main__':
    main()
