"""What every benchmark shares: where it ran, a table on the terminal, the same figures as JSON.

    given = parsed(parser, arguments)
    report = Report('events', 'EVT3 decode and voxelization')
    report.row('decode vect', ours=160.0, unit='Mev/s', peers={'faery': 58.0}, bar='>= 120')
    report.finish(given)
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """What a bench was asked for, on the process's command line if None; `words`: as it was put."""
    words = sys.argv[1:] if arguments is None else arguments
    return parser.parse_args(words, argparse.Namespace(words=words))


def machine() -> dict[str, Any]:
    """Processor, usable cores, load, memory (GB), Python, date and git commit of this run."""
    facts = dict(line.split(':', 1) for line in _read('/proc/cpuinfo').splitlines() if ':' in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    git = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--abbrev=12'],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return {'processor': facts.get('model name', platform.processor() or platform.machine()),
            'cores': len(os.sched_getaffinity(0)), 'load_1min': os.getloadavg()[0],
            'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
            'system': platform.platform(), 'python': platform.python_version(),
            'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'commit': git.stdout.strip() or 'none'}


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each distribution, 'not installed' otherwise."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'not installed'
    return found


class Report:
    """Rows of one benchmark; `finish` prints them and writes the JSON."""

    def __init__(
        self, name: str, title: str, packages: tuple[str, ...] = ('numpy', 'numba')
    ) -> None:
        """`packages` are the distributions whose versions matter here."""
        self.data: dict[str, Any] = {'bench': name, 'title': title, 'machine': machine(),
                                     'arguments': '',
                                     'versions': versions(*packages), 'rows': [], 'notes': []}

    def row(
        self,
        what: str,
        ours: float,
        unit: str,
        peers: dict[str, float] | None = None,
        bar: str = '',
        met: bool | None = None,
        **extra: Any,
    ) -> None:
        """One measurement: our figure, each peer's from the same run, the bar and whether it was
        met.
        """
        self.data['rows'].append(
            {
                'what': what,
                'ours': ours,
                'unit': unit,
                'peers': peers or {},
                'bar': bar,
                'met': met,
                **extra,
            }
        )

    def note(self, text: str) -> None:
        """A line under the table: a peer that is missing, what was seen."""
        self.data['notes'].append(text)

    def finish(self, given: argparse.Namespace) -> None:
        """Print machine, versions, table and notes; write all of it to the file `json` of what was
        `parsed`, if it names one.
        """
        self.data['arguments'] = _arguments(given.words)
        console = Console(width=None if os.isatty(1) else 150)
        facts = self.data['machine'] | self.data['versions']
        console.print(' | '.join(f'{key} {value}' for key, value in facts.items()))
        table = Table(
            'measurement', 'ours', 'unit', 'peers', 'bar', 'met', title=self.data['title']
        )
        for row in self.data['rows']:
            peers = '\n'.join(f'{name} {value:.4g}' for name, value in row['peers'].items())
            met = '' if row['met'] is None else ('yes' if row['met'] else 'NO')
            table.add_row(row['what'], f'{row["ours"]:.4g}', row['unit'], peers, row['bar'], met)
        console.print(table)
        for note in self.data['notes']:
            console.print(f'note: {note}')
        if given.json:
            Path(given.json).write_text(json.dumps(self.data, indent=1) + '\n')


def _arguments(given: list[str]) -> str:
    """The command line without `--json PATH`, which is where a run was kept."""
    if '--json' in given:
        at = given.index('--json')
        given = given[:at] + given[at + 2:]
    return shlex.join(given)


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ''
