"""The truth against itself by independent means: warping, reprojection, counting, finite
differences."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mos_perception.errors import ConfigError
from training.scenes import paths, render_clip, render_truth
from training.scenes.presets import EventSensor, find_preset
from training.scenes.truth import flow_to_previous
from training.scenes.world import build_world

torch.set_num_threads(1)
EXACT = find_preset('mid', size=(180, 240), duration_s=0.2, shadows=0.0, empty=0.0, read_noise=0.0,
                    light=(1e12, 1e12), exposure_s=(1e-6, 1e-6), start_stop=0.0)
KINDS = {'rigid': {'articulated': 0.0, 'deforming': 0.0},
         'articulated': {'articulated': 1.0, 'deforming': 0.0},
         'deforming': {'articulated': 0.0, 'deforming': 1.0},
         'ground': {'ground': 1.0, 'occluders': 1.0}}


@pytest.mark.parametrize('kind', KINDS)
def test_flow_warps_the_next_frame_onto_this_one(kind):
    """Mean absolute error <= 1/255 off occlusions; the warp is OpenCV's, bicubic."""
    preset = replace(EXACT, **KINDS[kind])
    clip, truth = render_clip(preset, 1), render_truth(preset, 1)
    y, x = np.mgrid[0:180, 0:240].astype(np.float32)
    errors, on_objects = [], []
    for index in range(len(clip) - 1):
        flow = truth.flow[index]
        warped = cv2.remap(clip.frames[index + 1].astype(np.float32), x + flow[..., 0],
                           y + flow[..., 1], cv2.INTER_CUBIC)
        sure = cv2.erode(truth.flow_valid[index].astype(np.uint8), np.ones((3, 3))) > 0
        error = np.abs(warped - clip.frames[index]).mean(-1)
        errors.append(error[sure])
        on_objects.append(error[sure & (truth.ids[index] > 0)])
    assert np.concatenate(errors).mean() <= 1.0
    # small, sharply textured: interpolation costs more there
    assert np.concatenate(on_objects).mean() <= 2.5
    assert truth.flow_valid.mean() > 0.85


def test_wrong_flow_fails_the_warp():
    """The bar can fail: the same measure with no flow at all is far above it."""
    clip = render_clip(EXACT, 1)
    assert np.abs(clip.frames[1].astype(float) - clip.frames[0]).mean() > 3


@pytest.mark.parametrize('kind', KINDS)
def test_flow_to_previous_warps_the_frame_before_onto_this_one(kind):
    preset = replace(EXACT, **KINDS[kind])
    clip, (flow, valid, ids) = render_clip(preset, 1), flow_to_previous(preset, 1)
    assert flow.shape == (len(clip) - 1, 180, 240, 2) and np.array_equal(ids, clip.ids)
    y, x = np.mgrid[0:180, 0:240].astype(np.float32)
    errors, turned = [], []
    for index in range(1, len(clip)):
        sure = cv2.erode(valid[index - 1].astype(np.uint8), np.ones((3, 3))) > 0
        for sign, found in ((1, errors), (-1, turned)):
            shift = sign * flow[index - 1]
            warped = cv2.remap(clip.frames[index - 1].astype(np.float32), x + shift[..., 0],
                               y + shift[..., 1], cv2.INTER_CUBIC)
            found.append(np.abs(warped - clip.frames[index]).mean(-1)[sure])
    assert np.concatenate(errors).mean() <= 1.0 < 3 < np.concatenate(turned).mean()
    assert valid.mean() > 0.85


@pytest.mark.parametrize('kind', KINDS)
def test_points_reproject_with_the_poses(kind):
    """Static points of t, seen by the camera of t + 1, land where the flow says; and at their own
    pixel at t."""
    preset = replace(EXACT, **KINDS[kind])
    truth = render_truth(preset, 2)
    y, x = np.mgrid[0:180, 0:240]

    def project(points, pose):
        inside = (points.astype(np.float64) - pose[:3, 3]) @ pose[:3, :3]
        pixels = inside @ truth.intrinsics.T
        return pixels[..., :2] / pixels[..., 2:], inside[..., 2]

    still = {s.number for s in build_world(preset, 2, 'train').objects() if s.track.still} | {0}
    for index in range(len(truth.ids) - 1):
        static = np.isin(truth.ids[index], list(still))
        here, depth = project(truth.points[index], truth.pose[index])
        assert np.abs(here - np.stack([x, y], -1)).max() <= 0.05
        assert np.abs(depth / truth.depth[index] - 1).max() < 1e-4
        there, _ = project(truth.points[index], truth.pose[index + 1])
        assert np.abs(there - np.stack([x, y], -1) - truth.flow[index])[static].max() <= 0.05


def test_truth_agrees_with_the_clip_and_boxes_with_masks():
    preset = find_preset('mid', size=(96, 128), empty=0.0, dropped_frames=0.25)
    clip, truth = render_clip(preset, 4), render_truth(preset, 4)
    assert np.array_equal(truth.stamps_ns, clip.stamps_ns)
    assert np.array_equal(truth.ids, clip.ids) and np.array_equal(truth.moving, clip.moving)
    assert not truth.amodal[:, 0].any()
    for index in range(len(clip)):
        for number in range(1, clip.moving.shape[1]):
            mask = truth.ids[index] == number
            assert not (mask & ~truth.amodal[index, number]).any()
            rows, columns = np.nonzero(mask)
            expected = (columns.min(), rows.min(), columns.max() + 1,
                        rows.max() + 1) if mask.any() else (0, 0, 0, 0)
            assert tuple(truth.boxes[index, number]) == expected


def test_amodal_extents_are_those_of_the_object_alone():
    preset = find_preset('mid', size=(96, 128), empty=0.0, occluders=1.0, articulated=0.5)
    truth = render_truth(preset, 3)
    world = build_world(preset, 3, 'train')
    from training.scenes.render import Renderer
    times = (truth.stamps_ns - 1_000_000_000) * 1e-9
    for number in range(1, world.count + 1):
        kept = tuple(s for s in world.surfaces if s.number in (0, number)
                     and (s.number or s.alpha is None))
        alone = Renderer(replace(world, surfaces=kept), preset.size, compiled=False).ids(times)
        assert ((alone == number) != truth.amodal[:, number]).mean() < 1e-4


def test_flags_and_the_band_between():
    preset = find_preset('mid', size=(48, 64), duration_s=0.5, object_speed=(0.005, 0.08),
                         spin_rad_s=0.0, empty=0.0, articulated=0.0, deforming=0.0)
    seen = set()
    for seed in range(6):
        truth = render_truth(preset, seed, parts=())
        times = (truth.stamps_ns - 1_000_000_000) * 1e-9
        for surface in build_world(preset, seed, 'train').objects():
            speed = surface.track.speed(times, 1 / 30) / paths.MOVING_SPEED
            assert np.array_equal(truth.moving[:, surface.number], speed > 1)
            assert np.array_equal(truth.unknown[:, surface.number], (speed > 0.5) & (speed < 1.5))
            seen |= set(zip(truth.moving[:, surface.number], truth.unknown[:, surface.number]))
        assert not truth.unknown[:, 0].any()
    assert len(seen) == 4


def test_event_labels():
    """On a still background only objects make events; noise is known as noise."""
    sensor = EventSensor(leak_hz=(0.0, 0.0), shot_hz=(5.0, 5.0), hot_share=(0.0, 0.0),
                         threshold=(0.2, 0.2))
    preset = find_preset('easy', size=(96, 128), sensor=sensor, moving_objects=(2, 2))
    clip = render_clip(preset, 1)
    labels = render_truth(preset, 1, parts=()).event_labels(clip.events)
    quiet = render_clip(replace(preset, sensor=replace(sensor, shot_hz=(0.0, 0.0))), 1)
    pure = render_truth(quiet_preset := replace(preset, sensor=replace(sensor, shot_hz=(0.0, 0.0))),
                        1, parts=()).event_labels(quiet.events)
    assert quiet_preset.name == 'easy' and set(np.unique(labels)) <= {0, 1, 2}
    assert abs(int((labels > 0).sum()) - int((pure > 0).sum())) <= 0.01 * len(pure)
    # the rest: where an object's soft edge covers less than half of a pixel
    assert (pure > 0).mean() > 0.6
    window = (
        (clip.events.t > clip.stamps_ns[2] - 1_000_000)
        & (clip.events.t <= clip.stamps_ns[2])
        & (labels > 0)
    )
    e = clip.events
    assert (clip.ids[2][e.y[window], e.x[window]] == labels[window]).mean() > 0.9


def test_any_stamps():
    preset = find_preset('mid', size=(48, 64), duration_s=0.1)
    stamps = 1_000_000_000 + np.arange(0, 60_000_000, 1_000_000)  # 1 kHz
    truth = render_truth(preset, 0, stamps_ns=stamps)
    again = render_truth(preset, 0, stamps_ns=stamps)
    assert truth.flow.shape == (59, 48, 64, 2) and np.array_equal(truth.flow, again.flow)
    assert np.linalg.norm(truth.flow[truth.flow_valid], axis=-1).max() < 3
    slim = render_truth(preset, 0, parts=())
    assert slim.amodal is None and slim.depth is None
    for bad, match in ((stamps[::-1], 'rise'), (stamps[:0], 'rise'),
                       (stamps + 10**10, 'keep to the clip')):
        with pytest.raises(ConfigError, match=match):
            render_truth(preset, 0, stamps_ns=bad)
    with pytest.raises(ConfigError, match='choose of'):
        render_truth(preset, 0, parts=('all',))
