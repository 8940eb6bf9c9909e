"""False alarms in event recordings of static scenes: reading, windows, counts, the command."""

import json

import numpy as np
import pytest

from mos_perception.errors import DatasetError
from training import evaluate
from training.evaluate_static import PIECE_NS, read_recordings, sensor_size


def rows(count: int = 200, seconds: float = 0.07) -> np.ndarray:
    """(count, 4) t x y p in order."""
    rng = np.random.default_rng(0)
    t = np.linspace(5, 5 + seconds, count)
    return np.stack([t, rng.integers(0, 200, count), rng.integers(0, 150, count),
                     rng.integers(0, 2, count)], 1)


def write(folder, table=None):
    table = rows() if table is None else table
    (folder / 'text').mkdir(parents=True)
    np.savetxt(folder / 'text' / 'events.txt', table, ['%.9f', '%d', '%d', '%d'])
    np.savez(folder / 'columns.npz', **dict(zip('txyp', table.T)))
    np.savez(folder / 'table.npz', events=table.astype(np.float32))
    return folder


def test_all_three_layouts_are_read(tmp_path):
    found = read_recordings(write(tmp_path))
    assert [one.name for one in found] == ['columns', 'table', 'text']
    for one in found:
        assert one.size == (180, 240) and len(one.events) == 200
        np.testing.assert_array_equal(one.events.x, rows()[:, 1])
        np.testing.assert_allclose(np.diff(one.events.t), 70e6 / 199, atol=1000)


def test_pieces_hold_every_event_once(tmp_path):
    one = read_recordings(write(tmp_path))[2]
    whole, pieces = list(one.windows()), list(one.windows(PIECE_NS))
    assert [len(window.events) for window in whole] == [200]
    assert sum(len(window.events) for window in pieces) == 200 and len(pieces) == 3
    assert [window.t1_ns - window.t0_ns for window in pieces[:2]] == [PIECE_NS, PIECE_NS]


def test_the_sensor_is_a_usual_one_if_there_is():
    assert sensor_size((170, 240)) == (180, 240) and sensor_size((181, 240)) == (260, 346)
    assert sensor_size((1000, 2000)) == (1000, 2000)


@pytest.mark.parametrize('change, words', [
    (lambda table: table[:, :3], 'shape'), (lambda table: -table, 'values from'),
    (lambda table: table + [0, 0.5, 0, 0], 'values from'),
    (lambda table: table * [0, 1, 1, 1], 'values from'), (lambda table: table[:1], 'shape')])
def test_wrong_events_are_named(tmp_path, change, words):
    np.savez(tmp_path / 'wrong.npz', events=change(rows()))
    with pytest.raises(DatasetError, match=words):
        read_recordings(tmp_path)


def test_wrong_files_and_folders_are_named(tmp_path):
    with pytest.raises(DatasetError, match='no event recording'):
        read_recordings(tmp_path)
    with pytest.raises(DatasetError, match='no folder'):
        read_recordings(tmp_path / 'nowhere')
    np.savez(tmp_path / 'short.npz', t=np.zeros(2), x=np.zeros(2))
    with pytest.raises(DatasetError, match='lacks y, p'):
        read_recordings(tmp_path)
    (tmp_path / 'short.npz').write_bytes(b'no archive')
    with pytest.raises(DatasetError, match='short.npz'):
        read_recordings(tmp_path)


def test_the_command_refuses_a_wrong_folder(tmp_path, capsys):
    assert evaluate.main(['--events-static', str(tmp_path), '--json']) == 1
    assert 'no event recording' in capsys.readouterr().err


def test_a_model_without_events_is_refused(data_dir, capsys):
    folder = data_dir / 'events' / 'static_scene'
    assert evaluate.main(['--events-static', str(folder), '--model', 'gmos_nano']) == 1
    assert 'takes no events' in capsys.readouterr().err


def test_nothing_moves_in_the_real_recordings(data_dir, capsys):
    folder = data_dir / 'events' / 'static_scene'
    if not folder.is_dir():
        pytest.skip(f'no static recordings at {folder}')
    assert evaluate.main(['--events-static', str(folder), '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['instances_per_window'] == {'poster_translation': 0, 'shapes_rotation': 0}
    assert {name: (values['whole'], len(values['pieces']))
            for name, values in result['recordings'].items()} == {
        'poster_translation': (0, 3), 'shapes_rotation': (0, 3)}
