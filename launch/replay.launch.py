"""The DIMOS node on a recording: `ros2 launch mos_perception replay.launch.py bag:=PATH`, all
arguments of dimos.launch.py too. Topics are found by type unless named, but for the
gyroscope's and the calibrations', which are used where named; the player waits for the node, all
ends with the bag.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

NODE_LAUNCH = str(
    Path(get_package_share_directory('mos_perception')) / 'launch' / 'dimos.launch.py'
)
MOS = str(Path(get_package_prefix('mos_perception')) / 'lib' / 'mos_perception' / 'mos')
OUTPUTS = ('instances', 'instance_image', 'motion', 'tracks')
TF_STATIC = '/tf_static'


def find_topics(context):
    """Name the topics that were not named, `none` where the bag has none of a kind.

    `mos` reads the bag in the interpreter of our package: that of `ros2` may lack what it needs.
    """
    command = [MOS, 'topics', LaunchConfiguration('bag').perform(context)]
    for name in ('image_topic', 'events_topic'):
        if topic := context.launch_configurations.get(name):
            command += ['--' + name.replace('_', '-'), '' if topic == 'none' else topic]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / 'topics.json'
        run = subprocess.run([*command, '--json', str(found)], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(run.stderr.strip())
        topics = json.loads(found.read_text())
    return [SetLaunchConfiguration(name, topic or 'none') for name, topic in topics.items()]


def play(context):
    """The player and, if asked for, the recorder."""
    given = context.launch_configurations
    names = ('image_topic', 'events_topic', 'imu_topic', 'camera_info_topic',
             'image_camera_info_topic')
    topics = [given[name] for name in names if given[name] not in ('', 'none')]
    if given['registration'] == 'camera_info':
        topics.append(TF_STATIC)
    arguments = [given['bag'], '--rate', given['rate'], '--topics', *topics]
    if given['use_sim_time'].lower() == 'true':
        arguments.append('--clock')
    player = Node(
        package='mos_perception', executable='bag_player', output='screen', arguments=arguments
    )
    ended = OnProcessExit(
        target_action=player, on_exit=[EmitEvent(event=Shutdown(reason='the bag has ended'))]
    )
    actions = [player, RegisterEventHandler(ended)]
    if given['out']:
        name = '/'.join(
            part for part in (given['namespace'].strip('/'), 'mos_perception') if part
        )
        actions.insert(
            0,
            Node(
                package='mos_perception',
                executable='bag_recorder',
                output='screen',
                arguments=[
                    '--out',
                    given['out'],
                    *(f'/{name}/{topic}' for topic in OUTPUTS),
                    '/diagnostics',
                ],
            ),
        )
    return actions


def generate_launch_description():
    """The bag's arguments; the node's own are declared by dimos.launch.py."""
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='rosbag2 folder, .mcap or .db3 file'),
            DeclareLaunchArgument('rate', default_value='1.0', description='1 = as recorded'),
            DeclareLaunchArgument(
                'out', default_value='', description='record the results into this new bag folder'
            ),
            OpaqueFunction(function=find_topics),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(NODE_LAUNCH)),
            OpaqueFunction(function=play),
        ]
    )
