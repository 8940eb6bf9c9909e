"""The trust boundary of docs/security.md: what each trap meets, and that nothing of it is run,
written or allocated.
"""

import dataclasses
import json
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.tiny_model import make_tiny_model
from mos_perception.engine.card import load_card, save_card, sha256_of
from mos_perception.errors import BagError, DatasetError, EngineError, FrameError, UnsafeFileError
from mos_perception.formats.files import below, read_npz
from mos_perception.formats.image_files import read_rgb
from mos_perception.formats.ytvis import read as read_ytvis
from mos_perception.image_encodings import compressed_to_rgb, to_rgb
from mos_perception.recording import messages, storage
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.results import read_result

ROOT = Path(__file__).resolve().parents[2]
SIDE = 16384  # px, the largest


@pytest.fixture
def external(tmp_path):
    """`external(location, in_card)`: a model whose bias lies in another file."""
    onnx = pytest.importorskip('onnx', reason='onnx makes the test model')

    def make(location, in_card=False):
        path = make_tiny_model(tmp_path / 'net.onnx')
        card, graph = load_card(path), onnx.load(path)
        bias = next(item for item in graph.graph.initializer if item.name == 'bias')
        (tmp_path / 'net.onnx.data').write_bytes(bias.raw_data)
        onnx.external_data_helper.set_external_data(bias, location, 0, len(bias.raw_data))
        bias.ClearField('raw_data')
        path.write_bytes(graph.SerializeToString())
        digest = sha256_of(tmp_path / 'net.onnx.data') if in_card else None
        save_card(dataclasses.replace(card, sha256=sha256_of(path), data_sha256=digest), path)
        return path
    return make


@pytest.mark.parametrize('location', [
    '../secret', '/etc/hostname', 'other.data', 'net.onnx.data', './net.onnx.data', 'x' * 300])
def test_weights_in_other_files_are_refused(external, location):
    with pytest.raises(EngineError, match=r'net\.onnx wants weights from .*only .*net\.onnx\.data'):
        load_card(external(location))


def test_weights_beside_the_graph_are_taken_where_the_card_has_their_digest(external):
    from mos_perception.engine.ort import OrtEngine
    path = external('net.onnx.data', in_card=True)
    assert load_card(path).data_sha256 and OrtEngine(path, 1).outputs
    (path.parent / 'net.onnx.data').write_bytes(bytes(16))
    with pytest.raises(EngineError, match='net.onnx.data has sha256'):
        load_card(path)


def test_shipped_models_keep_their_weights_to_themselves():
    assert all(load_card(path) for path in (ROOT / 'models').glob('*.onnx'))


@pytest.mark.parametrize('height, width', [(2**31, 2**31), (SIDE + 1, 1), (0, 5)])
def test_images_that_claim_sizes_are_refused_before_anything_is_allocated(height, width):
    with pytest.raises(FrameError, match='each side must be within'):
        to_rgb('rgb8', height, width, 3 * width, False, np.zeros(30, np.uint8))


def png_of(width, height):
    """A whole PNG of 2 x 2 px whose header says another size, with a right check sum."""
    data = bytearray(cv2.imencode('.png', np.zeros((2, 2, 3), np.uint8))[1].tobytes())
    data[16:24] = struct.pack('>II', width, height)
    data[29:33] = struct.pack('>I', zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_pictures_that_claim_sizes_are_refused(tmp_path):
    with pytest.raises(FrameError, match='each side must be within'):
        compressed_to_rgb('png', np.frombuffer(png_of(2**30, 2**30), np.uint8))
    (tmp_path / 'x.png').write_bytes(png_of(2**30, 2**30))
    with pytest.raises(DatasetError, match='damaged PNG header'):
        read_rgb(tmp_path / 'x.png')


def instances(count, size):
    """CDR of a result of so many objects without masks."""
    row = messages.make(
        'mos_msgs/msg/Instance', track_id=1, label='', score=1.0, motion_score=1.0, is_moving=True,
        box=np.zeros(4, np.float32), mask_encoding='', mask_size=np.zeros(2, np.uint32),
        mask=np.zeros(0, np.uint8), velocity=np.zeros(2, np.float32))
    return messages.serialize(messages.INSTANCES, messages.make(
        messages.INSTANCES, header=messages.header(1, ''), height=size, width=size, modality=0,
        degraded=False, degraded_reason='', model_id='', epoch=0, event_count=0, window_digest='',
        stages=[], instances=[row] * count))


def test_results_of_many_huge_masks_are_refused():
    assert read_result(instances(2, 64)).instances.masks.shape == (2, 64, 64)
    with pytest.raises(BagError, match='100 masks of 16384 x 16384 px: at most'):
        read_result(instances(100, SIDE))


def test_messages_that_unpack_to_fill_the_memory_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, 'MAX_MESSAGE', 1 << 20)
    import zstandard
    pack = zstandard.ZstdCompressor().compress
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_raw('/image', messages.IMAGE, 1, pack(bytes(1 << 24)))
    with open_bag(tmp_path / 'bag') as bag:
        assert list(bag.items(['/image'])) == []
        assert 'made to fill the memory' in bag.fault
    with BagWriter(tmp_path / 'good') as bag:
        bag.write_raw('/image', messages.IMAGE, 1, pack(messages.write_ids(
            1, np.ones((4, 4), np.uint16))))
    with open_bag(tmp_path / 'good') as bag:
        assert len(list(bag.items(['/image']))) == 1 and not bag.fault
    monkeypatch.setattr(storage, 'MAX_MESSAGE', 1 << 50)  # a bound is not what is allocated
    with open_bag(tmp_path / 'good') as bag:
        assert len(list(bag.items(['/image']))) == 1 and not bag.fault


def test_archives_that_claim_more_than_the_machine_has_are_refused(tmp_path):
    file = tmp_path / 'x.npz'
    np.savez(file, events=np.zeros(3))
    data = file.read_bytes()
    at = data.index(b'PK\x01\x02') + 24  # the directory's uncompressed size
    file.write_bytes(data[:at] + struct.pack('<I', 2**32 - 2) + data[at + 4:])
    real = os.sysconf
    pages = {'SC_PHYS_PAGES': 1000, 'SC_PAGE_SIZE': 4096}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('os.sysconf', lambda name: pages.get(name) or real(name))
        with pytest.raises(DatasetError, match='claims to unpack to 4294967294 bytes'):
            read_npz(file, 'events')


def test_members_of_archives_are_never_files(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
        archive.writestr('../../escaped.npy', b'x')
    with pytest.raises(DatasetError, match='lacks'):
        read_npz(tmp_path / 'x.npz', 'escaped')
    with pytest.raises(DatasetError):
        read_npz(tmp_path / 'x.npz', '../../escaped')
    assert [path.name for path in tmp_path.rglob('*')] == ['x.npz']


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_stored_objects_are_not_run(tmp_path):
    np.savez(tmp_path / 'x.npz', meta=np.array({'k': Trap(tmp_path / 'ran')}, object))
    with pytest.raises(UnsafeFileError, match='could run any code'):
        read_npz(tmp_path / 'x.npz', 'meta')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('name', ['/etc/hostname', '../../x.png', 'a/../../x.png'])
def test_data_sets_name_no_files_outside_of_them(name, tmp_path):
    with pytest.raises(DatasetError, match='must lie inside'):
        below(tmp_path, name)
    (tmp_path / 'train' / 'JPEGImages').mkdir(parents=True)
    (tmp_path / 'train' / 'instances.json').write_text(json.dumps({
        'videos': [{'id': 1, 'height': 4, 'width': 4, 'length': 1, 'file_names': [name]}],
        'annotations': []}))
    with pytest.raises(DatasetError, match='must lie inside'):
        read_ytvis(tmp_path)


def test_the_page_names_tests_that_exist():
    page = (ROOT / 'docs' / 'security.md').read_text()
    named = re.findall(r'`(test/[\w/]+\.py)::(\w+)`', page)
    assert len(named) >= 10
    for file, test in named:
        assert f'def {test}(' in (ROOT / file).read_text(), (file, test)
