"""What each input of the light members brings: equal budgets, several seeds, one table.

`python -m training.ablate_inputs --clips runs/mid runs/train --steps 150 --seeds 3` makes samples
of rendered clips with events, trains a narrow network on each selection of inputs and scores it on
the last fifth of the clips: IoU of the foreground, summed over their pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mos_perception.datatypes import EventWindow
from mos_perception.errors import DatasetError
from mos_perception.models.gmos.model import half
from mos_perception.models.preprocess import voxel_tensor
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.camera_motion import CameraMotion
from mos_perception.motion.event_compensation import EventMotion
from mos_perception.motion.evidence import PER_GAP, EvidenceSpec
from mos_perception.motion.flow import at_size
from mos_perception.motion.scene_motion import from_frames
from training.command import command
from training.losses.gmos import gmos_loss
from training.nets.gmos_nano import GmosNano, GmosNanoConfig
from training.scenes.clip import Clip
from training.scenes.shards import load_shard
from training.train_video import learning_rate
from training.video_batches import MEAN, STD
from training.video_cache import OF_EVENTS, VOXEL, WINDOW_NS, drawn_images, moving_label

NARROW = GmosNanoConfig(stem=8, widths=(12, 20, 32, 48, 64), appearance=(6, 8, 12), events=8,
                        event_channels=10, queries=0)
PEAK, BATCH = 3e-3, 8
HELD_OUT = 5  # one clip of so many


@dataclass(frozen=True)
class Samples:
    """N samples: `image` (N, 3, H, W), `evidence` (N, C, H, W) and `voxel` (N, V, h, w) float32;
    `with_camera` and `raw`: the same, but the camera's motion still in; `drawn` and `alone`: the
    same of the events alone; `label` (N, h, w) int64.
    """

    image: Tensor
    evidence: Tensor
    with_camera: Tensor
    voxel: Tensor
    raw: Tensor
    drawn: Tensor
    alone: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, chosen: np.ndarray) -> Samples:
        """Some of them."""
        return Samples(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


Inputs = tuple[Tensor, Tensor, Tensor]
"""Image, evidence and voxel of a network."""


def _without(evidence: Tensor, channels: list[int] | slice = slice(0), gaps: slice = slice(0)
             ) -> Tensor:
    """Evidence with zeros in some channels of every gap, or in all of some gaps."""
    planes = evidence.unflatten(1, (-1, PER_GAP)).clone()
    planes[:, :, channels] = 0
    planes[:, gaps] = 0
    return planes.flatten(1, 2)


SELECTIONS: dict[str, Callable[[Samples], Inputs]] = {
    'all': lambda s: (s.image, s.evidence, s.voxel),
    'camera\'s motion left in the flow': lambda s: (s.image, s.with_camera, s.voxel),
    'camera\'s motion left in the events': lambda s: (s.image, s.evidence, s.raw),
    'short gaps alone': lambda s: (s.image, _without(s.evidence, gaps=slice(1, None, 2)), s.voxel),
    'long gaps alone': lambda s: (s.image, _without(s.evidence, gaps=slice(0, None, 2)), s.voxel),
    'no forward-backward error': lambda s: (s.image, _without(s.evidence, channels=[3]), s.voxel),
    'parallax left in': lambda s: (s.image, _without(s.evidence, channels=[7]), s.voxel),
    'no image': lambda s: (0 * s.image, s.evidence, s.voxel),
    'no events': lambda s: (s.image, s.evidence, 0 * s.voxel),
    'no flow': lambda s: (s.image, 0 * s.evidence, s.voxel),
    'events alone': lambda s: (0 * s.image, s.drawn, s.alone),
    'events alone, no images drawn of them': lambda s: (0 * s.image, 0 * s.drawn, s.alone),
    'events alone, nothing but such images': lambda s: (0 * s.image, s.drawn, 0 * s.alone),
}


def at_rest(flow: np.ndarray) -> CameraMotion:
    """A camera that does not move, whatever the flow (H, W, 2) says."""
    return CameraMotion(np.eye(3), 1.0, 0.5)


def make_samples(clips: Iterator[Clip], count: int, spec: EvidenceSpec = OF_EVENTS) -> Samples:
    """One of each clip: a frame that has both neighbours. Raises DatasetError without events."""
    removed = EvidenceBuilder(spec, threads=1)
    kept = EvidenceBuilder(spec, threads=1, fit=at_rest)
    of_events = EvidenceBuilder(spec, threads=1)
    parts: list[tuple[np.ndarray, ...]] = []
    for number, clip in zip(range(count), clips):
        if not len(clip.events):
            raise DatasetError(f'clip {clip.seed} of {clip.preset} has no events: render clips of '
                               'a preset with events')
        at = 3 + number % 2
        frames = [clip.frame(i) for i in range(len(clip))]
        found, raw, drawn = (
            one.build(shown[at], shown[:at] + shown[at + 1:]) for one, shown in
            ((removed, frames), (kept, frames), (of_events, drawn_images(clip, spec))))
        window = clip.window(at, WINDOW_NS)
        motion, known = (from_frames(window, one, window.t1_ns) for one in (found, drawn))
        image = (at_size(frames[at].image, spec.size) / 255 - MEAN[0]) / STD[0]
        parts.append((image.transpose(2, 0, 1).astype(np.float32), found.tensor, raw.tensor,
                      _voxel(window, motion, spec), _voxel(window, None, spec),
                      drawn.tensor, _voxel(window, known, spec),
                      (moving_label(clip, at, spec.size)[::2, ::2] > 0).astype(np.int64)))
    if not parts:
        raise DatasetError('no clips: render some with "python -m training.scenes.cache"')
    return Samples(*(torch.from_numpy(np.stack(part)) for part in zip(*parts)))


def _voxel(window: EventWindow, motion: EventMotion | None, spec: EvidenceSpec) -> np.ndarray:
    return voxel_tensor(window, half(spec.size), VOXEL, motion)


def train(samples: Samples, select: Callable[[Samples], Inputs], steps: int,
          seed: int) -> GmosNano:
    """A narrow network after `steps` of `BATCH` samples, none of them augmented."""
    torch.manual_seed(seed)
    network, rng = GmosNano(NARROW), np.random.default_rng(seed)

    def loss() -> Tensor:
        batch = samples.rows(rng.integers(len(samples), size=BATCH))
        return gmos_loss(_run(network, select(batch)), batch.label)['foreground']
    return fitted(network, loss, steps, PEAK)


def fitted(network: GmosNano, loss: Callable[[], Tensor], steps: int, peak: float) -> GmosNano:
    """The network after `steps` of AdamW, each on a `loss` of a new batch; in evaluation mode."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(step / steps, peak)
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval()


def _run(network: GmosNano, inputs: Inputs) -> dict[str, Tensor]:
    image, evidence, voxel = inputs
    return network(image, evidence, voxel=voxel)


@torch.no_grad()
def score(network: GmosNano, samples: Samples, select: Callable[[Samples], Inputs]) -> float:
    """IoU of the foreground, intersections and unions summed over all samples."""
    both = either = 0
    for first in range(0, len(samples), 16):
        part = samples.rows(np.arange(first, min(first + 16, len(samples))))
        found = _run(network, select(part))['foreground_logits'][:, 0] > 0
        both += int((found & (part.label > 0)).sum())
        either += int((found | (part.label > 0)).sum())
    return both / max(either, 1)


def markdown(scores: dict[str, list[float]], about: str) -> str:
    """The table: mean and spread of each selection, and what it loses against all inputs."""
    whole = np.mean(scores['all'])
    lines = [about, '', '| inputs | IoU, mean of the seeds | lowest - highest | against all |',
             '|---|---|---|---|']
    lines += [f'| {name} | {np.mean(values):.3f} | {min(values):.3f} - {max(values):.3f} | '
              f'{np.mean(values) - whole:+.3f} |' for name, values in scores.items()]
    return '\n'.join(lines) + '\n'


@command('ablate_inputs')
def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Ablate the inputs of the light members.')
    parser.add_argument('--clips', type=Path, nargs='+', required=True,
                        help='folders of training.scenes.cache, presets with events')
    parser.add_argument('--count', type=int, default=600, help='clips, one sample of each')
    parser.add_argument('--steps', type=int, default=150)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--write', type=Path, help='the page to write')
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    console = Console(stderr=True)
    paths = [path for folder in given.clips for path in sorted(folder.glob('*.npz'))]
    rng = np.random.default_rng(0)
    order = [paths[number] for number in rng.permutation(len(paths))]
    clips = (clip for path in order for clip in load_shard(path))
    samples = make_samples(track(clips, 'samples', given.count, console=console), given.count)
    held_out = np.arange(len(samples)) >= len(samples) - len(samples) // HELD_OUT
    learnt, tested = samples.rows(np.flatnonzero(~held_out)), samples.rows(np.flatnonzero(held_out))
    scores: dict[str, list[float]] = {name: [] for name in SELECTIONS}
    runs = [(seed, name) for seed in range(given.seeds) for name in SELECTIONS]
    for seed, name in track(runs, 'trainings', console=console):
        network = train(learnt, SELECTIONS[name], given.steps, seed)
        scores[name].append(score(network, tested, SELECTIONS[name]))
        console.print(f'seed {seed} {name}: {scores[name][-1]:.3f}')
    folders = ', '.join(folder.name for folder in given.clips)
    text = markdown(scores, f'{given.steps} steps of {BATCH}, {len(learnt)} samples of {folders}, '
                            f'{len(tested)} held out, {given.seeds} seeds.')
    print(text)
    if given.write:
        given.write.write_text(text, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
