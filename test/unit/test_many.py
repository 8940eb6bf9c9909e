"""Many bags: the same table from one process, from four, from a Ray cluster; a bad bag is a row."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from bench.tiny_model import make_tiny_model
from mos_perception.cli import main
from mos_perception.commands.many import _with_progress
from mos_perception.commands.workers import DIED, in_processes

BAGS = 20
BAD = 7  # its position


@pytest.fixture
def bags(scene, tmp_path):
    """20 recordings of different parts of the scene, one of them damaged, and a model's path."""
    pytest.importorskip('onnx', reason='onnx makes the test model')
    paths = [scene(tmp_path / f'bag{n:02d}', count=4, first=n % 9) for n in range(BAGS)]
    for file in paths[BAD].glob('*.mcap'):
        file.write_bytes(b'not a recording' * 9)
    return [str(path) for path in paths], str(make_tiny_model(tmp_path / 'tiny.onnx'))


def evaluate(bags, model, out, *more):
    return main(['evaluate', *bags, '--model', model, '--out', str(out),
                 '--set', 'registration=scale', *more])


def table(out):
    return (out / 'table.csv').read_text(), (out / 'table.json').read_text()


def test_one_process_and_four_give_the_same_table(bags, tmp_path, capsys):
    paths, model = bags
    assert evaluate(paths, model, tmp_path / 'one', '--jobs', '1') == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'mos: 1 of 20 bags failed, the first: {paths[BAD]}: ')
    assert evaluate(paths, model, tmp_path / 'four', '--jobs', '4') == 1
    assert table(tmp_path / 'one') == table(tmp_path / 'four')
    rows = list(csv.DictReader(table(tmp_path / 'one')[0].splitlines()))
    assert [row['bag'] for row in rows] == paths
    assert [n for n, row in enumerate(rows) if row['state'] == 'failed'] == [BAD]
    assert rows[BAD]['error'] and not rows[BAD]['mIoU_ins']
    assert len({row['mIoU_ins'] for row in rows}) > 3 and rows[0]['model'] == 'tiny'
    whole = json.loads(table(tmp_path / 'one')[1])
    scores = [row['strict mIoU'] for row in whole['rows'] if row['state'] == 'done']
    assert whole['mean']['strict mIoU'] == pytest.approx(sum(scores) / 19)


def test_a_row_is_what_the_single_command_says(bags, tmp_path):
    (first, second, *_), model = bags
    assert evaluate([first, second], model, tmp_path / 'out', '--jobs', '1') == 0
    single = tmp_path / 'single.json'
    assert main(['evaluate', second, '--model', model, '--set', 'registration=scale',
                 '--json', str(single)]) == 0
    score = json.loads(single.read_text())['score']
    row = json.loads(table(tmp_path / 'out')[1])['rows'][1]
    assert all(row[name] == value for name, value in score['released'].items())
    assert all(row[f'strict {name}'] == value for name, value in score['strict'].items())


def test_a_ray_cluster_gives_the_same_table(bags, tmp_path):
    pytest.importorskip('ray', reason='pip install ray: it is an extra')
    from ray.cluster_utils import Cluster
    paths, model = bags
    assert evaluate(paths, model, tmp_path / 'one', '--jobs', '1') == 1
    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        assert evaluate(paths, model, tmp_path / 'ray', '--ray', cluster.address) == 1
    finally:
        cluster.shutdown()
    assert table(tmp_path / 'one') == table(tmp_path / 'ray')


def test_stopped_and_started_again(bags, tmp_path):
    paths, model = bags[0][:8], bags[1]
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'mos_perception.cli', 'evaluate', *paths, '--model', model,
               '--out', str(out), '--set', 'registration=scale', '--jobs', '2']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    line = process.stderr.readline()
    assert line.startswith('1 of 8: '), line
    os.killpg(process.pid, signal.SIGINT)
    told = process.stderr.read()
    assert process.wait(60) == 130 and 'Traceback' not in told, told
    done = len(list((out / 'rows').glob('*.json')))
    assert 1 <= done < 8 and not (out / 'table.csv').exists()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    before = int(process.stderr.split(' of 8 were done before')[0])
    assert done - 1 <= before <= done  # the damaged one is tried again
    assert evaluate(paths, model, tmp_path / 'one', '--jobs', '1') == 1
    assert table(out) == table(tmp_path / 'one')


def test_rows_are_made_anew_where_something_changed(bags, scene, tmp_path, capsys):
    (first, second, *_), model = bags
    out = tmp_path / 'out'

    def before():
        error = capsys.readouterr().err
        return int(error.split(' of 2 were')[0]) if 'were done before' in error else 0
    assert evaluate([first, second], model, out, '--jobs', '1') == 0 and before() == 0
    assert evaluate([first, second], model, out, '--jobs', '1') == 0 and before() == 2
    assert evaluate([first, second], model, out, '--jobs', '1', '--set', 'top_k=1') == 0
    assert before() == 0
    other = make_tiny_model(tmp_path / 'tiny.onnx', length_ms=20.0)
    assert evaluate([first, second], str(other), out, '--jobs', '1') == 0 and before() == 0
    for file in (tmp_path / 'bag00').iterdir():
        file.unlink()
    (tmp_path / 'bag00').rmdir()
    scene(tmp_path / 'bag00', count=5)
    assert evaluate([first, second], model, out, '--jobs', '1') == 0 and before() == 1


def test_replay_of_several(bags, tmp_path):
    (first, second, *_), model = bags
    out = tmp_path / 'out'
    assert main(['replay', first, second, '--model', model, '--out', str(out), '--jobs', '2',
                 '--json', str(tmp_path / 'table.json'), '--set', 'registration=scale']) == 0
    rows = json.loads((tmp_path / 'table.json').read_text())['rows']
    assert [len(row['digest']) for row in rows] == [64, 64]
    folders = sorted((out / 'bags').iterdir())
    assert [folder.name.split('-')[0] for folder in folders] == ['bag00', 'bag01']
    assert all((folder / 'results.jsonl').exists() for folder in folders)
    single = tmp_path / 'single.json'
    assert main(['replay', first, '--model', model, '--json', str(single),
                 '--set', 'registration=scale']) == 0
    assert json.loads(single.read_text())['digest'] == rows[0]['digest']


def test_a_bar_on_a_terminal_goes_on_where_it_was():
    text = io.StringIO()
    rows = [('third', 3), ('fourth', 4)]
    bar = _with_progress(rows, 4, 2, Console(file=text, force_terminal=True, width=80))
    assert next(bar) == rows[0] and list(bar) == rows[1:]
    assert 'bags' in text.getvalue() and '100%' in text.getvalue()


def test_a_process_that_dies_costs_its_task():
    tasks = ['1 + 1', '__import__("os")._exit(3)', '2 + 2', '3 + 3']
    found = dict(in_processes(eval, tasks, 2))
    assert found == {tasks[0]: 2, tasks[1]: DIED, tasks[2]: 4, tasks[3]: 6}


@pytest.mark.parametrize('more, says', [
    (['--results', 'x'], '--results with several bags'), (['--set', 'top=1'], 'top'),
    (['--model', 'no_such_model'], 'no model'), (['--ray', 'auto'], 'pip install ray')])
def test_refused_before_anything_is_written(bags, tmp_path, monkeypatch, capsys, more, says):
    paths, _ = bags
    monkeypatch.setitem(sys.modules, 'ray', None)
    out = tmp_path / 'out'
    assert main(['evaluate', *paths[:2], '--out', str(out), *more]) in (1, 2)
    assert says in capsys.readouterr().err and not out.exists()
    assert main(['evaluate', paths[0], paths[0], '--out', str(out)]) == 2
    assert 'is named twice' in capsys.readouterr().err


def test_no_cluster_there(bags, tmp_path, capsys):
    pytest.importorskip('ray', reason='pip install ray: it is an extra')
    paths, model = bags
    assert evaluate(paths[:2], model, tmp_path / 'out', '--ray', '127.0.0.1:1') == 2
    assert 'no Ray cluster there' in capsys.readouterr().err
