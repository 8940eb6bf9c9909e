"""Real data through the same loaders: data set sequences to and from rendered clips."""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.sequence import Sequence
from training.scenes.clip import Clip


def sequence_of(clip: Clip, name: str = '', split: str = '') -> Sequence:
    """A clip as a sequence."""
    moving = []
    for ids, flags in zip(clip.ids, clip.moving):
        visible = np.unique(ids)
        moving.append({int(object_id): bool(flags[object_id]) for object_id in visible
                       if object_id})
    return Sequence(name or f'{clip.preset}_{clip.seed}', clip.size, clip.stamps_ns, clip.frames,
                    clip.events, clip.size, clip.ids, tuple(moving), split=split)


def clip_of(sequence: Sequence) -> Clip:
    """A sequence as a clip, for `training.datasets.packed.pack`.

    Only frames that have picture and truth; ids become 1..K. Raises DatasetError: no frames or no
    truth, or an event sensor of another size.
    """
    if sequence.frames is None or sequence.ids is None:
        raise DatasetError(f'sequence {sequence.name} lacks frames or ground truth: it cannot be '
                           'trained on')
    if sequence.events is not None and sequence.event_size != sequence.size:
        raise DatasetError(f'sequence {sequence.name}: events are of {sequence.event_size} px, '
                           f'frames of {sequence.size}: register them first')
    rows = [n for n in range(len(sequence))
            if sequence.frame(n) is not None and sequence.truth(n) is not None]
    truths = [sequence.truth(n) for n in rows]
    object_ids = sorted({int(value) for ids in truths for value in np.unique(ids)} - {0})
    ids = np.stack([np.searchsorted([0, *object_ids], truth) for truth in truths])
    moving = np.zeros((len(rows), len(object_ids) + 1), bool)
    for row, n in enumerate(rows):
        for object_id, moves in sequence.flags(n).items():
            moving[row, object_ids.index(object_id) + 1] = moves
    return Clip(
        frames=np.stack([sequence.frames[n] for n in rows]),
        stamps_ns=sequence.stamps_ns[rows],
        events=sequence.events or Events.empty(),
        ids=ids.astype(np.uint16),
        moving=moving,
        seed=0,
        preset=sequence.name,
    )
