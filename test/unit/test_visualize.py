"""Pictures: what must be visible is, sizes are right, videos can be read back."""

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import Events, Instances, Tracks, TrackState
from mos_perception.errors import BagError
from mos_perception.reports import visualize


def scene(height=240, width=320):
    masks = np.zeros((2, height, width), bool)
    masks[0, 60:120, 40:100] = True
    masks[1, 150:200, 200:260] = True
    boxes = np.array([[40, 60, 100, 120], [200, 150, 260, 200]], np.float32)
    found = Instances(
        masks,
        boxes,
        np.array([0.9, 0.4], np.float32),
        np.ones(2, np.float32),
        np.ones(2, bool),
        np.zeros((2, 0), np.float32),
    )
    lost = np.array([[280, 20, 310, 50]], np.float32)
    tracks = Tracks(
        np.array([3, 8, 9]),
        np.array([TrackState.CONFIRMED, TrackState.TENTATIVE, TrackState.LOST]),
        np.ones(3),
        np.concatenate([boxes, lost]),
        np.array([[200, 0], [0, 0], [50, 0]], np.float32),
        np.array([0, 1, -1]),
    )
    return np.full((height, width, 3), 100, np.uint8), found, tracks


def test_overlay_shows_masks_arrows_lost_and_status():
    image, found, tracks = scene()
    before = image.copy()

    picture = visualize.overlay(image, found, tracks, 'both', 29.7, 'events late')

    assert picture.shape == image.shape and picture.dtype == np.uint8 and (image == before).all()
    want = (0.55 * 100 + 0.45 * np.array(visualize.colour(3))).astype(int)
    assert picture[115, 50].tolist() == want.tolist()               # inside a mask
    assert (picture[230, 10] == 100).all()                          # background untouched
    # the arrow leaves the mask to the right
    assert (picture[90, 105:115] != 100).any()
    assert (picture[20:50, 280:310] == visualize.colour(9)).all(2).any()  # box of the lost track
    assert (picture[2, 150] == 35).all()                            # status strip
    assert (picture[:14, :, 0].astype(int) - picture[:14, :, 2]).max() > 60  # degraded, in red


def test_overlay_of_nothing_is_the_frame():
    image, _, tracks = scene()
    names = ('ids', 'states', 'ages_s', 'boxes', 'velocities', 'instance')
    none = Tracks(*(getattr(tracks, name)[:0] for name in names))
    assert (visualize.overlay(image, Instances.empty(240, 320), none) == image).all()


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (48, 64), (1080, 1920)])
def test_overlay_at_any_size(size):
    masks = np.ones((1, *size), bool)
    found = Instances(
        masks,
        np.array([[0, 0, size[1], size[0]]], np.float32),
        np.ones(1),
        np.ones(1),
        np.ones(1, bool),
        np.zeros((1, 0), np.float32),
    )
    tracks = Tracks(
        np.array([1]),
        np.array([1]),
        np.ones(1),
        found.boxes,
        np.array([[1e6, -1e6]]),
        np.array([0]),
    )
    assert visualize.overlay(
        np.zeros((*size, 3), np.uint8), found, tracks, 'x', 30.0, 'y'
    ).shape == (*size, 3)


def test_colours_are_stable_and_differ():
    colours = [visualize.colour(n) for n in range(1, 40)]
    assert len(set(colours)) == 39 and colours == [visualize.colour(n) for n in range(1, 40)]
    assert visualize.colour(0) == visualize.colour(-1) == visualize.GREY


def test_event_picture():
    events = Events(np.array([1, 1, 2, 9], np.uint16), np.array([0, 0, 1, 0], np.uint16),
                    np.array([1, 1, 0, 1], np.uint8), np.arange(4))
    picture = visualize.event_picture(events, (3, 4))
    assert picture.shape == (3, 4, 3) and picture.dtype == np.uint8
    assert picture[0, 1].tolist() == list(visualize.ON)
    assert picture[1, 2].argmax() == 0 and picture[1, 2, 1] < 250            # half red
    assert (picture[2] == visualize.PAPER).all()
    assert visualize.event_picture(Events.empty(), (3, 4), dark=True).max() <= 20


def test_contact_sheet():
    tiles = [np.full((48, 64, 3), shade, np.uint8) for shade in (50, 100, 150)]
    sheet = visualize.contact_sheet(tiles, 2, ['a', 'b', 'c'], width=64)
    assert sheet.shape == (4 + 2 * (48 + 20 + 4), 4 + 2 * 68, 3)
    for corner, shade in (((24, 4), 50), ((24, 72), 100), ((96, 4), 150)):
        assert (sheet[corner[0]:corner[0] + 48, corner[1]:corner[1] + 64] == shade).all()
    assert (sheet[5:23, 4:20] > 200).any()                                    # the title
    assert visualize.contact_sheet([], 3).size == 0
    assert visualize.contact_sheet(tiles[:1], 4, width=32).shape == (4 + 24 + 4, 40, 3)


@pytest.mark.parametrize('name', ['out.mp4', 'sub/out.avi'])
def test_video_reads_back(tmp_path, name):
    red = np.full((48, 64, 3), (200, 30, 30), np.uint8)
    path = visualize.write_video(tmp_path / name, iter([red] * 7), 20.0)
    assert path == tmp_path / name and [p.name for p in path.parent.iterdir() if p.is_file()] == [
        path.name
    ]
    video = cv2.VideoCapture(str(path))
    good, first = video.read()
    assert good and video.get(cv2.CAP_PROP_FPS) == 20 and video.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert np.abs(first[24, 32].astype(int) - (30, 30, 200)).max() < 12  # BGR


def test_video_falls_back_to_avi(tmp_path):
    path = visualize.write_video(tmp_path / 'out.nonsense', [np.zeros((48, 64, 3), np.uint8)], 20.0)
    assert path.suffix == '.avi' and path.is_file()


def test_bad_videos_leave_nothing(tmp_path):
    small, large = np.zeros((48, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(BagError, match='no images'):
        visualize.write_video(tmp_path / 'a.mp4', [], 20.0)
    with pytest.raises(BagError, match=r'\(64, 64, 3\), the first was \(48, 64, 3\)'):
        visualize.write_video(tmp_path / 'a.mp4', [small, large], 20.0)
    assert not list(tmp_path.iterdir())


def test_image_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    visualize.write_image(tmp_path / 'a.png', image)
    assert (cv2.imread(str(tmp_path / 'a.png'))[:, :, ::-1] == image).all()
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
