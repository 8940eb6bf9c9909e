"""Export: the ONNX file computes what the network computes, and its card says what it is.

And evaluation runs on it.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from mos_perception.datatypes import SyncedInput
from mos_perception.engine.card import load_card
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import ConfigError, EngineError
from mos_perception.formats import davis
from mos_perception.models.dimos.model import DimosModel
from mos_perception.stages import StageTimes
from training.datasets.arrays import window_voxel
from training.datasets.batches import normalised
from training.datasets.sequences import sequence_of
from training.evaluate import evaluate
from training.evaluate import main as evaluate_command
from training.export import export
from training.nets.dimos_config import DimosConfig
from training.onnx_files import OUTPUTS
from training.recipes import Recipe
from training.scenes import render_clip
from training.scenes.presets import find_preset
from training.state import save, start

NET = DimosConfig(size=(120, 160), stem=4, channels=(4, 8, 8), blocks=(1, 1, 1), hidden=8,
                  groups=4, queries=5, width=16, attention_heads=2, feed_forward=16, layers=2)
RECIPE = Recipe('tiny', net=NET)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The state of an untrained run and the path of its ONNX file."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('run')
    state = start(RECIPE)
    save(state, RECIPE, folder, {'data': 'none', 'command': 'test'})
    path = folder / 'tiny.onnx'
    assert max(export(folder, RECIPE, path).values()) <= 1e-4
    return state, path


def test_onnx_file_is_static_single_and_named_as_the_contract_says(exported):
    _, path = exported
    graph = onnx.load(path, load_external_data=False).graph
    shapes = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
              for value in (*graph.input, *graph.output)}
    assert shapes == {
        'image': (1, 3, 120, 160),
        'voxel': (1, 10, 120, 160),
        'class_logits': (1, 5, 3),
        'mask_logits': (1, 5, 30, 40),
        'boxes': (1, 5, 4),
        'embeddings': (1, 5, 16),
    }
    assert not any(value.data_location == onnx.TensorProto.EXTERNAL for value in graph.initializer)
    assert not list(path.parent.glob('*.data')) and not list(path.parent.glob('*.part*'))
    assert b'.py' not in path.read_bytes(), 'no stack traces of the exporting machine'


def test_onnx_runtime_gives_what_torch_gives_on_a_clip_and_without_a_modality(exported):
    state, path = exported
    engine, network = OrtEngine(path, 1), state.network.eval()
    clip = render_clip('easy', 3, 'val')
    image = normalised(clip.frames[2:3]).contiguous()
    voxel = torch.from_numpy(window_voxel(clip, 2, RECIPE.voxel, RECIPE.window_ns, NET.size))[None]
    no_image, no_events = torch.zeros_like(image), torch.zeros_like(voxel)
    for inputs in ((image, voxel), (no_image, voxel), (image, no_events)):
        found = engine.run({'image': inputs[0].numpy(), 'voxel': inputs[1].numpy()})
        with torch.no_grad():
            for name, value in zip(OUTPUTS, network.infer(*inputs)):
                largest = float(value.abs().max())
                assert np.abs(found[name] - value.numpy()).max() <= 1e-4 * largest, name


def test_training_and_runtime_prepare_the_same_tensors(exported):
    _, path = exported
    model = DimosModel(OrtEngine(path, 1), load_card(path))
    clip = render_clip('easy', 4, 'val')
    inputs = model.inputs(SyncedInput(0, '', clip.frame(3), clip.window(3, RECIPE.window_ns),
                                      clip.size), StageTimes())
    np.testing.assert_allclose(inputs['image'], normalised(clip.frames[3:4]).numpy(), atol=2e-6)
    voxel = window_voxel(clip, 3, RECIPE.voxel, RECIPE.window_ns, NET.size)
    np.testing.assert_array_equal(inputs['voxel'][0], voxel)


def test_card_is_accepted_by_the_runtime(exported):
    _, path = exported
    card = load_card(path)
    assert card.id == 'tiny' and card.window.side == 'before' and card.postprocess.top_k == 5
    assert card.training['data'] == 'none' and card.training['macs'] > 0


def test_a_difference_beyond_the_tolerance_is_refused(exported, tmp_path):
    _, path = exported
    with pytest.raises(EngineError, match='do not ship'):
        export(path.parent, RECIPE, tmp_path / 'again.onnx', tolerance=-1.0)


def test_export_of_another_recipe_is_refused(exported, tmp_path):
    _, path = exported
    with pytest.raises(ConfigError, match='another recipe'):
        export(path.parent, replace(RECIPE, batch=1), tmp_path / 'other.onnx')


def test_evaluation_scores_model_and_baselines_on_the_same_clips(exported):
    _, path = exported
    model = DimosModel(OrtEngine(path, 1), load_card(path))
    scores = evaluate(model, [render_clip(find_preset('easy', duration_s=0.1), 1, 'test')], 12)
    assert list(scores) == [
        'frames + events',
        'frames only',
        'events only',
        'baseline: homography',
        'baseline: mog2',
        'baseline: events',
    ]
    assert all(0 <= row['mIoU_ins'] <= 1 and row['ms_per_frame'] > 0 for row in scores.values())


def test_scores_go_into_the_card_and_onto_the_screen(exported, tmp_path, capsys, monkeypatch):
    for file in (exported[1], exported[1].with_suffix('.json')):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr('training.evaluate.render_clip', lambda preset, seed, split: render_clip(
        find_preset(preset, duration_s=0.1), seed, split))
    path = tmp_path / 'tiny.onnx'
    assert evaluate_command(['--model', str(path), '--preset', 'easy', '--clips', '1',
                             '--update-card']) == 0
    printed = capsys.readouterr().out
    scores = load_card(path).scores['easy/test']['scores']
    assert 'frames + events' in printed and f"{scores['frames only']['mIoU01']:.3f}" in printed


def test_half_precision_keeps_inputs_outputs_and_nearly_the_answer(exported, tmp_path):
    _, path = exported
    differences = export(path.parent, RECIPE, tmp_path / 'tiny.onnx', fp16=True)
    half, full = OrtEngine(tmp_path / 'tiny_fp16.onnx', 1), OrtEngine(tmp_path / 'tiny.onnx', 1)
    assert half.inputs == full.inputs and half.outputs == full.outputs
    weights = onnx.load(tmp_path / 'tiny_fp16.onnx').graph.initializer
    assert sum(w.data_type == onnx.TensorProto.FLOAT16 for w in weights) > len(weights) / 2
    assert 1e-6 < max(differences.values()) < 0.05
    assert load_card(tmp_path / 'tiny_fp16.onnx').training['precision'] == 'fp16'
    sizes = [(tmp_path / f'{name}.onnx').stat().st_size for name in ('tiny_fp16', 'tiny')]
    assert sizes[0] < 0.75 * sizes[1]


def test_evaluation_of_a_data_set_on_disk(exported, tmp_path, capsys):
    """A DAVIS folder without events: J and F of all its sequences, and of the baselines."""
    _, path = exported
    for seed in range(2):
        clip = render_clip(find_preset('easy', duration_s=0.1), seed, 'test')
        sequence = sequence_of(clip, f's{seed}')
        davis.write(replace(sequence, events=None), tmp_path / 'set')
    data = ['--data', str(tmp_path / 'set'), '--frames-only', '--json']
    assert evaluate_command(['--model', str(path), *data]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {'J_mean', 'F_mean', 'sequences'} <= set(result)
    assert set(result['sequences']) == {'s0', 's1'} and 0 <= result['J_mean'] <= 1
    assert set(result['baselines']) == {'baseline: homography', 'baseline: mog2'}
    assert 'frames only' in result['about']
    assert evaluate_command(['--model', str(path), '--data', str(tmp_path / 'nothing')]) == 1
    assert 'none of the known data set layouts' in capsys.readouterr().err
