"""The CUDA kernels' own source on the CPU (test/shim): bit by bit the CPU path; bugs are caught.

What this cannot see: a GPU's memory model, alignment, launch limits, speed.
"""

import faulthandler
import importlib.util
import itertools
import os
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_driver import KERNEL_FILES, SOURCES, ShimDriver, compile_shim

from mos_perception.datatypes import Events
from mos_perception.engine.kernels import compile_cubin
from mos_perception.events import evt3
from mos_perception.events.arrays import EventArrays
from mos_perception.events.features import time_features
from mos_perception.events.moved import MOTION_HEADER, MotionRule
from mos_perception.events.scatter import ScatterRule
from mos_perception.events.voxel import accumulate, layout_of, sums, voxelize
from mos_perception.models.dimos.cuda_input import HEADER
from mos_perception.motion.event_compensation import from_displacement, node_count

ARCHITECTURES = ('sm_87', 'sm_90', 'sm_110', 'sm_120')  # Orin, Hopper, Thor, Blackwell desktops
SIZE, BINS = (12, 20), 5
EVT3_INTS = 'known', 'row', 'low', 'base', 'polarity', 'first_high', 'high', 'events'
EVT3_STATE = np.dtype([*((name, '<i4') for name in EVT3_INTS), ('wraps', '<i8')])  # Evt3State
pytestmark = pytest.mark.skipif(shutil.which('g++') is None,
                                reason='g++ is not installed: it compiles the kernels')


class Kernels:
    """The kernels as functions of arrays, under any launch shape (blocks, threads, schedule)."""

    def __init__(self, path):
        self.path = path

    def launch(self, shape, kernel, *arguments):
        values = [np.uint64(argument.ctypes.data) if isinstance(argument, np.ndarray) else argument
                  for argument in arguments]
        ShimDriver(self.path, shape).launch(None, kernel, shape[:1], shape[1:2], values, 1)

    def window(self, formulation, t0, t1, closed, out_size):
        layout = layout_of(formulation, BINS, SIZE, out_size)
        self.rule = rule = ScatterRule.of(layout, t0, t1 - t0, closed)  # its tables are pointed at
        window = np.zeros(1, HEADER)
        values = rule._asdict() | {'width': SIZE[1], 'height': SIZE[0]}
        values |= {name: getattr(rule, name).ctypes.data for name in ('columns', 'rows')}
        for name, value in values.items():
            window[0][name] = value
        return window, np.zeros((sums(formulation, BINS), *out_size), np.int32)

    def events(self, events, t0, t1, formulation='dimos', closed=False, out_size=SIZE, motion=None,
               shape=(3, 32, 0)):
        window, grid = self.window(formulation, t0, t1, closed, out_size)
        overflow, count = np.zeros(1, np.int32), np.array([len(events)], np.int32)
        arrays = [np.ascontiguousarray(getattr(events, name)) for name in 'xypt']
        kernel, extra = self.moving('events', motion, t0, t1)
        self.launch(shape, kernel, grid, overflow, *arrays, count, window, *extra)
        return grid, overflow[0]

    def mono(self, words, time_base, t0, t1, motion=None, shape=(3, 32, 0)):
        window, grid = self.window('dimos', t0, t1, False, SIZE)
        overflow, count = np.zeros(1, np.int32), np.array([len(words)], np.int32)
        kernel, extra = self.moving('mono', motion, t0, t1)
        self.launch(shape, kernel, grid, overflow, words, count, np.int64(time_base), window,
                    *extra)
        return grid

    def moving(self, kind, motion, t0, t1):
        """Name of the kernel, and the further argument that it takes with a motion."""
        if motion is None:
            return f'voxel_{kind}', []
        self.motion = MotionRule.of(motion, t0, t1, SIZE)  # its nodes are pointed at
        header = np.zeros(1, MOTION_HEADER)
        values = self.motion._asdict() | {'nodes': self.motion.nodes.ctypes.data}
        for name, value in values.items():
            header[0][name] = value
        return f'voxel_moved_{kind}', [header]

    def features(self, grid, norm_floor, shape=(3, 32, 0), half=False):
        out = np.empty((2, *grid.shape[1:]), np.float16 if half else np.float32)
        self.launch(shape, 'voxel_features', grid, np.int32(grid[0].size), np.int32(len(grid) // 2),
                    np.float32(65536 * norm_floor), out, np.int32(half))
        return out

    def normalised(self, grid, floor, shape=(3, 32, 0), half=False):
        largest = np.zeros(1, np.int32)
        out = np.empty(grid.shape, np.float16 if half else np.float32)
        self.launch(shape, 'voxel_largest', grid, np.int32(grid.size), largest)
        self.launch(shape, 'voxel_normalise', grid, np.int32(grid.size), largest, np.float64(floor),
                    out, np.int32(half))
        return out, largest[0]

    def evt3(self, words, state, shape=(3, 32, 0)):
        """Events (x, y, p, t ns) of the words; `state` goes to that after them."""
        count = np.array([len(words)], np.int32)
        runs = np.zeros(-(-len(words) // 64) + 1, EVT3_STATE)
        events = np.zeros(1, np.int32)
        runs.view(np.uint8)[:] = 0xA5
        self.launch(shape, 'evt3_scan', words, count, runs)
        self.launch(shape, 'evt3_join', count, runs, state, events)
        out = EventArrays.allocate(events[0])
        self.launch(shape, 'evt3_scatter', words, count, runs, *out)
        return out


def random_events(rng, count, clustered=False):
    """Some outside of the sensor and the window (1000, 3000]; some exactly at its edges."""
    times = np.sort(np.where(rng.random(count) < 0.1, rng.choice([1000, 1001, 3000, 3001], count),
                             rng.integers(900, 3100, count)))
    x, y = ((rng.integers(4, 7, count) if clustered
             else rng.integers(0, limit + 2, count)).astype(np.uint16)
            for limit in SIZE[::-1])
    return Events(x, y, rng.integers(0, 2, count).astype(np.uint8), times.astype(np.int64))


CASES = {'random': random_events(np.random.default_rng(0), 2000),
         'one': random_events(np.random.default_rng(1), 1),
         'clustered': random_events(np.random.default_rng(2), 2000, True), 'empty': Events.empty(),
         'edges': Events(np.full(4, 19, np.uint16), np.full(4, 11, np.uint16),
                         np.array([0, 1, 0, 1], np.uint8),
                         np.array([1000, 1001, 3000, 3001], np.int64)),
         'outside': Events(np.array([20, 65535, 3], np.uint16), np.array([3, 3, 12], np.uint16),
                           np.ones(3, np.uint8),
                           np.full(3, 2000, np.int64))}
def random_motion(seed, t_ns=3000, span_ns=2000, reach_px=6):
    """Displacements of any direction at each node, so that every pixel's differs."""
    rng = np.random.default_rng(seed)
    displacement = rng.uniform(-reach_px, reach_px, (*node_count(SIZE), 2))
    return from_displacement(displacement, t_ns, span_ns)


MOTIONS = {'at rest': None, 'to the end': random_motion(5), 'to the begin': random_motion(6, 1000),
           'to the middle, of a longer span': random_motion(7, 2000, 5000, 20)}
SHAPES = [(1, 1, 0), (3, 32, 0), (3, 32, 1), (2, 64, 2)]


def differences(kernels, shapes=SHAPES):
    """Names of the checks that do not give the CPU path's bits."""
    found = []
    cases = itertools.product(CASES.items(), ('dimos', 'e2vid', 'counts'), MOTIONS.items())
    for (name, events), formulation, (moved, motion) in cases:
        wanted = accumulate(events, 1000, 3000, formulation=formulation, bins=BINS, size=SIZE,
                            motion=motion)
        for shape in shapes if name == 'random' else shapes[1:2]:
            grid, overflow = kernels.events(events, 1000, 3000, formulation, motion=motion,
                                            shape=shape)
            if not np.array_equal(grid, wanted) or overflow:
                found.append(f'{formulation} {name} {moved} {shape}')
    wide = Events(*(getattr(CASES['random'], name) for name in 'xyp'),
                  CASES['random'].t * 10**9)  # a window of 2000 s
    wanted = accumulate(wide, 1000 * 10**9, 3000 * 10**9, formulation='dimos', bins=BINS, size=SIZE)
    if not np.array_equal(kernels.events(wide, 1000 * 10**9, 3000 * 10**9)[0], wanted):
        found.append('long window')
    for motion in MOTIONS.values():  # several pixels of a cell
        wanted = accumulate(CASES['random'], 1000, 3000, formulation='dimos', bins=BINS, size=SIZE,
                            out_size=(5, 9), motion=motion)
        grid, _ = kernels.events(CASES['random'], 1000, 3000, out_size=(5, 9), motion=motion)
        if not np.array_equal(grid, wanted):
            found.append('shrunk')
    for events in CASES.values():
        grid = accumulate(events, 1000, 3000, formulation='dimos', bins=BINS, size=SIZE)
        if kernels.features(grid, 4.0).tobytes() != time_features(grid, 4.0).tobytes():
            found.append('features')
    grid = np.random.default_rng(3).integers(-10**6, 10**6, 3000).astype(np.int32)
    for place in (0, 700, 2999):
        grid[place] = -(2_000_000 + place)
        for shape in shapes:
            if kernels.normalised(grid, 1.0, shape)[1] != abs(int(grid[place])):
                found.append(f'largest at {place} {shape}')
        grid[place] = 0
    return found


@pytest.fixture(scope='module')
def kernels(tmp_path_factory):
    return Kernels(compile_shim(tmp_path_factory.mktemp('kernels') / 'kernels.so'))


def test_grids_are_the_cpu_path_s_bit_by_bit(kernels):
    assert differences(kernels) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 300), closed=st.booleans(),
       shape=st.sampled_from(SHAPES),
       formulation=st.sampled_from(['dimos', 'e2vid', 'counts']),
       out_size=st.sampled_from([(6, 11), SIZE, (13, 40), (5, 20), (1, 1)]), moves=st.booleans())
def test_any_events_any_launch(kernels, seed, count, formulation, closed, shape, out_size, moves):
    events = random_events(np.random.default_rng(seed), count)
    motion = random_motion(seed, 1000 + seed % 2001) if moves else None
    wanted = accumulate(events, 1000, 3000, formulation=formulation, bins=BINS, size=SIZE,
                        out_size=out_size, closed=closed, motion=motion)
    found, _ = kernels.events(events, 1000, 3000, formulation, closed, out_size, motion, shape)
    assert np.array_equal(found, wanted)


def test_raw_mono_packets_give_the_grid_of_their_events(kernels):
    rng = np.random.default_rng(4)
    dt, x, y, p = (rng.integers(0, limit, 500).astype(np.uint64) for limit in (2200, 22, 14, 2))
    words = dt | x << np.uint64(32) | y << np.uint64(48) | p << np.uint64(63)
    events = Events(x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8),
                    900 + dt.astype(np.int64))
    for motion in MOTIONS.values():
        wanted = accumulate(events, 1000, 3000, formulation='dimos', bins=BINS, size=SIZE,
                            motion=motion)
        for shape in SHAPES:
            assert np.array_equal(kernels.mono(words, 900, 1000, 3000, motion, shape), wanted)


@pytest.mark.parametrize('floor', [0.5, 4.0, 1000.0])
def test_normalised_input_is_the_cpu_path_s(kernels, floor):
    for events in CASES.values():
        grid, _ = kernels.events(events, 1000, 3000)
        wanted = voxelize(events, 1000, 3000, bins=BINS, size=SIZE, norm_floor=floor)
        for shape in SHAPES:
            assert kernels.normalised(grid, floor, shape)[0].tobytes() == wanted.tobytes()
            half = kernels.normalised(grid, floor, shape, True)[0]
            assert half.tobytes() == wanted.astype(np.float16).tobytes()


@pytest.mark.parametrize('floor', [0.5, 4.0])
def test_counts_and_mean_times_are_the_cpu_path_s(kernels, floor):
    for events, motion in itertools.product(CASES.values(), MOTIONS.values()):
        grid, _ = kernels.events(events, 1000, 3000, motion=motion)
        wanted = voxelize(events, 1000, 3000, formulation='compensated', bins=BINS, size=SIZE,
                          norm_floor=floor, motion=motion)[-2:]
        for shape in SHAPES:
            assert kernels.features(grid, floor, shape).tobytes() == wanted.tobytes()
            half = kernels.features(grid, floor, shape, True)
            assert half.tobytes() == wanted.astype(np.float16).tobytes()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-2**28, 2**28), min_size=1, max_size=40),
       st.sampled_from([1.0, 4096.0]))
def test_half_floats_round_as_numpy_does(kernels, values, floor):
    grid = np.array(values, np.int32)
    # Down to zero through the subnormal ones.
    wanted = kernels.normalised(grid, floor)[0].astype(np.float16)
    assert kernels.normalised(grid, floor, half=True)[0].tobytes() == wanted.tobytes()


def evt3_words(rng, count):
    """Any words; times mostly advance, sometimes wrap or waver."""
    kinds = rng.choice(16, count, p=[0.15, 0.01, 0.3, 0.1, 0.1, 0.08, 0.1, 0.01, 0.08, *[0.01] * 7])
    values = rng.integers(0, 4096, count)
    steps = rng.choice([0, 1, 3, -2, -30], count, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    high = (4000 + np.cumsum(steps)) % 4096
    values = np.where(kinds == 8, high, np.where(kinds == 0, values % 16, values))
    return (kinds << 12 | values).astype(np.uint16)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 900), shape=st.sampled_from(SHAPES))
def test_evt3_is_decoded_as_on_the_cpu(kernels, seed, count, shape):
    rng = np.random.default_rng(seed)
    words, (rows, columns) = evt3_words(rng, count), (12, 700)
    before = rng.integers(0, 2048, evt3.STATE_SIZE)
    before[evt3.READY], before[evt3.POLARITY], before[evt3.WRAPS] = 2, 1, 3
    state = np.zeros(1, EVT3_STATE)
    state[0] = (15, before[evt3.ROW], before[evt3.LOW], before[evt3.BASE], before[evt3.POLARITY], 0,
                before[evt3.HIGH],
                0, before[evt3.WRAPS])
    found = kernels.evt3(words, state, shape)
    inside = (found[0] < columns) & (found[1] < rows)
    total = evt3.count_evt3(words)
    arrays, after = EventArrays.allocate(total + evt3.SLACK), before.copy()
    n = evt3.decode_evt3(words, columns, rows, after, arrays).kept
    assert len(found[0]) == total
    for ours, wanted in zip(found, arrays):
        assert np.array_equal(ours[inside], wanted[:n])
    names = {'row': evt3.ROW, 'low': evt3.LOW, 'base': evt3.BASE, 'polarity': evt3.POLARITY,
             'high': evt3.HIGH,
             'wraps': evt3.WRAPS}
    assert [int(state[0][name]) for name in names] == [int(after[k]) for k in names.values()]


def test_a_cell_that_nears_the_end_of_int32_is_reported(kernels):
    count = 1 << 14
    full = Events(np.zeros(count, np.uint16), np.zeros(count, np.uint16), np.ones(count, np.uint8),
                  np.full(count, 3000, np.int64))
    assert kernels.events(full, 1000, 3000)[1] == 1
    assert kernels.events(Events(*(getattr(full, name)[1:] for name in 'xypt')), 1000, 3000)[1] == 0


def sanitized(folder, kind, sources=SOURCES):
    """What a sanitizer says of the kernels: '' or its first lines. Skips where g++ lacks it."""
    attempt = ['g++', f'-fsanitize={kind}', '-x', 'c++', '-', '-o', str(folder / 'try')]
    if subprocess.run(attempt, input='int main(){}', capture_output=True, text=True,
                      check=False).returncode:
        pytest.skip(f'g++ has no -fsanitize={kind} here')
    program = compile_shim(folder / kind, f'-fsanitize={kind}',
                           *(['-DSHIM_THREADS'] if kind == 'thread' else []),
                           program=True, sources=sources)
    # The thread sanitizer cannot bear random addresses.
    run = ['setarch', '-R'] if kind == 'thread' and shutil.which('setarch') else []
    done = subprocess.run([*run, str(program)], capture_output=True, text=True, check=False,
                          timeout=600)
    return '' if done.returncode == 0 else (done.stderr or f'exit code {done.returncode}')[:500]


@pytest.mark.parametrize('kind', ['address', 'thread'])
def test_sanitizers_find_nothing(tmp_path, kind):
    assert sanitized(tmp_path, kind) == ''


MUTANTS = {  # name: (file, what stands there, the bug)
    'no bug': ('voxel.h', '#pragma once', '#pragma once'),
    'missing barrier': ('voxel.cu', '        __syncthreads();\n', ''),
    'missing guard': ('voxel.h', """ || e.x >= w.width || e.y >= w.height)
        return;
    long long q""", """)
        return;
    long long q"""),
    'dropped stride': ('voxel.cu', 'return (long long)gridDim.x * blockDim.x;',
                       'return blockDim.x;'),
    'wrong sign': ('voxel.h', 'int dark = e.p <= 0;', 'int dark = e.p > 0;'),
    'overflow': ('voxel.h', 'long long q = (dt * w.m) >> w.shift;',
                 'long long q = (int)(dt * w.m) >> w.shift;'),
    'off-by-one bin': ('voxel.h', 'if (plane > w.bins - 1)', 'if (plane > w.bins)'),
    'plain += for atomicAdd': ('voxel.h', 'atomicAdd(&grid[cell], value) + value',
                               '(grid[cell] += value)'),
    'swapped x and y': ('voxel.h', 'w.rows[e.y] + w.columns[e.x]',
                        'w.rows[e.x % w.height] + w.columns[e.y]'),
    'moved: wrong sign': ('voxel.h', '(k.t - e.t)', '(e.t - k.t)'),
    'moved: wrong span': ('voxel.h', '(k.t - e.t) * k.m) >> k.shift)',
                          '(k.t - e.t) * w.m) >> (w.shift + 2))'),
    'moved: from the begin': ('voxel.h', '(k.t - e.t)', '(w.t0 - e.t)'),
    'moved: corner for centre': ('voxel.h', '* 16 + 128 +', '* 16 +'),
    'moved: no rounding': ('voxel.h', 'age * right + 1024', 'age * right'),
    'moved: unsigned half': ('voxel.h', '(short)a, (short)b, (short)c, (short)d',
                             'a & 0xFFFF, b & 0xFFFF, c & 0xFFFF, d & 0xFFFF'),
    'moved: rows for columns': ('voxel.h', 'node[k.columns + 1]', 'node[2]'),
    'moved: swapped x and y': ('voxel.h', 'd >> 16, e.x & 15, e.y & 15)',
                               'd >> 16, e.y & 15, e.x & 15)'),
    'moved: dropped clamp left': ('voxel.h', 'bool before = pixel >= 0',
                                  'bool before = pixel >= -1'),
    'moved: dropped clamp right': ('voxel.h', 'after = pixel + 1 < count;', 'after = true;'),
    'moved: dropped clamp': ('voxel.h', ' || y < -256 || y >= w.height * 256)', ')'),
    'moved: whole vote for each': ('voxel.h', 'axis.weight[0] = 256, axis.weight[1] = 0;',
                                   'axis.weight[0] = axis.weight[1] = 256;'),
    'moved: share of the event': ('voxel.h', 'unsigned int)weight * share >> 16',
                                  'unsigned int)weight * (share >> 8) >> 8'),
    'moved: last bin': ('voxel.h', 'plane = q >> 16 > w.bins - 1 ? w.bins - 1 : q >> 16;',
                        'plane = q >> 16;'),
    'features: one polarity': ('voxel.cu', '(long long)cell[0] + cell[(long long)bins * area]',
                               'cell[0]'),
    'features: from the begin': ('voxel.cu', '(2 * plane - (bins - 1))', '(2 * plane)'),
    'features: any count': ('voxel.cu', 'events >= 2 * 65536', 'events >= 65536')}


@pytest.mark.parametrize('name', MUTANTS)
def test_every_planted_bug_is_caught(tmp_path, name):
    """By the comparison of bits, else AddressSanitizer, else ThreadSanitizer; prints by which."""
    file, there, bug = MUTANTS[name]
    for path in KERNEL_FILES:
        shutil.copy(path, tmp_path)
    text = (tmp_path / file).read_text()
    assert text.count(there) == 1, f'{file} has no "{there}" any more: plant the bug anew'
    (tmp_path / file).write_text(text.replace(there, bug))
    library = compile_shim(tmp_path / 'kernels.so', sources=[tmp_path])
    child = os.fork()  # a bug may crash
    if child == 0:
        faulthandler.disable()
        os._exit(bool(differences(Kernels(library))))
    differs = os.waitpid(child, 0)[1]
    caught = 'comparison' if differs else next(
        (kind for kind in ('address', 'thread') if sanitized(tmp_path, kind, [tmp_path])), '')
    print(f'{name}: caught by {caught or "nothing"}')
    assert bool(caught) == (name != 'no bug')


@pytest.mark.skipif(importlib.util.find_spec('cuda') is None,
                    reason='cubins are compiled with NVRTC: pip install '
                    'cuda-core cuda-bindings nvidia-cuda-nvrtc nvidia-cuda-runtime')
@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('source', [path for path in KERNEL_FILES if path.suffix == '.cu'],
                         ids=lambda path: path.name)
def test_kernels_compile_for_the_gpus_we_name(source, architecture):
    capability = int(architecture[3:-1]), int(architecture[-1])
    assert len(compile_cubin(source, capability)) > 1000
