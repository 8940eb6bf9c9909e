"""sensor_msgs/CompressedImage: JPEG and PNG against OpenCV, colours, what is refused, and a bag."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.config import Config
from mos_perception.datatypes import Result
from mos_perception.errors import FrameError
from mos_perception.image_encodings import compressed_to_rgb, to_rgb
from mos_perception.pipeline import Pipeline
from mos_perception.recording import messages
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.replay import Replay, with_topics


def picture(size=(24, 40)) -> np.ndarray:
    """(H, W, 3) RGB, smooth: red to the right, blue down."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, size[1])
    image[..., 2] = np.linspace(255, 0, size[0])[:, None]
    return image


def encoded(suffix: str, image: np.ndarray) -> np.ndarray:
    return cv2.imencode(suffix, image)[1].ravel()


@pytest.mark.parametrize('suffix, kind', [('.png', 'png'), ('.png', 'bgr8; png compressed bgr8'),
                                          ('.png', 'rgb8; png compressed bgr8'),
                                          ('.jpg', 'jpeg'), ('.jpg', 'rgb8; jpeg compressed bgr8')])
def test_colours_come_back(suffix, kind):
    data = encoded(suffix, picture()[..., ::-1])
    found = compressed_to_rgb(kind, data)
    assert found.flags.c_contiguous and found.dtype == np.uint8
    assert np.abs(found.astype(int) - picture()).max() <= (0 if suffix == '.png' else 12)


def test_a_publisher_that_does_not_swap_says_so():
    found = compressed_to_rgb('rgb8; png compressed rgb8', encoded('.png', picture()))
    assert (found == picture()).all()


def test_grey_deep_and_mosaic_pictures():
    grey = picture()[..., 0]
    assert (compressed_to_rgb('mono8; png compressed ', encoded('.png', grey))
            == grey[..., None]).all()
    deep = grey.astype(np.uint16) << 8 | 0x7F
    assert (compressed_to_rgb('mono16; png compressed ', encoded('.png', deep))
            == grey[..., None]).all()
    found = compressed_to_rgb('bayer_rggb8; png compressed ', encoded('.png', grey))
    assert (found == to_rgb('bayer_rggb8', 24, 40, 40, False, grey.ravel())).all()


def claims(height: int, width: int) -> np.ndarray:
    """A small PNG that says it is large."""
    data = encoded('.png', picture()).copy()
    data[16:24] = np.frombuffer(width.to_bytes(4, 'big') + height.to_bytes(4, 'big'), np.uint8)
    return data


@pytest.mark.parametrize('kind, data, says', [
    ('16UC1; compressedDepth', encoded('.png', picture()), 'depth is no picture'),
    ('tiff', np.frombuffer(b'II*\0' + bytes(100), np.uint8), 'neither JPEG nor PNG'),
    ('jpeg', np.zeros(0, np.uint8), 'neither JPEG nor PNG'),
    ('jpeg', encoded('.jpg', picture())[:2], 'neither JPEG nor PNG'),
    ('png', encoded('.png', picture())[:40], 'damaged or cut off'),
    ('png', claims(100_000, 100_000), r'100000 x 100000 px: each side must be within'),
    ('png', claims(0, 40), 'each side must be within'),
])
def test_bad_pictures_are_refused(kind, data, says):
    with pytest.raises(FrameError, match=says):
        compressed_to_rgb(kind, data)


@given(st.sampled_from(['.png', '.jpg']), st.integers(0, 2000), st.integers(1, 255),
       st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_damage_is_refused_or_gives_a_picture_of_the_size(suffix, at, flip, cut):
    data = encoded(suffix, picture()[..., ::-1]).copy()
    data[at % len(data)] ^= flip
    data = data[:len(data) - cut % len(data)]
    try:
        found = compressed_to_rgb('x', data)
    except FrameError:
        return
    assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8


def compressed_cdr(frame) -> bytes:
    return messages.serialize(messages.COMPRESSED, messages.make(
        messages.COMPRESSED, header=messages.header(frame.stamp_ns, frame.frame_id),
        format='rgb8; png compressed bgr8', data=encoded('.png', frame.image[..., ::-1])))


def test_a_recording_of_compressed_frames_gives_the_same_answers(tmp_path, scene, bright_model):
    scene(tmp_path / 'raw')
    topic = '/camera/image_raw/compressed'
    with open_bag(tmp_path / 'raw') as bag, BagWriter(tmp_path / 'small') as out:
        for item in bag.messages(['/camera/image_raw', '/events']):
            if item.topic == '/events':
                out.write_raw(item.topic, item.msgtype, item.receive_ns, item.data)
            else:
                out.write_raw(topic, messages.COMPRESSED, item.receive_ns,
                              compressed_cdr(messages.read_frame(item.data)))
    answers = []
    for name in ('raw', 'small'):
        with open_bag(tmp_path / name) as bag:
            config = with_topics(bag, Config())
            steps = [step.outcome for step in Replay(bag, config, Pipeline(config, bright_model))]
        assert all(isinstance(outcome, Result) for outcome in steps)
        answers.append([outcome.instances.boxes.tolist() for outcome in steps])
    assert answers[0] == answers[1] and len(answers[0]) == 14
    assert (config.image_topic, config.image_type) == (topic, 'compressed')
