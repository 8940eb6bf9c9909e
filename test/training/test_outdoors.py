"""Ordinary video: water, leaves and mirror images move without being objects, the truth stays
exact, shards keep it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from training.scenes import (
    cache,
    figures,
    natural,
    nature,
    outlines,
    paths,
    render_clip,
    render_truth,
)
from training.scenes.backdrop import Stage
from training.scenes.geometry import Camera, Surface, Waves, World
from training.scenes.presets import find_preset
from training.scenes.render import Renderer, speeds_px_s
from training.scenes.shards import load_shard, save_clips
from training.scenes.truth import flow_to_previous
from training.scenes.world import build_world

torch.set_num_threads(1)
SIZE = (72, 128)
SMALL = find_preset('video', size=SIZE, duration_s=4 / 24)
WET = replace(SMALL, natural=1.0, standing=1.0, water=1.0, foliage=1.0, empty=0.0)
LEAVES = replace(SMALL, natural=1.0, standing=0.0, foliage=1.0, layers=(2, 3), static_camera=1.0,
                 empty=1.0, distractors=(0, 0), follows=0.0)


def sheet(waves, size=(60, 80), depth=2.0):
    """A world of one wavy wall of smooth noise, filling the view of a camera at rest."""
    times = paths.grid(0.2)
    rng = np.random.default_rng(0)
    colour = cv2.GaussianBlur(rng.random((96, 96, 3)).astype(np.float32), (0, 0), 2.0)
    colour = 0.1 + 0.8 * (colour - colour.min()) / np.ptp(colour)
    wall = Surface(colour, None, 1.3, paths.still(times, (0, 0, depth)), mirrored=True, waves=waves)
    return World((wall,), Camera(times, np.zeros((len(times), 3)), np.zeros((len(times), 3))),
                 (0, 0), 1.0, 0.001)


def two_waves(times):
    return Waves(np.array([[0.02, 0.01], [-0.01, 0.015]]), np.array([[9.0, 4.0], [-6.0, 12.0]]),
                 np.stack([30 * times, 1 - 45 * times], 1))


def test_waves_show_the_texture_where_the_formula_says():
    """Oracle: the displaced plane coordinate of each pixel by the written formula, sampled by
    OpenCV."""
    times = paths.grid(0.2)
    waves, at = two_waves(times), 0.07
    world = sheet(waves)
    ours = Renderer(world, (60, 80)).images(np.array([at]), rgb=True)[0].permute(1, 2, 0).numpy()
    y, x = np.mgrid[0:60, 0:80]
    u, v = ((x - 39.5) / 80 * 2.0 / 1.3, (y - 29.5) / 80 * 2.0 / 1.3)
    heights = [np.sin(9 * u + 4 * v + 30 * at), np.sin(-6 * u + 12 * v + 1 - 45 * at)]
    u, v = u + 0.02 * heights[0] - 0.01 * heights[1], v + 0.01 * heights[0] + 0.015 * heights[1]
    picture = cv2.remap(world.surfaces[0].colour, ((u + 1) * 48 - 0.5).astype(np.float32),
                        ((v + 1) * 48 - 0.5).astype(np.float32), cv2.INTER_LINEAR)
    assert np.abs(ours - picture).max() < 0.01
    other = (
        Renderer(world, (60, 80), compiled=False)
        .images(np.array([at]), rgb=True)[0]
        .permute(1, 2, 0)
    )
    assert np.abs(ours - other.numpy()).max() < 1e-3
    flat = (
        Renderer(sheet(None), (60, 80)).images(np.array([at]), rgb=True)[0].permute(1, 2, 0).numpy()
    )
    assert np.abs(ours - flat).mean() > 0.02  # the waves are seen


def test_speeds_bound_what_waves_do_to_the_picture():
    """The sampling rate rests on it: no texture point moves faster, by the truth's flow over 1
    ms."""
    times = paths.grid(0.2)
    world = sheet(two_waves(times))
    said = speeds_px_s(world, (60, 80), np.array([0.05]))[0]
    most = (0.02 * 30 + 0.015 * 45) * 1.3 / 2.0 * 80
    assert 0.5 * most < said <= 1.01 * most


@pytest.mark.parametrize('preset', [WET, replace(LEAVES, foliage_px=(3.0, 4.0))],
                         ids=['water', 'leaves'])
def test_flow_of_waves_warps_the_frame_before_onto_this_one(preset, monkeypatch):
    """As test_truth's bar for rigid scenes: the truth follows water and leaves through their waves.
    What lies over the water as light (mirror images, glitter) has no flow and is left out here."""
    clean = replace(preset, read_noise=0.0, light=(1e12, 1e12), exposure_s=(1e-6, 1e-6),
                    sharpening=(0.0, 0.0), compressed=0.0, shadows=0.0, specular=0.0, flicker=0.0,
                    light_ramp=0.0, light_step=0.0, vignette=0.0, size=(144, 256))
    monkeypatch.setattr(nature, 'mirrored', lambda *_: [])
    monkeypatch.setattr(nature, 'glint', lambda rng, times,
                        *_: Surface(np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.float32),
                                    1.0, paths.still(times, (0, 0, 1.0)), unseen=True))
    build_world.cache_clear()
    errors, without = [], []
    for seed in range(4):
        world = build_world(clean, seed, 'train')
        assert any(surface.waves for surface in world.surfaces)
        clip, (flow, valid, _) = render_clip(clean, seed), flow_to_previous(clean, seed)
        y, x = np.mgrid[0:144, 0:256].astype(np.float32)
        for index in range(1, len(clip)):
            sure = cv2.erode(valid[index - 1].astype(np.uint8), np.ones((3, 3))) > 0
            for shift, found in ((flow[index - 1], errors), (0 * flow[index - 1], without)):
                warped = cv2.remap(clip.frames[index - 1].astype(np.float32), x + shift[..., 0],
                                   y + shift[..., 1], cv2.INTER_CUBIC)
                found.append(np.abs(warped - clip.frames[index]).mean(-1)[sure])
    build_world.cache_clear()
    assert np.concatenate(errors).mean() < 0.5 * np.concatenate(without).mean()
    assert np.concatenate(errors).mean() <= 3.0  # fine grain: interpolation costs


@pytest.mark.parametrize('seed', range(3))
def test_water_and_leaves_move_and_have_no_id(seed):
    windy = replace(LEAVES, foliage_px=(3.0, 4.0), light=(100.0, 100.0), duration_s=9 / 24)
    clip = render_clip(windy, seed)
    assert not clip.ids.any() and not clip.moving.any() and clip.moving.shape[1] == 1
    change = np.abs(clip.frames[0].astype(float) - clip.frames[-1]).mean()
    frozen = render_clip(replace(windy, foliage_px=(1e-6, 2e-6)), seed)
    assert change > np.abs(frozen.frames[0].astype(float) - frozen.frames[-1]).mean() + 0.5


@pytest.mark.parametrize('seed', range(3))
def test_water_seen_from_above_moves_everywhere_and_has_no_id(seed):
    sea = find_preset('video-water', size=SIZE, duration_s=9 / 24, empty=1.0, static_camera=1.0,
                      follows=0.0, light=(100.0, 100.0), compressed=0.0)
    world = build_world(sea, seed, 'train')
    assert world.camera.still and all(surface.waves is not None for surface in world.surfaces[:1])
    clip = render_clip(sea, seed)
    assert not clip.ids.any() and not clip.moving.any()
    change = np.abs(clip.frames[0].astype(float) - clip.frames[-1]).mean(-1)
    blocks = change.reshape(6, 12, 8, 16).mean((1, 3))
    assert (blocks > 2).all(), 'no block rests'


def mirror_images(world):
    """[(image, body, height of the water)]"""
    low = next(s for s in world.surfaces if s.tilt and not s.unseen).track.position[0, 1]
    bodies = world.objects()
    lights = [s for s in world.surfaces if s.unseen and not s.tilt and s.waves is not None]
    return [(image, bodies, low) for image in lights[1:]]  # the first is that of the far plane


def test_a_mirror_image_lies_where_the_water_mirrors():
    """Oracle: a world point and its image under y -> 2 low - y, by hand."""
    at, images = np.array([0.1]), []
    for seed in range(6):
        images += mirror_images(build_world(replace(WET, static_camera=1.0), seed, 'train'))
    assert len(images) >= 4
    for image, bodies, low in images:
        body = next(
            b
            for b in bodies
            if np.allclose(b.track.position[:, 0], image.track.position[:, 0])
            and np.allclose(b.track.position[:, 1], 2 * low - image.track.position[:, 1])
            and b.half == image.half
        )
        for u, v in ((0.3, -0.6), (-0.5, 0.2)):
            point, mirror = (sheet(None).poses(s, at)[0] @ p
                             for s, p in ((body, [u, v, 1]), (image, [u, -v, 1])))
            assert mirror == pytest.approx(point * [1, -1, 1] + [0, 2 * low, 0], abs=1e-9)
        assert image.alpha.max() <= body.alpha.max() and image.colour.mean() < body.colour.mean()
        assert image.number == 0 and image.unseen


def test_a_bent_body_and_its_mirror_image_bend_alike():
    """The texture row that (u, v) shows is the one that the image shows at (u, -v), upside down."""
    times = paths.grid(0.1)
    phases = np.stack([3 * times, 1 + 2 * times], 1)
    body = Surface(np.random.default_rng(0).random((32, 32, 3)).astype(np.float32),
                   outlines.raster(np.array([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]),
                                   32), 0.3, paths.still(times, (0, 0, 1.0)), 1,
                   deform=(0.1, phases))
    far = Surface(body.colour, None, 2.0, paths.still(times, (0, 0, 4.0)), mirrored=True)
    image = nature.mirrored(np.random.default_rng(0), times, [body], 0.2, far)[1]

    def shown(surface, u, v):
        a, p0, p1 = surface.bend(np.array([0.05]))[0, :3]
        return u + a * np.sin(2.1 * v + p0), v + a * np.sin(2.7 * u + p1)

    for u, v in ((0.2, 0.5), (-0.7, -0.3)):
        here, there = shown(body, u, v), shown(image, u, -v)
        assert there == pytest.approx((here[0], -here[1]))


def test_objects_stand_on_the_ground():
    """Their lowest visible pixel is where the ground is at their distance, within the bob of a step
    and the blur."""
    preset = replace(SMALL, standing=1.0, water=0.0, figures=0.0, articulated=0.0, deforming=0.0,
                     moving_objects=(1, 1), distractors=(0, 0), poles=(0, 0), clutter=(0, 0),
                     occluders=0.0, empty=0.0, static_camera=1.0, follows=0.0, size=(144, 256),
                     layers=(1, 1))
    checked = 0
    for seed in range(8):
        world = build_world(preset, seed, 'train')
        body, low = world.objects()[0], next(s for s in world.surfaces
                                             if s.tilt).track.position[0, 1]
        ids = Renderer(world, preset.size).ids(np.array([0.05]))[0]
        if not ids.any() or ids[-1].any() or ids[:, 0].any() or ids[:, -1].any():
            continue  # cut by the image
        z = float(np.interp(0.05, body.track.times, body.track.position[:, 2]))
        assert np.flatnonzero(ids.any(1))[-1] == pytest.approx(low / z * 256 + 71.5, abs=6)
        checked += 1
    assert checked >= 3


def test_the_camera_follows():
    """On an object that it follows, the picture of it moves less than it would by itself."""
    preset = replace(SMALL, standing=1.0, follows=1.0, static_camera=1.0, camera_shake=0.0,
                     empty=0.0, moving_objects=(1, 1), distractors=(0, 0), object_speed=(0.8, 1.2),
                     partial=0.0, start_stop=0.0, roll_shake_rad_s=(0.0, 0.0))
    times, ratios = np.array([0.0, 0.15]), []
    for seed in range(12):
        world = build_world(preset, seed, 'train')
        body = world.objects()[0]
        rest = replace(world, camera=Camera(world.camera.times, 0 * world.camera.position,
                                            0 * world.camera.turn))
        seen, free = ((maps := w.homographies(body, times, SIZE))[:, :2, 2] / maps[:, 2:, 2]
                      for w in (world, rest))
        ratios.append(
            np.linalg.norm(seen[1] - seen[0]) / max(np.linalg.norm(free[1] - free[0]), 1e-9)
        )
    assert np.median(ratios) < 0.6


def test_a_camera_above_the_ground_stays_there():
    for seed in range(20):
        world = build_world(replace(SMALL, standing=1.0, camera_speed=(3.0, 4.0),
                                    translation=(1.0, 1.0), static_camera=0.0), seed, 'train')
        low = next(s for s in world.surfaces if s.tilt).track.position[0, 1]
        assert world.camera.position[:, 1].max() <= 0.3 * low + 1e-9


@pytest.mark.parametrize('kind', sorted(set(figures.FIGURES), key=lambda kind: kind.__name__))
def test_figures_have_their_size_and_stand_on_their_feet(kind):
    rng = np.random.default_rng(3)
    times = paths.grid(0.2)
    for share in (0.02, 0.06):
        parts, reach = kind(rng)
        half = figures.half_of(parts, share, 9 / 16)
        track = paths.still(times, (0, 0, 1.0))
        body = Surface(np.zeros((2, 2, 3), np.float32), None, half, track, 1)
        found = figures.surfaces(rng, [replace(part, swing=0.0) for part in parts], body,
                                 np.zeros_like(times), lambda n: np.ones((n, n, 3), np.float32),
                                 half * 512)
        far = Surface(np.zeros((8, 8, 3), np.float32), None, 4.0, paths.still(times, (0, 0, 3.0)),
                      mirrored=True)
        camera = Camera(times, np.zeros((len(times), 3)), np.zeros((len(times), 3)))
        ids = Renderer(World((far, *found), camera, (0, 0), 1.0, 0.001),
                       (288, 512)).ids(np.array([0.0]))[0]
        assert 0.5 * share < (ids == 1).mean() < 1.5 * share
        assert np.flatnonzero(ids.any(1))[-1] == pytest.approx(
            143.5 + reach * half * 512, abs=0.06 * half * 512 + 2
        )


def test_a_figure_that_rests_and_moves_a_limb_is_moving():
    preset = replace(SMALL, figures=1.0, partial=1.0, moving_objects=(1, 1), distractors=(0, 0),
                     start_stop=0.0, empty=0.0, duration_s=9 / 24)
    resting = [
        seed
        for seed in range(12)
        if any(
            np.ptp(s.track.position, 0).max() < 1e-6 and s.track.still
            for s in build_world(preset, seed, 'train').objects()
        )
    ]
    assert resting
    for seed in resting:
        clip = render_clip(preset, seed)
        assert clip.moving[:, 1].any()


def test_every_preset_of_video_repeats_itself():
    for name in ('video', 'video-still', 'video-water'):
        small = find_preset(name, size=SIZE, duration_s=3 / 24)
        for seed in (0, 1, 2):
            first = render_clip(small, seed)
            build_world.cache_clear()
            again = render_clip(small, seed)
            assert (
                first.frames.tobytes() == again.frames.tobytes()
                and first.ids.tobytes() == again.ids.tobytes()
            )
            assert len(first.events) == 0


def test_nothing_moves_in_still_video_but_the_camera_does():
    static = changed = 0
    for seed in range(8):
        preset = find_preset('video-still', size=SIZE, duration_s=4 / 24)
        clip = render_clip(preset, seed)
        assert not clip.moving.any() and clip.moving.shape[1] > 1  # distractors have ids
        static += build_world(preset, seed, 'train').camera.still
        changed += np.abs(clip.frames[0].astype(float) - clip.frames[-1]).mean() > 2
    assert static == 0 and changed >= 6


def test_objects_are_as_large_as_in_real_video():
    """DAVIS-2016 val: median 7.1 % of the image; one to three objects move."""
    areas, counts = [], []
    for seed in range(24):
        truth = render_truth(replace(SMALL, duration_s=2 / 24), seed, parts=())
        sizes = np.bincount(truth.ids[1].ravel(),
                            minlength=truth.moving.shape[1]) / truth.ids[1].size
        shown = truth.moving[1] & (sizes > 0.002)
        areas += sizes[shown].tolist()
        counts.append(shown.sum())
    assert 0.03 < np.median(areas) < 0.12 and max(counts) <= 3 and np.mean(counts) > 1


def test_a_camera_sharpens_and_compresses_frames_only():
    plain = replace(SMALL, sharpening=(0.0, 0.0), compressed=0.0)
    clip = render_clip(plain, 1)
    sharp, packed = (render_clip(replace(plain, **change), 1)
                     for change in ({'sharpening': (0.8, 0.8)},
                                    {'compressed': 1.0, 'jpeg_quality': (30.0, 30.0)}))

    def roughness(other):
        return np.abs(np.diff(other.frames.astype(float), axis=2)).mean()

    assert roughness(sharp) > 1.2 * roughness(clip)
    blocks = np.abs(np.diff(packed.frames.astype(float).mean(-1), axis=2)).mean((0, 1))
    # steps between blocks of 8 px
    assert blocks[7::8].mean() > 1.1 * np.delete(blocks, np.s_[7::8]).mean()
    assert np.array_equal(sharp.ids, clip.ids) and np.array_equal(packed.ids, clip.ids)


def test_natural_textures_are_linear_light_with_detail():
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test', 'other'):
        for make in (natural.ground, natural.backdrop, natural.foliage):
            picture = make(rng, split, 160)
            assert picture.shape == (160, 160, 3) and picture.dtype == np.float32
            assert 0 < picture.min() and picture.max() <= 1 + 1e-6 and picture.std() > 0.001
    for n in (20, 200):
        skin = natural.skin(rng, n)
        assert skin.shape == (n, n, 3) and 0 < skin.min() and skin.max() <= 1


def test_splits_share_no_natural_family():
    for table in (natural._GROUND, natural._BACKDROP):
        fields = [{field for field, _ in families} for families in table.values()]
        assert not set.intersection(*fields) and sum(map(len, fields)) == len(set.union(*fields))


def test_a_shard_of_video_is_small_and_keeps_the_truth(tmp_path):
    clips = [render_clip(SMALL, seed) for seed in range(3)]
    save_clips(tmp_path / 'a.npz', clips)
    raw = sum(clip.frames.nbytes + clip.ids.nbytes for clip in clips)
    assert (tmp_path / 'a.npz').stat().st_size < 0.5 * raw
    for clip, back in zip(clips, load_shard(tmp_path / 'a.npz')):
        assert np.array_equal(back.ids, clip.ids) and np.array_equal(back.moving, clip.moving)
        assert np.array_equal(back.stamps_ns, clip.stamps_ns) and (back.seed, back.preset) == (
            clip.seed,
            clip.preset,
        )
        assert len(back.events) == 0 and back.frames.shape == clip.frames.shape
        luma = [frames.astype(float) @ [0.299, 0.587, 0.114]
                for frames in (back.frames, clip.frames)]
        assert np.abs(luma[0] - luma[1]).mean() < 3  # JPEG of quality 95


def test_packing_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, 'SHARD', 1)
    save_clips(tmp_path / 'mosis2d-train-00000005-1.npz', [render_clip('mosis2d', 5)])
    assert cache.make_cache('mosis2d', 'train', 2, 5, tmp_path, 1) == 1
    assert [clip.seed for clip in cache.load_clips(tmp_path)] == [5, 6]


def test_a_stage_is_drawn_by_its_shares():
    rng = np.random.default_rng(0)
    stages = [Stage.draw(rng, find_preset('video', natural=0.5, standing=0.5, water=0.5))
              for _ in range(400)]
    assert np.mean([s.natural for s in stages]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([s.low is not None for s in stages]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([s.wet for s in stages]) == pytest.approx(0.25, abs=0.08)
    assert not any(s.wet and s.low is None for s in stages)
