"""The Temporal Refiner's training: windows that mean what they say, runs that learn and go on."""

import dataclasses

import numpy as np
import pytest
import torch

from mos_perception.engine.model_files import find_model
from mos_perception.errors import DatasetError, EngineError
from mos_perception.tracking.tokens import LOOKS, SHAPE, Tokens
from mos_perception.tracking.windows import RELATION, STATE
from training.nets.dvis import DvisConfig
from training.nets.instance_refiner import InstanceRefiner
from training.refiner_batches import (
    CURRICULUM,
    FrozenTracker,
    Pool,
    Source,
    cluttered,
    collate,
    load_sources,
    rectangles,
    truth_of,
    window,
)
from training.tracker_batches import IGNORED
from training.tracker_cache import Sequence
from training.train_refiner import Run, main, refiner_loss, right

PERIOD_NS = 33_333_333
PLAIN = dataclasses.replace(CURRICULUM, frames=8, strides=(1,), backwards=0, covered=0, missed=0,
                            alike=0, jumps=0, blind=0)


def passing(frames: int = 10) -> Sequence:
    """Two objects of other looks that go through each other."""
    looks = np.zeros((2, LOOKS), np.float32)
    looks[0, 0] = looks[1, 1] = 1
    found = []
    for at in range(frames):
        x = 0.1 + 0.06 * at
        boxes = np.array([[x, 0.4, x + 0.1, 0.5], [0.9 - x, 0.4, 1 - x, 0.5]], np.float32)
        found.append(Tokens(np.zeros((2, 96), np.float32), looks,
                            np.ones((2, SHAPE, SHAPE), np.float32), boxes,
                            np.ones(2, np.float32)))
    return Sequence(found, [np.array([1, 2])] * frames, np.arange(frames) * PERIOD_NS)


@pytest.fixture(scope='module')
def tracker():
    return FrozenTracker(find_model('referring_nano', 'trackers'))


def test_who_owns_an_object_and_who_does_not():
    objects = [np.array([4, 7]), np.array([7, 4]), np.array([4]), np.array([0, 4])]
    # slot 0 has 4 in two frames, slot 1 is 7, slot 2 has 4 once, slot 3 is nobody
    seen = np.array([[0, 1, -1, -1], [1, 0, -1, -1], [-1, -1, 0, -1], [-1, -1, -1, 0]])
    target, flags = truth_of(objects, seen, frozenset({4}), 2)
    assert target[:, 0].tolist() == [0, 1, 0, 1]  # also where the tracker lost it
    assert target[:, 1].tolist() == [1, 0, 2, 2]
    assert target[:, 2].tolist() == [2] * 4
    assert (target[:, 3] == IGNORED).all()
    assert flags.tolist() == [1, 0, 0, 0]  # 7 never moves


def test_the_frozen_tracker_follows_what_is_plain(tracker):
    frames = tracker.follow(passing(), 1.0)
    assert [frame.ids.tolist() for frame in frames] == [[1, 2]] * 10
    assert [frame.instance.tolist() for frame in frames] == [[0, 1]] * 10
    outside = Tokens(np.zeros((1, 96), np.float32), np.zeros((1, LOOKS), np.float32),
                     np.ones((1, SHAPE, SHAPE), np.float32),
                     np.array([[1.2, -0.4, 1.5, -0.1]], np.float32), np.ones(1, np.float32))
    assert rectangles(outside).masks.sum() == 1


def test_windows_beside_each_other(tracker):
    rng = np.random.default_rng(0)
    source = Source(passing(), frozenset({1}))
    made = [window(source, tracker, PLAIN, rng),
            window(Source(passing(6), frozenset()), tracker, PLAIN, rng)]
    given = collate(made)
    frames, slots = given.target.shape[1:]
    count = given.inputs['padding'].shape[2]
    assert frames == 8 and given.inputs['relations'].shape == (2, 8, slots, count, RELATION)
    assert (given.target[1, 6:] == IGNORED).all() and (given.inputs['padding'][1, 6:] == 1).all()
    assert given.objects[0].sum() == 1 and given.objects[1].sum() == 0
    known = given.target[given.target != IGNORED]
    assert known.min() >= 0 and known.max() <= count
    network = InstanceRefiner()
    with torch.no_grad():
        logits, objects = network(**given.inputs, empty=given.empty)
        alone = collate(made[1:])
        own, flags = network(**alone.inputs, empty=alone.empty)
    assert logits.shape == (2, 2, 8, slots, count + 1) and objects.shape == (2, 2, slots)
    assert torch.isfinite(logits).all() and np.isfinite(right(logits, given))
    assert flags.shape[-1] <= slots and torch.isfinite(own).all()


def test_what_is_no_slot_and_no_instance_counts_for_nothing():
    torch.manual_seed(0)
    network = InstanceRefiner(DvisConfig(width=8, heads=2, feed_forward=12, blocks=1, classes=1,
                                         mask_width=8)).eval()
    shapes = {'queries': (1, 4, 3, 8), 'padding': (1, 4, 3), 'slots': (1, 4, 3, 8),
              'state': (1, 4, 3, STATE), 'relations': (1, 4, 3, 3, RELATION)}
    inputs = {name: torch.randn(shape) for name, shape in shapes.items()}
    inputs['padding'] = torch.zeros(1, 4, 3)
    inputs['padding'][..., 2] = 1
    empty = torch.tensor([[False, False, True]])
    cut = {name: value[:, :, :2] for name, value in inputs.items()}
    cut['relations'] = inputs['relations'][:, :, :2, :2]
    with torch.no_grad():
        logits, objects = network(**inputs, empty=empty)
        own, flags = network(**cut)
    torch.testing.assert_close(logits[:, :, :, :2, [0, 1, 3]], own)
    torch.testing.assert_close(objects[..., :2], flags)
    assert (logits[..., 2] < -1e3).all()


def test_clutter_is_nobodys():
    rng = np.random.default_rng(3)
    made = [cluttered(passing(), rng) for _ in range(6)]
    assert any(len(frame) > 2 for one in made for frame in one.frames)
    for one in made:
        for frame, names in zip(one.frames, one.objects, strict=True):
            assert names[:2].tolist() == [1, 2] and (names[2:] == 0).all()
            assert len(frame) == len(names) and (frame.scores <= 1).all()


def test_a_run_goes_on_as_if_never_stopped(tmp_path, tracker):
    passing().save(tmp_path / 'a.npz')
    command = ['--data', str(tmp_path), '--batch', '2', '--windows', '3', '--steps']
    main([*command, '4', '--run', str(tmp_path / 'one')])
    pool = Pool(load_sources([tmp_path]), tracker, CURRICULUM, 3, 0)
    run = Run(tmp_path / 'two', tracker.card.sha256, CURRICULUM, 1e-3)
    for step in range(2):
        run.step(pool.batch(np.random.default_rng([0, step]), 2), step / 4)
    run.save()
    main([*command, '4', '--run', str(tmp_path / 'two')])
    one, two = (Run(tmp_path / name, tracker.card.sha256, CURRICULUM, 1e-3)
                for name in ('one', 'two'))
    assert one.steps == two.steps == 4
    for a, b in zip(one.network.parameters(), two.network.parameters()):
        assert (a == b).all()
    with pytest.raises(EngineError, match='holds a run behind a tracker of sha256'):
        Run(tmp_path / 'one', '0' * 64, CURRICULUM, 1e-3)
    with pytest.raises(DatasetError, match='no \\*.npz in .*training.tracker_cache'):
        load_sources([tmp_path / 'one'])


def test_overfits_a_window(tmp_path, tracker):
    made = window(Source(passing(), frozenset({1})), tracker, PLAIN, np.random.default_rng(0))
    given = collate([made])
    run = Run(tmp_path, tracker.card.sha256, CURRICULUM, 5e-3)
    first, _ = run.step(given, 0.1)
    for _ in range(40):
        loss, share = run.step(given, 0.1)
    assert loss < first / 5 and share == 1
    with torch.no_grad():
        logits, objects = run.network(**given.inputs, empty=given.empty)
    assert refiner_loss(logits, objects, given) < first / 5
