"""The `mos` command: what it writes, its exit codes, one line per error and never a traceback."""

import json
import subprocess
import sys

import pytest

from mos_perception.cli import main
from mos_perception.commands import run
from mos_perception.commands.doctor import PACKAGES
from mos_perception.errors import ConfigError, EngineError, mos_command
from mos_perception.recording.bag import BagWriter, open_bag


@pytest.fixture
def bright(monkeypatch, bright_model):
    """The commands with the model of conftest.py in place of a network."""
    from mos_perception import replay
    from mos_perception.pipeline import Pipeline
    monkeypatch.setattr(replay, 'Pipeline', lambda config: Pipeline(config, bright_model))


def test_replay_writes_results_pictures_and_bag(tmp_path, scene, bright, capsys):
    path, out = scene(tmp_path / 'bag'), tmp_path / 'out'
    assert main(['replay', str(path), '--out', str(out), '--out-bag', str(tmp_path / 'answers'),
                 '--json', str(tmp_path / 'summary.json')]) == 0
    lines = [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]
    assert len(lines) == 14 and all(
        len(line['digest']) == len(line['window']['digest']) == 64 for line in lines
    )
    assert lines[7]['instances'][0] == {
        'track_id': 1,
        'score': 0.75,
        'motion_score': 0.75,
        'moving': True,
        'box': [14, 16, 30, 32],
        'pixels': 256,
    }
    assert (out / 'overlay.mp4').stat().st_size > 1000 and (out / 'contact_sheet.png').exists()
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['run']['counts']['results'] == summary['run']['counts']['frames in'] == 14
    assert summary['run']['moving_s'] and summary['partial'] == '' and len(summary['digest']) == 64
    assert set(summary['run']['stage_ms']) >= {'voxel', 'pre', 'engine', 'post', 'track'}
    with open_bag(tmp_path / 'answers') as bag:
        assert bag.topics[0].count == 14
    printed = capsys.readouterr()
    assert 'something moves at 0.20' in printed.out and 'Traceback' not in printed.err
    assert '28 of 28 messages' in printed.err
    assert main(['replay', str(path), '--json', str(tmp_path / 'again.json')]) == 0
    assert json.loads((tmp_path / 'again.json').read_text())['digest'] == summary['digest']


def test_evaluate_by_replay_and_by_recorded_results(tmp_path, scene, bright, capsys):
    path = scene(tmp_path / 'bag')
    assert main(['evaluate', str(path), '--json', str(tmp_path / 'a.json')]) == 0
    assert main(['replay', str(path), '--out-bag', str(tmp_path / 'answers')]) == 0
    inputs = scene(tmp_path / 'inputs', truth=False)
    assert (
        main(
            [
                'evaluate',
                str(inputs),
                '--ground-truth',
                str(path),
                '--results',
                str(tmp_path / 'answers'),
                '--json',
                str(tmp_path / 'b.json'),
            ]
        )
        == 0
    )
    assert (
        main(
            [
                'evaluate',
                str(inputs),
                '--ground-truth',
                str(path),
                '--json',
                str(tmp_path / 'c.json'),
            ]
        )
        == 0
    )
    scores = [json.loads((tmp_path / f'{name}.json').read_text())['score'] for name in 'abc']
    assert scores[0] == scores[1] == scores[2]
    assert scores[0]['released']['mIoU_ins_valid'] == 1.0 and scores[0]['frames'] == 14
    printed = capsys.readouterr().out
    assert all(
        word in printed
        for word in ('mIoU_ins', 'mIoU01', 'mAP', 'id_switches', 'p99 ms', 'frames in')
    )


def test_evaluate_without_ground_truth(tmp_path, scene, bright, capsys):
    assert main(['evaluate', str(scene(tmp_path / 'bag', truth=False))]) == 1
    error = capsys.readouterr().err
    assert error.startswith('mos: ') and 'no ground truth' in error and '--ground-truth' in error
    assert error.count('\n') == 1


def test_show(tmp_path, scene, bright, capsys):
    path = scene(tmp_path / 'bag')
    assert main(['replay', str(path), '--out-bag', str(tmp_path / 'answers')]) == 0
    out = tmp_path / 'out'
    assert (
        main(
            ['show', '--bag', str(path), '--results', str(tmp_path / 'answers'), '--out', str(out)]
        )
        == 0
    )
    assert sorted(file.name for file in out.iterdir()) == [
        'contact_sheet.png',
        'overlay.mp4',
        'summary.json',
    ]
    assert 'mIoU_ins' in capsys.readouterr().out


@pytest.mark.fault(31, 'a bag cut short is replayed',
                   'the results say PARTIAL and where it ends')
def test_truncated_bag_is_marked_partial(tmp_path, scene, bright, capsys):
    path = scene(tmp_path / 'bag', count=200)
    with (path / 'bag.mcap').open('r+b') as handle:
        handle.truncate((path / 'bag.mcap').stat().st_size * 7 // 10)
    assert main(['replay', str(path), '--json', str(tmp_path / 'x.json')]) == 0
    assert 'PARTIAL: ' in capsys.readouterr().out
    assert 'at byte' in json.loads((tmp_path / 'x.json').read_text())['partial']


@pytest.mark.parametrize('options, words', [
    (['--set', 'deadline=1'], ["unknown parameter 'deadline'", "'deadline_s'"]),
    (['--set', 'deadline_s=soon'], ['deadline_s', 'soon', 'float']),
    (['--set', 'deadline_s=99'], ['deadline_s', '99', '[0.0, 10.0]']),
    (['--set', 'publish_masks=maybe'], ['publish_masks', 'maybe', 'bool']),
    (['--set', 'threads=1.5'], ['threads', '1.5', 'int']),
    (['--set', 'backend=abacus'], ['backend', 'abacus', 'onnxruntime']),
    (['--set', 'threads'], ['threads', 'name=value'])])
def test_wrong_settings_are_code_2(tmp_path, scene, capsys, options, words):
    assert main(['replay', str(scene(tmp_path / 'bag')), *options]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith('mos: ')
        and error.count('\n') == 1
        and all(word in error for word in words)
    )


def test_settings_become_a_config(tmp_path):
    import argparse

    args = argparse.Namespace(
        model='m.onnx', set=['threads=2', 'deadline_s=1', 'publish_masks=False', 'image_topic=a=b']
    )
    config = run.config_from(args)
    assert (
        config.model,
        config.threads,
        config.deadline_s,
        config.publish_masks,
        config.image_topic,
    ) == ('m.onnx', 2, 1.0, False, 'a=b')
    with pytest.raises(ConfigError):
        run.config_from(argparse.Namespace(model=None, set=['nothing=1']))


@pytest.mark.parametrize('arguments, words', [
    (['replay', 'nowhere'], ['nowhere', 'no such bag']),
    (['evaluate', 'nowhere'], ['nowhere', 'no such bag']),
    (['topics', 'nowhere'], ['nowhere', 'no such bag']),
    (['convert', 'nowhere', 'out'], ['nowhere', 'no images']),
    (['demo', 'nowhere'], ['nowhere', 'no such bag'])])
def test_missing_inputs_are_code_1(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith('mos: ')
        and error.count('\n') == 1
        and all(word in error for word in words)
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_topic_lists_those_there(tmp_path, scene, bright, capsys):
    assert main(['replay', str(scene(tmp_path / 'bag')), '--image-topic', '/nothing']) == 1
    assert '/camera/image_raw (sensor_msgs/msg/Image, 14)' in capsys.readouterr().err


def test_missing_model_is_code_1(tmp_path, scene, capsys):
    assert (
        main(['replay', str(scene(tmp_path / 'bag')), '--model', str(tmp_path / 'none.onnx')]) == 1
    )
    assert 'none.onnx' in capsys.readouterr().err


def test_topics_and_convert(tmp_path, capsys, data_dir):
    frames = data_dir / 'video' / 'davis16_train' / 'rhino' / 'frames'
    (tmp_path / 'some').mkdir()
    for file in sorted(frames.iterdir())[:2]:
        (tmp_path / 'some' / file.name).symlink_to(file)
    assert main(['convert', str(tmp_path / 'some'), str(tmp_path / 'bag'), '--fps', '24']) == 0
    assert main(['topics', str(tmp_path / 'bag')]) == 0
    assert '/camera/image_raw  sensor_msgs/msg/Image  2  image' in capsys.readouterr().out
    assert main(['convert', str(tmp_path / 'some'), str(tmp_path / 'bag')]) == 1
    assert 'exists' in capsys.readouterr().err


def test_empty_bag_gives_no_pictures_and_no_crash(tmp_path, bright, capsys):
    with BagWriter(tmp_path / 'bag'):
        pass
    assert main(['replay', str(tmp_path / 'bag'), '--out', str(tmp_path / 'out')]) == 1
    assert 'its topics: none' in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = ('import sys; from mos_perception.cli import _parser; _parser().format_help(); '
            'print([name for name in ("numpy", "cv2", "rosbags", "numba") if name in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_wrong_option_is_code_2():
    with pytest.raises(SystemExit) as caught:
        main(['replay', 'bag', '--modle', 'x'])
    assert caught.value.code == 2


def test_doctor_says_what_is_here_and_what_runs(tmp_path, capsys):
    assert main(['doctor', '--json', str(tmp_path / 'doctor.json')]) == 0
    found = {item['what']: item for item in json.loads((tmp_path / 'doctor.json').read_text())}
    assert found['engine']['state'] == 'ok' and 'onnxruntime' in found['engine']['text']
    assert sys.executable in found['interpreter']['text']
    assert all(found[f'package {name}']['state'] == 'ok' for name in PACKAGES)
    assert found['gpu']['state'] in ('ok', 'absent') and 'NumPy' in found['NumPy ABI']['text']
    printed = capsys.readouterr().out
    assert all(f'{item["what"]}: ' in printed for item in found.values())


def test_doctor_says_what_shared_memory_is_held(tmp_path, monkeypatch, capsys):
    from mos_perception.commands import doctor
    (tmp_path / 'fastrtps_0123').write_bytes(bytes(3 << 20))
    (tmp_path / 'another').write_bytes(bytes(1 << 20))
    monkeypatch.setattr(doctor, 'SHARED_MEMORY', tmp_path)
    main(['doctor'])
    assert ' 3 MiB held by Fast DDS' in capsys.readouterr().out


def test_doctor_names_a_package_that_cannot_be_imported(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    assert main(['doctor']) == 1
    said = capsys.readouterr()
    assert said.err == 'mos: broken: package pycocotools: see above\n'
    line = next(line for line in said.out.splitlines() if 'package pycocotools' in line)
    assert line.startswith('broken') and '-r requirements/run.txt' in line and 'make ros' in line


def test_remedies_name_the_command_that_works_here(monkeypatch):
    monkeypatch.setattr('mos_perception.errors.shutil.which', lambda name: None)
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert mos_command('doctor') == 'ros2 run mos_perception mos doctor'
    monkeypatch.delenv('ROS_DISTRO')
    assert mos_command('doctor') == 'mos doctor'


def test_doctor_and_build_without_a_gpu_fail_with_one_line(monkeypatch, capsys):
    from mos_perception.commands import doctor
    from mos_perception.engine import build, trt

    def absent():
        raise EngineError('no NVIDIA driver here: install one')
    for module in (build, doctor, trt):
        monkeypatch.setattr(module, 'find_gpu', absent)
    assert main(['doctor', '--backend', 'tensorrt']) == 1
    assert capsys.readouterr().err.strip().splitlines() == ['mos: broken: engine: see above']
    assert main(['build']) == 1
    error = capsys.readouterr().err
    assert (
        'no NVIDIA driver here' in error
        and 'Traceback' not in error
        and len(error.strip().splitlines()) == 1
    )
