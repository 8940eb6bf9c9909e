"""Faults of nodes and processes over real DDS, in a graph of their own. Tests elsewhere carry the
marker `fault` too: docs/faults.md lists all.
"""

import importlib.util

if importlib.util.find_spec('rclpy') is None:
    collect_ignore_glob = ['test_*.py']

    def pytest_report_header() -> str:
        """Say what is left out."""
        return 'test/faults is left out: no ROS 2 here; `make test` builds one'
else:
    import ros_graph  # noqa: F401 (before rclpy is imported by any test)
    from ros_rig import messages, rig, ros, start, tiny_model  # noqa: F401 (fixtures)
