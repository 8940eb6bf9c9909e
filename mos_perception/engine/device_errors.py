"""What an error of the GPU means: memory that is full, a device that is lost, or one failed call.

Codes and texts are those of `CUresult` in cuda.h and of `cuGetErrorString`; ONNX Runtime puts both
into its messages.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import TypeVar

from mos_perception.errors import DeviceLostError, DeviceMemoryError, EngineError, mos_command

OUT_OF_MEMORY = 2
# After these, says cuda.h, every further call fails until the process is started anew; or the
# device itself is gone.
LOST = {
    46: 'busy or unavailable',
    100: 'no CUDA-capable device is detected',
    101: 'invalid device ordinal',
    214: 'uncorrectable ECC error',
    220: 'uncorrectable NVLink error',
    700: 'an illegal memory access was encountered',
    702: 'the launch timed out and was terminated',
    709: 'context is destroyed',
    710: 'device-side assert triggered',
    714: 'hardware stack error',
    715: 'an illegal instruction was encountered',
    716: 'misaligned address',
    717: 'operation not supported on global/shared address space',
    718: 'invalid program counter',
    719: 'unspecified launch failure',
    999: 'unknown error',
}
_CODE = re.compile(r'CUDA (?:failure|error) (\d+)')
_FULL = re.compile(r'out of memory|failed to allocate memory|'
                   r'available memory of \d+ is smaller than requested', re.IGNORECASE)
T = TypeVar('T')


def device_error(what: str, code: int | None = None, text: str = '',
                 memory: tuple[int, int] | None = None) -> EngineError:
    """The error to raise for a failed call on the GPU.

    `what` failed; `code` of CUresult, None where only the `text` tells; `memory` (free, total)
    bytes of the device. Returns DeviceMemoryError, DeviceLostError or EngineError.
    """
    found = _CODE.search(text)
    if code is None and found:
        code = int(found.group(1))
    reason = f'{what} failed with {text or code}'
    if code == OUT_OF_MEMORY or code is None and _FULL.search(text):
        free = '' if memory is None else (
            f' with {memory[0] / 2**20:.0f} of {memory[1] / 2**20:.0f} MiB free')
        return DeviceMemoryError(
            f'GPU memory is full: {reason}{free}: end other GPU programs, or use a smaller model '
            'or "backend: onnxruntime"')
    if code in LOST or code is None and any(words in text for words in LOST.values()):
        return DeviceLostError(
            f'the GPU is lost to this process: {reason}: only a new process can use it again '
            f'(respawn:=true); if it comes back, see "{mos_command("doctor")}" and dmesg')
    return EngineError(f'CUDA: {reason}: see "{mos_command("doctor")}"')


def tried_twice(load: Callable[[], T]) -> T:
    """`load()`, and once more where GPU memory ran out, after what nobody holds was freed.

    Raises what `load` raises; DeviceMemoryError says that it was the second time.
    """
    try:
        return load()
    except DeviceMemoryError:
        pass  # the traceback holds what was half made: let go of it first
    gc.collect()
    try:
        return load()
    except DeviceMemoryError as error:
        raise DeviceMemoryError(f'{error} (tried twice)') from error
