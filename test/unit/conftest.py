"""A small scene as a bag, and a model that finds bright squares: replay, scoring and pictures
without a network.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import EventPacket, Frame, GroundTruth, Instances
from mos_perception.recording.bag import BagWriter

sys.path.insert(0, str(Path(__file__).parent))  # for modules of made-up cases
HEIGHT, WIDTH, PERIOD_NS, START_NS = 48, 64, 33_000_000, 1_000_000_000
MOVING_FROM, MOVING_TO = 4, 10  # frames in which the square moves


class BrightModel:
    """Calls every bright blob moving while it is in the right two thirds of the picture."""

    def __init__(self):
        self.card = SimpleNamespace(id='bright',
                                    window=SimpleNamespace(side='before', length_ms=33.0),
                                    surroundings=None, outputs=())
        self.config = None

    def configure(self, config):
        self.config = config

    def report(self):
        return {'backend': 'none', 'provider': 'none'}

    def detect(self, sample, stages):
        with stages.timed('voxel'):
            picture = np.zeros((HEIGHT, WIDTH), np.float32)
            if sample.window is not None and len(sample.window.events):
                np.add.at(picture, (sample.window.events.y, sample.window.events.x), 1)
        with stages.timed('pre'):
            if sample.frame is not None:
                picture = sample.frame.image.mean(2) / 255
        with stages.timed('engine'):
            mask = cv2.resize((picture > 0.5).astype(np.uint8), sample.size[::-1]) > 0
        with stages.timed('post'):
            if not mask.any():
                return Instances.empty(*sample.size)
            y, x = np.nonzero(mask)
            box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
            one = np.array([0.75], np.float32)
            return Instances(mask[None], box, one, one, np.array([x.min() > 8]),
                             np.zeros((1, 2), np.float32))


def write_scene(
    path: Path, *, frames=True, events=True, truth=True, count=14, storage='mcap', first=0
) -> Path:
    """A square that stands at x = 8, moves 2 px per frame from frame 4 to 10, and stands again."""
    with BagWriter(path, storage) as bag:
        for n in range(first, first + count):
            stamp, x = (
                START_NS + n * PERIOD_NS,
                8 + 2 * int(np.clip(n - MOVING_FROM, 0, MOVING_TO - MOVING_FROM)),
            )
            image, ids = (
                np.full((HEIGHT, WIDTH, 3), 30, np.uint8),
                np.zeros((HEIGHT, WIDTH), np.uint16),
            )
            image[16:32, x:x + 16], ids[16:32, x:x + 16] = 220, 5
            if events:  # the packet that ends at this frame's stamp
                at = np.linspace(stamp - PERIOD_NS + 1, stamp, 50).astype(np.int64)
                y = np.arange(50, dtype=np.uint64) % np.uint64(HEIGHT)
                words = (
                    (at - at[0]).astype(np.uint64)
                    | np.uint64(x) << np.uint64(32)
                    | y << np.uint64(48)
                    | np.uint64(1) << np.uint64(63)
                )
                bag.write_packet(
                    '/events',
                    EventPacket(
                        int(at[0]),
                        'mono',
                        HEIGHT,
                        WIDTH,
                        n,
                        int(at[0]),
                        words.view(np.uint8),
                        'camera',
                    ),
                    stamp + 1_000_000,
                )
            if frames:
                bag.write_frame(
                    '/camera/image_raw', Frame(stamp, image, 'camera'), stamp + 5_000_000
                )
            if truth:
                bag.write_truth(
                    GroundTruth(stamp, ids, {5: MOVING_FROM < n <= MOVING_TO}),
                    'camera',
                    stamp + 5_000_000,
                )
    return path


@pytest.fixture
def bright_model():
    return BrightModel()


@pytest.fixture
def scene():
    """The function that writes the scene's bag: `scene(path, frames=, events=, truth=, count=,
    storage=, first=)`.
    """
    return write_scene
