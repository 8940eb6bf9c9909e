"""CUDA source -> code for one GPU, on the machine that has it: by NVRTC (cuda-core), else by nvcc.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from mos_perception.errors import EngineError


def compile_cubin(source: Path, capability: tuple[int, int]) -> bytes:
    """The cubin of a .cu file whose headers lie beside it.

    Raises EngineError without a compiler or if it refuses.
    """
    architecture = f'sm_{capability[0]}{capability[1]}'
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError:
        return _nvcc(source, architecture)
    try:
        options = ProgramOptions(arch=architecture, include_path=[str(source.parent)], std='c++17')
        return bytes(Program(source.read_text(), 'c++', options).compile('cubin').code)
    except Exception as error:  # cuda-core's exceptions share no base class
        raise EngineError(
            f'NVRTC cannot compile {source.name} for {architecture}: {str(error)[:300]}'
        ) from error


def _nvcc(source: Path, architecture: str) -> bytes:
    nvcc = shutil.which('nvcc') or shutil.which('nvcc', path='/usr/local/cuda/bin')
    if nvcc is None:
        raise EngineError(
            f'nothing compiles {source.name} for {architecture}: pip install "cuda-core[cu13]" (or '
            '[cu12], as the driver), or install the CUDA toolkit (nvcc)'
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'out.cubin'
        done = subprocess.run(
            [nvcc, '-cubin', f'-arch={architecture}', '-std=c++17', '-o', str(out), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise EngineError(
                f'nvcc cannot compile {source.name} for {architecture}: {done.stderr[:300]}'
            )
        return out.read_bytes()
