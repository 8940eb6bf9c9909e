"""Bags: what is written is read back exactly, in both storages; damaged and foreign ones end
clearly.
"""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from mos_perception.datatypes import (
    EventPacket,
    Frame,
    GroundTruth,
    Instances,
    Modality,
    Result,
    Skip,
    SkipReason,
    Tracks,
    TrackState,
)
from mos_perception.errors import BagError, FrameError
from mos_perception.recording import messages, results
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.results import NodeResult, read_result, result_digest

RNG = np.random.default_rng(5)
STORAGES = pytest.mark.parametrize('storage, compress', [
    ('mcap', False), ('mcap', True), ('sqlite3', False), ('sqlite3', True)])


def frame(n: int) -> Frame:
    return Frame(
        10**9 + n * 33_000_000, RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8), 'camera_optical'
    )


def packet(n: int) -> EventPacket:
    return EventPacket(10**9 + n * 33_000_000 - 5, 'evt3', 24, 32, n, n * 1000,
                       RNG.integers(0, 256, 100 + n, dtype=np.uint8), 'event_camera')


def truth(n: int) -> GroundTruth:
    ids = np.zeros((24, 32), np.uint16)
    ids[2:8, 3:9], ids[10:20, 12 + n:30] = 1, 700
    return GroundTruth(10**9 + n * 33_000_000, ids, {1: False, 700: True})


def write(path, storage='mcap', compress=False, count=4):
    frames, packets, truths = [[make(n) for n in range(count)] for make in (frame, packet, truth)]
    with BagWriter(path, storage, compress) as bag:
        for one, other, gt in zip(frames, packets, truths):
            bag.write_packet('/events', other)
            bag.write_frame('/camera/image_raw', one, one.stamp_ns + 7, 'bgr8')
            bag.write_truth(gt, 'camera_optical')
    return frames, packets, truths


@STORAGES
def test_written_is_read_back(tmp_path, storage, compress):
    path = tmp_path / 'bag'
    frames, packets, truths = write(path, storage, compress)
    with open_bag(path) as bag:
        assert bag.pick() == ('/camera/image_raw', '/events')
        items = list(bag.items([topic.name for topic in bag.topics]))
        assert bag.fault == ''
        assert sorted(bag.truth()) == [gt.stamp_ns for gt in truths]
    times = [at for at, _ in items]
    assert times == sorted(times)
    got = {
        kind: [value for _, value in items if isinstance(value, kind)]
        for kind in (Frame, EventPacket, GroundTruth)
    }
    assert [len(got[kind]) for kind in got] == [4, 4, 4] and len(items) == 12
    for one, back in zip(frames, got[Frame]):
        assert (back.stamp_ns, back.frame_id) == (one.stamp_ns, one.frame_id)
        np.testing.assert_array_equal(back.image, one.image)
    for one, back in zip(packets, got[EventPacket]):
        np.testing.assert_array_equal(back.payload, one.payload)
        assert all(
            getattr(back, name) == getattr(one, name)
            for name in ('stamp_ns', 'encoding', 'height', 'width', 'seq', 'time_base', 'frame_id')
        )
    for one, back in zip(truths, got[GroundTruth]):
        np.testing.assert_array_equal(back.ids, one.ids)
        assert (back.stamp_ns, back.moving) == (one.stamp_ns, one.moving)
    assert (
        times[items.index(next(item for item in items if isinstance(item[1], Frame)))]
        == frames[0].stamp_ns + 7
    )


@STORAGES
def test_rosbags_alone_reads_what_we_write(tmp_path, storage, compress):
    frames, _, _ = write(tmp_path / 'bag', storage, compress)
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(tmp_path / 'bag') as reader:
        images = [
            data
            for connection, _, data in reader.messages()
            if connection.topic == '/camera/image_raw'
        ]
    message = store.deserialize_cdr(images[2], 'sensor_msgs/msg/Image')
    assert (message.encoding, message.height, message.width, message.step) == ('bgr8', 24, 32, 96)
    np.testing.assert_array_equal(message.data.reshape(24, 32, 3)[..., ::-1], frames[2].image)


@pytest.mark.parametrize('storage, suffix', [('mcap', 'mcap'), ('sqlite3', 'db3')])
def test_without_metadata_and_as_single_file(tmp_path, storage, suffix):
    write(tmp_path / 'bag', storage, True)
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    for path in (tmp_path / 'bag', tmp_path / 'bag' / f'bag.{suffix}'):
        with open_bag(path) as bag:
            assert len(list(bag.items(['/events', '/camera/image_raw']))) == 8
            assert bag.fault == ''


def test_pass_through_is_byte_identical(tmp_path):
    write(tmp_path / 'one')
    with open_bag(tmp_path / 'one') as bag, BagWriter(tmp_path / 'two', 'sqlite3') as out:
        before = list(bag.messages())
        for item in before:
            out.write_raw(item.topic, item.msgtype, item.receive_ns, item.data)
        assert out.counts['/events'] == 4
    with open_bag(tmp_path / 'two') as bag:
        assert [bytes(item.data) for item in bag.messages()] == [
            bytes(item.data) for item in before
        ]


@pytest.mark.fault(31, 'an mcap file cut short, without its index',
                   'what lies before is read; file and byte offset are named')
@pytest.mark.parametrize('compress', [False, True])
@pytest.mark.parametrize('share', [0.5, 0.7, 0.999])
def test_truncated_mcap_gives_what_lies_before(tmp_path, compress, share):
    count = 60
    with BagWriter(tmp_path / 'bag', 'mcap', compress) as bag:
        for n in range(count):  # 92 kB each, so several chunks
            bag.write_frame(
                '/image', Frame(n + 1, RNG.integers(0, 256, (160, 192, 3), dtype=np.uint8))
            )
    file = tmp_path / 'bag' / 'bag.mcap'
    size = int(file.stat().st_size * share)
    with file.open('r+b') as handle:
        handle.truncate(size)
    with open_bag(tmp_path / 'bag') as bag:
        found = [value.stamp_ns for _, value in bag.items(['/image'])]
        assert found == list(range(1, len(found) + 1))
        assert share * count - 15 < len(found) <= count
        assert bag.topics[0].count == len(found)
        assert str(file) in bag.fault and 'at byte' in bag.fault
        assert 0 < int(bag.fault.split('at byte ')[1].split(';')[0]) <= size


def test_damaged_chunk_ends_the_reading_but_keeps_the_start(tmp_path):
    with BagWriter(tmp_path / 'bag', 'mcap', True) as bag:
        for n in range(60):
            bag.write_frame(
                '/image', Frame(n + 1, RNG.integers(0, 256, (160, 192, 3), dtype=np.uint8))
            )
    file = tmp_path / 'bag' / 'bag.mcap'
    data = bytearray(file.read_bytes())
    data[len(data) // 2:len(data) // 2 + 400_000] = bytes(400_000)
    file.write_bytes(data)
    with open_bag(tmp_path / 'bag') as bag:
        assert 10 < len(list(bag.items(['/image']))) < 40
        assert str(file) in bag.fault


def test_truncated_sqlite_is_refused(tmp_path):
    with BagWriter(tmp_path / 'bag', 'sqlite3') as bag:
        for n in range(30):
            bag.write_frame('/image', frame(n))
    file = tmp_path / 'bag' / 'bag.db3'
    with file.open('r+b') as handle:
        handle.truncate(int(file.stat().st_size * 0.7))
    with pytest.raises(BagError, match='bag.db3 .*mcap'):
        open_bag(tmp_path / 'bag')


@pytest.mark.parametrize('content', [b'', b'junk', b'\x89MCAP0\r\n', bytes(1000)])
@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
def test_no_bag_at_all(tmp_path, content, suffix):
    file = tmp_path / f'x.{suffix}'
    file.write_bytes(content)
    with pytest.raises(BagError, match=f'x.{suffix}'):
        open_bag(file)


def test_missing_path_and_empty_folder(tmp_path):
    with pytest.raises(BagError, match='no such bag'):
        open_bag(tmp_path / 'nothing')
    with pytest.raises(BagError, match='no readable'):
        open_bag(tmp_path)


@pytest.mark.fault(31, 'a topic that is missing or of another type',
                   'the error names file and topic, and lists those there')
def test_topics_that_are_not_there(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        text = messages.make('std_msgs/msg/String', data='hello')
        bag.write_raw(
            '/chatter', 'std_msgs/msg/String', 1, messages.serialize('std_msgs/msg/String', text)
        )
        bag.write_raw('/mos/overlay', messages.IMAGE, 1, messages.write_frame(frame(0)))
    with open_bag(tmp_path / 'bag') as bag:
        with pytest.raises(BagError, match=r'/chatter \(std_msgs/msg/String, 1\)'):
            bag.pick()
        with pytest.raises(BagError, match='no topic /camera; its topics: /chatter'):
            bag.pick(image_topic='/camera')
        with pytest.raises(BagError, match='/chatter holds std_msgs/msg/String'):
            bag.pick(events_topic='/chatter')
        with pytest.raises(BagError, match='/chatter holds'):
            list(bag.items(['/chatter']))
        with pytest.raises(BagError, match='--ground-truth'):
            bag.truth()
        assert bag.pick(image_topic='/mos/overlay') == ('/mos/overlay', '')


def test_pick_prefers_the_fullest_topic_and_obeys_names(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        for n, topic in enumerate(['/b', '/a', '/b', '/c']):
            bag.write_frame(topic, frame(n))
        bag.write_packet('/events', packet(0))
    with open_bag(tmp_path / 'bag') as bag:
        assert bag.pick() == ('/b', '/events')
        assert bag.pick('/c', '') == ('/c', '')
        assert bag.pick('', None) == ('', '/events')


def test_bad_messages_become_skips(tmp_path):
    good = frame(0)
    wrong = messages.deserialize(messages.IMAGE, messages.write_frame(good))
    wrong.step = 7
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_raw('/image', messages.IMAGE, 1, messages.serialize(messages.IMAGE, wrong))
        bag.write_raw('/image', messages.IMAGE, 2, b'\0\1\0\0junk')
        bag.write_frame('/image', good, 3)
        bag.write_raw('/events', messages.EVENT_PACKET, 4, b'')
        bag.write_raw('/events', messages.EVENT_ARRAY, 5, messages.write_frame(good))
        bag.write_packet('/events', packet(0), 6)
    with open_bag(tmp_path / 'bag') as bag:
        values = [value for _, value in bag.items(['/image', '/events'])]
    assert [type(value) for value in values] == [Skip, Skip, Frame, Skip, Skip, EventPacket]
    assert [value.reason for value in values if isinstance(value, Skip)] == [
        SkipReason.BAD_FRAME, SkipReason.BAD_FRAME, SkipReason.BAD_PACKET, SkipReason.BAD_PACKET]
    assert 'step is 7' in values[0].detail


def test_writer_is_atomic(tmp_path):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / 'bag') as bag:
        bag.write_frame('/image', frame(0))
        assert not (tmp_path / 'bag').exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / 'bag')
    assert [file.name for file in tmp_path.iterdir()] == ['bag']
    assert sorted(file.name for file in (tmp_path / 'bag').iterdir()) == [
        'bag.mcap',
        'metadata.yaml',
    ]
    with pytest.raises(BagError, match='exists'):
        BagWriter(tmp_path / 'bag')
    with pytest.raises(BagError, match='csv'):
        BagWriter(tmp_path / 'other', 'csv')
    with pytest.raises(BagError, match='no_msgs/msg/Thing'), BagWriter(tmp_path / 'other') as bag:
        bag.write_raw('/x', 'no_msgs/msg/Thing', 1, b'')
    assert [file.name for file in tmp_path.iterdir()] == ['bag']


@pytest.mark.fault(30, 'the disk is full while a bag is written or finished',
                   'an error, and no half bag')
@STORAGES
@pytest.mark.parametrize('fails', ['write', 'close'])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, storage, compress, fails):
    def full(*arguments):
        raise OSError(28, 'No space left on device')

    with (
        pytest.raises(BagError, match='No space left'),
        BagWriter(tmp_path / 'bag', storage, compress) as bag,
    ):
        bag.write_frame('/image', frame(0))
        monkeypatch.setattr(bag._writer, fails, full)
        bag.write_frame('/image', frame(1))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope='module')
def small_files(tmp_path_factory):
    """The bytes of a small whole bag in each storage."""
    folder = tmp_path_factory.mktemp('small')
    for storage in ('mcap', 'sqlite3'):
        write(folder / storage, storage, count=2)
    return {'mcap': (folder / 'mcap' / 'mcap.mcap').read_bytes(),
            'db3': (folder / 'sqlite3' / 'sqlite3.db3').read_bytes()}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(['mcap', 'db3']),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.floats(0, 1) | st.just(1.0),
)
def test_any_damage_gives_items_or_a_bag_error(tmp_path, small_files, suffix, flips, share):
    data = bytearray(small_files[suffix])
    for at, value in flips:
        data[int(at * (len(data) - 1))] = value
    file = tmp_path / f'x.{suffix}'
    file.write_bytes(data[:int(len(data) * share)])
    try:
        with open_bag(file) as bag:
            list(bag.items([topic.name for topic in bag.topics if topic.role]))
    except BagError as error:
        assert str(file) in str(error)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(
        [messages.IMAGE, messages.EVENT_PACKET, messages.EVENT_ARRAY, messages.INSTANCES]
    ),
)
def test_any_bytes_are_a_message_or_a_bag_error(data, msgtype):
    for head in (b'', b'\0\1\0\0', b'\0\0\0\0'):
        with contextlib.suppress(BagError, FrameError):
            {
                messages.IMAGE: messages.read_frame,
                messages.EVENT_PACKET: messages.read_packet,
                messages.EVENT_ARRAY: messages.read_event_array,
                messages.INSTANCES: read_result,
            }[msgtype](head + data)


@pytest.mark.parametrize('frame_id', ['', 'a', 'ab', 'abc', 'abcd', 'camera'])
@pytest.mark.parametrize('count', [0, 1, 2, 3, 50])
def test_event_array_equals_rosbags_objects(frame_id, count):
    t = np.sort(RNG.integers(0, 3 * 10**9, count))
    x, y, p = (
        RNG.integers(0, 65536, count),
        RNG.integers(0, 65536, count),
        RNG.integers(0, 2, count),
    )
    events = [
        messages.make(
            'dvs_msgs/msg/Event',
            x=int(x[n]),
            y=int(y[n]),
            polarity=bool(p[n]),
            ts=messages.make(
                'builtin_interfaces/msg/Time', sec=int(t[n] // 10**9), nanosec=int(t[n] % 10**9)
            ),
        )
        for n in range(count)
    ]
    cdr = messages.serialize(
        messages.EVENT_ARRAY,
        messages.make(
            messages.EVENT_ARRAY,
            header=messages.header(5 * 10**9 + 6, frame_id),
            height=260,
            width=346,
            events=events,
        ),
    )
    for data in (cdr, cdr + bytes(-len(cdr) % 4)):  # some writers pad the end
        got = messages.read_event_array(data)
        assert (got.stamp_ns, got.height, got.width, len(got.events)) == (
            5 * 10**9 + 6,
            260,
            346,
            count,
        )
        assert got.frame_id.rstrip('\0') == frame_id
        for name, expected in (('x', x), ('y', y), ('p', p), ('t', t)):
            np.testing.assert_array_equal(getattr(got.events, name), expected)
        assert [
            column.dtype for column in (got.events.x, got.events.y, got.events.p, got.events.t)
        ] == [np.uint16, np.uint16, np.uint8, np.int64]
    for cut in range(0, len(cdr), 7):
        with pytest.raises(BagError):
            messages.read_event_array(cdr[:cut])


def test_event_array_sorts_and_refuses_a_huge_count():
    events = [
        messages.make(
            'dvs_msgs/msg/Event',
            x=n,
            y=0,
            polarity=True,
            ts=messages.make('builtin_interfaces/msg/Time', sec=9 - n, nanosec=0),
        )
        for n in range(3)
    ]
    cdr = messages.serialize(messages.EVENT_ARRAY, messages.make(
        messages.EVENT_ARRAY, header=messages.header(0, ''), height=2, width=4, events=events))
    assert messages.read_event_array(cdr).events.x.tolist() == [2, 1, 0]
    at = cdr.index(struct.pack('<III', 2, 4, 3)) + 8
    with pytest.raises(BagError):
        messages.read_event_array(cdr[:at] + struct.pack('<I', 2**32 - 1) + cdr[at + 4:])


def result() -> Result:
    masks = np.zeros((3, 24, 32), bool)
    masks[0, 2:8, 3:9], masks[1, 10:20, 12:30] = True, True
    masks[1, 12:14, 14:16] = False
    masks[2, 23, 31] = True
    instances = Instances(
        masks,
        np.array([[3, 2, 9, 8], [12, 10, 30, 20], [31, 23, 32, 24]], np.float32),
        np.array([0.9, 0.5, 0.2], np.float32),
        np.array([0.95, 0.6, 0.3], np.float32),
        np.array([True, True, False]),
        np.zeros((3, 4), np.float32),
    )
    tracks = Tracks(
        np.array([4, 7, 9]),
        np.array([1, 2, 0]),
        np.array([1.0, 2.0, 0.0]),
        instances.boxes,
        np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        np.array([1, -1, 0]),
    )
    return Result(
        10**9 + 1,
        'camera',
        instances,
        tracks,
        None,
        Modality.FRAME,
        'm1',
        3,
        'no events',
        {'engine': 2.5},
    )


def test_result_round_trip(tmp_path):
    before = result()
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_result('/mos_perception/instances', before, 5)
    with open_bag(tmp_path / 'bag') as bag:
        assert bag.candidates('results') == ['/mos_perception/instances']
        (at, back), = bag.items(['/mos_perception/instances'])
    assert at == 5 and isinstance(back, NodeResult)
    assert (
        back.stamp_ns,
        back.frame_id,
        back.modality,
        back.model_id,
        back.epoch,
        back.degraded,
        back.stage_ms,
    ) == (before.stamp_ns, 'camera', Modality.FRAME, 'm1', 3, 'no events', {'engine': 2.5})
    for name in ('masks', 'boxes', 'scores', 'motion_scores', 'moving'):
        np.testing.assert_array_equal(
            getattr(back.instances, name), getattr(before.instances, name)
        )
    assert back.tracks.ids.tolist() == [9, 4] and back.tracks.instance.tolist() == [0, 1]
    assert back.tracks.states.tolist() == [TrackState.CONFIRMED.value] * 2
    assert back.tracks.velocities.tolist() == [[5, 6], [1, 2]]
    assert result_digest(back) == result_digest(before)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_mask_runs_equal_those_of_pycocotools(height, width, seed, share):
    from pycocotools import mask as coco
    mask = np.random.default_rng(seed).random((height, width)) < share
    counts = np.frombuffer(coco.encode(np.asfortranarray(mask, np.uint8))['counts'], np.uint8)
    row = messages.make(
        'mos_msgs/msg/Instance',
        track_id=1,
        label='',
        score=1.0,
        motion_score=1.0,
        is_moving=True,
        box=np.zeros(4, np.float32),
        mask_encoding='coco_rle',
        mask_size=np.array([height, width]),
        mask=counts,
        velocity=np.zeros(2, np.float32),
    )
    np.testing.assert_array_equal(results._decode(row, (height, width)), mask)


def test_digest_sees_masks_scores_and_ids():
    before = result()
    digests = {result_digest(before)}
    before.instances.masks[0, 0, 0] = True
    digests.add(result_digest(before))
    before.instances.scores[2] = 0.21
    digests.add(result_digest(before))
    before.tracks.ids[0] = 5
    digests.add(result_digest(before))
    assert len(digests) == 4


def test_result_with_a_wrong_mask_is_refused(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_result('/instances', result(), 5)
    with open_bag(tmp_path / 'bag') as bag:
        data = next(bag.messages()).data
    message = messages.deserialize(messages.INSTANCES, data)
    for name, value in (('mask_encoding', 'png'), ('mask_size', np.array([24, 31], np.uint32))):
        copy = messages.deserialize(messages.INSTANCES, data)
        setattr(copy.instances[0], name, value)
        with pytest.raises(BagError, match='coco_rle'):
            read_result(messages.serialize(messages.INSTANCES, copy))
    for code in (b'', b'junk', b'\xff' * 9, b'000', bytes(data[-1:])):
        copy = messages.deserialize(messages.INSTANCES, data)
        copy.instances[0].mask = np.frombuffer(code, np.uint8)
        with pytest.raises(BagError, match='768'):
            read_result(messages.serialize(messages.INSTANCES, copy))
    message.modality = 9
    with pytest.raises(BagError, match='modality 9'):
        read_result(messages.serialize(messages.INSTANCES, message))


@pytest.mark.parametrize(
    'name, encoding, size, packets, payload',
    [
        ('test_events_1', 'evt3', (480, 640), 517, 2250308),
        ('test_events_2', 'libcaer_cmp', (260, 346), 100, 3096440),
    ],
)
def test_real_bags(data_dir, name, encoding, size, packets, payload):
    folder = data_dir / 'events' / 'event_camera_py' / name
    with open_bag(folder) as bag:
        assert bag.pick() == ('', '/event_camera/events')
        found = [value for _, value in bag.items(['/event_camera/events'])]
        assert bag.fault == ''
    assert len(found) == packets and all(isinstance(value, EventPacket) for value in found)
    assert {(value.encoding, value.height, value.width) for value in found} == {(encoding, *size)}
    assert [value.seq for value in found] == list(range(found[0].seq, found[0].seq + packets))
    assert sum(value.payload.size for value in found) == payload


def test_real_mcap_truncated(data_dir, tmp_path):
    data = (
        data_dir / 'events' / 'event_camera_py' / 'test_events_2' / 'test_events_2_0.mcap'
    ).read_bytes()
    file = tmp_path / 'cut.mcap'
    file.write_bytes(data[:int(len(data) * 0.7)])
    with open_bag(file) as bag:
        assert 40 < len(list(bag.items(['/event_camera/events']))) < 80
        assert 'cut.mcap' in bag.fault
