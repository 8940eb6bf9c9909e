"""Runs of the referring tracker and of the refiner as files: what was trained is what runs."""

from functools import partial

import numpy as np
import pytest
import torch

from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError
from mos_perception.tracking.refiner import refiner_tensors
from mos_perception.tracking.tracker_card import (
    check_tensors,
    load_refiner_card,
    load_tracker_card,
    tensors,
)
from training import export_refiner, export_tracker, train_refiner, train_tracker
from training.nets.dvis import DvisConfig
from training.nets.instance_tracker import InstanceTracker
from training.tracker_batches import Curriculum

TINY = DvisConfig(width=8, heads=2, feed_forward=12, blocks=1, classes=1, mask_width=8)


def exported(tmp_path, monkeypatch, kind, made_for, **more):
    """(path, network) of a run of a tiny network, 7 steps old."""
    export, train = {'tracker': (export_tracker, train_tracker),
                     'refiner': (export_refiner, train_refiner)}[kind]
    for module in (export, train):
        if kind == 'refiner':
            monkeypatch.setattr(module, 'NANO', TINY)
        else:
            monkeypatch.setattr(module, 'InstanceTracker', partial(InstanceTracker, config=TINY))
    run = train.Run(tmp_path / 'run', made_for, Curriculum(), 1e-3, **more)
    run.steps, run.seconds = 7, 12.0
    run.save()
    path = tmp_path / 'out' / 'mine.onnx'
    export.main(['--run', str(tmp_path / 'run'), '--out', str(path)])
    return path, run.network.eval()


def check_card(card, kind, network):
    assert (card.id, card.file, card.width, card.scores) == ('mine', 'mine.onnx', 8, {})
    about = card.training
    assert about['command'] == f'python -m training.train_{kind}'
    assert (about['steps'], about['seconds'], about['config']['blocks']) == ('7', '12', 1)
    assert about['parameters'] == sum(value.numel() for value in network.parameters())
    assert about['onnx_difference'] <= 1e-5 and about['augmentation'] == (
        f'{vars(Curriculum())}')


def check_answers(path, module, export, inputs):
    """Of a size that the export itself does not compare."""
    found = OrtEngine(path, 1).run({name: value.numpy() for name, value
                                    in zip(export.INPUTS, inputs, strict=True)})
    with torch.no_grad():
        expected = module(*inputs)
    for name, value in zip(export.OUTPUTS, expected, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=1e-5)


def test_a_trackers_file_is_the_run_and_its_card_says_so(tmp_path, monkeypatch):
    path, network = exported(tmp_path, monkeypatch, 'tracker', 4)
    card = load_tracker_card(path)
    assert card.embeddings == 4
    check_card(card, 'tracker', network)
    check_tensors(card, tensors(4, 8), OrtEngine(path, 1))
    check_answers(path, export_tracker.Step(network), export_tracker,
                  export_tracker.example(network, 2, 4))


def test_a_refiners_file_is_the_run_and_its_card_says_so(tmp_path, monkeypatch):
    path, network = exported(tmp_path, monkeypatch, 'refiner', 'a' * 64)
    card = load_refiner_card(path)
    assert card.tracker == 'a' * 64
    check_card(card, 'refiner', network)
    check_tensors(card, refiner_tensors(8), OrtEngine(path, 1))
    check_answers(path, export_refiner.Answer(network), export_refiner,
                  export_refiner.example(network, 3, 2, 4))


def test_a_refiner_without_a_part_stays_so(tmp_path, monkeypatch):
    path, network = exported(tmp_path, monkeypatch, 'refiner', 'a' * 64, without='long')
    assert load_refiner_card(path).training['config']['without'] == 'long'
    check_answers(path, export_refiner.Answer(network), export_refiner,
                  export_refiner.example(network, 3, 2, 4))


@pytest.mark.parametrize('export', [export_tracker, export_refiner])
def test_a_folder_without_the_run_is_refused(tmp_path, export):
    with pytest.raises(EngineError, match='er.safetensors'):
        export.main(['--run', str(tmp_path), '--out', str(tmp_path / 'a.onnx')])
    assert not list(tmp_path.iterdir())
