"""The packed set: what its batches hold, how they are augmented, which targets they have."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from squares import FULL, NET, PERIOD, RECIPE, square_clip

from mos_perception.errors import ConfigError
from mos_perception.events.voxel import voxelize
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.evidence import EvidenceSpec, channel_count
from mos_perception.motion.flow import FlowSettings
from mos_perception.motion.scene_motion import from_frames
from training.datasets.batches import instances
from training.datasets.packed import PackedSet, pack
from training.recipes import Augmentation, VoxelSettings


def test_batch_holds_what_the_clips_hold(packed):
    batch = packed.batch(np.array([0, 5]), np.random.default_rng(0), None)
    assert batch.image.shape == (2, 3, 32, 48) and batch.voxel.shape == (2, 10, 32, 48)
    # the square at rest belongs to the background
    assert batch.targets.labels.tolist() == [[0, 1], [0, 1]]
    clip = square_clip(1)
    box = batch.targets.boxes[1, 1].tolist()
    rows, columns = np.nonzero(clip.ids[3] == 1)
    assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = (clip.frames[3] / 255 - mean) / std
    found = batch.unaugmented[1].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    events = clip.events.between(2 * PERIOD, 3 * PERIOD)
    seen = set(zip(*np.nonzero(batch.voxel[1].sum(0).numpy())))
    assert seen == set(zip(events.y, events.x))
    shares = batch.targets.masks.sum(1)
    assert float(shares.min()) == float(shares.max()) == 1


def test_augmentation_moves_image_voxel_and_mask_alike(packed):
    augment = replace(RECIPE.augment, flip=1.0, polarity_swap=1.0, drop_image=0.0, drop_events=0.0)
    plain = packed.batch(np.arange(3), np.random.default_rng(0), None)
    turned = packed.batch(np.arange(3), np.random.default_rng(0), augment)
    torch.testing.assert_close(turned.unaugmented, plain.unaugmented.flip(2, 3))
    torch.testing.assert_close(turned.targets.masks, plain.targets.masks.flip(2, 3))
    torch.testing.assert_close(turned.voxel, plain.voxel.flip(2, 3).roll(5, 1))
    x0, y0, x1, y1 = plain.targets.boxes[0, 1].tolist()
    assert turned.targets.boxes[0, 1].tolist() == [48 - x1, 32 - y1, 48 - x0, 32 - y0]


def test_modality_dropout_zeroes_one_input_and_keeps_the_targets(packed):
    augment = replace(RECIPE.augment, drop_image=0.5, drop_events=0.5)
    batch = packed.batch(np.zeros(40, int), np.random.default_rng(0), augment)
    gone = [(x.flatten(1) == 0).all(1) for x in (batch.image, batch.voxel)]
    assert (gone[0] ^ gone[1]).all() and 10 <= int(gone[0].sum()) <= 30
    assert (batch.targets.labels == torch.tensor([0, 1])).all()


def test_small_and_surplus_moving_objects_are_background():
    ids = np.zeros((32, 48), np.uint8)
    for k in range(1, 6):
        ids[6 * (k - 1):6 * (k - 1) + k, :10] = k
    moving = np.array([0, 1, 1, 1, 0, 1])
    # areas 10, 20, 30, (40 at rest), 50; at most queries - 1 = 3
    masks, boxes = instances(ids, moving, RECIPE)
    assert [int(m.sum()) for m in masks] == [50, 30, 20]
    assert boxes[0].tolist() == [0, 24, 10, 29]


def test_released_targets_keep_masks_without_pixels():
    """Ids run from 1 to the largest of the frame; one that is absent is a target all the same."""
    ids = np.zeros((32, 48), np.uint8)
    ids[:6, :10], ids[10:20, 20:40] = 2, 4
    # 1 is absent, 3 rests, 5 is absent but above the largest id
    moving = np.array([0, 1, 1, 0, 1, 1])
    assert len(instances(ids, moving, RECIPE)[0]) == 2
    masks, boxes = instances(ids, moving, replace(RECIPE, empty_masks=True))
    assert [int(m.sum()) for m in masks] == [200, 60, 0]
    assert boxes.tolist() == [[20, 10, 40, 20], [0, 0, 10, 6], [-1, -1, -1, -1]]
    few = replace(RECIPE, empty_masks=True, net=replace(NET, queries=3))
    masks, _ = instances(ids, moving, few)
    assert [int(m.sum()) for m in masks] == [200, 60]  # what is there goes first


def test_a_set_packed_for_other_settings_is_refused(packed, tmp_path):
    with pytest.raises(ConfigError, match='no packed set'):
        PackedSet(tmp_path, RECIPE)
    pack([square_clip(0)], 1, tmp_path, RECIPE)
    with pytest.raises(ConfigError, match='pack it again'):
        PackedSet(tmp_path, replace(RECIPE, window_ns=10_000_000))


def test_the_second_frame_of_a_sample_is_its_neighbour_and_augmented_alike(packed, monkeypatch):
    monkeypatch.setattr(packed, 'recipe', FULL)
    samples = np.array([0, 5])  # clip 0 frame 1 and clip 1 frame 3, the last
    plain = packed.batch(samples, np.random.default_rng(0), None)
    assert len(plain.image) == 4
    monkeypatch.setattr(packed, 'recipe', RECIPE)
    wanted = packed.batch(np.array([0, 5, 1, 4]), np.random.default_rng(0), None)
    assert torch.equal(plain.image, wanted.image) and torch.equal(plain.voxel, wanted.voxel)
    monkeypatch.setattr(packed, 'recipe', FULL)
    always = Augmentation(flip=1.0, polarity_swap=1.0, brightness=0, contrast=0, drop_image=0,
                          drop_events=0)
    turned = packed.batch(samples, np.random.default_rng(0), always)
    assert torch.equal(turned.image, plain.image.flip(2, 3))
    assert torch.equal(turned.voxel, plain.voxel.flip(2, 3).roll(5, 1))
    half = Augmentation(flip=0, polarity_swap=0, drop_image=0.5, drop_events=0.5)
    for seed in range(4):
        dropped = packed.batch(samples, np.random.default_rng(seed), half)
        no_image = (dropped.image == 0).flatten(1).all(1)
        no_events = (dropped.voxel == 0).flatten(1).all(1)
        assert torch.equal(no_image[:2], no_image[2:]) and torch.equal(no_image, ~no_events)


def test_pairs_need_clips_of_three_frames(tmp_path):
    clip = square_clip(0)
    short = replace(clip, frames=clip.frames[:2], ids=clip.ids[:2], stamps_ns=clip.stamps_ns[:2],
                    moving=clip.moving[:2])
    pack([short], 1, tmp_path, RECIPE)
    assert len(PackedSet(tmp_path, RECIPE)) == 1
    with pytest.raises(ConfigError, match='needs 3'):
        PackedSet(tmp_path, FULL)


SPEC = EvidenceSpec(NET.size, flow=FlowSettings((64, 96)))
SEEING = replace(RECIPE, net=replace(NET, evidence_channels=channel_count(SPEC)), evidence=SPEC,
                 compensated=True)


@pytest.fixture(scope='module')
def seeing(tmp_path_factory):
    folder = tmp_path_factory.mktemp('evidence')
    pack((square_clip(seed) for seed in range(2)), 2, folder, SEEING, 'squares')
    return PackedSet(folder, SEEING)


def test_evidence_and_compensated_events_are_the_runtime_s(seeing):
    batch, clip = seeing.batch(np.array([4]), np.random.default_rng(0), None), square_clip(1)
    frames = [clip.frame(i) for i in range(4)]
    found = EvidenceBuilder(SPEC).build(frames[2], frames)
    np.testing.assert_allclose(batch.evidence[0], found.tensor, atol=3 / 127 + 1e-6)
    window = clip.window(2, SEEING.window_ns)
    motion = from_frames(window, found, int(clip.stamps_ns[2]))
    voxel = VoxelSettings()
    wanted = voxelize(window, out_size=NET.size, motion=motion, bins=voxel.bins,
                      norm_floor=voxel.norm_floor)
    np.testing.assert_allclose(batch.voxel[0], wanted, atol=0.5 / 255 + 1e-6)


def test_evidence_is_flipped_with_its_flow_and_gone_with_the_image(seeing):
    augment = replace(RECIPE.augment, flip=1.0, drop_image=0.0, drop_events=0.0, causal=0.0)
    plain = seeing.batch(np.arange(3), np.random.default_rng(0), None).evidence
    turned = seeing.batch(np.arange(3), np.random.default_rng(0), augment).evidence
    signs = torch.ones(8)
    signs[:2] = -1  # both axes
    torch.testing.assert_close(
        turned.unflatten(1, (4, 8)), plain.flip(2, 3).unflatten(1, (4, 8)) * signs[:, None, None])
    blind = replace(augment, flip=0.0, drop_image=1.0)
    assert not seeing.batch(np.arange(3), np.random.default_rng(0), blind).evidence.any()
    back = seeing.batch(np.arange(3), np.random.default_rng(0),
                        replace(augment, flip=0.0, causal=1.0)).evidence.unflatten(1, (4, 8))
    torch.testing.assert_close(back[:, :2], plain.unflatten(1, (4, 8))[:, :2])
    torch.testing.assert_close(back[:, 2:], back[:, :2] * signs[:, None, None])


def test_a_set_without_evidence_is_refused_by_a_recipe_that_sees_it(packed, tmp_path):
    pack([square_clip(0)], 1, tmp_path, RECIPE, 'squares')
    with pytest.raises(ConfigError, match='pack it again'):
        PackedSet(tmp_path, SEEING)
