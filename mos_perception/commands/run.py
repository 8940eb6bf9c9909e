"""`mos replay | evaluate | show | demo`: a recording through the pipeline or the node.

Each takes the parsed arguments and prints; errors are MosError.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from mos_perception.commands.many import RunBag, is_many, many_command
from mos_perception.commands.masks import evaluate_masks, is_data_set
from mos_perception.config import FIELDS, Config, from_dict
from mos_perception.datatypes import Fault, Result, Skip
from mos_perception.errors import ConfigError
from mos_perception.evaluation.ground_truth import GroundTruthEvaluator
from mos_perception.evaluation.score import Scorer
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.results import NODE, result_digest
from mos_perception.replay import Replay, Step, with_topics
from mos_perception.reports.protocol_tables import mos_i_table
from mos_perception.reports.run_statistics import RunStatistics, motion_text, tables

RESULTS_TOPIC = f'{NODE}/instances'


def replay_command(args: argparse.Namespace) -> None:
    """`mos replay`: bags through the pipeline; results, pictures and a table."""
    if (one := _single(args, replay_bag)) is not None:
        summary, files = replay_bag(one)
        report(summary, files, args.json)


def replay_bag(args: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """The bag `args.bag` through the pipeline: (summary for JSON, files written). Raises MosError.
    """
    if args.rrd is not None:
        from mos_perception.reports.rerun_file import rerun_library
        rerun_library()  # refuse before the model is loaded
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    with open_bag(args.bag) as bag, contextlib.ExitStack() as stack:
        run = Replay(bag, with_topics(bag, config_from(args), args.image_topic, args.events_topic))
        statistics, sha = RunStatistics(), hashlib.sha256()
        jsonl = (
            stack.enter_context((args.out / 'results.jsonl').open('w'))
            if args.out is not None
            else None
        )
        bag_out = stack.enter_context(BagWriter(args.out_bag)) if args.out_bag is not None else None
        steps = _booked(with_progress(run, args.quiet), statistics, sha, jsonl, bag_out)
        if args.rrd is not None:
            from mos_perception.reports.rerun_file import RerunFile
            steps = stack.enter_context(RerunFile(args.rrd)).watch(steps)
        files = _pictures(args.out, steps, run)
        summary = {
            'bag': str(args.bag),
            'partial': bag.fault,
            'model': run.pipeline.model.card.id,
            **_topics(run),
            'digest': sha.hexdigest(),
            'run': _run(run, statistics),
        }
    files += [args.out / 'results.jsonl'] if jsonl else []
    return summary, files + ([args.rrd] if args.rrd is not None else [])


def evaluate_command(args: argparse.Namespace) -> None:
    """`mos evaluate`: score replays of bags, or recorded node output, against ground truth; or a
    folder of masks against a data set.
    """
    if args.ground_truth is not None and is_data_set(args.ground_truth):
        if len(args.bag) > 1:
            raise ConfigError(f'{len(args.bag)} folders of masks: score one at a time')
        evaluate_masks(args.bag[0], args.ground_truth, args.sequence, args.json)
        return
    if args.sequence:
        raise ConfigError(f'--sequence {args.sequence[0]}: only where --ground-truth is a data set')
    if (one := _single(args, evaluate_bag)) is not None:
        summary, scorer = evaluate_bag(one)
        report(summary, [], args.json, scorer)


def evaluate_bag(args: argparse.Namespace) -> tuple[dict[str, Any], Scorer]:
    """The bag `args.bag` scored: (summary for JSON, scorer). Raises MosError."""
    with contextlib.ExitStack() as stack:
        bag = stack.enter_context(open_bag(args.bag))
        truth = (
            stack.enter_context(open_bag(args.ground_truth))
            if args.ground_truth is not None
            else bag
        )
        evaluator, statistics = GroundTruthEvaluator(truth.truth()), RunStatistics()
        if args.results is not None:
            from mos_perception.reports.run_report import node_counts, node_results
            answers = stack.enter_context(open_bag(args.results))
            for result in node_results(answers, args.results_topic):
                statistics.add(result)
                evaluator.add(result)
            run = statistics.summary(min(evaluator.truth))
            run['counts'] = {**node_counts(answers, run['skipped']), **run['counts']}
            source = {
                'results': str(args.results),
                'partial': '; '.join(filter(None, (truth.fault, answers.fault))),
            }
        else:
            play = Replay(
                bag, with_topics(bag, config_from(args), args.image_topic, args.events_topic)
            )
            for step in with_progress(play, args.quiet):
                statistics.add(step.outcome)
                if isinstance(step.outcome, Result):
                    evaluator.add(step.outcome)
            run = _run(play, statistics)
            source = {'model': play.pipeline.model.card.id, **_topics(play),
                      'partial': '; '.join(dict.fromkeys(filter(None, (truth.fault, bag.fault))))}
    summary = {'bag': str(args.bag), **source, 'score': evaluator.summary(), 'run': run}
    return summary, evaluator.scorer


def _single(args: argparse.Namespace, run_bag: RunBag) -> argparse.Namespace | None:
    """The arguments with the one bag they name; None after a table over several was made."""
    if is_many(args):
        many_command(args, config_from(args), run_bag)
        return None
    return argparse.Namespace(**{**vars(args), 'bag': args.bag[0], 'quiet': False})


def show_command(args: argparse.Namespace) -> None:
    """`mos show`: recorded node output drawn and scored on the bag it was fed."""
    from mos_perception.reports.run_report import show

    summary, files, scorer = show(
        args.bag, args.results, args.out, args.image_topic, args.events_topic, args.results_topic
    )
    report(summary, files, args.json or args.out / 'summary.json', scorer)


def demo_command(args: argparse.Namespace) -> None:
    """`mos demo`: the real node over DDS on a bag, recorded, scored and shown."""
    from mos_perception.commands.demo import DemoOptions, run_demo
    from mos_perception.reports.run_report import show
    config_from(args)  # refuse bad settings before anything starts
    settings = (*args.set, *([f'model={args.model}'] if args.model is not None else []))
    recorded = run_demo(
        DemoOptions(
            bag=args.bag,
            out=args.out,
            image_topic=args.image_topic,
            events_topic=args.events_topic,
            rate=args.rate,
            settings=settings,
        )
    )
    summary, files, scorer = show(args.bag, recorded, args.out, args.image_topic, args.events_topic)
    report(summary, files, args.json or args.out / 'summary.json', scorer)


def _booked(steps: Iterator[Step], statistics: RunStatistics, sha: Any, jsonl: Any,
            bag_out: BagWriter | None) -> Iterator[Step]:
    """The steps, each written down on its way."""
    for step in steps:
        statistics.add(step.outcome)
        line = as_json(step.outcome)
        sha.update(json.dumps([line.get('digest'), line.get('window')]).encode())
        if jsonl is not None:
            jsonl.write(json.dumps(line) + '\n')
        if bag_out is not None and isinstance(step.outcome, Result):
            bag_out.write_result(RESULTS_TOPIC, step.outcome, step.outcome.stamp_ns)
        yield step


def config_from(args: argparse.Namespace) -> Config:
    """The configuration from `--model` and `--set name=value`. Raises ConfigError."""
    values = dict(_setting(text) for text in args.set)
    if args.model is not None:
        values['model'] = args.model
    return from_dict(values)


def _setting(text: str) -> tuple[str, Any]:
    """('name', value of the parameter's type) from 'name=value'. Raises ConfigError."""
    name, equals, value = text.partition('=')
    if not equals:
        raise ConfigError(f'setting {text!r}: must be name=value')
    kind = type(FIELDS[name].default) if name in FIELDS else str  # from_dict refuses unknown names
    try:
        return name, {'true': True, 'false': False}[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        raise ConfigError(f'parameter {name} is {value!r}: must be {kind.__name__}') from None


def _pictures(out: Path | None, steps: Iterator[Step], run: Replay) -> list[Path]:
    """Run to the end; overlay video and contact sheet into `out`, if any."""
    if out is None:
        for _ in steps:
            pass
        return []
    from mos_perception.reports.overlay_video import draw, write_overlays
    panels = 2 if all(_topics(run).values()) else 1
    return write_overlays(
        out,
        (
            draw(step.outcome, step.sample.frame, step.sample.window, run.start_ns or 0, panels)
            for step in steps
            if isinstance(step.outcome, Result)
        ),
    )


def as_json(outcome: Result | Skip | Fault) -> dict[str, Any]:
    """One line of results.jsonl."""
    if isinstance(outcome, Skip):
        return {'stamp_ns': outcome.stamp_ns, 'skip': outcome.reason.value, 'count': outcome.count,
                'detail': outcome.detail}
    if isinstance(outcome, Fault):
        return {'stamp_ns': outcome.stamp_ns, 'fault': outcome.message}
    found, window = outcome.instances, outcome.window
    instances = [{'track_id': int(track_id), 'score': float(found.scores[n]),
                  'motion_score': float(found.motion_scores[n]), 'moving': bool(found.moving[n]),
                  'box': found.boxes[n].tolist(), 'pixels': int(found.masks[n].sum())}
                 for n, track_id in enumerate(outcome.tracks.instance_ids(len(found)))]
    return {
        'stamp_ns': outcome.stamp_ns,
        'epoch': outcome.epoch,
        'modality': outcome.modality.value,
        'degraded': outcome.degraded,
        'digest': result_digest(outcome),
        'window': window
        and {
            't0_ns': window.t0_ns,
            't1_ns': window.t1_ns,
            'status': window.status.value,
            'events': len(window.events),
            'lost_packets': window.lost_packets,
            'digest': window.digest(),
        },
        'instances': instances,
        'stage_ms': {name: round(value, 3) for name, value in outcome.stage_ms.items()},
    }


def with_progress(run: Replay, quiet: bool = False, name: str = 'replay') -> Iterator[Step]:
    """The steps of a replay, with a bar on a terminal and a line per tenth otherwise (both on
    stderr); `quiet`: with neither.
    """
    if quiet:
        yield from run
        return
    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import Progress
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(name, total=run.total)
            for step in run:
                bar.update(task, completed=run.messages)
                yield step
        return
    told = 0
    for step in run:
        tenth = 10 * run.messages // max(run.total, 1)
        if tenth > told:
            told = tenth
            console.print(f'{name}: {run.messages} of {run.total} messages', highlight=False)
        yield step


def _topics(run: Replay) -> dict[str, str]:
    return {'image_topic': run.config.image_topic, 'events_topic': run.config.events_topic}


def _run(run: Replay, statistics: RunStatistics) -> dict[str, Any]:
    summary = statistics.summary(run.start_ns or 0)
    summary['counts'] = {
        'frames in': run.frames,
        'event packets in': run.packets,
        **summary['counts'],
        **run.pipeline.gyroscope.report(),
        **run.pipeline.registration.report(),
    }
    return summary


def report(
    summary: dict[str, Any], files: list[Path], json_path: Path | None, scorer: Any = None
) -> None:
    """Tables and files to stdout, everything to the JSON file."""
    console = Console()
    if scorer is not None:
        console.print(scorer.table())
        if 'mos_i' in summary['score']:
            console.print(mos_i_table(summary['score']['mos_i']))
        for name in ('truth_frames_without_result', 'results_without_truth'):
            if summary['score'][name]:
                console.print(f'{name.replace("_", " ")}: {summary["score"][name]}')
    for table in tables(summary['run']):
        console.print(table)
    console.print(motion_text(summary['run']), highlight=False)
    if summary['partial']:
        console.print(f'PARTIAL: {summary["partial"]}', highlight=False, soft_wrap=True)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(summary, indent=1) + '\n')
    for file in [*files, *([json_path] if json_path is not None else [])]:
        console.print(f'wrote {file}', highlight=False, soft_wrap=True)
