"""Masks against boxes: MoCA's protocol (tools/MoCA_eval.py of charigyang/motiongrouping).

A mask that covers more than half of the image's border is turned over; of its outer contours the
one with the largest box counts. J is the mean of the videos' means; a success rate is the share of
all frames with an IoU above a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from mos_perception.errors import ConfigError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

Box = tuple[float, float, float, float]


def largest_box(mask: np.ndarray) -> Box | None:
    """(x0, y0, x1, y1) px, far edges exclusive, of an (H, W) bool mask; None where it is empty."""
    border = mask.copy()
    border[1:-1, 1:-1] = False
    if np.count_nonzero(border) / (2 * sum(mask.shape) - 4) > 0.5:
        mask = ~mask
    contours = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL,
                                cv2.CHAIN_APPROX_SIMPLE)[0]
    boxes = [cv2.boundingRect(contour) for contour in contours]
    if not boxes:
        return None
    x, y, width, height = max(boxes, key=lambda box: box[2] * box[3])  # the first of equal ones
    return x, y, x + width, y + height


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union; 0 where they do not meet."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


@dataclass
class BoxScores:
    """Gathers the IoU of every annotated frame."""

    sequences: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, mask: np.ndarray, box: Box, size: tuple[int, int]) -> None:
        """One frame of sequence `name`: (h, w) bool mask, the truth's box in px of an image of
        `size` (height, width). Raises ConfigError for an empty image.
        """
        if not mask.size:
            raise ConfigError(f'mask of {name} is {mask.shape}: must have pixels')
        found, iou = largest_box(mask), 0.0
        if found is not None:
            wide, high = size[1] / mask.shape[1], size[0] / mask.shape[0]
            iou = box_iou(box, (found[0] * wide, found[1] * high, found[2] * wide,
                                found[3] * high))
        self.sequences.setdefault(name, []).append(iou)

    def summary(self) -> dict[str, float | None]:
        """J and SR_0.5 ... SR_0.9; None without frames."""
        values = np.array([iou for row in self.sequences.values() for iou in row])
        means = [float(np.mean(row)) for row in self.sequences.values()]
        found: dict[str, float | None] = {'J': float(np.mean(means)) if means else None}
        return found | {f'SR_{level}': float(np.mean(values > level)) if len(values) else None
                        for level in THRESHOLDS}
