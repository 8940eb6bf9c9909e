"""What weighting by confidence brings where labels are wrong: the same small networks with and
without it, several seeds, one table.

`python -m training.ablate_confidence --clips 300 --test 12 --steps 400 --seeds 3`

Clips of the preset video-long are rendered and learnt, in which every object starts, stops or
pauses. In a share of them each object's label is turned round within some frames of its starts and
stops, as a hasty annotator does it. Scored is MOS-I, frame by frame, on clips with stops of the
split `test`, whose labels are right; and how confident the networks are of frames that had a wrong
label.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from mos_perception.evaluation.mos_i import CellCounter, MosI
from mos_perception.models.gmos.join import joined
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.flow import at_size
from training.ablate_inputs import NARROW, fitted
from training.command import command
from training.datasets.evidence import STEP, quantised
from training.evaluate_mos_i import STOPS
from training.losses.gmos import gmos_loss
from training.nets.gmos_nano import GmosNano
from training.scenes import render_clip
from training.scenes.clip import Clip
from training.scenes.presets import find_preset
from training.video_batches import CROP, MEAN, STD
from training.video_cache import OF_VIDEO, moves_at, object_label

CONFIG = replace(NARROW, events=0, event_channels=0, queries=8)
STARTS = {'start_stop': 1.0, 'empty': 0.0, 'moving_objects': (2, 4)}
PEAK, BATCH = 2e-3, 12
FLIPPED, NEAR = 0.3, 3  # share of the clips, frames round a start or stop
PER_CLIP = 3            # samples
EVERY = 4               # frames of the test clips that are scored
SCORE = 0.3             # of an instance that is scored
FRAMES = 3              # that a frame must have before and after it: the long gap of 24 Hz


@dataclass(frozen=True)
class Samples:
    """N samples: `image` (N, 3, H, W) uint8, `evidence` (N, C, H, W) int8 in steps of `STEP`,
    `label` (N, h, w) uint8 0, or 1, 2, ... for objects said to move, `flipped` (N,) bool: some of
    them wrongly; `near` (N,) bool: there is a start or stop nearby.
    """

    image: np.ndarray
    evidence: np.ndarray
    label: np.ndarray
    flipped: np.ndarray
    near: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def of(self, rows: np.ndarray) -> Samples:
        """Some of them."""
        return Samples(*(getattr(self, item.name)[rows] for item in fields(self)))

    def cropped(self, rng: np.random.Generator) -> Samples:
        """All within one random window of `CROP`."""
        top, left = (int(rng.integers((side - crop) // 2 + 1))
                     for side, crop in zip(self.image.shape[2:], CROP))
        fine = np.s_[..., 2 * top:2 * top + CROP[0], 2 * left:2 * left + CROP[1]]
        coarse = np.s_[..., top:top + CROP[0] // 2, left:left + CROP[1] // 2]
        return replace(self, image=self.image[fine], evidence=self.evidence[fine],
                       label=self.label[coarse])

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Image and evidence of a network."""
        image = (torch.from_numpy(self.image).float() / 255 - MEAN[0]) / STD[0]
        return image, torch.from_numpy(self.evidence).float() * STEP


def turned(clip: Clip, at: int) -> np.ndarray:
    """(K + 1,) bool: objects that start or stop within `NEAR` frames of this one."""
    changes = clip.moving[1:] != clip.moving[:-1]  # row t: between t and t + 1
    return changes[max(0, at - NEAR):at + NEAR].any(0)


def _seen_turned(clip: Clip, at: int) -> bool:
    """Whether one of those is seen."""
    return bool(turned(clip, at)[np.unique(clip.ids[at])].any())


def said_to_move(clip: Clip, at: int, wrong: bool) -> np.ndarray:
    """(K + 1,) bool: the labels of a frame, `wrong` near starts and stops or right."""
    right = moves_at(clip, at)
    return right ^ turned(clip, at) if wrong else right


def make_samples(clips: Iterable[Clip]) -> Samples:
    """`PER_CLIP` of each clip, those of `FLIPPED` of the clips with wrong labels."""
    rng, builder = np.random.default_rng(0), EvidenceBuilder(OF_VIDEO, threads=1)
    found = []
    for clip in clips:
        wrong = rng.random() < FLIPPED
        frames = [clip.frame(n) for n in range(len(clip))]
        for at in rng.choice(np.arange(FRAMES, len(clip) - FRAMES), PER_CLIP, replace=False):
            builder.reset()
            planes = builder.build(frames[at], frames[:at] + frames[at + 1:]).tensor
            label = object_label(clip.ids[at], said_to_move(clip, at, wrong), OF_VIDEO.size)
            near = _seen_turned(clip, at)
            found.append((at_size(clip.frames[at], OF_VIDEO.size).transpose(2, 0, 1),
                          quantised(planes), label[::2, ::2], wrong and near, near))
    return Samples(*map(np.array, zip(*found)))


def train(samples: Samples, steps: int, seed: int, confidence: bool) -> GmosNano:
    """A narrow network after `steps` of `BATCH` samples."""
    torch.manual_seed(seed)
    network, rng = GmosNano(CONFIG), np.random.default_rng(seed)

    def loss() -> Tensor:
        batch = samples.of(rng.integers(len(samples), size=BATCH)).cropped(rng)
        label = torch.from_numpy(batch.label).long()
        terms = gmos_loss(network(*batch.inputs()), label, confidence)
        return terms['foreground'] + 0.4 * terms['queries']
    return fitted(network, loss, steps, PEAK)


@dataclass(frozen=True)
class Scene:
    """A test clip: of every `EVERY`th frame its `samples`, evidence and what moves."""

    samples: Samples
    truth: list[np.ndarray]
    """(H, W) ids of what moves."""


def make_scene(seed: int) -> Scene:
    """Rendered, with stops."""
    clip = render_clip(find_preset('video', events=False, **STOPS), seed, 'test')
    builder, found, truth = EvidenceBuilder(OF_VIDEO, threads=1), [], []
    frames = [clip.frame(n) for n in range(len(clip))]
    for at in range(0, len(clip), EVERY):
        planes = builder.build(frames[at], frames[:at] + frames[at + 1:]).tensor
        found.append((at_size(clip.frames[at], OF_VIDEO.size).transpose(2, 0, 1),
                      quantised(planes), np.zeros((1, 1), np.uint8), False,
                      _seen_turned(clip, at)))
        truth.append(np.where(clip.moving[at][clip.ids[at]], clip.ids[at], 0))
    return Scene(Samples(*map(np.array, zip(*found))), truth)


@torch.no_grad()
def score(network: GmosNano, scenes: list[Scene]) -> dict[str, float]:
    """MOS-I of the networks' instances, frame by frame."""
    found = MosI()
    for number, scene in enumerate(scenes):
        counter = CellCounter()
        for row, truth in enumerate(scene.truth):
            inputs = scene.samples.of(np.array([row])).inputs()
            outputs = {key: value.numpy() for key, value in network(*inputs).items()}
            instances = joined(to_instances(outputs, truth.shape, SCORE, 8), inputs[1][0].numpy())
            counter.add(truth, instances.id_image(np.arange(1, len(instances) + 1)))
        found.add(str(number), counter.cells())
    return found.summary('frame')


@torch.no_grad()
def confidences(network: GmosNano, samples: Samples) -> np.ndarray:
    """(N,) of the foreground, in [1, 5]."""
    parts = np.array_split(np.arange(len(samples)), -(-len(samples) // 16))
    return np.concatenate([network(*samples.of(rows).inputs())['foreground_quality'][:, 1].numpy()
                           for rows in parts])


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[tuple[str, ...]]:
    """Per quantity: its name, its mean without and with the weighting, and the lowest and highest
    difference of a seed.
    """
    rows = []
    for name in found['with'][0]:
        without, with_ = (np.array([one[name] for one in found[key]])
                          for key in ('without', 'with'))
        gains = with_ - without
        rows.append((name, f'{without.mean():.3f}', f'{with_.mean():.3f}',
                     f'{gains.mean():+.3f} ({gains.min():+.3f} to {gains.max():+.3f})'))
    return rows


def run(samples: Samples, scenes: list[Scene], steps: int, seeds: int,
        console: Console) -> dict[str, list[dict[str, float]]]:
    """Both trainings of each seed: their scores and confidences."""
    found: dict[str, list[dict[str, float]]] = {'without': [], 'with': []}
    tested = [scene.samples for scene in scenes]
    for seed in track(range(seeds), 'seeds', console=console):
        for name in found:
            network = train(samples, steps, seed, name == 'with')
            learnt = confidences(network, samples)
            unseen = np.concatenate([confidences(network, part) for part in tested])
            near = np.concatenate([part.near for part in tested])
            found[name].append(score(network, scenes) | {
                'confidence, wrong label': float(learnt[samples.flipped].mean()),
                'confidence, right label near a start or stop':
                    float(learnt[samples.near & ~samples.flipped].mean()),
                'confidence, the other learnt frames': float(learnt[~samples.near].mean()),
                'confidence, test, near a start or stop': float(unseen[near].mean()),
                'confidence, test, elsewhere': float(unseen[~near].mean())})
            console.print(seed, name, found[name][-1])
    return found


@command('ablate_confidence')
def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Ablate the weighting by confidence.')
    parser.add_argument('--clips', type=int, default=300, help='to learn from')
    parser.add_argument('--test', type=int, default=12, help='clips with stops to score')
    parser.add_argument('--steps', type=int, default=400)
    parser.add_argument('--seeds', type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    console = Console(stderr=True)
    preset = find_preset('video-long', events=False, **STARTS)
    samples = make_samples(render_clip(preset, seed, 'train')
                           for seed in track(range(given.clips), 'samples', console=console))
    scenes = [make_scene(seed) for seed in track(range(given.test), 'test', console=console)]
    found = run(samples, scenes, given.steps, given.seeds, console)
    table = Table('', 'unweighted', 'weighted', 'gain, lowest to highest', title=(
        f'{given.steps} steps of {BATCH}, {len(samples)} samples of which '
        f'{samples.flipped.mean():.0%} have a wrong label, {len(scenes)} test clips, '
        f'{given.seeds} seeds'))
    for row in rows_of(found):
        table.add_row(*row)
    Console().print(table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
