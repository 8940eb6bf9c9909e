"""What could move, by a single picture: beside what moves, tracked through rests, published."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.config import Config
from mos_perception.datatypes import MOVABLE, Frame, Instances, Modality, Result, SyncedInput
from mos_perception.engine.interface import TensorSpec
from mos_perception.errors import ConfigError, EngineError
from mos_perception.masks import mask_boxes
from mos_perception.models import load_model
from mos_perception.models.mosis import MosisModel, WithMovable, fused
from mos_perception.recording.results import read_result, write_result
from mos_perception.stages import StageTimes
from mos_perception.tracking import load_tracker

SIZE = (40, 60)


def instances(*boxes, moving=True, channels=3) -> Instances:
    """Rectangles (x0, y0, x1, y1), not overlapping; embeddings are of ones."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0:y1, x0:x1] = True
    scores = np.linspace(0.9, 0.6, len(boxes)).astype(np.float32)
    found = Instances(masks, mask_boxes(masks), scores, scores * moving,
                      np.full(len(boxes), moving), np.ones((len(boxes), channels), np.float32))
    return found if moving else replace(found, movable=scores, embeddings=np.zeros(
        (len(boxes), channels), np.float32))


def test_a_thing_that_moves_is_one_instance():
    found = fused(instances((0, 0, 20, 20)), instances((1, 1, 22, 20), moving=False))
    assert len(found) == 1 and found.moving.all() and found.movable[0] == np.float32(0.9)
    assert found.label(0) == 'moving'


def test_a_part_that_moves_and_the_whole_are_one():
    """An arm moves, the picture shows the person: the instance is what moves."""
    found = fused(instances((0, 0, 6, 6)), instances((0, 0, 30, 30), moving=False))
    assert len(found) == 1 and found.masks[0].sum() == 36


def test_a_thing_at_rest_is_beside_what_moves_without_its_pixels():
    found = fused(instances((0, 0, 20, 20)), instances((15, 0, 40, 20), moving=False))
    assert found.moving.tolist() == [True, False] and found.movable.tolist() == [
        -1, np.float32(0.9)]
    assert found.boxes.tolist() == [[0, 0, 20, 20], [20, 0, 40, 20]]
    assert not found.embeddings[1].any() and found.motion_scores[1] == 0
    assert found.label(1) == MOVABLE


def test_nothing_movable_changes_nothing():
    moving = instances((0, 0, 20, 20))
    assert fused(moving, instances(moving=False)) is moving


def test_without_what_moves_all_that_could_is_there():
    found = fused(Instances.empty(*SIZE, 3), instances((0, 0, 9, 9), (20, 20, 30, 30),
                                                        moving=False))
    assert len(found) == 2 and not found.moving.any() and found.embeddings.shape == (2, 3)


BOXES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(1, 20),
                           st.integers(1, 20)), max_size=4)


def _apart(boxes, moving):
    """Rectangles without what the ones before them cover."""
    found = instances(*((x, y, x + w, y + h) for x, y, w, h in boxes), moving=moving)
    taken, masks = np.zeros(SIZE, bool), []
    for mask in found.masks:
        masks.append(mask & ~taken)
        taken |= mask
    kept = np.array([mask.any() for mask in masks], bool)
    masks = np.array(masks, bool).reshape(-1, *SIZE)
    return replace(found, masks=masks, boxes=mask_boxes(masks)).of(kept)


@given(BOXES, BOXES)
def test_fused_masks_are_disjoint_and_what_moves_stays(first, second):
    moving, movable = _apart(first, True), _apart(second, False)
    found = fused(moving, movable)
    assert found.masks.sum(0, dtype=int).max(initial=0) <= 1
    count = len(moving)
    np.testing.assert_array_equal(found.masks[:count], moving.masks)
    np.testing.assert_array_equal(found.moving, np.arange(len(found)) < count)
    np.testing.assert_array_equal(found.boxes, mask_boxes(found.masks))
    assert found.masks[count:].any((1, 2)).all()


def test_a_track_goes_on_at_rest_for_as_long_as_the_picture_shows_it():
    """Longer than `track_hold_s`, and with the same id when it moves again."""
    tracker, ids = load_tracker(Config(track_hold_s=0.0, track_lost_s=0.2)), []
    for n in range(60):
        x = min(n, 10) + max(0, n - 50)
        resting = 10 <= n < 50
        found = instances((x, 5, x + 15, 20), moving=not resting)
        shown, tracks = tracker.update(found, n * 33_000_000)
        ids.append(int(tracks.instance_ids(len(shown))[0]))
        assert shown.moving[0] == (not resting)
    assert set(ids) == {1}


def test_messages_say_movable():
    found = fused(instances((0, 0, 20, 20)), instances((30, 0, 40, 20), moving=False))
    tracks = load_tracker(Config()).update(found, 1)[1]
    result = Result(1, 'camera', found, tracks, None, Modality.FRAME, 'x', 0)
    back = read_result(write_result(result)).instances
    assert [back.label(n) for n in range(2)] == ['moving', MOVABLE]
    np.testing.assert_allclose(back.movable, [-1, 0.9])
    np.testing.assert_array_equal(back.masks, found.masks)


@pytest.mark.parametrize('tracker', ['referring', 'propagation_flow', 'propagation_sam2'])
def test_trackers_of_what_moves_alone_are_refused(tracker):
    with pytest.raises(ConfigError, match=f'movable_nano.*{tracker}.*set tracker to hungarian'):
        Config(movable_model='movable_nano', tracker=tracker)


def test_a_motion_model_is_no_movable_model():
    with pytest.raises(EngineError, match="'gmos_nano'.*must be mosis"):
        load_model(Config(model='dimos_nano', movable_model='gmos_nano'))


@pytest.fixture(scope='module')
def both():
    """The shipped model beside `gmos_nano`."""
    return load_model(Config(model='gmos_nano', movable_model='movable_nano', threads=1))


def test_the_shipped_model_beside_a_motion_model(both):
    rgb = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    sample = SyncedInput(1_000, '', Frame(1_000, rgb), None, (120, 160))
    stages = StageTimes()
    found = both.detect(sample, stages)
    assert isinstance(both, WithMovable) and stages['movable'] > 0
    alone = both.motion.detect(sample, StageTimes())
    assert len(found) >= len(alone) and not found.moving[len(alone):].any()
    assert both.report()['movable model'] == 'movable_nano'


def test_without_a_frame_it_finds_nothing(both):
    assert len(both.movable.detect(SyncedInput.nothing(SIZE), StageTimes())) == 0


def test_live_parameters_are_the_motion_models(both):
    card = both.movable.card.postprocess
    both.configure(Config(score_threshold=0.9, top_k=3))
    assert (both.motion.score_threshold, both.motion.top_k) == (0.9, 3)
    assert (both.movable.score_threshold, both.movable.top_k) == (card.score_threshold, card.top_k)


def test_alone_nothing_moves(both):
    model = load_model(Config(model='movable_nano', threads=1))
    rgb = np.random.default_rng(1).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    found = model.detect(SyncedInput(1, '', Frame(1, rgb), None, (120, 160)), StageTimes())
    assert isinstance(model, MosisModel) and not found.moving.any()
    np.testing.assert_array_equal(found.movable, found.scores)


@pytest.mark.parametrize('side, message', [('inputs', 'takes image'), ('outputs', 'gives')])
def test_other_tensors_are_refused(both, side, message):
    card = both.movable.card
    more = (*getattr(card, side), TensorSpec('more', (1, 2), 'float32'))

    class Engine:
        inputs, outputs = card.inputs, card.outputs
    setattr(Engine, side, more)
    with pytest.raises(EngineError, match=message):
        MosisModel(Engine(), replace(card, **{side: more}))
