"""Recordings through the pipeline: every frame answered, skips counted, the same answers each time.
"""

import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.datatypes import Fault, Modality, Result, Skip, SkipReason, WindowStatus
from mos_perception.errors import BagError
from mos_perception.evaluation.ground_truth import GroundTruthEvaluator
from mos_perception.pipeline import Pipeline
from mos_perception.recording import messages
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.image_folder import bag_from_images
from mos_perception.recording.results import result_digest
from mos_perception.replay import Replay, replay, with_topics
from mos_perception.reports.run_report import Inputs, node_counts, show
from mos_perception.reports.run_statistics import MERGE_GAP_NS, RunStatistics, motion_text


def outcomes(path, model, image_topic=None, events_topic=None):
    with open_bag(path) as bag:
        config = with_topics(bag, Config(), image_topic, events_topic)
        return list(replay(bag, config, Pipeline(config, model)))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_every_frame_gets_its_window(tmp_path, scene, bright_model, storage):
    results = outcomes(scene(tmp_path / 'bag', storage=storage), bright_model)
    assert [type(item) for item in results] == [Result] * 14
    assert {item.modality for item in results} == {Modality.BOTH}
    # nothing after the last packet says that no more events of its last microsecond will come
    assert [item.window.status for item in results] == [WindowStatus.COMPLETE] * 13 + [
        WindowStatus.LATE
    ]
    assert [len(item.window.events) for item in results] == [50] * 14
    assert all(item.window.t1_ns == item.stamp_ns and item.frame_id == 'camera' for item in results)


def test_same_bag_same_answers(tmp_path, scene, bright_model):
    runs = [
        outcomes(scene(tmp_path / storage, storage=storage), bright_model)
        for storage in ('mcap', 'sqlite3')
    ]
    assert [result_digest(item) for item in runs[0]] == [result_digest(item) for item in runs[1]]
    assert [item.window.digest() for item in runs[0]] == [item.window.digest() for item in runs[1]]


def test_frames_only_and_events_only(tmp_path, scene, bright_model):
    path = scene(tmp_path / 'bag')
    frames = outcomes(path, bright_model, events_topic='')
    assert len(frames) == 14 and {item.modality for item in frames} == {Modality.FRAME}
    assert all(item.degraded for item in frames)
    events = [
        item for item in outcomes(path, bright_model, image_topic='') if isinstance(item, Result)
    ]
    assert len(events) >= 10 and {item.modality for item in events} == {Modality.EVENTS}
    assert events[0].instances.size == (48, 64)


def test_event_array_topic(tmp_path, bright_model):
    with BagWriter(tmp_path / 'bag') as bag:
        for n in range(8):
            events = [
                messages.make(
                    'dvs_msgs/msg/Event',
                    x=k,
                    y=n,
                    polarity=True,
                    ts=messages.header(10**9 + n * 33_000_000 + k * 1_000_000, '').stamp,
                )
                for k in range(33)
            ]
            cdr = messages.serialize(
                messages.EVENT_ARRAY,
                messages.make(
                    messages.EVENT_ARRAY,
                    header=messages.header(10**9 + n * 33_000_000, 'dvs'),
                    height=48,
                    width=64,
                    events=events,
                ),
            )
            bag.write_raw('/dvs/events', messages.EVENT_ARRAY, 10**9 + (n + 1) * 33_000_000, cdr)
    results = outcomes(tmp_path / 'bag', bright_model)
    assert len(results) >= 5 and all(
        isinstance(item, Result) and item.frame_id == 'dvs' for item in results
    )
    assert {len(item.window.events) for item in results} == {33}


def test_bad_and_repeated_frames_are_counted(tmp_path, scene, bright_model):
    scene(tmp_path / 'good')
    with open_bag(tmp_path / 'good') as bag, BagWriter(tmp_path / 'bad') as out:
        for n, item in enumerate(bag.messages(['/camera/image_raw', '/events'])):
            out.write_raw(item.topic, item.msgtype, item.receive_ns, item.data)
            if item.topic == '/camera/image_raw' and n in (3, 9):
                out.write_raw(
                    item.topic,
                    item.msgtype,
                    item.receive_ns + 1,
                    item.data if n == 3 else item.data[:100],
                )
    found = outcomes(tmp_path / 'bad', bright_model)
    skips = [item for item in found if isinstance(item, Skip)]
    assert [item.reason for item in skips] == [SkipReason.DUPLICATE, SkipReason.BAD_FRAME]
    assert sum(isinstance(item, Result) for item in found) == 14


def test_clock_that_jumps_back_starts_a_new_epoch(tmp_path, scene, bright_model):
    scene(tmp_path / 'once', count=30)
    with open_bag(tmp_path / 'once') as bag, BagWriter(tmp_path / 'looped') as out:
        for loop in range(2):
            for item in bag.messages(['/camera/image_raw', '/events']):
                out.write_raw(item.topic, item.msgtype, item.receive_ns + loop * 10**9, item.data)
    results = [
        item for item in outcomes(tmp_path / 'looped', bright_model) if isinstance(item, Result)
    ]
    assert {item.epoch for item in results} == {0, 1}
    assert len(results) >= 56


def test_truncated_bag_is_replayed_as_far_as_it_goes(tmp_path, scene, bright_model):
    path = scene(tmp_path / 'bag', count=300)
    file = path / 'bag.mcap'
    with file.open('r+b') as handle:
        handle.truncate(int(file.stat().st_size * 0.7))
    with open_bag(path) as bag:
        config = with_topics(bag, Config())
        found = [
            item
            for item in replay(bag, config, Pipeline(config, bright_model))
            if isinstance(item, Result)
        ]
        assert 30 < len(found) < 300
        assert 'bag.mcap' in bag.fault


def test_scores_and_moving_interval(tmp_path, scene, bright_model):
    path = scene(tmp_path / 'bag')
    with open_bag(path) as bag:
        evaluator, statistics = GroundTruthEvaluator(bag.truth()), RunStatistics()
        for item in outcomes(path, bright_model):
            evaluator.add(item)
            statistics.add(item)
    summary = evaluator.summary()
    assert summary['frames'] == 14 and summary['frames_with_gt'] == 6
    assert summary['released']['mIoU_ins_valid'] == pytest.approx(1.0)
    assert summary['truth_frames_without_result'] == summary['results_without_truth'] == 0
    # the model calls it moving from frame 5 on, and to the end
    assert statistics.intervals_s(10**9) == [(0.165, 0.429)]
    assert statistics.summary(10**9)['track_moving_s'] == {'1': [(0.165, 0.429)]}
    assert (
        motion_text(statistics.summary(10**9))
        == 'something moves at 0.17-0.43 s\n  track 1 at 0.17-0.43 s'
    )


def test_truth_of_another_recording_is_refused(tmp_path, scene, bright_model):
    scene(tmp_path / 'bag')
    with open_bag(scene(tmp_path / 'other', first=1000)) as bag:
        evaluator = GroundTruthEvaluator(bag.truth())
    for item in outcomes(tmp_path / 'bag', bright_model):
        evaluator.add(item)
    with pytest.raises(BagError, match='14 ground-truth frames'):
        evaluator.summary()


def record(path, out, model, masks=True):
    """The bag a recorder would make of the node's output, with diagnostics."""
    with BagWriter(out) as bag:
        for item in outcomes(path, model):
            if not masks:
                item.instances.masks[:] = False
            bag.write_result('/mos_perception/instances', item, item.stamp_ns)
        values = [
            messages.make('diagnostic_msgs/msg/KeyValue', key=key, value=value)
            for key, value in (
                ('state', 'OK'),
                ('total frames', '14'),
                ('skipped newer_frame', '2'),
                ('engine p50 ms', '3'),
            )
        ]
        status = messages.make(
            'diagnostic_msgs/msg/DiagnosticStatus',
            level=0,
            name='/mos_perception: perception',
            message='OK',
            hardware_id='none',
            values=values,
        )
        array = messages.make(
            'diagnostic_msgs/msg/DiagnosticArray', header=messages.header(0, ''), status=[status]
        )
        bag.write_raw('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', 5 * 10**9,
                      messages.serialize('diagnostic_msgs/msg/DiagnosticArray', array))
    return out


def test_show_joins_recorded_results_with_their_inputs(tmp_path, scene, bright_model):
    path = scene(tmp_path / 'bag')
    answers = record(path, tmp_path / 'answers', bright_model)
    summary, files, scorer = show(path, answers, tmp_path / 'out')
    assert [file.name for file in files] == ['overlay.mp4', 'contact_sheet.png']
    assert all(file.stat().st_size > 1000 for file in files)
    assert (
        summary['score']['released']['mIoU_ins_valid'] == pytest.approx(1.0) and scorer is not None
    )
    assert (
        summary['run']['counts']['node: frames'] == 14 and summary['run']['counts']['results'] == 14
    )
    assert summary['run']['skipped'] == {'newer_frame': 2}
    assert summary['run']['moving_s'] == [
        (pytest.approx(0.198, abs=0.001), pytest.approx(0.462, abs=0.001))
    ]
    with open_bag(answers) as bag:
        assert node_counts(bag, {}) == {'node: frames': 14}


def test_show_without_results_or_masks(tmp_path, scene, bright_model):
    path = scene(tmp_path / 'bag')
    with pytest.raises(BagError, match='no mos_msgs/msg/Instances'):
        show(path, path.parent / scene(tmp_path / 'none', truth=False).name, tmp_path / 'out')
    with pytest.raises(BagError, match='publish_masks'):
        show(path, record(path, tmp_path / 'answers', bright_model, masks=False), tmp_path / 'out')


def test_inputs_are_found_by_stamp(tmp_path, scene):
    with open_bag(scene(tmp_path / 'bag')) as bag:
        inputs = Inputs(bag, '/camera/image_raw', '/events')
        for n in (0, 3, 13):
            frame, window = inputs.at(10**9 + n * 33_000_000)
            assert frame.stamp_ns == 10**9 + n * 33_000_000
            assert len(window.events) == 50 and (window.height, window.width) == (48, 64)
        assert inputs.at(10**12)[0] is None


def test_run_statistics_bridge_short_gaps_only():
    statistics = RunStatistics()
    for stamp in (0, MERGE_GAP_NS, 2 * MERGE_GAP_NS + 1, 10):
        statistics.moved(1000 + stamp)
    for track in range(10):
        statistics.moved(1000, str(track))
    assert statistics.intervals_s(1000) == [(0.0, 0.25), (0.5, 0.5), (0.0, 0.0)]
    statistics.add(Fault(5, 'broken'))
    statistics.add(Skip(SkipReason.PACKET_GAP, 5, count=3))
    summary = statistics.summary(1000)
    assert summary['counts'] == {'faults': 1} and summary['skipped'] == {'packet_gap': 3}
    assert summary['last_fault'] == 'broken'
    assert motion_text(RunStatistics().summary(0)) == 'nothing moves'
    assert motion_text(summary).endswith('and 2 more tracks')


def test_frames_in_are_counted(tmp_path, scene, bright_model):
    with open_bag(scene(tmp_path / 'bag')) as bag:
        config = with_topics(bag, Config())
        run = Replay(bag, config, Pipeline(config, bright_model))
        list(run)
    assert (run.frames, run.packets, run.messages, run.total) == (14, 14, 28, 28)


@pytest.mark.parametrize('suffix', ['.png', '.webp'])
def test_bag_from_images(tmp_path, bright_model, suffix):
    import cv2
    images = [np.full((48, 64, 3), 40 * n, np.uint8) for n in range(3)]
    (tmp_path / 'images').mkdir()
    for n, image in enumerate(images):
        cv2.imwrite(
            str(tmp_path / 'images' / f'{n:05}{suffix}'), image, [cv2.IMWRITE_WEBP_QUALITY, 101]
        )
    assert bag_from_images(tmp_path / 'images', tmp_path / 'bag', 24) == 3
    with open_bag(tmp_path / 'bag') as bag:
        found = [value for _, value in bag.items(['/camera/image_raw'])]
    assert [value.stamp_ns for value in found] == [10**9, 10**9 + 41_666_667, 10**9 + 83_333_333]
    for image, value in zip(images, found):
        np.testing.assert_array_equal(value.image, image)
    assert len(outcomes(tmp_path / 'bag', bright_model)) == 3


def test_bag_from_images_refusals(tmp_path):
    with pytest.raises(BagError, match='no images'):
        bag_from_images(tmp_path, tmp_path / 'bag', 24)
    with pytest.raises(BagError, match='fps'):
        bag_from_images(tmp_path, tmp_path / 'bag', 0)
    (tmp_path / 'a.png').write_bytes(b'junk')
    with pytest.raises(BagError, match='a.png'):
        bag_from_images(tmp_path, tmp_path / 'bag', 24)
    assert not (tmp_path / 'bag').exists()


def test_real_clip(data_dir, tmp_path, bright_model):
    folder = data_dir / 'video' / 'davis16_train' / 'rhino' / 'frames'
    short = tmp_path / 'short'
    short.mkdir()
    for file in sorted(folder.iterdir())[:4]:
        (short / file.name).symlink_to(file)
    assert bag_from_images(short, tmp_path / 'bag', 24) == 4
    with open_bag(tmp_path / 'bag') as bag:
        assert bag.pick() == ('/camera/image_raw', '')
        assert [value.size for _, value in bag.items(['/camera/image_raw'])] == [(240, 427)] * 4
