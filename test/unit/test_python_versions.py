"""Humble runs Python 3.10: our syntax and the standard library we use must be there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ['mos_perception', 'launch', 'setup.py']


def test_syntax_of_python_3_10():
    pytest.importorskip('ruff', reason='ruff is in requirements/test.txt')
    run = subprocess.run(
        [sys.executable, '-m', 'ruff', 'check', '-n', '--target-version=py310', *SHIPPED],
        cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_library_of_python_3_10():
    pytest.importorskip('vermin', reason='vermin is in requirements/test.txt')
    run = subprocess.run(
        [sys.executable, '-c', 'from vermin import main; main()', '--target=3.10-', '--violations',
         '--no-tips', *SHIPPED],
        cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
