"""Files of data sets, read and written so that a bad one gives a DatasetError that names it."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from mos_perception.errors import DatasetError, MissingLibraryError, UnsafeFileError

CHUNK = 4_000_000  # events taken together
_LIBRARY_ERRORS = (
    csv.Error, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError,
    RuntimeError, ArithmeticError, MemoryError, zipfile.BadZipFile, zlib.error,
    pickle.UnpicklingError, struct.error, cv2.error,
    SyntaxError, tokenize.TokenError)  # of NumPy, which reads a header as Python text


@contextmanager
def naming(path: str | Path, what: str = 'read') -> Iterator[None]:
    """Turn whatever the libraries raise on a bad file into one DatasetError that names it."""
    try:
        yield
    except DatasetError:
        raise
    except _LIBRARY_ERRORS as error:
        cause = ' '.join(str(error).split())[:200]
        raise DatasetError(
            f'{path} cannot be {what}: {type(error).__name__}: {cause}; it is damaged, incomplete '
            'or of another format: fetch it again') from error


def chunks(count: int) -> Iterator[slice]:
    """Slices of `count` rows, each small enough for the memory."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def h5py() -> ModuleType:
    """The h5py library. Raises MissingLibraryError."""
    try:
        import h5py as library
    except ImportError as error:
        raise MissingLibraryError('this format is stored as HDF5 and h5py is not installed: '
                                  'run "pip install h5py"') from error
    return library


def below(folder: Path, name: str) -> Path:
    """The file that a data set names, in its folder. Raises DatasetError for a path that leaves it.
    """
    if Path(name).is_absolute() or '..' in Path(name).parts:
        raise DatasetError(f'{folder}: the data set names the file {name!r}: it must lie inside of '
                           'the folder')
    return folder / name


def read_json(path: Path) -> Any:
    """A JSON file."""
    with naming(path):
        return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, making its folder; it is there whole or not at all."""
    part = path.with_name(f'{path.name}.part')
    with naming(path, 'written'):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(value))
        part.replace(path)


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file with at least these columns. Raises DatasetError."""
    with naming(path), path.open(newline='', encoding='utf-8') as lines:
        reader = csv.DictReader(lines)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise DatasetError(f'{path} lacks the columns {", ".join(lacking)}: fetch it again')
        rows = [(reader.line_num, row) for row in reader]
    for number, row in rows:
        if None in row or None in row.values():
            raise DatasetError(f'{path} line {number} has not the columns of the first line: '
                               'fetch it again')
    return rows


def read_npy(path: Path) -> np.ndarray:
    """An array of numbers in a .npy file, mapped, not loaded."""
    with naming(path):
        return np.load(path, mmap_mode='r', allow_pickle=False)


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in an .npz file."""
    with naming(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix('.npy') for name in archive.namelist()]


def read_npz(path: Path, name: str) -> Any:
    """The array `name` of an .npz file; a Python object where one was stored.

    Objects come as pickles, which may run any code: only containers, numbers, text and arrays are
    let through. Raises UnsafeFileError for any other, DatasetError for a bad file.
    """
    member = f'{name}.npy'
    with naming(path), zipfile.ZipFile(path) as archive:
        if member not in archive.namelist():
            held = ', '.join(archive.namelist()) or 'nothing'
            raise DatasetError(f'{path} lacks {name!r}; it holds {held}')
        _check_memory(path, archive.getinfo(member).file_size)
        with archive.open(member) as file:
            if _header_type(file).hasobject:
                value = _Unpickler(file, encoding='latin1').load()
                is_scalar = isinstance(value, np.ndarray) and value.shape == ()
                return value.item() if is_scalar else value
        with archive.open(member) as file:
            return np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)


def _check_memory(path: Path, size: int) -> None:
    """Raise DatasetError where a member unpacks to more bytes than the machine has."""
    there = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    if size > there:
        raise DatasetError(f'{path} claims to unpack to {size} bytes, the machine has {there}: it '
                           'is damaged or made to fill the memory')


def _header_type(file: Any) -> np.dtype:
    """The element type that the header of an open .npy file names; the data follow."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)[2]
    return np.lib.format.read_array_header_2_0(file)[2]


class _Unpickler(pickle.Unpickler):
    """Builds arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few constructors a pickled array needs. Raises UnsafeFileError for any other."""
        rebuild = np.array(None, object).__reduce__()[0]
        scalar = np.float64(0).__reduce__()[0]
        known = {'_reconstruct': rebuild, 'scalar': scalar, 'ndarray': np.ndarray,
                 'dtype': np.dtype}
        if module in ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray') and name in known:
            return known[name]
        if (module, name) == ('_codecs', 'encode'):  # bytes as Python 2 wrote them
            return lambda text, *_: text.encode('latin1')
        raise UnsafeFileError(f'a stored Python object asks for {module}.{name}: refused, '
                              'it could run any code')
