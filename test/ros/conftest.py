"""Real nodes over real DDS, in a graph of their own."""

import importlib.util
import os
import random
import sys
import tempfile
from pathlib import Path

if importlib.util.find_spec('rclpy') is None:
    collect_ignore_glob = ['test_*.py']

    def pytest_report_header() -> str:
        """Say what is left out."""
        return 'test/ros is left out: no ROS 2 here; `make test` builds one'
else:
    # Before rclpy is imported by any test.
    os.environ['ROS_DOMAIN_ID'] = str(random.randint(1, 100))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ['ROS_LOG_DIR'] = tempfile.mkdtemp(prefix='mos_ros_log_')
    sys.path.insert(0, str(Path(__file__).parent))
    from ros_rig import messages, rig, ros, start, tiny_model  # noqa: F401 (fixtures)
