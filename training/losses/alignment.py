"""Losses between the encoders' branches: contrast, adversarial, translation. Training only.

Branches are named as in `Dimos.forward`: 'image_motion.2' is the motion encoder of the image at
1/16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed.nn
from torch import Tensor
from torch.nn import functional as F

from training.distributed import rank_and_world_size
from training.nets.alignment import MODALITIES, TYPES, Alignment, reverse_gradient

# the modality that tells most about each type
REFERENCE = {'appearance': 'image', 'motion': 'event'}
DEEPEST = 2


@dataclass(frozen=True)
class AlignmentWeights:
    """Factors of the terms; 0 switches one off."""

    contrast: float = 0.0
    """Of `contrast_loss`. Released for MouseSIS: 10; the paper: 0.5."""
    adversarial: float = 0.0
    """Of `adversarial_loss`. Released for MouseSIS: 1; the paper: 0.1."""
    translation: float = 0.0
    """Of `translation_loss`. Released and paper: 10."""
    temperature: float = 0.07
    """Of the contrast."""
    detach_reference: bool = True
    """The adversarial loss does not move the reference modality: the paper's asymmetry.

    As released it moves both.
    """
    last_frame_twice: bool = False
    """As released, adversarial and translation see the last frame only and count twice.

    Else they are means over all frames.
    """

    @property
    def any(self) -> bool:
        """Whether some term is on."""
        return max(self.contrast, self.adversarial, self.translation) > 0


def reversal(progress: float, gamma: float = 10.0) -> float:
    """Factor of the gradient reversal at `progress` p in [0, 1] of a run (Ganin 2016).

    2 / (1 + exp(-gamma p)) - 1.
    """
    return 2 / (1 + math.exp(-gamma * progress)) - 1


def nt_xent(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over positive pairs of -log(e^s+ / (e^s+ + sum of e^s-)), s = cosine / temperature.

    Chen 2020, with the pair rules of pytorch-metric-learning: other positives are not in the
    denominator. embeddings (K, d) of unit length, labels (K,): equal labels are positives of each
    other.
    """
    similarity = embeddings @ embeddings.T / temperature
    same = labels[:, None] == labels
    negatives = torch.logsumexp(similarity.masked_fill(same, -torch.inf), 1, keepdim=True)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchor, positive = (same & ~itself).nonzero(as_tuple=True)
    wanted = similarity[anchor, positive]
    return (torch.logaddexp(wanted, negatives[anchor, 0]) - wanted).mean()


def gathered(embeddings: Tensor, labels: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Embeddings (K, d) and labels (K,) of all processes, gradients included.

    Labels of two processes never agree. `room` >= K: rows that every process sends, since each may
    have other samples to leave out.
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return embeddings, labels
    filler = room - len(labels)
    sent = F.pad(labels + rank * room, (0, filler), value=-1)
    everyone = [torch.empty_like(sent) for _ in range(world_size)]
    torch.distributed.all_gather(everyone, sent)
    rows = torch.cat(torch.distributed.nn.all_gather(F.pad(embeddings, (0, 0, 0, filler))))
    known = torch.cat(everyone) >= 0
    return rows[known], torch.cat(everyone)[known]


def contrast_loss(branches: dict[str, Tensor], parts: Alignment, frames: int, temperature: float,
                  samples: int = 0) -> Tensor:
    """Same sample and type in the other frame attract; other samples and the other type repel.

    Per modality, averaged. The branches' batches are `frames` blocks of B samples. With the two
    encoders of EvInsMOS the image stands for appearance and the events for motion. Processes of a
    distributed run see each other's embeddings; `samples` >= B is then what each would have had it
    left none out.
    """
    groups = [[f'{modality}_{kind}.{DEEPEST}' for kind in TYPES] for modality in MODALITIES]
    if f'image_motion.{DEEPEST}' not in branches:
        groups = [[f'{REFERENCE[kind]}_{kind}.{DEEPEST}' for kind in TYPES]]
    total = []
    for names in groups:
        by_type = []
        for kind, name in zip(TYPES, names):
            embeddings = parts.projectors[kind](branches[name])
            by_type.append(embeddings.unflatten(0, (frames, -1)))
        count = by_type[0].shape[1]
        stacked = torch.stack(by_type, 2).flatten(0, 2)  # (frames * B * types, d)
        labels = torch.arange(len(TYPES) * count, device=stacked.device).repeat(frames)
        room = frames * len(TYPES) * max(samples, count)
        total.append(nt_xent(*gathered(stacked, labels, room), temperature))
    return torch.stack(total).mean()


def adversarial_loss(branches: dict[str, Tensor], parts: Alignment, factor: float,
                     detach_reference: bool) -> Tensor:
    """Discriminators tell the reference modality (1) from the other (0) pixel by pixel.

    The encoders are pushed the other way by the reversed gradient times `factor`. Mean of the two
    modalities, summed over the types.
    """
    total = []
    for kind in TYPES:
        by_modality = []
        for modality in MODALITIES:
            features = branches[f'{modality}_{kind}.{DEEPEST}']
            is_reference = modality == REFERENCE[kind]
            if is_reference and detach_reference:
                features = features.detach()
            else:
                features = reverse_gradient(features, factor)
            logits = parts.discriminators[kind](features)
            label = torch.full_like(logits, float(is_reference))
            by_modality.append(F.binary_cross_entropy_with_logits(logits, label))
        total.append(torch.stack(by_modality).mean())
    return torch.stack(total).sum()


def translation_loss(branches: dict[str, Tensor], parts: Alignment) -> Tensor:
    """Mean squared error of each modality's map translated from the other's.

    Mean over 3 scales and 4 directions. The target is detached: the source learns.
    """
    errors = []
    for kind in TYPES:
        for source, target in (MODALITIES, MODALITIES[::-1]):
            for scale, translate in enumerate(parts.translators[f'{kind}_to_{target}']):
                wanted = branches[f'{target}_{kind}.{scale}'].detach()
                translated = translate(branches[f'{source}_{kind}.{scale}'])
                errors.append(F.mse_loss(translated, wanted))
    return torch.stack(errors).mean()


def alignment_losses(branches: dict[str, Tensor], parts: Alignment, weights: AlignmentWeights,
                     frames: int, progress: float,
                     whole: Tensor | None = None) -> dict[str, Tensor]:
    """The weighted terms that are on, by name. `progress` in [0, 1] sets the gradient reversal.

    `whole` (frames * B,) bool: samples that have both modalities; nothing is aligned with an input
    that was dropped. At least two must be left in the batch, else all are taken.
    """
    samples = len(next(iter(branches.values()))) // frames
    if whole is not None:
        together = whole.unflatten(0, (frames, -1)).all(0)
        if 2 <= int(together.sum()) < samples:
            rows = together.repeat(frames)
            branches = {name: value[rows] for name, value in branches.items()}
    terms: dict[str, Tensor] = {}
    if weights.contrast:
        terms['contrast'] = weights.contrast * contrast_loss(branches, parts, frames,
                                                             weights.temperature, samples)
    seen, times = branches, 1
    if weights.last_frame_twice:
        seen, times = {name: _last_frame(value, frames) for name, value in branches.items()}, 2
    if weights.adversarial:
        terms['adversarial'] = times * weights.adversarial * adversarial_loss(
            seen, parts, reversal(progress), weights.detach_reference)
    if weights.translation:
        terms['translation'] = times * weights.translation * translation_loss(seen, parts)
    return terms


def _last_frame(batch: Tensor, frames: int) -> Tensor:
    """The last of `frames` blocks of samples."""
    return batch[-(len(batch) // frames):]
