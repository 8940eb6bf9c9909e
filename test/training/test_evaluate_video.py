"""J and F of video, on folders made here."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import Instances
from mos_perception.errors import DatasetError
from mos_perception.formats.image_files import write_indexed, write_rgb
from training.baselines.baseline import as_instances
from training.evaluate_video import (
    VideoScores,
    baseline_predictor,
    object_j,
    read_videos,
    score_videos,
)
from training.video_pictures import Pictures

SIZE, HALF = (96, 160), (48, 80)


def folder(path: Path, names: tuple[str, ...] = ('one', 'two'), count: int = 4) -> Path:
    """Two objects that move over a texture; the annotation is twice as large as the frames."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 255, (24, 40, 3), np.uint8), HALF[::-1])
    for name in names:
        for at in range(count):
            ids = np.zeros(SIZE, np.uint8)
            ids[20:50, 10 + 8 * at:40 + 8 * at] = 1
            ids[60:80, 120 - 8 * at:150 - 8 * at] = 2
            ids[:4] = 255
            frame = texture.copy()
            frame[cv2.resize(ids, HALF[::-1], interpolation=cv2.INTER_NEAREST) % 255 > 0] = 250
            write_rgb(path / 'JPEGImages' / '480p' / name / f'{at:05d}.png', frame)
            write_indexed(path / 'Annotations' / '480p' / name / f'{at:05d}.png', ids)
    return path


def truth_of(video):
    for ids in video.masks:
        yield as_instances(np.stack([ids == 1, ids == 2]))


def only_first_object(video):
    for ids in video.masks:
        yield as_instances((ids == 1)[None])


def nothing(video):
    for _ in video.masks:
        yield Instances.empty(*video.size)


def test_truth_scores_one_and_nothing_zero(tmp_path):
    scores = score_videos({'truth': truth_of, 'none': nothing, 'half': only_first_object},
                          read_videos(folder(tmp_path)))
    assert scores['truth'].j == scores['truth'].f == {'one': 1.0, 'two': 1.0}
    assert scores['truth'].j_objects == {'one': 1.0, 'two': 1.0}
    assert scores['none'].j == scores['none'].f == {'one': 0.0, 'two': 0.0}
    assert scores['half'].j['one'] == pytest.approx(900 / 1500)
    assert scores['half'].j_objects['one'] == pytest.approx(0.5)


def test_first_frame_is_not_scored(tmp_path):
    def wrong_at_first(video):
        for index, instances in enumerate(truth_of(video)):
            yield Instances.empty(*video.size) if index == 0 else instances

    assert score_videos({'': wrong_at_first}, read_videos(folder(tmp_path)))[''].j['one'] == 1.0


def test_void_is_not_scored(tmp_path):
    def with_void(video):
        for ids in video.masks:
            yield as_instances(np.stack([(ids == 1) | (ids == 255), ids == 2]))

    scores = score_videos({'': with_void}, read_videos(folder(tmp_path)))['']
    assert scores.j['one'] == 1.0 and scores.j_objects['one'] == 1.0


def test_json_has_the_promised_keys():
    scores = VideoScores(j={'a': 0.5, 'b': 1.0}, f={'a': 0.25, 'b': 0.75}, j_objects={'b': 0.5})
    assert scores.as_dict() == {'J_mean': 0.75, 'F_mean': 0.5, 'sequences': {
        'a': {'J': 0.5, 'F': 0.25}, 'b': {'J': 1.0, 'F': 0.75, 'J_objects': 0.5}}}


def test_one_instance_serves_one_object():
    ids = np.zeros((10, 10), np.uint8)
    ids[:5], ids[5:] = 1, 2
    both = np.ones((1, 10, 10), bool)
    found = object_j(both, ids)
    assert sorted(found.values()) == [0.0, 0.5]
    assert object_j(np.zeros((0, 10, 10), bool), ids) == {1: 0.0, 2: 0.0}


def test_baselines_run_on_video(tmp_path):
    scores = score_videos({name: baseline_predictor(name) for name in ('homography', 'mog2')},
                          read_videos(folder(tmp_path, ('one',))))
    assert scores['homography'].j['one'] > 0.3


def test_pictures_of_best_and_worst(tmp_path):
    kept = Pictures()
    score_videos({'': truth_of}, read_videos(folder(tmp_path / 'set')),
                 lambda method, *found: kept.add(*found))
    kept.write(tmp_path / 'out', {'one': 1.0, 'two': 0.5})
    images = [cv2.imread(str(tmp_path / 'out' / f'{name}.jpg')) for name in ('best', 'worst')]
    assert all(image is not None and image.shape[0] == 320 for image in images)


def test_folder_without_masks_is_refused(tmp_path):
    write_rgb(tmp_path / 'JPEGImages' / '480p' / 'a' / '00000.png', np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DatasetError, match='no sequence with masks'):
        list(read_videos(tmp_path))
