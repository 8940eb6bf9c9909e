"""The whole path with a stand-in network: stages, degraded inputs, resets, faults.

Decoding and windows are real.
"""

import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.datatypes import (
    IMAGE_IDS,
    EventPacket,
    Events,
    Fault,
    Frame,
    Modality,
    Result,
    Skip,
    SkipReason,
)
from mos_perception.errors import EngineError
from mos_perception.models import model_name
from mos_perception.pipeline import Pipeline
from mos_perception.recording.results import result_digest
from mos_perception.tracking.lifecycle import LAST_ID

MS = 1_000_000
HEIGHT, WIDTH = 48, 64


def frame(stamp_ms: int, size=(HEIGHT, WIDTH)) -> Frame:
    image = np.full((*size, 3), 30, np.uint8)
    image[16:32, 20:36] = 220
    return Frame(1_000 * MS + stamp_ms * MS, image, 'camera')


def packet(
    stamp_ms: int, count=20, span_ms=10, seq=0, size=(HEIGHT, WIDTH), encoding='mono'
) -> EventPacket:
    """`count` events evenly over the span that ends at the stamp."""
    base = 1_000 * MS + (stamp_ms - span_ms) * MS
    dt = np.linspace(1, span_ms * MS, count).astype(np.uint64)
    words = (
        dt
        | np.uint64(25) << np.uint64(32)
        | np.uint64(20) << np.uint64(48)
        | np.uint64(1) << np.uint64(63)
    )
    return EventPacket(base, encoding, *size, seq, base, words.view(np.uint8), 'camera')


@pytest.fixture
def pipeline(bright_model):
    return Pipeline(Config(), bright_model)


def run(pipeline, now_ms=0):
    return [pipeline.process(pair) for pair in pipeline.ready(now_ms * MS)]


def test_a_frame_with_its_events_gives_a_tracked_instance(pipeline):
    for n, stamp in enumerate(range(10, 80, 10)):
        assert pipeline.push_packet(packet(stamp, seq=n)) == []
    assert pipeline.push_frame(frame(60), 0) == []
    (result,) = run(pipeline)
    assert isinstance(result, Result) and result.modality is Modality.BOTH and result.degraded == ''
    stamps = np.concatenate([50 * MS - k * 10 * MS + np.linspace(1, 10 * MS, 20) for k in range(6)])
    assert result.window.t1_ns == result.stamp_ns
    assert abs(len(result.window.events) - np.count_nonzero(stamps > 60 * MS - 33 * MS)) <= 1
    assert result.instances.boxes.tolist() == [[20, 16, 36, 32]]
    assert result.tracks.ids.tolist() == [1] and result.tracks.instance.tolist() == [0]
    assert set(result.stage_ms) == {
        'wait', 'decode', 'flow', 'voxel', 'pre', 'engine', 'post', 'track'
    }
    assert (result.frame_id, result.epoch) == ('camera', 0)


def test_missing_modalities_are_degraded_not_failed(pipeline):
    pipeline.push_frame(frame(60), 0)
    (result,) = run(pipeline, now_ms=1000)
    assert (
        result.modality is Modality.FRAME
        and result.degraded == 'no events'
        and len(result.instances) == 1
    )
    pipeline.reset()
    results = []
    for n, stamp in enumerate(range(10, 2000, 10)):
        pipeline.push_packet(packet(stamp, seq=n))
        results += run(pipeline)
    assert len(results) > 20 and all(
        r.modality is Modality.EVENTS and r.degraded == 'no frames' for r in results
    )


def test_late_and_lost_events_are_said(pipeline):
    pipeline.push_packet(packet(50, seq=0))
    pipeline.push_frame(frame(60), 0)
    (late,) = run(pipeline, now_ms=1000)
    assert 'late' in late.degraded
    skips = pipeline.push_packet(packet(100, seq=5))
    assert [(skip.reason, skip.count) for skip in skips] == [(SkipReason.PACKET_GAP, 4)]
    pipeline.push_frame(frame(95), 0)
    (lossy,) = run(pipeline)
    assert lossy.degraded == '4 event packets lost' and lossy.window.lost_packets == 4


def test_size_changes_are_refused_and_the_next_good_input_works(pipeline):
    pipeline.push_packet(packet(10))
    pipeline.push_frame(frame(5), 0)
    run(pipeline)
    assert pipeline.push_frame(frame(10, (24, 32)), 0)[0].reason is SkipReason.SIZE_CHANGED
    assert (
        pipeline.push_packet(packet(20, seq=1, size=(24, 32)))[0].reason is SkipReason.SIZE_CHANGED
    )
    pipeline.push_packet(packet(20, seq=1))
    pipeline.push_frame(frame(15), 0)
    assert [type(outcome) for outcome in run(pipeline)] == [Result]


def test_sizes_that_differ_need_scale(bright_model):
    for registration, kind in (('same_pixels', Fault), ('scale', Result)):
        pipeline = Pipeline(Config(registration=registration), bright_model)
        pipeline.push_packet(packet(100))
        pipeline.push_frame(frame(90, (96, 128)), 0)
        (outcome,) = run(pipeline)
        assert isinstance(outcome, kind)
    assert outcome.instances.size == (96, 128)


def test_a_clock_that_jumps_back_starts_a_new_epoch(pipeline):
    for loop in range(3):
        for n, stamp in enumerate(range(10, 1200, 10)):
            pipeline.push_packet(packet(stamp, seq=n))
            if stamp % 30 == 0:
                pipeline.push_frame(frame(stamp), 0)
        results = run(pipeline)
        assert [result.epoch for result in results] == [loop] * len(results) and len(results) == 39
        assert results[0].tracks.ids.tolist() == [1], 'ids are unique within an epoch only'


def test_a_pair_from_before_a_reset_is_void(pipeline):
    pipeline.push_packet(packet(100))
    pipeline.push_frame(frame(90), 0)
    (pair,) = pipeline.ready(0)
    assert pipeline.reset() == 1
    outcome = pipeline.process(pair)
    assert isinstance(outcome, Skip) and outcome.reason is SkipReason.RESET


def test_a_failed_inference_is_a_fault_and_the_next_frame_works(
    pipeline, bright_model, monkeypatch
):
    pipeline.push_packet(packet(100))
    for stamp in (50, 90):
        pipeline.push_frame(frame(stamp), 0)
    first, second = pipeline.ready(0)
    with monkeypatch.context() as patch:
        def broken(sample, stages):
            raise EngineError('output class_logits has 3 values that are NaN')
        patch.setattr(bright_model, 'detect', broken)
        assert 'NaN' in pipeline.process(first).message
    assert isinstance(pipeline.process(second), Result)


def test_event_arrays_take_the_same_path(pipeline):
    t = 1_000 * MS + np.arange(1, 101) * MS
    ones = np.full(100, 20, np.uint16)
    pipeline.push_events(Events(ones, ones, np.ones(100, np.uint8), t), (HEIGHT, WIDTH), 'camera')
    pipeline.push_frame(frame(90), 0)
    (result,) = run(pipeline)
    assert len(result.window.events) == 33


def test_live_parameters_reach_every_part(pipeline, bright_model):
    config = Config(score_threshold=0.5, top_k=3, deadline_s=1.5, track_lost_s=2.0)
    pipeline.update(config)
    assert bright_model.config is config
    assert pipeline.sync.deadline_ns == 1500 * MS


@pytest.mark.parametrize('topics, name', [
    ({}, 'dimos_light'),
    ({'events_topic': ''}, 'gmos_nano'),
    ({'image_topic': ''}, 'dimos_nano'),
    ({'image_topic': '', 'model': 'mine'}, 'mine'),
])
def test_auto_is_the_model_for_the_topics_there_are(topics, name):
    config = Config(**{'image_topic': '/image', 'events_topic': '/events', **topics})
    assert model_name(config) == name


@pytest.mark.fault(26, 'track ids near the end of their 32 bits',
                   'a new epoch begins; no id is used twice within one')
def test_before_the_ids_run_out_a_new_epoch_begins(pipeline):
    pipeline.tracker.store._last_id = LAST_ID - 2 * IMAGE_IDS
    results = []
    for n, stamp in enumerate((60, 93)):
        pipeline.push_packet(packet(stamp, seq=n))
        pipeline.push_frame(frame(stamp), 0)
        results += run(pipeline, now_ms=10_000)
    assert [(result.epoch, result.tracks.ids.tolist()) for result in results] == [
        (0, [LAST_ID - 2 * IMAGE_IDS + 1]), (1, [1])]


def test_the_referring_tracker_takes_its_place():
    """A square before a moving background, with the real network: one id; the same after a reset.
    """
    rng = np.random.default_rng(0)
    wall = np.kron(rng.integers(0, 255, (16, 30, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    pipeline = Pipeline(Config(tracker='referring', events_topic='', threads=1))
    runs = []
    for _ in range(2):
        results = []
        for n in range(14):
            image = wall[:96, 2 * n:2 * n + 128].copy()
            image[30:60, 20 + 5 * n:50 + 5 * n] = 250, 200, 20
            pipeline.push_frame(Frame((1_000 + 40 * n) * MS, image), 0)
            results += run(pipeline)
        results += [pipeline.process(sample) for sample in pipeline.flush()]
        assert all(isinstance(result, Result) for result in results)
        runs.append([result_digest(result) for result in results])
        ids = np.concatenate([result.tracks.ids for result in results])
        assert len(ids) > 5 and ids.max() <= 2
        assert pipeline.status()['tracks that gave way'] == 0
        pipeline.reset()
    assert runs[0] == runs[1]
