"""Reading and writing the files of data sets, so that a bad one gives a DatasetError that names it. H W pixels."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.image_encodings import MAX_SIDE

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
_PNG = b'\x89PNG\r\n\x1a\n'


@contextmanager
def naming(path: str | Path, what: str = 'read') -> Iterator[None]:
    """Turn whatever the libraries raise on a bad file into one DatasetError that names it."""
    try:
        yield
    except DatasetError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, zipfile.BadZipFile,
            zlib.error, pickle.UnpicklingError, struct.error, RuntimeError, ArithmeticError, MemoryError,
            cv2.error) as error:
        cause = ' '.join(str(error).split())[:200]
        raise DatasetError(f'{path} cannot be {what}: {type(error).__name__}: {cause}; it is damaged, incomplete or of '
                           'another format: fetch it again') from error


def h5py() -> ModuleType:
    """The h5py library. Raises DatasetError naming what to install."""
    try:
        import h5py as library
    except ImportError as error:
        raise DatasetError('this format is stored as HDF5 and h5py is not installed: run "pip install h5py"') from error
    return library


def read_json(path: Path) -> Any:
    """A JSON file."""
    with naming(path):
        return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, making its folder."""
    with naming(path, 'written'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) u8 RGB of an image file."""
    return cv2.cvtColor(_decoded(path, _bytes(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def write_rgb(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write (H, W, 3) u8 RGB by the suffix of `path`: png is exact, jpg and webp lose by `quality`."""
    options = {'.jpg': [cv2.IMWRITE_JPEG_QUALITY, quality], '.webp': [cv2.IMWRITE_WEBP_QUALITY, quality]}
    write_image(path, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options.get(path.suffix, []))


def write_image(path: Path, image: np.ndarray, options: list[int] | None = None) -> None:
    """Write an array with OpenCV's channel order, making its folder."""
    with naming(path, 'written'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, image, options or [])[1].tobytes())


def read_indexed(path: Path) -> np.ndarray:
    """(H, W) indices of a palette PNG, or the values of a grey one.

    OpenCV turns a palette into colours and would lose the indices, so the header is made to say "grey" first.
    """
    data = _bytes(path)
    if data[:8] != _PNG or len(data) < 33 or data[25] != 3:
        image = _decoded(path, data, cv2.IMREAD_UNCHANGED)
        return image if image.ndim == 2 else image[..., :3].max(2)
    depth = data[24]
    head = data[12:25] + b'\x00' + data[26:29]
    grey = _decoded(path, data[:12] + head + struct.pack('>I', zlib.crc32(head)) + _without_palette(data),
                    cv2.IMREAD_UNCHANGED)
    return grey // (255 // ((1 << depth) - 1))


def write_indexed(path: Path, indices: np.ndarray) -> None:
    """Write (H, W) indices below 256 as an 8-bit palette PNG with the usual colours of segmentation sets."""
    with naming(path, 'written'):
        data = cv2.imencode('.png', np.ascontiguousarray(indices, np.uint8))[1].tobytes()
        head = data[12:25] + b'\x03' + data[26:29]
        palette = b'PLTE' + palette_colours().tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:12] + head + struct.pack('>I', zlib.crc32(head)) + struct.pack('>I', 768) + palette
                         + struct.pack('>I', zlib.crc32(palette)) + data[33:])


def palette_colours() -> np.ndarray:
    """(256, 3) u8 RGB: bit k of an index goes, high bits first, to channel k mod 3 (the PASCAL VOC rule)."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((index >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


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

    Objects come as pickles, which may run any code: only containers, numbers, text and arrays are let through.
    """
    with naming(path), zipfile.ZipFile(path) as archive:
        if f'{name}.npy' not in archive.namelist():
            raise DatasetError(f'{path} lacks {name!r}; it holds {", ".join(archive.namelist()) or "nothing"}')
        with archive.open(f'{name}.npy') as file:
            version = np.lib.format.read_magic(file)
            header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                      else np.lib.format.read_array_header_2_0)
            _, _, dtype = header(file)
            if dtype.hasobject:
                value = _Unpickler(file, encoding='latin1').load()
                return value.item() if isinstance(value, np.ndarray) and value.shape == () else value
        with archive.open(f'{name}.npy') as file:
            return np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)


class _Unpickler(pickle.Unpickler):
    """Builds arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few constructors a pickled array needs. Raises DatasetError for any other."""
        rebuild = np.array(None, object).__reduce__()[0]
        scalar = np.float64(0).__reduce__()[0]
        known = {'_reconstruct': rebuild, 'scalar': scalar, 'ndarray': np.ndarray, 'dtype': np.dtype}
        if module in ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray') and name in known:
            return known[name]
        if (module, name) == ('_codecs', 'encode'):  # bytes as Python 2 wrote them
            return lambda text, *_: text.encode('latin1')
        raise DatasetError(f'a stored Python object asks for {module}.{name}: refused, it could run any code')


def numbered(folder: Path, pattern: str = '*') -> dict[int, Path]:
    """Image files by the number that is their name, in order."""
    found = {}
    if folder.is_dir():
        for file in folder.glob(pattern):
            if file.stem.isdecimal() and file.suffix.lower() in IMAGE_SUFFIXES:
                found[int(file.stem)] = file
    return dict(sorted(found.items()))


def _bytes(path: Path) -> bytes:
    with naming(path):
        return path.read_bytes()


def _decoded(path: Path, data: bytes, flags: int) -> np.ndarray:
    if data[:8] == _PNG:  # a damaged header can ask for gigabytes
        width, height = struct.unpack('>II', data[16:24]) if len(data) >= 33 else (0, 0)
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or zlib.crc32(data[12:29]) != int.from_bytes(
                data[29:33], 'big'):
            raise DatasetError(f'{path} has a damaged PNG header ({width} x {height} px): fetch it again')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise DatasetError(f'{path} is no image that OpenCV can read ({len(data)} bytes): fetch it again')
    return image


def _without_palette(data: bytes) -> bytes:
    """The chunks after the header, less those that a grey picture may not have."""
    kept, at = b'', 33
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at:at + 4], 'big')
        if data[at + 4:at + 8] not in (b'PLTE', b'tRNS', b'bKGD', b'hIST'):
            kept += data[at:end]
        at = end
    return kept
