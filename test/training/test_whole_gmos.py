"""The published GMOS over its graphs answers as the whole network in torch does, frame by frame."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_gmos import GMOS, HAS_SAM2, PI3, networks

from mos_perception.config import Config
from mos_perception.datatypes import Frame, Result
from mos_perception.errors import EngineError
from mos_perception.models import load_model
from mos_perception.models.gmos.proposals import above, to_parts, to_proposals
from mos_perception.motion.flow import at_size
from mos_perception.pipeline import Pipeline
from training.nets.gmos_whole import TARGET

PERIOD_NS = 40_000_000
OFFSETS = {False: (-6, -3, 0, 3, 6), True: (-12, -9, -6, -3, 0)}  # at 25 Hz


def config(path, **given):
    return Config(model=str(path), backend='onnxruntime', threads=1, events_topic='', **given)


def video(count):
    ground = np.random.default_rng(0).integers(0, 256, (120 + count, 160, 3), np.uint8)
    return [Frame(10**12 + n * PERIOD_NS, np.ascontiguousarray(ground[n:n + 120]), 'camera')
            for n in range(count)]


def answers(pipeline, frames):
    found = []
    for frame in frames:
        pipeline.push_frame(frame, 0)
        found += [pipeline.process(sample) for sample in pipeline.ready(0)]
    return found


def in_torch(name, model, frames, at, causal):
    """Frame `at` by the torch modules, the window in its order."""
    head, trunk = networks(name)
    rows = [min(max(at + offset, 0), len(frames) - 1) for offset in OFFSETS[causal]]
    window = np.stack([at_size(frames[row].image, PI3.size) for row in rows])
    window = torch.from_numpy(window).permute(0, 3, 1, 2)[None] / 255
    levels = [torch.from_numpy(level) for level in model.appearance.of(frames[at].image).values()]
    with torch.no_grad():
        geometry = trunk(window)[:, rows.index(at) if causal else TARGET]
        outputs = {key: value.numpy() for key, value in head(geometry, *levels).items()}
    if name == 'gmos_s':
        return to_parts(outputs, frames[at].size, model.score_threshold, model.top_k)
    return above(to_proposals(outputs, frames[at].size, model.top_k), model.score_threshold)


@pytest.mark.parametrize('name, causal', [('gmos', False), ('gmos', True), ('gmos_s', False)])
def test_a_stream_gives_what_the_network_gives(tiny_gmos, name, causal):
    """And each frame is encoded once, whatever it serves for."""
    pipeline = Pipeline(config(tiny_gmos(name), causal=causal))
    frames = video(24)
    found = answers(pipeline, frames)
    assert all(isinstance(result, Result) for result in found)
    assert [result.stamp_ns for result in found] == [
        frame.stamp_ns for frame in (frames if causal else frames[:18])]
    assert {round(result.stage_ms['wait']) for result in found} == {0 if causal else 240}
    report = pipeline.status()
    assert report['engine frames encoded'] == 24
    assert report['model delay ms'] == (0 if causal else 240)
    assert report['model'] == name
    for at in (0, 1, 14):
        wanted = in_torch(name, pipeline.model, frames, at, causal)
        assert len(wanted) and bool(found[at].degraded) == (at < 14)
        got = found[at].instances
        differ = (got.masks.any(0) != wanted.masks.any(0)).mean()
        assert differ < 1e-3 and len(got) == len(wanted)
        np.testing.assert_allclose(np.sort(got.scores), np.sort(wanted.scores), atol=1e-3)


def test_memory_is_bounded_and_a_jump_back_forgets(tiny_gmos):
    pipeline = Pipeline(config(tiny_gmos('gmos'), tracker='propagation_flow'))
    pipeline.warm_up((120, 160))
    frames = video(20)
    first = answers(pipeline, frames)
    kept = pipeline.status()['engine frames remembered']
    assert kept == 13  # two strides of three frames to each side, and the frame
    again = [dataclasses.replace(frame, stamp_ns=frame.stamp_ns - 10**9) for frame in frames[:12]]
    second = answers(pipeline, again)
    assert [result.epoch for result in second] == [first[0].epoch + 1] * 6
    assert pipeline.status()['engine frames remembered'] == 12
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one.instances.masks, other.instances.masks)
        assert one.tracks.ids.tolist() == other.tracks.ids.tolist() != []


def test_without_a_frame_there_is_nothing(tiny_gmos):
    model = load_model(config(tiny_gmos('gmos')))
    from mos_perception.datatypes import SyncedInput
    from mos_perception.stages import StageTimes
    found = model.detect(SyncedInput.nothing((50, 70)), StageTimes())
    assert len(found) == 0 and found.size == (50, 70)
    assert found.embeddings.shape == (0, GMOS.width)


def test_frames_of_another_shape_are_a_fault_that_says_what_to_do(tiny_gmos):
    pipeline = Pipeline(config(tiny_gmos('gmos'), causal=True))
    wide = Frame(10**12, np.zeros((90, 160, 3), np.uint8))
    assert 'import the model again with --image-size' in answers(pipeline, [wide])[0].message


def test_a_missing_graph_is_named(tiny_gmos, tmp_path):
    for path in tiny_gmos('gmos').parent.glob('gmos_*'):
        if path.suffix in ('.onnx', '.json') and 'geometry' not in path.stem:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(EngineError, match='gmos_geometry'):
        load_model(config(tmp_path / 'gmos_head.onnx'))


def test_sam2_memory_shares_the_encoder(tiny_gmos):
    if not HAS_SAM2:
        pytest.skip('SAM 2.1 needs transformers: pip install -r requirements/gmos.txt')
    pipeline = Pipeline(config(tiny_gmos('gmos'), causal=True, tracker='propagation_sam2'))
    runs, encoder = [], pipeline.model.appearance.engine
    real = encoder.run
    encoder.run = lambda inputs: (runs.append(1), real(inputs))[1]
    found = answers(pipeline, video(10))
    assert len(runs) == 10 and all(isinstance(result, Result) for result in found)
    ids = [set(result.tracks.ids.tolist()) for result in found]
    assert ids[0] and all(ids[0] <= later for later in ids)
