"""The engine cache: whatever differs, is cut, edited or half written gives a miss or a refusal,
never an engine.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mos_perception.engine import build as builder
from mos_perception.engine import trt as runtime
from mos_perception.engine.cache import Cache, Miss, default_folder
from mos_perception.engine.card import load_card, save_card, sha256_of
from mos_perception.engine.probe import Gpu
from mos_perception.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
KEY = {'onnx': 'a' * 64, 'version': '10.3', 'device': {'name': 'Orin'}, 'shapes': ['x float32 1x3']}
PLAN = bytes(range(256)) * 40
GPU = Gpu('Fake Orin', (8, 7), 14, 12060, '', '')


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / 'engines')


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A fake GPU and TensorRT, a model of our own and a builder that counts."""
    model = tmp_path / 'net.onnx'
    model.write_bytes((ROOT / 'models' / 'dimos_nano.onnx').read_bytes())
    model.with_suffix('.json').write_text((ROOT / 'models' / 'dimos_nano.json').read_text())
    state = SimpleNamespace(
        model=model, gpu=GPU, version='10.3.0', built=0, folder=tmp_path / 'engines'
    )
    for module in (builder, runtime):
        monkeypatch.setattr(module, 'find_gpu', lambda: state.gpu)
        monkeypatch.setattr(module, 'import_tensorrt', lambda flavour: SimpleNamespace(
            __version__=state.version, __name__=flavour))

    def make(*_):
        state.built += 1
        return b'plan %d' % state.built

    state.build = lambda **more: builder.build(
        model, 'tensorrt', Cache(state.folder), lambda *_: True, builder=make, **more
    )
    state.open = lambda: runtime.open_engine(model, 'tensorrt', 'auto', Cache(state.folder))
    return state


def test_what_is_stored_comes_back(cache):
    path = cache.store('net', KEY, PLAN)
    assert cache.load('net', KEY) == PLAN and path.parent == cache.folder
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert sorted(p.suffix for p in cache.folder.iterdir()) == ['.json', '.plan']


@pytest.mark.parametrize('field', KEY)
def test_any_other_key_is_a_miss_that_says_why(cache, field):
    cache.store('net', KEY, PLAN)
    found = cache.load('net', {**KEY, field: 'new'})
    assert isinstance(found, Miss) and f"{field} was {KEY[field]!r}, is 'new'" in found.reason


@pytest.mark.fault(18, 'an engine file or its side-car cut, edited or gone',
                   'never loaded: built again, or refused')
@pytest.mark.parametrize(
    'harm', ['cut', 'flip', 'key', 'sha', 'not json', 'list', 'no plan', 'no side', 'empty']
)
def test_harmed_files_are_misses(cache, harm):
    plan = cache.store('net', KEY, PLAN)
    side = plan.with_suffix('.json')
    values = json.loads(side.read_text())
    {'cut': lambda: plan.write_bytes(PLAN[:-1]), 'flip': lambda: plan.write_bytes(b'x' + PLAN[1:]),
     'key': lambda: side.write_text(json.dumps({**values, 'key': {**KEY, 'version': '11'}})),
     'sha': lambda: side.write_text(json.dumps({**values, 'sha256': '0' * 64})),
     'not json': lambda: side.write_text('{'), 'list': lambda: side.write_text('[]'),
     'no plan': plan.unlink, 'no side': side.unlink, 'empty': lambda: side.write_text('')}[harm]()
    assert isinstance(cache.load('net', KEY), Miss)
    cache.store('net', KEY, PLAN)
    assert cache.load('net', KEY) == PLAN


def test_folders_others_may_write_are_refused(cache, tmp_path):
    cache.store('net', KEY, PLAN)
    cache.folder.chmod(0o770)
    with pytest.raises(EngineError, match='mode 0770.*0700'):
        cache.load('net', KEY)
    shared = tmp_path / 'shared'
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(EngineError, match='shared temporary'):
        Cache(shared / 'engines').store('net', KEY, PLAN)
    (tmp_path / 'link').symlink_to(cache.folder)
    with pytest.raises(EngineError, match='must be a directory'):
        Cache(tmp_path / 'link').load('net', KEY)


def test_default_folder(monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
    assert default_folder() == Path('/somewhere/mos_perception/engines')
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    assert default_folder() == Path.home() / '.cache/mos_perception/engines'


def test_cache_that_cannot_be_written_refuses_before_building(machine, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(30, 'Read-only file system')
    monkeypatch.setattr(Path, 'touch', refuse)  # as root, chmod stops nobody
    with pytest.raises(EngineError, match='cannot be written.*XDG_CACHE_HOME'):
        machine.build()
    assert machine.built == 0


def test_read_only_cache_still_gives_its_engine(cache):
    cache.store('net', KEY, PLAN)
    cache.folder.chmod(0o500)
    assert cache.load('net', KEY) == PLAN
    cache.folder.chmod(0o700)


def test_build_once_then_use(machine):
    path, built = machine.build()
    assert built and path.read_bytes() == b'plan 1'
    assert machine.build() == (path, False)
    assert machine.build(force=True) == (path, True) and machine.built == 2


@pytest.mark.fault(18, 'an engine built for another model, TensorRT, GPU or shape (fake driver)',
                   'refused with what differs and the command to run')
@pytest.mark.parametrize('change', ['onnx', 'version', 'device', 'shapes'])
def test_a_changed_world_is_refused_with_the_command_then_rebuilt(machine, change):
    machine.build()
    card = load_card(machine.model)
    if change == 'onnx':
        machine.model.write_bytes(machine.model.read_bytes() + b'\0')
        save_card(_replace(card, sha256=sha256_of(machine.model)), machine.model)
    elif change == 'shapes':
        save_card(_replace(card, inputs=card.inputs[:1]), machine.model)
    elif change == 'version':
        machine.version = '10.16.1'
    else:
        machine.gpu = _replace(GPU, name='Other')
    with pytest.raises(
        EngineError, match=f'{change} was .*run "mos build --model .*net.onnx --backend tensorrt"'
    ):
        machine.open()
    assert machine.build()[1] and machine.built == 2


def test_an_empty_engine_is_not_stored(machine):
    with pytest.raises(EngineError, match='empty engine'):
        builder.build(
            machine.model,
            'tensorrt',
            Cache(machine.folder),
            lambda *_: True,
            builder=lambda *_: b'',
        )
    assert list(machine.folder.glob('*.plan')) == []


@pytest.mark.fault(30, 'killed while an engine is written',
                   'whole or absent, never half')
@pytest.mark.parametrize('delay_ms', [0, 3, 10, 30])
def test_killed_while_writing(tmp_path, delay_ms):
    code = (
        'import sys, json; from pathlib import Path; from mos_perception.engine.cache import '
        'Cache\n'
        'cache, key, n = Cache(Path(sys.argv[1])), json.loads(sys.argv[2]), 0\n'
        'print("go", flush=True)\n'
        'while True:\n    n += 1\n    cache.store("net", key, bytes([n % 256]) * 3_000_000)\n'
    )
    folder = tmp_path / 'engines'
    child = subprocess.Popen(
        [sys.executable, '-c', code, folder, json.dumps(KEY)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    child.stdout.readline()
    time.sleep(delay_ms / 1000)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = Cache(folder).load('net', KEY)
    assert isinstance(found, Miss) or (len(found) == 3_000_000 and len(set(found)) == 1)
    Cache(folder).store('net', KEY, PLAN)
    assert Cache(folder).load('net', KEY) == PLAN


def _replace(value, **changes):
    import dataclasses
    return dataclasses.replace(value, **changes)
