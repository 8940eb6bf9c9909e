"""Rendered clips: the same seed gives the same bytes, the truth is exact, the event sensor follows
its rule."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mos_perception.datatypes import EventPacket, Frame
from mos_perception.errors import BagError, ConfigError
from mos_perception.recording.bag import open_bag
from training.scenes import (
    PRESETS,
    Preset,
    cache,
    demo_bag,
    esim,
    gallery,
    outlines,
    paths,
    render_clip,
    textures,
)
from training.scenes.moving_shapes_clip import render_clip_2d
from training.scenes.presets import EventSensor, find_preset
from training.scenes.render import Renderer, fastest_px_s
from training.scenes.splits import SPLITS, generator
from training.scenes.textures import texture
from training.scenes.world import Surface, World, build_world

torch.set_num_threads(1)
QUIET = EventSensor(leak_hz=(0.0, 0.0), shot_hz=(0.0, 0.0), hot_share=(0.0, 0.0))
SMALL = find_preset('train', size=(48, 64))


def digest(clip):
    events = clip.events
    arrays = (clip.frames, clip.stamps_ns, clip.ids, clip.moving, events.x, events.y, events.p,
              events.t)
    return hashlib.sha256(b''.join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


@pytest.mark.parametrize('preset', ['easy', 'mid', 'train'])
def test_same_arguments_same_bytes(preset):
    small = find_preset(preset, size=(48, 64), duration_s=0.1)
    first = digest(render_clip(small, 5))
    build_world.cache_clear()  # drawn anew, not remembered
    assert digest(render_clip(small, 5)) == first
    assert len({digest(render_clip(small, seed, split)) for seed in (5, 6)
                for split in SPLITS}) == 2 * len(SPLITS)


@pytest.mark.parametrize('seed', range(4))
def test_clip_is_well_formed(seed):
    clip = render_clip(SMALL, seed)
    frames = len(clip)
    assert frames == 8 and clip.frames.shape == (8, 48, 64, 3) and clip.frames.dtype == np.uint8
    assert clip.ids.dtype == np.uint16 and clip.moving.shape[0] == 8 and not clip.moving[:, 0].any()
    assert clip.ids.max() < clip.moving.shape[1]
    assert np.abs(np.diff(clip.stamps_ns) - 1e9 / 30).max() <= 1
    events = clip.events
    assert len(events) and (np.diff(events.t) >= 0).all()
    assert events.x.max() < 64 and events.y.max() < 48 and set(np.unique(events.p)) <= {0, 1}
    assert clip.stamps_ns[0] - clip.period_ns <= events.t[0] and clip.stamps_ns[-1] < events.t[-1]
    masks, numbers = clip.moving_masks(3, min_pixels=5)
    assert len(masks) == len(numbers) and masks.sum(0).max(initial=0) <= 1
    for mask, number in zip(masks, numbers):
        assert clip.moving[3, number] and np.array_equal(mask, clip.ids[3] == number)


def world_of(points, track, half, value=0.9, ground=0.2, size=(60, 80)):
    """A world of one plain object over a plain ground, camera at rest."""
    preset = Preset('plain', size=size)
    base = build_world(preset, 0, 'train')
    times = track.times
    plane = Surface(np.full((8, 8, 3), ground, np.float32), None, 4.0,
                    paths.still(times, (0, 0, 3.0)), mirrored=True)
    side = 64
    sprite = Surface(np.full((side, side, 3), value, np.float32), outlines.raster(points, side),
                     half, track, 1)
    return World((plane, sprite), base.camera, (0.0, 0.0), 1.0, 0.001)


def test_ids_match_the_projected_outline():
    """Pixel centres inside the outline projected by hand (pinhole, focal length = width) carry the
    id."""
    points = np.array([[-0.8, -0.6], [0.9, -0.5], [0.6, 0.8], [-0.7, 0.7]])
    times = paths.grid(0.2)
    position = np.stack([-0.2 + times, 0.05 - 0.3 * times, np.full_like(times, 1.1)], 1)
    track = paths.Track(times, position, 0.4 + 2 * times, np.abs(times))
    world, size = world_of(points, track, 0.15), (60, 80)
    at = np.array([0.0, 0.05, 0.1])
    ids = Renderer(world, size).ids(at)
    y, x = np.mgrid[0:60, 0:80]
    for t, image in zip(at, ids):
        angle = 0.4 + 2 * t
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (turn @ (points * 0.97 * 0.15).T).T + [-0.2 + t, 0.05 - 0.3 * t]
        corners = corners / 1.1 * 80 + [39.5, 29.5]
        inside = np.ones((60, 80), bool)
        margin = np.full((60, 80), np.inf)
        for a, b in zip(corners, np.roll(corners, -1, 0)):
            side = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / np.hypot(*(b - a))
            inside &= side > 0
            margin = np.minimum(margin, np.abs(side))
        assert image.max() == 1
        sure = margin > 0.75  # the texture's own pixels and its soft edge
        assert np.array_equal((image == 1)[sure], inside[sure])
        assert abs(int((image == 1).sum()) - int(inside.sum())) <= 0.05 * inside.sum()


RICH = find_preset('mid', size=(96, 128), duration_s=0.2, articulated=0.4, deforming=0.4,
                   shadows=1.0, specular=1.0, ground=1.0, vignette=1.0, occluders=1.0,
                   clutter=(2, 2), light_step=1.0, light_ramp=1.0, empty=0.0)


@pytest.mark.parametrize('seed', range(2))
def test_compiled_and_torch_pictures_agree(seed):
    """Two implementations of one picture: row sweep near to far, and grid_sample far to near."""
    world, times = build_world(RICH, seed, 'train'), np.linspace(0, 0.2, 3)
    ours, other = Renderer(world, RICH.size), Renderer(world, RICH.size, compiled=False)
    for rgb in (True, False):
        error = (ours.images(times, rgb) - other.images(times, rgb)).abs()
        assert error.mean() < 1e-4 and (error > 0.01).float().mean() < 3e-3  # the ground's hard rim
    assert (ours.ids(times) != other.ids(times)).mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(),
                    reason='no CUDA device: CPU against CUDA is not compared')
def test_cpu_and_cuda_masks_agree():
    kernel = np.ones((3, 3), np.uint8)
    for a, b in zip(render_clip(RICH, 0).ids, render_clip(RICH, 0, device='cuda').ids):
        same = cv2.dilate(a, kernel) == cv2.erode(a, kernel)  # off 1-px borders
        assert np.array_equal(a[same], b[same])


def test_threads_change_nothing():
    one = digest(render_clip(RICH, 3))
    torch.set_num_threads(2)
    try:
        assert digest(render_clip(RICH, 3)) == one
    finally:
        torch.set_num_threads(1)


def test_dropped_frames_leave_a_gap_and_nothing_else():
    whole = find_preset('mid', size=(48, 64), duration_s=0.5)
    gappy = replace(whole, dropped_frames=0.2)
    clip, full = render_clip(gappy, 1), render_clip(whole, 1)
    kept = np.isin(full.stamps_ns, clip.stamps_ns)
    assert (
        len(clip) == gappy.frame_count == 12
        and kept.sum() == 12
        and clip.period_ns == full.period_ns
    )
    assert np.diff(clip.stamps_ns).max() > 1.5 * clip.period_ns
    assert np.array_equal(clip.ids, full.ids[kept]) and np.array_equal(
        clip.moving, full.moving[kept]
    )
    assert np.array_equal(clip.events.t, full.events.t)


def test_light_alone_makes_events_but_nothing_moves():
    preset = find_preset('easy', size=(48, 64), moving_objects=(0, 0), distractors=(1, 1),
                         sensor=QUIET, light_step=1.0)
    clip = render_clip(preset, 3)
    assert len(clip.events) > 100 and not clip.moving.any()
    shadowed = find_preset('easy', size=(48, 64), moving_objects=(1, 1), shadows=1.0)
    plain = render_clip(replace(shadowed, shadows=0.0), 2)
    clip = render_clip(shadowed, 2)
    assert np.array_equal(clip.ids, plain.ids) and not np.array_equal(clip.frames, plain.frames)


def test_epipolar_movers_follow_the_camera():
    preset = find_preset('mid', epipolar=1.0, translation=(0.9, 1.0), start_stop=0.0, empty=0.0,
                         articulated=0.0)
    found = [(world, s) for seed in range(4) for world in [build_world(preset, seed, 'train')]
             for s in world.objects() if s.degenerate]
    assert len(found) >= 4
    for world, surface in found:
        pace, camera = (np.diff(p, axis=0) for p in (surface.track.position, world.camera.position))
        cross = np.linalg.norm(np.cross(pace, camera), axis=1)
        assert (
            cross.max()
            < 1e-6 * np.linalg.norm(pace, axis=1).max() * np.linalg.norm(camera, axis=1).max()
            + 1e-15
        )


def test_parts_stay_linked():
    preset = find_preset('mid', articulated=1.0, deforming=0.0, empty=0.0)
    for seed in range(3):
        world = build_world(preset, seed, 'train')
        groups = {}
        for surface in world.objects():
            groups.setdefault(surface.number, []).append(surface)
        assert all(len(parts) in (2, 3) for parts in groups.values())
        for parts in groups.values():
            body = max(parts, key=lambda s: s.half)
            for part in parts:
                apart = np.linalg.norm(part.track.position - body.track.position, axis=1)
                assert (apart < body.half + part.half).all()


def test_frames_and_luma_agree_and_light_is_linear():
    world = build_world(SMALL, 1, 'train')
    renderer = Renderer(world, SMALL.size)
    times = np.linspace(0, 0.2, 5)
    rgb, luma = renderer.images(times, True), renderer.images(times, False)
    weights = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose((rgb * weights[:, None, None]).sum(1), luma[:, 0], atol=1e-5)


def test_static_noise_free_scene_has_no_events():
    preset = find_preset('easy', size=(48, 64), moving_objects=(0, 0), distractors=(2, 2),
                         sensor=QUIET)
    clip = render_clip(preset, 3)
    assert len(clip.events) == 0 and not clip.moving.any() and set(np.unique(clip.ids)) == {0, 1, 2}


@pytest.mark.parametrize('threshold', [0.11, 0.23, 0.5])
def test_events_follow_the_crossing_rule(threshold):
    """Against counting level crossings of a monotone and an up-and-down signal by NumPy."""
    rng = np.random.default_rng(4)
    shape = (6, 7)
    up, down = rng.uniform(0.0, 3, shape), rng.uniform(0, 3, shape)
    logs = np.stack([np.zeros(shape), up, up - down]).astype(np.float32)
    packed = esim.crossings(logs, np.array([0, 1_000_000, 3_000_000]),
                            esim.Pixels.ideal(shape, threshold))
    events = esim.unpack(packed, 0)
    for y, x in np.ndindex(shape):
        mine = (events.y == y) & (events.x == x)
        t, p = events.t[mine], events.p[mine]
        rise = int(up[y, x] / threshold)
        assert (p == 1).sum() == rise
        assert np.abs(t[p == 1] - np.arange(1, rise + 1) * threshold / up[y, x] *
                      1e6).max(initial=0) < 20
        # the reference stays at the last level crossed; the next event down is one threshold below
        # it
        levels = (rise - np.arange(1, 100)) * threshold
        levels = levels[levels >= up[y, x] - down[y, x]]
        assert (p == 0).sum() == len(levels)
        assert np.abs(t[p == 0] - (1e6 + (up[y, x] - levels) / down[y, x] *
                                   2e6)).max(initial=0) < 40


def test_refractory_time_and_leak():
    shape, steps = (3, 4), 200
    pixels = esim.Pixels.ideal(shape, 0.1)
    stamps = np.arange(steps + 1) * 1_000_000
    logs = np.repeat(np.linspace(0, 10, steps + 1, dtype=np.float32), 12).reshape(steps + 1, *shape)
    free = esim.unpack(esim.crossings(logs, stamps, pixels), 0)
    slow = esim.unpack(esim.crossings(logs, stamps, replace(pixels, refractory_ns=5_000_000)), 0)
    one = slow.t[(slow.x == 1) & (slow.y == 2)]
    assert len(free) > 90 * 12 and len(slow) < len(free) and np.diff(one).min() >= 5_000_000
    leaking = replace(pixels, drift=np.full(shape, 0.1 * 20e-9, np.float32))  # 20 events per second
    dark = esim.unpack(esim.crossings(np.zeros_like(logs), stamps, leaking), 0)
    assert set(dark.p) == {1} and abs(len(dark) - 12 * 4) <= 12


def test_noise_rate():
    sensor = EventSensor(shot_hz=(2.0, 2.0), hot_share=(0.0, 0.0))
    packed = esim.noise(generator(0, 'train', 9), sensor, (100, 100), 10**9)
    assert abs(len(packed) - 20_000) < 5 * np.sqrt(20_000)
    events = esim.unpack(packed, 77)
    assert np.array_equal(esim.pack(events, 77), np.sort(packed))


def test_moving_flag_is_speed_in_the_world():
    """Against finite differences of the object's centre, away from the threshold."""
    preset = find_preset('mid', size=(48, 64), spin_rad_s=0.0, articulated=0.0, deforming=0.0,
                         distractors=(3, 3), empty=0.0)
    for seed in range(4):
        world = build_world(preset, seed, 'train')
        clip = render_clip(preset, seed)
        at = np.arange(len(clip)) / 30
        for surface in world.objects():
            fine = at[:, None] + np.linspace(-1 / 30, 0, 34)
            position = surface.track.at(fine.ravel())[0].reshape(len(at), 34, 3)
            length = np.linalg.norm(np.diff(position, axis=1),
                                    axis=2).sum(1) / np.median(position[..., 2])
            speed, flag = length * 30, clip.moving[:, surface.number]
            assert (
                flag[speed > 1.5 * paths.MOVING_SPEED].all()
                and not flag[speed < 0.5 * paths.MOVING_SPEED].any()
            )
    assert sum(s.track.still for s in world.objects()) == 3


def test_start_and_stop_inside_the_clip():
    times = paths.grid(1.5)
    kinds = set()
    for seed in range(30):
        gate = paths.stop_and_go(np.random.default_rng(seed), times, 1.0)
        inside = gate[(times > 0) & (times < 1.5)]
        assert gate.min() == 0 and gate.max() == 1 and np.abs(np.diff(gate)).max() < 0.03
        kinds.add((inside[0] > 0.5, inside[-1] > 0.5))
    assert kinds == {(False, True), (True, False), (True, True)}


def test_object_area_and_speed_follow_the_preset():
    for seed in range(5):
        preset = PRESETS['easy']
        world = build_world(preset, seed, 'test')
        for surface in world.objects():
            alone = replace(world, surfaces=(world.surfaces[0], replace(surface, track=paths.still(
                surface.track.times, (0, 0, float(np.median(surface.track.position[:, 2])))))))
            area = (Renderer(alone, preset.size).ids(np.array([0.0])) > 0).mean()
            assert 0.8 * preset.area[0] < area < 1.2 * preset.area[1]
        fastest = fastest_px_s(world, preset.size, np.linspace(0, 0.2, 9)) / preset.size[1]
        # depth and spin add to it
        assert preset.object_speed[0] * 0.8 < fastest < preset.object_speed[1] * 1.8


@pytest.mark.parametrize('split', SPLITS)
def test_textures_are_linear_light(split):
    rng = np.random.default_rng(0)
    for side in (20, 200):
        for _ in range(8):
            picture = texture(rng, split, side)
            assert picture.shape == (side, side, 3) and picture.dtype == np.float32
            assert 0 < picture.min() and picture.max() <= 1
        shape = outlines.outline(rng, split)
        assert np.hypot(*shape.T).max() == pytest.approx(1)
        coverage = outlines.raster(shape, 200).mean() * 4
        assert coverage == pytest.approx(outlines.area(shape) * 0.97**2, rel=0.02)


def test_bad_arguments_say_what_to_do():
    with pytest.raises(ConfigError, match='unknown preset "huge": choose one of'):
        render_clip('huge', 0)
    with pytest.raises(ConfigError, match='unknown split'):
        render_clip(SMALL, 0, 'dev')
    with pytest.raises(ConfigError, match='negative'):
        render_clip(SMALL, -1)
    with pytest.raises(ConfigError, match='shorten'):
        find_preset('easy', duration_s=60.0)
    with pytest.raises(ConfigError, match='size'):
        find_preset('easy', size=(8, 9))


def test_cache_round_trip(tmp_path):
    clips = [render_clip(SMALL, seed) for seed in range(3)]
    cache.save_clips(tmp_path / 'a.npz', clips)
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']
    back = cache.load_clips(tmp_path)
    assert [digest(clip) for clip in back] == [digest(clip) for clip in clips]
    assert [clip.preset for clip in back] == ['train'] * 3 and len(
        cache.load_clips(tmp_path, 2)
    ) == 2
    (tmp_path / 'a.npz').write_bytes(b'no shard')
    with pytest.raises(BagError, match='run the cache command again'):
        cache.load_clips(tmp_path)
    with pytest.raises(BagError, match='holds no shard'):
        cache.load_clips(tmp_path / 'none')


def test_contact_sheet():
    sheet = gallery.contact_sheet([render_clip(SMALL, 0)], columns=4)
    assert sheet.shape == (3 * 50 + 4, 4 * 66, 3) and sheet.dtype == np.uint8


def test_two_dimensional_scenes_by_the_same_name_and_commands(tmp_path):
    """`mosis2d` is drawn, cached and rendered like every other preset."""
    clip, direct = render_clip('mosis2d', 2), render_clip_2d('mosis2d', 2)
    assert digest(clip) == digest(direct) and clip.preset == 'mosis2d'
    gallery.main(['--preset', 'mosis2d', '--count', '1', '--seed', '2', '--out',
                  str(tmp_path / 'sheet.png')])
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))[..., ::-1]
    assert np.array_equal(sheet[:128, :128], clip.frames[0])
    cache.make_cache('mosis2d', 'train', 1, 2, tmp_path / 'shards', 1)
    assert digest(cache.load_clips(tmp_path / 'shards')[0]) == digest(clip)


def test_bag_of_a_clip(tmp_path):
    clip = render_clip(SMALL, 2)
    demo_bag.write_clip(clip, tmp_path / 'bag')
    with open_bag(tmp_path / 'bag') as bag:
        assert bag.pick() == (demo_bag.IMAGE_TOPIC, demo_bag.EVENTS_TOPIC)
        items = list(bag.items([demo_bag.IMAGE_TOPIC, demo_bag.EVENTS_TOPIC]))
        truth = bag.truth()
    frames = [value for _, value in items if isinstance(value, Frame)]
    packets = [value for _, value in items if isinstance(value, EventPacket)]
    assert [f.stamp_ns for f in frames] == clip.stamps_ns.tolist()
    assert all(np.array_equal(f.image, image) for f, image in zip(frames, clip.frames))
    assert [p.seq for p in packets] == list(range(len(packets)))
    for index, stamp in enumerate(clip.stamps_ns.tolist()):
        assert np.array_equal(truth[stamp].ids, clip.ids[index])
        # nothing in a truth message is said of an object that is hidden
        assert all(clip.moving[index, number] == moves
                   for number, moves in truth[stamp].moving.items())


def test_every_photograph_has_its_licence_noted():
    text = (Path(__file__).parents[2] / 'docs' / 'photographs.md').read_text()
    for split, names in textures._PHOTOS.items():
        for name in names:
            assert any(line.startswith(f'| {split} ') and name in line
                       for line in text.splitlines()), name
