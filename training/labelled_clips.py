"""Rendered clips with classes as a data set of labelled video: `python -m training.labelled_clips
--out runs/labelled/train --count 500 --fps 2`.

Things are the families of the objects' outlines, stuff is the layers (`training.scenes.classes`).
What is written can be trained on (`training.train_segmenter`) and is the truth of
`training.evaluate --task vis | vps | vss`. Started again it goes on where it ended; a folder has
videos of one --fps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mos_perception.errors import DatasetError
from mos_perception.evaluation.video_metrics import Panoptic
from mos_perception.evaluation.video_writing import TruthFolder
from training.command import command
from training.scenes import render_clip
from training.scenes.classes import CLASSES, THINGS, Labels, render_labels
from training.scenes.presets import find_preset
from training.scenes.simulate import frame_times
from training.scenes.splits import SPLITS
from training.scenes.timing import stamps_ns
from training.tracker_cache import LEAST_PIXELS
from training.tracker_cache import PRESET as CROSSING

PRESET = find_preset(CROSSING, size=(128, 160), clutter=(0, 0), camouflage=0.0)
"""As the tracker's clips, without things that have an object's looks but no id."""


def truth_of(labels: Labels) -> Panoptic:
    """The truth of a clip; things of fewer than LEAST_PIXELS in a frame are void there."""
    classes = labels.classes.astype(np.int64)
    segments = labels.ids.astype(np.int64)
    for image, names in zip(classes, segments):
        small = np.bincount(names.ravel()) < LEAST_PIXELS
        gone = small[names] & (names > 0)
        image[gone], names[gone] = -1, 0
    return Panoptic(classes, segments)


@command('labelled_clips')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Render clips with classes as labelled video.')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--count', type=int, default=100, help='clips')
    parser.add_argument('--seed', type=int, default=0, help='of the first')
    parser.add_argument('--split', choices=SPLITS, default='train',
                        help='each has outlines of its own: hold out by seed')
    parser.add_argument('--fps', type=float, default=PRESET.fps,
                        help='2 for training: scenes cost more than frames')
    given = parser.parse_args(arguments)
    preset = find_preset(PRESET, fps=given.fps)
    folder = TruthFolder(given.out, [(name, name in THINGS) for name in CLASSES])
    stamps = stamps_ns(frame_times(preset, given.seed, given.split)).tolist()
    if folder.stamps_ns not in (None, stamps):
        raise DatasetError(f'{given.out} has videos of {len(folder.stamps_ns)} frames, --fps '
                           f'{given.fps:g} makes {len(stamps)}: give the --fps of before or '
                           'another --out')
    for seed in track(range(given.seed, given.seed + given.count), str(given.out),
                      console=Console(stderr=True)):
        name = f'{given.split}-{seed:07d}'
        if name not in folder.names:
            clip = render_clip(preset, seed, given.split)
            folder.add(name, clip.frames, clip.stamps_ns,
                       truth_of(render_labels(preset, seed, given.split)))
    folder.save()
    return 0


if __name__ == '__main__':
    sys.exit(main())
