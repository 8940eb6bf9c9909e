"""`mos check-data`: planted faults are named findings, whole data none, nothing a traceback."""

import json
import random
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mos_perception.cli import main
from mos_perception.datatypes import Events
from mos_perception.errors import MosError
from mos_perception.formats import FORMATS, detect, module
from mos_perception.formats.check import check_data
from mos_perception.formats.findings import KINDS
from mos_perception.formats.sequence import Sequence

h5py = pytest.importorskip('h5py')
HEIGHT, WIDTH, FRAMES, START_NS = 12, 16, 6, 1_000_000_000


def scene(name='scene'):
    rng = np.random.default_rng(7)
    stamps = START_NS + np.arange(FRAMES, dtype=np.int64) * 33_000_000
    t = np.sort(rng.integers(START_NS, int(stamps[-1]), 400)) // 1000 * 1000
    events = Events(rng.integers(0, WIDTH, 400).astype(np.uint16),
                    rng.integers(0, HEIGHT, 400).astype(np.uint16),
                    rng.integers(0, 2, 400).astype(np.uint8), t)
    ids = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    for n in range(FRAMES):
        ids[n, 2:6, 1 + n:5 + n], ids[n, 8:11, 3:7] = 1, 2
    frames = rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3)).astype(np.uint8)
    return Sequence(name, (HEIGHT, WIDTH), stamps, frames, events, (HEIGHT, WIDTH), ids,
                    tuple({1: True, 2: False} for _ in range(FRAMES)))


def names(findings):
    return sorted(finding.name for finding in findings)


@pytest.mark.parametrize('form', FORMATS)
def test_what_we_write_has_no_findings(form, tmp_path):
    options = {'min_pixels': 1} if form == 'dimos' else {}
    module(form).write(scene(), tmp_path / 'set', **options)
    assert [str(finding) for finding in check_data(tmp_path / 'set')] == []
    assert main(['check-data', str(tmp_path / 'set')]) == 0


def edit(file, name, change):
    with h5py.File(file, 'r+') as data:
        values = change(data[name][:])
        del data[name]
        data[name] = values


def set_at(index, value):
    def change(values):
        values[index] = value
        return values
    return change


def broken_mousesis(root):
    """Ten sequences of one fault each, and a whole one.

    Returns the names that must be found, and the file of each.
    """
    form = module('mousesis')
    files = {n: form.write(scene(), root, number=n) for n in range(1, 12)}
    source = form.annotations_file(files[1])
    whole = json.loads(source.read_text())
    edit(files[1], 'img_ts', lambda t: t[[0, 2, 1, 3, 4, 5]])
    edit(files[2], 'img_ts', lambda t: t + np.array([0, 0, 0, 90_000, 90_000, 90_000]))
    edit(files[3], 't', lambda t: np.roll(t, 7))
    edit(files[4], 'x', set_at(5, WIDTH + 3.5))
    edit(files[5], 'p', set_at(9, 2))
    edit(files[6], 'img2event', set_at(-1, 10**6))
    with h5py.File(files[7], 'r+') as data:
        del data['y']
    files[8].write_bytes(files[8].read_bytes()[:2000])
    whole['videos'] = [video for video in whole['videos'] if video['id'] != '09']
    for entry in whole['annotations']:
        if entry['video_id'] == '10':
            entry['segmentations'][2] = {'size': [HEIGHT, WIDTH], 'counts': '5 10 7'}
    source.write_text(json.dumps(whole))
    planted = {1: 'times-unsorted', 2: 'frame-gap', 3: 'events-unsorted', 4: 'coordinates',
               5: 'polarity', 6: 'index-range', 7: 'missing-array', 8: 'unreadable',
               9: 'missing-annotations', 10: 'mask-code'}
    return planted, files


def test_ten_planted_faults_are_ten_named_findings(tmp_path, capsys):
    planted, files = broken_mousesis(tmp_path / 'MouseSIS')
    findings = check_data(tmp_path / 'MouseSIS')
    found = {(finding.name, finding.file.split('(')[-1].rstrip(')').rsplit('/', 1)[-1])
             for finding in findings}
    assert found == {(name, files[n].name) for n, name in planted.items()}
    assert len(findings) == len(planted) == 10
    listing = tmp_path / 'found.json'
    assert main(['check-data', str(tmp_path / 'MouseSIS'), '--json', str(listing)]) == 1
    printed = capsys.readouterr()
    assert 'Traceback' not in printed.out + printed.err and printed.err.count('\n') == 1
    assert '6 errors, 4 warnings' in printed.out
    told = json.loads(listing.read_text())
    assert sorted(entry['name'] for entry in told) == sorted(planted.values())
    assert all(entry['remedy'] and entry['detail'] and entry['file'] for entry in told)


def test_faults_of_the_other_formats(tmp_path):
    write = {form: module(form).write(scene(), tmp_path / form)
             for form in ('sevd', 'evimo', 'evimo2', 'davis', 'ytvis')}
    rgb, npz = write['sevd'], write['evimo']
    data = dict(np.load(npz, allow_pickle=True))
    data['mask'] = np.where(data['mask'] == 2000, 2500, data['mask']).astype(np.uint16)
    data['depth'] = data['depth'][:, :5]
    data['events'][3, 3] = 7
    np.savez(npz, **data)
    np.savez(npz.with_name('old.npz'), events=data['events'], meta=np.array(None, object))
    npz.with_name('cut.npz').write_bytes(npz.read_bytes()[:500])
    found = {(finding.name, finding.file.rsplit('/', 1)[-1])
             for finding in check_data(tmp_path / 'evimo')}
    assert found == {('mask-values', 'scene.npz'), ('size-differs', 'scene.npz'),
                     ('polarity', 'scene.npz'), ('missing-array', 'old.npz'),
                     ('unreadable', 'cut.npz')}

    (rgb / '3.json').unlink()
    labels = json.loads((rgb / '4.json').read_text())
    labels['annotations'].pop()
    (rgb / '4.json').write_text(json.dumps(labels))
    cv2.imwrite(str(rgb / '5.png'), np.zeros((3, 3, 3), np.uint8))
    (rgb / 'dvs-2-xytp.npz').write_bytes(b'PK')
    assert names(check_data(tmp_path / 'sevd')) == [
        'ids-without-annotation', 'missing-file', 'size-differs', 'unreadable']

    np.save(write['evimo2'] / 'dataset_events_p.npy', np.zeros(399, np.uint8))
    np.savez(write['evimo2'] / 'dataset_depth.npz', depth_0000000000=np.zeros((2, 2), np.uint16))
    assert names(check_data(tmp_path / 'evimo2')) == ['event-columns', 'size-differs']

    masks = tmp_path / 'davis' / 'Annotations_unsupervised' / '480p' / 'scene'
    (masks / '00001.png').unlink()
    (masks / '00002.png').write_bytes((masks / '00002.png').read_bytes()[:40])
    (tmp_path / 'davis' / 'ImageSets' / '2017' / 'train.txt').write_text('scene\nlost\n')
    assert names(check_data(tmp_path / 'davis')) == ['missing-file', 'missing-file', 'unreadable']

    whole = json.loads(write['ytvis'].read_text())
    whole['annotations'][0]['segmentations'][0]['counts'] = [1, 2]
    whole['annotations'][1]['segmentations'].pop()
    write['ytvis'].write_text(json.dumps(whole))
    (write['ytvis'].parent / 'JPEGImages' / 'scene' / '00003.jpg').unlink()
    assert names(check_data(tmp_path / 'ytvis')) == [
        'annotation-without-mask', 'count-differs', 'mask-code', 'missing-file']


def test_frames_and_events_in_other_units(tmp_path):
    file = module('mousesis').write(scene(), tmp_path)
    edit(file, 'img_ts', lambda t: t / 1e6)
    assert names(check_data(tmp_path)) == ['times-apart']


def test_faults_of_a_bag(tmp_path):
    from mos_perception.datatypes import EventPacket, Frame
    from mos_perception.events.encode import encode_mono
    from mos_perception.recording.bag import BagWriter
    given, at = scene().events, START_NS
    with BagWriter(tmp_path / 'bag') as bag:
        for n, (height, seq) in enumerate(((12, 1), (12, 2), (10, 5))):
            image = np.zeros((height, 16, 3), np.uint8)
            bag.write_frame('/camera', Frame(at + 50_000_000 - n * 1000, image), at + n)
            payload = np.frombuffer(encode_mono(given, at), np.uint8)
            bag.write_packet('/events', EventPacket(at, 'mono', 10, 14, seq, at, payload), at + n)
    assert names(check_data(tmp_path / 'bag')) == [
        'coordinates', 'missing-annotations', 'packet-gap', 'size-differs', 'times-unsorted']


def test_a_file_with_code_is_unsafe_and_what_merely_speaks_of_it_is_not(tmp_path):
    file = module('evimo').write(scene(), tmp_path / 'could run any code, pip install')
    assert check_data(file.parent) == []
    data = dict(np.load(file, allow_pickle=True))
    np.savez(file, **{**data, 'meta': np.array({'frames': Path('x')}, object)})
    findings = check_data(file.parent)
    assert names(findings) == ['unsafe'] and 'PosixPath' in findings[0].detail
    file.write_bytes(file.read_bytes()[:500])
    assert names(check_data(file.parent)) == ['unreadable']  # though its path says otherwise


def test_missing_h5py_is_said(tmp_path, monkeypatch):
    module('mousesis').write(scene(), tmp_path)
    monkeypatch.setitem(sys.modules, 'h5py', None)
    findings = check_data(tmp_path)
    assert names(findings) == ['missing-library'] and 'pip install h5py' in findings[0].detail


def test_empty_unknown_and_missing(tmp_path, capsys):
    (tmp_path / 'some').mkdir()
    assert names(check_data(tmp_path / 'some')) == ['unknown-layout']
    assert names(check_data(tmp_path / 'none')) == ['missing-file']
    assert main(['check-data', str(tmp_path / 'none')]) == 1
    file = module('mousesis').write(scene(), tmp_path / 'a')
    for name in ('images', 'img_ts', 'img2event', 't', 'x', 'y', 'p'):
        edit(file, name, lambda values: values[:0])
    assert {'empty-sequence', 'no-events'} <= set(names(check_data(tmp_path / 'a')))


@pytest.mark.parametrize('form', FORMATS)
def test_any_damaged_byte_gives_findings_not_tracebacks(form, tmp_path):
    """Files cut or changed at random: check_data returns, readers read or raise MosError."""
    module(form).write(scene(), tmp_path / 'set', **({'min_pixels': 1} if form == 'dimos' else {}))
    rng = random.Random(form)
    files = sorted(file for file in (tmp_path / 'set').rglob('*') if file.is_file())
    for file in rng.sample(files, min(len(files), 6)):
        whole = file.read_bytes()
        for damaged in (whole[:rng.randrange(len(whole))], bytearray(whole), b''):
            if isinstance(damaged, bytearray):
                for _ in range(8):
                    damaged[rng.randrange(len(whole))] = rng.randrange(256)
            file.write_bytes(bytes(damaged))
            assert all(finding.name in KINDS for finding in check_data(tmp_path / 'set', form))
            try:
                found = module(form).read(tmp_path / 'set')
                for n in range(len(found)):
                    found.frame(n), found.flags(n)
            except MosError as error:
                assert '\n' not in str(error)
        file.write_bytes(whole)


def test_convert_from_every_format_to_a_bag_and_back(tmp_path, capsys):
    given = scene()
    for form in ('mousesis', 'sevd', 'evimo'):
        module(form).write(given, tmp_path / form)
        bag, back = tmp_path / f'{form}_bag', tmp_path / f'{form}_back'
        assert main(['convert', str(tmp_path / form), str(bag)]) == 0
        assert main(['convert', str(bag), str(back), '--to', form]) == 0
        found = module(form).read(back)
        assert detect(back) == form and np.array_equal(np.asarray(found.ids), given.ids)
        for column in 'xypt':
            assert np.array_equal(getattr(found.events, column), getattr(given.events, column))
        assert np.array_equal(np.asarray(found.frames), given.frames)
        assert [found.flags(n) for n in range(FRAMES)] == [given.flags(n) for n in range(FRAMES)]
    printed = capsys.readouterr().out
    assert '6 frames, 400 events, ground truth; bag does not keep: flow, depth' in printed


def test_convert_refuses_in_one_line(tmp_path, capsys):
    for number in (1, 2):
        module('mousesis').write(scene(), tmp_path / 'set', number=number)
    to_bag = ['convert', str(tmp_path / 'set'), str(tmp_path / 'bag')]
    assert main(to_bag) == 1
    assert 'train/seq01, train/seq02' in capsys.readouterr().err
    assert main([*to_bag, '--sequence', 'train/seq02']) == 0
    assert main([*to_bag, '--sequence', 'train/seq02']) == 1
    assert 'exists' in capsys.readouterr().err
    from_images = ['convert', str(tmp_path), str(tmp_path / 'x'), '--from', 'images']
    assert main([*from_images, '--to', 'davis']) == 2
