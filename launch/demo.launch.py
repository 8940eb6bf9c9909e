"""The committed demo recording on the DIMOS node: `ros2 launch mos_perception demo.launch.py
rviz:=true`.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

SHARE = Path(get_package_share_directory('mos_perception'))


def generate_launch_description():
    """replay.launch.py on the demo bag; its arguments and those of dimos.launch.py are passed on.
    """
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'bag', default_value=str(SHARE / 'demo'), description='rosbag2 folder to play'
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'replay.launch.py')),
                launch_arguments={'bag': LaunchConfiguration('bag')}.items(),
            ),
        ]
    )
