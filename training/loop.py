"""The training loop: losses of a batch, one step, a run.

On a GPU the network runs in bfloat16 autocast. The learning rate follows one cycle over the run.
Batches depend on (seed, step) alone, so a run that goes on from a checkpoint with the same number
of steps continues as if never stopped.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mos_perception.errors import MosError
from training.datasets.frame_pairs import PairBatch
from training.datasets.gmos_features import GmosBatch
from training.datasets.source import Batch, Source
from training.distributed import average_gradients, broadcast, rank_and_world_size
from training.losses.alignment import alignment_losses
from training.losses.flow import flow_loss, true_flow_loss
from training.losses.gmos_whole import gmos_losses
from training.losses.masks import foreground_loss, instance_losses
from training.losses.pairs import pair_losses
from training.metrics_logger import MetricsLogger, format_metrics
from training.nets.alignment import Alignment
from training.optimizer import one_cycle, set_learning_rate
from training.recipes import Recipe, Training
from training.recipes_gmos import GmosRecipe
from training.recipes_mosis import MosisRecipe
from training.state import State, save

AnyBatch = Batch | PairBatch | GmosBatch
_REMEDY = 'resume from the last checkpoint with a lower learning rate'


class TrainingError(MosError):
    """A training step that must not be applied."""


def dimos_losses(network: nn.Module, batch: Batch, recipe: Recipe, progress: float = 0.0,
                 alignment: Alignment | None = None) -> dict[str, Tensor]:
    """The weighted loss terms of a batch; their sum is minimised.

    `progress` in [0, 1] of the run; `alignment`: the training-only parts, for recipes that use
    them. Raises TrainingError if an output is not finite.
    """
    with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=batch.image.is_cuda):
        outputs = network(batch.image, batch.voxel, batch.evidence)
    outputs = {name: value.float() for name, value in outputs.items()}
    if bad := [name for name, value in outputs.items() if not torch.isfinite(value).all()]:
        raise TrainingError(f'the network gave values that are not finite in {", ".join(bad)}: '
                            f'check the data, or {_REMEDY}')
    weights, targets = recipe.weights, batch.targets
    terms = instance_losses(outputs, targets, weights)
    if weights.flow:
        terms['flow'] = weights.flow * flow_loss(batch.unaugmented, batch.previous,
                                                 outputs['flow'], weights.census)
    if weights.true_flow:
        background = targets.masks[:, 0]
        terms['true_flow'] = weights.true_flow * true_flow_loss(outputs['flow'], batch.flow,
                                                                background)
    if weights.foreground:
        terms['foreground'] = weights.foreground * foreground_loss(outputs['foreground'], targets)
    if recipe.sum_frames:
        terms = {name: recipe.frames * term for name, term in terms.items()}
    if alignment:
        branches = {name: value for name, value in outputs.items() if '.' in name}
        terms |= alignment_losses(branches, alignment, recipe.alignment, recipe.frames, progress,
                                  has_both_inputs(batch))
    return terms


# of a network, a batch and its recipe, and what else a step knows: progress, alignment
LOSSES = {Recipe: dimos_losses, MosisRecipe: pair_losses, GmosRecipe: gmos_losses}


def has_both_inputs(batch: Batch) -> Tensor:
    """(B,) bool: samples of which neither the image nor the events are all zeros."""
    has_image = (batch.image != 0).flatten(1).any(1)
    has_events = (batch.voxel != 0).flatten(1).any(1)
    return has_image & has_events


def train_step(state: State, batch: AnyBatch, recipe: Training, learning_rate: float,
               progress: float = 0.0) -> dict[str, float]:
    """One update; returns the terms, the loss and the norm of the gradient.

    Raises TrainingError before anything changes if the loss or the gradient is not finite.
    """
    set_learning_rate(state.optimizer, recipe, learning_rate, progress)
    state.optimizer.zero_grad(set_to_none=True)
    terms = LOSSES[type(recipe)](state.network, batch, recipe, progress, state.alignment)
    total = sum(terms.values())
    metrics = {name: float(term.detach()) for name, term in terms.items()}
    metrics['loss'] = float(total.detach())
    if not math.isfinite(metrics['loss']):
        raise TrainingError(f'step {state.step}: loss is {metrics["loss"]} '
                            f'({format_metrics(metrics)}): must be finite; {_REMEDY}')
    total.backward()
    average_gradients(state.modules.values())
    trained = [p for module in state.modules.values() for p in module.parameters()]
    norm = torch.nn.utils.clip_grad_norm_(trained, recipe.clip_norm or math.inf)
    if not torch.isfinite(norm):
        raise TrainingError(f'step {state.step}: gradient norm is {float(norm)}: must be finite; '
                            f'{_REMEDY}')
    state.optimizer.step()
    state.step += 1
    return metrics | {'gradient': float(norm)}


def fit(state: State, data: Source, recipe: Training, folder: Path, *, steps: int = 0,
        minutes: float = 0.0, save_minutes: float = 5.0, log_seconds: float = 20.0,
        command: str = '') -> State:
    """Run to `steps` or `minutes` of training time (0 = no such limit); saves and logs.

    Whichever comes first: the progress of the run is the larger of steps / `steps` and
    elapsed / `minutes`.
    """
    for module in state.modules.values():
        module.train()
    about = {'data': data.about, 'command': command, 'threads': torch.get_num_threads()}
    begun, offset = time.monotonic(), state.seconds
    saved, learning_rate = begun, 0.0
    rank, world_size = rank_and_world_size()
    device = next(state.network.parameters()).device
    with MetricsLogger(folder, recipe.name, state.step, active=rank == 0) as logger:
        while True:
            state.seconds = offset + time.monotonic() - begun
            progress = broadcast(_progress(state, steps, minutes))
            done = progress >= 1
            if logger.due(state.step, 0 if done else log_seconds):
                state.metrics = logger.write(
                    state.step, progress, state.seconds, learning_rate=learning_rate,
                    batch=recipe.batch * world_size, pace=data.report())
            if done or time.monotonic() - saved >= 60 * save_minutes:
                if rank == 0:
                    save(state, recipe, folder, about)
                saved = time.monotonic()
            if done:
                return state
            batch = data.draw(state.step).to(device)
            # dropout: by (seed, step) as the data
            torch.manual_seed(int(data.step_rng(state.step).integers(2 ** 63)))
            learning_rate = one_cycle(progress, recipe.learning_rate, recipe.warmup,
                                      recipe.final_learning_rate_factor)
            metrics = train_step(state, batch, recipe, learning_rate, progress)
            logger.add(state.step, progress, metrics)


def _progress(state: State, steps: int, minutes: float) -> float:
    """How much of the run is done; 1 or more at its end."""
    by_steps = state.step / steps if steps else 0.0
    by_time = state.seconds / (60 * minutes) if minutes else 0.0
    return max(by_steps, by_time)
