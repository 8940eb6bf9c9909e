"""MOS-I against the official script: `goldens/mos_i.json` has what github.com/Jyxarthur/gmos'
`metrics/benchmark_mos_i.py` @99d314a gave for the cases of `mos_i_cases.py` on 2026-11-28.
"""

import json
from pathlib import Path

import mos_i_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.errors import ConfigError
from mos_perception.evaluation.mos_i import CHANNELS, MATCHINGS, MosI, count_cells

GOLDEN = json.loads((Path(__file__).parent / 'goldens' / 'mos_i.json').read_text())
VALUES = ('J_mov', 'mtIoU', 'FP_count')


def labels(anno, frames):
    moving = np.zeros((frames, CHANNELS), bool)
    for number, spans in anno.items():
        for first, last in spans:
            moving[first:last + 1, int(number) - 1] = True
    return moving


def scored(sequences):
    total = MosI()
    for index, (truth, found, anno, gate) in enumerate(sequences):
        if anno:  # as the script: without any motion label a sequence is left out
            total.add(f's{index}', count_cells(truth, found, labels(anno, len(truth)), gate))
    return total


@pytest.mark.parametrize('name', mos_i_cases.NAMES)
def test_numbers_are_the_official_scripts(name):
    total = scored(mos_i_cases.case(name))
    for matching in MATCHINGS:
        found = total.summary(matching)
        assert [found[key] for key in VALUES] == pytest.approx(
            GOLDEN[name][matching], rel=2e-7, abs=1e-9), matching


@pytest.mark.parametrize('matching', MATCHINGS)
def test_a_perfect_tracker_has_one_one_nought(matching):
    for mode in ('parity', 'strict'):
        found = scored(mos_i_cases.case('perfect')).summary(matching, mode)
        assert found == pytest.approx({'J_mov': 1, 'mtIoU': 1, 'FP_count': 0})


def test_strict_differs_only_where_a_mover_is_hidden():
    hidden = scored(mos_i_cases.case('hidden mover'))
    assert hidden.summary()['mtIoU'] > 1  # the official script's quirk
    assert hidden.summary(mode='strict') == pytest.approx({'J_mov': 1, 'mtIoU': 1, 'FP_count': 0})
    seen = scored(mos_i_cases.case('extra static'))
    assert seen.summary() == seen.summary(mode='strict')


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_names_of_predictions_do_not_matter_and_strict_is_bounded(seed):
    truth, found, anno, _ = mos_i_cases._random(np.random.default_rng(seed))
    score = scored([(truth, found, anno, None)]).summary('frame', 'strict')
    assert 0 <= score['mtIoU'] <= 1 and score['FP_count'] >= 0
    moves = np.concatenate([np.zeros((len(truth), 1), bool), labels(anno, len(truth))], 1)
    names = np.concatenate([[0], np.random.default_rng(seed).permutation(CHANNELS) + 1])
    shown = np.where(moves[np.arange(len(truth))[:, None, None], truth], names[truth], 0)
    for matching in MATCHINGS:
        perfect = scored([(truth, shown, anno, None)]).summary(matching, 'strict')
        assert perfect['FP_count'] == 0 and perfect['J_mov'] in (None, pytest.approx(1))
        if perfect['J_mov'] is not None:
            assert perfect['mtIoU'] == pytest.approx(1)


def test_bad_input_is_refused():
    image = np.zeros((2, 4, 5), np.uint8)
    with pytest.raises(ConfigError, match='prediction of frame 0 has id 255'):
        count_cells(image, image + 255, np.zeros((2, CHANNELS), bool))
    with pytest.raises(ConfigError, match='no row among 1'):
        count_cells(image, image, np.zeros((1, CHANNELS), bool))
    total = MosI()
    with pytest.raises(ConfigError, match='no frames'):
        total.add('a', count_cells(image[:0], image[:0], np.zeros((0, CHANNELS), bool)))
    total.add('a', count_cells(image, image, np.zeros((2, CHANNELS), bool)))
    with pytest.raises(ConfigError, match='twice'):
        total.add('a', count_cells(image, image, np.zeros((2, CHANNELS), bool)))
    assert total.summary()['J_mov'] is None and MosI().summary()['mtIoU'] is None
