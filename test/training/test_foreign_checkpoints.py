"""Checkpoints of others: read without running code, checked key by key, refused with reasons."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from mos_perception.errors import EngineError, UnsafeFileError
from training.checkpoints import keep, read_state, take
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS

SMALL = GmosConfig(width=32, heads=2, feed_forward=16, encoder_depth=1, geometry_width=8,
                   appearance_width=8, grid=4)


@pytest.fixture()
def network():
    torch.manual_seed(0)
    return GmosS(SMALL)


def copy_of(network) -> dict:
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: {'model_state_dict': state, 'epoch': 3},
    lambda state: {'model': state},
    lambda state: {'model_state_dict': {f'module.{key}': value for key, value in state.items()}}])
def test_the_forms_that_are_published_are_read(network, wrap, tmp_path):
    path = tmp_path / 'gmos_s.pth'
    torch.save(wrap(network.state_dict()), path)
    other = GmosS(SMALL)
    take(other, read_state(path), 'file')
    for key, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_half_precision_is_taken_as_float32_and_kept_as_safetensors(network, tmp_path):
    state = {key: value.bfloat16() for key, value in copy_of(network).items()}
    save_file(state, tmp_path / 'half.safetensors')
    take(network, read_state(tmp_path / 'half.safetensors'), 'file')
    keep(network, tmp_path / 'kept.safetensors', {'licence': 'none'})
    kept = load_file(tmp_path / 'kept.safetensors')
    assert kept.keys() == state.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, state[key].float())
               for key, value in kept.items())
    assert [path.name for path in tmp_path.glob('kept*')] == ['kept.safetensors']


class Code:
    """Pickles as a call."""

    def __reduce__(self):
        return print, ('ran',)


def saved(content):
    def write(path):
        torch.save(content, path)
    return write


BROKEN = {
    'absent': (lambda path: None, 'does not exist'),
    'text': (lambda path: path.write_text('<html>not found</html>'), 'damaged or another file'),
    'empty': (lambda path: path.write_bytes(b''), 'damaged or another file'),
    'list': (saved([torch.zeros(1)]), 'holds a list'),
    'nothing': (saved({}), 'must be a state dict'),
    'numbers': (saved({'model': {'epoch': 3}}), 'epoch hold no tensor'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_files_that_are_no_checkpoint_are_refused(name, tmp_path):
    write, words = BROKEN[name]
    write(tmp_path / 'bad.pth')
    with pytest.raises(EngineError, match=words):
        read_state(tmp_path / 'bad.pth')


def test_a_cut_off_file_is_refused(network, tmp_path):
    path = tmp_path / 'cut.pth'
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(EngineError, match='damaged or another file'):
        read_state(path)
    save_file(copy_of(network), tmp_path / 'cut.safetensors')
    cut = (tmp_path / 'cut.safetensors').read_bytes()[:2000]
    (tmp_path / 'cut.safetensors').write_bytes(cut)
    with pytest.raises(EngineError, match='damaged'):
        read_state(tmp_path / 'cut.safetensors')


@pytest.mark.parametrize('write', [
    saved({'model_state_dict': Code()}),
    lambda path: path.write_bytes(pickle.dumps({'model': Code()}, 2))])
def test_code_in_a_pickle_is_refused_and_not_run(write, tmp_path, capsys):
    write(tmp_path / 'evil.pth')
    with pytest.raises(UnsafeFileError, match='nothing of it was run'):
        read_state(tmp_path / 'evil.pth')
    assert 'ran' not in capsys.readouterr().out.split()


def test_every_wrong_key_is_named_and_nothing_is_loaded(network):
    state, before = copy_of(network), copy_of(network)
    del state['fg_out.bias'], state['iou_head.layers.0.weight']
    state |= {'obj_token': torch.zeros(1), 'head.bias': torch.zeros(1)}
    state['fg_out.weight'] = torch.zeros(1, 4, 3, 3)
    state['conf_head.layers.0.bias'] = torch.full((32,), float('nan'))
    state['conf_head.layers.1.bias'] = torch.zeros(32, dtype=torch.int64)
    with pytest.raises(EngineError) as caught:
        take(network, state, 'x.pth')
    text = str(caught.value)
    for words in ('missing fg_out.bias, iou_head.layers.0.weight', 'extra head.bias, obj_token',
                  'fg_out.weight is (1, 4, 3, 3), must be (1, 4, 1, 1)',
                  'conf_head.layers.0.bias has values that are not finite',
                  'conf_head.layers.1.bias is torch.int64', 'x.pth does not fit GmosS'):
        assert words in text
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
