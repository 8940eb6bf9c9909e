"""`python -m mos_perception.commands.generate`: parameter file and reference pages, made from
`config.py`, `mos_msgs/` and the fault tests.

A test checks that the committed files equal what this makes.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mos_perception.config import FIELDS

ROOT = Path(__file__).resolve().parents[2]
_NOTE = 'Made by `python -m mos_perception.commands.generate`; do not edit.'
FAULT_ROWS = 32
_TYPES = {bool: 'bool', int: 'int', float: 'double', str: 'string'}


def parameter_file(**values: Any) -> str:
    """Every parameter with its default, or the value given here."""
    lines = [
        f'# All parameters of the node. {_NOTE}',
        '/**:',
        '  ros__parameters:',
    ]
    for name, spec in FIELDS.items():
        lines += [
            f'    # {spec.metadata["text"]}{_bracket(name)}',
            f'    {name}: {_value(values.get(name, spec.default))}',
        ]
    return '\n'.join(lines) + '\n'


def parameter_page() -> str:
    """docs/parameters.md: one table of all parameters."""
    lines = [
        '# Parameters',
        '',
        _NOTE,
        '',
        'Live parameters may be set while the node runs (`ros2 param set`); others '
        'are read at start. A set with one wrong value is refused as a whole. Quality of service '
        'of each topic: '
        '`qos_overrides.<topic>.<publisher|subscription>.<history|depth|reliability>`.',
        '',
        '| name | type | default | range | unit | live | what it does |',
        '|---|---|---|---|---|---|---|',
    ]
    for name, spec in FIELDS.items():
        meta = spec.metadata
        live = 'yes' if meta['live'] else ''
        lines.append(
            f'| `{name}` | {_TYPES[type(spec.default)]} | `{_value(spec.default)}` | '
            f'{_range(name)} '
            f'| {meta["unit"]} | {live} | {meta["text"].replace("|", "/")} |'
        )
    return '\n'.join(lines) + '\n'


def message_page() -> str:
    """docs/messages.md: the definitions of `mos_msgs`, as they are."""
    lines = ['# Messages', '', _NOTE]
    for path in sorted((ROOT / 'mos_msgs').glob('*/*.???')):
        if path.suffix in ('.msg', '.srv'):
            lines += ['', f'## mos_msgs/{path.stem}', '', '```', path.read_text().rstrip(), '```']
    return '\n'.join(lines) + '\n'


def fault_tests() -> list[tuple[int, str, str, Path, str]]:
    """(row, injected, promised, file from the root, test) of every test marked `fault`, by row."""
    found = []
    for path in sorted((ROOT / 'test').rglob('test_*.py')):
        for node in ast.parse(path.read_text()).body:
            for row, injected, promised in map(ast.literal_eval, _fault_marks(node)):
                found.append((row, injected, promised, path.relative_to(ROOT), node.name))
    return sorted(found)


def _fault_marks(node: ast.stmt) -> Iterator[ast.Tuple]:
    for call in getattr(node, 'decorator_list', []):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == 'pytest.mark.fault':
            yield ast.Tuple(call.args, ast.Load())


def fault_page() -> str:
    """docs/faults.md: what is done to the node, what it promises then, and the test that proves it.
    """
    found = fault_tests()
    lines = [
        '# Faults',
        '',
        _NOTE,
        '',
        f'{len({row for row, *_ in found})} of {FAULT_ROWS} faults that a robot must survive are '
        'tested, over real nodes, processes and DDS where the fault is one of those. '
        '`python -m pytest -m fault` runs them. "Fake driver": the kernels\' source on the CPU '
        'under a driver that fails as told; no GPU was used.',
        '',
        '| fault | what is done | what is promised | test |',
        '|---|---|---|---|',
    ]
    lines += [f'| {row} | {injected} | {promised} | `{path}::{test}` |'
              for row, injected, promised, path, test in found]
    return '\n'.join(lines) + '\n'


def files() -> dict[Path, str]:
    """Every generated file, path from the root -> content."""
    return {
        Path('config/dimos.yaml'): parameter_file(),
        Path('config/gmos.yaml'): parameter_file(model='gmos_nano', events_topic=''),
        Path('config/mosis.yaml'): parameter_file(model='gmos_nano', events_topic='',
                                                  movable_model='movable_nano'),
        Path('docs/parameters.md'): parameter_page(),
        Path('docs/messages.md'): message_page(),
        Path('docs/faults.md'): fault_page(),
    }


def _value(value: object) -> str:
    return json.dumps(value)


def _range(name: str) -> str:
    meta = FIELDS[name].metadata
    if meta['choices']:
        return ', '.join(f'`{choice}`' for choice in meta['choices'])
    return (
        '' if meta['low'] is None and meta['high'] is None else f'{meta["low"]} .. {meta["high"]}'
    )


def _bracket(name: str) -> str:
    meta = FIELDS[name].metadata
    parts = [_range(name).replace('`', ''), meta['unit']]
    limits = ' '.join(part for part in parts if part)
    return (f' [{limits}]' if limits else '') + (' (live)' if meta['live'] else '')


def main() -> int:
    """Write all generated files."""
    for path, text in files().items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text)
        print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
