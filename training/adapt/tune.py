"""Fine-tuning on mined labels: the foreground learns what they say, all else is held to what it
was.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mos_perception.models.gmos.colour import ColourModel
from mos_perception.models.outputs import resized
from training.adapt.mine import MOVES, UNSURE
from training.losses.gmos import query_loss
from training.nets.gmos_nano import GmosNano
from training.train_video import WITH_COLOURS, Run
from training.video_batches import Batch

PEAK = 5e-5      # of the learning rate; four times as much did harm even with true labels (docs)
PICTURE_PEAK = 1e-3  # of a network that has all to learn
BATCH = 8
HELD = 1.0       # weight of what the queries are held to


class Adaptation(Run):
    """The start network, going on. What it saves in `folder` it finds again there."""

    highest_rate = PEAK

    def __init__(self, folder: Path, start: GmosNano) -> None:
        super().__init__(folder, start.config, self.highest_rate, None)
        self._start = start.eval()
        if not self.steps:
            for net in (self.net, self.average):
                net.load_state_dict(start.state_dict())

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """`foreground` against the labels, `queries` against the start's own answers."""
        self.net.eval()  # normalisations keep the statistics that they came with
        voxel = None if self.net.events is None else batch.voxel
        with torch.no_grad():
            before = self._start(batch.image, batch.evidence, voxel=voxel)
        colours = self._colours_of(batch, before['foreground_logits'][:, 0].numpy())
        outputs = self.net(batch.image, batch.evidence, colours, voxel)
        return {'foreground': label_loss(outputs['foreground_logits'][:, 0], batch.labels),
                'queries': HELD * held_loss(outputs, before)}

    def _colours_of(self, batch: Batch, logits: np.ndarray) -> Tensor:
        """(B, 1, H, W): log-odds that the start's answers (B, h, w) give, for a share of the
        samples; zeros for the others, as on a camera's first frame.

        Those of the labels would be right too often: the network would come to believe colours.
        """
        odds = torch.zeros_like(batch.image[:, :1])
        chosen = np.random.default_rng(self.steps).random(len(odds)) < WITH_COLOURS
        for row in np.flatnonzero(chosen):
            bins = batch.bins[row]
            model = ColourModel()
            model.learn(bins, resized(logits[row], bins.shape))
            odds[row, 0] = torch.from_numpy(model.log_odds(bins))
        return odds


class PictureAdaptation(Adaptation):
    """A network of single pictures, learning what moves in others' eyes: all of it changes."""

    highest_rate = PICTURE_PEAK

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """`foreground` and `queries` against labels of 0 rests, 1, 2, ... things, UNSURE."""
        self.net.eval()  # normalisations keep the statistics that they came with
        outputs = self.net(batch.image)
        known = batch.labels != UNSURE
        things = batch.labels * known
        moves = torch.where(known, things.clamp(max=MOVES), UNSURE)
        return {'foreground': label_loss(outputs['foreground_logits'][:, 0], moves),
                'queries': query_loss(outputs, things)}


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Scalar: cross-entropy + 0.5 dice of logits (B, h, w) against labels (B, h, w) of MOVES, RESTS
    and UNSURE, which does not count.
    """
    known, target = (labels != UNSURE).float(), (labels == MOVES).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction='none')
    probability = logits.sigmoid() * known
    overlap = 2 * (probability * target).sum((1, 2)) + 1
    dice = 1 - overlap / (probability.sum((1, 2)) + target.sum((1, 2)) + 1)
    return (entropy * known).sum() / known.sum().clamp(min=1) + 0.5 * dice.mean()


def held_loss(outputs: dict[str, Tensor], before: dict[str, Tensor]) -> Tensor:
    """Scalar: how far all but the foreground's map is from what it was."""
    loss = functional.mse_loss(outputs['foreground_quality'], before['foreground_quality'])
    if 'mask_logits' in outputs:
        for name in ('mask_logits', 'motion_logits'):
            loss = loss + functional.binary_cross_entropy_with_logits(
                outputs[name], before[name].sigmoid())
        for name in ('quality', 'embeddings'):
            loss = loss + functional.mse_loss(outputs[name], before[name])
    return loss
