"""docs/performance.md and docs/accuracy.md from the figures that were measured: no figure is typed
by hand.

    python -m bench.events --json bench/results/events.json
    python -m bench.node --json bench/results/node.json
    python -m training.evaluate --preset easy --update-card
    python -m bench.document
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAD = 'Made by `python -m bench.document`; do not edit.\n'


def performance() -> str:
    """docs/performance.md from bench/results/*.json."""
    parts = [
        '# Performance\n',
        HEAD,
        'Every table is one run of the command above it; peers took turns with ours in '
        'that run. Measured on CPUs only: nothing of ours has run on a GPU yet (docs/gpu.md).\n',
    ]
    for path in sorted((ROOT / 'bench' / 'results').glob('*.json')):
        data = json.loads(path.read_text())
        facts = data['machine'] | data['versions']
        parts += [
            f'## {data["title"]}\n',
            f'`{_command(data, path)}`\n',
            ', '.join(f'{key} {value}' for key, value in facts.items()) + '\n',
            table(
                ['measurement', 'ours', 'unit', 'peers', 'bar', 'met'],
                list(map(_bench_row, data['rows'])),
            ),
            *(f'* {note}' for note in data['notes']),
            '',
        ]
    return '\n'.join(parts).rstrip() + '\n'


def _command(data: dict[str, Any], path: Path) -> str:
    arguments = [data['arguments']] if data.get('arguments') else []
    return ' '.join(['python -m', f'bench.{data["bench"]}', *arguments,
                     f'--json bench/results/{path.name}'])


def accuracy() -> str:
    """docs/accuracy.md from the model cards."""
    parts = [
        '# Accuracy\n',
        HEAD,
        'All models here are trained on scenes rendered by `training/scenes`, never on '
        'recorded data, and tested on others (train and test share no seed, texture family or '
        'outline family) or, '
        'where a heading names a data set, on its recordings. mIoU ins, mIoU01 '
        'and AP released follow the released DIMOS code; mIoU strict, AP strict, precision and '
        'recall count false '
        'positives. The baselines see the same clips: homography = optical flow minus a '
        'homography, mog2 = '
        'background subtraction, events = event counts after motion compensation. Commands: '
        '`python -m training.evaluate --model NAME --preset PRESET --clips N --update-card`.\n',
    ]
    for path in sorted((ROOT / 'models').glob('*.json')):
        card = json.loads(path.read_text())
        made = card['training']
        parts += [f'## {card["id"]}\n', *(f'* {key}: {made[key]}' for key in made), '']
        for name, result in card['scores'].items():
            if 'J_mean' in result:
                parts += _video(name, result)
                continue
            columns = list(next(iter(result['scores'].values())))
            rows = []
            for method, values in result['scores'].items():
                cells = ['-' if values[column] is None else f'{values[column]:.3f}'
                         for column in columns]
                rows.append([method, *cells])
            parts += [f'### {name}: {result["about"]}, moving objects from '
                      f'{result["min_pixels"]} px\n',
                      table(['', *(column.replace('_', ' ') for column in columns)], rows), '']
    return '\n'.join(parts).rstrip() + '\n'


def _video(name: str, result: dict[str, Any]) -> list[str]:
    """J and F of the union of the instances of each sequence, and the baselines' means."""
    rows = [[key, f'{values["J"]:.3f}', f'{values["F"]:.3f}']
            for key, values in sorted(result['sequences'].items(), key=lambda item: item[1]['J'])]
    methods = {'mean': result} | {f'baseline: {key}, mean': values
                                  for key, values in result['baselines'].items()}
    rows += [[key, f'{values["J_mean"]:.3f}', f'{values["F_mean"]:.3f}']
             for key, values in methods.items()]
    return [f'### {name}: {result["about"]}\n', table(['', 'J', 'F'], rows), '']


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def _bench_row(row: dict[str, Any]) -> list[str]:
    peers = '<br>'.join(f'{name} {value:.4g}' for name, value in row['peers'].items())
    met = {None: '', True: 'yes', False: 'NO'}[row['met']]
    return [row['what'], f'{row["ours"]:.4g}', row['unit'], peers, row['bar'], met]


def main() -> None:
    """Write both pages."""
    for name, text in (('performance', performance()), ('accuracy', accuracy())):
        (ROOT / 'docs' / f'{name}.md').write_text(text)
        print(f'docs/{name}.md')


if __name__ == '__main__':
    main()
