"""The CUDA kernels' own source, run on the CPU (test/shim): bit by bit the CPU path, and each planted bug is caught.

What this cannot see: a GPU's memory model, alignment, launch limits, speed. Not run on a GPU.
"""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events
from mos_perception.events.scatter import time_scale
from mos_perception.events.voxel import accumulate, voxelize

ROOT = Path(__file__).resolve().parents[2]
SOURCE, SHIM = ROOT / 'mos_perception' / 'events', ROOT / 'test' / 'shim'
ARCHITECTURES = ('sm_87', 'sm_90', 'sm_110', 'sm_120')  # Orin, Hopper, Thor, Blackwell desktops
SIZE, BINS = (12, 20), 5
pytestmark = pytest.mark.skipif(shutil.which('g++') is None, reason='g++ is not installed: it compiles the kernels')


class Window(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in ('t0', 'span', 'm')),
                *((name, ctypes.c_void_p) for name in ('columns', 'rows')),
                *((name, ctypes.c_int32) for name in ('low', 'shift', 'width', 'height', 'area', 'bins', 'mask',
                                                      'dark_offset', 'dark_sign'))]


def build(folder, *flags, program=False, source=SOURCE):
    """Compile the shim with the kernels of `source`; the path of the library or program."""
    out = folder / ('program' if program else 'kernels.so')
    kind = ['-DSHIM_MAIN'] if program else ['-shared', '-fPIC']
    done = subprocess.run(['g++', '-std=c++17', '-O1', '-w', *kind, *flags, f'-I{source}', f'-I{SHIM}', '-x', 'c++',
                           str(SHIM / 'voxel_shim.cpp'), '-o', str(out), '-pthread'], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


class Kernels:
    """The kernels as functions of arrays, under one launch shape and schedule."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def window(self, formulation, t0, t1, closed, out_size):
        height, width = out_size
        columns = (np.arange(SIZE[1]) * width // SIZE[1]).astype(np.int32)
        rows = (np.arange(SIZE[0]) * height // SIZE[0] * width).astype(np.int32)
        counts, signed, area = formulation == 'counts', formulation == 'e2vid', height * width
        m, shift = time_scale(BINS if counts else BINS - 1, t1 - t0)
        window = Window(t0, t1 - t0, m, columns.ctypes.data, rows.ctypes.data, 0 if closed else 1, shift, *SIZE[::-1],
                        area, BINS, 0 if counts else 0xFFFF, 0 if signed else BINS * area, -1 if signed else 1)
        window.kept = columns, rows
        return window, np.zeros((BINS if signed else 2 * BINS, height, width), np.int32)

    def events(self, events, t0, t1, formulation='dimos', closed=False, out_size=SIZE, shape=(3, 32, 0)):
        window, grid = self.window(formulation, t0, t1, closed, out_size)
        overflow, count = ctypes.c_int(0), ctypes.c_int(len(events))
        arrays = [np.ascontiguousarray(getattr(events, name)) for name in 'xypt']
        self.library.shim_events(*shape, pointer(grid), ctypes.byref(overflow), *map(pointer, arrays),
                                 ctypes.byref(count), ctypes.byref(window))
        return grid, overflow.value

    def mono(self, words, time_base, t0, t1, shape=(3, 32, 0)):
        window, grid = self.window('dimos', t0, t1, False, SIZE)
        overflow, count = ctypes.c_int(0), ctypes.c_int(len(words))
        self.library.shim_mono(*shape, pointer(grid), ctypes.byref(overflow), pointer(words), ctypes.byref(count),
                               ctypes.c_int64(time_base), ctypes.byref(window))
        return grid

    def normalised(self, grid, floor, shape=(3, 32, 0)):
        largest, out = ctypes.c_int(0), np.empty(grid.shape, np.float32)
        self.library.shim_largest(shape[0], shape[2], pointer(grid), grid.size, ctypes.byref(largest))
        self.library.shim_normalise(*shape, pointer(grid), grid.size, ctypes.byref(largest), ctypes.c_double(floor),
                                    pointer(out))
        return out, largest.value


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def random_events(rng, count, clustered=False):
    """Some outside of the sensor and the window (1000, 3000]; some exactly at its edges."""
    times = np.sort(np.where(rng.random(count) < 0.1, rng.choice([1000, 1001, 3000, 3001], count),
                             rng.integers(900, 3100, count)))
    x, y = ((rng.integers(4, 7, count) if clustered else rng.integers(0, limit + 2, count)).astype(np.uint16)
            for limit in SIZE[::-1])
    return Events(x, y, rng.integers(0, 2, count).astype(np.uint8), times.astype(np.int64))


CASES = {'random': random_events(np.random.default_rng(0), 2000), 'one': random_events(np.random.default_rng(1), 1),
         'clustered': random_events(np.random.default_rng(2), 2000, True), 'empty': Events.empty(),
         'edges': Events(np.full(4, 19, np.uint16), np.full(4, 11, np.uint16), np.array([0, 1, 0, 1], np.uint8),
                         np.array([1000, 1001, 3000, 3001], np.int64)),
         'outside': Events(np.array([20, 65535, 3], np.uint16), np.array([3, 3, 12], np.uint16), np.ones(3, np.uint8),
                           np.full(3, 2000, np.int64))}
SHAPES = [(1, 1, 0), (3, 32, 0), (3, 32, 1), (2, 64, 2)]


def differences(kernels, shapes=SHAPES):
    """Names of the checks that do not give the CPU path's bits."""
    found = []
    for name, events in CASES.items():
        for formulation in ('dimos', 'e2vid', 'counts'):
            wanted = accumulate(events, 1000, 3000, formulation=formulation, bins=BINS, size=SIZE)
            for shape in shapes:
                grid, overflow = kernels.events(events, 1000, 3000, formulation, shape=shape)
                if not np.array_equal(grid, wanted) or overflow:
                    found.append(f'{formulation} {name} {shape}')
    wide = Events(*(getattr(CASES['random'], name) for name in 'xyp'), CASES['random'].t * 10**9)  # a window of 2000 s
    wanted = accumulate(wide, 1000 * 10**9, 3000 * 10**9, formulation='dimos', bins=BINS, size=SIZE)
    if not np.array_equal(kernels.events(wide, 1000 * 10**9, 3000 * 10**9)[0], wanted):
        found.append('long window')
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
    return Kernels(build(tmp_path_factory.mktemp('kernels')))


def test_grids_are_the_cpu_path_s_bit_by_bit(kernels):
    assert differences(kernels) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 300), closed=st.booleans(), shape=st.sampled_from(SHAPES),
       formulation=st.sampled_from(['dimos', 'e2vid', 'counts']))
def test_any_events_any_launch(kernels, seed, count, formulation, closed, shape):
    events = random_events(np.random.default_rng(seed), count)
    wanted = accumulate(events, 1000, 3000, formulation=formulation, bins=BINS, size=SIZE, out_size=(6, 11),
                        closed=closed)
    assert np.array_equal(kernels.events(events, 1000, 3000, formulation, closed, (6, 11), shape)[0], wanted)


def test_raw_mono_packets_give_the_grid_of_their_events(kernels):
    rng = np.random.default_rng(4)
    dt, x, y, p = (rng.integers(0, limit, 500).astype(np.uint64) for limit in (2200, 22, 14, 2))
    words = dt | x << np.uint64(32) | y << np.uint64(48) | p << np.uint64(63)
    events = Events(x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8), 900 + dt.astype(np.int64))
    wanted = accumulate(events, 1000, 3000, formulation='dimos', bins=BINS, size=SIZE)
    for shape in SHAPES:
        assert np.array_equal(kernels.mono(words, 900, 1000, 3000, shape), wanted)


@pytest.mark.parametrize('floor', [0.5, 4.0, 1000.0])
def test_normalised_input_is_the_cpu_path_s(kernels, floor):
    for events in CASES.values():
        grid, _ = kernels.events(events, 1000, 3000)
        wanted = voxelize(events, 1000, 3000, bins=BINS, size=SIZE, norm_floor=floor)
        for shape in SHAPES:
            assert kernels.normalised(grid, floor, shape)[0].tobytes() == wanted.tobytes()


def test_a_cell_that_nears_the_end_of_int32_is_reported(kernels):
    count = 1 << 14
    full = Events(np.zeros(count, np.uint16), np.zeros(count, np.uint16), np.ones(count, np.uint8),
                  np.full(count, 3000, np.int64))
    assert kernels.events(full, 1000, 3000)[1] == 1
    assert kernels.events(Events(*(getattr(full, name)[1:] for name in 'xypt')), 1000, 3000)[1] == 0


def sanitized(folder, kind, source=SOURCE):
    """What a sanitizer says of the kernels: '' or its first lines. Skips where the compiler lacks it."""
    if subprocess.run(['g++', f'-fsanitize={kind}', '-x', 'c++', '-', '-o', str(folder / 'try')], input='int main(){}',
                      capture_output=True, text=True, check=False).returncode:
        pytest.skip(f'g++ has no -fsanitize={kind} here')
    program = build(folder, f'-fsanitize={kind}', '-g', *(['-DSHIM_THREADS'] if kind == 'thread' else []), program=True,
                    source=source)
    run = ['setarch', '-R'] if kind == 'thread' and shutil.which('setarch') else []  # it cannot bear random addresses
    done = subprocess.run([*run, str(program)], capture_output=True, text=True, check=False, timeout=120)
    return '' if done.returncode == 0 else (done.stderr or f'exit code {done.returncode}')[:500]


@pytest.mark.parametrize('kind', ['address', 'thread'])
def test_sanitizers_find_nothing(tmp_path, kind):
    assert sanitized(tmp_path, kind) == ''


MUTANTS = {  # name: (file, what stands there, the bug)
    'no bug': ('voxel.h', '#pragma once', '#pragma once'),
    'missing barrier': ('voxel.cu', '        __syncthreads();\n', ''),
    'missing guard': ('voxel.h', ' || x >= w.width || y >= w.height)', ')'),
    'dropped stride': ('voxel.cu', 'return (long long)gridDim.x * blockDim.x;', 'return blockDim.x;'),
    'wrong sign': ('voxel.h', 'int dark = p <= 0;', 'int dark = p > 0;'),
    'overflow': ('voxel.h', 'long long q = (dt * w.m) >> w.shift;', 'long long q = (int)(dt * w.m) >> w.shift;'),
    'off-by-one bin': ('voxel.h', 'if (plane > w.bins - 1)', 'if (plane > w.bins)'),
    'plain += for atomicAdd': ('voxel.h', 'atomicAdd(&grid[cell], value) + value', '(grid[cell] += value)'),
    'swapped x and y': ('voxel.h', 'w.rows[y] + w.columns[x]', 'w.rows[x % w.height] + w.columns[y]')}


@pytest.mark.parametrize('name', MUTANTS)
def test_every_planted_bug_is_caught(tmp_path, name):
    """By the comparison of bits, else AddressSanitizer, else ThreadSanitizer; prints by which."""
    file, there, bug = MUTANTS[name]
    for path in (SOURCE / 'voxel.cu', SOURCE / 'voxel.h'):
        shutil.copy(path, tmp_path)
    text = (tmp_path / file).read_text()
    assert text.count(there) == 1, f'{file} has no "{there}" any more: plant the bug anew'
    (tmp_path / file).write_text(text.replace(there, bug))
    script = ('import sys; sys.path[:0] = sys.argv[2:]; import test_kernels as k; '
              'sys.exit(1 if k.differences(k.Kernels(sys.argv[1])) else 0)')
    library = build(tmp_path, source=tmp_path)  # a bug may crash: not in this process
    compared = subprocess.run([sys.executable, '-c', script, str(library), str(Path(__file__).parent), str(ROOT)],
                              capture_output=True, check=False, timeout=120)
    caught = 'comparison' if compared.returncode else next(
        (kind for kind in ('address', 'thread') if sanitized(tmp_path, kind, tmp_path)), '')
    print(f'{name}: caught by {caught or "nothing"}')
    assert bool(caught) == (name != 'no bug')


@pytest.mark.skipif(importlib.util.find_spec('cuda') is None, reason='cubins are compiled with NVRTC: pip install '
                    'cuda-core cuda-bindings nvidia-cuda-nvrtc nvidia-cuda-runtime')
@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_kernels_compile_for_the_gpus_we_name(architecture):
    from cuda.core import Program, ProgramOptions
    program = Program((SOURCE / 'voxel.cu').read_text(), 'c++',
                      ProgramOptions(arch=architecture, include_path=[str(SOURCE)], std='c++17'))
    assert len(program.compile('cubin').code) > 1000
