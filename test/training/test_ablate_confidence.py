"""The ablation of the confidence: which labels are turned round, and its table."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.ablate_confidence import make_samples, rows_of, said_to_move, train, turned
from training.scenes import render_clip
from training.scenes.presets import find_preset


@pytest.fixture(scope='module')
def clip():
    preset = find_preset('video-long', events=False, duration_s=0.5, moving_objects=(2, 2),
                         static_camera=1.0, empty=0.0, start_stop=0.0)
    clip = render_clip(preset, 3, 'train')
    moving = np.zeros_like(clip.moving)
    moving[:, 1], moving[8:, 2] = True, True  # one always, one from frame 8 on
    return replace(clip, moving=moving)


def test_only_what_starts_or_stops_nearby_is_turned_round(clip):
    near = [turned(clip, at) for at in range(len(clip))]
    assert not any(row[1] for row in near)
    np.testing.assert_array_equal(np.flatnonzero([row[2] for row in near]), range(5, 11))


def test_wrong_labels_are_those_of_such_objects(clip):
    samples = make_samples([clip] * 12)
    said, wrong = (samples.label > 0).any((1, 2)), samples.flipped
    assert 0 < wrong.sum() < len(samples) == 36 and not wrong[~samples.near].any()
    assert said.all()  # the first object moves in every frame


@pytest.mark.parametrize('at, right, wrong', [
    (2, [True, False], [True, False]), (6, [True, False], [True, True]),
    (9, [True, True], [True, False]), (11, [True, True], [True, True])])
def test_what_is_said_to_move(clip, at, right, wrong):
    assert said_to_move(clip, at, False)[1:].tolist() == right
    assert said_to_move(clip, at, True)[1:].tolist() == wrong


def test_a_short_training_is_finite_and_another_when_weighted(clip):
    torch.set_num_threads(1)
    samples = make_samples([clip])
    plain, again, weighted = (train(samples, 3, 0, flag).state_dict()
                              for flag in (False, False, True))
    assert all(bool(value.isfinite().all()) for value in weighted.values())
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert not all(torch.equal(plain[name], weighted[name]) for name in plain)


def test_the_table_has_means_and_the_spread_of_the_gains():
    found = {'without': [{'J_mov': 0.25}, {'J_mov': 0.5}],
             'with': [{'J_mov': 0.5}, {'J_mov': 0.75}]}
    assert rows_of(found) == [('J_mov', '0.375', '0.625', '+0.250 (+0.250 to +0.250)')]
