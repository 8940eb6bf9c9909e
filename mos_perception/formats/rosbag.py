"""rosbag2: frames as sensor_msgs/Image, events as EventPacket, truth as mos_msgs/Instances + ids.

Events are written as evt3 or mono packets, as a live recording would have them: a packet is
received after its last event. Lost: evt3 keeps microseconds and sides up to 2048 px (mono keeps
all); flow, depth and boxes are left out; objects that are not visible lose their flag. A bag has no
time 0 ("not set"), so a sequence that starts at 5 ms or before is moved by 1 s: see `shift_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mos_perception.datatypes import EventPacket, Events, Frame, GroundTruth, Skip, SkipReason
from mos_perception.errors import DatasetError
from mos_perception.events.decode import EventStream
from mos_perception.events.encode import encode_evt3, encode_mono
from mos_perception.formats.event_inspector import EventInspector
from mos_perception.formats.findings import Report
from mos_perception.formats.sequence import START_NS, Sequence, rows_in
from mos_perception.recording.bag import Bag, BagWriter, open_bag
from mos_perception.recording.messages import EventArray
from mos_perception.recording.storage import TRUTH_IMAGE, TRUTH_INSTANCES

IMAGE_TOPIC, EVENTS_TOPIC = '/camera/image_raw', '/event_camera/events'
FRAME_ID = 'camera_optical'
PACKET_NS = 5_000_000
EVT3_SIDE = 2048
MAX_NOTES = 20  # of what was skipped
_PACKET, _FRAME, _TRUTH = range(3)  # the order of what is received at one time
_FINDINGS = {SkipReason.OUT_OF_BOUNDS: 'coordinates', SkipReason.SIZE_CHANGED: 'size-differs',
             SkipReason.PACKET_GAP: 'packet-gap'}


def find(path: str | Path) -> list[str]:
    """The name of the bag where `path` is a rosbag2 folder, .mcap or .db3."""
    path = Path(path)
    if path.is_dir():
        parts = [*path.glob('*.mcap'), *path.glob('*.db3')]
        is_bag = bool(parts) or (path / 'metadata.yaml').is_file()
    else:
        is_bag = path.suffix in ('.mcap', '.db3') and path.exists()
    return [path.stem] if is_bag else []


def write(sequence: Sequence, path: str | Path, encoding: str = 'auto', storage: str = 'mcap',
          compress: bool = True, image_topic: str = IMAGE_TOPIC) -> Path:
    """Write a sequence as a new bag; returns its path.

    `encoding` of the events: evt3, mono, or auto (evt3 where the sensor fits). `storage`: mcap or
    sqlite3. Raises BagError, and DatasetError for an unknown encoding or a sensor that evt3 cannot
    hold.
    """
    height, width = sequence.event_size or sequence.size
    fits = max(height, width) <= EVT3_SIDE
    if encoding == 'auto':
        encoding = 'evt3' if fits else 'mono'
    if encoding not in ('evt3', 'mono') or (encoding == 'evt3' and not fits):
        raise DatasetError(f'event encoding is {encoding!r} for {width} x {height} px: '
                           f'use evt3 (sides up to {EVT3_SIDE}) or mono')
    sequence = sequence.shifted(shift_of(sequence))
    zero, packets = _span(sequence)
    received = [(zero + (seq + 1) * PACKET_NS, _PACKET, seq) for seq in range(packets)]
    for n, stamp in enumerate(sequence.stamps_ns.tolist()):
        received += [(stamp, _FRAME, n), (stamp, _TRUTH, n)]
    with BagWriter(path, storage, compress) as bag:
        for at, kind, n in sorted(received):
            if kind == _PACKET:
                bag.write_packet(EVENTS_TOPIC, _packet(sequence, encoding, n, zero), at)
            elif kind == _FRAME and (frame := sequence.frame(n)) is not None:
                bag.write_frame(image_topic, Frame(at, frame.image, FRAME_ID), at)
            elif kind == _TRUTH and (ids := sequence.truth(n)) is not None:
                truth = GroundTruth(at, np.ascontiguousarray(ids), sequence.flags(n))
                bag.write_truth(truth, FRAME_ID, at)
    return Path(path)


def shift_of(sequence: Sequence) -> int:
    """ns that `write` moves a sequence by: one second where it starts too near 0, else 0."""
    events = sequence.events or Events.empty()
    times = [int(column[0]) for column in (sequence.stamps_ns, events.t) if len(column)]
    return START_NS if times and min(times) <= PACKET_NS else 0


def _span(sequence: Sequence) -> tuple[int, int]:
    """(ns where the first packet starts, in whole us; packets up to the last event or frame).

    A sensor without events has packets, too, wherever there are frames.
    """
    events, stamps = sequence.events, sequence.stamps_ns
    if events is None or not (len(events) or len(stamps)):
        return 0, 0
    times = np.concatenate([stamps[:1], stamps[-1:], events.t[:1], events.t[-1:]])
    zero = int(times.min()) // 1000 * 1000
    return zero, (int(times.max()) - zero) // PACKET_NS + 1


def _packet(sequence: Sequence, encoding: str, seq: int, zero: int) -> EventPacket:
    """The events of the PACKET_NS from `zero` + `seq` x PACKET_NS on.

    Stamped by their first sensor time, so that the clock offset is constant.
    """
    start = zero + seq * PACKET_NS
    events = sequence.events.between(start - 1, start + PACKET_NS - 1)
    first = int(events.t[0]) if len(events) else start
    height, width = sequence.event_size or sequence.size
    if encoding == 'mono':
        payload, stamp, base = encode_mono(events, start), first, start
    else:
        sensor = Events(events.x, events.y, events.p, events.t - zero)
        payload = encode_evt3(sensor, until_us=(start + PACKET_NS - 1 - zero) // 1000)
        stamp, base = first // 1000 * 1000 if len(events) else start + PACKET_NS - 1000, 0
    return EventPacket(stamp, encoding, height, width, seq, base,
                       np.frombuffer(payload, np.uint8), FRAME_ID)


def read(path: str | Path, name: str = '', image_topic: str | None = None,
         events_topic: str | None = None) -> Sequence:
    """A bag as a sequence, all in memory; what could not be used is in its notes.

    Rows are the stamps of frames and of truth. `name` is there for the other formats: a bag holds
    one sequence. Raises BagError, DatasetError.
    """
    with open_bag(path) as bag:
        frames: dict[int, Frame] = {}
        truths: dict[int, GroundTruth] = {}
        stream, parts, skips, sensor = EventStream(), [], [], None
        for value in _values(bag, bag.pick(image_topic, events_topic)):
            if isinstance(value, Frame):
                frames[value.stamp_ns] = value
            elif isinstance(value, GroundTruth):
                truths[value.stamp_ns] = value
            elif isinstance(value, Skip):
                skips.append(value)
            elif isinstance(value, (EventPacket, EventArray)):
                sensor = sensor or (value.height, value.width)
                events, lost = _decoded(stream, value)
                parts.append(events)
                skips += lost
        notes = [f'{skip.reason.value}: {skip.detail}' for skip in skips[:MAX_NOTES]]
        if bag.fault:
            notes.append(bag.fault)
    events = Events.concatenate(parts) if sensor else None
    return _assembled(Path(path).stem, frames, truths, events, sensor, tuple(notes))


def _truth_topics(bag: Bag) -> list[str]:
    """Topics of the ground truth that the bag has."""
    there = bag.candidates('truth')
    return [topic for topic in (TRUTH_IMAGE, TRUTH_INSTANCES) if topic in there]


def _values(bag: Bag, topics: tuple[str, str]) -> Iterator[object]:
    """What the bag holds of the (image, events) topics and of the truth, in order of recording."""
    wanted = {topic for topic in (*topics, *_truth_topics(bag)) if topic}
    return (value for _, value in bag.items(wanted))


def _decoded(stream: EventStream, value: EventPacket | EventArray) -> tuple[Events, list[Skip]]:
    """The events of a message, and what could not be used of it."""
    if isinstance(value, EventPacket):
        events, _, lost = stream.push(value)
    else:
        events, _, lost = stream.push_events(value.events, value.height, value.width)
    return events, lost


def _assembled(name: str, frames: dict[int, Frame], truths: dict[int, GroundTruth],
               events: Events | None, sensor: tuple[int, int] | None,
               notes: tuple[str, ...]) -> Sequence:
    """Frames and truths, by stamp, and events as one sequence. Raises DatasetError."""
    stamps = sorted({*frames, *truths})
    sizes = {frame.size for frame in frames.values()}
    sizes |= {truth.ids.shape for truth in truths.values()}
    if len(sizes) > 1:
        raise DatasetError(f'{name}: frames and truth have sizes {sorted(sizes)}: '
                           'they must agree; split the recording')
    size = next(iter(sizes), sensor or (0, 0))
    images = ids = moving = None
    if frames:
        blank = np.zeros((*size, 3), np.uint8)
        images = np.stack([frames[stamp].image if stamp in frames else blank for stamp in stamps])
    if truths:
        nothing = np.zeros(size, np.uint16)
        ids = np.stack([truths[stamp].ids if stamp in truths else nothing for stamp in stamps])
        moving = tuple(truths[stamp].moving if stamp in truths else {} for stamp in stamps)
    return Sequence(name, size, np.array(stamps, np.int64), images, events, sensor, ids, moving,
                    has_frame=rows_in(frames, stamps), has_label=rows_in(truths, stamps),
                    notes=notes)


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with a bag, message by message: it may be larger than the memory."""
    with report.guard(path), open_bag(path) as bag:
        topics = bag.pick()
        stamps, sizes, stream, skips = [], set(), EventStream(), []
        inspector: EventInspector | None = None
        for value in _values(bag, topics):
            if isinstance(value, Frame):
                stamps.append(value.stamp_ns)
                sizes.add(value.size)
            elif isinstance(value, GroundTruth):
                sizes.add(value.ids.shape)
            elif isinstance(value, Skip):
                skips.append(value)
            elif isinstance(value, (EventPacket, EventArray)):
                size = (value.height, value.width)
                inspector = inspector or EventInspector(report, path, size)
                events, lost = _decoded(stream, value)
                skips += lost
                inspector.add(events.x, events.y, events.p, events.t)
        for skip in skips:
            report.add(_FINDINGS.get(skip.reason, 'unreadable'), path,
                       f'{skip.detail} (at {skip.stamp_ns} ns)')
        if bag.fault:
            report.add('unreadable', path, bag.fault)
        if len(sizes) > 1:
            report.add('size-differs', path, f'frames and truth have sizes {sorted(sizes)}')
        if not _truth_topics(bag):
            report.add('missing-annotations', path,
                       f'it has no {TRUTH_IMAGE} and {TRUTH_INSTANCES}')
        frame_times = np.array(stamps, np.int64)
        if topics[0]:
            report.frame_times(path, frame_times)
        else:
            report.add('no-frames', path, 'it has no image topic')
        (inspector or EventInspector(report, path, (0, 0))).finish(frame_times)
