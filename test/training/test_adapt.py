"""`mos adapt`: real bags, the shipped start model, few steps; and each of its parts by hand."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from mos_perception.config import from_dict
from mos_perception.datatypes import Events, Frame, SyncedInput
from mos_perception.engine.card import load_card
from mos_perception.engine.model_files import find_model
from mos_perception.errors import BagError, ConfigError, DatasetError, EngineError
from mos_perception.formats import rosbag
from mos_perception.formats.sequence import Sequence, regular_stamps
from mos_perception.models import load_model
from mos_perception.recording.bag import BagWriter
from mos_perception.stages import StageTimes
from training.adapt import judge as judgement
from training.adapt import tune
from training.adapt.__main__ import main
from training.adapt.adapt import Settings, adapt
from training.adapt.judge import Scores, complaints, judge
from training.adapt.learner import Learner
from training.adapt.mine import MOVES, RESTS, UNSURE, Steps, mine
from training.adapt.start import network_of
from training.adapt.survey import require, survey, usable
from training.adapt.tune import Adaptation, held_loss, label_loss
from training.evaluate_adapt import rendered
from training.nets.gmos_nano import GmosNano, GmosNanoConfig
from training.scenes import render_clip
from training.scenes.demo_bag import write_clip

SIZE, FPS = (96, 160), 24
FEW = Settings(steps=2, batch=2, most_samples=12, least_s=1.0)
CONFIG = from_dict({'model': 'gmos_nano', 'threads': 1})
START_NS = 1_000_000_000
ROOT = Path(__file__).parents[2]


def scene(moves=True, count=36, blur=1.0):
    """Frames of a textured square before a textured wall; it moves 2 px per frame."""
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (*SIZE, 3), np.uint8), (0, 0), 2)
    square = cv2.GaussianBlur(rng.integers(0, 255, (36, 36, 3), np.uint8), (0, 0), blur)
    frames = []
    for n in range(count):
        image = wall.copy()
        left = 20 + 2 * n * moves
        image[30:66, left:left + 36] = square
        frames.append(image)
    return frames


def bag_of(path, frames):
    with BagWriter(path) as bag:
        for n, image in enumerate(frames):
            bag.write_frame('/camera/image_raw', Frame(START_NS + round(n * 1e9 / FPS), image))
    return path


def digest(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


class StopsAtLearning(Progress):
    """Somebody presses Ctrl-C once the learning has begun."""

    def update(self, task_id, **what):
        if str(what.get('description', '')).startswith('learn'):
            raise KeyboardInterrupt
        super().update(task_id, **what)


@pytest.fixture(scope='module')
def adapted(tmp_path_factory):
    """A bag and what came of it; stopped once on the way."""
    folder = tmp_path_factory.mktemp('adapt')
    bag, out = bag_of(folder / 'walk', scene()), folder / 'mine.onnx'
    before = digest(bag)
    with pytest.raises(KeyboardInterrupt):
        adapt([bag], out, CONFIG, FEW, progress=StopsAtLearning(disable=True))
    watched = (folder / 'mine.work/bag00.npz').stat().st_mtime_ns
    assert not out.exists()
    with pytest.raises(ConfigError, match='begun with other'):
        adapt([bag], out, CONFIG, Settings(steps=3, batch=2, least_s=1.0))
    with pytest.raises(ConfigError, match='begun with other'):  # other answers would be its labels
        adapt([bag], out, replace(CONFIG, score_threshold=0.9), FEW)
    assert (folder / 'mine.work/bag00.npz').stat().st_mtime_ns == watched
    outcome = adapt([bag], out, CONFIG, FEW)
    return bag, out, before, outcome


def test_the_model_runs_and_says_where_it_comes_from(adapted):
    bag, out, _, outcome = adapted
    card = load_card(out)
    assert card.id == 'mine' and card.training['command'] == 'mos adapt'
    assert card.training['start_sha256'] == load_card(find_model('gmos_nano')).sha256
    assert card.training['recordings'][0]['bag'] == bag.name
    assert card.scores['held out, by itself']['before']['agreement'] > 0.3
    load_model(from_dict({'model': str(out)}))
    assert {path.name for path in outcome.files} == {
        'mine.onnx', 'mine.json', 'index.html', 'overlay.mp4', 'contact_sheet.png'}
    assert all(path.stat().st_size > 0 for path in outcome.files)


def test_the_input_is_not_touched_and_no_work_is_left(adapted):
    bag, out, before, _ = adapted
    assert digest(bag) == before
    assert sorted(path.name for path in out.parent.iterdir()) == [
        'mine.json', 'mine.onnx', 'mine.report', 'walk']


def test_the_report_needs_no_other_file(adapted):
    text = (adapted[1].with_suffix('.report') / 'index.html').read_text()
    assert text.count('<img src="data:image/jpeg;base64,') == 2 and 'http' not in text
    assert 'walk' in text and 'was written' in text


def test_an_adapted_model_is_a_start(adapted):
    network_of(adapted[1], load_card(adapted[1]))


def test_motion_teaches_a_model_that_sees_single_pictures(tmp_path):
    """It finds the square in pictures of a scene at rest afterwards, which it did not before."""
    bag, out = bag_of(tmp_path / 'walk', scene(blur=4.0)), tmp_path / 'mine.onnx'
    done = adapt([bag], out, replace(CONFIG, movable_model='movable_nano'),
                 replace(FEW, steps=30, batch=4))
    card = load_card(out)
    assert card.architecture == 'mosis' and card.training['watched'] == 'gmos_nano'
    assert card.training['start'] == 'movable_nano'
    assert (done.before.agreement or 0) + 0.2 < done.after.agreement
    model = load_model(replace(CONFIG, model=str(out)))
    image = scene(moves=False, count=1, blur=4.0)[0]
    found = model.detect(SyncedInput(1, '', Frame(1, image), None, SIZE), StageTimes())
    square = np.zeros(SIZE, bool)
    square[30:66, 20:56] = True
    union = found.masks.any(0)
    assert (union & square).sum() > 0.5 * (union | square).sum()
    network_of(out, card)


def test_only_a_single_picture_model_can_be_taught_so(tmp_path):
    bag = bag_of(tmp_path / 'bag', scene(count=2))
    with pytest.raises(EngineError, match='must be mosis'):
        adapt([bag], tmp_path / 'mine.onnx', replace(CONFIG, movable_model='gmos_s_nano'), FEW)
    with pytest.raises(EngineError, match='look at motion evidence can be watched'):
        adapt([bag], tmp_path / 'mine.onnx', replace(CONFIG, model='movable_nano'), FEW)


def test_labels_of_pictures_are_things_where_something_moves(tmp_path):
    path = find_model('movable_nano')
    card = load_card(path)
    learner = Learner.of(path, card, load_card(find_model('gmos_nano')))
    mined = np.full((2, 4, 4), RESTS, np.uint8)
    mined[0, 0], mined[:, 3] = MOVES, UNSURE
    mined[1, 3] = UNSURE
    ids = np.zeros((2, 4, 4), np.uint8)
    ids[0, 0, 2:] = 1
    found = learner.labels(mined, ids)
    assert found[0].tolist() == [[1, 1, 2, 2], [0] * 4, [0] * 4, [UNSURE] * 4]
    assert (found[1] == UNSURE).all()


def test_what_is_there_is_not_overwritten(adapted):
    with pytest.raises(ConfigError, match='exists'):
        adapt([adapted[0]], adapted[1], CONFIG, FEW)


def test_recordings_with_events_teach_a_model_that_sees_them(tmp_path):
    """The model that the node would take for them is the start."""
    write_clip(render_clip('easy', 3, 'val'), tmp_path / 'bag')
    few = replace(FEW, steps=1, least_s=0.2)
    adapt([tmp_path / 'bag'], tmp_path / 'mine.onnx', from_dict({'threads': 1}), few)
    card = load_card(tmp_path / 'mine.onnx')
    assert card.training['start'] == 'dimos_light' and card.voxel.compensated
    load_model(from_dict({'model': str(tmp_path / 'mine.onnx')}))


def test_a_model_that_got_worse_is_not_written(tmp_path, monkeypatch):
    """To a judge who calls everything worse: real ones differ by chance after two steps."""
    monkeypatch.setattr(judgement, 'WORSE_SHARE', -1.0)
    bag = bag_of(tmp_path / 'walk', scene())
    with pytest.raises(EngineError, match='No model was written'):
        adapt([bag], tmp_path / 'mine.onnx', CONFIG, FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['mine.report', 'walk']
    assert 'No model was written' in (tmp_path / 'mine.report/index.html').read_text()


def test_a_loss_without_bounds_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tune.Adaptation, 'highest_rate', float('inf'))
    bag = bag_of(tmp_path / 'walk', scene())
    with pytest.raises(EngineError, match='the loss is nan at step 2'):
        adapt([bag], tmp_path / 'mine.onnx', CONFIG, FEW)
    assert [path.name for path in tmp_path.iterdir()] == ['walk']


@pytest.mark.parametrize('frames, settings, told', [
    (scene(moves=False), FEW, 'something moves for sure in 0% of the usable frames'),
    (scene(count=24), Settings(), r's of usable video in 1 recordings: must be >= 5 s'),
    ([0 * image for image in scene(count=24)], FEW, 'too dark or too bright'),
    (scene(count=1), FEW, 'of usable video'),
], ids=['static', 'one second', 'dark', 'one frame'])
def test_what_cannot_teach_is_refused(tmp_path, frames, settings, told):
    bag = bag_of(tmp_path / 'bag', frames)
    with pytest.raises(DatasetError, match=told):
        adapt([bag], tmp_path / 'mine.onnx', CONFIG, settings)
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


def test_a_bag_without_frames_is_refused(tmp_path):
    events = Events(*(np.arange(50, dtype=kind) for kind in (np.uint16, np.uint16, np.uint8)),
                    START_NS + np.arange(50) * 1_000_000)
    events = Events(events.x, events.y, events.p % 2, events.t)
    bag = rosbag.write(Sequence('e', (64, 64), np.empty(0, np.int64), events=events,
                                event_size=(64, 64)), tmp_path / 'bag')
    with pytest.raises(BagError, match='has no frames to learn from'):
        adapt([bag], tmp_path / 'mine.onnx', CONFIG, FEW)
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


def test_a_corrupt_bag_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / 'x.mcap').write_bytes(b'\x89MCAP0\r\nnot a bag at all' * 9)
    assert main([str(tmp_path / 'x.mcap'), '--out', str(tmp_path / 'mine.onnx')]) == 1
    told = capsys.readouterr().err
    assert 'mos adapt: ' in told and 'x.mcap' in told and 'Traceback' not in told
    assert [path.name for path in tmp_path.iterdir()] == ['x.mcap']


def test_a_full_disk_ends_it_with_a_clear_answer(tmp_path):
    """Files may not grow beyond 2 MB, as on a disk that is full."""
    bag_of(tmp_path / 'bag', scene())
    code = textwrap.dedent('''
        import resource, signal, sys
        from training.adapt import __main__ as command
        from training.adapt.adapt import Settings
        few = dict(batch=2, most_samples=12, least_s=1.0)
        command.Settings = lambda steps=2, most_s=9.0: Settings(steps, most_s=most_s, **few)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        sys.exit(command.main(sys.argv[1:]))
    ''')
    done = subprocess.run(
        [sys.executable, '-c', code, 'bag', '--out', 'mine.onnx', '--model', 'gmos_nano',
         '--steps', '2'], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'no model was written' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.glob('mine.onnx')) and not list(tmp_path.glob('mine.json'))


def test_a_disk_that_will_be_full_is_told_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1_000_000))
    bag = bag_of(tmp_path / 'bag', scene(count=2))
    with pytest.raises(DatasetError, match='1 MB free: must be >='):
        adapt([bag], tmp_path / 'mine.onnx', CONFIG, FEW)
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


@pytest.mark.parametrize('name', ['gmos_nano', 'gmos_s_nano', 'dimos_light', 'movable_nano'])
def test_shipped_models_are_starts(name):
    """The network read from the file gives the file's answers: `network_of` runs both."""
    path = find_model(name)
    network = network_of(path, load_card(path))
    assert (network.decoder is None) == (name == 'gmos_s_nano')
    assert (network.events is not None) == (name == 'dimos_light')


def test_other_models_are_no_starts(tmp_path):
    path = find_model('dimos_nano')
    with pytest.raises(EngineError, match='only the light members'):
        network_of(path, load_card(path))
    path = find_model('gmos_s_nano')
    graph = onnx.load(path)
    for item in graph.graph.initializer:
        item.name = item.name.replace('fusion.gate', 'fusion.door')
    onnx.save(graph, tmp_path / 'other.onnx')
    with pytest.raises(EngineError, match='holds no network of this version'):
        network_of(tmp_path / 'other.onnx', load_card(path))


def still(count, size=(32, 48)):
    """Steps over a scene at rest, and its stamps; maps are half as large."""
    texture = np.random.default_rng(0).integers(0, 255, (2 * size[0], 2 * size[1]), np.uint8)
    stamps = regular_stamps(range(count), FPS)
    return Steps([texture] * count, stamps), stamps


def test_what_holds_over_time_and_moves_is_learned():
    steps, stamps = still(7)
    logits, support = np.full((7, 32, 48), -5.0, np.float32), np.zeros((7, 32, 48), np.float32)
    logits[:, 4:14, 4:14], support[:, 4:14, 4:14] = 5, 3   # a mover
    logits[:, 4:14, 30:40] = 5                             # found, but nothing moves there
    logits[3, 20:30, 4:14], support[:, 20:30, 4:14] = 5, 3  # found once
    support[:, 20:30, 30:40] = 3                           # moves, but is not found
    labels = mine(logits, support, steps, stamps).labels
    assert (labels[:, 5:13, 5:13] == MOVES).all()
    for rows, columns in ((slice(5, 13), slice(31, 39)), (slice(21, 29), slice(5, 13)),
                          (slice(21, 29), slice(31, 39))):
        assert (labels[:, rows, columns] == UNSURE).all()
    assert (labels[:, :, 18:27] == RESTS).all()
    off = mine(logits, support, steps, stamps, np.arange(7) != 3).labels
    assert (off[3] == UNSURE).all() and (off[2] == labels[2]).all()


def test_answers_are_carried_along_the_flow():
    """A mover that comes 4 px on per frame is where its mask was carried to."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in scene(count=7)]
    stamps = regular_stamps(range(7), FPS)
    logits, support = np.full((7, 48, 80), -5.0, np.float32), np.zeros((7, 48, 80), np.float32)
    for n in range(7):
        inside = n, slice(15, 33), slice(10 + n, 28 + n)
        logits[inside], support[inside] = 5, 3
    logits[3] = -5  # missed once
    found = mine(logits, support, Steps(greys, stamps), stamps)
    assert (found.votes[3, 18:30, 16:28] > 0.5).mean() > 0.9
    assert (found.votes[3, :, 50:] < 0.1).all()


@given(st.integers(0, 2**32 - 1))
def test_labels_contradict_no_answer(seed):
    rng = np.random.default_rng(seed)
    steps, stamps = still(3)
    logits = rng.normal(0, 4, (3, 32, 48)).astype(np.float32)
    found = mine(logits, rng.uniform(0, 4, logits.shape).astype(np.float32), steps, stamps)
    assert set(np.unique(found.labels)) <= {RESTS, MOVES, UNSURE}
    assert (found.votes[found.labels == MOVES] > 0.5).all()
    assert (found.votes[found.labels == RESTS] < 0.5).all()


def test_judgement_by_hand():
    steps, _ = still(2)
    labels = np.full((2, 32, 48), RESTS, np.uint8)
    labels[:, 8:16, 8:16] = MOVES
    ids = np.where(labels == MOVES, 1, 0).astype(np.uint8)
    assert judge(ids, labels, steps) == Scores(2, 1.0, 1.0, 0.0)
    ids[1, 8:16, 8:12], ids[1, 24:28, 30:40] = 0, 2
    found = judge(ids, labels, steps)
    assert found.agreement == pytest.approx((1 + 32 / 104) / 2)
    assert found.consistency == pytest.approx(32 / 104, abs=0.05)
    assert found.false_alarms == 0.5
    nothing = judge(0 * ids, labels, steps)
    assert nothing.agreement == 0 and nothing.consistency is None
    assert complaints(found, found) == [] and len(complaints(Scores(2, 1.0, 1.0, 0.0), found)) == 3
    assert 'nothing found' in complaints(found, nothing)[1]


def test_a_survey_says_what_to_do_better():
    good = np.ones(60, bool)
    labels = np.full((60, 8, 8), RESTS, np.uint8)
    labels[:30, 2:4] = MOVES
    kinds = usable(np.where(good, 0.1, 0), np.zeros(60), np.full(60, 0.2), 4)
    found = survey('b', regular_stamps(range(60), 10), kinds,
                   type('M', (), {'labels': labels}), '')
    assert found.complaints() == [] and found.moving == 0.5 and found.usable_s == 6
    require([found])
    slow = survey('b', regular_stamps(range(60), 2), kinds, type('M', (), {'labels': labels}), 'x')
    assert [text.split()[0] for text in slow.complaints()] == ['damaged,', '2.0']
    with pytest.raises(DatasetError, match='no recording has 8 frames/s'):
        require([slow])


def test_unsure_pixels_teach_nothing():
    logits = torch.randn(2, 8, 8, requires_grad=True)
    labels = torch.full((2, 8, 8), UNSURE)
    labels[:, :4] = MOVES
    label_loss(logits, labels).backward()
    assert logits.grad[:, :4].abs().min() > 0 and not logits.grad[:, 4:].any()
    assert torch.isfinite(label_loss(logits, torch.full((2, 8, 8), UNSURE)))


def test_the_rest_of_the_network_is_held(tmp_path):
    """At the start nothing pulls; what left is pulled back."""
    small = GmosNanoConfig(stem=4, widths=(4, 6, 8, 8, 8), appearance=(4, 4, 4), queries=3, width=8)
    start = GmosNano(small).eval()
    run = Adaptation(tmp_path, start)
    inputs = torch.randn(1, 3, 64, 96), torch.randn(1, 32, 64, 96), torch.zeros(1, 1, 64, 96)
    with torch.no_grad():
        before, same = start(*inputs), run.net.eval()(*inputs)
    floor = held_loss(before, before)
    torch.testing.assert_close(held_loss(same, before), floor)
    moved = {name: value + 0.5 for name, value in before.items()}
    assert held_loss(moved, before) > floor + 0.1


def test_the_command_names_what_is_missing_and_hands_its_options_on(monkeypatch, capsys):
    from mos_perception import cli
    from mos_perception.commands import training_process as command
    seen = []
    monkeypatch.setattr(command.subprocess, 'run', lambda line, check, env: seen.append(
        line[1:]) or subprocess.CompletedProcess(line, 1))
    words = ['adapt', 'a', 'b', '--out', 'x.onnx', '--steps', '3', '--set', 'threads=1']
    assert cli.main(words) == 1
    assert seen == [['-m', 'training.adapt', 'a', 'b', '--out', 'x.onnx', '--steps', '3', '--set',
                     'threads=1']]
    assert 'x.onnx was not made' in capsys.readouterr().err
    monkeypatch.setattr(command.importlib.util, 'find_spec', lambda name: None)
    assert cli.main(words) == 1 and 'pip install torch' in capsys.readouterr().err


def test_rendered_clips_are_video_with_truth():
    video = next(rendered('video', 'other', 1))
    assert video.name == 'video-other-0' and len(video.frames) == len(video.masks) == 96
    assert video.size == video.frames[0].size
    assert 0.005 < np.mean([(mask > 0).mean() for mask in video.masks]) < 0.6
