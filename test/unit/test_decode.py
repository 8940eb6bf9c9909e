"""Decoders against the plain Python oracle, real recordings and bad input; EventStream's skips."""

import sqlite3
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import EventPacket, Events, SkipReason
from mos_perception.errors import ConfigError, DecodeError
from mos_perception.events import warm_up
from mos_perception.events.decode import WORD_BYTES, Decoder, EventStream
from mos_perception.events.encode import (
    encode_evt3,
    encode_libcaer,
    encode_libcaer_cmp,
    encode_mono,
)
from mos_perception.events.event_camera import EventCameraPyDecoder
from mos_perception.events.reference import Reference

DEFINITION = Path(__file__).parents[1] / 'ros/interfaces/event_camera_msgs/msg/EventPacket.msg'
HIGH, LOW, ROW, COLUMN = 0x8000, 0x6000, 0x0000, 0x2000
BASE, VECT_12, VECT_8 = 0x3000, 0x4000, 0x5000
ON = 0x800


def packet(payload, encoding='evt3', height=12, width=40, seq=0, stamp=1_000_000_000, time_base=0):
    words = np.array(payload, '<u2').tobytes() if isinstance(payload, list) else bytes(payload)
    return EventPacket(stamp, encoding, height, width, seq, time_base,
                       np.frombuffer(words, np.uint8))


def rows(decoded):
    return list(zip(decoded.x.tolist(), decoded.y.tolist(), decoded.p.tolist(),
                    decoded.t_sensor.tolist()))


def compare(encoding, payloads, height=12, width=40, time_base=0):
    """Every packet of a stream: same events and counts from the compiled and the plain decoder."""
    decoder, oracle = Decoder(encoding, height, width), Reference(encoding, width, height)
    for payload in payloads:
        decoded = decoder.decode(packet(payload, encoding, height, width, time_base=time_base))
        assert rows(decoded) == oracle.decode(bytes(payload), time_base)
        counts = decoded.out_of_bounds, decoded.bad_words
        assert counts == (oracle.out_of_bounds, oracle.bad_words)
        assert decoded.truncated == (len(payload) % WORD_BYTES[encoding] != 0)


evt3_words = st.lists(st.one_of(
    st.integers(0, 0xFFFF), st.integers(0, 15).map(lambda y: ROW | y),
    st.integers(0, 45).map(lambda x: COLUMN | ON | x),
    st.integers(0, 45).map(lambda x: BASE | x),
    st.integers(0, 0xFFF).map(lambda mask: VECT_12 | mask),
    st.integers(0, 0xFF).map(lambda mask: VECT_8 | mask),
    st.integers(0, 0xFFF).map(lambda low: LOW | low),
    st.sampled_from([0, 1, 2, 11, 12, 13, 0xFFF]).map(lambda high: HIGH | high)), max_size=80)


@settings(max_examples=300, deadline=None)
@given(st.lists(evt3_words, min_size=1, max_size=3), st.integers(0, 1))
def test_evt3_equals_oracle(packets, odd):
    compare('evt3', [np.array(words, '<u2').tobytes() + b'\x81' * odd for words in packets])


@settings(max_examples=100, deadline=None)
@given(evt3_words, st.sampled_from([2048, 4096, 4097, 8224, 16384]))
def test_evt3_of_sensors_wider_than_its_words_can_say(words, side):
    """Words of other codes once passed for events there, and overran the arrays."""
    compare('evt3', [np.array([HIGH | 1, LOW | 1, *words], '<u2').tobytes()], side, side)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(['libcaer_cmp', 'libcaer', 'mono']),
       st.lists(st.binary(max_size=200), min_size=1, max_size=3),
       st.integers(0, 2 ** 40))
def test_other_encodings_equal_oracle(encoding, payloads, time_base):
    compare(encoding, payloads, 3000, 3000, time_base)
    compare(encoding, payloads, 12, 40, time_base)


def test_evt3_waits_for_high_then_low():
    decoder = Decoder('evt3', 12, 40)
    assert not len(decoder.decode(packet([LOW | 5, ROW | 3, COLUMN | 1, HIGH | 2, COLUMN | 2])).x)
    decoded = decoder.decode(packet([COLUMN | 3, LOW | 7, COLUMN | ON | 4]))
    assert rows(decoded) == [(4, 3, 1, ((2 << 12) + 7) * 1000)]


@pytest.mark.fault(8, 'EVT3 time that wraps four times, with noise in its high word',
                   'int64 ns that go on past every wrap; noise is no wrap')
def test_evt3_wraps_and_bit_noise():
    decoder = Decoder('evt3', 12, 40)
    times, wanted = [], []
    for wraps in range(5):
        for high in (5, 3, 4090, 4095):  # wrap, noise, onward
            decoded = decoder.decode(packet([HIGH | high, LOW | 1, ROW | 1, COLUMN | 1]))
            times += decoded.t_sensor.tolist()
            wanted.append(((wraps << 24) + (high << 12) + 1) * 1000)
    assert times == wanted and decoded.t_sensor.dtype == np.int64


def test_evt3_state_carries_over_every_cut():
    rng = np.random.default_rng(0)
    events = Events(np.sort(rng.integers(0, 40, 300)).astype(np.uint16),
                    rng.integers(0, 12, 300).astype(np.uint16),
                    rng.integers(0, 2, 300).astype(np.uint8),
                    np.sort(rng.integers(0, 60_000, 300)) * 1000)
    payload = encode_evt3(events, vectors=True)
    whole = rows(Decoder('evt3', 12, 40).decode(packet(payload)))
    decoder, pieces = Decoder('evt3', 12, 40), []
    for start in range(0, len(payload), 14):
        pieces += rows(decoder.decode(packet(payload[start:start + 14])))
    assert pieces == whole


def test_known_time_without_events():
    decoded = Decoder('evt3', 12, 40).decode(packet([HIGH | 1, LOW | 9, HIGH | 1, LOW | 11]))
    assert decoded.first_sensor_ns == (4096 + 9) * 1000
    assert decoded.last_sensor_ns == (4096 + 11) * 1000
    assert Decoder('evt3', 12, 40).decode(packet([])).last_sensor_ns is None
    # A TIME_HIGH alone does not say that the time came: its TIME_LOW is missing.
    decoded = Decoder('evt3', 12, 40).decode(packet([HIGH | 1, LOW | 9, HIGH | 2]))
    assert decoded.last_sensor_ns == (4096 + 9) * 1000


@pytest.mark.parametrize(('encoding', 'height', 'width'),
                         [('evt2', 10, 10), ('', 10, 10), ('evt3', 0, 10),
                                                            ('evt3', 10, 20000)])
def test_decoder_refuses(encoding, height, width):
    with pytest.raises(DecodeError):
        Decoder(encoding, height, width)


@pytest.mark.parametrize('kind', ['read-only', 'unaligned', 'strided'])
def test_payload_memory_layouts(kind):
    payload = np.frombuffer(np.array([HIGH, LOW | 1, ROW | 1, COLUMN | 2], '<u2').tobytes(),
                            np.uint8)
    if kind == 'unaligned':
        payload = np.concatenate([[np.uint8(0)], payload])[1:]
    if kind == 'strided':
        payload = np.repeat(payload, 2)[::2]
    decoded = Decoder('evt3', 12, 40).decode(EventPacket(1, 'evt3', 12, 40, 0, 0, payload))
    assert rows(decoded) == [(2, 1, 0, 1000)]


# --- EventStream


GOOD = [HIGH | 1, LOW | 1, ROW | 1, COLUMN | 1, LOW | 2, COLUMN | 2]


def push_all(*packets):
    stream = EventStream()
    return [stream.push(one) for one in packets]


def reasons(skips):
    return [(skip.reason, skip.count) for skip in skips]


def test_stream_maps_and_marks():
    (events, watermark, skips), = push_all(packet(GOOD))
    assert events.t.tolist() == [1_000_000_000, 1_000_001_000] and events.t.dtype == np.int64
    assert (events.x.dtype, events.y.dtype, events.p.dtype) == (np.uint16, np.uint16, np.uint8)
    # More events of the last microsecond may follow.
    assert watermark == 1_000_001_000 - 1 and skips == []


def test_no_later_packet_gives_events_at_or_before_the_watermark():
    stream, rng = EventStream(), np.random.default_rng(0)
    watermark, sensor_us = -1, 0
    for seq in range(200):
        sensor_us += int(rng.integers(0, 3000))
        events = Events(*(np.ones(1, kind) for kind in (np.uint16, np.uint16, np.uint8)),
                        np.array([sensor_us * 1000]))
        stamp = 10 ** 9 + sensor_us * 1000 + int(rng.integers(0, 4_000_000))
        decoded, mark, skips = stream.push(packet(encode_evt3(events), seq=seq, stamp=stamp))
        assert decoded.t[0] > watermark and mark >= watermark and skips == []
        watermark = mark


def test_sequence_gap_and_step_back():
    results = push_all(*(packet(GOOD, seq=seq) for seq in (5, 6, 10, 2, 3)))
    gap = [(SkipReason.PACKET_GAP, 3)]
    assert [reasons(skips) for _, _, skips in results] == [[], [], gap, [], []]
    assert all(len(events) == 2 for events, _, _ in results)


def test_size_and_encoding_change():
    results = push_all(packet(GOOD), packet(GOOD, seq=1, width=41), packet(b'', 'mono', seq=2),
                       packet(GOOD, seq=3))
    assert [reasons(skips) for _, _, skips in results] == [[], [(SkipReason.SIZE_CHANGED, 1)],
                                                           [(SkipReason.ENCODING_CHANGED, 1)], []]
    assert [len(events) for events, _, _ in results] == [2, 0, 0, 2]


@pytest.mark.parametrize(('bad', 'expected', 'kept'), [
    (np.array(GOOD, '<u2').tobytes() + b'\x01', [(SkipReason.BAD_PACKET, 1)], 2),
    (np.array([*GOOD, 0x1000, 0x9000, COLUMN | 3], '<u2').tobytes(), [(SkipReason.BAD_PACKET, 1)],
     3),
    (np.array([*GOOD, COLUMN | 40, ROW | 12, COLUMN | 1], '<u2').tobytes(),
     [(SkipReason.OUT_OF_BOUNDS, 2)], 2),
    (b'', [], 0), (b'\x07', [(SkipReason.BAD_PACKET, 1)], 0)])
def test_bad_packet_then_good(bad, expected, kept):
    (events, _, skips), (after, _, none) = push_all(packet(bad),
                                                    packet(GOOD, seq=1, stamp=1_000_000_001))
    assert (reasons(skips), len(events)) == (expected, kept)
    assert all(skip.detail for skip in skips)
    assert len(after) == 2 and none == []


def test_unknown_encoding_size_and_time_base():
    stream = EventStream()
    for bad in (packet(GOOD, 'evt9'), packet(GOOD, width=0),
                packet(b'\0' * 8, 'mono', time_base=2 ** 63)):
        events, watermark, skips = stream.push(bad)
        assert len(events) == 0 and watermark is None
        assert reasons(skips) == [(SkipReason.BAD_PACKET, 1)]
    stream.reset()
    assert len(stream.push(packet(GOOD))[0]) == 2


def test_push_events():
    stream = EventStream()
    events = Events(np.array([1, 50, 2], np.uint16), np.array([1, 1, 2], np.uint16),
                    np.ones(3, np.uint8),
                    np.array([10, 20, 15]))
    decoded, watermark, skips = stream.push_events(events, 12, 40, 7)
    assert decoded.t.tolist() == [10, 15] and watermark == 14
    assert reasons(skips) == [(SkipReason.OUT_OF_BOUNDS, 1)]
    decoded, watermark, skips = stream.push_events(events, 12, 40, 9)
    assert reasons(skips) == [(SkipReason.PACKET_GAP, 1), (SkipReason.OUT_OF_BOUNDS, 1)]
    assert decoded.t.tolist() == [15, 15]  # never backwards
    assert events.t.tolist() == [10, 20, 15]
    assert reasons(stream.push_events(events, 13, 40)[2]) == [(SkipReason.SIZE_CHANGED, 1)]
    empty, watermark, skips = stream.push_events(Events.empty(), 12, 40)
    assert len(empty) == 0 and watermark is None and skips == []


# --- real recordings


def messages(path):
    """The EventPacket messages of a bag, in order, deserialised by rosbags."""
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    name = 'event_camera_msgs/msg/EventPacket'
    store.register(typesys.get_types_from_msg(DEFINITION.read_text(), name))
    if path.suffix == '.db3':
        with sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True) as base:
            found = base.execute('SELECT data FROM messages ORDER BY timestamp, id')
            blobs = [row[0] for row in found]
    else:
        reader = pytest.importorskip('mcap.reader')
        with open(path, 'rb') as file:
            blobs = [one.data for _, _, one in reader.make_reader(file).iter_messages()]
    for blob in blobs:
        yield store.deserialize_cdr(blob, name)


def packets(path):
    for one in messages(path):
        stamp = one.header.stamp.sec * 10 ** 9 + one.header.stamp.nanosec
        yield EventPacket(stamp, one.encoding, one.height, one.width, one.seq, one.time_base,
                          one.events,
                          one.header.frame_id)


RECORDINGS = {'test_events_1': 'test_events_1.db3', 'test_events_2': 'test_events_2_0.mcap'}


@pytest.mark.parametrize('name', RECORDINGS)
def test_recording_equals_oracle(name, data_dir):
    stream, decoder, oracle, total, last = EventStream(), None, None, 0, -1
    path = data_dir / 'events/event_camera_py' / name / RECORDINGS[name]
    for number, one in enumerate(packets(path)):
        if decoder is None:
            decoder = Decoder(one.encoding, one.height, one.width)
            oracle = Reference(one.encoding, one.width, one.height)
        decoded = decoder.decode(one)
        total += len(decoded.x)
        assert decoded.bad_words == decoded.out_of_bounds == 0 and not decoded.truncated
        if number < 120:  # the oracle is slow
            assert rows(decoded) == oracle.decode(one.payload.tobytes(), one.time_base)
        events, watermark, skips = stream.push(one)
        assert skips == [] and watermark >= last
        if len(events):
            assert (events.t > last).all() and (np.diff(events.t) >= 0).all()
            assert abs(int(events.t[0]) - one.stamp_ns) < 50_000_000
        last = watermark
    assert (name, total) == (name, {'test_events_1': 343_474}.get(name, total)) and total > 0


@pytest.mark.parametrize('name', RECORDINGS)
def test_recording_equals_event_camera_py(name, data_dir):
    theirs = pytest.importorskip('event_camera_py',
                                 reason='event_camera_py exists only in a ROS distribution')
    path = data_dir / 'events/event_camera_py' / name / RECORDINGS[name]
    decoder, other = None, theirs.Decoder()
    for message, one in zip(messages(path), packets(path)):
        decoder = decoder or Decoder(one.encoding, one.height, one.width)
        other.decode_bytes(one.encoding, one.width, one.height, one.time_base,
                           message.events.tobytes())
        ours, seen = decoder.decode(one), other.get_cd_events()
        for key, mine in (('x', ours.x), ('y', ours.y), ('p', ours.p)):
            assert np.array_equal(seen[key], mine)
        if one.encoding == 'evt3':
            assert np.array_equal(seen['t'], ours.t_sensor // 1000)


def test_raw_file_equals_oracle(data_dir):
    data = (data_dir / 'events/raw/evt3_1280x720.raw').read_bytes()
    while data.startswith(b'%'):
        data = data[data.index(b'\n') + 1:]
    compare('evt3', [data[start:start + 65536] for start in range(0, len(data), 65536)], 720, 1280)


def test_warm_up_runs():
    warm_up()


class PackageDecoder:
    """The calling convention of event_camera_py's Decoder, over the oracle."""

    def __init__(self):
        self.oracle, self.events = None, []

    def decode_bytes(self, encoding, width, height, time_base, buffer):
        if not isinstance(buffer, bytes):
            raise TypeError('decode_bytes(): incompatible function arguments')
        self.oracle = self.oracle or Reference(encoding, width, height)
        self.events = list(self.oracle.decode(buffer, time_base))

    def get_cd_events(self):
        found = np.zeros(len(self.events), np.dtype({
            'names': ['x', 'y', 'p', 't'], 'formats': ['<u2', '<u2', 'i1', '<i4'],
            'offsets': [0, 2, 4, 8], 'itemsize': 12}))
        for n, (x, y, p, ns) in enumerate(self.events):
            found[n] = x, y, p, (ns // 1000 + 2 ** 31) % 2 ** 32 - 2 ** 31
        return found


@pytest.fixture
def event_camera_py(monkeypatch):
    module = types.ModuleType('event_camera_py')
    module.Decoder = PackageDecoder
    monkeypatch.setitem(sys.modules, 'event_camera_py', module)


@pytest.mark.parametrize('encode', [
    lambda events, start: encode_evt3(events), encode_mono, encode_libcaer, encode_libcaer_cmp])
def test_event_camera_py_gives_the_same_events(encode, event_camera_py):
    """Event by event, over a wrap of its 32-bit microseconds; times up to a constant."""
    encoding = {'encode_mono': 'mono', 'encode_libcaer': 'libcaer',
                'encode_libcaer_cmp': 'libcaer_cmp'}.get(encode.__name__, 'evt3')
    rng, start = np.random.default_rng(1), 2 ** 31 * 1000 - 50_000_000
    ours, theirs = Decoder(encoding, 12, 40), EventCameraPyDecoder(encoding, 12, 40)
    shift = None
    for number in range(10):
        t = start + np.sort(rng.integers(0, 10_000, 50)) * 1000 + number * 10_000_000
        events = Events(rng.integers(0, 40, 50).astype(np.uint16),
                        rng.integers(0, 12, 50).astype(np.uint16),
                        rng.integers(0, 2, 50).astype(np.uint8), t.astype(np.int64))
        base = start + number * 10_000_000
        one = packet(encode(events, base), encoding, time_base=base)
        mine, other = ours.decode(one), theirs.decode(one)
        assert len(mine.x) == 50
        for name in ('x', 'y', 'p'):
            assert np.array_equal(getattr(mine, name), getattr(other, name))
        shift = mine.t_sensor[0] - other.t_sensor[0] if shift is None else shift
        assert (mine.t_sensor - other.t_sensor == shift).all()
        assert other.last_sensor_ns == other.t_sensor[-1] and not other.truncated


def test_stream_by_event_camera_py(event_camera_py):
    events = Events(*(np.ones(3, kind) for kind in (np.uint16, np.uint16, np.uint8)),
                    np.array([5, 6, 7], np.int64) * 1_000_000)
    streams = EventStream(), EventStream('event_camera_py')
    for number in range(3):
        one = packet(encode_evt3(events), seq=number, stamp=1_000_000_000 + number * 20_000_000)
        found, seen = (stream.push(one) for stream in streams)
        assert np.array_equal(found[0].t, seen[0].t) and found[2] == seen[2]
        events = Events(events.x, events.y, events.p, events.t + 20_000_000)
    empty = streams[1].push(packet(b'', seq=3))
    assert len(empty[0]) == 0 and empty[1] is None and empty[2] == []
    streams[1].reset()
    refused = streams[1].push(packet(b'', 'aer'))[2]
    assert [skip.reason for skip in refused] == [SkipReason.BAD_PACKET]


def test_what_event_camera_py_raises_costs_one_packet(event_camera_py, monkeypatch):
    stream, good = EventStream('event_camera_py'), packet([HIGH | 1, LOW | 1, ROW | 3, COLUMN | 1])

    def fail(*arguments):
        raise RuntimeError('unsupported encoding')
    assert len(stream.push(good)[0]) == 1
    monkeypatch.setattr(PackageDecoder, 'decode_bytes', fail)
    events, _, skips = stream.push(good)
    assert len(events) == 0 and 'event_camera_py: unsupported encoding' in skips[0].detail
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'event_camera_py', types.SimpleNamespace(
        Decoder=PackageDecoder))
    assert len(stream.push(good)[0]) == 1


def test_event_camera_py_is_asked_for_and_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, 'event_camera_py', None)
    with pytest.raises(ConfigError, match='install ros-.*-event-camera-py or use event_decoder'):
        EventStream('event_camera_py')
