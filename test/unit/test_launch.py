"""The launch files do what they say: evaluated by a stand-in of `launch`, which only a ROS
distribution has.
"""

import subprocess
import sys
from pathlib import Path

import launch_stand_in
import numpy as np
import pytest
import yaml
from launch_stand_in import Launch, shown_arguments

from mos_perception.config import FIELDS
from mos_perception.datatypes import Frame
from mos_perception.recording.bag import BagWriter
from mos_perception.recording.messages import EVENT_ARRAY

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name.split('.')[0]: path for path in sorted((ROOT / 'launch').glob('*.launch.py'))}
NODE_ARGUMENTS = {'namespace', 'model', 'backend', 'image_topic', 'image_type', 'events_topic',
                  'events_type', 'imu_topic', 'camera_info_topic', 'image_camera_info_topic',
                  'registration', 'homography_file', 'params_file', 'use_sim_time',
                  'autostart', 'respawn', 'rviz', 'log_level'}


@pytest.fixture(autouse=True)
def launch(monkeypatch, tmp_path):
    """The stand-in, over a prefix as colcon installs it; gives the share folder."""
    share, executable = tmp_path / 'share/mos_perception', tmp_path / 'lib/mos_perception/mos'
    share.mkdir(parents=True)
    executable.parent.mkdir(parents=True)
    executable.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m '
                          'mos_perception.cli "$@"\n')
    executable.chmod(0o755)
    for name, source in {'launch': 'launch', 'config': 'config', 'demo': 'test/bags/demo'}.items():
        (share / name).symlink_to(ROOT / source)
    launch_stand_in.install(monkeypatch, tmp_path)
    return share


def node_parameters(run: Launch) -> dict:
    """What the node gets: its parameter file, then the launch arguments."""
    file, given = run.nodes['dimos_node'].parameters
    return {**yaml.safe_load(Path(file).read_text())['/**']['ros__parameters'], **given}


@pytest.mark.parametrize('name', FILES)
def test_show_args_lists_all(name):
    own = {'replay': {'bag', 'rate', 'out'}, 'demo': {'bag', 'rate', 'out'}}.get(name, set())
    assert set(shown_arguments(FILES[name])) >= NODE_ARGUMENTS | own


@pytest.mark.parametrize('name', ['dimos', 'gmos', 'mosis'])
def test_defaults_are_those_of_the_parameter_file(name, launch):
    run = Launch(FILES[name])
    file, given = run.nodes['dimos_node'].parameters
    assert Path(file) == launch / 'config' / f'{name}.yaml'
    assert given == {'use_sim_time': False, 'autostart': True}
    assert 'rviz2' not in run.nodes and not run.nodes['dimos_node'].respawn


def test_arguments_reach_the_node():
    run = Launch(FILES['dimos'], namespace='left', model='dimos_fine', backend='onnxruntime',
                 image_topic='/camera/image_raw', events_topic='/events', events_type='event_array',
                 use_sim_time='true', autostart='False', log_level='debug', rviz='true')
    node, parameters = run.nodes['dimos_node'], node_parameters(run)
    assert node.namespace == run.nodes['rviz2'].namespace == 'left'
    assert node.arguments == ['--ros-args', '--log-level', 'debug']
    assert parameters['model'] == 'dimos_fine' and parameters['backend'] == 'onnxruntime'
    assert parameters['image_topic'] == '/camera/image_raw'
    assert parameters['events_topic'] == '/events' and parameters['events_type'] == 'event_array'
    assert parameters['use_sim_time'] is True and parameters['autostart'] is False
    assert set(parameters) - {'use_sim_time'} == set(FIELDS)


def test_the_node_gets_the_shared_memory_profile(launch, monkeypatch):
    monkeypatch.setattr('mos_perception.ros.transport.shutil.disk_usage',
                        lambda path: type('usage', (), {'free': 1 << 30}))
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' in Launch(FILES['dimos']).nodes['dimos_node'].environment


@pytest.mark.parametrize('flag', ['use_sim_time', 'autostart', 'respawn'])
def test_a_flag_that_is_none(flag):
    with pytest.raises(ValueError, match=f"{flag} is 'yes': must be true or false"):
        Launch(FILES['dimos'], **{flag: 'yes'})


@pytest.mark.parametrize('name', ['dimos', 'gmos', 'mosis'])
@pytest.mark.parametrize('role', ['image_topic', 'events_topic'])
def test_none_leaves_an_input_out(name, role):
    assert node_parameters(Launch(FILES[name], **{role: 'none'}))[role] == ''


def test_none_leaves_an_input_out_of_the_replay():
    for role, other in (('image_topic', 'events_topic'), ('events_topic', 'image_topic')):
        run = Launch(FILES['demo'], **{role: 'none'})
        parameters = node_parameters(run)
        assert parameters[role] == '' and parameters[other]
        words = run.nodes['bag_player'].arguments
        assert words[words.index('--topics') + 1:] == [parameters[other]]


def test_replay_finds_topics_by_type(launch):
    run = Launch(FILES['demo'], rate='2.0', use_sim_time='true', out='/tmp/x', namespace='/left/')
    parameters, player = node_parameters(run), run.nodes['bag_player'].arguments
    assert parameters['events_type'] == 'event_packet' and parameters['use_sim_time'] is True
    assert player[:3] == [str(launch / 'demo'), '--rate', '2.0'] and player[-1] == '--clock'
    assert set(player[4:-1]) == {parameters['image_topic'], parameters['events_topic']} - {''}
    recorder = run.nodes['bag_recorder'].arguments
    assert recorder[:2] == ['--out', '/tmp/x'] and '/left/mos_perception/instances' in recorder


def test_replay_of_frames_alone(tmp_path):
    with BagWriter(tmp_path / 'frames') as writer:
        writer.write_frame('/cam', Frame(1_000_000_000, np.zeros((4, 6, 3), np.uint8)))
    parameters = node_parameters(Launch(FILES['replay'], bag=str(tmp_path / 'frames')))
    assert parameters['image_topic'] == '/cam' and parameters['events_topic'] == ''


def test_replay_finds_the_type_of_the_events(tmp_path):
    with BagWriter(tmp_path / 'events') as writer:
        writer.write_raw('/dvs', EVENT_ARRAY, 1_000_000_000, b'\0\1\0\0' + bytes(24))
    parameters = node_parameters(Launch(FILES['replay'], bag=str(tmp_path / 'events')))
    assert parameters['events_topic'] == '/dvs' and parameters['events_type'] == 'event_array'
    assert parameters['image_topic'] == ''


def test_replay_of_a_bag_that_is_not_there():
    with pytest.raises(RuntimeError, match='mos: nowhere: no such bag'):
        Launch(FILES['replay'], bag='nowhere')


def test_launch_files_need_no_package_of_ours():
    """`ros2 launch` runs them in its own interpreter, which need not see our environment."""
    modules = 'mos_perception.config, mos_perception.ros.transport'
    subprocess.run([sys.executable, '-S', '-c', f'import {modules}'], cwd=ROOT, check=True)
    for path in FILES.values():
        ours = [line for line in path.read_text().splitlines() if 'mos_perception.' in line
                and line.startswith(('from', 'import'))]
        assert all(any(name in line for name in modules.split(', ')) for line in ours)


def test_replay_needs_a_bag():
    with pytest.raises(RuntimeError, match="'bag' was not provided"):
        Launch(FILES['replay'])


@pytest.mark.parametrize('name', ['dimos', 'gmos', 'mosis', 'demo'])
def test_a_node_that_cannot_work_ends_the_launch(name):
    run = Launch(FILES[name])
    assert run.exit('dimos_node', 1) == 'shutdown'
    assert run.reason == 'dimos_node-1 ended with exit code 1, its last line says why'


def test_an_orderly_end_ends_nothing_else():
    assert Launch(FILES['dimos']).exit('dimos_node', 0) == 'nothing'


def test_the_end_of_the_bag_ends_the_launch():
    run = Launch(FILES['demo'])
    assert run.exit('bag_player', 0) == 'shutdown' and run.reason == 'the bag has ended'


@pytest.mark.parametrize('name', ['dimos', 'gmos', 'mosis', 'demo'])
def test_respawn_starts_the_node_again(name):
    run = Launch(FILES[name], respawn='true')
    assert run.nodes['dimos_node'].respawn_delay == 2.0
    assert run.exit('dimos_node', 1) == 'respawn'
