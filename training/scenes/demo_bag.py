"""The committed demo recording: `python -m training.scenes.demo_bag --out test/bags/demo`.

Frames, EVT3 event packets and ground truth of one rendered clip, laid out as a live recording would
be (a packet is received after its last event, a frame at its stamp), zstd-compressed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from mos_perception.datatypes import EventPacket, Events, GroundTruth
from mos_perception.errors import BagError
from mos_perception.events.encode import encode_evt3
from mos_perception.recording.bag import BagWriter
from training.scenes.catalog import render_clip
from training.scenes.clip import Clip
from training.scenes.presets import find_preset
from training.scenes.splits import SPLITS

IMAGE_TOPIC, EVENTS_TOPIC, FRAME_ID = '/camera/image_raw', '/event_camera/events', 'camera_optical'
PACKET_NS = 5_000_000


def event_packets(clip: Clip, length_ns: int = PACKET_NS,
                  size: tuple[int, int] | None = None) -> list[tuple[int, EventPacket]]:
    """(receive time ns, evt3 packet) of consecutive spans of `length_ns`; time words reach each
    span's end.

    Sensor time 0 is the first span's start; a packet's stamp is its first event's, or its span's
    where it has none. `size` (height, width) of the event camera, default: the frames'.
    """
    zero = int(clip.stamps_ns[0]) - clip.period_ns
    packets = []
    for seq, start in enumerate(range(zero, int(clip.stamps_ns[-1]) + length_ns, length_ns)):
        events = clip.events.between(start - 1, start + length_ns - 1)
        sensor = Events(events.x, events.y, events.p, events.t - zero)
        payload = np.frombuffer(encode_evt3(sensor,
                                            until_us=(start + length_ns - 1 - zero) // 1000),
                                np.uint8)
        stamp = int(events.t[0]) if len(events) else start
        packets.append(
            (start + length_ns,
             EventPacket(stamp, 'evt3', *(size or clip.size), seq, 0, payload, FRAME_ID))
        )
    return packets


def write_clip(clip: Clip, path: Path, encoding: str = 'rgb8',
               event_size: tuple[int, int] | None = None) -> None:
    """Write the clip as a rosbag2 folder (mcap, zstd). Raises BagError where it cannot."""
    packets = event_packets(clip, size=event_size)
    timed: list[tuple[int, int, object]] = [(at, 0, packet) for at, packet in packets]
    for index in range(len(clip)):
        stamp = int(clip.stamps_ns[index])
        moving = {number: bool(clip.moving[index, number])
                  for number in range(1, clip.moving.shape[1])}
        timed += [(stamp, 1, clip.frame(index)), (stamp, 2,
                                                  GroundTruth(stamp, clip.ids[index], moving))]
    with BagWriter(path, compress=True) as bag:
        for at, kind, value in sorted(timed, key=lambda entry: entry[:2]):
            if kind == 0:
                bag.write_packet(EVENTS_TOPIC, value, at)
            elif kind == 1:
                bag.write_frame(IMAGE_TOPIC, value, at, encoding)
            else:
                bag.write_truth(value, FRAME_ID, at)


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Render a clip into a bag.')
    parser.add_argument('--out', type=Path, default=Path('test/bags/demo'))
    parser.add_argument('--preset', default='demo')
    parser.add_argument('--split', default='test', choices=SPLITS)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--duration', type=float, help='seconds')
    parser.add_argument('--encoding', default='rgb8', choices=('rgb8', 'bgr8', 'mono8'))
    parser.add_argument('--overwrite', action='store_true')
    options = parser.parse_args(arguments)
    changes = {'size': tuple(options.size) if options.size else None,
               'duration_s': options.duration}
    preset = find_preset(options.preset, **{name: value for name, value in changes.items()
                                            if value})
    if options.overwrite and options.out.exists():
        if not (options.out / 'metadata.yaml').is_file():
            raise BagError(f'{options.out} is no bag: will not overwrite it; name another path')
        shutil.rmtree(options.out)
    clip = render_clip(preset, options.seed, options.split)
    write_clip(clip, options.out, options.encoding)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(
        f'{options.out}: {len(clip)} frames, {len(clip.events)} events, '
        f'{clip.moving.shape[1] - 1} objects, '
        f'{size / 1e6:.2f} MB'
    )


if __name__ == '__main__':
    main()
