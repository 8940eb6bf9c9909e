"""GMOS: from raw outputs to instances, and the model around a real network file."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.datatypes import Events, Frame, SyncedInput
from mos_perception.engine.card import ImageSpec, ModelCard, PostprocessSpec, load_card, save_card
from mos_perception.errors import EngineError
from mos_perception.models import load_model
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.models.gmos.refine import to_image_edges
from mos_perception.motion.event_image import event_image
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.flow import FlowSettings
from mos_perception.stages import StageTimes
from training.scenes import render_clip

SMALL, FRAME = (64, 96), (128, 192)


def outputs(foreground: list[tuple[slice, slice]],
            queries: list[tuple[float, tuple[slice, slice]]]) -> dict[str, np.ndarray]:
    """Logits of +-8: the foreground's rectangles, and (motion logit, rectangle) per query."""
    whole = np.full((1, 1, *SMALL), -8.0, np.float32)
    for part in foreground:
        whole[0, 0][part] = 8
    masks = np.full((1, len(queries), *SMALL), -8.0, np.float32)
    for mask, (_, part) in zip(masks[0], queries):
        mask[part] = 8
    return {'foreground_logits': whole, 'foreground_quality': np.ones((1, 2), np.float32),
            'mask_logits': masks,
            'motion_logits': np.array([[motion for motion, _ in queries]], np.float32),
            'quality': np.ones((1, len(queries), 2), np.float32),
            'embeddings': np.arange(len(queries) * 3, dtype=np.float32).reshape(1, -1, 3)}


LEFT, RIGHT = (slice(16, 48), slice(8, 40)), (slice(16, 48), slice(56, 88))
BOTH = (slice(16, 48), slice(8, 88))


def test_queries_share_the_foreground():
    found = to_instances(outputs([LEFT, RIGHT], [(4.0, LEFT), (-4.0, BOTH), (2.0, RIGHT)]),
                         FRAME, 0.3, 10)
    assert len(found) == 2 and found.moving.all()
    np.testing.assert_array_equal(found.embeddings, [[0, 1, 2], [6, 7, 8]])
    assert not (found.masks[0] & found.masks[1]).any()
    assert found.masks[0][34:94, 18:78].all() and found.masks[1][34:94, 114:174].all()
    np.testing.assert_allclose(found.motion_scores, 1 / (1 + np.exp([-4.0, -2.0])), rtol=1e-5)
    np.testing.assert_array_equal(found.boxes[:, 2] > found.boxes[:, 0], [True, True])


def test_foreground_without_its_own_query_goes_to_the_nearest_in_logits():
    found = to_instances(outputs([BOTH], [(4.0, LEFT), (-4.0, RIGHT)]), FRAME, 0.3, 10)
    assert len(found) == 1 and found.masks[0][34:94, 18:174].all()


def test_a_query_with_a_speck_gives_it_up():
    speck = (slice(20, 21), slice(20, 21))
    given = outputs([LEFT], [(4.0, LEFT), (6.0, speck)])
    given['mask_logits'][0, 1] = np.where(given['mask_logits'][0, 1] > 0, 20, -60)
    found = to_instances(given, FRAME, 0.3, 10)
    assert len(found) == 1 and found.masks[0][34:94, 18:78].all()
    np.testing.assert_array_equal(found.embeddings, [[0, 1, 2]])


def test_what_one_query_owns_in_places_apart_is_several_instances():
    """But a speck goes with the largest part."""
    speck = (slice(4, 9), slice(60, 65))
    found = to_instances(outputs([LEFT, RIGHT, speck], [(4.0, (slice(0, 64), slice(0, 96)))]),
                         FRAME, 0.3, 10)
    assert len(found) == 2 and not (found.masks[0] & found.masks[1]).any()
    np.testing.assert_array_equal(found.embeddings, [[0, 1, 2]] * 2)
    with_speck = [mask[12, 124] for mask in found.masks]
    assert sorted(with_speck) == [False, True]
    covered = found.masks.any(0)
    assert covered[34:94, 18:78].all() and covered[34:94, 114:174].all()


def test_small_things_are_not_blurred_away():
    image = np.random.default_rng(0).normal(size=(3, 128, 224)).astype(np.float32)
    coarse = np.zeros((64, 112), np.float32)
    coarse[20:24, 40:45] = 0.9   # without an edge in the image
    coarse[40:60, 60:100] = 0.9
    found = to_image_edges(coarse, image)
    assert found[42:46, 82:88].min() > 0.5
    alone = np.where(np.arange(112) >= 60, coarse, 0).astype(np.float32)
    large = (slice(70, 128), slice(110, 224))
    np.testing.assert_array_equal(found[large] > 0.5, to_image_edges(alone, image)[large] > 0.5)


@pytest.mark.parametrize('noise', [0.0, 0.3])
def test_a_ragged_map_ends_where_the_image_has_edges(noise):
    rng, true = np.random.default_rng(0), np.zeros((128, 224), bool)
    true[40:90, 60:160] = True
    image = np.where(true, 1, -1) + noise * rng.normal(size=(3, 128, 224))
    around = cv2.resize(true.astype(np.float32), (112, 64), interpolation=cv2.INTER_AREA)
    ragged = cv2.GaussianBlur(rng.normal(size=(64, 112)), (0, 0), 1.0)
    odds = 4 * (cv2.GaussianBlur(around, (0, 0), 2.0) - 0.5) + 3 * ragged
    coarse = (1 / (1 + np.exp(-odds))).astype(np.float32)
    plain = cv2.resize(coarse, (224, 128)) > 0.5
    found = to_image_edges(coarse, image.astype(np.float32)) > 0.5
    assert (found ^ true).sum() < 0.4 * (plain ^ true).sum()


def test_nothing_is_made_of_a_faint_map():
    coarse = np.full((64, 112), 0.1, np.float32)
    found = to_image_edges(coarse, np.zeros((3, 128, 224), np.float32))
    np.testing.assert_allclose(found, 0.1, rtol=1e-6)


def test_without_edges_the_map_is_only_smoothed():
    coarse = np.zeros((64, 112), np.float32)
    coarse[20:44, 40:80] = 1.0
    found = to_image_edges(coarse, np.zeros((3, 128, 224), np.float32))
    assert found.mean() == pytest.approx(coarse.mean(), rel=0.01)
    assert found[64, 120] == pytest.approx(1.0, abs=0.01) and found[10, 20] < 0.01


def test_binary_members_give_connected_parts():
    given = {name: value for name, value in outputs([LEFT, RIGHT], []).items()
             if name.startswith('foreground')}
    found = to_instances(given, FRAME, 0.3, 10)
    assert len(found) == 2 and found.embeddings.shape == (2, 0)
    assert len(to_instances(given, FRAME, 0.3, 1)) == 1


def test_nothing_moves():
    assert len(to_instances(outputs([], [(4.0, LEFT)]), FRAME, 0.3, 10)) == 0
    moving = to_instances(outputs([LEFT], [(0.5, LEFT)]), FRAME, 0.9, 10)
    assert len(moving) == 0 and moving.embeddings.shape == (0, 3)


@pytest.mark.parametrize('name', ['foreground_logits', 'mask_logits', 'motion_logits'])
def test_outputs_that_are_not_finite_are_refused(name):
    given = outputs([LEFT], [(4.0, LEFT)])
    given[name][..., 0] = np.nan
    with pytest.raises(EngineError, match=f'{name} has'):
        to_instances(given, FRAME, 0.3, 10)


def card() -> ModelCard:
    return ModelCard('tiny', 'gmos', 'tiny.onnx', '0' * 64, (), (), ImageSpec((0.,) * 3, (1.,) * 3),
                     None, None, PostprocessSpec(8, 0.3), {}, {}, 'none',
                     EvidenceSpec((64, 96), (50.0,), False, FlowSettings((64, 96), 'medium', 0)))


def test_card_keeps_the_evidence(tmp_path: Path):
    file = tmp_path / 'tiny.onnx'
    file.write_bytes(b'a model')
    import hashlib
    written = dataclasses.replace(card(), sha256=hashlib.sha256(b'a model').hexdigest())
    save_card(written, file)
    assert load_card(file) == written


@pytest.mark.parametrize('key, value, said', [('gaps_ms', [120, 40], 'rising'),
                                              ('centred', 1, 'true or false'),
                                              ('size', 'large', 'list')])
def test_card_refuses_bad_evidence(tmp_path: Path, key, value, said):
    file = tmp_path / 'tiny.onnx'
    path = save_card(card(), file)
    values = json.loads(path.read_text())
    values['evidence'][key] = value
    path.write_text(json.dumps(values))
    with pytest.raises(EngineError, match=said):
        load_card(file)


def test_dimos_light_sees_frames_events_or_either_alone():
    """On a rendered clip that it never saw, given as the pipeline gives it: events alone with the
    images drawn of them. A window without events is as no window.
    """
    clip, model = render_clip('easy', 6, 'test'), load_model(Config(model='dimos_light', threads=1))
    frames = [clip.frame(i) for i in range(len(clip))]
    window = clip.window(4, 100_000_000)
    empty = dataclasses.replace(window, events=Events.empty())
    truth = clip.moving[4][clip.ids[4]]

    drawn = [Frame(seen.t1_ns, event_image(seen, model.card.evidence.fade_ms))
             for seen in (clip.window(i, 100_000_000) for i in range(len(clip)))]

    def found(frame, window):
        model.reset()
        around = frames if frame else drawn if window else ()
        sample = SyncedInput(frames[4].stamp_ns, '', frame, window, clip.size,
                             neighbours=tuple(around[:4]) + tuple(around[5:]),
                             drawn=drawn[4] if window and not frame else None)
        stages = StageTimes()
        masks = model.detect(sample, stages).masks
        assert {'motion', 'voxel', 'pre', 'engine', 'post'} <= stages.keys()
        return masks

    answers = {name: found(*given) for name, given in {
        'both': (frames[4], window), 'frame': (frames[4], None), 'events': (None, window),
        'no events': (frames[4], empty), 'nothing': (None, None)}.items()}
    for name in ('both', 'frame', 'events'):
        union = answers[name].any(0)
        assert (union & truth).sum() > 0.6 * (union | truth).sum(), name
    assert not np.array_equal(answers['both'], answers['frame'])
    np.testing.assert_array_equal(answers['no events'], answers['frame'])
    assert not answers['nothing'].any()
