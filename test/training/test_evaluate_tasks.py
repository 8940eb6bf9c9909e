"""`training.evaluate --task`: numbers by hand, and one line where something is missing."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.formats import ytvis
from mos_perception.formats.files import write_json
from mos_perception.formats.image_files import write_indexed
from mos_perception.formats.sequence import Sequence
from mos_perception.masks import coco_from_mask
from mos_perception.pipeline import Pipeline
from training.evaluate import main
from training.evaluate_tasks import vis
from training.scenes import render_clip
from training.scenes.presets import find_preset
from training.tracker_cache import true_instances

sys.path.insert(0, str(Path(__file__).parents[1] / 'unit'))
from vps_cases import vps_case  # noqa: E402

SIZE = (12, 16)


def scores(capsys, *arguments):
    assert main([*map(str, arguments), '--json']) == 0
    return json.loads(capsys.readouterr().out)['scores']


def square(x):
    mask = np.zeros(SIZE, bool)
    mask[2:8, x:x + 6] = True
    return coco_from_mask(mask)


def test_vis(tmp_path, capsys):
    videos = [{'id': 1, 'width': 16, 'height': 12, 'file_names': ['a/0.jpg', 'a/1.jpg']}]
    rows = [{'video_id': 1, 'category_id': 2, 'iscrowd': 0, 'occlusion': ['severe_occlusion'] * 2,
             'segmentations': [square(x), square(x + 1)]} for x in (0, 8)]
    write_json(tmp_path / 'truth.json', {'videos': videos, 'annotations': rows, 'categories': []})
    found = [{'video_id': 1, 'category_id': 2, 'score': 0.5,
              'segmentations': [square(0), square(1)]}]
    write_json(tmp_path / 'found.json', found)
    got = scores(capsys, '--task', 'vis', '--data', tmp_path / 'truth.json', '--predictions',
                 tmp_path / 'found.json')
    half = pytest.approx(51 / 101)
    assert got == {'AP': half, 'AP50': half, 'AP75': half, 'AR1': 0.5, 'AR10': 0.5,
                   'AP_light': None, 'AP_medium': None, 'AP_heavy': half}


def test_vss(tmp_path, capsys):
    """20 frames of one class, the prediction flickers in half of the picture once."""
    for n in range(20):
        path = tmp_path / f'data/v/mask/{n:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full(SIZE, 4, np.uint8))
        found = np.full(SIZE, 3)
        found[:, 8:] = 5 if n == 9 else 3
        write_indexed(tmp_path / f'found/v/{n:05d}.png', found)
    got = scores(capsys, '--task', 'vss', '--data', tmp_path, '--predictions', tmp_path / 'found')
    # of the 13 clips of 8 frames 8 have frame 9, of the 5 of 16 all
    assert got == {'mIoU': pytest.approx((39 / 40 + 0) / 2),
                   'mVC8': pytest.approx((5 + 8 * 0.5) / 13), 'mVC16': 0.5}


def test_vps(tmp_path, capsys):
    truth, folder = vps_case(tmp_path)
    got = scores(capsys, '--task', 'vps', '--data', truth, '--predictions', folder)
    assert got['VPQ'] == got['STQ'] == got['VPQ1'] == got['VPQ2'] == 1 and got['VPQ6'] is None


def test_what_is_missing_is_said(tmp_path, capsys):
    for arguments, words in ((['--task', 'vps', '--data', str(tmp_path)], 'needs classes'),
                             (['--task', 'vss'], 'needs --data'),
                             (['--predictions', 'x'], '--predictions needs --task'),
                             (['--task', 'vis', '--data', str(tmp_path / 'x.json'), '--predictions',
                               'y'], 'x.json')):
        assert main(arguments) == 1
        assert words in capsys.readouterr().err


def test_a_model_is_scored_without_classes(tmp_path):
    """The true masks through the pipeline's tracker: all found, whatever their category."""
    clip = render_clip(find_preset('train', duration_s=0.3, moving_objects=(2, 2), empty=0.0,
                                   events=False), 1)
    stamps = {int(stamp): n for n, stamp in enumerate(clip.stamps_ns)}

    class Oracle:
        card = SimpleNamespace(id='truth', window=None, surroundings=None, outputs=())

        def detect(self, sample, stages):
            return true_instances(clip, stamps[sample.stamp_ns])[0]

    moving = tuple({int(number): bool(clip.moving[n][number]) for number in np.unique(clip.ids[n])
                    if number} for n in range(len(clip)))
    ids = np.stack([np.where(np.isin(clip.ids[n], [k for k, on in moving[n].items() if on]),
                             clip.ids[n], 0) for n in range(len(clip))]).astype(np.uint16)
    path = ytvis.write(Sequence('v', clip.size, clip.stamps_ns, frames=clip.frames, ids=ids),
                       tmp_path, suffix='.png')
    got = vis(path, None, Pipeline(Config(events_topic='', track_hold_s=0.0), Oracle()))
    assert got['AP50'] > 0.9
