"""Generated files are those that `python -m mos_perception.commands.generate` makes; launch files
and package agree.
"""

import ast
import re
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from mos_perception.commands.generate import FAULT_ROWS, ROOT, fault_tests, files
from mos_perception.config import FIELDS, Config, from_dict

ARGUMENTS = {
    'namespace',
    'model',
    'backend',
    'image_topic',
    'image_type',
    'events_topic',
    'events_type',
    'imu_topic',
    'camera_info_topic',
    'image_camera_info_topic',
    'registration',
    'homography_file',
    'params_file',
    'use_sim_time',
    'autostart',
    'respawn',
    'rviz',
    'log_level',
}


@pytest.mark.parametrize('path', files(), ids=str)
def test_generated_file_is_current(path):
    assert (ROOT / path).read_text() == files()[path], (
        'run: python -m mos_perception.commands.generate'
    )


def test_every_fault_has_its_test():
    assert {row for row, *_ in fault_tests()} == set(range(1, FAULT_ROWS + 1))
    for row, _, _, path, test in fault_tests():
        assert path.parts[1] != 'faults' or test.startswith(f'test_fault_{row:02}_')
    here = {item for path in (ROOT / 'test/faults').glob('test_*.py')
            for item in re.findall(r'^def (test_fault_\w+)', path.read_text(), re.M)}
    assert here <= {test for *_, test in fault_tests()}


def test_parameter_file_holds_every_default():
    values = yaml.safe_load((ROOT / 'config' / 'dimos.yaml').read_text())['/**']['ros__parameters']
    assert set(values) == set(FIELDS) and from_dict(values) == Config()
    values = yaml.safe_load((ROOT / 'config' / 'gmos.yaml').read_text())['/**']['ros__parameters']
    assert from_dict(values) == Config(model='gmos_nano', events_topic='')


@pytest.mark.parametrize('path', sorted((ROOT / 'launch').glob('*.py')), ids=lambda path: path.name)
def test_launch_file_compiles(path):
    tree = ast.parse(path.read_text())
    assert any(
        isinstance(item, ast.FunctionDef) and item.name == 'generate_launch_description'
        for item in tree.body
    )


def test_launch_arguments():
    tree = ast.parse((ROOT / 'launch' / 'dimos.launch.py').read_text())
    table = next(
        item.value
        for item in tree.body
        if isinstance(item, ast.Assign) and item.targets[0].id == 'ARGUMENTS'
    )
    assert {key.value for key in table.keys} == ARGUMENTS


def test_launch_files_in_a_distribution():
    pytest.importorskip('launch_ros', reason='launch files run where a ROS distribution is sourced')
    import runpy
    for path in sorted((ROOT / 'launch').glob('*.py')):
        assert runpy.run_path(str(path))['generate_launch_description']().entities


def test_xml_files_parse():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert package.get('format') == '3'
    depends = {item.text for item in package.findall('exec_depend')}
    assert {
        'mos_msgs',
        'rclpy',
        'event_camera_msgs',
        'message_filters',
        'cv_bridge',
        'rviz2',
        'python3-numpy',
    } <= depends
    # rosdep installs these with pip, which Ubuntu 24.04 refuses
    assert not any(name.endswith('-pip') for name in depends)
    makefile = (ROOT / 'Makefile').read_text()
    assert '-c requirements/distribution.txt' in makefile
    assert 'numpy>=1.26,<2' in (ROOT / 'requirements/distribution.txt').read_text()


def test_parameter_texts_name_the_real_queues():
    qos = (ROOT / 'mos_perception/ros/qos.py').read_text()
    depth = re.search(r'^FRAME_DEPTH = (\d+)', qos, re.M).group(1)
    assert f'(frames: {depth})' in FIELDS['input_depth'].metadata['text']


def test_transport_profiles():
    profile = ElementTree.parse(ROOT / 'config' / 'fastdds_udp.xml').getroot()
    assert [item.text for item in profile.findall('.//{*}type')] == ['UDPv4']
    assert profile.find('.//{*}useBuiltinTransports').text == 'false'
    profile = ElementTree.parse(ROOT / 'config' / 'fastdds_shm.xml').getroot()
    assert [item.text for item in profile.findall('.//{*}segment_size')] == [str(64 << 20)]


def test_measured_pages_are_those_of_the_measurements():
    from bench import document

    assert (ROOT / 'docs' / 'performance.md').read_text() == document.performance(), (
        'run python -m bench.document'
    )
    assert (ROOT / 'docs' / 'accuracy.md').read_text() == document.accuracy(), (
        'run python -m bench.document'
    )
