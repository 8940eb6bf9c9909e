"""The README's commands exist: make targets, `mos` subcommands and options, modules, files it links
to.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import launch_stand_in
import pytest
import yaml

from mos_perception.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```bash\n(.*?)```', README, re.S)
COMMANDS = [
    line.split('#')[0].strip()
    for block in BLOCKS
    for line in block.replace('\\\n', ' ').splitlines()
    if line.split('#')[0].strip()
]
TARGETS = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M))


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('make')])
def test_make_targets_exist(command):
    assert shlex.split(command)[1] in TARGETS


@pytest.mark.parametrize('command', [c for c in COMMANDS if '/mos ' in c])
def test_mos_commands_parse(command):
    _parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize('command', [c for c in COMMANDS if 'python -m ' in c])
def test_modules_exist(command):
    words = shlex.split(command)
    assert importlib.util.find_spec(words[words.index('-m') + 1])


@pytest.mark.parametrize('path', sorted(set(re.findall(r'\]\(([\w./-]+)\)', README))))
def test_linked_files_exist(path):
    assert (ROOT / path).exists()


def test_both_promised_commands_are_there():
    assert {'make demo', 'make test'} <= {c for c in COMMANDS} | set(
        re.findall(r'`(make \w+)`', README)
    )


SETUP = (ROOT / 'setup.py').read_text()
ROS2 = [shlex.split(c) for c in COMMANDS if c.startswith('ros2 ')]
DOCKERFILES = sorted((ROOT / 'docker').glob('*.Dockerfile'))


@pytest.mark.parametrize('words', [w for w in ROS2 if w[1] == 'run'], ids=' '.join)
def test_ros2_run_finds_its_executable(words):
    assert words[2] == 'mos_perception' and f"'{words[3]} = mos_perception." in SETUP
    if words[3] == 'mos':
        _parser().parse_args(words[4:])


@pytest.mark.parametrize('words', [w for w in ROS2 if w[1] == 'launch'], ids=' '.join)
def test_ros2_launch_finds_file_and_arguments(words, monkeypatch, tmp_path):
    (tmp_path / 'share').mkdir()
    (tmp_path / 'share/mos_perception').symlink_to(ROOT)
    launch_stand_in.install(monkeypatch, tmp_path)
    known = launch_stand_in.shown_arguments(ROOT / 'launch' / words[3])
    assert words[2] == 'mos_perception'
    assert {word.partition(':=')[0] for word in words[4:]} <= known.keys()


def test_launch_arguments_are_those_of_the_files(monkeypatch, tmp_path):
    (tmp_path / 'share').mkdir()
    (tmp_path / 'share/mos_perception').symlink_to(ROOT)
    launch_stand_in.install(monkeypatch, tmp_path)
    said = re.search(r'Launch arguments: `([^`]+)`', README).group(1)
    assert {name.strip() for name in said.split(',')} == launch_stand_in.shown_arguments(
        ROOT / 'launch/dimos.launch.py').keys()


def test_topics_and_services_are_those_of_the_node():
    node = (ROOT / 'mos_perception/ros/node.py').read_text()
    table = README[README.index('### Topics'):]
    out = set(re.findall(r'^\| `~/(\w+)` out', table, re.M))
    outputs = re.search(r'OUTPUTS = \{(.*?)\}', node, re.S).group(1)
    optional = (ROOT / 'mos_perception/ros/detections.py').read_text()
    assert out == set(re.findall(r"'(\w+)': ", outputs)) | set(
        re.findall(r"'(\w+)': vision\.", optional)) | set(
        re.findall(r"create_publisher\([\w.]+, '~/(\w+)'", optional))
    assert set(re.findall(r'^\| `~/(\w+)` service', table, re.M)) == set(
        re.findall(r"create_service\(\w+, '~/(\w+)'", node))


def test_rosdep_and_colcon_are_told_both_packages():
    paths = next(c for c in COMMANDS if c.startswith('rosdep')).split('--from-paths')[1]
    folders = [word for word in paths.split() if not word.startswith('-')]
    assert [(ROOT / folder / 'package.xml').is_file() for folder in folders] == [True, True]
    assert '--base-paths $(CURDIR) $(CURDIR)/mos_msgs' in (ROOT / 'Makefile').read_text()


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.stem)
def test_docker_files_name_what_exists(path):
    text = path.read_text().replace('\\\n', ' ')
    depends = set(re.findall(r'_depend>([\w-]+)<', (ROOT / 'package.xml').read_text()))
    distro = re.search(r'ARG BASE=ros:(\w+)-ros-base', text).group(1)
    assert set(re.findall(r'/opt/ros/(\w+)/', text)) == {distro}
    installed = set()
    for found, package in re.findall(r'ros-(\w+)-([\w-]+)', text.split('FROM')[1]):
        assert found == distro and package.replace('-', '_') in depends
        installed.add(package.replace('-', '_'))
    assert installed >= {'event_camera_msgs', 'event_camera_py', 'cv_bridge', 'message_filters',
                         'vision_msgs'}  # what the base image lacks; it has tf2_msgs
    for source in re.findall(r'^COPY (\S+) ', text, re.M):
        assert (ROOT / source).exists()
    assert set(re.findall(r'\bmake (ros[\w-]*)', text)) == {'ros-env', 'ros'} <= TARGETS
    file = re.search(r'^CMD \["ros2", "launch", "mos_perception", "([\w.]+)"\]', text, re.M)
    assert (ROOT / 'launch' / file.group(1)).is_file()
    for command in re.findall(r'^#\s+(docker run .*)', text, re.M):
        assert '--network host --ipc host' in command
    assert 'python3-venv' in text and 'break-system-packages' not in text


def test_the_public_workflow_runs_what_exists():
    path = ROOT / '.github/workflows/ci.yml'
    jobs = yaml.safe_load(path.read_text())['jobs']
    assert jobs['plain']['strategy']['matrix']['os'] == ['ubuntu-22.04', 'ubuntu-24.04']
    runs = [step['run'] for job in jobs.values() for step in job['steps'] if 'run' in step]
    made = set(re.findall(r'\bmake ([a-z][\w-]*)', '\n'.join(line for line in '\n'.join(
        runs).splitlines() if 'apt-get' not in line)))
    assert {'demo', 'test', 'ros'} == made <= TARGETS
    for file in re.findall(r'([\w]+\.launch\.py)', '\n'.join(runs)):
        assert (ROOT / 'launch' / file).is_file()


@pytest.mark.parametrize('page', ['CONTRIBUTING.md', 'QUALITY_DECLARATION.md', 'docs/install.md'])
def test_pages_name_files_that_exist(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r'`((?:test|docs|bench|mos_perception|config|requirements|\.ci|\.github)'
                           r'/[\w./-]*)`', text))
    assert named and not {name for name in named if not (ROOT / name).exists()}
