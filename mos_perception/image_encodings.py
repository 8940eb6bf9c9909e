"""Image messages to and from arrays: the one place that knows image encodings. NumPy and OpenCV
only.

The conventions are those of `sensor_msgs/image_encodings.hpp`; colours without a name (8UC3,
8UC4) are taken as blue first, as OpenCV does. H W pixels, C channels.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from mos_perception.errors import FrameError

MAX_SIDE = 16384  # px: sizes above it are refused before anything is allocated

# encoding -> (bytes per pixel, OpenCV conversion to RGB; None: already RGB)
_COLOUR = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB), '8UC3': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB), '8UC4': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB), '8UC1': (1, cv2.COLOR_GRAY2RGB),
    'uyvy': (2, cv2.COLOR_YUV2RGB_UYVY), 'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuyv': (2, cv2.COLOR_YUV2RGB_YUY2), 'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names a pattern by its second row and column, ROS by its first
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2RGB), 'bayer_bggr8': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2RGB), 'bayer_grbg8': (1, cv2.COLOR_BayerGB2RGB),
}
_WIDE = ('mono16', '16UC1')
_EVEN_WIDTH = ('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2')
_FROM_RGB = {
    'rgb8': None,
    'bgr8': cv2.COLOR_RGB2BGR,
    'rgba8': cv2.COLOR_RGB2RGBA,
    'bgra8': cv2.COLOR_RGB2BGRA,
    'mono8': cv2.COLOR_RGB2GRAY,
}
ENCODINGS = tuple(_COLOUR) + _WIDE


def check_image_size(height: int, width: int) -> None:
    """Raise FrameError for sides outside [1, MAX_SIDE]."""
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise FrameError(
            f'image is {height} x {width} px: each side must be within [1, {MAX_SIDE}]'
        )


def _rows(
    encoding: str, height: int, width: int, step: int, data: np.ndarray, pixel_bytes: int
) -> np.ndarray:
    """(H, W * pixel_bytes) u8 view of the payload without the row padding. Raises FrameError."""
    check_image_size(height, width)
    if step < width * pixel_bytes:
        raise FrameError(
            f'image step is {step} bytes: {encoding} at {width} px needs at least '
            f'{width * pixel_bytes}; '
            'correct the publisher'
        )
    if data.size != height * step:
        raise FrameError(
            f'image data has {data.size} bytes: {height} rows x step {step} = {height * step}; '
            'correct the publisher'
        )
    return data.reshape(height, step)[:, :width * pixel_bytes]


def to_rgb(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: np.ndarray
) -> np.ndarray:
    """(H, W, 3) u8 RGB, C-contiguous, from an image message's fields; `data` is (bytes,) u8.

    A packed rgb8 message gives a view of `data`, everything else a copy. 16-bit grey keeps its high
    byte (value >> 8): a fixed scale, so that brightness does not flicker with the content.
    Raises FrameError naming the encoding, step or length that is wrong.
    """
    if encoding in _WIDE:
        return cv2.cvtColor(
            (to_ids(encoding, height, width, step, is_bigendian, data) >> 8).astype(np.uint8),
            cv2.COLOR_GRAY2RGB,
        )
    if encoding not in _COLOUR:
        raise FrameError(
            f'image encoding {encoding!r} is unknown: use one of {", ".join(ENCODINGS)}'
        )
    if encoding in _EVEN_WIDTH and width % 2:
        raise FrameError(
            f'image width is {width} px: {encoding} stores pixels in pairs, so it must be even'
        )
    pixel_bytes, conversion = _COLOUR[encoding]
    rows = np.ascontiguousarray(_rows(encoding, height, width, step, data, pixel_bytes))
    image = rows.reshape(height, width, pixel_bytes) if pixel_bytes > 1 else rows
    return image if conversion is None else cv2.cvtColor(image, conversion)


def compressed_to_rgb(kind: str, data: np.ndarray) -> np.ndarray:
    """(H, W, 3) u8 RGB, C-contiguous, of a sensor_msgs/CompressedImage; `data` (bytes,) u8.

    `kind` is its `format`, as image_transport writes it: 'jpeg', 'rgb8; jpeg compressed bgr8',
    'bayer_rggb8; png compressed '. JPEG and PNG are decoded; 16-bit grey keeps its high byte.
    Raises FrameError.
    """
    if 'compressedDepth' in kind:
        raise FrameError(f'compressed image has format {kind!r}: depth is no picture; subscribe '
                         'the colour image')
    size = _compressed_size(data)
    if size is None:
        raise FrameError(f'compressed image of {data.size} bytes, format {kind!r}, is neither JPEG '
                         'nor PNG: set the publisher to one of them')
    check_image_size(*size)
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        image, why = None, f': {error.err}'
    else:
        why = ''
    if image is None or image.shape[:2] != size:
        raise FrameError(f'compressed image of {data.size} bytes, format {kind!r}, cannot be '
                         f'decoded{why}: it is damaged or cut off')
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    source = kind.partition(';')[0].strip()
    if image.ndim == 2:
        mosaic = source if source.startswith('bayer_') and source in _COLOUR else 'mono8'
        return cv2.cvtColor(image, _COLOUR[mosaic][1])
    # without 'compressed rgb8' the file's colours are right; OpenCV gives blue first
    return image if 'compressed rgb' in kind else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _compressed_size(data: np.ndarray) -> tuple[int, int] | None:
    """(height, width) that a JPEG or PNG file claims, before anything of it is decoded."""
    head = data[:24].tobytes()
    if head[:8] == b'\x89PNG\r\n\x1a\n' and len(head) == 24:
        return int.from_bytes(head[20:24], 'big'), int.from_bytes(head[16:20], 'big')
    if head[:2] != b'\xff\xd8':
        return None
    at = 2
    while at + 9 <= data.size and data[at] == 0xFF:  # segments up to the frame header (SOFn)
        marker, length = int(data[at + 1]), int(data[at + 2]) << 8 | int(data[at + 3])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sides = data[at + 5:at + 9].astype(int)
            return int(sides[0] << 8 | sides[1]), int(sides[2] << 8 | sides[3])
        at += 1 if marker == 0xFF else 2 + length
    return None


def to_ids(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: np.ndarray
) -> np.ndarray:
    """(H, W) uint16 values of a mono16, 16UC1, mono8 or 8UC1 image. Raises FrameError."""
    if encoding in ('mono8', '8UC1'):
        return _rows(encoding, height, width, step, data, 1).astype(np.uint16)
    if encoding not in _WIDE:
        raise FrameError(
            f'image encoding {encoding!r} holds no ids: use mono16, 16UC1, mono8 or 8UC1'
        )
    rows = np.ascontiguousarray(_rows(encoding, height, width, step, data, 2))
    return rows.view('>u2' if is_bigendian else '<u2').astype(np.uint16)


def from_rgb(image: np.ndarray, encoding: str = 'rgb8') -> np.ndarray:
    """(H, W * C) u8 rows of the (H, W, 3) u8 RGB image in rgb8, bgr8, rgba8, bgra8 or mono8.

    Raises FrameError.
    """
    if encoding not in _FROM_RGB:
        raise FrameError(
            f'cannot write image encoding {encoding!r}: use one of {", ".join(_FROM_RGB)}'
        )
    conversion = _FROM_RGB[encoding]
    out = image if conversion is None else cv2.cvtColor(image, conversion)
    return np.ascontiguousarray(out).reshape(len(image), -1)


def from_ids(ids: np.ndarray) -> tuple[np.ndarray, bool]:
    """(H, W * 2) u8 rows of a mono16 image from (H, W) ids, and its `is_bigendian` flag (this
    host's order).
    """
    native = np.ascontiguousarray(ids, np.uint16)
    return native.view(np.uint8).reshape(len(ids), -1), sys.byteorder == 'big'
