"""`mos refine`: what it writes, and that nothing is left of what could not be finished."""

import hashlib
import json

import numpy as np
import pytest

from mos_perception import replay
from mos_perception.cli import main
from mos_perception.datatypes import Frame
from mos_perception.errors import EngineError
from mos_perception.pipeline import Pipeline
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.messages import IMAGE, TRACKS, deserialize, read_ids
from mos_perception.reports.run_report import node_results


@pytest.fixture
def bright(monkeypatch, bright_model):
    """The command with the model of conftest.py in place of a network."""
    monkeypatch.setattr(replay, 'Pipeline', lambda config: Pipeline(config, bright_model))


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir()}


def refused(arguments, capsys, code=1):
    assert main(['refine', *map(str, arguments)]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('mos: ')
    return error


def test_a_bag_of_the_nodes_topics(tmp_path, scene, bright, capsys):
    path, out = scene(tmp_path / 'bag', count=100), tmp_path / 'new' / 'refined'
    before = digest(path)
    assert main(['refine', str(path), '--out', str(out), '--json', str(tmp_path / 's.json')]) == 0
    assert digest(path) == before
    with open_bag(out) as bag:
        assert {topic.name: topic.count for topic in bag.topics} == dict.fromkeys(
            (f'/mos_perception/{name}' for name in ('instances', 'instance_image', 'tracks')), 100)
        results = list(node_results(bag))
        images = [read_ids(item.data) for item in bag.messages(['/mos_perception/instance_image'])]
        tracks = [deserialize(TRACKS, item.data)
                  for item in bag.messages(['/mos_perception/tracks'])]
    stamps = [result.stamp_ns for result in results]
    assert stamps == sorted(stamps) == [stamp for stamp, _ in images]
    assert {int(number) for result in results for number in result.tracks.ids} == {1}
    assert all((image > 0).sum() == 256 for _, image in images)
    assert len({float(result.instances.scores[0]) for result in results}) <= 2  # one a window
    assert [row.tracks[0].id for row in tracks] == [1] * 100
    assert tracks[-1].tracks[0].age == pytest.approx(99 * 0.033, abs=1e-3)
    moving = tracks[7].tracks[0].velocity
    assert moving[0] == pytest.approx(2 / 0.033, rel=0.7) and moving[1] == 0
    assert (tmp_path / 'new' / 'refined_pictures' / 'overlay.mp4').stat().st_size > 1000
    assert (tmp_path / 'new' / 'refined_pictures' / 'contact_sheet.png').exists()
    counts = json.loads((tmp_path / 's.json').read_text())['run']['counts']
    assert counts['results'] == counts['frames in'] == 100 and counts['tracks'] == 1
    assert counts['peak memory MB'] > 10
    told = capsys.readouterr()
    assert 'wrote' in told.out and '200 of 200 messages' in told.err
    assert main(['evaluate', str(path), '--results', str(out)]) == 0


def test_a_cut_off_bag_is_marked_partial(tmp_path, scene, bright, capsys):
    whole = (scene(tmp_path / 'bag', count=200) / 'bag.mcap').read_bytes()
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(whole[:len(whole) * 7 // 10])
    assert main(['refine', str(cut), '--out', str(tmp_path / 'out')]) == 0
    assert 'PARTIAL' in capsys.readouterr().out
    with open_bag(tmp_path / 'out') as bag:
        assert 0 < bag.topics[0].count < 200


def test_what_cannot_be_used_is_refused(tmp_path, scene, bright, capsys):
    out = tmp_path / 'out'
    path = scene(tmp_path / 'bag')
    events = scene(tmp_path / 'events', frames=False, truth=False)
    assert 'no images to use' in refused([events, '--out', out], capsys)
    assert 'no such bag' in refused([tmp_path / 'x', '--out', out], capsys)
    (tmp_path / 'bad.mcap').write_bytes(b'nothing at all')
    assert 'bad.mcap' in refused([tmp_path / 'bad.mcap', '--out', out], capsys)
    assert 'leave it out' in refused([path, '--out', out, '--set', 'tracker=hungarian'], capsys, 2)
    assert 'known models' in refused([path, '--out', out, '--refiner', 'x'], capsys)
    with BagWriter(tmp_path / 'grey') as bag:
        bag.write_raw('/camera/image_raw', IMAGE, 1, b'\x00\x01\x00\x00nothing')
    assert 'gave no result' in refused([tmp_path / 'grey', '--out', out], capsys)
    assert 'exists: remove it' in refused([path, '--out', path], capsys)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        'bad.mcap', 'bag', 'events', 'grey']


def test_nothing_is_left_where_it_breaks_off(tmp_path, scene, bright, monkeypatch, capsys):
    path, out = scene(tmp_path / 'bag', count=100), tmp_path / 'out'
    from mos_perception.tracking import refiner
    whole, calls = refiner.TemporalRefiner.refine, []

    def breaks(self, frames):
        calls.append(len(frames))
        if len(calls) > 1:
            raise EngineError('the engine is gone')
        return whole(self, frames)

    monkeypatch.setattr(refiner.TemporalRefiner, 'refine', breaks)
    assert 'the engine is gone' in refused([path, '--out', out], capsys)
    assert len(calls) == 2 and [file.name for file in tmp_path.iterdir()] == ['bag']


def test_two_epochs_are_two_bags_in_one(tmp_path, bright, capsys):
    """A clock that jumps back begins another epoch, and other tracks."""
    image = np.full((48, 64, 3), 30, np.uint8)
    image[16:32, 20:36] = 220
    with BagWriter(tmp_path / 'bag') as bag:
        for at in range(40):
            stamp = 10**10 + (at % 20) * 33_000_000
            bag.write_frame('/camera/image_raw', Frame(stamp, image, 'c'), 10**10 + at * 33_000_000)
    assert main(['refine', str(tmp_path / 'bag'), '--out', str(tmp_path / 'out')]) == 0
    with open_bag(tmp_path / 'out') as bag:
        results = list(node_results(bag))
    assert len({result.epoch for result in results}) == 2
    assert all(result.tracks.ids.tolist() == [1] for result in results)
