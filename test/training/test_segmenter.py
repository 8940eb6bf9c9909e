"""Mask2Former as DVIS' segmenter: its outputs, its training, and what is read from them."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mos_perception.errors import ConfigError, DatasetError, EngineError, MissingLibraryError
from mos_perception.evaluation.video_metrics import Panoptic
from mos_perception.evaluation.video_writing import TruthFolder
from training import labelled_clips, tracker_cache, train_segmenter
from training.evaluate import main as evaluate
from training.evaluate_tasks import evaluate_task
from training.frame_segments import load_segmenter, read_frame
from training.labelled_clips import truth_of
from training.nets.mask2former import Segmenter, SegmenterConfig, Segments
from training.scenes import render_clip
from training.scenes.classes import CLASSES, STUFF, THINGS, Labels, render_labels
from training.scenes.presets import find_preset
from training.scenes.shards import save_clips
from training.segment_video import main as segment_video
from training.segment_video import make_tracker, segment_folder
from training.segmenter_batches import Augmentation, LabelledFrames
from training.train_segmenter import Run

SIZE = (32, 64)
CONFIG = SegmenterConfig(classes=3, things=2, height=32, width=64, channels=32, queries=6, heads=2,
                         feed_forward=16, encoder_layers=1, decoder_layers=1, stages=(8,) * 4,
                         points=64)
PLAIN = Augmentation(mirrored=0, gain=(1, 1))
PERIOD_NS = 33_333_333


@pytest.fixture
def library():
    """Skips where the library is not."""
    return pytest.importorskip('transformers', reason='Mask2Former needs transformers: '
                               'pip install -r requirements/gmos.txt')


def video(frames=6):
    """Bright squares of both kinds that pass before a wall, the pictures and what is true."""
    classes, segments = np.full((frames, *SIZE), 2), np.zeros((frames, *SIZE), int)
    pictures = np.full((frames, *SIZE, 3), 60, np.uint8)
    for at in range(frames):
        for number, kind, y, x in ((1, 0, 2, 2 + 2 * at), (2, 1, 18, 40 - 2 * at)):
            part = (at, slice(y, y + 12), slice(x, x + 20))
            classes[part], segments[part] = kind, number
            pictures[part] = (250, 20, 20) if kind else (20, 250, 20)
    return pictures, Panoptic(classes, segments)


@pytest.fixture
def labelled(tmp_path):
    """A folder of one such video."""
    folder = TruthFolder(tmp_path / 'data', [('disc', True), ('box', True), ('wall', False)])
    pictures, truth = video()
    folder.add('a', pictures, np.arange(1, 7) * PERIOD_NS, truth)
    folder.save()
    return tmp_path / 'data'


def tiny_run(folder, peak=3e-3):
    return Run(folder, json.dumps(dataclasses.asdict(CONFIG)), PLAIN, peak)


def test_labels_are_of_the_clip():
    preset = find_preset(labelled_clips.PRESET, fps=2.0)
    clip, labels = render_clip(preset, 1), render_labels(preset, 1)
    assert (labels.ids == clip.ids).all()
    things = labels.ids > 0
    assert {CLASSES[kind] for kind in np.unique(labels.classes[things])} <= set(THINGS)
    assert {CLASSES[kind] for kind in np.unique(labels.classes[~things])} <= set(STUFF)
    for number in np.unique(labels.ids[things]):
        assert len(np.unique(labels.classes[labels.ids == number])) == 1
    outdoors = render_labels(find_preset('video', fps=2.0), 0)
    walking = {CLASSES[kind] for kind in np.unique(outdoors.classes[outdoors.ids > 0])}
    assert walking <= set(THINGS)


def test_what_hardly_shows_is_void():
    ids, classes = np.zeros((1, *SIZE), np.uint16), np.full((1, *SIZE), 13, np.uint8)
    ids[0, :5, :5], classes[0, :5, :5] = 1, 0
    ids[0, 9:15, :5], classes[0, 9:15, :5] = 2, 0
    truth = truth_of(Labels(ids, classes))
    assert (truth.classes[0, :5, :5] == -1).all() and (truth.classes == -1).sum() == 25
    assert np.unique(truth.segments).tolist() == [0, 2]


def test_batches_are_the_labelled_frames(labelled):
    data = LabelledFrames([labelled])
    assert (len(data), data.things, data.size) == (6, 2, SIZE)
    made = data.batch(PLAIN, np.random.default_rng(0), 3)
    turned = data.batch(dataclasses.replace(PLAIN, mirrored=1), np.random.default_rng(0), 3)
    assert made.images.shape == (3, 3, *SIZE) and made.labels.shape == (3, *SIZE)
    assert (made.images.flip(-1) == turned.images).all()
    assert (made.labels.flip(-1) == turned.labels).all()
    for masks, classes, labels in zip(made.masks, made.classes, made.labels):
        assert sorted(classes.tolist()) == [0, 1, 2] and (masks.sum(0) == 1).all()
        assert all((labels[mask > 0] == kind).all() for mask, kind in zip(masks, classes))


def test_frames_that_are_void_are_left_out(tmp_path):
    pictures, truth = video()
    truth.classes[2], truth.segments[2] = -1, 0
    folder = TruthFolder(tmp_path, [('disc', True), ('box', True), ('wall', False)])
    folder.add('a', pictures, np.arange(1, 7) * PERIOD_NS, truth)
    folder.save()
    data = LabelledFrames([tmp_path])
    assert len(data) == 5
    made = data.batch(PLAIN, np.random.default_rng(0), 12)
    assert all(len(classes) == 3 for classes in made.classes)


def test_bad_folders_are_refused(labelled, tmp_path):
    with pytest.raises(DatasetError, match=r'panoptic\.json'):
        LabelledFrames([tmp_path])
    TruthFolder(tmp_path / 'none', [('disc', True)]).save()
    with pytest.raises(DatasetError, match='no frames in .*training.labelled_clips'):
        LabelledFrames([tmp_path / 'none'])
    with pytest.raises(DatasetError, match='has the classes disc, .* has disc, box, wall'):
        LabelledFrames([labelled, tmp_path / 'none'])
    TruthFolder(tmp_path / 'turned', [('wall', False), ('disc', True)]).save()
    with pytest.raises(DatasetError, match='stuff before things'):
        LabelledFrames([tmp_path / 'turned'])
    with pytest.raises(ConfigError, match='height 120 .* multiple of 32: choose 128'):
        SegmenterConfig(3, 2, height=120)


def test_without_the_library_one_line_says_so(labelled, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(MissingLibraryError, match='requirements/gmos.txt'):
        Segmenter(CONFIG)
    assert train_segmenter.main(['--data', str(labelled), '--run', str(tmp_path / 'run')]) == 1
    assert 'requirements/gmos.txt' in capsys.readouterr().err


def test_queries_are_what_the_heads_see(library):
    network = Segmenter(CONFIG).eval()
    with torch.no_grad():
        found = network(torch.rand(2, 3, *SIZE))
        net, decoder = network.net, network.net.model.transformer_module.decoder
        masks = torch.einsum('bqc,bchw->bqhw', decoder.mask_predictor.mask_embedder(found.queries),
                             found.features)
        classes = net.class_predictor(found.queries)
    assert found.queries.shape == (2, 6, 32) and found.features.shape == (2, 32, 8, 16)
    torch.testing.assert_close(classes, found.classes)
    torch.testing.assert_close(masks, found.masks, atol=1e-5, rtol=1e-5)


def test_overfits_one_batch(library, labelled, tmp_path):
    run = tiny_run(tmp_path / 'run')
    made = LabelledFrames([labelled]).batch(PLAIN, np.random.default_rng(0), 2)
    first, _ = run.step(made, 0.1)
    for _ in range(80):
        loss, share = run.step(made, 0.1)
    assert loss < first / 3 and share > 0.9  # all wall: 0.77


def test_a_run_goes_on_as_if_never_stopped(library, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(train_segmenter, 'SegmenterConfig', lambda *_: CONFIG)
    command = ['--data', str(labelled), '--batch', '2', '--steps', '4', '--run']
    draw = LabelledFrames.batch

    def killed(data, made, rng, size):
        killed.drawn += 1
        if killed.drawn == 3:
            raise KeyboardInterrupt
        return draw(data, made, rng, size)

    killed.drawn = 0
    assert train_segmenter.main([*command, str(tmp_path / 'one')]) == 0
    with monkeypatch.context() as patch:
        patch.setattr('training.timed_run.SAVE_EVERY_S', -1.0)
        patch.setattr(LabelledFrames, 'batch', killed)
        with pytest.raises(KeyboardInterrupt):
            train_segmenter.main([*command, str(tmp_path / 'two')])
    assert tiny_run(tmp_path / 'two').steps == 2
    assert train_segmenter.main([*command, str(tmp_path / 'two')]) == 0
    one, two = (load_segmenter(tmp_path / name).state_dict() for name in ('one', 'two'))
    assert all((one[name] == two[name]).all() for name in one)
    other = json.dumps(dataclasses.asdict(dataclasses.replace(CONFIG, queries=5)))
    with pytest.raises(EngineError, match='of the config .*"queries": 6.*"queries": 5'):
        Run(tmp_path / 'one', other, PLAIN, 1e-3)


def test_its_things_are_cached_for_the_tracker(library, tmp_path):
    run = tiny_run(tmp_path / 'run')
    clip = render_clip(dataclasses.replace(labelled_clips.PRESET, duration_s=0.1), 3)
    (tmp_path / 'clips').mkdir()
    save_clips(tmp_path / 'clips' / 'a.npz', [clip])
    command = ['--segmenter', str(tmp_path / 'run'), '--clips', str(tmp_path / 'clips'),
               '--count', '1', '--out', str(tmp_path / 'out')]
    for run.seconds in (1.0, 2.0):  # the same weights saved again: goes on
        run.save()
        tracker_cache.main(command)
    found, truth = tracker_cache.load_folder([tmp_path / 'out'])
    assert len(found.frames) == len(truth.frames) == len(clip)
    assert {frame.embeddings.shape[1] for frame in found.frames + truth.frames} == {32}
    with torch.no_grad():
        next(run.network.parameters()).add_(1)
    run.save()
    with pytest.raises(DatasetError, match='2 files of another segmenter .*: give another --out'):
        tracker_cache.main(command)


class Oracle:
    """A network that sees what is true of a video, frame by frame, in queries of changing order."""

    config = SimpleNamespace(height=SIZE[0], width=SIZE[1], things=2, channels=96)

    def __init__(self, truth):
        self.truth, self.at = truth, 0

    def __call__(self, images):
        order = [0, 1, 2] if self.at % 2 else [2, 1, 0]
        classes, segments = self.truth.classes[self.at], self.truth.segments[self.at]
        masks = np.stack([segments == 1, segments == 2, classes == 2])[order]
        self.at += 1
        logits = 12.0 * np.eye(4)[order][None]
        return Segments(torch.eye(96)[order][None], torch.from_numpy(logits),
                        torch.from_numpy(np.where(masks, 9.0, -9.0))[None], torch.zeros(1))


@pytest.mark.parametrize('name, refiner', [('hungarian', ''), ('referring', ''),
                                           ('referring', 'refiner_nano')])
def test_a_perfect_segmenter_scores_one(labelled, tmp_path, name, refiner):
    """Behind each of the robot's trackers, the shipped ones are for 96 channels."""
    _, truth = video()
    tracker = make_tracker(name, 'referring_nano', 0.3, 96)
    segment_folder(Oracle(truth), tracker, refiner, labelled, tmp_path / 'found', 0.3)
    found = {task: evaluate_task(task, labelled / data, tmp_path / 'found' / predictions, 'test')
             for task, data, predictions in (('vis', 'instances.json', 'vis.json'),
                                             ('vps', 'panoptic.json', 'vps'),
                                             ('vss', '', 'vss'))}
    assert found['vis']['AP'] == pytest.approx(1) and found['vis']['AR1'] == 1
    assert found['vps']['VPQ'] == found['vps']['STQ'] == found['vss']['mIoU'] == 1


def test_a_query_that_loses_its_mask_is_none():
    """Of two that claim one place the less sure keeps nothing; below the score nothing is."""
    masks = np.full((1, 3, *SIZE), -9.0)
    masks[0, :2, 4:14, 4:16] = 9.0
    masks[0, 2, 20:30, 4:16] = 9.0
    logits = np.array([[[2.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 5.0]]])

    def network(images):
        return Segments(torch.eye(3)[None], torch.from_numpy(logits), torch.from_numpy(masks),
                        torch.zeros(1))

    network.config = Oracle.config
    found = read_frame(network, np.zeros((*SIZE, 3), np.uint8))
    assert len(found.things) == 1 and found.things.embeddings[0].tolist() == [1, 0, 0]
    assert found.things.boxes[0].tolist() == [4, 4, 16, 14] and (found.stuff == -1).all()
    assert len(read_frame(network, np.zeros((*SIZE, 3), np.uint8), 0.9).things) == 0


def test_from_rendered_clips_to_scores(library, tmp_path, monkeypatch, capsys):
    """The commands, one after the other, with a network that has learnt nothing."""
    short = dataclasses.replace(labelled_clips.PRESET, duration_s=0.2, size=(64, 96))
    monkeypatch.setattr(labelled_clips, 'PRESET', short)
    data, run, out = (str(tmp_path / name) for name in ('data', 'run', 'found'))
    for count in ('1', '2'):  # goes on
        assert labelled_clips.main(['--out', data, '--count', count]) == 0
    assert len(LabelledFrames([tmp_path / 'data'])) == 12
    assert labelled_clips.main(['--out', data, '--count', '3', '--fps', '20']) == 1
    assert 'has videos of 6 frames, --fps 20 makes 4: give the' in capsys.readouterr().err
    assert len(LabelledFrames([tmp_path / 'data'])) == 12
    config = dataclasses.replace(CONFIG, classes=len(CLASSES), things=len(THINGS), height=64,
                                 width=96)
    monkeypatch.setattr(train_segmenter, 'SegmenterConfig', lambda *_: config)
    assert train_segmenter.main(['--data', data, '--run', run, '--steps', '2', '--batch', '2']) == 0
    command = ['--run', run, '--data', data, '--out', out]
    assert segment_video([*command, '--score', '0.05']) == 0
    capsys.readouterr()
    for task, file, found in (('vis', 'instances.json', 'vis.json'),
                              ('vps', 'panoptic.json', 'vps'), ('vss', '', 'vss')):
        assert evaluate(['--task', task, '--data', str(tmp_path / 'data' / file), '--predictions',
                         f'{out}/{found}', '--json']) == 0
        scores = json.loads(capsys.readouterr().out)['scores']
        assert 0 <= scores[{'vis': 'AP', 'vps': 'VPQ', 'vss': 'mIoU'}[task]] <= 1
    assert segment_video([*command, '--refiner', 'x']) == 1
    assert '--refiner needs --tracker referring' in capsys.readouterr().err
    assert segment_video([*command, '--tracker', 'referring']) == 1  # made for other queries
    assert 'for embeddings of 96 channels, the model gives 32' in capsys.readouterr().err
