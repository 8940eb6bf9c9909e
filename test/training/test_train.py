"""Training: the packed set, overfitting one batch, the NaN stop, resume."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mos_perception.datatypes import Events
from mos_perception.errors import ConfigError
from training.datasets.batches import instances
from training.datasets.packed import PackedSet, pack
from training.loop import TrainingError, fit, losses, train_step
from training.losses.masks import LossWeights
from training.nets.dimos_config import DimosConfig
from training.optimizer import momentum, one_cycle, set_learning_rate
from training.recipes import RECIPES, Augmentation, Recipe
from training.scenes.clip import Clip
from training.smoke import smoke
from training.state import load, save, start, start_from
from training.train import main

NET = DimosConfig(size=(32, 48), stem=8, channels=(8, 16, 16), blocks=(1, 1, 1), hidden=16, groups=4, queries=4,
                  width=32, attention_heads=2, feed_forward=32, layers=2)
RECIPE = Recipe('tiny', net=NET, weights=LossWeights(foreground=1.0), batch=4, learning_rate=3e-3, mask_stride=2)
FULL = replace(RECIPE, name='tiny_full', batch=2, frames=2, alignment=RECIPES['dimos_nano_full'].alignment)
EVINSMOS = replace(FULL, name='tiny_evinsmos', net=replace(NET, disentangled=False),
                   weights=replace(RECIPES['evinsmos_nano'].weights, box=0.01),
                   alignment=RECIPES['evinsmos_nano'].alignment)
RELEASED = replace(FULL, name='tiny_released', net=replace(NET, as_released=True, dropout=0.1), sum_frames=True,
                   empty_masks=True, released_optimizer=True, clip_norm=0.0, weights=RECIPES['dimos'].weights,
                   alignment=RECIPES['dimos'].alignment)
PERIOD = 33_333_333


def square_clip(seed: int) -> Clip:
    """A bright square that moves right and a dark one at rest; events where the brightness changed."""
    rng = np.random.default_rng(seed)
    frames, ids, parts = np.full((4, 32, 48, 3), 90, np.uint8), np.zeros((4, 32, 48), np.uint16), []
    top, left = rng.integers(2, 18), rng.integers(2, 12)
    for i in range(4):
        frames[i, 20:28, 36:46], ids[i, 20:28, 36:46] = 30, 2
        frames[i, top:top + 12, left + 3 * i:left + 3 * i + 12] = 220
        ids[i, top:top + 12, left + 3 * i:left + 3 * i + 12] = 1
        if i:
            change = frames[i, ..., 0].astype(int) - frames[i - 1, ..., 0]
            y, x = np.nonzero(change)
            t = np.sort(rng.integers((i - 1) * PERIOD + 1, i * PERIOD, len(y)))
            parts.append(Events(x.astype(np.uint16), y.astype(np.uint16), (change[y, x] > 0).astype(np.uint8), t))
    moving = np.tile(np.array([False, True, False]), (4, 1))
    return Clip(frames, np.arange(4) * PERIOD, Events.concatenate(parts), ids, moving, seed, 'squares')


@pytest.fixture(scope='module')
def packed(tmp_path_factory) -> PackedSet:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('set')
    assert pack((square_clip(seed) for seed in range(4)), 4, folder, RECIPE, 'squares') == 4
    return PackedSet(folder, RECIPE)


def test_batch_holds_what_the_clips_hold(packed):
    batch = packed.batch(np.array([0, 5]), np.random.default_rng(0), None)
    assert batch.image.shape == (2, 3, 32, 48) and batch.voxel.shape == (2, 10, 32, 48)
    assert batch.targets.labels.tolist() == [[0, 1], [0, 1]]  # the square at rest belongs to the background
    clip = square_clip(1)
    box = batch.targets.boxes[1, 1].tolist()
    rows, columns = np.nonzero(clip.ids[3] == 1)
    assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = (clip.frames[3] / 255 - mean) / std
    np.testing.assert_allclose(batch.unaugmented[1].permute(1, 2, 0).numpy(), wanted, atol=1e-5)
    events = clip.events.between(2 * PERIOD, 3 * PERIOD)
    assert set(zip(*np.nonzero(batch.voxel[1].sum(0).numpy()))) == set(zip(events.y, events.x))
    assert float(batch.targets.masks.sum(1).min()) == float(batch.targets.masks.sum(1).max()) == 1


def test_augmentation_moves_image_voxel_and_mask_alike(packed):
    augment = replace(RECIPE.augment, flip=1.0, polarity_swap=1.0, drop_image=0.0, drop_events=0.0)
    plain, turned = (packed.batch(np.arange(3), np.random.default_rng(0), a) for a in (None, augment))
    torch.testing.assert_close(turned.unaugmented, plain.unaugmented.flip(2, 3))
    torch.testing.assert_close(turned.targets.masks, plain.targets.masks.flip(2, 3))
    torch.testing.assert_close(turned.voxel, plain.voxel.flip(2, 3).roll(5, 1))
    x0, y0, x1, y1 = plain.targets.boxes[0, 1].tolist()
    assert turned.targets.boxes[0, 1].tolist() == [48 - x1, 32 - y1, 48 - x0, 32 - y0]


def test_modality_dropout_zeroes_one_input_and_keeps_the_targets(packed):
    augment = replace(RECIPE.augment, drop_image=0.5, drop_events=0.5)
    batch = packed.batch(np.zeros(40, int), np.random.default_rng(0), augment)
    gone = [(x.flatten(1) == 0).all(1) for x in (batch.image, batch.voxel)]
    assert (gone[0] ^ gone[1]).all() and 10 <= int(gone[0].sum()) <= 30
    assert (batch.targets.labels == torch.tensor([0, 1])).all()


def test_small_and_surplus_moving_objects_are_background():
    ids = np.zeros((32, 48), np.uint8)
    for k in range(1, 6):
        ids[6 * (k - 1):6 * (k - 1) + k, :10] = k
    moving = np.array([0, 1, 1, 1, 0, 1])
    masks, boxes = instances(ids, moving, RECIPE)  # areas 10, 20, 30, (40 at rest), 50; at most queries - 1 = 3
    assert [int(m.sum()) for m in masks] == [50, 30, 20]
    assert boxes[0].tolist() == [0, 24, 10, 29]


def test_released_targets_keep_masks_without_pixels():
    """As released: ids run from 1 to the largest of the frame; one that is absent is a target all the same."""
    ids = np.zeros((32, 48), np.uint8)
    ids[:6, :10], ids[10:20, 20:40] = 2, 4
    moving = np.array([0, 1, 1, 0, 1, 1])  # 1 is absent, 3 rests, 5 is absent but above the largest id
    assert len(instances(ids, moving, RECIPE)[0]) == 2
    masks, boxes = instances(ids, moving, replace(RECIPE, empty_masks=True))
    assert [int(m.sum()) for m in masks] == [200, 60, 0]
    assert boxes.tolist() == [[20, 10, 40, 20], [0, 0, 10, 6], [-1, -1, -1, -1]]
    few = replace(RECIPE, empty_masks=True, net=replace(NET, queries=3))
    assert [int(m.sum()) for m in instances(ids, moving, few)[0]] == [200, 60]  # what is there goes first


def test_released_optimizer_decays_weights_only_and_cycles_beta():
    recipe = replace(RELEASED, released_optimizer=True, weight_decay=0.1)
    state = start(recipe)
    optimizer = state.optimizer
    assert type(optimizer) is torch.optim.Adam
    weights, others, discriminators = optimizer.param_groups
    assert (weights['weight_decay'], others['weight_decay'], discriminators['weight_decay']) == (0.1, 0.0, 0.0)
    assert (weights['eps'], discriminators['eps'], discriminators['lr']) == (1e-7, 1e-8, 5e-5)
    assert {id(p) for p in discriminators['params']} == {id(p) for p in state.alignment.discriminators.parameters()}
    names = {id(p): name for module in state.modules.values() for name, p in module.named_parameters()}
    assert all('weight' in names[id(p)] for p in weights['params'])
    assert not any('weight' in names[id(p)] for p in others['params'])
    set_learning_rate(optimizer, recipe, 0.5, recipe.warmup)
    assert (weights['lr'], others['lr'], discriminators['lr']) == (0.5, 0.5, 5e-5)
    assert weights['betas'] == (pytest.approx(0.85), 0.999) and discriminators['betas'] == (0.9, 0.999)
    torch_s = torch.optim.lr_scheduler.OneCycleLR(torch.optim.Adam([torch.zeros(1, requires_grad=True)]), 1e-4, 100,
                                                  pct_start=0.3)
    for step in range(99):  # torch's phases end one step apart
        if step == 29 or step == 0:
            done = 0.3 if step else 0.0
            assert momentum(done, 0.3) == pytest.approx(torch_s.optimizer.param_groups[0]['betas'][0], abs=1e-6)
            assert one_cycle(done, 1e-4, 0.3, 4e-6) == pytest.approx(torch_s.get_last_lr()[0], rel=1e-6)
        torch_s.optimizer.step()
        torch_s.step()
    assert one_cycle(1, 1e-4, 0.3, RECIPES['dimos'].final_learning_rate_factor) == pytest.approx(torch_s.get_last_lr()[0], rel=1e-3)


def test_a_run_is_not_overwritten(packed, tmp_path, capsys):
    fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    before = (tmp_path / 'checkpoint.json').read_text()
    with pytest.raises(SystemExit):
        main(['--recipe', 'dimos_nano', '--online', 'easy', '--out', str(tmp_path), '--steps', '1'])
    assert '--resume' in capsys.readouterr().err and (tmp_path / 'checkpoint.json').read_text() == before


def test_a_set_packed_for_other_settings_is_refused(packed, tmp_path):
    with pytest.raises(ConfigError, match='no packed set'):
        PackedSet(tmp_path, RECIPE)
    pack([square_clip(0)], 1, tmp_path, RECIPE)
    with pytest.raises(ConfigError, match='pack it again'):
        PackedSet(tmp_path, replace(RECIPE, window_ns=10_000_000))


def test_the_second_frame_of_a_sample_is_its_neighbour_and_augmented_alike(packed, monkeypatch):
    monkeypatch.setattr(packed, 'recipe', FULL)
    samples = np.array([0, 5])  # clip 0 frame 1 and clip 1 frame 3, the last
    plain = packed.batch(samples, np.random.default_rng(0), None)
    assert len(plain.image) == 4
    monkeypatch.setattr(packed, 'recipe', RECIPE)
    wanted = packed.batch(np.array([0, 5, 1, 4]), np.random.default_rng(0), None)
    assert torch.equal(plain.image, wanted.image) and torch.equal(plain.voxel, wanted.voxel)
    monkeypatch.setattr(packed, 'recipe', FULL)
    always = Augmentation(flip=1.0, polarity_swap=1.0, brightness=0, contrast=0, drop_image=0, drop_events=0)
    turned = packed.batch(samples, np.random.default_rng(0), always)
    assert torch.equal(turned.image, plain.image.flip(2, 3))
    assert torch.equal(turned.voxel, plain.voxel.flip(2, 3).roll(5, 1))
    half = Augmentation(flip=0, polarity_swap=0, drop_image=0.5, drop_events=0.5)
    for seed in range(4):
        dropped = packed.batch(samples, np.random.default_rng(seed), half)
        gone = (dropped.image == 0).flatten(1).all(1)
        assert torch.equal(gone[:2], gone[2:]) and torch.equal(gone, ~(dropped.voxel == 0).flatten(1).all(1))


def tiny(recipe: Recipe) -> Recipe:
    """A shipped recipe with everything it switches on, and a network for 32x48 px."""
    config = replace(recipe.net, **{name: getattr(NET, name) for name in (
        'size', 'stem', 'channels', 'blocks', 'hidden', 'groups', 'queries', 'width', 'attention_heads',
        'feed_forward', 'layers')}, backbone='plain', fusion_width=recipe.net.fusion_width and 8)
    return replace(recipe, net=config, batch=4 // recipe.frames, min_pixels=12, window_ns=RECIPE.window_ns)


@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_learns_one_batch(packed, monkeypatch, name):
    recipe = tiny(RECIPES[name])
    monkeypatch.setattr(packed, 'recipe', recipe)
    if recipe.weights.true_flow:  # the square moves 3 px a frame to the right
        right = np.where(packed.ids[:, 1:, ::2, ::2] == 1, 128 - 8 * 3, 128)
        monkeypatch.setattr(packed, 'flows', np.stack([right, np.full_like(right, 128)], 2).astype(np.uint8))
    state = start(recipe)
    batch = packed.batch(np.array([0, 3, 6, 9][:recipe.batch]), np.random.default_rng(0), None)
    steps = [train_step(state, batch, recipe, 1e-3, 0.1) for _ in range(30)]

    def late(term):
        """Of the last steps: one alone hangs on the last bits of the machine's arithmetic."""
        return np.median([step[term] for step in steps[-7:]])
    assert late('loss') < 0.7 * steps[0]['loss']
    learnt = {'focal', 'flow', 'true_flow', 'foreground', 'contrast', 'translation'}
    for term in learnt & set(steps[0]):
        assert late(term) < steps[0][term], term


def test_one_batch_can_be_learnt_by_heart(packed):
    state = start(RECIPE)
    batch = packed.batch(np.array([0, 3, 6, 9]), np.random.default_rng(0), None)
    for step in range(200):
        train_step(state, batch, RECIPE, one_cycle(step / 200, 1e-3, 0.1))
    with torch.no_grad():
        logits, masks, boxes, _ = state.network.eval().infer(batch.image, batch.voxel)
    for b in range(4):
        query = int(logits[b].softmax(-1)[:, 1].argmax())
        assert float(logits[b].softmax(-1)[query, 1]) > 0.7
        full = torch.nn.functional.interpolate(masks[b, query][None, None], (32, 48), mode='bilinear')[0, 0] > 0
        truth = torch.from_numpy(square_clip(b).ids[1] == 1)
        assert float((full & truth).sum() / (full | truth).sum()) > 0.7
        assert float((boxes[b, query] - batch.targets.boxes[b, 1]).abs().max()) < 6


def test_a_loss_that_is_not_finite_stops_before_the_update(packed):
    state = start(RECIPE)
    batch = packed.batch(np.arange(2), np.random.default_rng(0), None)
    train_step(state, batch, RECIPE, 1e-3)
    before = {name: value.clone() for name, value in state.network.named_parameters()}
    bad = batch.unaugmented.clone()
    bad[0, 0, 0, 0] = float('nan')
    with pytest.raises(TrainingError, match='step 1: loss is nan'):
        train_step(state, replace(batch, unaugmented=bad), RECIPE, 1e-3)  # reaches the flow loss only
    with pytest.raises(TrainingError, match='not finite in class_logits'):
        train_step(state.__class__(start(RECIPE).network, state.optimizer), replace(batch, image=bad), RECIPE, 1e-3)
    for name, value in state.network.named_parameters():
        assert torch.equal(value, before[name]), name


class Killed(Exception):
    """Stands for the process being killed."""


@pytest.mark.parametrize('recipe', [RECIPE, FULL, RELEASED], ids=lambda recipe: recipe.name)
def test_a_killed_run_resumes_bit_for_bit(packed, tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(packed, 'recipe', recipe)
    whole, halved = tmp_path / 'whole', tmp_path / 'halved'
    whole.mkdir()
    halved.mkdir()
    wanted = fit(start(recipe), packed, recipe, whole, steps=6).network.state_dict()
    real = packed.batch

    def batch(samples, rng, augment):
        if (halved / 'checkpoint.json').exists() and json.loads((halved / 'checkpoint.json').read_text())['step'] == 3:
            raise Killed
        return real(samples, rng, augment)
    monkeypatch.setattr(packed, 'batch', batch)
    with pytest.raises(Killed):
        fit(start(recipe), packed, recipe, halved, steps=6, save_minutes=0)
    monkeypatch.setattr(packed, 'batch', real)
    state = load(halved, recipe)
    assert state.step == 3
    resumed = fit(state, packed, recipe, halved, steps=6).network.state_dict()
    for name, value in resumed.items():
        assert torch.equal(value, wanted[name]), name


def test_a_run_starts_from_the_network_of_another(packed, tmp_path):
    other = fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    finer = replace(RECIPE, name='finer', net=replace(NET, first_stride=1))
    begun = start_from(tmp_path, finer)
    weights = other.network.state_dict()
    assert begun.step == 0 and not begun.optimizer.state
    assert begun.origin == 'the network of tiny after 1 steps on squares ()'
    save(begun, finer, tmp_path, {'data': 'more', 'command': 'x'})
    assert load(tmp_path, finer).origin == begun.origin
    assert start_from(tmp_path, finer).origin.endswith(f'(x) which began with {begun.origin}')
    assert all(torch.equal(value, weights[name]) for name, value in begun.network.state_dict().items())
    with pytest.raises(ConfigError, match='not shaped as that of wider'):
        start_from(tmp_path, replace(RECIPE, name='wider', net=replace(NET, stem=12)))
    with pytest.raises(ConfigError, match='no checkpoint'):
        start_from(tmp_path / 'none', RECIPE)


def test_a_checkpoint_of_another_recipe_is_refused(packed, tmp_path):
    fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    with pytest.raises(ConfigError, match='another recipe'):
        load(tmp_path, replace(RECIPE, learning_rate=1.0))
    assert [p.name for p in tmp_path.glob('step_*')] == ['step_0000001.safetensors']


def test_a_checkpoint_from_before_a_field_existed_goes_on(packed, tmp_path):
    state = fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    path = tmp_path / 'checkpoint.json'
    metadata = json.loads(path.read_text())
    for part, name in (('recipe', 'alignment'), ('recipe', 'frames'), ('net', 'as_released'), ('weights', 'census')):
        del (metadata['recipe'] if part == 'recipe' else metadata['recipe'][part])[name]
    path.write_text(json.dumps(metadata))
    assert load(tmp_path, RECIPE).step == state.step == 1
    metadata['recipe']['a_field_that_is_gone'] = 1
    path.write_text(json.dumps(metadata))
    with pytest.raises(ConfigError, match='another recipe'):
        load(tmp_path, RECIPE)
    with pytest.raises(ConfigError, match='another recipe'):
        load(tmp_path, FULL)


def test_parameters_keep_their_order():
    """Adam's moments are stored by place: runs made before this order was fixed by a test depend on it."""
    names = [name.split('.')[0] for name, _ in start(RECIPES['dimos_nano']).network.named_parameters()]
    assert list(dict.fromkeys(names)) == [
        'image_appearance', 'image_motion', 'event_appearance', 'event_motion', 'event_mask', 'fuse_appearance',
        'fuse_motion', 'interactions', 'pixel_decoder', 'memory', 'query_decoder', 'heads', 'flow', 'dense']


def test_resume_of_a_run_stopped_before_its_first_checkpoint_starts_it(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, 'tiny', RECIPE)
    pack([square_clip(0)], 1, tmp_path / 'set', RECIPE)
    assert main(['--recipe', 'tiny', '--data', str(tmp_path / 'set'), '--out', str(tmp_path / 'run'), '--steps', '1',
                 '--resume', '--threads', '1']) == 0
    assert 'starting anew' in capsys.readouterr().err and load(tmp_path / 'run', RECIPE).step == 1


def test_released_frame_accounting_sums_the_task_and_not_the_contrast(packed, monkeypatch):
    """As released: task and flow once per frame, contrast once per sample."""
    monkeypatch.setattr(packed, 'recipe', FULL)
    state, batch = start(FULL), packed.batch(np.array([0, 5]), np.random.default_rng(0), None)
    for module in state.modules.values():
        module.eval()
    alone = []
    for rows in ([0, 1], [2, 3]):
        truth = type(batch.targets)(*(getattr(batch.targets, name)[rows] for name in ('labels', 'masks', 'boxes')))
        frame = replace(batch, **{n: getattr(batch, n)[rows] for n in ('image', 'voxel', 'unaugmented', 'previous')},
                        targets=truth)
        alone.append(losses(state.network, frame, FULL))
    mean, summed = (losses(state.network, batch, replace(FULL, sum_frames=s), state.alignment) for s in (False, True))
    for name in ('class', 'dice', 'focal', 'box', 'flow'):
        assert summed[name].item() == pytest.approx(sum(term[name].item() for term in alone), rel=1e-4), name
    assert torch.equal(summed['contrast'], mean['contrast'])


def test_pairs_need_clips_of_three_frames(tmp_path):
    clip = square_clip(0)
    short = replace(clip, **{name: getattr(clip, name)[:2] for name in ('frames', 'ids', 'stamps_ns', 'moving')})
    pack([short], 1, tmp_path, RECIPE)
    assert len(PackedSet(tmp_path, RECIPE)) == 1
    with pytest.raises(ConfigError, match='needs 3'):
        PackedSet(tmp_path, FULL)


def test_one_cycle_rises_then_falls():
    values = [one_cycle(f, 1.0, 0.1) for f in (0, 0.05, 0.1, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(1 / 25) and values[2] == pytest.approx(1)
    assert values[4] == values[5] == pytest.approx(1e-3)
    assert values[0] < values[1] < values[2] > values[3] > values[4]


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_train import RECIPE
from training.datasets.packed import PackedSet
from training.state import load, start
from training.loop import fit
folder = Path(sys.argv[1])
torch.set_num_threads(1)
state = load(folder, RECIPE) if (folder / 'checkpoint.json').exists() else start(RECIPE)
print('from', state.step, flush=True)
with PackedSet(folder / 'set', RECIPE) as data:
    fit(state, data, RECIPE, folder, steps=10**6, save_minutes=0.002)
"""


def test_killing_a_run_at_any_moment_loses_one_interval_at_most(tmp_path):
    """kill -9 three times, wherever it is: every start goes on from the last checkpoint that was there."""
    pack((square_clip(seed) for seed in range(2)), 2, tmp_path / 'set', RECIPE, 'squares')
    (tmp_path / 'run.py').write_text(SCRIPT)
    here, seen = Path(__file__).resolve(), 0
    for turn in range(3):
        run = subprocess.Popen([sys.executable, str(tmp_path / 'run.py'), str(tmp_path), str(here.parent),
                                str(here.parents[2])], stdout=subprocess.PIPE, text=True)
        assert int(run.stdout.readline().split()[1]) >= seen
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            checkpoint = tmp_path / 'checkpoint.json'
            if checkpoint.exists() and json.loads(checkpoint.read_text())['step'] > seen:
                break
            time.sleep(0.01)
        time.sleep(0.013 * turn)
        seen = json.loads(checkpoint.read_text())['step']
        run.kill()
        run.wait()
        run.stdout.close()
    assert load(tmp_path, RECIPE).step >= seen > 0


def test_smoke_runs_every_stage(capsys):
    recipe = replace(RECIPES['dimos_nano'], net=replace(NET, size=(120, 160)), batch=2)
    assert smoke(recipe) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('smoke')]
    assert len(lines) == 4 and 'resumed to step 12' in lines[1]


PAIR = """
import sys, torch
from dataclasses import replace
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_train import FULL
from training.datasets.packed import PackedSet
from training.distributed import init_distributed, rank_and_world_size
from training.state import start
from training.loop import fit
torch.set_num_threads(1)
init_distributed()
folder, rank = Path(sys.argv[1]), rank_and_world_size()[0]
with PackedSet(folder / 'set', replace(FULL, seed=FULL.seed + rank)) as data:
    state = fit(start(FULL), data, FULL, folder / f'run{rank}', minutes=0.02)
torch.save((state.step, [p.detach() for p in state.network.parameters()]), folder / f'{rank}.pt')
torch.distributed.destroy_process_group()
"""


def test_two_processes_take_the_same_steps(tmp_path):
    """Different samples, one model: equal weights after a run that ends by the clock; the first process alone saves."""
    pack((square_clip(seed) for seed in range(4)), 4, tmp_path / 'set', RECIPE, 'squares')
    (tmp_path / 'run.py').write_text(PAIR)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    here, runs = Path(__file__).resolve(), []
    for rank in range(2):
        (tmp_path / f'run{rank}').mkdir()
        world = {'RANK': str(rank), 'WORLD_SIZE': '2', 'LOCAL_RANK': str(rank), 'MASTER_ADDR': '127.0.0.1',
                 'MASTER_PORT': str(port)}
        runs.append(subprocess.Popen(
            [sys.executable, str(tmp_path / 'run.py'), str(tmp_path), str(here.parent), str(here.parents[2])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **world}))
    for run in runs:
        errors = run.communicate(timeout=300)[1]
        assert run.returncode == 0, errors[-2000:]
    (steps, first), (others, second) = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(2))
    assert steps == others > 0 and all(map(torch.equal, first, second))
    assert (tmp_path / 'run0' / 'checkpoint.json').exists() and not list((tmp_path / 'run1').iterdir())
