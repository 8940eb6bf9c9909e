"""The kernels' source compiled for the CPU, and a driver that launches it on host memory."""

import ctypes
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / 'test' / 'shim'
SOURCES = [ROOT / 'mos_perception' / 'events', ROOT / 'mos_perception' / 'models' / 'dimos']
KERNEL_FILES = [SOURCES[0] / 'voxel.cu', SOURCES[0] / 'voxel.h', SOURCES[0] / 'evt3.cu',
                SOURCES[1] / 'frame.cu']


def compile_shim(out, *flags, program=False, sources=SOURCES):
    """Compile the kernels of `sources` as a library, or as the program that a sanitizer watches."""
    kind, file = (['-g'], 'sanitize.cpp') if program else (['-shared', '-fPIC'], 'kernels.cpp')
    done = subprocess.run(['g++', '-std=c++17', '-O1', '-w', '-ffp-contract=off', *kind, *flags,
                           *(f'-I{folder}' for folder in sources), f'-I{SHIM}', '-x', 'c++',
                           str(SHIM / file), '-o', str(out), '-pthread'],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


class ShimDriver:
    """`engine.driver.Driver` on the CPU. A stream's work is done at once, or noted for a graph.

    `shape` (blocks, threads, schedule): overrules every launch but the kernels that need their own
    block size.
    """

    name = 'shim'

    def __init__(self, library, shape=None):
        self.library, self.shape = ctypes.CDLL(str(library)), shape
        self.kept, self.noted, self.launched, self.threads = [], None, [], set()
        self.activate()

    def activate(self):
        self.threads.add(threading.get_ident())

    def _here(self):
        assert threading.get_ident() in self.threads, 'the context is not current in this thread'

    def alloc(self, nbytes):
        self._here()
        self.kept.append(np.full(nbytes + 16, 0xA5, np.uint8))  # garbage, as on a device
        return self.kept[-1].ctypes.data + -self.kept[-1].ctypes.data % 16

    def pinned(self, shape, dtype):
        self._here()
        self.kept.append(np.zeros(shape, dtype))
        return self.kept[-1]

    def device_pointer(self, array):
        return array.ctypes.data

    def h2d(self, target, source, stream):
        assert source.flags.c_contiguous
        self._do(lambda: ctypes.memmove(target, source.ctypes.data, source.nbytes))

    def d2h(self, target, source, stream):
        assert target.flags.c_contiguous
        self._do(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))

    def memset(self, target, value, nbytes, stream):
        self._do(lambda: ctypes.memset(target, value, nbytes))

    def stream(self):
        return 1

    def synchronize(self, stream):
        assert self.noted is None, 'a stream that is being captured cannot be waited for'

    def event(self):
        return [0.0]

    def record(self, event, stream):
        event[0] = time.perf_counter()

    def elapsed_ms(self, start, end):
        return 1e3 * (end[0] - start[0])

    def load_cubin(self, image):
        return image

    def launch(self, module, kernel, grid, block, arguments, stream, shared=0):
        values = [np.array(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        blocks, threads, schedule = self.shape or (min(grid[0], 4), min(block[0], 32), 0)
        if kernel in ('voxel_largest', 'evt3_join'):
            blocks, threads = (blocks if kernel == 'voxel_largest' else 1), 256
        if kernel == 'frame_quality':
            blocks = grid[0]
        self.launched.append(kernel)

        def work(values=values):
            assert self.library.shim_launch(kernel.encode(), blocks, threads, schedule,
                                            pointers) == 0, kernel
        self._do(work)

    def capture(self, work, stream):
        self.noted = []
        work()
        calls, self.noted = self.noted, None
        return lambda: [call() for call in calls] and None

    def close(self):
        self.kept.clear()

    def _do(self, work):
        self._here()
        if self.noted is None:
            work()
        else:
            self.noted.append(work)
