"""What docs/middleware.md says of the node, held against one that runs."""

import re
from pathlib import Path

import pytest
from rclpy.lifecycle import TransitionCallbackReturn

ROOT = Path(__file__).resolve().parents[2]
GOOD = TransitionCallbackReturn.SUCCESS
EVERY_INPUT = {'image_topic': '/image', 'events_topic': '/events', 'imu_topic': '/imu',
               'camera_info_topic': '/dvs/info', 'image_camera_info_topic': '/camera/info',
               'registration': 'camera_info'}
# not on every distribution, or without vision_msgs
MAY_BE_ABSENT = {f'/mos_perception/{name}' for name in (
    'detections', 'label_info', 'get_type_description')}


def rights(what: str) -> set[str]:
    """The full names in a row of the page's table of rights."""
    page = (ROOT / 'docs/middleware.md').read_text()
    row = re.search(rf'^\| {what} \| (.*) \|$', page, re.M).group(1)
    return {EVERY_INPUT.get(name, name).replace('~', '/mos_perception')
            for name in re.findall(r'`([\w~/]+)`', row)}


def test_the_rights_on_the_page_are_those_that_the_node_uses(rig):
    pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs is not built here')
    node = rig(activate=False, use_sim_time=True, **EVERY_INPUT).node
    assert node.trigger_configure() == GOOD and node.trigger_activate() == GOOD
    found = {'subscribe': node.get_subscriber_names_and_types_by_node,
             'publish': node.get_publisher_names_and_types_by_node,
             'reply': node.get_service_names_and_types_by_node}
    for what, ask in found.items():
        used = {name for name, _ in ask('mos_perception', '/')}
        assert used <= rights(what) and rights(what) - used <= MAY_BE_ABSENT, what
    assert node.get_client_names_and_types_by_node('mos_perception', '/') == []
