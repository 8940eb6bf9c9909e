"""`bench.evidence` scores the evidence of the builder it is told to."""

import numpy as np

from bench.evidence import unions
from mos_perception.config import Config
from mos_perception.datatypes import Frame
from mos_perception.models import load_model
from mos_perception.motion.builder import EvidenceBuilder
from training.evaluate_video import Video


def test_each_row_has_its_own_flow():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (60, 107, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    frames = []
    for n in range(8):
        image = scene.copy()
        image[80:160, 60 + 12 * n:140 + 12 * n] = scene[:80, :80][::-1]
        frames.append(Frame(n * 41_666_667, image))
    video = Video('square', frames, [np.zeros(scene.shape[:2], np.uint8)] * len(frames))
    asked = []

    def no_flow(now, other, size):
        asked.append(now.shape)
        return np.zeros((*size, 2), np.float32)

    model = load_model(Config(model='gmos_nano', backend='onnxruntime', threads=1))
    seen = [
        sum(int(mask.sum()) for mask in unions(model, builder, [video]))
        for builder in (EvidenceBuilder(model.card.evidence),
                        EvidenceBuilder(model.card.evidence, make_flow=lambda: no_flow))
    ]
    assert seen[0] > 4 * 80 * 80
    assert seen[1] != seen[0]
    assert len(asked) > len(frames)
