"""Files of labelled video by hand: what is read of them, and that damaged ones are refused."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from vps_cases import SIZE, vps_case

from mos_perception.errors import DatasetError
from mos_perception.evaluation.video_ap import track_iou
from mos_perception.evaluation.video_files import (
    read_objects,
    read_results,
    read_videos,
    read_vps,
    read_vss,
)
from mos_perception.formats.files import write_json
from mos_perception.formats.image_files import write_indexed
from mos_perception.masks import coco_from_mask


def square(x0, y0, x1, y1):
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def annotations(**changes):
    """Two frames; an object as run lengths, one as an outline, with OVIS' occlusion."""
    mask = coco_from_mask(square(2, 2, 8, 8))
    runs = coco_from_mask(square(3, 2, 9, 8), compressed=False)
    record = {'id': 1, 'video_id': 5, 'category_id': 3, 'iscrowd': 0, 'segmentations': [mask, runs],
              'occlusion': ['no_occlusion', 'severe_occlusion']}
    outline = {'id': 2, 'video_id': 5, 'category_id': 4, 'iscrowd': 1,
               'segmentations': [[[2, 2, 8, 2, 8, 8, 2, 8]], None]}
    return {'videos': [{'id': 5, 'width': 16, 'height': 12,
                        'file_names': ['a/00000.jpg', 'a/00001.jpg']}],
            'annotations': [record | changes, outline], 'categories': []}


def test_objects_and_results_of_youtube_vis_and_ovis(tmp_path):
    path = tmp_path / 'truth.json'
    write_json(path, annotations())
    videos, objects = read_videos(path), read_objects(path)[5]
    assert [(video.name, video.size, video.frames) for video in videos] == [('a', SIZE, 2)]
    assert [(one.category, one.crowd) for one in objects] == [(3, False), (4, True)]
    assert objects[0].occlusion == 0.75 and np.isnan(objects[1].occlusion)
    assert (coco.decode(objects[0].codes[1]) == square(3, 2, 9, 8)).all()
    assert (coco.decode(objects[1].codes[0]) == square(2, 2, 8, 8)).all()
    results = [{'video_id': 5, 'category_id': 3, 'score': 0.25,
                'segmentations': [coco_from_mask(square(2, 2, 8, 8)), None]}]
    write_json(tmp_path / 'found.json', results)
    found = read_results(tmp_path / 'found.json', videos)[5][0]
    assert found.score == 0.25 and track_iou(found, objects[0]) == 0.5
    assert track_iou(replace(found), found) == 1


@pytest.mark.parametrize('changes, words', [
    ({'video_id': 9}, 'of video 9, which the truth does not have'),
    ({'segmentations': [None]}, '1 masks for its 2 frames'),
    ({'segmentations': [{'size': [3, 3], 'counts': [9]}, None]}, r'of \(3, 3\) px'),
    ({'segmentations': [{'size': [12, 16], 'counts': [9]}, None]}, 'runs of 9 px'),
    ({'segmentations': [[[1, 2, 3]], None]}, 'three or more pairs'),
    ({'occlusion': ['hidden', None]}, 'truth.json cannot be read'),
    ({'category_id': None}, 'truth.json cannot be read')])
def test_damaged_truth_is_refused(tmp_path, changes, words):
    write_json(tmp_path / 'truth.json', annotations(**changes))
    with pytest.raises(DatasetError, match=words):
        read_objects(tmp_path / 'truth.json')


anything = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(
    -2**40, 2**40), lambda parts: st.lists(parts, max_size=3) | st.dictionaries(
        st.sampled_from(['size', 'counts', 'id']), parts, max_size=3), max_leaves=6)


@settings(max_examples=80, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(['video_id', 'category_id', 'segmentations', 'iscrowd', 'occlusion']),
       value=anything)
def test_whatever_a_record_holds_is_read_or_refused(tmp_path, key, value):
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(annotations(**{key: value})))
    try:
        assert len(read_objects(path)[5]) == 2
    except DatasetError:
        pass


def test_results_without_a_number_as_score_are_refused(tmp_path):
    write_json(tmp_path / 'truth.json', annotations())
    videos = read_videos(tmp_path / 'truth.json')
    row = {'video_id': 5, 'category_id': 3, 'segmentations': [None, None]}
    for score, words in ((float('nan'), 'must be a finite number'), (None, 'cannot be read')):
        (tmp_path / 'found.json').write_text(json.dumps([row | {'score': score}]))
        with pytest.raises(DatasetError, match=words):
            read_results(tmp_path / 'found.json', videos)


def test_two_videos_of_one_id_are_refused(tmp_path):
    path, made = tmp_path / 'truth.json', annotations()
    other = {**made['videos'][0], 'file_names': ['b/00000.jpg', 'b/00001.jpg']}
    write_json(path, {**made, 'videos': [*made['videos'], other]})
    for read in (read_videos, read_objects):
        with pytest.raises(DatasetError, match='truth.json has 2 videos of id 5: each must'):
            read(path)
    truth, folder = vps_case(tmp_path)
    for file in (folder / 'pred.json', truth):
        found = json.loads(file.read_text())
        write_json(file, {**found, 'annotations': 2 * found['annotations']})
        with pytest.raises(DatasetError, match=f"{file.name} has 2 videos of id 'v': each must"):
            read_vps(truth, folder)


def test_panoptic_folders(tmp_path):
    truth, folder = vps_case(tmp_path)
    things, videos = read_vps(truth, folder)
    (name, wanted, found), = videos
    assert things == {2} and name == 'v'
    assert np.unique(wanted.classes).tolist() == [-1, 1, 2]
    assert (wanted.classes[:, :, 14:] < 0).all()
    assert np.unique(wanted.segments[wanted.classes == 2]).tolist() == [300]
    assert np.unique(found.segments[found.classes == 1]).tolist() == [0]
    (folder / 'pan_pred/v/00001.png').unlink()
    with pytest.raises(DatasetError, match='00001.png'):
        list(read_vps(truth, folder)[1])
    write_json(folder / 'pred.json', {'annotations': []})
    with pytest.raises(DatasetError, match='lacks 1 videos of the truth: v'):
        read_vps(truth, folder)


def test_semantic_folders(tmp_path):
    masks = np.zeros((3, *SIZE), np.uint8)
    masks[:, :, 4:], masks[:, 0] = 8, 255
    for n, mask in enumerate(masks):
        path = tmp_path / f'data/v/mask/{n:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), mask)
        write_indexed(tmp_path / f'found/v/{n:05d}.png', np.where(mask == 8, 7, 255))
    (name, truth, found), = read_vss(tmp_path, tmp_path / 'found', 'val')
    assert name == 'v' and np.unique(truth).tolist() == [-1, 7] and (truth == found).all()
    (tmp_path / 'val.txt').write_text('v\nw\n')
    with pytest.raises(DatasetError, match='w has 0 masks, the truth 0'):
        list(read_vss(tmp_path, tmp_path / 'found', 'val'))
    with pytest.raises(DatasetError, match='no videos in data'):
        list(read_vss(tmp_path / 'found', tmp_path / 'found', 'val'))
