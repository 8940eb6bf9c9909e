"""The kernels' source compiled for the CPU, and a driver that launches it on host memory."""

import ctypes
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

from mos_perception.engine.device_errors import device_error
from mos_perception.engine.ort import OrtEngine
from mos_perception.engine.probe import Gpu

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
        self.inferred = False  # something to wait for
        self.activate()

    def activate(self):
        self.threads.add(threading.get_ident())

    def _here(self):
        assert threading.get_ident() in self.threads, 'the context is not current in this thread'

    def memory(self):
        return 1 << 30, 4 << 30

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


class FaultyDriver(ShimDriver):
    """A driver whose calls fail: each inference takes one of `codes` (0: it works) when it is
    waited for, each allocation one of `full`; a code of a lost device stays, for every call.
    """

    def __init__(self, library, codes=(), full=()):
        self.codes, self.full, self.lost = list(codes), list(full), 0
        super().__init__(library)

    def alloc(self, nbytes):
        if self.full and self.full.pop(0):
            raise device_error('cuMemAlloc', 2, 'CUDA_ERROR_OUT_OF_MEMORY', (5 << 20, 4 << 30))
        return super().alloc(nbytes)

    def synchronize(self, stream):
        super().synchronize(stream)
        code = self.lost or (self.codes.pop(0) if self.codes and self.inferred else 0)
        self.inferred = False
        if code:
            self.lost = code if code >= 700 else 0
            raise device_error('cuStreamSynchronize', code, f'code {code}')

    def _do(self, work):
        if self.lost:
            raise device_error('a call', self.lost, f'code {self.lost}')
        super()._do(work)


class ShimEngine:
    """A DeviceEngine: ONNX Runtime between buffers that the kernels fill and read."""

    gpu = Gpu('shim', (8, 7), 1, 0, '', '')

    def __init__(self, path, driver):
        self.ort, self.driver, self.stream = OrtEngine(path, 1), driver, driver.stream()
        self.inputs, self.outputs, self.runs = self.ort.inputs, self.ort.outputs, 0
        self.tensors = {
            spec.name: driver.pinned(spec.shape, spec.dtype) for spec in self.inputs + self.outputs
        }

    def address(self, name):
        return self.tensors[name].ctypes.data

    def enqueue(self):
        def work():
            self.runs += 1
            self.driver.inferred = True
            for name, array in self.ort.run(
                {spec.name: self.tensors[spec.name] for spec in self.inputs}
            ).items():
                self.tensors[name][...] = array
        self.driver._do(work)

    def run(self, feeds):
        return self.ort.run(feeds)

    def report(self):
        return {'backend': 'shim', 'provider': self.driver.name}
