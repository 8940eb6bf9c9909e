"""Real data through the same loaders: data set sequences to and from rendered clips. T frames, K objects."""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.sequence import Sequence
from training.scenes.clip import Clip


def sequence_of(clip: Clip, name: str = '', split: str = '') -> Sequence:
    """A clip as a sequence."""
    moving = tuple({number: bool(row[number]) for number in np.unique(ids) if number}
                   for ids, row in zip(clip.ids, clip.moving))
    moving = tuple({int(number): moves for number, moves in row.items()} for row in moving)
    return Sequence(name or f'{clip.preset}_{clip.seed}', clip.size, clip.stamps_ns, clip.frames, clip.events,
                    clip.size, clip.ids, moving, split=split)


def clip_of(sequence: Sequence) -> Clip:
    """A sequence as a clip, for `training.datasets.clips.pack`: only frames that have picture and truth, ids 1..K.

    Raises DatasetError: no frames or no truth, or an event sensor of another size.
    """
    if sequence.frames is None or sequence.ids is None:
        raise DatasetError(f'sequence {sequence.name} lacks frames or ground truth: it cannot be trained on')
    if sequence.events is not None and sequence.event_size != sequence.size:
        raise DatasetError(f'sequence {sequence.name}: events are of {sequence.event_size} px, frames of '
                           f'{sequence.size}: register them first')
    rows = [n for n in range(len(sequence)) if sequence.frame(n) is not None and sequence.truth(n) is not None]
    truths = [sequence.truth(n) for n in rows]
    numbers = sorted({int(value) for ids in truths for value in np.unique(ids)} - {0})
    ids = np.stack([np.searchsorted([0, *numbers], truth) for truth in truths]).astype(np.uint16)
    moving = np.zeros((len(rows), len(numbers) + 1), bool)
    for row, n in enumerate(rows):
        for number, moves in sequence.flags(n).items():
            moving[row, numbers.index(number) + 1] = moves
    return Clip(frames=np.stack([sequence.frames[n] for n in rows]), stamps_ns=sequence.stamps_ns[rows],
                events=sequence.events or Events.empty(), ids=ids, moving=moving, seed=0, preset=sequence.name)
