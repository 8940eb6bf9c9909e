"""Runs on pairs of frames: every recipe learns a batch by heart, resumes, smokes; the set on disk,
the scores.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from mos_perception.errors import ConfigError, DatasetError
from training.cold_start import by_truth, cache
from training.compare_mosis import main as compare
from training.datasets import frame_pairs
from training.datasets.frame_pairs import PairSet, pack_pairs
from training.datasets.mosis2d_wrappers import FlowSupervised, Mosis2D
from training.evaluate_mosis import (
    COLUMNS,
    Found,
    average_precision,
    detector_finder,
    flow_error,
    main,
    region_finder,
    sheet,
)
from training.loop import fit, train_step
from training.losses.mosis import ExplainWeights
from training.nets.amd import AmdConfig
from training.nets.darknet import DarknetConfig
from training.nets.mosis import MosisConfig
from training.nets.pwc_lite import PwcConfig
from training.nets.yolo import YoloConfig
from training.optimizer import one_cycle
from training.recipes_mosis import MOSIS_RECIPES
from training.scenes.moving_shapes import Preset2D
from training.smoke import smoke
from training.state import load, read_metadata, save, start, start_from
from training.train import main as train

torch.set_num_threads(1)
SIZE = (64, 64)
PRESET = Preset2D('small', size=SIZE, frames=3, objects=(1, 2), object_px=(16, 28),
                  speed_px=(2, 3), sway_px=(6, 8))
FLOW = PwcConfig(pyramid=(8, 12, 16), reduced=8, estimator=(24, 24, 16, 12, 8), hidden=16)
YOLO = YoloConfig(
    size=SIZE,
    darknet=DarknetConfig(stem=6, channels=(8, 12, 16, 24, 32), blocks=(1, 1, 1, 1, 1)),
    mask_channels=12, mask_side=14, top_k=6, nms_iou=0.7,
)
AMD = AmdConfig(size=SIZE, width=8, blocks=(1, 1, 1, 1), bottleneck=False, head=16, motion=FLOW)


def tiny(name):
    """A shipped recipe for 64x64 px."""
    recipe = MOSIS_RECIPES[name]
    nets = {MosisConfig: MosisConfig(YOLO, FLOW), AmdConfig: AMD, YoloConfig: YOLO,
            PwcConfig: replace(FLOW, fine=12)}
    explain = replace(recipe.explain, scales=recipe.explain.scales[-2:])
    net = nets[type(recipe.net)]
    if isinstance(net, MosisConfig):
        net = replace(net, frozen=recipe.net.frozen)
    return replace(recipe, net=net, size=SIZE, batch=4, flip=0.0,
                   explain=explain)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Four videos of three frames."""
    path = tmp_path_factory.mktemp('pairs')
    pack_pairs(PRESET, 4, path, seed=3)
    return path


def learnt(recipe, data, steps, peak):
    """The terms of each step on one batch, and the state afterwards."""
    state, batch = start(recipe), data.batch(np.array([(video, 0) for video in range(4)]))
    return [train_step(state, batch, recipe, one_cycle(step / steps, peak, 0.1))
            for step in range(steps)], state, batch


@pytest.mark.parametrize('name', ['mosis_nano', 'amd_nano'])
def test_label_free_recipes_explain_one_batch_better_than_rest_does(folder, name):
    """The first step's flow is near zero."""
    recipe = tiny(name)
    steps, state, batch = learnt(recipe, PairSet(folder, recipe), 30, 2e-3)
    late = np.median([step['photometric'] for step in steps[-5:]])
    assert late < 0.85 * steps[0]['photometric']
    assert ('objectness' in steps[0]) == name.startswith('mosis')
    with torch.no_grad():
        flows = state.network(batch.first, batch.second).flows[-1]
    # each image its own motion: a motion network whose features faded gives one flow for all
    assert flows[:, 0].std(0).max() > 0.02


@pytest.mark.parametrize('target', ['thesis', 'inverted', 'gain'])
def test_the_shipped_targets(target):
    names = [name for name, recipe in MOSIS_RECIPES.items()
             if isinstance(recipe.net, MosisConfig) and recipe.explain.target == target
             and not recipe.net.frozen]
    assert len(names) == 2 and all(name.endswith(target) or target == 'gain' for name in names)


def test_motion_learns_of_a_frozen_detector(folder):
    recipe = tiny('mosis_nano_motion')
    before = start(recipe).network
    steps, state, _ = learnt(recipe, PairSet(folder, recipe), 2, 2e-3)
    assert 'objectness' not in steps[0]
    for name, value in before.named_parameters():
        same = torch.equal(value, state.network.get_parameter(name))
        assert same or name.startswith('motion'), name
    assert not torch.equal(before.motion.reduce[0].weight,
                           state.network.motion.reduce[0].weight)


def test_the_flow_network_learns_one_batch(folder):
    """From the error of a flow near zero."""
    recipe = tiny('flow_nano')
    steps, _, _ = learnt(recipe, PairSet(folder, recipe), 40, 4e-3)
    assert np.median([step['flow_mse'] for step in steps[-5:]]) < 0.5 * steps[0]['flow_mse']


def test_the_supervised_detector_learns_one_batch_by_heart(folder):
    recipe = tiny('mosis_supervised_nano')
    data = PairSet(folder, recipe)
    _, state, batch = learnt(recipe, data, 80, 5e-3)
    # batch norm's running means are not there yet: as in training
    with torch.no_grad():
        found = detector_finder(state.network, 0.5, 0.3)(batch.first)
    for answer, masks in zip(found, batch.masks):
        codes = [rle.encode(np.asfortranarray(part.transpose(1, 2, 0), np.uint8))
                 for part in (answer.masks, masks.numpy())]
        assert len(answer.masks) and rle.iou(*codes, [0] * len(masks)).max(0).min() > 0.6


@pytest.mark.parametrize('name', ['mosis_nano', 'mosis_supervised_nano', 'amd_nano', 'flow_nano'])
def test_a_killed_run_resumes_bit_for_bit(folder, killed_and_resumed, name):
    recipe = replace(tiny(name), batch=2, flip=0.5)
    data = PairSet(folder, recipe)
    halved, wanted = killed_and_resumed(recipe, data)
    with pytest.raises(ConfigError, match='another recipe'):
        load(halved, replace(recipe, explain=ExplainWeights(photometric='l1')))


def test_all_rows_begin_with_the_same_detector_and_flow(folder, tmp_path, monkeypatch, capsys):
    """Parts of a warm start: each run's network is found in the recipe's, and none is refused."""
    for name in ('mosis_nano', 'mosis_supervised_nano', 'flow_nano'):
        monkeypatch.setitem(MOSIS_RECIPES, name, tiny(name))
    warm = [tmp_path / 'detector', tmp_path / 'flow']
    for run, name in zip(warm, ('mosis_supervised_nano', 'flow_nano')):
        run.mkdir()
        recipe = replace(tiny(name), seed=7)
        fit(start(recipe), PairSet(folder, recipe), recipe, run, steps=1)
    parts = [load(run, replace(tiny(name), seed=7)).network
             for run, name in zip(warm, ('mosis_supervised_nano', 'flow_nano'))]
    begun = start_from(warm, tiny('mosis_nano'))
    for part, taught in zip((begun.network.detector, begun.network.motion), parts):
        for name, value in part.state_dict().items():
            assert torch.equal(value, taught.state_dict()[name]), name
    assert ' and the network of flow_nano after 1 steps' in begun.origin
    sets = [f'--{name}={folder}' for name in ('data', 'val', 'test')]
    arguments = ['--recipes', 'mosis_nano', '--steps', '1', '--seeds', '1', *sets, '--start-from',
                 *map(str, warm), '--learning-rate', '3e-4', '--out', str(tmp_path / 'runs')]
    assert compare(arguments) == 0
    gentle = replace(tiny('mosis_nano'), learning_rate=3e-4)
    assert load(tmp_path / 'runs' / 'mosis_nano_0', gentle).origin == begun.origin
    capsys.readouterr()
    amds = start_from(warm[1:], tiny('amd_nano'))
    save(amds, tiny('amd_nano'), tmp_path / 'flow', {'data': '', 'command': ''})
    motion = start_from(warm[1:], tiny('mosis_nano')).network.motion
    for name, value in motion.state_dict().items():
        assert torch.equal(value, parts[1].state_dict()[name]), name
    with pytest.raises(ConfigError, match='not shaped as that of amd_nano or as a part'):
        start_from(warm[:1], tiny('amd_nano'))


def test_smoke_runs_every_stage(capsys):
    assert smoke(tiny('mosis_nano')) == 0
    assert 'resumed to step 2, scored 7 values' in capsys.readouterr().out


def test_a_set_holds_the_scenes_frames_flow_and_masks(folder):
    data = PairSet(folder, tiny('mosis_nano'))
    assert (data.videos, data.pairs, data.size) == (4, 2, SIZE)
    batch = data.batch(np.array([(2, 1), (0, 0)]))
    first, second, flow, _ = FlowSupervised(PRESET, videos=4, seed=3).item(2, 1)
    _, masks, boxes = Mosis2D(PRESET, videos=4, seed=3).item(2, 1)
    assert (batch.first[0] - first).abs().max() <= 0.5 / 255 + 1e-6
    assert (batch.second[0] - second).abs().max() <= 0.5 / 255 + 1e-6
    assert (batch.flow[0] - flow).abs().max() < 0.01
    assert torch.equal(batch.masks[0], masks) and torch.equal(batch.boxes[0], boxes)


def test_mirrored_pairs_are_mirrored_whole(folder):
    data = PairSet(folder, tiny('mosis_nano'))
    plain = data.batch(np.array([(1, 0)]))
    turned = data.batch(np.array([(1, 0)]), np.array([[True, False]]))
    assert torch.equal(turned.first, plain.first.flip(-1))
    assert torch.equal(turned.flow[:, 0], -plain.flow[:, 0].flip(-1))
    assert torch.equal(turned.flow[:, 1], plain.flow[:, 1].flip(-1))
    assert torch.equal(turned.masks[0], plain.masks[0].flip(-1))
    x1, _, x2, _ = plain.boxes[0].unbind(1)
    assert torch.equal(turned.boxes[0][:, 0], 64 - x2)
    assert torch.equal(turned.boxes[0][:, 2], 64 - x1)
    again = [data.draw(5) for _ in range(2)]
    assert torch.equal(again[0].first, again[1].first)


def test_what_is_no_set_or_of_another_size_is_refused(folder, tmp_path, capsys):
    with pytest.raises(DatasetError, match='is no set of frame pairs'):
        PairSet(tmp_path, tiny('mosis_nano'))
    with pytest.raises(DatasetError, match=r'are \(64, 64\), mosis_nano takes \(128, 128\)'):
        PairSet(folder, MOSIS_RECIPES['mosis_nano'])
    arguments = ['--recipe', 'mosis_nano', '--online', 'easy', '--steps', '1', '--out']
    assert train([*arguments, str(tmp_path / 'run')]) == 1
    assert 'learns from pairs of frames: give --data' in capsys.readouterr().err
    shapes = ['--shapes', 'square', '--objects', '1', '1', '--frames', '1']
    assert frame_pairs.main([*shapes, '--out', str(tmp_path / 'set')]) == 1
    assert 'use 2 frames or more' in capsys.readouterr().err
    assert not (tmp_path / 'set' / 'set.json').exists()


def test_average_precision_of_the_truth_is_one_and_of_a_quarter_of_the_boxes_none(folder):
    data = PairSet(folder, tiny('mosis_nano'))
    rows = iter([(video, t) for video in range(4) for t in range(2)])

    def find(images, shrink=False):
        answers = []
        for _ in images:
            batch = data.batch(np.array([next(rows)]))
            masks, boxes = batch.masks[0].numpy(), batch.boxes[0].numpy()
            if shrink:
                boxes = np.concatenate([boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2], 1)
            answers.append(Found(masks, np.ones(len(masks), np.float32), boxes))
        return answers
    scores = average_precision(find, data)
    assert list(scores) == list(COLUMNS) and all(
        value == pytest.approx(1, abs=1e-6) for value in scores.values())
    rows = iter([(video, t) for video in range(4) for t in range(2)])
    scores = average_precision(lambda images: find(images, True), data)
    assert scores['box mAP'] == 0
    assert scores['mask mAP'] == scores['refit box mAP'] == pytest.approx(1)


def test_amds_components_become_instances():
    class Network:
        @staticmethod
        def segmenter(images):
            regions = torch.full((1, 2, 32, 32), 0.1)
            regions[0, 1, 2:8, 2:8] = 0.9
            regions[0, 1, 20:30, 10:15] = 0.7
            regions[0, 1, 0, 31] = 0.9  # too small
            return regions
    (found,) = region_finder(Network, 1, 0.0)(torch.zeros(1, 3, 32, 32))
    assert found.boxes.tolist() == [[2, 2, 8, 8], [10, 20, 15, 30]]
    assert found.scores == pytest.approx([0.9, 0.7])
    (found,) = region_finder(Network, 1, 0.8)(torch.zeros(1, 3, 32, 32))
    assert found.masks.sum() == 36


def test_a_sheet_with_amd_chooses_its_channel(folder, tmp_path, monkeypatch):
    recipe = tiny('amd_nano')
    monkeypatch.setitem(MOSIS_RECIPES, 'amd_nano', recipe)
    fit(start(recipe), PairSet(folder, recipe), recipe, tmp_path, steps=1)
    assert sheet([tmp_path], folder, folder, 2).size
    with pytest.raises(ConfigError, match='give --val'):
        sheet([tmp_path], folder, None, 2)


def test_flow_error_of_zero_flow(folder):
    class Still(torch.nn.Module):
        def forward(self, first, second):
            return torch.zeros(len(first), 2, *SIZE)
    scores = flow_error(Still(), PairSet(folder, tiny('flow_nano')))
    scenes = FlowSupervised(PRESET, videos=4, seed=3)
    power = np.mean([(scenes[n][2] ** 2).mean() for n in range(8)])
    assert scores['flow MSE px^2'] == scores['of zero flow'] == pytest.approx(power, rel=1e-3)


def test_the_table_of_two_seeds(folder, tmp_path, monkeypatch, capsys):
    recipe = tiny('mosis_supervised_nano')
    monkeypatch.setitem(MOSIS_RECIPES, 'mosis_supervised_nano', recipe)
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        fit(start(recipe), PairSet(folder, recipe), recipe, tmp_path / str(seed), steps=1)
    capsys.readouterr()
    arguments = ['--runs', str(tmp_path / '0'), str(tmp_path / '1'), '--data', str(folder)]
    assert main([*arguments, '--pictures', str(tmp_path / 'sheet.png'), '--columns', '2']) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith('| mosis_supervised_nano'))
    assert row.count('+-') == 7 and row.endswith('| 2 |')
    assert '| thesis: mosis | 0.556 | 0.005 | 0.149 |' in text
    assert (tmp_path / 'sheet.png').stat().st_size > 1000
    assert compare(['--recipes', 'mosis_supervised_nano', '--steps', '1', '--seeds', '1',
                    *(f'--{name}={folder}' for name in ('data', 'val', 'test')),
                    '--out', str(tmp_path / 'table')]) == 0
    assert (tmp_path / 'table' / 'table.md').read_text().startswith('|  | mask AP50')
    assert (tmp_path / 'table' / 'sheet.jpg').stat().st_size > 1000
    pack_pairs(replace(PRESET, frames=4), 2, tmp_path / 'four')
    pairs = PairSet(tmp_path / 'four')
    cache(pairs, tmp_path / 'labels', by_truth(pairs), {'teacher': 'truth'})
    assert compare(['--recipes', 'mosis_supervised_nano', '--steps', '1', '--seeds', '1',
                    f'--val={folder}', f'--test={folder}', f'--data={tmp_path / "four"}',
                    f'--labels={tmp_path / "labels"}', '--out', str(tmp_path / 'taught')]) == 0
    run = read_metadata(tmp_path / 'taught' / 'mosis_supervised_nano_0', '')
    assert run['data'].endswith('labels: truth')
    assert main(['--runs', str(tmp_path), '--data', str(folder)]) == 1
    assert 'give folders of runs' in capsys.readouterr().err
