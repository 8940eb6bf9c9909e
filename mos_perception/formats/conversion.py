"""A sequence of one format into another: `mos convert`."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

from mos_perception.errors import DatasetError
from mos_perception.formats import detect, module
from mos_perception.formats.sequence import Sequence

# What a format cannot hold.
LOSSES = {
    'bag': 'flow, depth; event times below 1 us in evt3',
    'mousesis': 'flow, depth; event times below 1 us',
    'sevd': 'flow, depth',
    'evimo': 'flow; depth below 1 mm',
    'evimo2': 'flow; depth below 1 mm; event times to float32 seconds',
    'dimos': 'events (kept as voxels), times, tracks, static objects',
    'ytvis': 'events, flow, depth; exact pixels (jpg)',
    'davis': 'events, times, flow, depth, motion flags; exact pixels (jpg)',
    'gmos2k': 'events, times, flow, depth, ids and objects at rest',
    'moca': 'events, times, flow, depth, masks, all objects but the first',
    'fbms': 'events, times, flow, depth, motion flags, ids (renumbered)',
    'segtrack': 'events, times, flow, depth, motion flags'}


def is_images(source: str | Path, form: str) -> bool:
    """Whether `source` is a plain folder of images: asked for, or no data set is found there."""
    if form == 'auto':
        try:
            detect(source)
        except DatasetError:
            return True
    return form == 'images'


def load(source: str | Path, form: str = 'auto', name: str = '',
         fps: float | None = None) -> Sequence:
    """The sequence `name` of the data set at `source`; '' where there is but one.

    `fps` serves formats without times. Raises DatasetError, also where there are several sequences
    and none is named.
    """
    form = detect(source) if form == 'auto' else form
    reader = module(form)
    names = reader.find(source)
    if len(names) > 1 and not name:
        raise DatasetError(
            f'{source} holds {len(names)} sequences: name one with --sequence: '
            f'{", ".join(names[:20])}{" ..." if len(names) > 20 else ""}')
    takes_fps = 'fps' in signature(reader.read).parameters
    options = {'fps': fps} if fps is not None and takes_fps else {}
    return reader.read(source, name, **options)


def convert(source: str | Path, target: str | Path, form: str = 'auto', to: str = 'bag',
            name: str = '', fps: float | None = None, **options: object) -> tuple[Sequence, Path]:
    """Read one sequence, see `load`, and write it as format `to` at `target`.

    `options` go to the writer. Returns the sequence and where it lies. Raises MosError.
    """
    writer = module(to)
    sequence = load(source, form, name, fps)
    return sequence, writer.write(sequence, target, **options)


def summary(sequence: Sequence, to: str) -> str:
    """What was converted, on one line."""
    count = len(sequence)
    parts = [f'{count} frames' if sequence.frames is not None else f'{count} stamps',
             f'{0 if sequence.events is None else len(sequence.events)} events',
             'ground truth' if sequence.ids is not None else 'no ground truth']
    return f'{sequence.name}: {", ".join(parts)}; {to} does not keep: {LOSSES[to]}'
