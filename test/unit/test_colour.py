"""Colours of what moves, learned on the go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.models.gmos.colour import LIMIT, ColourModel, colour_bins

SIZE = (64, 112)


def picture(colour: tuple[int, int, int], ground: tuple[int, int, int]) -> np.ndarray:
    """(3, H, W) uint8: a square of one colour on another."""
    image = np.empty((3, *SIZE), np.uint8)
    image[:] = np.array(ground, np.uint8)[:, None, None]
    image[:, 20:40, 30:60] = np.array(colour, np.uint8)[:, None, None]
    return image


def logits_of(*parts: tuple[slice, slice]) -> np.ndarray:
    found = np.full(SIZE, -4.0, np.float32)
    for part in parts:
        found[part] = 4
    return found


def test_parts_that_motion_missed_are_known_by_their_colour():
    bins = colour_bins(picture((200, 40, 40), (40, 120, 60)))
    model = ColourModel()
    model.learn(bins, logits_of((slice(20, 40), slice(30, 45))))  # half of the square
    odds = model.log_odds(bins)
    assert odds[25:35, 50:58].min() > 1, 'the other half'
    assert odds[:15].max() < -1, 'the ground'
    assert np.abs(odds).max() <= LIMIT


def test_nothing_is_known_before_the_first_answer_and_after_a_reset():
    bins = colour_bins(picture((200, 40, 40), (40, 120, 60)))
    model = ColourModel()
    assert not model.log_odds(bins).any()
    model.learn(bins, logits_of((slice(20, 40), slice(30, 60))))
    assert model.log_odds(bins).any()
    model.reset()
    assert not model.log_odds(bins).any()


def test_what_nobody_saw_is_neither():
    seen, other = picture((200, 40, 40), (40, 120, 60)), picture((10, 10, 250), (250, 250, 10))
    model = ColourModel()
    model.learn(colour_bins(seen), logits_of((slice(20, 40), slice(30, 60))))
    assert np.abs(model.log_odds(colour_bins(other))).max() < 0.01


def test_a_scene_where_nothing_moves_gives_no_preference():
    bins = colour_bins(picture((200, 40, 40), (40, 120, 60)))
    model = ColourModel()
    model.learn(bins, np.full(SIZE, -3.0, np.float32))
    assert np.abs(model.log_odds(bins)).max() < 0.3


def test_old_colours_fade():
    first, then = picture((200, 40, 40), (40, 120, 60)), picture((40, 40, 200), (40, 120, 60))
    model = ColourModel()
    model.learn(colour_bins(first), logits_of((slice(20, 40), slice(30, 60))))
    before = model.log_odds(colour_bins(first))[30, 45]
    for _ in range(200):
        model.learn(colour_bins(then), logits_of((slice(20, 40), slice(30, 60))))
    assert model.log_odds(colour_bins(then))[30, 45] > 2
    assert model.log_odds(colour_bins(first))[30, 45] < before


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_bins_are_the_high_bits_of_red_green_blue(red, green, blue):
    image = np.array([red, green, blue], np.uint8).reshape(3, 1, 1)
    assert colour_bins(image)[0, 0] == pytest.approx((red >> 4) * 256 + (green >> 4) * 16
                                                     + (blue >> 4))
