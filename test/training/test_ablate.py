"""The ladder of parts: each rung adds what it says, budgets are equal, a stopped run goes on."""

import json
from dataclasses import replace

import pytest
import torch

from training import ablate
from training.ablate import ladder
from training.datasets.packed import pack
from training.nets.dimos_config import DimosConfig
from training.recipes import RECIPES
from training.scenes import render_clip
from training.scenes.presets import find_preset

NET = DimosConfig(size=(32, 48), stem=4, channels=(4, 8, 8), blocks=(1, 1, 1), hidden=8, groups=4, queries=4, width=16,
                  attention_heads=2, feed_forward=16, layers=1)


def test_every_rung_adds_one_part_at_an_equal_number_of_images():
    rungs = ladder(RECIPES['dimos_nano_full'])
    parts = {name: {key for key, on in {
        'flow': rung.weights.flow, 'box': rung.weights.box, 'apart': rung.net.disentangled,
        'contrast': rung.alignment.contrast, 'translation': rung.alignment.translation,
        'adversarial': rung.alignment.adversarial}.items() if on} for name, rung in rungs.items()}
    assert parts.pop('+ box, in pairs') == {'flow', 'box'} and rungs['+ box, in pairs'].frames == 2
    assert parts.pop('EvInsMOS') == {'flow', 'contrast'}
    assert parts.pop('projected fusion') == parts['+ adversarial'] and rungs['projected fusion'].net.fusion_width == 16
    assert list(parts.values()) == [set(), {'flow'}, {'flow', 'box'}, {'flow', 'box', 'apart', 'contrast'},
                                    {'flow', 'box', 'apart', 'contrast', 'translation'},
                                    {'flow', 'box', 'apart', 'contrast', 'translation', 'adversarial'}]
    assert {rung.batch * rung.frames for rung in rungs.values()} == {8}
    assert len({rung.name for rung in rungs.values()}) == len(ablate.PAPER) + 2 == 9


def test_a_ladder_is_trained_scored_and_tabled(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    recipe = replace(RECIPES['dimos_nano_full'], net=NET, batch=2, min_pixels=4)
    monkeypatch.setitem(RECIPES, 'dimos_nano_full', recipe)
    small = find_preset('easy', size=(32, 48), duration_s=0.1)
    pack((render_clip(small, seed) for seed in range(2)), 2, tmp_path / 'set', recipe)
    monkeypatch.setattr(ablate, 'ladder', lambda recipe: dict(list(ladder(recipe).items())[:7:6]))
    arguments = ['--data', str(tmp_path / 'set'), '--out', str(tmp_path / 'out'), '--steps', '2', '--seeds', '1',
                 '--clips', '1', '--presets', 'easy', 'camera-easy']
    assert ablate.main(arguments) == 0
    table = (tmp_path / 'out' / 'ablation.md').read_text()
    assert '| baseline |' in table and '| + adversarial |' in table
    results = json.loads((tmp_path / 'out' / 'ablation.json').read_text())['results']
    assert list(results) == ['easy', 'camera-easy'] and list(results['easy']) == ['baseline', '+ adversarial']
    changed = {**results['easy']['baseline'][0], 'mIoU_ins': 0.5}
    (tmp_path / 'out' / 'baseline_0' / 'scores_easy_1.json').write_text(json.dumps(changed))
    assert ablate.main(arguments) == 0  # nothing is trained again
    assert '| baseline | 50.0 +- 0.0 |' in (tmp_path / 'out' / 'ablation.md').read_text()
    assert ablate.main([*arguments, '--steps', '4']) == 1  # not the run that the table would claim
    assert 'other steps' in capsys.readouterr().err
    arguments[1], arguments[3] = str(tmp_path / 'none'), str(tmp_path / 'new')
    assert ablate.main(arguments) == 1
    assert 'no packed set' in capsys.readouterr().err


def test_mean_and_deviation():
    runs = [{'mIoU_ins': value, 'mIoU_strict': 0.1, 'mIoU01': None, 'AP_released': 0.0} for value in (0.2, 0.4)]
    table = ablate.as_markdown({'mid': {'baseline': runs}}, 'x')
    assert table.splitlines()[-1].startswith('| baseline | 30.0 +- 10.0 | 10.0')
    assert pytest.approx(sum(ablate.PAPER.values()) - ablate.PAPER['EvInsMOS'], abs=0.01) == 394.06
