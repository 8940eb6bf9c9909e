"""Train Mask2Former on labelled frames: `python -m training.train_segmenter --data FOLDER... --run
FOLDER --minutes 60`, or `--steps`. Stage 1 of DVIS, as MinVIS has it: single frames.

Needs requirements/gmos.txt. Started again with the same folder a run goes on; batches and the
points of the loss depend on (seed, step) alone, so that with `--steps` it does so as if never
stopped.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import torch
from torch import Tensor

from training.command import command
from training.nets.mask2former import (
    Segmenter,
    SegmenterConfig,
    Segments,
    config_of,
    semantic_scores,
)
from training.segmenter_batches import Augmentation, Batch, LabelledFrames
from training.timed_run import TimedRun, run_parser


def right(segments: Segments, labels: Tensor) -> float:
    """Share of the pixels of a known class (B, H, W), each fourth in both directions, whose class
    is found.
    """
    wanted = labels[:, 2::4, 2::4]
    known = wanted >= 0
    hits = semantic_scores(segments).argmax(1) == wanted
    return float(hits[known].float().mean()) if known.any() else float('nan')


class Run(TimedRun):
    """A run of the config whose JSON is `made_for`."""

    kind, key, print_every = 'segmenter', 'config', 10
    mismatch = 'of the config {}, the data asks for {}: give another --run'

    def make(self) -> Segmenter:
        """A new network."""
        return Segmenter(config_of(self.made_for))

    def judge(self, given: Batch) -> tuple[Tensor, float]:
        """See `TimedRun.judge`; right are pixels."""
        torch.manual_seed((self.seed << 32) + self.steps)  # the library draws its points globally
        loss, found = self.network.loss(given.images, given.masks, given.classes)
        return loss, right(found, given.labels)


@command('train_segmenter')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = run_parser('Train Mask2Former on labelled frames.', batch=8,
                        data='folders of training.labelled_clips')
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data = LabelledFrames(given.data)
    height, width = data.size
    config = SegmenterConfig(len(data.categories), data.things, height, width)
    run = Run(given.run, json.dumps(asdict(config)), Augmentation(), given.learning_rate,
              given.seed)
    print(f'{len(data)} frames, {len(data.categories)} classes')
    run.train(lambda rng: data.batch(run.augmentation, rng, given.batch), given.steps,
              given.minutes)
    return 0


if __name__ == '__main__':
    sys.exit(main())
