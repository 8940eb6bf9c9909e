"""DAVIS' unsupervised protocol against davisvideochallenge/davis2017-evaluation @ac7c43f, whose
answers for the cases of `davis_cases.py` are `goldens/davis.json` (2026-11-28).
"""

import json
from pathlib import Path

import davis_cases
import numpy as np
import pytest

from mos_perception.errors import ConfigError
from mos_perception.evaluation.davis_protocol import DavisScores, grouped, statistics, unsupervised

GOLDEN = json.loads((Path(__file__).parent / 'goldens' / 'davis.json').read_text())


@pytest.mark.parametrize('protocol', [unsupervised, grouped])
def test_numbers_are_the_official_evaluations(protocol):
    total, rows = DavisScores(), []
    for seed in range(davis_cases.CASES):
        truth, found = davis_cases.case(seed)
        void = truth == 255
        if not truth[0][~void[0]].any():
            continue  # the original sees no object there; grouped, we do, when it comes
        scores = protocol(np.where(void, 0, truth), found, void)
        total.add(f's{seed}', scores)
        rows += sorted(values.mean() for values in scores.j)
    summary, golden = total.summary(), GOLDEN[protocol.__name__]
    for name, (mean, _) in golden.items():
        assert summary[name] == pytest.approx(mean, abs=1e-12), name
    assert summary['J&F'] == pytest.approx((golden['J_mean'][0] + golden['F_mean'][0]) / 2)
    assert sorted(rows) == pytest.approx(sorted(golden['J_mean'][1]), abs=1e-12)


def test_objects_are_those_of_the_first_frame_and_keep_their_order():
    truth = np.zeros((3, 20, 20), np.uint8)
    truth[:, 2:8, 2:8] = 1
    truth[1:, 12:18, 12:18] = 2
    found = np.where(truth == 1, 5, 0)
    assert unsupervised(truth, found).j.tolist() == [[1, 1, 1]]
    assert unsupervised(truth[1:], found[1:]).j.tolist() == [[1, 1], [0, 0]]
    assert grouped(truth, found).j[0].tolist() == [1, 0.5, 0.5]


def test_statistics_of_one_frame():
    assert statistics(np.array([0.75])) == (0.75, 1, 0)


def test_bad_input_is_refused():
    image = np.zeros((2, 6, 7), np.uint8)
    for protocol in (unsupervised, grouped):
        with pytest.raises(ConfigError, match='ends before frame 1'):
            protocol(image, image[:1])
        with pytest.raises(ConfigError, match='size of the truth'):
            protocol(image, image[:, :5])
        with pytest.raises(ConfigError, match='at least one'):
            protocol([], [])
    with pytest.raises(ConfigError, match='1 to 20'):
        unsupervised(image, image + 21)
    total = DavisScores()
    assert total.summary()['J&F'] is None
    total.add('a', unsupervised(image, image))
    assert total.summary()['J&F'] is None  # nothing to find: no object
    with pytest.raises(ConfigError, match='twice'):
        total.add('a', unsupervised(image, image))
