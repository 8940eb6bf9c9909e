"""Clips as data set sequences, and real data sets through the loaders of clips."""

import numpy as np
import pytest

from mos_perception.errors import DatasetError
from mos_perception.formats import module
from mos_perception.formats.sequence import Sequence
from training.datasets.sequences import clip_of, sequence_of
from training.scenes import render_clip
from training.scenes.presets import find_preset


@pytest.fixture(scope='module')
def clip():
    return render_clip(find_preset('demo', size=(40, 56), duration_s=0.3), 3)


@pytest.mark.parametrize('form', ['mousesis', 'sevd', 'evimo', 'bag'])
def test_scene_to_format_to_clip(clip, form, tmp_path):
    if form == 'mousesis':
        pytest.importorskip('h5py')
    module(form).write(sequence_of(clip), tmp_path / 'set')
    found = clip_of(module(form).read(tmp_path / 'set'))
    coarse = 1000 if form in ('mousesis', 'bag') else 1  # these keep microseconds
    assert np.array_equal(found.frames, clip.frames) and len(clip.events) > 100
    assert np.abs(found.stamps_ns - clip.stamps_ns).max() < coarse
    assert np.abs(found.events.t - clip.events.t).max() < coarse
    for name in 'xyp':
        assert np.array_equal(getattr(found.events, name), getattr(clip.events, name)), name
    numbers = np.array([0, *sorted(set(np.unique(clip.ids)) - {0})])
    assert np.array_equal(numbers[found.ids], clip.ids)
    for n in range(len(clip)):
        seen = np.unique(found.ids[n])[1:]
        assert np.array_equal(found.moving[n, seen], clip.moving[n, numbers[seen]])


def test_what_cannot_be_trained_on_is_refused():
    bare = Sequence('bare', (2, 2), np.array([1]))
    with pytest.raises(DatasetError, match='lacks'):
        clip_of(bare)
