"""The event sensor against independent computations: plain Python crossings, analytic responses,
Poisson rates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.scenes import esim, esim_torch
from training.scenes.presets import EventSensor
from training.scenes.splits import generator

torch.set_num_threads(1)
SHAPE = (5, 7)


def pixels_of(rng, **changes):
    """Uneven thresholds, a state between them."""
    on, off = rng.uniform(0.1, 0.4, (2, *SHAPE)).astype(np.float32)
    state = (rng.uniform(-0.9, 0.9, SHAPE) * np.minimum(on, off)).astype(np.float32)
    return replace(esim.Pixels(on, off, np.zeros(SHAPE, np.float32), 0, state), **changes)


def signal(rng, samples=60, swing=0.25):
    """(S, H, W) float32 random walk in log light, and irregular stamps from 0."""
    logs = np.cumsum(rng.normal(0, swing, (samples, *SHAPE)), 0).astype(np.float32) - 1
    return logs, np.concatenate([[0], np.cumsum(rng.integers(200_000, 2_000_000, samples - 1))])


def oracle(logs, stamps, pixels):
    """[(t, x, y, p)] by following every pixel's reference level in float64, one level at a time."""
    found = []
    for y, x in np.ndindex(*SHAPE):
        values = (
            logs[:, y, x].astype(float)
            + np.cumsum(np.concatenate([[0], np.diff(stamps)])) * pixels.drift[y, x]
        )
        reference, fired = values[0] - pixels.state[y, x], -1e18
        for a, b, t0, t1 in zip(values[:-1], values[1:], stamps[:-1], stamps[1:], strict=True):
            p = int(b > a)
            while (b >= reference + pixels.on[y, x]) if p else (b <= reference - pixels.off[y, x]):
                reference += pixels.on[y, x] if p else -pixels.off[y, x]
                t = t0 + (reference - a) / (b - a) * (t1 - t0)
                if t - fired >= pixels.refractory_ns:
                    found.append((t, x, y, p))
                    fired = t
    return sorted(found)


def by_pixel(packed):
    """(E, 4) int64: x, y, p, t, in order of pixel and time."""
    events = esim.unpack(packed, 0)
    table = np.stack([events.x, events.y, events.p, events.t], 1).astype(np.int64)
    return table[np.lexsort((table[:, 3], table[:, 0], table[:, 1]))]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), refractory_ns=st.sampled_from([0, 300_000, 3_000_000]),
       leak=st.sampled_from([0.0, 4e-9]))
def test_crossings_equal_a_slow_walk_in_float64(seed, refractory_ns, leak):
    rng = np.random.default_rng(seed)
    logs, stamps = signal(rng)
    pixels = pixels_of(rng, refractory_ns=refractory_ns, drift=np.full(SHAPE, leak, np.float32))
    mine = by_pixel(esim.crossings(logs, stamps, pixels))
    want = np.array([(x, y, p, int(t)) for t, x, y, p in oracle(logs, stamps, pixels)],
                    np.int64).reshape(-1, 4)
    want = want[np.lexsort((want[:, 3], want[:, 0], want[:, 1]))]
    # a crossing within rounding of a sample's value or of dead time may fall either way
    if len(mine) == len(want):
        assert (
            np.array_equal(mine[:, :3], want[:, :3])
            and np.abs(mine[:, 3] - want[:, 3]).max(initial=0) < 2_000
        )
    assert abs(len(mine) - len(want)) <= 2 and len(want) > 100


@pytest.mark.parametrize('cutoff_hz', [0.0, 40.0])
@pytest.mark.parametrize('refractory_ns', [0, 400_000, 4_000_000])
def test_torch_gives_the_same_events(cutoff_hz, refractory_ns):
    rng = np.random.default_rng(7)
    logs, stamps = signal(rng, 150)
    pixels = pixels_of(rng, cutoff_hz=cutoff_hz, refractory_ns=refractory_ns,
                       drift=np.full(SHAPE, 1e-9, np.float32))
    a = by_pixel(esim.crossings(logs, stamps, pixels))
    b = by_pixel(esim.crossings(torch.from_numpy(logs), stamps, pixels))
    assert len(a) > 100 and same_events(a, b) > 0.995


def same_events(a, b, within_ns=5_000):
    """Share of events of `a` that have a partner in `b` (same pixel and polarity, nearly the same
    time)."""
    if abs(len(a) - len(b)) > 0.005 * len(a):
        return 0.0
    pool = {}
    for x, y, p, t in b:
        pool.setdefault((x, y, p), []).append(t)
    near = sum(np.abs(np.array(pool.get((x, y, p), [10**15])) - t).min() <= within_ns
               for x, y, p, t in a)
    return near / len(a)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device here')
def test_cuda_gives_the_same_events():
    rng = np.random.default_rng(8)
    logs, stamps = signal(rng, 150)
    pixels = pixels_of(rng, cutoff_hz=60.0, refractory_ns=400_000)
    a = by_pixel(esim.crossings(logs, stamps, pixels))
    assert (
        same_events(a, by_pixel(esim.crossings(torch.from_numpy(logs).cuda(), stamps, pixels)))
        > 0.995
    )


@pytest.mark.parametrize('cutoff_hz', [0.0, 50.0])
def test_pieces_and_threads_do_not_matter(cutoff_hz):
    rng = np.random.default_rng(1)
    size = (47, 9)
    logs = np.cumsum(rng.normal(0, 0.2, (50, *size)), 0).astype(np.float32)
    stamps = np.arange(50) * 1_000_000
    pixels = replace(esim.Pixels.ideal(size, 0.2), refractory_ns=700_000, cutoff_hz=cutoff_hz)
    whole = np.sort(esim.crossings(logs, stamps, pixels))
    assert np.array_equal(whole, np.sort(esim.crossings(logs, stamps, pixels, threads=3)))
    crosser = esim.Crosser(pixels, logs[0], 0, threads=2)
    parts = [crosser.feed(logs[a:a + 13], stamps[a:a + 13]) for a in range(1, 50, 13)]
    assert len(whole) and np.array_equal(whole, np.sort(np.concatenate(parts)))
    bands = [esim.crossings(logs[:, rows], stamps, pixels.rows(rows), first_row=rows.start)
             for rows in (slice(0, 11), slice(11, 47))]
    assert np.array_equal(whole, np.sort(np.concatenate(bands)))


@pytest.mark.parametrize('light', [1.0, 0.3, 0.0])
@pytest.mark.parametrize('torch_too', [False, True])
def test_low_pass_follows_the_exponential(light, torch_too):
    """A step in log light: each level is crossed when 1 - exp(-2 pi f t) reaches it, f falling with
    light."""
    cutoff_hz, height, threshold = 20.0, 2.0, 0.1
    corner = cutoff_hz * (light * 255 + 20) / 275
    stamps = np.concatenate([[0, 1_000], 1_000 + np.arange(1, 600) * 500_000])
    after = np.log(light + esim.LOG_EPS)
    logs = np.full((len(stamps), *SHAPE), after, np.float32)
    logs[0] -= height
    pixels = replace(esim.Pixels.ideal(SHAPE, threshold), cutoff_hz=cutoff_hz)
    events = esim.unpack(esim.crossings(torch.from_numpy(logs) if torch_too else logs, stamps,
                                        pixels), 0)
    seconds = (events.t[(events.x == 2) & (events.y == 3)] - 1_000) * 1e-9
    share = 1 - np.exp(-2 * np.pi * corner * (stamps[-1] - 1_000) * 1e-9)
    levels = threshold * np.arange(1, int(height * share / threshold + 0.999) + 1)
    levels = levels[levels < height * share * 0.999]
    analytic = -np.log1p(-levels / height) / (2 * np.pi * corner)
    assert (events.p == 1).all() and abs(len(seconds) - len(levels)) <= 1
    count = min(len(seconds), len(levels))
    steepness = 2 * np.pi * corner * 5e-4  # levels are met linearly within a sample of 0.5 ms
    assert count >= 8 and np.abs(seconds[:count] - analytic[:count]).max() < 5e-4 * steepness + 5e-5


def test_low_pass_does_not_depend_on_the_sampling_of_a_ramp():
    seconds = np.linspace(0, 0.2, 2001)
    ramp = np.broadcast_to((0.0 - 6 * seconds)[:, None, None], (2001, *SHAPE)).astype(np.float32)
    pixels = replace(esim.Pixels.ideal(SHAPE, 0.05), cutoff_hz=30.0)
    stamps = np.round(seconds * 1e9).astype(np.int64)
    fine = esim.unpack(esim.crossings(ramp, stamps, pixels), 0)
    coarse = esim.unpack(esim.crossings(ramp[::20].copy(), stamps[::20], pixels), 0)
    count = min(len(fine), len(coarse))
    assert abs(len(fine) - len(coarse)) <= 35 and count > 20 * 35
    assert np.abs(fine.t[:count] - coarse.t[:count]).max() < 1e6


def test_leak_rate():
    """20 ON events per pixel-second with nothing to see; both rules."""
    pixels = replace(esim.Pixels.ideal(SHAPE, 0.1), drift=np.full(SHAPE, 0.1 * 20e-9, np.float32))
    logs, stamps = np.zeros((201, *SHAPE), np.float32), np.arange(201) * 5_000_000
    for images in (logs, torch.from_numpy(logs)):
        events = esim.unpack(esim.crossings(images, stamps, pixels), 0)
        assert set(events.p) == {1} and abs(len(events) - 35 * 20) <= 35


def test_leak_of_a_drawn_sensor_has_the_named_rate():
    sensor = EventSensor(leak_hz=(5.0, 5.0), refractory_s=(0.0, 0.0))
    pixels = esim.Pixels.draw(generator(0, 'train', 1), sensor, (40, 50))
    stamps = np.arange(101) * 20_000_000
    events = esim.unpack(esim.crossings(np.zeros((101, 40, 50), np.float32), stamps, pixels), 0)
    # of the second second: the first event of a pixel is due later on average
    rate = (events.t > 10**9).sum() / 2000
    # the mean of the log-normal spread
    assert rate == pytest.approx(5 * np.exp(0.23**2 / 2), rel=0.02)


def test_refractory_time_is_kept():
    rng = np.random.default_rng(2)
    logs, stamps = signal(rng, 100)
    pixels = pixels_of(rng, refractory_ns=2_500_000)
    for images in (logs, torch.from_numpy(logs)):
        table = by_pixel(esim.crossings(images, stamps, pixels))
        same = (np.diff(table[:, 0]) == 0) & (np.diff(table[:, 1]) == 0)
        assert len(table) > 100 and np.diff(table[:, 3])[same].min() >= 2_500_000


def test_shot_noise_rate():
    sensor = EventSensor(shot_hz=(4.0, 4.0), hot_share=(0.0, 0.0))
    events = esim.unpack(esim.noise(generator(0, 'train', 9), sensor, (100, 100), 10**9), 0)
    assert abs(len(events) - 40_000) < 5 * np.sqrt(40_000)
    assert abs(int((events.p == 1).sum()) * 2 - len(events)) < 10 * np.sqrt(len(events))
    assert 0 <= events.t[0] and events.t[-1] < 10**9 and (np.diff(events.t) >= 0).all()


def test_read_out_drops_the_rest_of_a_packet():
    t = np.concatenate([np.arange(100) * 1_000, 1_000_000 + np.arange(20) * 1_000, [3_999_999]])
    packed = (t << 29) | 6
    kept = esim.read_out(np.random.default_rng(0).permutation(packed), 30_000.0) >> 29
    assert np.array_equal(kept, np.concatenate([t[:30], t[100:]]))


def test_drawing_is_deterministic_and_new_settings_change_no_old_draw():
    sensor = EventSensor()
    a, b = (esim.Pixels.draw(generator(3, 'train', 1), sensor, (20, 30)) for _ in range(2))
    assert all(np.array_equal(getattr(a, name), getattr(b, name))
               for name in ('on', 'off', 'drift', 'state'))
    assert a.cutoff_hz == 0.0 and a.state.dtype == np.float32


def test_refractory_filter_alone():
    """Against a walk: pixel 5 fires at 0, 1, 2, 3 (x 1 ms) with 1.5 ms of dead time; pixel 6 in
    between."""
    packed = torch.tensor(
        [
            (t << 29) | (x << 1)
            for t, x in (
                (0, 5),
                (500_000, 6),
                (1_000_000, 5),
                (2_000_000, 5),
                (2_100_000, 6),
                (3_000_000, 5),
                (3_500_000, 5),
            )
        ]
    )
    kept = esim_torch.refractory(packed.flip(0), 1_500_000)
    assert sorted((value >> 29, (value >> 1) & 15) for value in kept.tolist()) == [
        (0, 5), (500_000, 6), (2_000_000, 5), (2_100_000, 6), (3_500_000, 5)]
