"""Pictures and index images of data sets as files. Legend: H W pixels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming
from mos_perception.image_encodings import MAX_SIDE

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# A PNG begins with a mark of 8 bytes and the chunk IHDR, which ends at byte 33:
# length 8:12, name 12:16, width 16:20, height 20:24, depth 24, colour type 25, CRC 29:33.
_PNG = b'\x89PNG\r\n\x1a\n'
_PNG_HEAD_END = 33
_GREY, _PALETTE = b'\x00', b'\x03'  # colour types


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) u8 RGB of an image file. Raises DatasetError."""
    return cv2.cvtColor(_decoded(path, _bytes(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def write_rgb(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write (H, W, 3) u8 RGB by the suffix of `path`: png is exact, jpg, webp lose by `quality`.

    Makes the folder. Raises DatasetError.
    """
    options = {'.jpg': [cv2.IMWRITE_JPEG_QUALITY, quality],
               '.webp': [cv2.IMWRITE_WEBP_QUALITY, quality]}
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    with naming(path, 'written'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, bgr, options.get(path.suffix, []))[1].tobytes())


def read_indexed(path: Path) -> np.ndarray:
    """(H, W) indices of a palette PNG, or the values of a grey one. Raises DatasetError.

    OpenCV turns a palette into colours and would lose the indices, so the header is made to say
    "grey" first.
    """
    data = _bytes(path)
    if data[:8] != _PNG or len(data) < _PNG_HEAD_END or not is_palette_png(data):
        image = _decoded(path, data, cv2.IMREAD_UNCHANGED)
        return image if image.ndim == 2 else image[..., :3].max(2)
    grey = _decoded(path, _png_start(data, _GREY) + _without_palette(data), cv2.IMREAD_UNCHANGED)
    largest = (1 << data[24]) - 1
    return grey // (255 // largest)  # OpenCV has stretched grey of few bits over 0 to 255


def is_palette_png(data: bytes) -> bool:
    """Whether the header of a PNG says that its pixels are indices of a palette."""
    return data[25:26] == _PALETTE


def write_indexed(path: Path, indices: np.ndarray) -> None:
    """Write (H, W) indices below 256 as an 8-bit palette PNG with the colours of PASCAL VOC."""
    with naming(path, 'written'):
        data = cv2.imencode('.png', np.ascontiguousarray(indices, np.uint8))[1].tobytes()
        palette = b'PLTE' + palette_colours().tobytes()
        length, check = struct.pack('>I', len(palette) - 4), struct.pack('>I', zlib.crc32(palette))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png_start(data, _PALETTE) + length + palette + check
                         + data[_PNG_HEAD_END:])


def palette_colours() -> np.ndarray:
    """(256, 3) u8 RGB: bit k of an index goes, high bits first, to channel k mod 3 (PASCAL VOC)."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((index >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


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
    """The picture in the bytes of an image file. Raises DatasetError."""
    if data[:8] == _PNG:  # a damaged header can ask for gigabytes
        whole = len(data) >= _PNG_HEAD_END
        width, height = struct.unpack('>II', data[16:24]) if whole else (0, 0)
        check = int.from_bytes(data[29:_PNG_HEAD_END], 'big')
        fits = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE
        if not fits or zlib.crc32(data[12:29]) != check:
            raise DatasetError(
                f'{path} has a damaged PNG header ({width} x {height} px): fetch it again')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise DatasetError(
            f'{path} is no image that OpenCV can read ({len(data)} bytes): fetch it again')
    return image


def _png_start(data: bytes, colour_type: bytes) -> bytes:
    """The mark and the header of a PNG with another colour type."""
    head = data[12:25] + colour_type + data[26:29]
    return data[:12] + head + struct.pack('>I', zlib.crc32(head))


def _without_palette(data: bytes) -> bytes:
    """The chunks after the header, less those that a grey picture may not have."""
    kept, at = b'', _PNG_HEAD_END
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at:at + 4], 'big')
        if data[at + 4:at + 8] not in (b'PLTE', b'tRNS', b'bKGD', b'hIST'):
            kept += data[at:end]
        at = end
    return kept
