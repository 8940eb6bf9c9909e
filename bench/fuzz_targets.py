"""What `bench.fuzz` feeds: for each parser of untrusted or foreign bytes, how bad input is made and
how it is read. The parsers are the product's own, from the bytes on.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from bench.mutate import mutate_bytes, mutate_json, number
from bench.tiny_model import make_tiny_model
from mos_perception.config import Config, from_dict
from mos_perception.datatypes import EventPacket, Events, Frame, GroundTruth, Skip
from mos_perception.engine.card import load_card
from mos_perception.events.encode import (
    encode_evt3,
    encode_libcaer,
    encode_libcaer_cmp,
    encode_mono,
)
from mos_perception.formats import FORMATS, module
from mos_perception.formats.check import check_data
from mos_perception.formats.sequence import Sequence
from mos_perception.motion.homography_file import read_homography
from mos_perception.pipeline import Pipeline
from mos_perception.recording import imu_messages, messages
from mos_perception.recording.bag import BagWriter, open_bag
from mos_perception.recording.results import read_result, read_truth, write_truth

SIZE = HEIGHT, WIDTH = 24, 32
START_NS = 1_000_000_000
PACKETS = 12  # of a stream
INFERRED = 8  # one case in so many
MOST_NS = 2**31 * 10**9  # that a header's stamp can say
STORAGES = {'mcap': 'mcap', 'db3': 'sqlite3'}
ENCODERS = {
    'evt3': lambda events: encode_evt3(events, until_us=int(events.t[-1]) // 1000 + 1,
                                       vectors=bool(events.x[0] % 2)),
    'mono': lambda events: encode_mono(events, int(events.t[0])),
    'libcaer': lambda events: encode_libcaer(events, int(events.t[0])),
    'libcaer_cmp': lambda events: encode_libcaer_cmp(events, int(events.t[0])),
}


@dataclass(frozen=True)
class Target:
    """`make(rng)` gives the bytes of a case; `read(bytes)` reads them and returns how many inputs
    they were. `read` may raise MosError, nothing else; `weight`: its share of the cases.
    """

    make: Callable[[Random], bytes]
    read: Callable[[bytes], int]
    weight: float


def targets(folder: Path, only: str = '') -> dict[str, Target]:
    """The targets whose names hold `only`. Writes their seeds into `folder`, and only there."""
    folder.mkdir(parents=True)
    files, stream = _Files(folder), functools.cache(lambda: _Stream(folder))
    made: dict[str, Callable[[], Target]] = {
        f'packets {name}': lambda name=name: stream().target(name) for name in ENCODERS}
    made['messages'] = lambda: Target(_Messages().make, _Messages.read, 4)
    made |= {f'bag {suffix}': lambda suffix=suffix: files.bag(suffix) for suffix in STORAGES}
    made |= {'card': files.card, 'homography file': files.homography,
             'parameter file': files.parameters}
    made |= {f'data set {form}': lambda form=form: files.data_set(form)
             for form in FORMATS if form != 'bag'}
    if importlib.util.find_spec('torch'):
        made |= {f'checkpoint {suffix}': lambda suffix=suffix: files.checkpoint(suffix)
                 for suffix in ('safetensors', 'pt')}
    return {name: make() for name, make in made.items() if only in name}


def join(parts: list[bytes]) -> bytes:
    """Several byte strings as one."""
    return b''.join(struct.pack('<I', len(part)) + part for part in parts)


def split(data: bytes) -> list[bytes]:
    """The byte strings that `join` took."""
    parts, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from('<I', data, at)
        parts.append(data[at + 4:at + 4 + size])
        at += 4 + size
    return parts


def _events(rng: Random, start_ns: int, count: int) -> Events:
    draw = np.random.default_rng(rng.getrandbits(32))
    return Events(draw.integers(0, WIDTH, count).astype(np.uint16),
                  draw.integers(0, HEIGHT, count).astype(np.uint16),
                  draw.integers(0, 2, count).astype(np.uint8),
                  start_ns + np.sort(draw.integers(0, 10_000_000, count)))


class _Stream:
    """A camera's packets through the whole pipeline, with a frame now and then."""

    def __init__(self, folder: Path) -> None:
        model = make_tiny_model(folder / 'tiny.onnx')
        self._pipeline = Pipeline(Config(model=str(model), event_buffer_bytes=1_000_000,
                                         registration='scale', threads=1))
        self._frame = np.zeros((*SIZE, 3), np.uint8)

    def target(self, encoding: str) -> Target:
        """Packets of one encoding."""
        return Target(lambda rng: self.make(rng, encoding), self.read, 8)

    def make(self, rng: Random, encoding: str) -> bytes:
        """CDR of event packets; of most a field, the payload's bytes or its words are wrong."""
        parts = []
        for n in range(rng.randint(1, PACKETS)):
            start = START_NS + n * 10_000_000
            payload = ENCODERS[encoding](_events(rng, start, rng.randint(1, 60)))
            if rng.random() < 0.3:  # words of any code
                payload = rng.randbytes(rng.randrange(200))
            elif rng.random() < 0.7:
                payload = mutate_bytes(rng, payload)
            packet = EventPacket(start, encoding, *SIZE, n, start,
                                 np.frombuffer(payload, np.uint8), 'dvs')
            parts.append(messages.write_packet(_with_bad_field(rng, packet)))
        return join(parts)

    def read(self, data: bytes) -> int:
        """Push the packets; infer in some of the cases. Raises ValueError for events that break the
        rules.
        """
        epoch = self._pipeline.reset()
        parts, mark = split(data), None
        for n, part in enumerate(parts):
            _push(self._pipeline, messages.read_packet(part))
            last, mark = mark, self._pipeline.sync.watermark_ns
            if last is not None and self._pipeline.epoch == epoch and mark < last:
                raise ValueError(f'the watermark went back from {last} to {mark}')
            if n == 0:
                self._pipeline.push_frame(Frame(START_NS + 9_000_000, self._frame), n)
            self._pipeline.ready(n)
        window = self._pipeline.sync.buffer.window(-1 << 62, 1 << 62)
        size = self._pipeline.stream._size or SIZE
        if len(window) and (window.x.max() >= size[1] or window.y.max() >= size[0]
                            or window.p.max() > 1 or np.any(np.diff(window.t) < 0)):
            raise ValueError(f'events outside of {size}, or out of order')
        samples = self._pipeline.ready(1 << 40)
        if samples and len(data) % INFERRED == 0:
            self._pipeline.process(samples[0])
        return len(parts)


def _push(pipeline: Pipeline, packet: EventPacket) -> None:
    for skip in pipeline.push_packet(packet):
        if not isinstance(skip, Skip) or not skip.detail:
            raise ValueError(f'{skip} does not say why')


def _with_bad_field(rng: Random, packet: EventPacket) -> EventPacket:
    if rng.random() < 0.8:
        return packet
    field, bits = rng.choice((('height', 32), ('width', 32), ('seq', 64), ('time_base', 64),
                              ('stamp_ns', 63), ('encoding', 0)))
    if field == 'encoding':
        return replace(packet, encoding=rng.choice((*ENCODERS, '', 'evt9', 'EVT3', 'x' * 999)))
    value = number(rng, getattr(packet, field), bits)
    return replace(packet, **{field: value % MOST_NS if field == 'stamp_ns' else value})


class _Messages:
    """Every message that a topic or a bag may bring, as bytes."""

    READERS = {
        'image': messages.read_frame,
        'ids': messages.read_ids,
        'compressed': messages.read_compressed,
        'packet': messages.read_packet,
        'array': messages.read_event_array,
        'instances': read_result,
        'truth': read_truth,
        'imu': lambda cdr: imu_messages.angular_velocity(messages.deserialize(messages.IMU, cdr)),
        'camera_info': lambda cdr: imu_messages.calibration(
            messages.deserialize(messages.CAMERA_INFO, cdr)),
    }

    def __init__(self) -> None:
        import cv2
        image = np.zeros((*SIZE, 3), np.uint8)
        ids = np.zeros(SIZE, np.uint16)
        ids[4:12, 4:20] = 3
        events = _events(Random(0), START_NS, 5)
        event = [messages.make('dvs_msgs/msg/Event', x=int(x), y=int(y), polarity=bool(p),
                               ts=messages.header(int(t), '').stamp)
                 for x, y, p, t in zip(events.x, events.y, events.p, events.t)]
        packet = EventPacket(START_NS, 'mono', *SIZE, 0, START_NS,
                             np.frombuffer(encode_mono(events, START_NS), np.uint8), 'dvs')
        truth = write_truth(START_NS, ids, {3: True}, 'camera')
        self._seeds = [
            *(('image', messages.write_frame(Frame(START_NS, image, 'camera'), encoding))
              for encoding in ('rgb8', 'mono8', 'bgr8')),
            ('ids', messages.write_ids(START_NS, ids)),
            *(('compressed', messages.serialize(messages.COMPRESSED, messages.make(
                messages.COMPRESSED, header=messages.header(START_NS, ''), format=kind,
                data=cv2.imencode(f'.{kind}', image)[1]))) for kind in ('png', 'jpeg')),
            ('packet', messages.write_packet(packet)),
            ('array', messages.serialize(messages.EVENT_ARRAY, messages.make(
                messages.EVENT_ARRAY, header=messages.header(START_NS, 'dvs'), height=HEIGHT,
                width=WIDTH, events=event))),
            ('instances', truth), ('truth', truth), ('imu', _imu()), ('camera_info', _info())]

    def make(self, rng: Random) -> bytes:
        """The kind of message, then its bytes."""
        kind, data = rng.choice(self._seeds)
        return join([kind.encode(), mutate_bytes(rng, data)])

    @classmethod
    def read(cls, data: bytes) -> int:
        """Read one."""
        kind, cdr = split(data)
        cls.READERS[kind.decode()](cdr)
        return 1


def _imu() -> bytes:
    make, zeros = messages.make, np.zeros(9)
    vector = make('geometry_msgs/msg/Vector3', x=0.0, y=0.1, z=0.2)
    turn = make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0)
    return messages.serialize(messages.IMU, make(
        messages.IMU, header=messages.header(START_NS, 'imu'), orientation=turn,
        orientation_covariance=zeros, angular_velocity=vector, angular_velocity_covariance=zeros,
        linear_acceleration=vector, linear_acceleration_covariance=zeros))


def _info() -> bytes:
    roi = messages.make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                        width=0, do_rectify=False)
    k = np.array([30.0, 0, 16, 0, 30, 12, 0, 0, 1])
    return messages.serialize(messages.CAMERA_INFO, messages.make(
        messages.CAMERA_INFO, header=messages.header(START_NS, 'dvs'), height=HEIGHT, width=WIDTH,
        distortion_model='plumb_bob', d=np.zeros(5), k=k, r=np.eye(3).reshape(-1),
        p=np.zeros(12), binning_x=0, binning_y=0, roi=roi))


class _Files:
    """Files, each written into a folder of its own and read from there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _target(self, name: str, make: Callable[[Random], bytes], read: Callable[[Path], Any],
                weight: float) -> Target:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def write_and_read(data: bytes) -> int:
            path.write_bytes(data)
            read(path)
            return 1
        return Target(make, write_and_read, weight)

    def bag(self, suffix: str) -> Target:
        """A bag of frames, packets and ground truth."""
        seeds = []
        for compress in (False, True):
            path = self._folder / f'seed_{suffix}_{compress}'
            with BagWriter(path, STORAGES[suffix], compress) as bag:
                for n in range(2):
                    stamp, ids = START_NS + n, np.ones(SIZE, np.uint16)
                    bag.write_frame('/image', Frame(stamp, np.zeros((*SIZE, 3), np.uint8)))
                    bag.write_packet('/events', EventPacket(
                        stamp, 'mono', *SIZE, n, stamp, np.zeros(16, np.uint8)))
                    bag.write_truth(GroundTruth(stamp, ids, {1: True}))
            seeds.append(next(path.glob(f'*.{suffix}')).read_bytes())

        def read(path: Path) -> None:
            with open_bag(path) as bag:
                list(bag.items([topic.name for topic in bag.topics if topic.role]))
                bag.truth()
        return self._target(f'bags/x.{suffix}', lambda rng: mutate_bytes(rng, rng.choice(seeds), 6),
                            read, 2)

    def card(self) -> Target:
        """The card of a model."""
        (self._folder / 'models').mkdir(exist_ok=True)
        model = make_tiny_model(self._folder / 'models' / 'tiny.onnx')
        text = model.with_suffix('.json').read_text()
        return self._target('models/tiny.json', lambda rng: mutate_json(rng, text),
                            lambda path: load_card(path.with_suffix('.onnx')), 2)

    def homography(self) -> Target:
        """The file of `homography_file`."""
        text = json.dumps({'event_size': SIZE, 'frame_size': SIZE,
                           'homography': np.eye(3).tolist()})
        return self._target('homography.json', lambda rng: mutate_json(rng, text), read_homography,
                            1)

    def parameters(self) -> Target:
        """Names and values as a parameter file has them; the YAML itself is rcl's to parse."""
        text = json.dumps({name: getattr(Config(), name) for name in Config.__dataclass_fields__})

        def read(path: Path) -> None:
            try:
                values = yaml.safe_load(path.read_bytes())
            except (yaml.YAMLError, ValueError, RecursionError, UnicodeDecodeError):
                return
            if isinstance(values, dict) and all(isinstance(name, str) for name in values):
                from_dict(values)
        return self._target('parameters.yaml', lambda rng: mutate_json(rng, text, 2), read, 1)

    def data_set(self, form: str) -> Target:
        """One file of a small data set: index, ground truth, label image, picture, events."""
        root, scene = self._folder / 'data' / form, _scene()
        module(form).write(scene, root, **({'min_pixels': 1} if form == 'dimos' else {}))
        files = sorted(file for file in root.rglob('*') if file.is_file())
        whole = {str(file.relative_to(root)): file.read_bytes() for file in files}

        def make(rng: Random) -> bytes:
            name = rng.choice(list(whole))
            is_text = name.endswith('.json')
            data = (mutate_json(rng, whole[name].decode()) if is_text
                    else mutate_bytes(rng, whole[name]))
            return join([name.encode(), data])

        def read(data: bytes) -> int:
            name, bad = split(data)
            file = root / name.decode()
            file.write_bytes(bad)
            try:
                check_data(root, form)
                found = module(form).read(root)
                for n in range(len(found)):
                    found.frame(n), found.flags(n)
            finally:
                file.write_bytes(whole[name.decode()])
            return 1
        return Target(make, read, 0.5)

    def checkpoint(self, suffix: str) -> Target:
        """Other people's weights."""
        import torch
        from safetensors.torch import save_file

        from training.checkpoints import read_state
        seed = self._folder / f'seed.{suffix}'
        state = {'a.weight': torch.zeros(3, 4), 'a.bias': torch.ones(4)}
        {'safetensors': save_file, 'pt': torch.save}[suffix](state, seed)
        data = seed.read_bytes()
        return self._target(f'checkpoint.{suffix}', lambda rng: mutate_bytes(rng, data), read_state,
                            1)


def _scene() -> Sequence:
    """Three frames of two objects, with events."""
    stamps = START_NS + np.arange(3, dtype=np.int64) * 33_000_000
    ids = np.zeros((3, *SIZE), np.uint16)
    for n in range(3):
        ids[n, 2:8, 1 + n:9 + n], ids[n, 12:20, 3:15] = 1, 2
    drawn = np.random.default_rng(0)
    t = np.sort(drawn.integers(START_NS, int(stamps[-1]), 100)) // 1000 * 1000
    events = Events(drawn.integers(0, WIDTH, 100).astype(np.uint16),
                    drawn.integers(0, HEIGHT, 100).astype(np.uint16),
                    drawn.integers(0, 2, 100).astype(np.uint8), t)
    frames = drawn.integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
    return Sequence('scene', SIZE, stamps, frames, events, SIZE, ids,
                    tuple({1: True, 2: False} for _ in range(3)))

