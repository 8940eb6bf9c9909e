"""The propagator over SAM 2.1's memory has the official video predictor's numbers, and is bounded.

`goldens/memory.json` is of `training.parity_memory` (2026-11-28, transformers 5.24).
"""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    'transformers', reason='SAM 2.1 needs transformers: pip install -r requirements/gmos.txt')

from mos_perception.propagation.sam2_memory import POINTERS, RECENT  # noqa: E402
from training import parity_memory  # noqa: E402
from training.parity import TOLERANCE  # noqa: E402
from training.parity_sam2 import official_state  # noqa: E402

GOLDENS = Path(__file__).parent / 'goldens'


@pytest.fixture(scope='module')
def propagator():
    keys = json.loads((GOLDENS / 'sam2.json').read_text())['keys']
    return parity_memory.ours(official_state(keys))


def test_numbers_are_the_official_predictors(propagator):
    golden = json.loads((GOLDENS / 'memory.json').read_text())
    names = []
    for name, carried in parity_memory.film(propagator):
        found, wanted = parity_memory.samples(carried), golden[name]
        assert found['numbers'] == wanted['numbers'], name
        for key in ('iou', 'logits'):
            np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=TOLERANCE + 1e-5,
                                       err_msg=name)
        names.append(name)
        # bounded however long the film is: a frame, those behind it, and both sides of the start
        for item in propagator._objects.values():
            kept = item.tracked.values()
            assert len(kept) <= 3 * POINTERS + 2
            assert sum(memory.features is not None for memory in kept) <= 3 * RECENT + 2
            assert sum(memory.logits is not None for memory in kept) <= 1
    assert names == list(golden)
