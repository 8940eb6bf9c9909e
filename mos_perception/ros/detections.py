"""`vision_msgs` for stacks that speak it: boxes with track ids, and what their classes are called.

Only where the package is installed; masks stay in `mos_msgs`, which vision_msgs has none for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from std_msgs.msg import Header

from mos_perception.datatypes import Result
from mos_perception.ros import qos

try:
    from vision_msgs import msg as vision
except ImportError:  # the user's choice
    vision = None

# class_id -> class_name of LabelInfo; 0 is the background of ~/instance_image
CLASSES = {0: 'background', 1: 'moving', 2: 'static', 3: 'movable'}
NUMBERS = {name: str(number) for number, name in CLASSES.items()}


def outputs() -> dict[str, Any]:
    """Topic below `~/` -> message type; none without vision_msgs."""
    return {} if vision is None else {'detections': vision.Detection2DArray}


def detections_message(header: Header, result: Result) -> Any:
    """vision_msgs/Detection2DArray of the tracked instances, best score first; `id` is the track
    id, `class_id` a number of `CLASSES`, boxes in px of the frame.
    """
    found, ids = result.instances, result.tracks.instance_ids(len(result.instances))
    message = vision.Detection2DArray(header=header)
    for n in sorted(range(len(found)), key=lambda n: -found.scores[n]):
        if ids[n] <= 0:
            continue
        x0, y0, x1, y1 = (float(side) for side in found.boxes[n])
        item = vision.Detection2D(header=header, id=str(ids[n]))
        item.bbox.center.position.x, item.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        item.bbox.size_x, item.bbox.size_y = x1 - x0, y1 - y0
        guess = vision.ObjectHypothesisWithPose()
        guess.hypothesis.class_id = NUMBERS[found.label(n)]
        guess.hypothesis.score = float(found.scores[n])
        item.results.append(guess)
        message.detections.append(item)
    return message


def announce(node: Any) -> list[Callable[[], Any]]:
    """Publish `~/label_info`, kept for those who come later; what undoes it. Its threshold is the
    parameter `score_threshold`, 0 where that leaves it to the model card.
    """
    if vision is None:
        return []
    publisher = node.create_publisher(vision.LabelInfo, '~/label_info', qos.latched())
    message = vision.LabelInfo(threshold=max(node.config.score_threshold, 0.0))
    message.header.stamp = node.get_clock().now().to_msg()
    message.class_map = [vision.VisionClass(class_id=number, class_name=name)
                         for number, name in CLASSES.items()]
    publisher.publish(message)
    return [lambda: node.destroy_publisher(publisher)]
