"""Labelled video that is written is read again as it was."""

import json

import numpy as np
import pytest

from mos_perception.errors import DatasetError
from mos_perception.evaluation.video_ap import VideoTrack, track_iou
from mos_perception.evaluation.video_files import (
    read_objects,
    read_results,
    read_videos,
    read_vps,
    read_vss,
)
from mos_perception.evaluation.video_metrics import Panoptic
from mos_perception.evaluation.video_writing import FoundFolder, TruthFolder, codes_of, objects_of
from mos_perception.formats import ytvis

SIZE = (12, 16)
CATEGORIES = [('disc', True), ('box', True), ('wall', False)]
STAMPS = np.array([5, 9], np.int64)


def case():
    """Two frames: a wall, a box of segment 700 in both, a disc of segment 3 in the first; void."""
    classes, segments = np.full((2, *SIZE), 2), np.zeros((2, *SIZE), int)
    classes[0, 2:6, 2:6] = classes[1, 2:6, 4:8] = 1
    segments[0, 2:6, 2:6] = segments[1, 2:6, 4:8] = 700
    classes[0, 8:11, 2:5], segments[0, 8:11, 2:5] = 0, 3
    classes[:, :, 14:] = -1
    return Panoptic(classes, segments)


def written(root):
    folder = TruthFolder(root, CATEGORIES)
    folder.add('a', np.zeros((2, *SIZE, 3), np.uint8), STAMPS, case())
    folder.save()
    return folder


def test_truth_is_read_again(tmp_path):
    written(tmp_path)
    [video] = read_videos(tmp_path / 'instances.json')
    assert (video.name, video.size, video.frames) == ('a', SIZE, 2)
    found = read_objects(tmp_path / 'instances.json')[video.number]
    assert [one.category for one in found] == [1, 2] and found[0].codes[1] is None
    assert all(track_iou(a, b) == 1 for a, b in zip(found, objects_of(case())))
    sequence = ytvis.read(tmp_path / 'instances.json')
    assert (sequence.stamps_ns == STAMPS).all() and sequence.frames[1].shape == (*SIZE, 3)


def test_what_was_found_is_read_again(tmp_path):
    written(tmp_path)
    folder = FoundFolder(tmp_path / 'found')
    masks = case().segments == 700
    folder.add(1, 'a', [VideoTrack(codes_of(masks), 2, 0.75)], case(), case().classes)
    folder.save()
    [track] = read_results(tmp_path / 'found/vis.json', read_videos(tmp_path / 'instances.json'))[1]
    assert (track.category, track.score) == (2, 0.75)
    assert track_iou(track, objects_of(case())[1]) == 1
    things, videos = read_vps(tmp_path / 'panoptic.json', tmp_path / 'found' / 'vps')
    [(name, truth, found)] = videos
    assert name == 'a' and things == {1, 2}
    for one in (truth, found):
        assert (one.classes == np.where(case().classes < 0, -1, case().classes + 1)).all()
        for number in (3, 700):
            names = np.unique(one.segments[case().segments == number])
            assert len(names) == 1 and (one.segments == names).sum() == (
                case().segments == number).sum()
    [(_, truth, found)] = read_vss(tmp_path, tmp_path / 'found' / 'vss', 'test')
    assert (truth == found).all() and (truth == case().classes).all()


def test_a_stopped_folder_goes_on(tmp_path):
    """One JSON may be ahead of the other: what it has more is written anew."""
    written(tmp_path)
    ahead = json.loads((tmp_path / 'instances.json').read_text())
    ahead['videos'].append(ahead['videos'][0] | {'id': 2, 'file_names': ['b/00000.jpg']})
    ahead['annotations'].append(ahead['annotations'][0] | {'video_id': 2})
    (tmp_path / 'instances.json').write_text(json.dumps(ahead))
    folder = TruthFolder(tmp_path, CATEGORIES)
    assert folder.names == {'a'}
    folder.add('b', np.zeros((2, *SIZE, 3), np.uint8), STAMPS, case())
    folder.save()
    assert [video.name for video in read_videos(tmp_path / 'instances.json')] == ['a', 'b']
    assert [len(found) for found in read_objects(tmp_path / 'instances.json').values()] == [2, 2]
    for other in (CATEGORIES[:2], [*CATEGORIES[:2], ('wall', True)]):
        with pytest.raises(DatasetError, match=r'has .*wall \(stuff\), must be disc \(thing\)'):
            TruthFolder(tmp_path, other)
    (tmp_path / 'panoptic.json').write_text('{')
    with pytest.raises(DatasetError, match=r'panoptic\.json'):
        TruthFolder(tmp_path, CATEGORIES)
