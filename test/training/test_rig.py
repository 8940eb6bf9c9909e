"""A rig whose event camera is of another size, turned by 3 degrees and shifted by 20 px: `mos
register` finds it, and the scores come back.
"""

import json

import numpy as np
import pytest

from mos_perception.cli import main
from mos_perception.motion.homography_file import read_homography
from training.scenes.demo_bag import write_clip
from training.scenes.presets import find_preset
from training.scenes.rig import mounting, render_rig
from training.scenes.simulate import render_clip_3d

FRAME, EVENT, SEED = (240, 320), (260, 346), 1
MOUNTING = mounting(FRAME, EVENT, 1.1, 3.0, (20.0, -6.0))


@pytest.fixture(scope='module')
def rig(tmp_path_factory):
    """A folder: `rig` is a bag of two cameras, `registered` one of the same scene through one."""
    folder = tmp_path_factory.mktemp('rig')
    preset = find_preset('easy', size=FRAME, duration_s=2.0)
    write_clip(render_rig(preset, SEED, 'test', EVENT, MOUNTING), folder / 'rig', event_size=EVENT)
    write_clip(render_clip_3d(preset, SEED, 'test'), folder / 'registered')
    return folder


def test_the_second_view_of_one_camera_is_its_first():
    preset = find_preset('demo', size=(60, 80), duration_s=0.2)
    one, two = (render_rig(preset, 3, 'test', (60, 80), np.eye(3)),
                render_clip_3d(preset, 3, 'test'))
    assert (one.frames == two.frames).all() and len(one.events) == len(two.events) > 0
    assert all((getattr(one.events, name) == getattr(two.events, name)).all() for name in 'xypt')


def test_register_brings_the_scores_back(rig):
    folder = rig
    file = folder / 'homography.json'
    assert main(['register', str(folder / 'rig'), '--out', str(file)]) == 0
    assert (folder / 'homography.png').stat().st_size > 10_000
    found = read_homography(file)
    assert (found.event_size, found.frame_size) == (EVENT, FRAME)
    y, x = np.mgrid[:EVENT[0]:4, :EVENT[1]:4]
    points = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)])
    there, here = (points @ matrix.T for matrix in (MOUNTING, found.matrix))
    inside = ((there[:, :2] >= 0) & (there[:, :2] < FRAME[::-1])).all(1)
    error = np.linalg.norm(here[:, :2] / here[:, 2:] - there[:, :2], axis=1)[inside]
    assert error.mean() <= 2.0

    def score(bag: str, *settings: str) -> float:
        words = [word for setting in settings for word in ('--set', setting)]
        out = folder / 'score.json'
        assert main(['evaluate', str(folder / bag), '--model', 'dimos_nano', '--json', str(out),
                     *words]) == 0
        return json.loads(out.read_text())['score']['released']['mIoU_ins']

    registered = score('registered')
    back = score('rig', 'registration=homography', f'homography_file={file}')
    assert back >= 0.95 * registered
    assert score('rig', 'registration=scale') < 0.7 * registered  # so the bar can fail
