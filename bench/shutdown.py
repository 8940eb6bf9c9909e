"""Does the node end in time, whenever it is told to?

    python -m bench.shutdown --moments 200 --json out/shutdown.json

A player loops the demo bag ten times as fast as it was recorded. Each time the node starts as a
process and gets SIGINT or SIGTERM: every other one at a random moment of its start (it imports,
loads its model, activates), the others at a random moment of the flood. It is clean if it ends
within 2 s with exit code 0 (while it imports: as Python ends any program) and leaves no process, no
traceback and, unless it was cut off while busy, no shared memory.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.report import Report, parsed
from bench.tiny_model import make_tiny_model
from mos_perception.ros.transport import SHARED_MEMORY

BAR_S = 2.0
SEGMENTS = 'fastrtps_' + 16 * '[0-9a-f]'  # each process its own; ports are shared
FLOOD_RATE = 10.0
FLOODED_S = 3.0
BAG = Path(__file__).resolve().parents[1] / 'test' / 'bags' / 'demo'
BEFORE = {-signal.SIGINT, -signal.SIGTERM, 130, 1}  # of Python, while it imports


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every end was clean."""
    parser = argparse.ArgumentParser(prog='bench.shutdown')
    parser.add_argument('--moments', type=int, default=200)
    parser.add_argument('--longest-s', type=float, default=12.0, metavar='S',
                        help='the latest moment of the start: about what it takes here')
    parser.add_argument('--model', help='default: a tiny one')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the results there')
    args = parsed(parser, arguments)
    # a job in a shell's background ignores it, and the nodes would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(make_tiny_model(Path(folder) / 'tiny.onnx'))
        player = subprocess.Popen(
            [sys.executable, '-m', 'mos_perception.ros.player', str(BAG), '--loop', '--rate',
             str(FLOOD_RATE), '--wait-for-subscribers', '0'],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not mapped_segments(player.pid):
                time.sleep(0.1)
            ends = [one_end(model, rng.uniform(0, FLOODED_S if n % 2 else args.longest_s),
                            rng.choice([signal.SIGINT, signal.SIGTERM]), bool(n % 2))
                    for n in range(args.moments)]
        finally:
            player.terminate()
            player.wait()
    return report(ends, args)


def one_end(model: str, after_s: float, number: signal.Signals, flooded: bool) -> dict[str, Any]:
    """Start a node, signal it so long after its start, or after it is active, and see how it ends.
    """
    before = set(SHARED_MEMORY.glob(SEGMENTS))
    process = subprocess.Popen(
        [sys.executable, '-m', 'mos_perception.ros', '--ros-args', '-p', f'model:={model}',
         '-p', 'force_inference:=true', '-p', 'registration:=scale',
         '-r', 'image:=/camera/image_raw', '-r', 'events:=/event_camera/events'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = ''
    while flooded and 'active: ' not in told and (line := process.stdout.readline()):
        told += line
    time.sleep(after_s)
    children = psutil.Process(process.pid).children(recursive=True)
    segments = mapped_segments(process.pid) - before
    start = time.monotonic()
    process.send_signal(number)
    try:
        text, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
    text = told + text
    seconds, began = time.monotonic() - start, '[mos_perception]' in text
    left = [child.pid for child in children if child.is_running()]
    kept = [path for path in segments if path.exists()]
    right = process.returncode == 0 or not began and process.returncode in BEFORE
    cut_off = 'cut off' in text
    clean = (right and seconds < BAR_S and not left and (cut_off or not kept)
             and not (began and 'Traceback' in text))
    if not clean:
        since = 'active' if flooded else 'start'
        print(f'{number.name} {after_s:.2f} s after {since}: exit code {process.returncode} after '
              f'{seconds:.2f} s, {len(left)} processes and {len(kept)} segments of shared memory '
              f'left\n{text[-800:]}', file=sys.stderr)
    return {'after_s': after_s, 'signal': number.name, 'seconds': seconds, 'began': began,
            'cut_off': cut_off, 'segments_left': len(kept), 'exit_code': process.returncode,
            'clean': clean}


def mapped_segments(pid: int) -> set[Path]:
    """Segments of Fast DDS that a process has in its memory: its own, and those of its writers."""
    paths = {Path(mapped.path) for mapped in psutil.Process(pid).memory_maps()}
    return {path for path in paths if path.match(str(SHARED_MEMORY / SEGMENTS))}


def report(ends: list[dict[str, Any]], given: argparse.Namespace) -> int:
    """The table and the JSON; the exit code."""
    found = Report('shutdown', 'Ends of the node at random moments', ('rclpy',))
    seconds = [end['seconds'] for end in ends]
    clean = sum(end['clean'] for end in ends)
    found.row('clean ends', ours=clean, unit=f'of {len(ends)}', bar=f'= {len(ends)}',
              met=clean == len(ends))
    found.row('from signal to end, p50', ours=float(np.median(seconds)), unit='s')
    found.row('from signal to end, longest', ours=max(seconds), unit='s', bar=f'< {BAR_S:.0f}',
              met=max(seconds) < BAR_S)
    found.row('of nodes that had begun', ours=sum(end['began'] for end in ends), unit='ends')
    found.row('left shared memory behind', ours=sum(bool(end['segments_left']) for end in ends),
              unit='ends')
    found.row('cut off while busy', ours=sum(end['cut_off'] for end in ends), unit='ends')
    found.finish(given)
    return int(clean != len(ends))


if __name__ == '__main__':
    sys.exit(main())
