"""A benchmark's JSON says what it was asked for, whoever asked."""

import json
import sys

from bench import fuzz


def test_the_arguments_are_those_of_main_and_else_of_the_process(tmp_path, monkeypatch):
    path, words = tmp_path / 'made.json', ['--packets', '0', '--seed', '3']
    monkeypatch.setattr(sys, 'argv', ['bench', *words, '--only', 'evt3', '--json', str(path)])
    for arguments, wanted in (([*words, '--json', str(path)], '--packets 0 --seed 3'),
                              (None, '--packets 0 --seed 3 --only evt3')):
        assert fuzz.main(arguments) == 0
        assert json.loads(path.read_text())['arguments'] == wanted
