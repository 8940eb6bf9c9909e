"""Does any input crash, hang, bloat or mislead what reads it?

    python -m bench.fuzz --packets 1000000 --json out/fuzz.json
    python -m bench.fuzz --seconds 600 --only 'bag mcap' --keep out/found
    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(mktemp -d) python -m bench.fuzz --packets 20000

Event packets of every encoding go through the whole pipeline; messages, bags, cards, parameter
files, data sets (ground-truth JSON, label images, arrays) and checkpoints through their readers
(`fuzz_targets.py`). Case N of a seed is always the same case. Each must be read or be refused by a
MosError of one line, within time and memory, and without a file written outside of the folder that
it was given. A process of its own reads them: where it crashes or hangs the case is kept and the
next process goes on after it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import psutil

from bench.report import Report, parsed
from mos_perception.errors import MosError

HANG_S = 60.0        # of processor time, without a new case
SLOW_S = 5.0         # of processor time, for one case
BLOAT = 256 << 20    # bytes that one case may add to the most memory used
GROWTH_MB = 50.0     # over the second half
ADDRESS_SPACE = 8 << 30
SAY_S = 10.0
STATUS = struct.Struct('<QQ')  # the case in work, inputs read before it
WRITES = {'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'os.link', 'os.symlink', 'os.truncate',
          'shutil.rmtree'}
RUNS = {'os.system', 'os.exec', 'os.posix_spawn', 'subprocess.Popen', 'socket.connect'}


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog='bench.fuzz')
    parser.add_argument('--packets', type=int, default=100_000, metavar='N',
                        help='inputs to read: packets, messages and files')
    parser.add_argument('--seconds', type=float, default=float('inf'), metavar='S',
                        help='stop after so long')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, metavar='CASE', help='begin with this case')
    parser.add_argument('--only', help='targets whose names hold this text')
    parser.add_argument('--keep', type=Path, metavar='FOLDER', help='write what is found there')
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the results there')
    parser.add_argument('--child', type=Path, help=argparse.SUPPRESS)
    args = parsed(parser, arguments)
    if args.child:
        return child(args)
    with tempfile.TemporaryDirectory(prefix='mos_fuzz_') as folder:
        return parent(args, Path(folder))


def parent(args: argparse.Namespace, folder: Path) -> int:
    """Start children until all is read; the report."""
    start, found, first, read = time.monotonic(), [], args.first, 0
    log, stats = folder / 'findings', {'seen': {}, 'outcomes': {}, 'memory_mb': []}
    while read < args.packets and time.monotonic() - start < args.seconds:
        left_s = args.seconds - (time.monotonic() - start)
        command = [sys.executable, '-m', 'bench.fuzz', '--child', str(folder), '--seed',
                   str(args.seed), '--first', str(first), '--packets', str(args.packets - read),
                   '--seconds', str(left_s), *(['--only', args.only] if args.only else [])]
        (folder / 'status').write_bytes(STATUS.pack(first, 0))
        with (folder / 'said').open('w') as said:  # libraries speak of every damaged picture
            process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=said)
            case, done, why = watch(process, folder, read, args.packets)
        first, read = case + 1, read + done
        if why:
            text = (folder / 'said').read_text(errors='replace')[-2000:]
            found.append({'target': 'the process', 'case': case, 'error': f'{text}\n{why}'})
            if case == args.first and not read:
                break  # it does not even begin
        lines = log.read_text().splitlines() if log.exists() else []
        for line in map(json.loads, lines):
            if 'stats' in line:
                merge(stats, line['stats'])
            else:
                found.append(line)
        log.unlink(missing_ok=True)
        if process.returncode == 0:
            break
    return report(args, read, time.monotonic() - start, found, stats)


def watch(process: subprocess.Popen, folder: Path, before: int, total: int) -> tuple[int, int, str]:
    """Wait for a child: (its last case, the inputs it read, how it failed or '')."""
    path, last, spent, said = folder / 'status', -1, 0.0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.5)
        case, done = _status(path)
        used = _processor_s(process.pid)
        if case != last:
            last, spent = case, used
        if time.monotonic() - said > SAY_S:
            said = time.monotonic()
            print(f'{before + done} of {total} inputs, case {case}', flush=True)
        if used - spent > HANG_S:
            process.kill()
            process.wait()
            return case, done, f'no end after {HANG_S:.0f} s of processor time'
    case, done = _status(path)
    why = '' if process.returncode == 0 else f'ended with exit code {process.returncode}'
    return case, done, why


def _processor_s(pid: int) -> float:
    try:
        return sum(psutil.Process(pid).cpu_times()[:2])
    except psutil.Error:  # it has ended
        return 0.0


def _status(path: Path) -> tuple[int, int]:
    data = path.read_bytes() if path.exists() else b''
    return STATUS.unpack(data) if len(data) == STATUS.size else (0, 0)


def merge(stats: dict[str, Any], more: dict[str, Any]) -> None:
    """Add what one child counted to `stats`."""
    for name, count in more['seen'].items():
        stats['seen'][name] = stats['seen'].get(name, 0) + count
    for name, outcomes in more['outcomes'].items():
        stats['outcomes'][name] = sorted({*stats['outcomes'].get(name, ()), *outcomes})
    stats['memory_mb'] += more['memory_mb']


def child(args: argparse.Namespace) -> int:
    """Read cases; every find is a line of the file `findings`, then what was counted."""
    from bench.fuzz_targets import targets
    faulthandler.enable()
    known = targets(args.child / f'cases_{args.first}', args.only or '')
    if not known:
        raise SystemExit(f'no target holds {args.only!r}')
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    escaped: list[str] = []
    sys.addaudithook(lambda event, given: _audit(event, given, args.child, escaped))
    names, weights = list(known), [target.weight for target in known.values()]
    seen, outcomes, memory = Counter(), {}, []
    end, read, case = time.monotonic() + args.seconds, 0, args.first
    path = args.child / 'status'
    with path.open('r+b') as file, (args.child / 'findings').open('a') as log:
        status = mmap.mmap(file.fileno(), STATUS.size)
        while read < args.packets and time.monotonic() < end:
            status[:] = STATUS.pack(case, read)
            rng = Random(f'{args.seed}/{case}')
            name = rng.choices(names, weights)[0]
            data = known[name].make(rng)
            count, outcome, error = attempt(known[name].read, data, escaped)
            if error:
                print(json.dumps({'target': name, 'case': case, 'error': error,
                                  'data': data.hex() if len(data) < 100_000 else ''}),
                      file=log, flush=True)
            seen[name] += count
            outcomes.setdefault(name, set()).add(outcome)
            read, case = read + count, case + 1
            if case % 200 == 0:
                memory.append(_resident_mb())
        status[:] = STATUS.pack(case, read)
        print(json.dumps({'stats': {
            'seen': seen, 'outcomes': {name: sorted(found) for name, found in outcomes.items()},
            'memory_mb': memory}}), file=log)
    return 0


def attempt(read: Any, data: bytes, escaped: list[str]) -> tuple[int, str, str]:
    """(inputs read, how it went without its figures, what is wrong with that or '')."""
    most, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    count, error = 1, ''
    try:
        count, outcome = read(data), 'read'
    except MosError as refusal:
        outcome = f'{type(refusal).__name__}: {re.sub("[0-9]+", "", str(refusal))[:60]}'
        if '\n' in str(refusal):
            error = f'a message of several lines: {refusal}'
    except BaseException as bad:
        outcome = f'{type(bad).__name__}'
        error = ''.join(traceback.format_exception(bad))[-2000:]
    spent = time.process_time() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) << 10
    if spent > SLOW_S:
        error = error or f'took {spent:.1f} s of processor time'
    if grown > BLOAT:
        error = error or f'took {grown >> 20} MiB for {len(data)} bytes'
    if escaped:
        error = error or f'did {escaped[0]}'
        escaped.clear()
    return count, outcome, error


def _audit(event: str, given: tuple[Any, ...], folder: Path, escaped: list[str]) -> None:
    """Note what is written outside of the folder, and every program or connection begun."""
    if event in RUNS:
        escaped.append(f'{event} {given[:2]}')
    elif event == 'open' and isinstance(given[0], str):
        mode, flags = given[1], given[2]
        writes = any(letter in (mode or '') for letter in 'wax+') or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
        if writes and not _inside(given[0], folder):
            escaped.append(f'open {given[0]} for writing')
    elif event in WRITES and not all(_inside(item, folder) for item in given
                                     if isinstance(item, (str, os.PathLike))):
        escaped.append(f'{event} {given[:2]}')


def _inside(path: str | os.PathLike, folder: Path) -> bool:
    whole = os.path.abspath(os.fspath(path))
    return whole.startswith(f'{folder}{os.sep}') or whole in ('/dev/null', '/dev/tty')


def _resident_mb() -> float:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def report(args: argparse.Namespace, read: int, seconds: float, found: list[dict[str, Any]],
           stats: dict[str, Any]) -> int:
    """The table, the JSON and what was found; the exit code."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in found:
        last = item['error'].strip().splitlines()[-1]
        kinds.setdefault((item['target'], re.sub('[0-9]+', '#', last)[:80]), []).append(item)
    for (target, last), items in kinds.items():
        print(f'FOUND {len(items)} times in {target}, first as case {items[0]["case"]}: {last}\n'
              f'{items[0]["error"]}', file=sys.stderr)
        if args.keep and items[0].get('data'):
            args.keep.mkdir(parents=True, exist_ok=True)
            file = args.keep / f'{target.replace(" ", "_")}-{args.seed}-{items[0]["case"]}'
            file.write_bytes(bytes.fromhex(items[0]['data']))
    half = stats['memory_mb'][len(stats['memory_mb']) // 2:]
    growth = max(half) - half[0] if half else 0.0
    table = Report('fuzz', 'Mutated input', ('numpy', 'numba', 'rosbags', 'mcap', 'h5py'))
    table.row('inputs read', ours=read, unit='inputs')
    table.row('inputs a second', ours=read / seconds, unit='1/s')
    table.row('crashes, hangs, wrong errors, bloat, writes elsewhere', ours=len(found),
              unit='inputs', bar='0', met=not found)
    table.row('resident memory, growth over the second half', ours=growth, unit='MB',
              bar=f'< {GROWTH_MB:.0f}', met=growth < GROWTH_MB)
    for name, count in sorted(stats['seen'].items()):
        table.row(name, ours=count, unit='inputs',
                  outcomes=len(stats['outcomes'].get(name, ())))
    table.note(f'seed {args.seed}; {sum(map(len, stats["outcomes"].values()))} different outcomes')
    table.finish(args)
    return int(bool(found) or growth >= GROWTH_MB)


if __name__ == '__main__':
    sys.exit(main())
