"""The README's commands exist: make targets, `mos` subcommands and options, modules, files it links
to.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from mos_perception.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```bash\n(.*?)```', README, re.S)
COMMANDS = [
    line.split('#')[0].strip()
    for block in BLOCKS
    for line in block.replace('\\\n', ' ').splitlines()
    if line.split('#')[0].strip()
]
TARGETS = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M))


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('make')])
def test_make_targets_exist(command):
    assert shlex.split(command)[1] in TARGETS


@pytest.mark.parametrize('command', [c for c in COMMANDS if '/mos ' in c])
def test_mos_commands_parse(command):
    _parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize('command', [c for c in COMMANDS if 'python -m ' in c])
def test_modules_exist(command):
    words = shlex.split(command)
    assert importlib.util.find_spec(words[words.index('-m') + 1])


@pytest.mark.parametrize('path', sorted(set(re.findall(r'\]\(([\w./-]+)\)', README))))
def test_linked_files_exist(path):
    assert (ROOT / path).exists()


def test_both_promised_commands_are_there():
    assert {'make demo', 'make test'} <= {c for c in COMMANDS} | set(
        re.findall(r'`(make \w+)`', README)
    )
