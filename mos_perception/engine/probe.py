"""Is there a GPU? Asked of libcuda itself, before TensorRT is touched: its Runtime kills a process
without a driver.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from mos_perception.errors import EngineError

LIBRARY = 'libcuda.so.1'
# TensorRT 10.3 on JetPack 6 is built for CUDA 12.x; 12.2 is the oldest driver of that line
MIN_CUDA = 12020
REMEDY = ('install or repair the NVIDIA driver (in a container: start it with the GPU), or use '
          '"backend: onnxruntime"')
_SM_COUNT, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute of cuda.h


@dataclass(frozen=True)
class Gpu:
    """The first device libcuda shows.

    `cuda` is the newest CUDA the driver runs, as 1000 major + 10 minor.
    """

    name: str
    capability: tuple[int, int]
    sm_count: int
    cuda: int
    driver: str
    l4t: str

    def __str__(self) -> str:
        return f'{self.name} (sm_{self.capability[0]}{self.capability[1]}, {self.sm_count} SMs)'


def find_gpu(library: str = LIBRARY) -> Gpu:
    """The GPU this process may use.

    Raises EngineError: no driver, no device, a driver too old, or its error code.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise EngineError(f'no NVIDIA driver here ({error}): {REMEDY}') from error
    _call(cuda, 'cuInit', 0)
    version = _integer(cuda, 'cuDriverGetVersion')
    if version < MIN_CUDA:
        raise EngineError(
            f'the NVIDIA driver runs CUDA {_dotted(version)}: at least {_dotted(MIN_CUDA)} is '
            'needed; '
            'update the driver (Jetson: JetPack 6.1 or newer), or use "backend: onnxruntime"'
        )
    if _integer(cuda, 'cuDeviceGetCount') < 1:
        raise EngineError(
            f'the NVIDIA driver shows 0 devices: check CUDA_VISIBLE_DEVICES; {REMEDY}'
        )
    device = _integer(cuda, 'cuDeviceGet', 0)
    name = ctypes.create_string_buffer(256)
    _call(cuda, 'cuDeviceGetName', name, 256, device)
    major, minor, count = (_integer(cuda, 'cuDeviceGetAttribute', which, device)
                           for which in (_MAJOR, _MINOR, _SM_COUNT))
    return Gpu(
        name.value.decode(errors='replace'),
        (major, minor),
        count,
        version,
        _first_line(Path('/proc/driver/nvidia/version')),
        _first_line(Path('/etc/nv_tegra_release')),
    )


def _call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    try:
        code = getattr(cuda, name)(*arguments)
    except AttributeError as error:
        raise EngineError(
            f'the NVIDIA driver library has no {name}: not a driver, or damaged; {REMEDY}'
        ) from error
    if code:
        raise EngineError(
            f'the NVIDIA driver answers error {code} to {name} (100: no device; 803: library and '
            'kernel '
            f'module differ, reboot): {REMEDY}'
        )


def _integer(cuda: ctypes.CDLL, name: str, *arguments: int) -> int:
    """What `name` writes through its first argument."""
    value = ctypes.c_int()
    _call(cuda, name, ctypes.byref(value), *arguments)
    return value.value


def _dotted(version: int) -> str:
    return f'{version // 1000}.{version % 1000 // 10}'


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8', errors='replace').partition('\n')[0].strip()
    except OSError:
        return ''
