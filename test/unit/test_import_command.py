"""`mos import`: what it hands on, what it says where something is missing or fails."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mos_perception.cli import main
from mos_perception.commands import training_process

FILES = ['import', 'gmos', '--checkpoint', 'g.pth', '--pi3', 'p.safetensors', '--sam2', 's.pt']


@pytest.fixture
def every_library(monkeypatch):
    """All that an import needs seems to be here."""
    monkeypatch.setattr(training_process.importlib.util, 'find_spec', lambda name: name)


def test_missing_libraries_are_named_with_their_remedies(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(training_process.importlib.util, 'find_spec',
                        lambda name: None if name in ('torch', 'transformers') else real(name))
    assert main(FILES) == 1
    told = capsys.readouterr().err
    assert told.count('\n') == 1
    assert 'torch: pip install torch' in told and 'requirements/gmos.txt' in told


def test_sam2_takes_no_files_of_others(every_library, monkeypatch):
    seen = []

    def run(command, check, env):
        seen.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(training_process.subprocess, 'run', run)
    assert main(['import', 'sam2', '--checkpoint', 's.pt', '--size', 'tiny', '--out', 'x']) == 0
    assert seen == [['training.import_sam2', '--checkpoint', 's.pt', '--size', 'tiny', '--out',
                     'x']]
    with pytest.raises(SystemExit):
        main(['import', 'sam2', '--checkpoint', 's.pt', '--pi3', 'p'])


def test_dimos_needs_no_transformers(monkeypatch):
    seen = []
    monkeypatch.setattr(training_process.importlib.util, 'find_spec',
                        lambda name: None if name == 'transformers' else name)
    monkeypatch.setattr(training_process.subprocess, 'run', lambda command, check, env: seen.append(
        command[2:]) or subprocess.CompletedProcess(command, 0))
    assert main(['import', 'dimos', '--checkpoint', 'd.pth', '--data', 'sevd']) == 0
    assert seen == [['training.import_dimos', '--checkpoint', 'd.pth', '--data', 'sevd', '--out',
                     'models']]


def test_options_reach_the_importer_and_its_failure_is_ours(every_library, monkeypatch, capsys):
    seen = []

    def run(command, check, env):
        seen.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(training_process.subprocess, 'run', run)
    assert main([*FILES, '--size', 'small', '--image-size', '252', '448']) == 1
    assert seen == [[sys.executable, '-m', 'training.import_gmos', '--checkpoint', 'g.pth', '--pi3',
                     'p.safetensors', '--sam2', 's.pt', '--size', 'small', '--out', 'models',
                     '--image-size', '252', '448']]
    assert 'g.pth was not imported' in capsys.readouterr().err


@pytest.mark.parametrize('words, told', [
    (['adapt', 'no_bag', '--out', 'x.onnx'], 'mos adapt: no_bag: no such bag'),
    (['import', 'dimos', '--checkpoint', 'no_file', '--data', 'sevd'],
     'mos import dimos: checkpoint no_file does not exist'),
])
def test_the_installed_command_finds_training_from_any_folder(words, told, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    mos = Path(sys.executable).with_name('mos')
    done = subprocess.run([mos, *words], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1 and told in done.stderr


def test_without_a_checkout_the_remedy_is_one(every_library, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(training_process, 'SOURCE', tmp_path)
    assert main(FILES) == 1
    assert 'training: install from a source checkout' in capsys.readouterr().err
