"""What the robot would publish for the frames of a data set, as masks, by the set's protocols.

`python -m training.evaluate --data FOLDER --frames-only --masks OUT --model gmos_nano` calls it.

Model and tracker run as in the node; what moves is written as OUT/SEQUENCE/00000.png, a number a
track, and scored as `mos evaluate OUT --ground-truth FOLDER` does: MOS-I where the truth says when
objects move, J and F, boxes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mos_perception import formats
from mos_perception.datatypes import Fault, Frame, Result, Skip, SyncedInput
from mos_perception.errors import ConfigError, EngineError
from mos_perception.evaluation.davis_protocol import MAX_PROPOSALS
from mos_perception.evaluation.mask_folders import FolderEvaluator
from mos_perception.formats.image_files import write_indexed
from mos_perception.formats.layout import refuse_existing
from mos_perception.formats.sequence import Sequence
from mos_perception.pipeline import Pipeline
from mos_perception.reports.protocol_tables import protocol_tables


def moving_tracks(pipeline: Pipeline, sequence: Sequence) -> np.ndarray:
    """(T, H, W) uint8: the track of what moves, 1 to 20; of more the 20 of most pixels are kept.

    Raises EngineError for a failed inference, DatasetError without frames.
    """
    sequence.require_frames('scoring')
    labels = np.zeros((len(sequence), *sequence.size), np.uint16)
    row = {int(stamp): n for n, stamp in enumerate(sequence.stamps_ns)}
    for outcome in outcomes(pipeline, sequence):
        labels[row[outcome.stamp_ns]] = outcome.instances.id_image(moving_ids(outcome))
    areas = np.bincount(labels.ravel(), minlength=1)
    areas[0] = 0
    kept = sorted(number for number in np.argsort(-areas, kind='stable')[:MAX_PROPOSALS]
                  if areas[number])
    table = np.zeros(len(areas), np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[labels]


def moving_ids(outcome: Result) -> np.ndarray:
    """(N,) the track of each instance, 0 where it rests or has none."""
    return outcome.tracks.instance_ids(len(outcome.instances)) * outcome.instances.moving


def outcomes(pipeline: Pipeline, sequence: Sequence) -> Iterator[Result]:
    """As `answered`, of the frames that a sequence has."""
    frames = (sequence.frame(n) for n in range(len(sequence)) if sequence.frame_exists(n))
    return answered(pipeline, frames, sequence.size, sequence.name)


def answered(pipeline: Pipeline, frames: Iterable[Frame], size: tuple[int, int],
             name: str) -> Iterator[Result]:
    """What the pipeline, begun anew, says of frames of one `size` (height, width). Raises
    EngineError for a failed inference and a frame of another size.
    """
    pipeline.reset()

    def complete() -> Iterator[SyncedInput]:
        for frame in frames:
            yield from pipeline.neighbours.push([SyncedInput(
                frame.stamp_ns, '', frame, None, size, epoch=pipeline.epoch)])
        yield from pipeline.neighbours.flush([])

    for sample in complete():
        outcome = pipeline.process(sample)
        if isinstance(outcome, (Skip, Fault)):
            raise EngineError(f'{name}, frame at {sample.stamp_ns} ns: {outcome}')
        yield outcome


def evaluate_masks(pipeline: Pipeline, data_set: Path, out: Path, as_json: bool = False) -> int:
    """Write the masks of every sequence, score and print them; returns the exit status.

    Raises MosError; ConfigError where `out` exists.
    """
    if out.exists():
        raise ConfigError(f'{out} exists: name another folder for the masks')
    reader = formats.module(formats.detect(data_set))
    evaluator = FolderEvaluator(out)
    for name in track(reader.find(data_set), str(data_set), console=Console(stderr=True)):
        sequence = reader.read(data_set, name)
        folder = out / name.split('/')[-1]
        refuse_existing(folder, 'sequence')
        for n, labels in enumerate(moving_tracks(pipeline, sequence)):
            write_indexed(folder / f'{n:05d}.png', labels)
        evaluator.add(sequence)
    summary = {'about': f'{pipeline.model.card.id}: {data_set.name}, frames only',
               **evaluator.summary()}
    if as_json:
        print(json.dumps(summary, indent=1))
        return 0
    console = Console()
    console.print(summary['about'])
    for table in protocol_tables(summary):
        console.print(table)
    return 0
