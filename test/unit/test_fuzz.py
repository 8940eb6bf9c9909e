"""The fuzzer's targets: a few cases of each, and the kept ones that once were read wrongly."""

from pathlib import Path
from random import Random

import pytest

from bench.fuzz import _audit, attempt
from bench.fuzz_targets import join, split, targets
from bench.mutate import mutate_bytes, mutate_json

CORPUS = sorted((Path(__file__).parent / 'corpus').iterdir())
CASES = 4  # of each target


@pytest.fixture(scope='module')
def known(tmp_path_factory):
    pytest.importorskip('onnx', reason='onnx makes the test model')
    pytest.importorskip('h5py', reason='some data sets are HDF5')
    return targets(tmp_path_factory.mktemp('fuzz') / 'cases')


def test_every_target_reads_or_refuses(known):
    assert {'packets evt3', 'packets mono', 'packets libcaer', 'packets libcaer_cmp', 'messages',
            'bag mcap', 'bag db3', 'card', 'data set ytvis'} <= known.keys()
    for name, target in known.items():
        for case in range(CASES):
            _, _, error = attempt(target.read, target.make(Random(f'test/{case}')), [])
            assert not error, (name, case, error)


@pytest.mark.parametrize('file', CORPUS, ids=lambda file: file.name)
def test_what_was_read_wrongly_once(known, file):
    name = file.name.rpartition('-')[0].replace('_', ' ')
    target = known.get(name) or known[name.replace('libcaer cmp', 'libcaer_cmp')]
    _, _, error = attempt(target.read, file.read_bytes(), [])
    assert not error, error


def test_cases_are_the_same_each_time(known):
    for target in known.values():
        assert target.make(Random('x/1')) == target.make(Random('x/1'))


def test_what_is_found():
    def lines(_):
        from mos_perception.errors import BagError
        raise BagError('one\ntwo')

    def wrong(_):
        raise KeyError('x')
    assert attempt(lambda data: 3, b'', []) == (3, 'read', '')
    assert 'several lines' in attempt(lines, b'', [])[2]
    assert 'KeyError' in attempt(wrong, b'', [])[2]
    assert 'open /etc/x' in attempt(lambda data: 1, b'', ['open /etc/x for writing'])[2]


def test_writes_elsewhere_are_seen(tmp_path):
    escaped = []
    for event, given in (('open', (str(tmp_path / 'a'), 'w', 0)), ('open', ('/etc/x', 'r', 0)),
                         ('os.mkdir', (str(tmp_path / 'b'), 0o777, -1))):
        _audit(event, given, tmp_path, escaped)
    assert escaped == []
    for event, given in (('open', ('/etc/x', 'w', 0)), ('os.mkdir', ('/x', 0o777, -1)),
                         ('subprocess.Popen', ('ls', [], None, None))):
        _audit(event, given, tmp_path, escaped)
    assert len(escaped) == 3


def test_mutations_follow_from_the_generator():
    assert mutate_bytes(Random(1), bytes(100)) == mutate_bytes(Random(1), bytes(100))
    assert mutate_json(Random(1), '{"a": [1, 2]}') == mutate_json(Random(1), '{"a": [1, 2]}')
    assert split(join([b'', b'ab', bytes(300)])) == [b'', b'ab', bytes(300)]
    assert len({mutate_bytes(Random(n), bytes(range(100))) for n in range(50)}) > 40
