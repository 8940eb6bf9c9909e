"""What viewers are given: the Foxglove layout names what the node publishes; the Rerun file."""

import json
import re
from pathlib import Path

import pytest

from mos_perception.cli import main
from mos_perception.recording.messages import typestore

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = json.loads((ROOT / 'config' / 'foxglove.json').read_text())


def leaves(node) -> list[str]:
    return [node] if isinstance(node, str) else leaves(node['first']) + leaves(node['second'])


def test_foxglove_shows_every_panel_once():
    assert sorted(leaves(LAYOUT['layout'])) == sorted(LAYOUT['configById'])


def test_foxglove_topics_and_fields_are_those_of_the_node():
    node = (ROOT / 'mos_perception/ros/node.py').read_text()
    types = dict(re.findall(r"'(\w+)': (\w+)", re.search(r'OUTPUTS = \{(.*?)\}', node,
                                                        re.S).group(1)))
    words = re.findall(r'"(/[^"\\]*)', json.dumps(LAYOUT))
    assert '/diagnostics' in words
    paths = {word for word in words if word != '/diagnostics'}
    assert len(paths) >= 5
    for path in paths:
        topic, _, field = path.removeprefix('/mos_perception/').partition('.')
        kind = 'sensor_msgs' if types[topic] == 'Image' else 'mos_msgs'
        fields = {name for name, _ in typestore().fielddefs[f'{kind}/msg/{types[topic]}'][1]}
        assert not field or re.match(r'\w+', field).group() in fields


def test_rrd_without_rerun_says_what_to_install(tmp_path, scene, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'rerun', None)
    path = tmp_path / 'run.rrd'
    assert main(['replay', str(scene(tmp_path / 'bag')), '--rrd', str(path)]) == 2
    assert 'pip install rerun-sdk' in capsys.readouterr().err and not path.exists()


def test_rrd_holds_the_run(tmp_path, scene, bright_model, monkeypatch):
    pytest.importorskip('rerun', reason='rerun-sdk is an optional extra')
    monkeypatch.setattr('mos_perception.pipeline.load_model', lambda config: bright_model)
    path = tmp_path / 'run.rrd'
    assert main(['replay', str(scene(tmp_path / 'bag')), '--rrd', str(path)]) == 0
    assert [file.name for file in tmp_path.iterdir() if 'rrd' in file.name] == ['run.rrd']
    data = path.read_bytes()
    assert data[:4] in (b'RRF2', b'RRIO') and len(data) > 5000
    for name in (b'camera/frame', b'camera/events', b'camera/masks', b'camera/tracks',
                 b'timings/engine', b'stamp'):
        assert name in data, name


def test_rrd_of_a_run_that_fails_is_not_there(tmp_path):
    pytest.importorskip('rerun', reason='rerun-sdk is an optional extra')
    from mos_perception.reports.rerun_file import RerunFile
    with pytest.raises(RuntimeError), RerunFile(tmp_path / 'run.rrd'):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
