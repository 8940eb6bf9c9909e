"""The propagator's decisions against the published code, and its members on moving pictures.

`goldens/propagation.json`: what `run_propagator` of github.com/Jyxarthur/gmos @99d314a did with the
cases of `propagation_cases.py` (2026-11-28).
"""

import json
from pathlib import Path

import cv2
import numpy as np
import propagation_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.propagation import Proposals
from mos_perception.propagation.decisions import PUBLISHED, decide
from mos_perception.propagation.flow_masks import FLOW, FlowPropagator, FrameFlow
from mos_perception.propagation.stage1 import Stage1, sweep
from mos_perception.propagation.stage2 import complete

GOLDEN = json.loads((Path(__file__).parent / 'goldens' / 'propagation.json').read_text())


@pytest.mark.parametrize('seed', range(propagation_cases.CASES))
def test_decisions_are_the_published_codes(seed):
    proposals, golden = propagation_cases.proposals_of(seed), GOLDEN[str(seed)]
    scripted = propagation_cases.Scripted(seed)
    stage = Stage1(scripted)
    scripted.log.clear()
    first = list(sweep(stage, proposals))
    if 'mos_i' not in golden:
        assert not first and not golden['log']
        return
    labels = [frame.labels for frame in first], [frame.moving_labels for frame in first]
    assert [round(sum(frame.iou.tolist()), 5) for frame in first] == golden['ious']
    assert propagation_cases.digest(labels[0]) == golden['full']
    assert propagation_cases.digest(labels[1]) == golden['mos_i']
    whole = complete(first, proposals, scripted)
    assert scripted.log == golden['log']
    assert propagation_cases.digest([frame.labels for frame in whole]) == golden['mos']


def test_the_cases_hold_every_kind_of_decision():
    logs = [case['log'] for case in GOLDEN.values()]
    first = [log[:log.index('reset')] for log in logs if 'reset' in log]
    numbers = [[line.split()[1] for line in log] for log in first]
    assert sum(len(row) > len(set(row)) for row in numbers) >= 5  # refreshed
    assert sum(log[0].split()[0] != log[-1].split()[0] for log in first) >= 10  # found later
    assert len({case.get('mos') for case in GOLDEN.values()}) > 20


def rng_proposals(rng, count):
    labels = rng.integers(0, count + 1, (6, 8))
    return Proposals(labels[None] == np.arange(1, count + 1)[:, None, None],
                     rng.random(count).astype(np.float32), rng.random(count).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6), st.integers(0, 10))
def test_a_frame_never_asks_for_more_than_there_is_room_for(seed, count, known, room):
    rng = np.random.default_rng(seed)
    proposals = rng_proposals(rng, count)
    objects = rng.random((known, 6, 8)) < 0.4
    numbers = list(range(3, 3 + known))
    prompts = decide(proposals, objects, numbers, [9] * known, room, PUBLISHED)
    new = [prompt for prompt in prompts if prompt.number is None]
    old = [prompt.number for prompt in prompts if prompt.number is not None]
    assert len(new) <= room and len(set(old)) == len(old) and set(old) <= set(numbers)
    assert all(proposals.motion[p.row] > 0.5 and proposals.quality[p.row] > 0.7 for p in prompts)


def texture(seed, size):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2)
    return np.clip(128 + 5 * (smooth - 128), 0, 255).astype(np.uint8)


def film(frames, size=(96, 128), speed=2):
    """A textured square over a textured ground: pictures and the square's masks."""
    ground, square = texture(1, size), texture(2, (30, 36))
    pictures, masks = [], np.zeros((frames, *size), bool)
    for t in range(frames):
        x = 10 + speed * min(t, 2 * frames - t)
        picture = ground.copy()
        picture[30:60, x:x + 36] = square
        masks[t, 30:60, x:x + 36] = True
        pictures.append(picture)
    return pictures, masks


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def as_proposals(masks, motion=0.9, quality=0.9):
    return [Proposals(mask[None], np.array([motion], np.float32), np.array([quality], np.float32))
            for mask in masks]


def nothing(size=(96, 128)):
    return Proposals(np.zeros((0, *size), bool), np.zeros(0, np.float32), np.zeros(0, np.float32))


def test_flow_carries_an_object_that_was_proposed_once():
    pictures, masks = film(20)
    proposals = [nothing() for _ in pictures]
    proposals[6] = as_proposals(masks)[6]
    stage = Stage1(FlowPropagator(FrameFlow(pictures), (96, 128)))
    first = list(sweep(stage, proposals))
    near = [abs(n - 6) <= 5 for n in range(20)]  # further off the mask lags behind
    assert all(iou(frame.labels == 1, mask) > (0.9 if close else 0.7)
               for frame, mask, close in zip(first, masks, near))
    assert [bool(frame.moving[0]) for frame in first] == [n == 6 for n in range(20)]
    assert first[6].iou[0] == 1 and all(0.5 <= frame.iou[0] <= 1 for frame in first)
    whole = complete(first, proposals, stage.propagator)
    assert all(iou(frame.labels == 1, mask) > (0.9 if close else 0.7)
               for frame, mask, close in zip(whole, masks, near))


def test_online_an_object_is_lost_behind_nothing_and_its_place_is_given_back():
    pictures, masks = film(12)
    empty = texture(1, (96, 128))
    pictures = pictures + [empty] * 6 + pictures
    proposals = as_proposals(masks) + [nothing()] * 6 + as_proposals(masks)
    stage = Stage1(FlowPropagator(FrameFlow(pictures), (96, 128)), FLOW, retire_after=3)
    found = [stage.step(n, given) for n, given in enumerate(proposals)]
    assert found[5].numbers == (1,) and not found[14].labels.any()
    assert found[-1].numbers == (2,) and iou(found[-1].labels == 2, masks[-1]) > 0.9
    stage.reset()
    assert stage.step(0, proposals[0]).numbers == (1,)


def test_ten_places_and_no_more():
    size = (96, 128)
    masks = np.zeros((14, *size), bool)
    for n in range(14):
        masks[n, 6 * n:6 * n + 4, 5:40] = True
    given = Proposals(masks, np.full(14, 0.9, np.float32), np.full(14, 0.9, np.float32))
    stage = Stage1(FlowPropagator(lambda frame, step: None, size))
    assert stage.step(0, given).numbers == tuple(range(1, 11))
    assert stage.step(1, given).numbers == tuple(range(1, 11))


def test_nothing_trusted_gives_nothing():
    _, masks = film(4)
    proposals = as_proposals(masks, quality=0.7)
    stage = Stage1(FlowPropagator(lambda frame, step: None, (96, 128)))
    assert list(sweep(stage, proposals)) == []
    assert stage.step(0, proposals[0]).numbers == ()
    first = [stage.step(n, nothing()) for n in range(3)]
    assert complete(first, [nothing()] * 3, stage.propagator) == []
