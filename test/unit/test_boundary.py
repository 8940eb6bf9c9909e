"""J and F of DAVIS, against a slow computation by distances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from mos_perception.evaluation.boundary import boundary, boundary_f, region_j


def slow_boundary(mask: np.ndarray) -> np.ndarray:
    edge = np.zeros_like(mask)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            near = mask[y:y + 2, x:x + 2]
            edge[y, x] = (near != mask[y, x]).any()
    # at the last row and column only the neighbour along the border counts, which the slice gives
    return edge


def slow_f(found: np.ndarray, truth: np.ndarray, reach: float) -> float:
    edges = slow_boundary(found), slow_boundary(truth)
    if not edges[0].any() or not edges[1].any():
        return float(not edges[0].any() and not edges[1].any())
    away = [distance_transform_edt(~edge) for edge in edges]
    precision, recall = (away[1][edges[0]] <= reach).mean(), (away[0][edges[1]] <= reach).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blob(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[:size[0], :size[1]]
    centre, radius = rng.uniform(0, size, 2), rng.uniform(2, min(size) / 2, 2)
    return ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2 ** 32 - 1), st.sampled_from([0.008, 0.03, 0.1]))
def test_f_is_that_of_distances(seed, tolerance):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(12, 48, 2))
    found, truth = blob(rng, size), blob(rng, size)
    reach = math.ceil(tolerance * math.hypot(*size))
    assert boundary_f(found, truth, tolerance=tolerance) == pytest.approx(
        slow_f(found, truth, reach))
    np.testing.assert_array_equal(boundary(found), slow_boundary(found))


def test_shift_within_the_tolerance_costs_nothing():
    mask = np.zeros((480, 854), bool)
    mask[100:300, 200:500] = True
    assert boundary_f(np.roll(mask, 8, 1), mask) == 1.0  # ceil(.008 x 979.7) = 8
    assert boundary_f(np.roll(mask, 9, 1), mask) < 1.0
    assert region_j(np.roll(mask, 30, 1), mask) == pytest.approx(270 / 330)


@pytest.mark.parametrize('score', [region_j, boundary_f])
def test_empty_masks(score):
    none, some = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    some[5:9, 5:9] = True
    assert score(none, none) == 1.0 and score(none, some) == 0.0 and score(some, none) == 0.0


@pytest.mark.parametrize('score', [region_j, boundary_f])
def test_void_counts_for_neither(score):
    truth, found, void = (np.zeros((40, 60), bool) for _ in range(3))
    truth[10:20, 10:20] = found[10:20, 10:20] = True
    found[30:36, 40:50] = void[28:38, 38:52] = True
    assert score(found, truth) < 1.0 and score(found, truth, void) == 1.0
