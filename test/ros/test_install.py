"""What colcon installs, run as `ros2 run` does: by file, in a sourced workspace, whatever is on
PATH.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXECUTABLES = {'mos', 'dimos_node', 'bag_player', 'bag_recorder'}


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """Our package, built by this interpreter's colcon as `make ros` does."""
    if importlib.util.find_spec('colcon_core') is None:
        pytest.skip('colcon builds the workspace: it is in requirements/ros.txt')
    folder = tmp_path_factory.mktemp('ws')
    run = subprocess.run(
        [sys.executable, '-m', 'colcon', 'build', '--base-paths', str(ROOT)],
        cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def sourced(workspace, command):
    """Run in a shell that knows the workspace and the system, not our environment."""
    environment = {key: value for key, value in os.environ.items()
                   if key in ('HOME', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH')
                   or key.startswith('_ROS_WHEELS')}
    # here the environment stands for the distribution, whose setup.bash would not have our `mos`
    theirs = 'PATH=$(tr : "\\n" <<< "$PATH" | grep -vxF "$OURS" | paste -sd:)'
    environment['OURS'] = str(Path(sys.executable).parent)
    return subprocess.run(
        ['bash', '-c', f'. install/setup.bash && {theirs} && {command}'], cwd=workspace,
        env={**environment, 'PATH': '/usr/bin:/bin'}, capture_output=True, text=True)


def test_colcon_test_runs_our_tests(workspace):
    run = subprocess.run(
        [sys.executable, '-m', 'colcon', 'test', '--base-paths', str(ROOT), '--pytest-args',
         str(ROOT / 'test/unit/test_masks.py')], cwd=workspace, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    results = ElementTree.parse(workspace / 'build/mos_perception/pytest.xml').getroot()
    suite = results.find('testsuite').attrib
    assert int(suite['tests']) > 0 and suite['errors'] == suite['failures'] == '0'


def test_executables_run_in_the_interpreter_that_built_them(workspace):
    folder = workspace / 'install/mos_perception/lib/mos_perception'
    assert {path.name for path in folder.iterdir()} == EXECUTABLES
    for path in folder.iterdir():
        assert path.read_text().splitlines()[0] == f'#!{sys.executable}'


def test_share_holds_what_the_launch_files_want(workspace):
    share = workspace / 'install/mos_perception/share/mos_perception'
    for name in ('launch/replay.launch.py', 'config/dimos.yaml', 'config/view.rviz',
                 'config/fastdds_shm.xml', 'config/fastdds_udp.xml', 'demo/metadata.yaml',
                 'models/dimos_nano.onnx'):
        assert (share / name).is_file()


def test_mos_runs_by_file_in_a_sourced_workspace(workspace):
    mos = 'install/mos_perception/lib/mos_perception/mos'
    assert sourced(workspace, 'which mos').returncode == 1
    run = sourced(workspace, f'{mos} topics {ROOT}/test/bags/demo --json topics.json')
    assert run.returncode == 0, run.stderr
    assert '"events_type": "event_packet"' in (workspace / 'topics.json').read_text()
    run = sourced(workspace, f'ROS_DISTRO=jazzy {mos} doctor --backend tensorrt')
    assert f'interpreter: {sys.executable}' in run.stdout
    assert 'ros2 run mos_perception mos build' in run.stdout or 'gpu: ' in run.stdout
