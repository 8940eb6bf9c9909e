"""A folder of images as a frames-only recording."""

from __future__ import annotations

from pathlib import Path

import cv2

from mos_perception.datatypes import Frame
from mos_perception.errors import BagError
from mos_perception.recording.bag import BagWriter

SUFFIXES = ('.webp', '.png', '.jpg', '.jpeg', '.bmp')
START_NS = 1_000_000_000  # ROS reads a stamp of 0 as "not set"


def bag_from_images(
    folder: str | Path,
    out: str | Path,
    fps: float,
    topic: str = '/camera/image_raw',
    storage: str = 'mcap',
) -> int:
    """Write the folder's images, by name, as a bag of rgb8 frames `1 / fps` apart. Returns how
    many.

    Raises BagError: no images, one that cannot be read, fps not positive, or `out` exists.
    """
    if not fps > 0:
        raise BagError(f'fps is {fps}: must be above 0')
    files = sorted(file for file in Path(folder).glob('*') if file.suffix.lower() in SUFFIXES)
    if not files:
        raise BagError(f'{folder} holds no images ({", ".join(SUFFIXES)})')
    with BagWriter(out, storage) as bag:
        for n, file in enumerate(files):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise BagError(f'{file} is no image that OpenCV can read: convert or remove it')
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            bag.write_frame(
                topic, Frame(START_NS + round(n * 1e9 / fps), rgb, 'camera_optical_frame')
            )
    return len(files)
