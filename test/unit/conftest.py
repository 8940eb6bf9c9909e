"""A small scene as a bag, and a model that finds bright squares: replay, scoring and pictures without a network."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import EventPacket, Frame, Instances
from mos_perception.recording.bag import BagWriter, GroundTruth

HEIGHT, WIDTH, PERIOD_NS, START_NS = 48, 64, 33_000_000, 1_000_000_000
MOVING_FROM, MOVING_TO = 4, 10  # frames in which the square moves


class BrightModel:
    """Calls every bright blob moving while it is in the right two thirds of the picture. Duck-typed Model."""

    def __init__(self):
        self.card = SimpleNamespace(id='bright', window=SimpleNamespace(side='before', length_ms=33.0))
        self.engine, self.score_threshold, self.max_objects = self, 0.1, 0

    def voxel(self, window):
        grid = np.zeros((1, HEIGHT, WIDTH), np.float32)
        if window is not None and len(window.events):
            np.add.at(grid[0], (window.events.y, window.events.x), 1)
        return grid

    def image(self, frame):
        return np.zeros((3, HEIGHT, WIDTH), np.float32) if frame is None else frame.image.transpose(2, 0, 1) / 255

    def feeds(self, image, voxel):
        return {'image': image, 'voxel': voxel}

    def run(self, feeds):
        return feeds

    def infer(self, image, voxel):
        return self.feeds(image, voxel)

    def update(self, config):
        pass

    def postprocess(self, outputs, size):
        picture = outputs['image'].mean(0) if outputs['image'].any() else outputs['voxel'][0]
        mask = cv2.resize((picture > 0.5).astype(np.uint8), size[::-1]) > 0
        if not mask.any():
            return Instances.empty(*size)
        y, x = np.nonzero(mask)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        one = np.array([0.75], np.float32)
        return Instances(mask[None], box, one, one, np.array([x.min() > 8]), np.zeros((1, 2), np.float32))


def write_scene(path: Path, *, frames=True, events=True, truth=True, count=14, storage='mcap', first=0) -> Path:
    """A square that stands at x = 8, moves 2 px per frame from frame 4 to 10, and stands again."""
    with BagWriter(path, storage) as bag:
        for n in range(first, first + count):
            stamp, x = START_NS + n * PERIOD_NS, 8 + 2 * int(np.clip(n - MOVING_FROM, 0, MOVING_TO - MOVING_FROM))
            image, ids = np.full((HEIGHT, WIDTH, 3), 30, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint16)
            image[16:32, x:x + 16], ids[16:32, x:x + 16] = 220, 5
            if events:  # the packet that ends at this frame's stamp
                at = np.linspace(stamp - PERIOD_NS + 1, stamp, 50).astype(np.int64)
                y = np.arange(50, dtype=np.uint64) % np.uint64(HEIGHT)
                words = ((at - at[0]).astype(np.uint64) | np.uint64(x) << np.uint64(32) | y << np.uint64(48)
                         | np.uint64(1) << np.uint64(63))
                bag.write_packet('/events', EventPacket(int(at[0]), 'mono', HEIGHT, WIDTH, n, int(at[0]),
                                                        words.view(np.uint8), 'camera'), stamp + 1_000_000)
            if frames:
                bag.write_frame('/camera/image_raw', Frame(stamp, image, 'camera'), stamp + 5_000_000)
            if truth:
                bag.write_truth(GroundTruth(stamp, ids, {5: MOVING_FROM < n <= MOVING_TO}), 'camera', stamp + 5_000_000)
    return path


@pytest.fixture
def bright_model():
    return BrightModel()


@pytest.fixture
def scene():
    """The function that writes the scene's bag: `scene(path, frames=, events=, truth=, count=, storage=, first=)`."""
    return write_scene
