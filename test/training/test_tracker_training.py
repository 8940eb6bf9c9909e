"""The referring tracker's training: batches that mean what they say, runs that learn and go on."""

import dataclasses

import numpy as np
import pytest
import torch

from mos_perception.errors import DatasetError, EngineError
from mos_perception.tracking.tokens import LOOKS, SHAPE, Tokens
from training.scenes import render_clip
from training.tracker_batches import IGNORED, NOISES, Curriculum, batch, disturbed, harder, sample
from training.tracker_cache import (
    PRESET,
    Sequence,
    load_folder,
    load_sequence,
    named,
    true_instances,
    true_sequence,
)
from training.train_tracker import Run, main, right, tracker_loss, unroll

PLAIN = Curriculum(strides=(1,), backwards=0, covered=0, missed=0, alike=0, jumps=0, blind=0,
                   noise='none', lost_s=(1.0, 1.0))
PERIOD_NS = 33_333_333


def passing(frames: int = 10) -> Sequence:
    """Two objects of other looks that go through each other, instances in changing order."""
    looks = np.zeros((2, LOOKS), np.float32)
    looks[0, 0] = looks[1, 1] = 1
    found, objects = [], []
    for at in range(frames):
        x = 0.1 + 0.06 * at
        boxes = np.array([[x, 0.4, x + 0.1, 0.5], [0.9 - x, 0.4, 1 - x, 0.5]], np.float32)
        order = [0, 1] if at % 2 else [1, 0]
        found.append(Tokens(np.zeros((2, 4), np.float32), looks,
                            np.ones((2, SHAPE, SHAPE), np.float32), boxes,
                            np.ones(2, np.float32)).take(order))
        objects.append(np.array([1, 2])[order])
    return Sequence(found, objects, np.arange(frames) * PERIOD_NS)


def test_an_object_keeps_the_slot_in_which_it_began():
    made = sample(passing(), PLAIN, np.random.default_rng(0))
    assert made['empty'][0].all() and sorted(made['born'][0][:2]) == [0, 1]
    assert (made['born'][1:] == -1).all()
    assert (made['empty'].sum(1)[1:] == PLAIN.slots - 2).all()
    looks = made['frame'][:, :, 4:4 + LOOKS]
    of_slot = [looks[0, made['born'][0][slot]] for slot in (0, 1)]
    for at in range(1, PLAIN.frames):
        for slot in (0, 1):
            assert (looks[at, made['target'][at, slot]] == of_slot[slot]).all()


def test_who_is_covered_has_no_instance_and_comes_back_to_its_slot():
    sequence = passing()
    gone = (3, 4)
    frames = [frame.take(names != 1) if at in gone else frame
              for at, (frame, names) in enumerate(zip(sequence.frames, sequence.objects))]
    objects = [names[names != 1] if at in gone else names
               for at, names in enumerate(sequence.objects)]
    curriculum = dataclasses.replace(PLAIN, frames=10)
    made = sample(Sequence(frames, objects, sequence.stamps_ns), curriculum,
                  np.random.default_rng(0))
    slot = int(np.flatnonzero(made['born'][0] == np.flatnonzero(objects[0] == 1)[0])[0])
    assert made['target'][list(gone), slot].tolist() == [curriculum.slots] * 2
    assert objects[5][made['target'][5, slot]] == 1


def test_who_is_unknown_is_in_no_loss():
    sequence = passing()
    unknown = Sequence(sequence.frames, [np.zeros(2, np.int64)] * 10, sequence.stamps_ns)
    made = batch([unknown], PLAIN, np.random.default_rng(0), 2)
    assert (made.target == IGNORED).all() and not made.empty[:, 1:, :2].any()
    logits = torch.zeros(PLAIN.frames, 1, 2, PLAIN.slots, PLAIN.slots + 1)
    assert tracker_loss(logits, made.target) == 0 and np.isnan(right(logits, made.target))


def test_who_is_unknown_lets_go_of_what_is_somebodys():
    sequence = passing(PLAIN.frames)
    objects = [np.zeros(2, np.int64), *sequence.objects[1:]]
    made = sample(Sequence(sequence.frames, objects, sequence.stamps_ns), PLAIN,
                  np.random.default_rng(0))
    assert (made['born'][0, :2] >= 0).all() and (made['target'][1, :2] == PLAIN.slots).all()
    assert sorted(made['born'][1][2:4]) == [0, 1] and (made['target'][2, 2:4] < 2).all()


def test_noise_moves_what_slots_start_from():
    initial = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = {noise: disturbed(initial, noise, np.random.default_rng(2)) for noise in NOISES}
    assert (found['none'] == initial).all()
    assert sorted(found['rs'][:, 0]) == sorted(initial[:, 0]) and (found['rs'] != initial).any()
    other = found['wa'] - initial
    np.testing.assert_allclose(other, np.tile(other[:, :1], 6), atol=1e-5)
    changed = found['cc'] != initial
    assert changed.any() and not changed[:, 0].any()


@pytest.mark.parametrize('seed', range(5))
def test_harder_sequences_stay_sequences(seed):
    hard = Curriculum(covered=1, missed=0.2, alike=1, jumps=1, blind=0.5)
    made, everything = harder(passing(), hard, np.random.default_rng(seed))
    assert (np.diff(made.stamps_ns) > 0).all() and len(made.frames) == len(everything)
    for frame, names in zip(made.frames, made.objects):
        assert len(frame) == len(names) <= 2
    made = batch([passing(3)], hard, np.random.default_rng(seed), 2)
    assert made.frame.shape[:2] == (2, hard.frames) and made.target.max() <= hard.slots


def test_what_is_cached_is_read_again(tmp_path):
    clip = render_clip(dataclasses.replace(PRESET, duration_s=0.2), 3)
    made = true_sequence(clip, 5)
    made.save(tmp_path / 'a.npz')
    again = load_sequence(tmp_path / 'a.npz')
    assert len(again.frames) == len(clip) and (again.stamps_ns == clip.stamps_ns).all()
    for one, other in zip(made.frames, again.frames):
        assert all((getattr(one, name) == getattr(other, name)).all()
                   for name in ('embeddings', 'looks', 'shapes', 'boxes', 'scores'))
    truth, ids = true_instances(clip, 2)
    objects, owner = named(truth, clip.ids[2])
    assert (objects == ids).all() and (owner[ids] == np.arange(len(ids))).all()


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match='no \\*.npz in .*training.tracker_cache'):
        load_folder([tmp_path])
    (tmp_path / 'a.npz').write_bytes(b'nothing')
    with pytest.raises(DatasetError, match=r'a\.npz is no file of .*delete it'):
        load_folder([tmp_path])
    passing().save(tmp_path / 'a.npz')
    other = [dataclasses.replace(frame, embeddings=np.zeros((2, 5), np.float32))
             for frame in passing().frames]
    Sequence(other, passing().objects, passing().stamps_ns).save(tmp_path / 'b.npz')
    with pytest.raises(DatasetError, match=r'\[4, 5\] channels'):
        load_folder([tmp_path])


def test_a_run_goes_on_as_if_never_stopped(tmp_path):
    passing().save(tmp_path / 'a.npz')
    command = ['--data', str(tmp_path), '--batch', '2', '--steps']
    main([*command, '4', '--run', str(tmp_path / 'one')])
    run = Run(tmp_path / 'two', 4, Curriculum(), 1e-3)
    for step in range(2):
        run.step(batch([passing()], Curriculum(), np.random.default_rng([0, step]), 2), step / 4)
    run.save()
    main([*command, '4', '--run', str(tmp_path / 'two')])
    one, two = (Run(tmp_path / name, 4, Curriculum(), 1e-3) for name in ('one', 'two'))
    assert one.steps == two.steps == 4
    for a, b in zip(one.network.parameters(), two.network.parameters()):
        assert (a == b).all()
    with pytest.raises(EngineError, match='embeddings of 4 channels, the data has 7'):
        Run(tmp_path / 'one', 7, Curriculum(), 1e-3)


def test_overfits_objects_that_go_through_each_other(tmp_path):
    run = Run(tmp_path, 4, Curriculum(), 1e-2)
    made = batch([passing()], dataclasses.replace(PLAIN, flow=0), np.random.default_rng(0), 1)
    first, _ = run.step(made, 0.1)
    for _ in range(40):
        loss, share = run.step(made, 0.1)
    assert loss < first / 5 and share == 1
    logits = unroll(run.network, made)
    assert torch.isfinite(logits[..., -1]).all()
