"""Import: SAM 2.1 gives the official numbers, and checkpoints in the official form become graphs.

`goldens/sam2.json` has the official code's keys and numbers: see `training.parity_sam2`.
"""

import dataclasses
import json
import logging
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mos_perception.datatypes import Events
from mos_perception.engine.card import check, load_card
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import ConfigError, EngineError
from mos_perception.propagation.sam2_memory import Sam2Propagator
from training.datasets.gmos_features import GmosSet, cache, open_encoders
from training.loop import fit
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.pi3 import MEAN, STD, Pi3Config, Pi3Trunk
from training.parity import TOLERANCE, digest, fill, summary
from training.recipes_gmos import GmosRecipe
from training.scenes.clip import Clip
from training.state import start

pytest.importorskip(
    'transformers', reason='SAM 2.1 needs transformers: pip install -r requirements/gmos.txt')

from training import import_gmos, import_sam2, parity_memory, parity_sam2  # noqa: E402
from training.nets.sam2 import make_sam2, sam2_config  # noqa: E402

GOLDEN = json.loads((Path(__file__).parent / 'goldens' / 'sam2.json').read_text())
GMOS = GmosConfig(width=parity_sam2.WIDTH, heads=4, feed_forward=32, encoder_depth=1,
                  decoder_depth=2, queries=4, geometry_width=32,
                  appearance_width=parity_sam2.WIDTH, grid=16)
PI3 = Pi3Config(size=(28, 42), width=32, heads=2, encoder_depth=1, decoder_depth=2,
                trained_grid=4)
MEMORY = {'memory_encoder', 'mask_prompt', 'mask_from_memory'}
EVERY = {'tokens', 'geometry', 'appearance', 'head'}


@pytest.mark.parametrize('size, millions', [('tiny', 38.96), ('small', 46.06),
                                            ('base_plus', 80.85), ('large', 224.45)])
def test_sizes_of_sam2_are_the_published_ones(size, millions):
    with torch.device('meta'):
        network = make_sam2(sam2_config(size))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert digest(network.state_dict()) == GOLDEN['sizes'][size]


def test_unknown_size_is_refused():
    with pytest.raises(ConfigError, match='tiny, small, base_plus, large'):
        sam2_config('huge')


def test_a_tracked_object_has_the_official_codes_numbers():
    found = parity_sam2.ours(parity_sam2.official_state(GOLDEN['keys']))
    assert found.keys() == GOLDEN['outputs'].keys()
    for key, value in found.items():
        got, wanted = summary(value), GOLDEN['outputs'][key]
        torch.testing.assert_close(torch.tensor(got['samples']), torch.tensor(wanted['samples']),
                                   atol=TOLERANCE, rtol=0, msg=lambda text, key=key: key + text)


@pytest.fixture(scope='module')
def official_files(tmp_path_factory):
    """Checkpoints in the forms that are published, with random weights."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('official')
    with torch.no_grad():
        for name, network in (('gmos', GmosProposer(GMOS)), ('gmos_s', GmosS(GMOS))):
            state = fill(network, 0)
            torch.save({'model_state_dict': {f'module.{k}': v for k, v in state.items()}},
                       folder / f'{name}.pth')
        state = fill(Pi3Trunk(PI3), 0)
    torch.save(state | {'point_head.proj.weight': torch.zeros(3)}, folder / 'pi3.pth')
    torch.save({'model': parity_sam2.official_state(GOLDEN['keys'])}, folder / 'sam2.pt')
    return folder


def networks():
    return import_gmos.Networks(GMOS, PI3, parity_sam2.tiny_config())


def files_of(folder: Path, name: str) -> dict[str, Path]:
    return {'gmos': folder / f'{name}.pth', 'pi3': folder / 'pi3.pth', 'sam2': folder / 'sam2.pt'}


@pytest.mark.parametrize('name, parts', [('gmos', EVERY | MEMORY), ('gmos_s', EVERY)])
def test_official_files_become_graphs_with_cards(official_files, tmp_path, name, parts, caplog):
    with caplog.at_level(logging.WARNING):
        written = import_gmos.import_gmos(files_of(official_files, name), networks(), tmp_path)
    assert 'no commercial use' in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    assert {path.stem.removeprefix(f'{name}_') for path in written
            if path.suffix == '.onnx'} == parts
    engines = {}
    for part in parts:
        path = tmp_path / f'{name}_{part}.onnx'
        card = load_card(path)
        engines[part] = OrtEngine(path, 1)
        check(card, engines[part])
        assert max(card.training['onnx_difference'].values()) <= 1e-4
        assert ('CC BY-NC' in card.licence) == (part in ('tokens', 'geometry'))
    image = np.random.default_rng(0).standard_normal((1, 3, *PI3.size), np.float32)
    tokens = engines['tokens'].run({'image': image})['tokens']
    geometry = engines['geometry'].run({'tokens': np.stack([tokens] * 5, 1)})['geometry']
    square = np.random.default_rng(1).standard_normal((1, 3, 256, 256), np.float32)
    levels = engines['appearance'].run({'image': square})
    found = engines['head'].run({'geometry': geometry} | levels)
    whole = import_gmos.load_whole(files_of(official_files, name), networks())
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (MEAN, STD))
    frame = torch.from_numpy(image) * std + mean
    with torch.no_grad():
        wanted = whole(torch.stack([frame] * 5, 1), torch.from_numpy(square))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value.numpy(), atol=1e-4, rtol=1e-4, err_msg=key)


def test_from_the_encoders_files_over_a_run_to_graphs(official_files, tmp_path, monkeypatch):
    """What who has the weights does: features, training, import of the run."""
    monkeypatch.setattr('training.nets.sam2.sam2_config', lambda size: parity_sam2.tiny_config())
    run, net = tmp_path / 'run', dataclasses.replace(GMOS, queries=0)
    recipe = GmosRecipe('gmos_s', net=net, geometry=PI3, batch=2)
    files = files_of(official_files, 'gmos_s') | {'gmos': run}
    encoders, about = open_encoders(recipe, files['pi3'], files['sam2'], 'large', 'cpu')
    assert about.startswith('pi3.pth (sha256 ') and about.endswith('SAM 2.1 large')
    ids = np.zeros((8, 56, 84), np.uint16)
    ids[:, 10:40, 20:60] = 1
    video = Clip(np.random.default_rng(0).integers(0, 256, (8, 56, 84, 3), np.uint8),
                 np.arange(8) * 40_000_000, Events.empty(), ids,
                 np.tile([False, True], (8, 1)), 0, 'noise')
    assert cache([('clip', video)], 2, recipe, encoders, tmp_path / 'set', about) == 2
    run.mkdir()
    trained = fit(start(recipe), GmosSet(tmp_path / 'set', recipe), recipe, run, steps=2).network
    import_gmos.import_gmos(files, networks(), tmp_path / 'models')
    card = load_card(tmp_path / 'models' / 'gmos_s_head.onnx')
    assert card.licence == import_gmos.OWN_LICENCE
    assert max(card.training['onnx_difference'].values()) <= 1e-4
    kept = load_file(tmp_path / 'models' / 'gmos_s.safetensors')
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in kept.items())


def test_sam2_alone_carries_masks_over_its_graphs(official_files, tmp_path):
    """From the official file to graphs on ONNX Runtime that have the official predictor's numbers.
    """
    written = import_sam2.import_sam2(official_files / 'sam2.pt', parity_sam2.tiny_config(),
                                      tmp_path)
    assert {path.stem for path in written if path.suffix == '.onnx'} == {
        f'sam2_{part}' for part in MEMORY | {'appearance'}}
    cards = {part: load_card(tmp_path / f'sam2_{part}.onnx') for part in MEMORY | {'appearance'}}
    assert all(card.licence == import_sam2.LICENCE for card in cards.values())
    engines = {part: OrtEngine(tmp_path / f'sam2_{part}.onnx', 1) for part in cards}
    levels = [engines['appearance'].run({'image': image[None].numpy()})
              for image in parity_memory.images()[:4]]
    golden = json.loads((Path(__file__).parent / 'goldens' / 'memory.json').read_text())
    propagator = Sam2Propagator(engines, levels.__getitem__, parity_memory.SIZE)
    for name, carried in islice(parity_memory.film(propagator), 4):
        found, wanted = parity_memory.samples(carried), golden[name]
        for key in ('iou', 'logits'):
            np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=2 * TOLERANCE,
                                       err_msg=name)


def test_a_wrong_sam2_is_refused_in_one_line(official_files, tmp_path, capsys):
    code = import_sam2.main(['--checkpoint', str(official_files / 'gmos.pth'), '--size', 'tiny',
                             '--out', str(tmp_path / 'out')])
    told = capsys.readouterr().err
    assert code == 1 and 'does not fit Sam2VideoModel' in told and told.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_wrong_file_leaves_nothing_behind(official_files, tmp_path):
    files = files_of(official_files, 'gmos') | {'pi3': official_files / 'gmos_s.pth'}
    out = tmp_path / 'out'
    with pytest.raises(EngineError, match='missing decoder.0.attn.k_norm.bias'):
        import_gmos.import_gmos(files, networks(), out)
    assert not out.exists()


def test_command_says_what_is_wrong_in_one_line(official_files, tmp_path, capsys):
    code = import_gmos.main(['--checkpoint', str(official_files / 'gmos.pth'), '--pi3', 'none',
                             '--sam2', 'none', '--size', 'tiny', '--out', str(tmp_path / 'out')])
    assert code == 1
    assert 'does not fit GmosProposer' in capsys.readouterr().err
