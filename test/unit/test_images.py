"""Every image encoding against a plain per-pixel oracle, and every refusal with its numbers."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.errors import FrameError
from mos_perception.image_encodings import ENCODINGS, from_ids, from_rgb, to_ids, to_rgb

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)


def padded(rows: np.ndarray, padding: int) -> tuple[int, np.ndarray]:
    """(step, data) of (H, bytes) rows with junk at the end of each."""
    out = np.full((rows.shape[0], rows.shape[1] + padding), 77, np.uint8)
    out[:, :rows.shape[1]] = rows
    data = out.reshape(-1)
    data.flags.writeable = False  # as from a bag
    return out.shape[1], data


def convert(
    encoding: str, rows: np.ndarray, width: int, padding: int = 0, big: bool = False
) -> np.ndarray:
    step, data = padded(np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1), padding)
    return to_rgb(encoding, len(rows), width, step, big, data)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding, pixels', [
    ('rgb8', RGB), ('bgr8', RGB[..., ::-1]), ('8UC3', RGB[..., ::-1]),
    ('rgba8', np.dstack([RGB, GREY])), ('bgra8', np.dstack([RGB[..., ::-1], GREY])),
    ('8UC4', np.dstack([RGB[..., ::-1], GREY]))])
def test_colour(encoding, pixels, padding):
    image = convert(encoding, pixels, 8, padding)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey(encoding):
    np.testing.assert_array_equal(convert(encoding, GREY, 8, 3), np.dstack([GREY] * 3))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 1])
def test_wide_grey_keeps_the_high_byte(encoding, big, padding):
    values = RNG.integers(0, 65536, (6, 8)).astype('>u2' if big else '<u2')
    expected = (values.astype(int) // 256).astype(np.uint8)
    np.testing.assert_array_equal(
        convert(encoding, values, 8, padding, big), np.dstack([expected] * 3)
    )


@pytest.mark.parametrize('encoding, order', [
    ('uyvy', 'uyvy'), ('yuv422', 'uyvy'), ('yuyv', 'yuyv'), ('yuv422_yuy2', 'yuyv')])
def test_yuv(encoding, order):
    luma = RNG.integers(16, 236, (4, 8)).astype(float)
    chroma = {
        'u': RNG.integers(16, 241, (4, 4)).astype(float),
        'v': RNG.integers(16, 241, (4, 4)).astype(float),
    }
    rows = np.zeros((4, 16), np.uint8)
    for name, first, stride in (
        ('y', order.index('y'), 2),
        ('u', order.index('u'), 4),
        ('v', order.index('v'), 4),
    ):
        rows[:, first::stride] = luma if name == 'y' else chroma[name]
    # ITU-R BT.601, studio range
    y, u, v = (
        1.164 * (luma - 16),
        np.repeat(chroma['u'] - 128, 2, 1),
        np.repeat(chroma['v'] - 128, 2, 1),
    )
    expected = np.dstack([y + 1.596 * v, y - 0.391 * u - 0.813 * v, y + 2.018 * u]).clip(0, 255)
    assert np.abs(convert(encoding, rows, 8).astype(float) - expected).max() <= 2


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer(pattern):
    colour = {'r': 200, 'g': 120, 'b': 30}
    mosaic = np.zeros((8, 8), np.uint8)
    for n, letter in enumerate(pattern):
        mosaic[n // 2::2, n % 2::2] = colour[letter]
    image = convert(f'bayer_{pattern}8', mosaic, 8)
    np.testing.assert_array_equal(image[2:-2, 2:-2], np.broadcast_to([200, 120, 30], (4, 4, 3)))


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8'])
def test_from_rgb_round_trip(encoding):
    rows = from_rgb(RGB, encoding)
    np.testing.assert_array_equal(
        to_rgb(encoding, 6, 8, rows.shape[1], False, rows.reshape(-1)), RGB
    )


def test_from_rgb_grey_and_refusal():
    np.testing.assert_array_equal(from_rgb(RGB, 'mono8'), cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY))
    with pytest.raises(FrameError, match='uyvy'):
        from_rgb(RGB, 'uyvy')


def test_ids_round_trip():
    ids = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)
    rows, big = from_ids(ids)
    np.testing.assert_array_equal(to_ids('mono16', 5, 7, rows.shape[1], big, rows.reshape(-1)), ids)
    np.testing.assert_array_equal(to_ids('mono8', 6, 8, 8, False, GREY.reshape(-1)), GREY)
    with pytest.raises(FrameError, match='bgr8'):
        to_ids('bgr8', 6, 8, 24, False, RGB.reshape(-1))


@pytest.mark.parametrize('arguments, words', [
    (('jpeg', 6, 8, 24, False, RGB.reshape(-1)), ['jpeg', 'rgb8']),
    (('rgb8', 6, 8, 23, False, RGB.reshape(-1)), ['step is 23', 'at least 24']),
    (('rgb8', 6, 8, 24, False, RGB.reshape(-1)[:-1]), ['143 bytes', '6 rows x step 24 = 144']),
    (('rgb8', 6, 8, 24, False, np.zeros(145, np.uint8)), ['145 bytes', '144']),
    (('rgb8', 0, 8, 24, False, np.zeros(0, np.uint8)), ['0 x 8', '16384']),
    (('rgb8', 6, 16385, 49155, False, np.zeros(1, np.uint8)), ['6 x 16385', '16384']),
    (('yuyv', 6, 7, 14, False, np.zeros(84, np.uint8)), ['width is 7', 'even']),
    (('mono16', 6, 8, 15, False, np.zeros(90, np.uint8)), ['step is 15', 'at least 16']),
])
def test_refusals_name_the_numbers(arguments, words):
    with pytest.raises(FrameError) as caught:
        to_rgb(*arguments)
    for word in words:
        assert word in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ENCODINGS),
    st.integers(-1, 9),
    st.integers(-1, 9),
    st.integers(-1, 40),
    st.booleans(),
    st.integers(0, 400),
)
def test_any_fields_give_an_image_or_a_frame_error(encoding, height, width, step, big, size):
    try:
        image = to_rgb(encoding, height, width, step, big, np.zeros(size, np.uint8))
    except FrameError:
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
