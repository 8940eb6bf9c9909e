"""Voxel grids: against exact integers in plain Python, mass conservation, DIMOS' own formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events, EventWindow
from mos_perception.errors import ConfigError
from mos_perception.events import scatter
from mos_perception.events.voxel import FORMULATIONS, accumulate, sums, voxelize

ONE = 65536
SUMMED = [name for name in FORMULATIONS if name != 'compensated']  # test_event_compensation.py


def make(xs, ys, ps, ts):
    return Events(np.array(xs, np.uint16), np.array(ys, np.uint16), np.array(ps, np.uint8),
                  np.array(ts, np.int64))


def random_events(count, size, t0, t1, seed=0):
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, count) for limit in (size[1], size[0], 2))
    return make(x, y, p, np.sort(rng.integers(t0 + 1, t1 + 1, count)))


def exact(events, t0, t1, formulation, bins, size, out_size):
    """The formulas of voxel.py in Python integers: q within one unit of 2^-16."""
    height, width = out_size
    grid = np.zeros((sums(formulation, bins), height, width), object)
    grid[:] = 0
    span, nearest = t1 - t0, formulation == 'counts'
    k = bins if nearest else bins - 1
    m, shift = scatter.time_scale(k, span) if span > 0 else (0, 0)
    for x, y, p, t in zip(*(getattr(events, name).tolist() for name in 'xypt')):
        if not t0 < t <= t1 or x >= size[1] or y >= size[0]:
            continue
        q = ((t - t0) * m) >> shift
        assert 0 <= q - (k * (t - t0) * ONE) // span <= 1
        cell = (y * height // size[0], x * width // size[1])
        plane, share = (min(q >> 16, bins - 1), 0) if nearest else (q >> 16, q & 0xFFFF)
        dark = p == 0
        offset, sign = (0, -1 if dark else 1) if formulation == 'e2vid' else (bins * dark, 1)
        grid[offset + plane][cell] += sign * (ONE - share)
        if share:
            grid[offset + plane + 1][cell] += sign * share
    return grid


event = st.tuples(st.integers(0, 9), st.integers(0, 7), st.integers(0, 1), st.integers(-5, 105))


@settings(max_examples=150, deadline=None)
@given(st.lists(event, max_size=60), st.sampled_from(SUMMED), st.integers(1, 6),
       st.booleans(), st.integers(1, 3))
def test_equals_exact_integers_and_conserves_mass(rows, formulation, bins, ordered, threads):
    rows = sorted(rows, key=lambda row: row[3]) if ordered else rows
    events = make(*zip(*rows)) if rows else Events.empty()
    size, out = (6, 8), (3, 5)  # some events lie outside
    grid = accumulate(events, 0, 100, formulation=formulation, bins=bins, size=size, out_size=out,
                      threads=threads)
    assert np.array_equal(grid, exact(events, 0, 100, formulation, bins, size, out))
    used = [row for row in rows if 0 < row[3] <= 100 and row[0] < 8 and row[1] < 6]
    mass = sum(2 * row[2] - 1 for row in used) if formulation == 'e2vid' else len(used)
    assert int(grid.sum()) == ONE * mass


@pytest.mark.parametrize('formulation', SUMMED)
@pytest.mark.parametrize('bins', [1, 5, 10])
def test_threads_and_order_do_not_matter(formulation, bins, monkeypatch):
    monkeypatch.setattr(scatter, 'PARALLEL_FROM', 1000)
    size = (20, 30)
    events = random_events(20_000, size, 10_000, 33_333_333)
    events.x[::7], events.y[::7] = 3, 2  # a hot pixel: more than one scratch pixel holds
    events.p[::14] = 1
    keywords = {'formulation': formulation, 'bins': bins, 'size': size}
    one = accumulate(events, 10_000, 33_333_333, threads=1, **keywords)
    for threads in (2, 3, 16):
        many = accumulate(events, 10_000, 33_333_333, threads=threads, **keywords)
        assert np.array_equal(one, many)
    order = np.random.default_rng(1).permutation(len(events))
    mixed = Events(events.x[order], events.y[order], events.p[order], events.t[order])
    assert np.array_equal(one, accumulate(mixed, 10_000, 33_333_333, threads=4, **keywords))
    assert np.array_equal(one, exact(events, 10_000, 33_333_333, formulation, bins, size, size))


@pytest.mark.parametrize('cells', [1, 400_000], ids=['dense', 'direct'])
@pytest.mark.parametrize('count', [40_000, 70_000])
@pytest.mark.parametrize('signs', [[1], [0], [1, 0]])
def test_hot_pixel_does_not_wrap(count, signs, cells):
    events = make([0] * count, [0] * count, (signs * count)[:count],
                  np.linspace(1, 5, count).astype(int))
    grid = accumulate(events, 0, 1000, formulation='e2vid', bins=2, size=(1, cells))
    wanted = ONE * sum(2 * sign - 1 for sign in events.p.tolist())
    assert int(grid[:, 0, 0].astype(object).sum()) == wanted
    assert grid.dtype == (np.int64 if len(signs) == 1 else np.int32)


def test_window_edges_are_explicit():
    events = make([0, 1, 2, 3], [0] * 4, [1] * 4, [100, 101, 200, 201])
    grid = accumulate(events, 100, 200, formulation='e2vid', bins=3, size=(1, 4))
    assert grid.sum() == 2 * ONE  # 100 belongs to the window before, 201 to the one after
    assert grid[2, 0, 2] == ONE   # the end is exactly the last plane
    closed = accumulate(events, 100, 200, formulation='e2vid', bins=3, size=(1, 4), closed=True)
    assert closed[0, 0, 0] == ONE


@pytest.mark.parametrize(('formulation', 'as_released'),
                         [*((name, False) for name in SUMMED), ('dimos', True)])
@pytest.mark.parametrize('times', [[], [50], [50, 50, 50], [100, 100]])
def test_empty_one_event_and_equal_stamps(formulation, as_released, times):
    events = make([1] * len(times), [1] * len(times), [1] * len(times), times)
    grid = voxelize(EventWindow(events, 0, 100, 4, 6), formulation=formulation, bins=5,
                    as_released=as_released, out_size=(2, 3),
                    normalise='none')
    assert grid.dtype == np.float32 and grid.shape[1:] == (2, 3) and np.isfinite(grid).all()
    assert grid.sum() == pytest.approx(0 if as_released else len(times))
    # A window without length holds nothing.
    assert voxelize(events, 100, 100, size=(4, 6)).sum() == 0


def dimos_by_its_formula(events, bins, size):
    """utils/event_utils.py of DIMOS in float64: weights max(0, 1 - |t* - b|)."""
    t = (events.t - events.t[0]) / (events.t[-1] - events.t[0]) * (bins - 1)
    grid = np.zeros((2 * bins, *size))
    for b in range(bins):
        for offset, wanted in ((0, 1), (bins, 0)):
            chosen = events.p == wanted
            np.add.at(grid[offset + b], (events.y[chosen], events.x[chosen]),
                      np.maximum(0, 1 - abs(t - b))[chosen])
    return grid


def test_as_released_is_dimos_formula():
    cv2 = pytest.importorskip('cv2')
    events = random_events(3000, (36, 64), 1_000_000, 50_000_000)
    native = dimos_by_its_formula(events, 5, (36, 64))
    resized = np.stack([cv2.resize(plane, (16, 9), interpolation=cv2.INTER_LINEAR)
                        for plane in native])
    grid = voxelize(EventWindow(events, 0, 60_000_000, 36, 64), out_size=(9, 16), as_released=True)
    assert np.allclose(grid, resized / (resized.max() + 1e-5), atol=2e-5)


def test_normalisations():
    events = random_events(2000, (12, 16), 0, 1000)
    window = EventWindow(events, 0, 1000, 12, 16)
    raw = voxelize(window, normalise='none')
    assert raw.sum() == pytest.approx(2000, rel=1e-5)
    assert np.allclose(voxelize(window, normalise='max'), raw / raw.max(), rtol=1e-6)
    # The floor keeps quiet quiet.
    assert np.allclose(voxelize(window, norm_floor=1e4), raw / 1e4, rtol=1e-6)
    signed = voxelize(window, formulation='e2vid', normalise='none')
    scaled = voxelize(window, formulation='e2vid', normalise='max')
    assert abs(scaled).max() == pytest.approx(1)
    assert np.allclose(scaled, signed / abs(signed).max(), rtol=1e-5)
    standard = voxelize(window, formulation='e2vid', normalise='std')
    cells = signed[signed != 0]
    assert np.allclose(standard[signed != 0], (cells - cells.mean()) / cells.std(), atol=1e-4)
    assert (standard[signed == 0] == 0).all()


def test_linear_keeps_the_mean_and_bin_keeps_every_event():
    events = random_events(5000, (24, 32), 0, 1000)
    window = EventWindow(events, 0, 1000, 24, 32)
    binned = voxelize(window, out_size=(6, 8), normalise='none')
    assert binned.sum() == pytest.approx(5000, rel=1e-5)
    linear = voxelize(window, out_size=(12, 16), resize='linear', normalise='none')
    assert linear.sum() == pytest.approx(5000 / 4, rel=0.1)
    assert np.array_equal(voxelize(window, resize='linear'), voxelize(window))


def test_inputs_of_other_kinds_and_not_changed():
    events = random_events(500, (12, 16), 0, 1000)
    rows = np.zeros(500, [('x', '<i4'), ('y', '<i4'), ('p', '?'), ('t', '<i8')])
    for name in 'xypt':
        rows[name] = getattr(events, name)
    before = rows.copy()
    strided = Events(rows['x'], rows['y'], rows['p'], rows['t'])
    assert np.array_equal(voxelize(strided, 0, 1000, size=(12, 16)),
                          voxelize(events, 0, 1000, size=(12, 16)))
    assert np.array_equal(rows, before)
    assert rows.flags.writeable and events.t.flags.writeable


@pytest.mark.parametrize('keywords', [
    {'formulation': 'x'}, {'bins': 0}, {'resize': 'x'}, {'normalise': 'x'}, {'size': None},
    {'out_size': (0, 4)}, {'as_released': True, 'formulation': 'e2vid'}])
def test_refuses(keywords):
    with pytest.raises(ConfigError):
        voxelize(random_events(5, (4, 4), 0, 10), 0, 10, **{'size': (4, 4), **keywords})
