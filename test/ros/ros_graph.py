"""Imported before rclpy is: the tests of this process have a graph of their own."""

import os
import random
import tempfile

os.environ['ROS_DOMAIN_ID'] = str(random.randint(1, 100))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_LOG_DIR'] = tempfile.mkdtemp(prefix='mos_ros_log_')
