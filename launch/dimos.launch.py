"""The DIMOS node with its parameters: `ros2 launch mos_perception dimos.launch.py
image_topic:=/camera/image_raw`.

A launch argument that is left empty keeps the value of the parameter file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription
from mos_perception.config import FIELDS
from mos_perception.ros.transport import environment

SHARE = Path(get_package_share_directory('mos_perception'))
TOPICS = ('image_topic', 'events_topic', 'imu_topic', 'camera_info_topic',
          'image_camera_info_topic')
RESPAWN_DELAY_S = 2.0
# argument -> default, help; those named like a parameter are handed on to the node when not empty
ARGUMENTS = {
    'namespace': ('', 'namespace of the node'),
    'model': ('', FIELDS['model'].metadata['text']),
    'backend': ('', FIELDS['backend'].metadata['text']),
    'image_topic': ('', 'frames, of image_type; none: no frames'),
    'image_type': ('', 'raw (sensor_msgs/Image) or compressed (CompressedImage)'),
    'events_topic': ('', 'events, of events_type; none: no events'),
    'events_type': ('', 'event_packet or event_array (dvs_msgs)'),
    'imu_topic': ('', "the event camera's gyroscope, sensor_msgs/Imu; needs camera_info_topic"),
    'camera_info_topic': ('', "the event camera's calibration, sensor_msgs/CameraInfo"),
    'image_camera_info_topic': ('', "the frame camera's calibration, sensor_msgs/CameraInfo"),
    'registration': ('', 'how events get into the frames: same_pixels, scale, homography or '
                     'camera_info, see docs/calibration.md'),
    'homography_file': ('', 'with registration homography: what `mos register` wrote'),
    'params_file': (str(SHARE / 'config' / 'dimos.yaml'), 'parameter file'),
    'use_sim_time': ('false', 'take the time from /clock'),
    'autostart': ('true', 'configure and activate at start'),
    'respawn': ('false', 'true: start the node again when it ended; false: its error ends all'),
    'rviz': ('false', 'show the overlay in rviz2'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}


def make_node(context):
    """The node, from the values the arguments have by now."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    parameters = {
        name: given[name]
        for name in ('model', 'backend', 'image_type', 'events_type', 'registration',
                     'homography_file', *TOPICS)
        if given[name]
    }
    parameters = {name: '' if value == 'none' else value for name, value in parameters.items()}
    flags = {}
    for name in ('use_sim_time', 'autostart', 'respawn'):
        if given[name].lower() not in ('true', 'false'):
            raise ValueError(f'launch argument {name} is {given[name]!r}: must be true or false')
        flags[name] = given[name].lower() == 'true'
    respawn = flags.pop('respawn')
    node = Node(
        package='mos_perception',
        executable='dimos_node',
        name='mos_perception',
        namespace=given['namespace'],
        parameters=[given['params_file'], {**parameters, **flags}],
        output='screen',
        emulate_tty=True,
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
        arguments=['--ros-args', '--log-level', given['log_level']],
    )
    if respawn:
        return [node]
    return [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end_on_error))]


def end_on_error(event, context):
    """A node that cannot work ends the launch: nobody waits for its topics."""
    if event.returncode == 0 or context.is_shutdown:
        return []
    return [EmitEvent(event=Shutdown(
        reason=f'{event.process_name} ended with exit code {event.returncode}, its last line says '
        'why'))]


def generate_launch_description():
    """Arguments, transport, the node and, if asked for, rviz2."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, (value, text) in ARGUMENTS.items()
            ),
            *(SetEnvironmentVariable(name, value) for name, value in environment().items()),
            OpaqueFunction(function=make_node),
            Node(
                package='rviz2',
                executable='rviz2',
                namespace=LaunchConfiguration('namespace'),
                output='log',
                arguments=['-d', str(SHARE / 'config' / 'view.rviz')],
                condition=IfCondition(LaunchConfiguration('rviz')),
            ),
        ]
    )
