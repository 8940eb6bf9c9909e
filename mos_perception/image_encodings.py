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
