"""Parameters of the node: declared from config.py, checked as a whole, changed live."""


import pytest
import yaml
from rclpy.parameter import Parameter
from ros_rig import LAST_S

from mos_perception.commands.generate import ROOT
from mos_perception.config import FIELDS, Config
from mos_perception.errors import ConfigError
from mos_perception.ros.node import MosNode


def test_every_field_is_a_parameter(rig):
    node = rig(activate=False).node
    for name, spec in FIELDS.items():
        found = node.describe_parameter(name)
        assert node.get_parameter(name).value == getattr(node.config, name)
        assert (
            found.read_only != spec.metadata['live'] and spec.metadata['text'] in found.description
        )
        if spec.metadata['unit']:
            assert f'[{spec.metadata["unit"]}]' in found.description


def test_parameter_file_gives_the_defaults():
    values = yaml.safe_load((ROOT / 'config' / 'dimos.yaml').read_text())['/**']['ros__parameters']
    assert Config(**values) == Config()


def test_whole_number_for_a_decimal(ros):
    node = MosNode(
        parameter_overrides=[Parameter('deadline_s', value=1), Parameter('autostart', value=False)]
    )
    assert node.config.deadline_s == 1.0 and isinstance(
        node.get_parameter('deadline_s').value, float
    )
    node.destroy_node()


@pytest.mark.fault(25, 'a parameter out of range or of another type at the start',
                   'refused; says value and limits')
@pytest.mark.parametrize('name, value, says', [
    ('score_threshold', 1.5, r'score_threshold is 1.5: must be within \[-1.0, 1.0\]'),
    ('score_threshold', 'high', 'must be float'),
    ('backend', 'cuda', 'must be one of auto, onnxruntime, onnxruntime_cuda, openvino, tensorrt, '
     'tensorrt_rtx'),
])
def test_bad_value_at_start(ros, name, value, says):
    with pytest.raises(ConfigError, match=says):
        MosNode(parameter_overrides=[Parameter(name, value=value)])


@pytest.mark.fault(25, 'a set of parameters with one out of range or read-only',
                   'refused as a whole with the reason; nothing changes')
def test_set_is_atomic(rig):
    node = rig().node
    good, bad = Parameter('track_lost_s', value=2.0), Parameter('score_threshold', value=7.0)
    result = node.set_parameters_atomically([good, bad])
    assert not result.successful and 'score_threshold' in result.reason
    assert node.config.track_lost_s == 1.0 and node.get_parameter('track_lost_s').value == 1.0
    assert not node.set_parameters_atomically([good, Parameter('model', value='other')]).successful
    assert node.config.track_lost_s == 1.0
    assert node.set_parameters_atomically([good]).successful
    assert node.config.track_lost_s == 2.0 and node.pipeline.config.track_lost_s == 2.0


def test_live_threshold_changes_results(rig):
    bench = rig()
    bench.send(0)
    assert bench.wait_results(1) and len(bench.got['instances'][0].instances) >= 1
    assert bench.node.set_parameters([Parameter('score_threshold', value=1.0)])[0].successful
    bench.send(1)
    assert bench.wait_results(2) and not bench.got['instances'][1].instances


@pytest.mark.fault(32, 'a parameter nobody knows',
                   'said, with the nearest that there is')
def test_unknown_parameter_names_the_nearest(start, tiny_model):
    node = start('ros', '--ros-args', '-p', f'model:={tiny_model}', '-p', 'score_treshold:=0.5')
    line = next(line for line in node.stdout if 'score_treshold' in line)
    assert "did you mean 'score_threshold'" in line


def test_out_of_range_ends_with_one_line(start):
    node = start('ros', '--ros-args', '-p', 'score_threshold:=3.0')
    text, _ = node.communicate(timeout=LAST_S)
    assert node.returncode == 2 and text.strip().count('\n') == 0, text
    assert 'score_threshold is 3.0: must be within [-1.0, 1.0]' in text


def test_missing_model_ends_with_one_line(start):
    node = start('ros', '--ros-args', '-p', 'model:=no_such_model')
    text, _ = node.communicate(timeout=LAST_S)
    assert (
        node.returncode == 1 and "no model 'no_such_model'" in text and 'Traceback' not in text
    ), text


@pytest.mark.fault(32, 'a parameter file that is no YAML',
                   'exit code 2, one line that names the file')
def test_corrupt_parameter_file_ends_with_one_line(start, tmp_path):
    path = tmp_path / 'bad.yaml'
    path.write_text('/**:\n  ros__parameters: [unclosed\n')
    node = start('ros', '--ros-args', '--params-file', str(path))
    text, _ = node.communicate(timeout=LAST_S)
    assert node.returncode == 2 and 'bad.yaml' in text and 'Traceback' not in text, text
