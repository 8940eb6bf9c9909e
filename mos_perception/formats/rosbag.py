"""rosbag2: frames as sensor_msgs/Image, events as EventPacket (evt3, mono), truth as mos_msgs/Instances + id image.

Written as a live recording would be: a packet is received after its last event. Lost: evt3 keeps microseconds
and sides up to 2048 px (mono keeps all); flow, depth and boxes are left out; objects that are not visible lose their
flag. A bag has no time 0 ("not set"), so a sequence that starts before 1 s is moved by 1 s and `write` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mos_perception.recording.bag import BagWriter, GroundTruth, open_bag
from mos_perception.datatypes import EventPacket, Events, Frame, Skip
from mos_perception.errors import DatasetError
from mos_perception.events.decode import EventStream
from mos_perception.events.encode import encode_evt3, encode_mono
from mos_perception.formats.sequence import Sequence
from mos_perception.recording.messages import EventArray
from mos_perception.recording.storage import TRUTH_IMAGE, TRUTH_INSTANCES

IMAGE_TOPIC, EVENTS_TOPIC, FRAME_ID = '/camera/image_raw', '/event_camera/events', 'camera_optical'
PACKET_NS = 5_000_000
START_NS = 1_000_000_000
EVT3_SIDE = 2048


def find(path: str | Path) -> list[str]:
    """['bag'] where `path` is a rosbag2 folder, .mcap or .db3."""
    path = Path(path)
    is_bag = (path / 'metadata.yaml').is_file() if path.is_dir() else path.suffix in ('.mcap', '.db3')
    is_bag = is_bag or (path.is_dir() and any([*path.glob('*.mcap'), *path.glob('*.db3')]))
    return [path.stem] if is_bag and path.exists() else []


def write(sequence: Sequence, path: str | Path, encoding: str = 'auto', storage: str = 'mcap', compress: bool = True,
          image_topic: str = IMAGE_TOPIC) -> Path:
    """Write a sequence as a new bag; returns its path. `encoding` evt3, mono, or auto: evt3 where the sensor fits.

    Raises BagError, and DatasetError for an unknown encoding or a sensor that evt3 cannot hold.
    """
    height, width = sequence.event_size or sequence.size
    fits = max(height, width) <= EVT3_SIDE
    if encoding == 'auto':
        encoding = 'evt3' if fits else 'mono'
    if encoding not in ('evt3', 'mono') or (encoding == 'evt3' and not fits):
        raise DatasetError(f'event encoding is {encoding!r} for {width} x {height} px: use evt3 (sides up to '
                           f'{EVT3_SIDE}) or mono')
    sequence = sequence.shifted(shift_of(sequence))
    order = sorted(_timed(sequence, encoding), key=lambda entry: entry[:2])
    with BagWriter(path, storage, compress) as bag:
        for at, kind, value in order:
            if kind == 0:
                bag.write_packet(EVENTS_TOPIC, value(), at)
            elif (frame := sequence.frame(value)) is not None and kind == 1:
                bag.write_frame(image_topic, Frame(frame.stamp_ns, frame.image, FRAME_ID), at)
            elif kind == 2 and (ids := sequence.truth(value)) is not None:
                bag.write_truth(GroundTruth(at, np.ascontiguousarray(ids), sequence.flags(value)), FRAME_ID, at)
    return Path(path)


def shift_of(sequence: Sequence) -> int:
    """ns that `write` moves a sequence by: one second where it starts too near 0, else 0."""
    times = [int(column[0]) for column in (sequence.stamps_ns, (sequence.events or Events.empty()).t) if len(column)]
    return START_NS if times and min(times) <= PACKET_NS else 0


def _timed(sequence: Sequence, encoding: str) -> Iterator[tuple[int, int, object]]:
    """(receive time, 0 packet maker | 1 frame number | 2 truth number, value)."""
    for n, stamp in enumerate(sequence.stamps_ns):
        yield int(stamp), 1, n
        yield int(stamp), 2, n
    events = sequence.events
    if events is None or not (len(events) or len(sequence)):
        return
    times = np.concatenate([sequence.stamps_ns[:1], sequence.stamps_ns[-1:], events.t[:1], events.t[-1:]])
    zero = int(times.min()) // 1000 * 1000
    spans = range(zero, int(times.max()) + 1, PACKET_NS)
    for seq, start in enumerate(spans):
        yield start + PACKET_NS, 0, lambda seq=seq, start=start: _packet(sequence, encoding, seq, start, zero)


def _packet(sequence: Sequence, encoding: str, seq: int, start: int, zero: int) -> EventPacket:
    """The events of [start, start + PACKET_NS), stamped by their first sensor time: the clock offset is constant."""
    events = sequence.events.between(start - 1, start + PACKET_NS - 1)
    first = int(events.t[0]) if len(events) else start
    height, width = sequence.event_size or sequence.size
    if encoding == 'mono':
        payload, stamp, base = encode_mono(events, start), first, start
    else:
        sensor = Events(events.x, events.y, events.p, events.t - zero)
        payload = encode_evt3(sensor, until_us=(start + PACKET_NS - 1 - zero) // 1000)
        base, stamp = 0, first // 1000 * 1000 if len(events) else start + PACKET_NS - 1000
    return EventPacket(stamp, encoding, height, width, seq, base, np.frombuffer(payload, np.uint8), FRAME_ID)


def read(path: str | Path, name: str = '', image_topic: str | None = None, events_topic: str | None = None) -> Sequence:
    """A bag as a sequence, all in memory; what could not be used is in its notes. Raises BagError, DatasetError.

    Rows are the stamps of frames, and of truth where there are no frames.
    """
    with open_bag(path) as bag:
        image, packets = bag.pick(image_topic, events_topic)
        truth = [topic for topic in (TRUTH_IMAGE, TRUTH_INSTANCES) if topic in bag.candidates('truth')]
        frames: dict[int, Frame] = {}
        truths: dict[int, GroundTruth] = {}
        stream, parts, skips, sensor = EventStream(), [], [], None
        for _, value in bag.items({topic for topic in (image, packets, *truth) if topic}):
            if isinstance(value, Frame):
                frames[value.stamp_ns] = value
            elif isinstance(value, GroundTruth):
                truths[value.stamp_ns] = value
            elif isinstance(value, Skip):
                skips.append(value)
            elif isinstance(value, (EventPacket, EventArray)):
                sensor = sensor or (value.height, value.width)
                found, _, lost = (stream.push(value) if isinstance(value, EventPacket)
                                  else stream.push_events(value.events, value.height, value.width))
                parts.append(found)
                skips += lost
        notes = (*(f'{skip.reason.value}: {skip.detail}' for skip in skips[:20]), *filter(None, [bag.fault]))
    return _assembled(Path(path).stem, frames, truths, Events.concatenate(parts) if sensor else None, sensor, notes)


def _assembled(name: str, frames: dict[int, Frame], truths: dict[int, GroundTruth], events: Events | None,
               sensor: tuple[int, int] | None, notes: tuple[str, ...]) -> Sequence:
    stamps = sorted({*frames, *truths})
    sizes = {frame.size for frame in frames.values()} | {truth.ids.shape for truth in truths.values()}
    if len(sizes) > 1:
        raise DatasetError(f'{name}: frames and truth have sizes {sorted(sizes)}: they must agree; split the recording')
    size = next(iter(sizes), sensor or (0, 0))
    images = ids = moving = None
    if frames:
        images = np.stack([frames[stamp].image if stamp in frames else np.zeros((*size, 3), np.uint8)
                           for stamp in stamps])
    if truths:
        ids = np.stack([truths[stamp].ids if stamp in truths else np.zeros(size, np.uint16) for stamp in stamps])
        moving = tuple(truths[stamp].moving if stamp in truths else {} for stamp in stamps)
    pictured, labelled = (np.array([stamp in known for stamp in stamps], bool) for known in (frames, truths))
    return Sequence(name, size, np.array(stamps, np.int64), images, events, sensor, ids, moving,
                    pictured=None if pictured.all() else pictured, labelled=None if labelled.all() else labelled,
                    notes=notes)
