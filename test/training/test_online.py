"""Scenes rendered while training: settled by (seed, step) alone, equal to packed clips, no process
left behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mos_perception.errors import ConfigError
from training.datasets.online import OnlineSet, Schedule, parse_presets
from training.datasets.packed import PackedSet, pack
from training.datasets.workers import RenderError, Workers
from training.loop import fit
from training.nets.dimos_config import DimosConfig
from training.recipes import Recipe
from training.scenes import render_clip
from training.scenes.moving_shapes import Preset2D
from training.scenes.presets import find_preset
from training.state import load, start
from training.train import main

torch.set_num_threads(1)
NET = DimosConfig(size=(32, 48), stem=8, channels=(8, 16, 16), blocks=(1, 1, 1), hidden=16,
                  groups=4, queries=4, width=32, attention_heads=2, feed_forward=32, layers=2)
RECIPE = Recipe('tiny', net=NET, batch=4, mask_stride=2)
TINY = find_preset('easy', name='tiny', size=(32, 48), duration_s=4 / 30)
FLAT = Preset2D('flat', size=(32, 48), frames=4, object_px=(8, 16))
MIX = {TINY: 2.0, FLAT: 1.0}
CLIP_BYTES = 4 * (4 * 32 * 48 + 64) + 3 * 10 * 32 * 48


def tensors(batch):
    return [batch.image, batch.voxel, batch.unaugmented, batch.previous, batch.targets.labels,
            batch.targets.masks, batch.targets.boxes]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two)))


def test_any_number_of_workers_gives_the_same_batches():
    drawn = {}
    for workers in (0, 1, 2):
        with OnlineSet(MIX, RECIPE, workers=workers, cache_gb=9 * CLIP_BYTES / 1e9,
                       reuse=3) as data:
            assert data.schedule.block == 3
            drawn[workers] = [data.draw(step) for step in range(6)]
    for step, wanted in enumerate(drawn[0]):
        assert same(drawn[1][step], wanted) and same(drawn[2][step], wanted)
    assert not same(drawn[0][0], drawn[0][1])
    assert not multiprocessing.active_children()
    with OnlineSet(MIX, RECIPE, workers=0, cache_gb=9 * CLIP_BYTES / 1e9, reuse=3) as data:
        assert (
            same(data.draw(4), drawn[0][4])
            and same(data.draw(5), drawn[0][5])
            and same(data.draw(1), drawn[0][1])
        )
    with OnlineSet(MIX, RECIPE, RECIPE.seed + 1, workers=0) as data:
        assert not same(data.draw(0), drawn[0][0])


def test_a_sample_equals_that_of_the_packed_clip(tmp_path):
    with OnlineSet(MIX, RECIPE, workers=0) as data:
        scenes = [data.scene(number) for number in range(5)]
        clips = [render_clip(preset, seed) for preset, seed in scenes]
        assert {preset.name for preset, _ in scenes} == {'tiny', 'flat'}
        pack(clips, 5, tmp_path, RECIPE)
        packed = PackedSet(tmp_path, RECIPE)
        for augment in (None, RECIPE.augment):
            wanted = packed.batch(np.array([1 * 3 + 0, 4 * 3 + 2, 0]), np.random.default_rng(7),
                                  augment)
            assert same(data.batch([(1, 1), (4, 3), (0, 1)], np.random.default_rng(7), augment),
                        wanted)


@pytest.mark.parametrize('reuse, block', [(1, 4), (3, 5), (4, 1), (8, 16)])
def test_every_clip_is_drawn_so_often_within_the_window(reuse, block):
    schedule, window = Schedule(3, reuse, block), reuse * block
    samples = [schedule.at(s) for s in range(6 * reuse * window)]
    uses = Counter(clip for clip, _ in samples)
    whole = [clip for clip in uses if window <= clip < 4 * window]
    assert len(whole) == 3 * window and all(uses[clip] == reuse for clip in whole)
    for clip in whole:
        at = [s for s, (other, _) in enumerate(samples) if other == clip]
        assert [samples[s][1] for s in at] == list(range(reuse))  # the last stream is its last use
        assert at[-1] - at[0] < reuse * window
    for first in range(reuse * window, 2 * reuse * window):
        held = {clip for clip, _ in samples[first:first + reuse]}
        assert len(held) == reuse  # neighbours in a batch are different clips


def test_memory_holds_the_window_and_frames_differ():
    with OnlineSet(TINY, RECIPE, workers=0, cache_gb=8 * CLIP_BYTES / 1e9, reuse=2,
                   ahead=1) as data:
        seen = Counter()
        for step in range(20):
            data.draw(step)
            assert len(data._clips) <= 8 + RECIPE.batch
            for sample in range(4 * step, 4 * step + 4):
                clip, stream = data.schedule.at(sample)
                if clip in data._clips:
                    seen[clip, data._frame(clip, stream)] += 1
        assert max(seen.values()) == 1
        report = data.report()
        assert report['reuse'] == 2 and report['rendered_per_s'] > 0 and 0 < report['waited'] <= 1


def test_a_workers_error_surfaces_with_its_traceback():
    broken = replace(TINY, name='broken', moving_objects=(5, 2))
    for workers in (0, 1):
        with pytest.raises(RenderError,
                           match=r'(?s)job \d+ failed.*Traceback.*simulate\.py.*low >= high'):
            with OnlineSet(broken, RECIPE, workers=workers) as data:
                data.draw(0)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_reported_and_close_stops_a_busy_one():
    with Workers(2, time.sleep) as workers:
        workers.submit(0, (0.0,))
        assert workers.take(0) is None
        for number in (1, 2):
            workers.submit(number, (600.0,))
        time.sleep(0.2)
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(RenderError, match='exit code -9 while doing job'):
            workers.take(1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 120 and not multiprocessing.active_children()
    closed = Workers(0, time.sleep)
    closed.close()
    with pytest.raises(RenderError, match='make new ones'):
        closed.take(2)


SCRIPT = '''
import signal, time
from training.datasets.workers import Workers
if __name__ == '__main__':
    # a job of a script's background inherits "ignore"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Workers(1, time.sleep) as workers:
        workers.submit(0, (0.0,))
        workers.take(0)
        print(workers.pids[0], flush=True)
        workers.submit(1, (1.0,))
        workers.take(1)
        time.sleep(600)
'''


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_no_orphan_after_ctrl_c_or_a_kill(tmp_path, number):
    (tmp_path / 'owner.py').write_text(SCRIPT)
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    owner = subprocess.Popen([sys.executable, str(tmp_path / 'owner.py')], stdout=subprocess.PIPE,
                             text=True, stderr=subprocess.PIPE, start_new_session=True,
                             env={**os.environ, 'PYTHONPATH': here})
    child = int(owner.stdout.readline())
    if number == signal.SIGINT:
        os.killpg(owner.pid, number)  # as a terminal does: to the whole group
    else:
        owner.kill()
    errors = owner.communicate(timeout=600)[1]
    deadline = time.monotonic() + 240
    while os.path.exists(f'/proc/{child}') and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f'/proc/{child}')
    # the owner's KeyboardInterrupt alone
    assert errors.count('Traceback') == (number == signal.SIGINT)


def test_a_run_resumes_bit_for_bit(tmp_path):
    def run(folder, steps, state):
        folder.mkdir(exist_ok=True)
        with OnlineSet(MIX, RECIPE, workers=0, cache_gb=9 * CLIP_BYTES / 1e9, reuse=3) as data:
            return fit(state, data, RECIPE, folder, steps=steps).network.state_dict()
    # steps=5 sets the pace of the learning rate, so the first half is cut off by a limit of its own
    wanted = run(tmp_path / 'whole', 5, start(RECIPE))

    class Stop(Exception):
        pass

    class Cut(OnlineSet):
        def draw(self, step):
            if step == 3:
                raise Stop
            return super().draw(step)
    half = tmp_path / 'half'
    half.mkdir()
    with pytest.raises(Stop), Cut(MIX, RECIPE, workers=0, cache_gb=9 * CLIP_BYTES / 1e9,
                                  reuse=3) as data:
        fit(start(RECIPE), data, RECIPE, half, steps=5, save_minutes=0)
    state = load(half, RECIPE)
    assert state.step == 3
    resumed = run(half, 5, state)
    assert all(torch.equal(value, wanted[name]) for name, value in resumed.items())
    line = json.loads((half / 'metrics.jsonl').read_text().splitlines()[-1])
    assert line['step'] == 5 and line['reuse'] == 3 and line['rendered_per_s'] > 0
    assert 'online tiny=2, flat=1' in json.loads((half / 'checkpoint.json').read_text())['data']


def test_command_line(tmp_path, capsys):
    assert main(['--online', 'easy,nope', '--out', str(tmp_path), '--steps', '1']) == 1
    assert 'unknown preset "nope"' in capsys.readouterr().err
    for wrong in ([], ['--online', 'easy', '--data', str(tmp_path)]):
        with pytest.raises(SystemExit):
            main([*wrong, '--out', str(tmp_path), '--steps', '1'])


def test_bad_arguments_say_what_to_do():
    assert {p.name: w for p, w in parse_presets('train, mid=2,mosis2d=0.5').items()} == {
        'train': 1.0, 'mid': 2.0, 'mosis2d': 0.5}
    with pytest.raises(ConfigError, match='no number'):
        parse_presets('train=much')
    with pytest.raises(ConfigError, match='above 0'):
        OnlineSet('train=0', RECIPE)
    with pytest.raises(ConfigError, match='give --cache-gb'):
        OnlineSet(TINY, RECIPE, reuse=4)
    with pytest.raises(ConfigError, match='unknown split'):
        OnlineSet(TINY, RECIPE, split='dev')
    with pytest.raises(ConfigError, match='1 frame'):
        OnlineSet(replace(TINY, duration_s=1 / 30), RECIPE)
