"""HOTA, IDF1 and MOTA against `trackeval` 1.3.0, whose numbers lie in goldens/track_scores.json."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.evaluation.track_metrics import count_tracks

GOLDENS = json.loads((Path(__file__).parent / 'goldens/track_scores.json').read_text())


def frames_of(case):
    return [(np.array(gt, np.int64), np.array(found, np.int64), np.array(table))
            for gt, found, table in case['frames']]


@pytest.mark.parametrize('case', GOLDENS)
def test_as_trackeval(case):
    scores = count_tracks(frames_of(case)).scores()
    assert scores == {name: pytest.approx(value, abs=1e-6)
                      for name, value in case['scores'].items()}


def test_perfect_tracks_and_none():
    perfect = [(np.array([4, 9]), np.array([1, 70000]), np.eye(2))] * 5
    scores = count_tracks(perfect).scores()
    assert scores == {'HOTA': 1, 'DetA': 1, 'AssA': 1, 'IDF1': 1, 'MOTA': 1, 'switches': 0}
    nobody = [(np.array([4, 9]), np.array([], np.int64), np.zeros((2, 0)))] * 5
    assert count_tracks(nobody).scores() == {'HOTA': 0, 'DetA': 0, 'AssA': 0, 'IDF1': 0, 'MOTA': 0,
                                             'switches': 0}
    assert count_tracks([]).scores()['MOTA'] == 1


def test_sequences_add_up():
    """One object followed throughout, another whose track changes in the middle."""
    one = np.ones((1, 1))
    kept = [(np.array([1]), np.array([1]), one)] * 10
    changed = [(np.array([1]), np.array([1 + (at >= 5)]), one) for at in range(10)]
    both = (count_tracks(kept) + count_tracks(changed)).scores()
    assert both['switches'] == 1 and both['IDF1'] == 0.75 and both['MOTA'] == 0.95
    assert both['HOTA'] == pytest.approx(np.sqrt((10 + 10 * 0.5) / 20))


@given(names=st.permutations(range(1, 7)), case=st.sampled_from(GOLDENS))
def test_names_say_nothing(names, case):
    frames = frames_of(case)
    table = np.array([0, *names])
    renamed = [(table[gt], 7 * found + 3, values) for gt, found, values in frames]
    assert count_tracks(renamed).scores() == pytest.approx(count_tracks(frames).scores())
