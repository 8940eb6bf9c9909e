"""The node on frames alone, with a single-picture model beside it that keeps what could move:
`ros2 launch mos_perception mosis.launch.py image_topic:=/camera/image_raw`.

All arguments of dimos.launch.py; only the parameter file is another.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

SHARE = Path(get_package_share_directory('mos_perception'))


def generate_launch_description():
    """dimos.launch.py with the parameters of a motion model and a single-picture model."""
    node = PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'dimos.launch.py'))
    return LaunchDescription([
        DeclareLaunchArgument('params_file', default_value=str(SHARE / 'config' / 'mosis.yaml')),
        IncludeLaunchDescription(node, launch_arguments={
            'params_file': LaunchConfiguration('params_file')}.items()),
    ])
