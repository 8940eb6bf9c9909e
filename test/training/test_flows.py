"""True flow in a set: coded and decoded, flipped, refused where it is unknown.

And the same from disk and online.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mos_perception.errors import ConfigError
from training.datasets.flows import decoded, mirrored, true_flows
from training.datasets.online import OnlineSet
from training.datasets.packed import PackedSet, pack
from training.losses.masks import LossWeights
from training.nets.dimos_config import DimosConfig
from training.recipes import Recipe
from training.scenes import render_clip
from training.scenes.moving_shapes import Preset2D
from training.scenes.presets import find_preset
from training.scenes.truth import flow_to_previous

RECIPE = Recipe('flows', net=DimosConfig(size=(60, 80)), batch=2,
                weights=LossWeights(flow=0.0, true_flow=1.0))
EVENTS = torch.ones(1, 2, 4, 6)


def px(coded: np.ndarray, voxel: torch.Tensor = EVENTS) -> np.ndarray:
    return decoded(coded[None], voxel)[0].numpy()


def test_flow_is_kept_to_an_eighth_of_a_pixel_of_the_network():
    clip = render_clip('mid', 3)
    flow, valid, _ = flow_to_previous('mid', 3)
    coded = true_flows(clip, RECIPE.net.size)
    assert coded.shape == (len(clip) - 1, 2, 30, 40) and coded.dtype == np.uint8
    for row, one, known in zip(coded, flow, valid):
        found, wanted, known = px(row), one[::4, ::4].transpose(2, 0, 1) / 2, known[::4, ::4]
        assert np.array_equal(np.isfinite(found[0]), known)
        assert np.abs(found - wanted)[:, known].max() <= 1 / 16 + 1e-5
    assert 0.7 < valid.mean() < 1


@given(arrays(np.uint8, (2, 4, 6), elements=st.integers(1, 255) | st.just(0)),
       st.sampled_from([0, 1]))
def test_mirrored_flow_is_flow_in_a_mirror(coded, axis):
    assert np.array_equal(mirrored(mirrored(coded, axis), axis), coded)
    found, wanted = px(mirrored(coded, axis)), np.flip(px(coded), 1 + axis).copy()
    wanted[1 - axis] *= -1
    np.testing.assert_array_equal(found, wanted)


def test_a_sample_without_events_shows_no_motion():
    coded = np.full((2, 2, 4, 6), 136, np.uint8)
    coded[0, 0, 1, 2] = 0
    flow = decoded(coded, torch.stack([torch.ones(3, 4, 6), torch.zeros(3, 4, 6)]))
    assert flow[1].isnan().all() and flow[0, :, 1, 2].isnan().all()
    assert float(flow[0].nanmean()) == 1
    assert int(flow[0].isnan().sum()) == 2


def test_a_clip_that_preset_and_seed_do_not_give_is_refused():
    changed = render_clip(find_preset('mid', object_speed=(1.0, 1.5), size=(60, 80)), 0)
    with pytest.raises(ConfigError, match='clip 0 of mid is not what'):
        true_flows(changed, RECIPE.net.size)
    flat = render_clip(Preset2D('flat', size=(32, 48), frames=4, object_px=(8, 16)), 0)
    with pytest.raises(ConfigError, match='unknown preset'):
        true_flows(flat, RECIPE.net.size)


def test_from_disk_and_online_alike_and_augmented_with_the_image(tmp_path):
    pack([render_clip('mid', 0)], 1, tmp_path / 'set', RECIPE)
    with (
        PackedSet(tmp_path / 'set', RECIPE) as packed,
        OnlineSet('mid', RECIPE, workers=0) as online,
    ):
        plain = packed.batch(np.array([4, 5]), np.random.default_rng(0), None)
        online.scene = lambda clip: (find_preset('mid'), 0)
        other = online.batch([(0, 5), (0, 6)], np.random.default_rng(0), None)
        augment = replace(RECIPE.augment, flip=1.0, drop_image=0.0, drop_events=0.0)
        turned = packed.batch(np.array([4, 5]), np.random.default_rng(0), augment)
    assert plain.flow.shape == (2, 2, 30, 40) and plain.flow.isfinite().float().mean() > 0.7
    torch.testing.assert_close(other.flow, plain.flow, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(turned.flow, -plain.flow.flip(2, 3), equal_nan=True, rtol=0, atol=0)


def test_a_set_packed_without_flow_is_refused(tmp_path):
    pack([render_clip('mid', 0)], 1, tmp_path, replace(RECIPE, weights=LossWeights()))
    with pytest.raises(ConfigError, match='holds no flow'):
        PackedSet(tmp_path, RECIPE)
