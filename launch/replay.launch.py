"""The DIMOS node on a recording: `ros2 launch mos_perception replay.launch.py bag:=PATH`, all
arguments of dimos.launch.py too. Topics are found by type unless named, but for the
gyroscope's, which are used where named; the player waits for the node, all ends with the bag.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription
from mos_perception.recording.bag import open_bag

NODE_LAUNCH = str(
    Path(get_package_share_directory('mos_perception')) / 'launch' / 'dimos.launch.py'
)
OUTPUTS = ('instances', 'instance_image', 'motion', 'tracks')


def play(context):
    """The player, and the node on the topics the bag has."""
    path, rate, out = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'rate', 'out')
    )
    given = context.launch_configurations
    with open_bag(path) as bag:
        image, events = bag.pick(
            given.get('image_topic') or None, given.get('events_topic') or None
        )
    others = (given.get(name) for name in ('imu_topic', 'camera_info_topic'))
    topics = [topic for topic in (image, events, *others) if topic and topic != 'none']
    arguments = [path, '--rate', rate, '--topics', *topics]
    if given.get('use_sim_time', 'false').lower() == 'true':
        arguments.append('--clock')
    player = Node(
        package='mos_perception', executable='bag_player', output='screen', arguments=arguments
    )
    ended = OnProcessExit(
        target_action=player, on_exit=[EmitEvent(event=Shutdown(reason='the bag has ended'))]
    )
    actions = [
        IncludeLaunchDescription(PythonLaunchDescriptionSource(NODE_LAUNCH), launch_arguments={
            'image_topic': image or 'none', 'events_topic': events or 'none'}.items()),
        player, RegisterEventHandler(ended)]
    if out:
        name = '/'.join(
            part for part in ('', given.get('namespace', '').strip('/'), 'mos_perception') if part
        )
        actions.insert(
            0,
            Node(
                package='mos_perception',
                executable='bag_recorder',
                output='screen',
                arguments=[
                    '--out',
                    out,
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
            OpaqueFunction(function=play),
        ]
    )
