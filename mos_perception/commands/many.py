"""`mos replay | evaluate` over many recordings: a row each, in processes or on a Ray cluster.

A recording that cannot be used is a row with its error. Rows are written as they come, so that the
same command goes on where it was stopped; the table does not depend on who made which row.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mos_perception import __version__
from mos_perception.commands.workers import in_processes, on_ray
from mos_perception.config import Config
from mos_perception.engine.model_files import find_model
from mos_perception.errors import BagError, ConfigError, MosError

AUTO_MODELS = ('dimos_light', 'gmos_nano', 'dimos_nano')  # what `model: auto` may take
# columns printed, as far as there are
SHOWN = ('results', 'mIoU_ins', 'mIoU01', 'mAP', 'strict mIoU', 'strict AP')
Row = dict[str, Any]
RunBag = Callable[[argparse.Namespace], tuple[dict[str, Any], Any]]


def is_many(args: argparse.Namespace) -> bool:
    """Whether the command line asks for a table over recordings rather than for one run."""
    return len(args.bag) > 1 or args.ray is not None or args.command == 'evaluate' and (
        args.out is not None)


def many_command(args: argparse.Namespace, config: Config, run_bag: RunBag) -> None:
    """`mos replay | evaluate BAG BAG ...`: rows/, table.csv and table.json in the folder `--out`.

    `run_bag(args)` does one, as the single command does, and gives its summary first. Raises
    ConfigError for options that need one bag, BagError at the end where a bag failed.
    """
    out = args.out or Path('out') / args.command
    tasks = _tasks(args, config, run_bag, out)
    rows = {key: row for key, task in tasks.items() if (row := _read(task)) is not None}
    console = Console(stderr=True)
    if rows:
        console.print(f'{len(rows)} of {len(tasks)} were done before: {out / "rows"}',
                      highlight=False)
    left = [task for key, task in tasks.items() if key not in rows]
    if args.ray is not None:
        finished = on_ray(run_task, left, args.ray)
    else:
        finished = in_processes(run_task, left, args.jobs or _usable_cores())
    for task, row in _with_progress(finished, len(tasks), len(rows), console):
        if isinstance(row, str):  # its process died
            row = _failed(task, row)
        _write(task.row_file, json.dumps({'key': task.key, **row}, indent=1) + '\n')
        rows[task.key] = row
    _report([rows[key]['row'] for key in tasks], out, args.json)


def run_task(task: argparse.Namespace) -> Row:
    """One recording: its table row and the summary that `--json` of a single run has."""
    import cv2
    cv2.setNumThreads(1)  # a core works on one recording
    try:
        summary = task.run_bag(task)[0]
    except (MosError, OSError) as error:
        return _failed(task, str(error))
    except Exception as error:  # a defect, or what a damaged file did to a library
        return _failed(task, f'{type(error).__name__}: {error}')
    return {'row': _row(task, summary), 'summary': summary}


def _tasks(args: argparse.Namespace, config: Config, run_bag: RunBag,
           out: Path) -> dict[str, argparse.Namespace]:
    """One task per bag, by key, in the order given."""
    single = {'out_bag': '--out-bag', 'rrd': '--rrd', 'ground_truth': '--ground-truth',
              'results': '--results'}
    if named := [option for name, option in single.items() if getattr(args, name, None)]:
        raise ConfigError(f'{", ".join(named)} with several bags: only for one at a time')
    threads = [] if any(text.startswith('threads=') for text in args.set) else ['threads=1']
    tasks: dict[str, argparse.Namespace] = {}
    for bag in args.bag:
        values = {**vars(args), 'set': [*args.set, *threads], 'json': None, 'quiet': True,
                  'run_bag': run_bag}
        key = _key(bag, values, config.model)
        if key in tasks:
            raise ConfigError(f'{bag} is named twice')
        name = f'{bag.stem}-{key[:12]}'
        folder = out / 'bags' / name if args.command == 'replay' and args.out else None
        tasks[key] = argparse.Namespace(**{
            **values, 'bag': bag, 'out': folder, 'key': key,
            'row_file': out / 'rows' / f'{name}.json'})
    return tasks


def _key(bag: Path, values: dict[str, Any], model: str) -> str:
    """SHA-256 of what a row depends on: the recording's files, model, settings, our version."""
    files = sorted(bag.rglob('*')) if bag.is_dir() else [bag]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns)
             for file in files if file.is_file()]
    names = ('command', 'model', 'set', 'image_topic', 'events_topic')
    cards = [_card_text(name) for name in (AUTO_MODELS if model == 'auto' else [model])]
    given = [values.get(name) for name in names] + [values['out'] is not None]
    text = repr((__version__, str(bag.resolve()), stats, cards, given))
    return hashlib.sha256(text.encode()).hexdigest()


def _card_text(name: str) -> str:
    """The card of a model, which holds the digest of its file. Raises EngineError."""
    try:
        return find_model(name).with_suffix('.json').read_text()
    except OSError:
        return ''  # loading it says what is wrong


def _row(task: argparse.Namespace, summary: dict[str, Any]) -> Row:
    """What the table says of a recording: nothing that differs from run to run, such as times."""
    counts = summary['run']['counts']
    row = {'bag': str(task.bag), 'state': 'done', 'error': '', 'partial': summary['partial'],
           **{name: summary[name] for name in ('model', 'image_topic', 'events_topic')},
           'results': counts.get('results', 0), 'faults': counts.get('faults', 0),
           'degraded': counts.get('degraded results', 0),
           'skipped': sum(summary['run']['skipped'].values())}
    if 'digest' in summary:
        return {**row, 'digest': summary['digest']}
    score = summary['score']
    return {**row,
            **{name: value for name, value in score.items() if not isinstance(value, dict)},
            **score['released'],
            **{f'strict {name}': value for name, value in score['strict'].items()}}


def _failed(task: argparse.Namespace, error: str) -> Row:
    return {'row': {'bag': str(task.bag), 'state': 'failed', 'error': ' '.join(error.split())},
            'summary': None}


def _read(task: argparse.Namespace) -> Row | None:
    """The row of an earlier call; None where there is none, or a failed or unreadable one."""
    try:
        found = json.loads(task.row_file.read_text())
        good = found['key'] == task.key and found['row']['state'] == 'done'
        return {'row': {**found['row'], 'bag': str(task.bag)}} if good else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_progress(finished: Iterable[tuple[argparse.Namespace, Any]], total: int, done: int,
                   console: Console) -> Iterator[tuple[argparse.Namespace, Any]]:
    """Pass rows on, with a bar on a terminal and a line each otherwise (both on stderr)."""
    if console.is_terminal:
        from rich.progress import Progress
        with Progress(console=console, transient=True) as bar:
            shown = bar.add_task('bags', total=total, completed=done)
            for item in finished:
                yield item
                bar.advance(shown)
        return
    for number, (task, row) in enumerate(finished, done + 1):
        yield task, row
        console.print(f'{number} of {total}: {task.bag}', highlight=False, soft_wrap=True)


def _report(rows: list[Row], out: Path, json_path: Path | None) -> None:
    """table.csv, table.json, and what of them fits on a terminal."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    whole = json.dumps({'rows': rows, 'mean': _mean(rows)}, indent=1) + '\n'
    files = {out / 'table.csv': text.getvalue(), out / 'table.json': whole}
    if json_path is not None:
        files[json_path] = whole
    for path, content in files.items():
        _write(path, content)
    console = Console()
    console.print(_table(rows, [name for name in SHOWN if name in columns]))
    for row in rows:
        if row['state'] != 'done':
            console.print(f'{row["bag"]}: {row["error"]}', highlight=False, soft_wrap=True)
    for path in files:
        console.print(f'wrote {path}', highlight=False, soft_wrap=True)
    if bad := [row for row in rows if row['state'] != 'done']:
        raise BagError(f'{len(bad)} of {len(rows)} bags failed, the first: {bad[0]["bag"]}: '
                       f'{bad[0]["error"]}')


def _mean(rows: list[Row]) -> dict[str, float]:
    """Plain means of the numbers over the recordings that have them."""
    numbers: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, (int, float)):
                numbers.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in numbers.items()}


def _table(rows: list[Row], columns: list[str]) -> Table:
    table = Table('bag', *columns, title=f'{len(rows)} bags')
    for row in [*rows, {'bag': 'mean', **_mean(rows)}]:
        table.add_row(Path(row['bag']).name, *(_shown(row.get(name)) for name in columns))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    """The whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    scratch.write_text(text, encoding='utf-8')
    scratch.replace(path)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
