"""Train one recipe on a packed set, or on scenes that are rendered meanwhile.

`python -m training.train --recipe dimos_nano --data runs/set --out runs/dimos_nano --minutes 60 --threads 1`
`python -m training.train --recipe dimos_nano --online train,mid=2 --workers 2 --cache-gb 4 --out runs/x --minutes 60`
`torchrun --nproc-per-node 2 -m training.train ...`  one process per GPU: `batch` is each one's, gradients are averaged
`python -m training.train --recipe dimos_nano --smoke`  render, train, export and score a little: does all of it run?

On a GPU the network runs in bfloat16 autocast. The GPU path and nccl have not been run by us: no GPU was at hand.

The learning rate follows one cycle over the run: the fraction done is the larger of steps / --steps and
elapsed / --minutes. Batches depend on (seed, step) alone, so `--resume` with --steps continues as if never stopped.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mos_perception.errors import MosError
from training.datasets.clips import PackedSet
from training.datasets.online import OnlineSet
from training.datasets.source import Batch, Source
from training.journal import Journal, words
from training.losses.alignment import alignment_losses
from training.losses.flow import flow_loss, true_flow_loss
from training.losses.masks import dense_loss, instance_losses
from training.nets.alignment import Alignment
from training.nets.dimos import Dimos
from training.optimizer import one_cycle, set_rates
from training.parallel import agreed, average_gradients, join, ranks
from training.recipes import RECIPES, Recipe
from training.state import State, load, save, start, start_from


class TrainingError(MosError):
    """A training step that must not be applied."""


def losses(network: Dimos, batch: Batch, recipe: Recipe, alignment: Alignment | None = None,
           progress: float = 0.0) -> dict[str, Tensor]:
    """The weighted loss terms of a batch; their sum is minimised. Raises TrainingError if an output is not finite.

    `alignment`: the training-only parts, for recipes that use them; `progress` in [0, 1] of the run.
    """
    with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=batch.image.is_cuda):
        outputs = network(batch.image, batch.voxel)
    outputs = {name: value.float() for name, value in outputs.items()}
    if bad := [name for name, value in outputs.items() if not torch.isfinite(value).all()]:
        raise TrainingError(f'the network gave values that are not finite in {", ".join(bad)}: check the data, '
                            'or resume from the last checkpoint with a lower learning rate')
    terms = instance_losses(outputs, batch.targets, recipe.weights)
    if recipe.weights.flow:
        flow = flow_loss(batch.clean, batch.previous, outputs['flow'], recipe.weights.census)
        terms['flow'] = recipe.weights.flow * flow
    if recipe.weights.true_flow:
        away = true_flow_loss(outputs['flow'], batch.flow, batch.targets.masks[:, 0])
        terms['true_flow'] = recipe.weights.true_flow * away
    if recipe.weights.dense:
        terms['dense'] = recipe.weights.dense * dense_loss(outputs['dense'], batch.targets)
    if recipe.sum_frames:
        terms = {name: recipe.frames * term for name, term in terms.items()}
    if alignment:
        branches = {name: value for name, value in outputs.items() if '.' in name}
        whole = (batch.image != 0).flatten(1).any(1) & (batch.voxel != 0).flatten(1).any(1)
        terms |= alignment_losses(branches, alignment, recipe.alignment, recipe.frames, progress, whole)
    return terms


def train_step(state: State, batch: Batch, recipe: Recipe, rate: float, progress: float = 0.0) -> dict[str, float]:
    """One update. Raises TrainingError before anything changes if the loss or the gradient is not finite."""
    set_rates(state.optimizer, recipe, rate, progress)
    state.optimizer.zero_grad(set_to_none=True)
    terms = losses(state.network, batch, recipe, state.alignment, progress)
    total = sum(terms.values())
    numbers = {name: float(term.detach()) for name, term in terms.items()} | {'loss': float(total.detach())}
    if not math.isfinite(numbers['loss']):
        raise TrainingError(f'step {state.step}: loss is {numbers["loss"]} ({words(numbers)}): must be finite; '
                            'resume from the last checkpoint with a lower learning rate')
    total.backward()
    average_gradients(state.modules.values())
    trained = [p for module in state.modules.values() for p in module.parameters()]
    norm = torch.nn.utils.clip_grad_norm_(trained, recipe.clip_norm or math.inf)
    if not torch.isfinite(norm):
        raise TrainingError(f'step {state.step}: gradient norm is {float(norm)}: must be finite; '
                            'resume from the last checkpoint with a lower learning rate')
    state.optimizer.step()
    state.step += 1
    return numbers | {'gradient': float(norm)}


def fit(state: State, data: Source, recipe: Recipe, folder: Path, *, steps: int = 0, minutes: float = 0.0,
        save_minutes: float = 5.0, log_seconds: float = 20.0, command: str = '') -> State:
    """Run to `steps` or `minutes` of training time (0 = no such limit), whichever comes first; saves and logs."""
    for module in state.modules.values():
        module.train()
    about = {'data': data.about, 'command': command, 'threads': torch.get_num_threads()}
    begun, offset = time.monotonic(), state.seconds
    saved, rate = begun, 0.0
    (rank, processes), device = ranks(), next(state.network.parameters()).device
    main_process = rank == 0
    with Journal(folder, recipe.name, state.step, main_process) as journal:
        while True:
            state.seconds = offset + time.monotonic() - begun
            done = agreed(max(state.step / steps if steps else 0.0, state.seconds / (60 * minutes) if minutes else 0.0))
            if journal.due(state.step, 0 if done >= 1 else log_seconds):
                state.metrics = journal.write(state.step, done, state.seconds, rate, recipe.batch * processes,
                                              data.report())
            if done >= 1 or time.monotonic() - saved >= 60 * save_minutes:
                if main_process:
                    save(state, recipe, folder, about)
                saved = time.monotonic()
            if done >= 1:
                return state
            batch = data.draw(state.step).to(device)
            torch.manual_seed(int(data.step_rng(state.step).integers(2 ** 63)))  # dropout: by (seed, step) as the data
            rate = one_cycle(done, recipe.learning_rate, recipe.warmup, recipe.last_rate)
            numbers = train_step(state, batch, recipe, rate, done)
            journal.add(state.step, done, numbers)


def open_data(given: argparse.Namespace, recipe: Recipe) -> Source:
    """The data set that the command line asks for."""
    if given.data:
        return PackedSet(given.data, recipe)
    return OnlineSet(given.online, recipe, workers=given.workers, device=given.render_device, cache_gb=given.cache_gb,
                     reuse=given.reuse)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano')
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument('--smoke', action='store_true', help='all stages in a minute or two, in a folder that is removed')
    data.add_argument('--data', type=Path, help='folder of a packed set (training.datasets.clips)')
    data.add_argument('--online', metavar='PRESET[=WEIGHT],...', help='scenes rendered while training')
    parser.add_argument('--workers', type=int, default=1, help='processes that render (--online)')
    parser.add_argument('--render-device', default='cpu', help='cpu or cuda (--online)')
    parser.add_argument('--cache-gb', type=float, default=0.0, help='memory for clips to be drawn again (--online)')
    parser.add_argument('--reuse', type=int, default=0, help='samples of each clip (--online): 1, or 8 with a cache')
    parser.add_argument('--out', type=Path, help='folder of the run: checkpoint, metrics.jsonl')
    parser.add_argument('--minutes', type=float, default=0.0, help='training time, across resumes')
    parser.add_argument('--steps', type=int, default=0)
    parser.add_argument('--save-minutes', type=float, default=5.0)
    parser.add_argument('--threads', type=int, default=0, help='0 = one per core')
    parser.add_argument('--resume', action='store_true')
    parser.add_argument('--start-from', type=Path, help='folder of a run: begin with its network')
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    recipe = RECIPES[given.recipe]
    if given.smoke:
        from training.smoke import smoke  # it needs this module
        return smoke(recipe)
    if not (given.minutes or given.steps) or not given.out:
        parser.error('give --out, and --minutes or --steps')
    if not given.resume and (given.out / 'checkpoint.json').exists():
        parser.error(f'{given.out} holds a run already: add --resume to go on with it, or give another --out')
    given.out.mkdir(parents=True, exist_ok=True)
    device = join()
    try:
        with open_data(given, replace(recipe, seed=recipe.seed + ranks()[0])) as data:
            resume = given.resume and (given.out / 'checkpoint.json').exists()
            if given.resume and not resume:  # stopped before the first checkpoint
                print(f'note: no checkpoint in {given.out} yet, starting anew', file=sys.stderr)
            if resume:
                state = load(given.out, recipe, data.about, device)
            else:
                state = start_from(given.start_from, recipe, device) if given.start_from else start(recipe, device)
            fit(state, data, recipe, given.out, steps=given.steps, minutes=given.minutes,
                save_minutes=given.save_minutes,
                command=' '.join(['python -m training.train', *(sys.argv[1:] if arguments is None else arguments)]))
    except MosError as error:
        print(f'training: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
