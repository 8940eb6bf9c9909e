"""`mos refine`: a bag through the pipeline with the referring tracker and the Temporal Refiner."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mos_perception.commands.run import config_from, report, with_progress
from mos_perception.config import Config
from mos_perception.datatypes import Frame, Result
from mos_perception.errors import BagError, ConfigError
from mos_perception.recording.bag import Bag, BagWriter, open_bag
from mos_perception.recording.messages import IMAGE, TRACKS, write_ids
from mos_perception.recording.results import NODE, write_tracks
from mos_perception.refine import Refinement
from mos_perception.replay import Replay, Step, with_topics
from mos_perception.reports.overlay_video import Picture, draw, write_overlays
from mos_perception.reports.run_statistics import RunStatistics
from mos_perception.tracking.refiner import load_refiner


def refine_command(args: argparse.Namespace) -> None:
    """`mos refine`: a new bag of the node's topics, pictures, tables to stdout. The bag that is
    read is never touched; nothing is left of an output that could not be finished.
    """
    pictures = args.pictures or args.out.with_name(f'{args.out.name}_pictures')
    with open_bag(args.bag) as bag:
        config = settings(bag, args)
        with BagWriter(args.out) as out, _no_empty_folder(pictures):
            run = Replay(bag, config)
            refinement = Refinement(run.pipeline.tracker,
                                    load_refiner(args.refiner, run.pipeline.tracker.card))
            statistics = RunStatistics()
            results = refinement.over(_counted(with_progress(run, name='refine'), statistics))
            files = write_overlays(pictures, _written(results, run, statistics, out))
            if not files:
                raise BagError(
                    f'{args.bag} gave no result of its {run.messages} messages, nothing was '
                    f'written: see what "mos replay {args.bag}" counts')
        summary = _summary(args, bag, run, refinement, statistics)
    report(summary, [args.out, *files], args.json)


def settings(bag: Bag, args: argparse.Namespace) -> Config:
    """The configuration, with the bag's topics. Raises ConfigError for another tracker, BagError
    where there are no frames.
    """
    for text in args.set:
        if text.startswith('tracker=') and text != 'tracker=referring':
            raise ConfigError(f'setting {text!r}: mos refine goes on from what the tracker '
                              'referring remembers: leave it out')
    config = dataclasses.replace(config_from(args), tracker='referring')
    config = with_topics(bag, config, args.image_topic, args.events_topic)
    if not config.image_topic:
        raise BagError(f'{bag.path}: no images to use, and mos refine tells tracks apart by their '
                       f'looks; its topics: {bag.listing()}')
    return config


def _counted(steps: Iterator[Step], statistics: RunStatistics) -> Iterator[Step]:
    """The steps, those without a result booked."""
    for step in steps:
        if not isinstance(step.outcome, Result):
            statistics.add(step.outcome)
        yield step


def _written(results: Iterator[tuple[Result, Frame | None]], run: Replay,
             statistics: RunStatistics, out: BagWriter) -> Iterator[Picture]:
    """Pictures of the results, each written and booked on its way."""
    for result, frame in results:
        stamp, ids = result.stamp_ns, result.tracks.instance_ids(len(result.instances))
        out.write_result(f'{NODE}/instances', result, stamp)
        out.write_raw(f'{NODE}/instance_image', IMAGE, stamp, write_ids(
            stamp, result.instances.id_image(ids), result.frame_id))
        out.write_raw(f'{NODE}/tracks', TRACKS, stamp, write_tracks(result))
        statistics.add(result)
        yield draw(result, frame, None, run.start_ns or 0)


@contextlib.contextmanager
def _no_empty_folder(folder: Path) -> Iterator[None]:
    """Take an empty folder away where something fails inside."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not there, or not empty
            folder.rmdir()
        raise


def _summary(args: argparse.Namespace, bag: Bag, run: Replay, refinement: Refinement,
             statistics: RunStatistics) -> dict[str, Any]:
    found = statistics.summary(run.start_ns or 0)
    found['counts'] = {'frames in': run.frames, **found['counts'], 'tracks': refinement.named,
                       # kilobytes on Linux
                       'peak memory MB': round(
                           resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}
    return {'bag': str(args.bag), 'out': str(args.out), 'partial': bag.fault,
            'model': run.pipeline.model.card.id, 'refiner': args.refiner, 'run': found}

