"""What each input brings: samples, selections, the table."""

import numpy as np
import pytest

from mos_perception.errors import DatasetError
from mos_perception.motion.evidence import PER_GAP
from training.ablate_inputs import SELECTIONS, main, make_samples
from training.scenes import render_clip
from training.scenes.shards import save_clips

CLIPS = 5


@pytest.fixture(scope='module')
def clips():
    return [render_clip('easy', seed, 'train') for seed in range(CLIPS)]


@pytest.fixture(scope='module')
def samples(clips):
    return make_samples(iter(clips), CLIPS)


def test_the_camera_is_taken_out_of_flow_and_events(clips, samples):
    assert len(samples) == CLIPS and samples.label.amax() == 1
    still = samples.label[:, None] == 0
    length = lambda planes: (planes[:, 2, ::2, ::2] * still[:, 0]).mean()  # noqa: E731
    assert length(samples.evidence) < length(samples.with_camera)
    assert not np.array_equal(samples.voxel, samples.raw)


def test_selections_leave_out_what_their_names_say(samples):
    for name, select in SELECTIONS.items():
        image, evidence, voxel = select(samples)
        planes = evidence.unflatten(1, (-1, PER_GAP))
        gaps = planes.flatten(2).any(2).any(0).tolist()
        assert gaps == {'short gaps alone': [True, False] * 2, 'long gaps alone': [False, True] * 2,
                        'no flow': [False] * 4, 'events alone, no images drawn of them': [False] * 4
                        }.get(name, [True] * 4)
        assert bool(image.any()) == (name != 'no image' and not name.startswith('events alone'))
        assert bool(voxel.any()) == (name not in ('no events',
                                                  'events alone, nothing but such images'))
        assert bool(planes[:, :, 7].any()) == (name != 'parallax left in' and any(gaps))
        assert bool(planes[:, :, 3].any()) == (name != 'no forward-backward error' and any(gaps))


def test_one_command_trains_scores_and_writes_the_table(clips, tmp_path):
    folder = tmp_path / 'clips'
    folder.mkdir()
    save_clips(folder / 'easy-train-00000000-5.npz', clips)
    page = tmp_path / 'page.txt'
    assert main(['--clips', str(folder), '--count', str(CLIPS), '--steps', '1', '--seeds', '1',
                 '--write', str(page)]) == 0
    rows = [line.split(' | ') for line in page.read_text().splitlines()[4:]]
    assert [row[0].removeprefix('| ') for row in rows] == list(SELECTIONS)
    assert all(0 <= float(row[1]) <= 1 for row in rows)


def test_clips_without_events_are_refused(tmp_path):
    with pytest.raises(DatasetError, match='no events'):
        make_samples(iter([render_clip('train-frames', 0, 'train')]), 1)
    assert main(['--clips', str(tmp_path), '--steps', '1']) == 1
