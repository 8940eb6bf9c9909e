"""What the subcommands of `mos` do. Each takes the parsed arguments and prints; errors are MosError."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from mos_perception.config import FIELDS, Config, from_dict
from mos_perception.datatypes import Fault, Result, Skip
from mos_perception.errors import ConfigError, DatasetError, EngineError
from mos_perception.evaluation.ground_truth import Judge
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.results import result_digest
from mos_perception.replay import Replay, Step, with_topics
from mos_perception.reports.run_statistics import Tally, motion_text, tables

RESULTS_TOPIC = '/mos_perception/instances'


def replay_command(args: argparse.Namespace) -> None:
    """`mos replay`: a bag through the pipeline; results, pictures and a table."""
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    with open_bag(args.bag) as bag, contextlib.ExitStack() as stack:
        run = Replay(bag, with_topics(bag, config_from(args), args.image_topic, args.events_topic))
        tally, sha = Tally(), hashlib.sha256()
        jsonl = stack.enter_context((args.out / 'results.jsonl').open('w')) if args.out is not None else None
        bag_out = stack.enter_context(BagWriter(args.out_bag)) if args.out_bag is not None else None
        steps = _booked(_with_progress(run), run, tally, sha, jsonl, bag_out)
        files = _pictures(args.out, steps, run)
        summary = {'bag': str(args.bag), 'partial': bag.fault, 'model': run.pipeline.model_id, **_topics(run),
                   'digest': sha.hexdigest(), 'run': _run(run, tally)}
    _report(summary, files + ([args.out / 'results.jsonl'] if jsonl else []), args.json)


def evaluate_command(args: argparse.Namespace) -> None:
    """`mos evaluate`: score a bag's replay, or recorded node output, against ground truth."""
    with contextlib.ExitStack() as stack:
        bag = stack.enter_context(open_bag(args.bag))
        truth = stack.enter_context(open_bag(args.ground_truth)) if args.ground_truth is not None else bag
        judge, tally = Judge(truth.truth()), Tally()
        if args.results is not None:
            from mos_perception.reports.run_report import node_counts, node_results
            answers = stack.enter_context(open_bag(args.results))
            tally.start_ns = min(judge.truth)
            for result in node_results(answers, args.results_topic):
                tally.add(result)
                judge.add(result)
            run = tally.summary()
            run['counts'] = {**node_counts(answers, run['skipped']), **run['counts']}
            source = {'results': str(args.results), 'partial': '; '.join(filter(None, (truth.fault, answers.fault)))}
        else:
            play = Replay(bag, with_topics(bag, config_from(args), args.image_topic, args.events_topic))
            for step in _with_progress(play):
                tally.start_ns = play.start_ns or 0
                tally.add(step.outcome)
                if isinstance(step.outcome, Result):
                    judge.add(step.outcome)
            run = _run(play, tally)
            source = {'model': play.pipeline.model_id, **_topics(play),
                      'partial': '; '.join(dict.fromkeys(filter(None, (truth.fault, bag.fault))))}
    _report({'bag': str(args.bag), **source, 'score': judge.summary(), 'run': run}, [], args.json, judge.scorer)


def show_command(args: argparse.Namespace) -> None:
    """`mos show`: recorded node output drawn and scored on the bag it was fed."""
    from mos_perception.reports.run_report import show
    summary, files, scorer = show(args.bag, args.results, args.out, args.image_topic, args.events_topic,
                                  args.results_topic)
    _report(summary, files, args.json or args.out / 'summary.json', scorer)


def demo_command(args: argparse.Namespace) -> None:
    """`mos demo`: the real node over DDS on a bag, recorded, scored and shown."""
    from mos_perception.commands.demo import DemoOptions, run_demo
    from mos_perception.reports.run_report import show
    config_from(args)  # refuse bad settings before anything starts
    settings = (*args.set, *([f'model={args.model}'] if args.model is not None else []))
    recorded = run_demo(DemoOptions(bag=args.bag, out=args.out, image_topic=args.image_topic,
                                    events_topic=args.events_topic, rate=args.rate, settings=settings))
    summary, files, scorer = show(args.bag, recorded, args.out, args.image_topic, args.events_topic)
    _report(summary, files, args.json or args.out / 'summary.json', scorer)


def convert_command(args: argparse.Namespace) -> None:
    """`mos convert`: a sequence of a data set into another format, most often a bag; or a folder of images to a bag."""
    from mos_perception.formats import conversion
    if conversion.is_images(args.source, args.form):
        if args.to != 'bag':
            raise ConfigError(f'--to is {args.to}: a folder of images becomes a bag only')
        from mos_perception.recording.image_folder import bag_from_images
        count = bag_from_images(args.source, args.target, 30.0 if args.fps is None else args.fps, args.topic,
                                args.storage)
        print(f'{args.target}: {count} frames on {args.topic}')
        return
    bag = {'encoding': args.encoding, 'storage': args.storage, 'image_topic': args.topic} if args.to == 'bag' else {}
    sequence, written = conversion.convert(args.source, args.target, args.form, args.to, args.sequence,
                                           args.fps, **bag)
    print(f'{written}: {conversion.summary(sequence, args.to)}')
    for note in sequence.notes:
        print(f'note: {note}')


def check_data_command(args: argparse.Namespace) -> None:
    """`mos check-data`: everything that is wrong with a folder, as a table. Raises DatasetError if any is an error."""
    from dataclasses import asdict

    from mos_perception.formats.check import check_data, findings_table
    findings = check_data(args.folder, args.form)
    if findings:
        Console().print(findings_table(findings))
    errors = sum(finding.level == 'error' for finding in findings)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([{**asdict(finding), 'level': finding.level, 'remedy': finding.remedy}
                                         for finding in findings], indent=1) + '\n')
    print(f'{args.folder}: {errors} errors, {len(findings) - errors} warnings')
    if errors:
        raise DatasetError(f'{args.folder} has {errors} errors: see the table')


def build_command(args: argparse.Namespace) -> None:
    """`mos build`: the engine of a model for this machine's GPU, into the cache. Ctrl-C cancels, nothing is written."""
    from mos_perception.engine.build import build
    from mos_perception.engine.cache import Cache
    from mos_perception.engine.card import find_model
    console = Console(stderr=True)

    def told(phase: str, step: int, steps: int) -> bool:
        if step == steps:
            console.print(f'{phase}: done', highlight=False)
        return True

    path, built = build(find_model(args.model), args.backend, Cache(), told, args.force)
    print(f'{"wrote" if built else "already there:"} {path}')


def doctor_command(args: argparse.Namespace) -> None:
    """`mos doctor`: a line per thing looked at. Raises EngineError if the asked backend cannot run the model."""
    from mos_perception.commands.doctor import examine
    findings = examine(args.model, args.backend)
    for finding in findings:
        print(f'{finding.state:7} {finding.what}: {finding.text}')
    if args.json is not None:
        args.json.write_text(json.dumps([vars(finding) for finding in findings], indent=1) + '\n')
    if broken := [finding.what for finding in findings if finding.state == 'broken']:
        raise EngineError(f'broken: {", ".join(broken)}: see above')


def topics_command(args: argparse.Namespace) -> None:
    """`mos topics`: what a bag holds."""
    with open_bag(args.bag) as bag:
        for topic in bag.topics:
            print(f'{topic.name}  {topic.msgtype}  {topic.count}  {topic.role}')
        if bag.fault:
            print(f'partial: {bag.fault}')


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


def _booked(steps: Iterator[Step], run: Replay, tally: Tally, sha: Any, jsonl: Any,
            bag_out: BagWriter | None) -> Iterator[Step]:
    """The steps, each written down on its way."""
    for step in steps:
        tally.start_ns = run.start_ns or 0
        tally.add(step.outcome)
        line = as_json(step.outcome)
        sha.update(json.dumps([line.get('digest'), line.get('window')]).encode())
        if jsonl is not None:
            jsonl.write(json.dumps(line) + '\n')
        if bag_out is not None and isinstance(step.outcome, Result):
            bag_out.write_result(RESULTS_TOPIC, step.outcome, step.outcome.stamp_ns)
        yield step


def _pictures(out: Path | None, steps: Iterator[Step], run: Replay) -> list[Path]:
    """Run to the end; overlay video and contact sheet into `out`, if any."""
    if out is None:
        for _ in steps:
            pass
        return []
    from mos_perception.reports.overlay_video import draw, write_album
    panels = 2 if len(run.topics) == 2 else 1
    return write_album(out, (draw(step.outcome, step.pair.frame, step.pair.window, run.start_ns or 0, panels)
                             for step in steps if isinstance(step.outcome, Result)))


def as_json(outcome: Result | Skip | Fault) -> dict[str, Any]:
    """One line of results.jsonl."""
    if isinstance(outcome, Skip):
        return {'stamp_ns': outcome.stamp_ns, 'skip': outcome.reason.value, 'count': outcome.count,
                'detail': outcome.detail}
    if isinstance(outcome, Fault):
        return {'stamp_ns': outcome.stamp_ns, 'fault': outcome.message}
    found, window = outcome.instances, outcome.window
    rows = outcome.tracks.of_instances(len(found))
    instances = [{'track_id': int(outcome.tracks.ids[row]) if row >= 0 else 0, 'score': float(found.scores[n]),
                  'motion_score': float(found.motion_scores[n]), 'moving': bool(found.moving[n]),
                  'box': found.boxes[n].tolist(), 'pixels': int(found.masks[n].sum())} for n, row in enumerate(rows)]
    return {'stamp_ns': outcome.stamp_ns, 'epoch': outcome.epoch, 'modality': outcome.modality.value,
            'degraded': outcome.degraded, 'digest': result_digest(outcome),
            'window': window and {'t0_ns': window.t0_ns, 't1_ns': window.t1_ns, 'status': window.status.value,
                                  'events': len(window.events), 'lost_packets': window.lost_packets,
                                  'digest': window.digest()},
            'instances': instances, 'stage_ms': {name: round(value, 3) for name, value in outcome.stage_ms.items()}}


def _with_progress(run: Replay) -> Iterator[Step]:
    """The steps of a replay, with a bar on a terminal and a line per tenth otherwise (both on stderr)."""
    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import Progress
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task('replay', total=run.total)
            for step in run:
                bar.update(task, completed=run.messages)
                yield step
        return
    told = 0
    for step in run:
        tenth = 10 * run.messages // max(run.total, 1)
        if tenth > told:
            told = tenth
            console.print(f'replay: {run.messages} of {run.total} messages', highlight=False)
        yield step


def _topics(run: Replay) -> dict[str, str]:
    return {'image_topic': run.config.image_topic, 'events_topic': run.config.events_topic}


def _run(run: Replay, tally: Tally) -> dict[str, Any]:
    summary = tally.summary()
    summary['counts'] = {'frames in': run.frames, 'event packets in': run.packets, **summary['counts']}
    return summary


def _report(summary: dict[str, Any], files: list[Path], json_path: Path | None, scorer: Any = None) -> None:
    """Tables and files to stdout, everything to the JSON file."""
    console = Console()
    if scorer is not None:
        console.print(scorer.table())
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
