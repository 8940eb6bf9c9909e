"""Overhead of the node: everything but the engine, from the last publish a frame needs to its
result at a subscriber.

    python -m bench.node --json out/node.json
    python -m bench.node --model gmos_nano --json out/node_gmos.json
    python -m bench.node --mev 20 --json out/node_20.json
    python -m bench.node --model gmos_nano --movable-model movable_nano

Three processes over DDS, as on a robot: a camera (640x480 rgb8 frames and, for a model that takes
events, evt3 packets at 5 Mev/s), the node, and this one, which subscribes. A model that looks at
later frames needs the last of those; its delay has a row of its own. A frame period is 32768 us
(30.5 Hz), so that one encoded period serves for all: only its TIME_HIGH words move on. The overhead
of a frame = arrival - last needed publish - engine stage. Before the node a bare rclpy node has its
place: it takes the same messages and publishes each frame again, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.report import Report, parsed
from mos_perception.engine.card import ModelCard, load_card
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError

HEIGHT, WIDTH = 480, 640
PERIOD_US, PACKET_US = 32768, 5000
BASE_NS = 1_700_000_000_000_000_000
BAR_RATE, BAR_END_TO_END_MS, BAR_EVIDENCE_MS = 15.0, 60.0, 25.0  # of frames-only models
SETTLE_S = 3.0                 # of results left out at the start
BAR_MS, BAR_RSS_MB = 10.0, 600.0
BAR_FAST_MS, BAR_ECHOS = 5.0, 2.0  # at 20 Mev/s; times the bare node's
COUNTED = ('newer_frame', 'no_subscriber', 'bad_frame', 'out_of_order', 'duplicate', 'reset',
           'lost_frames')
ECHO_TOPIC = '/echo'
OUTSIDE = ('wait', 'decode', 'engine')  # stages that lie before the last message or have a row


def camera(log: Path, seconds: float, mev: int) -> None:
    """The camera process: publish on an absolute schedule, events at `mev` Mev/s if any; write
    (stamp, time of publish) of all to `log`.
    """
    import rclpy
    from event_camera_msgs.msg import EventPacket
    from sensor_msgs.msg import Image

    from mos_perception.ros import qos
    from mos_perception.ros.convert import to_stamp
    from mos_perception.ros.transport import prepare_transport
    prepare_transport()
    rclpy.init()
    node = rclpy.create_node('camera')
    images = node.create_publisher(Image, '/image', qos.playback(10))
    events = node.create_publisher(EventPacket, '/events', qos.playback(100))
    frames, packets = _frames(Image), _packets(EventPacket, mev) if mev else []
    while not (images.get_subscription_count() and (events.get_subscription_count() or not mev)):
        time.sleep(0.05)
    time.sleep(1.0)
    frame_log, packet_log, start = [], [], time.monotonic()
    for n in range(int(seconds * 1e6 / PERIOD_US)):
        for k, (first_us, until_us, words, highs, message) in enumerate(packets):
            _sleep_until(start + (n * PERIOD_US + until_us) / 1e6)
            moved = words.copy()
            moved[highs] = 0x8000 | ((words[highs] & 0xFFF) + n * (PERIOD_US >> 12) & 0xFFF)
            message.events = array('B', moved.tobytes())
            message.header.stamp = to_stamp(BASE_NS + (n * PERIOD_US + first_us) * 1000)
            message.seq = n * len(packets) + k
            packet_log.append((BASE_NS + (n * PERIOD_US + until_us) * 1000, time.monotonic_ns()))
            events.publish(message)
        frame = frames[n % len(frames)]
        _sleep_until(start + (n + 1) * PERIOD_US / 1e6)
        stamp = BASE_NS + (n + 1) * PERIOD_US * 1000
        frame.header.stamp = to_stamp(stamp)
        frame_log.append((stamp, time.monotonic_ns()))
        images.publish(frame)
    time.sleep(1.0)
    log.write_text(json.dumps({'frames': frame_log, 'packets': packet_log}))
    rclpy.try_shutdown()


def _frames(kind: Any) -> list[Any]:
    """A bright square on noise, at eight places."""
    made = []
    for k in range(8):
        rgb = np.random.default_rng(k).integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        rgb[150:330, 60 * k:60 * k + 180] = 220
        made.append(
            kind(height=HEIGHT, width=WIDTH, encoding='rgb8', step=WIDTH * 3,
                 data=array('B', rgb.tobytes())))
        made[-1].header.frame_id = 'camera'
    return made


def echo() -> None:
    """The bare node: frames and events in, each frame out again as it is."""
    import rclpy
    from event_camera_msgs.msg import EventPacket
    from sensor_msgs.msg import Image

    from mos_perception.ros import qos
    from mos_perception.ros.transport import prepare_transport
    prepare_transport()
    rclpy.init()
    node = rclpy.create_node('echo')
    out = node.create_publisher(Image, ECHO_TOPIC, qos.output())
    node.create_subscription(Image, '/image', out.publish, qos.playback(10))
    node.create_subscription(EventPacket, '/events', lambda packet: None, qos.playback(100))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass


def _packets(kind: Any, mev: int) -> list[tuple[int, int, np.ndarray, np.ndarray, Any]]:
    """One period as (first us, until us, evt3 words, where TIME_HIGH words are, message)."""
    from mos_perception.datatypes import Events
    from mos_perception.events.encode import encode_evt3
    rng, made = np.random.default_rng(1), []
    edges = [*range(0, PERIOD_US, PACKET_US), PERIOD_US]
    for first, until in zip(edges, edges[1:]):
        us = np.repeat(np.arange(first + 1, until + 1), mev)
        x, y = rng.integers(0, WIDTH, len(us)), rng.integers(0, HEIGHT, len(us))
        p = rng.integers(0, 2, len(us))
        found = Events(x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8), us * 1000)
        # time moves on: no more at `until`
        words = np.frombuffer(encode_evt3(found, until_us=until + 1), '<u2')
        made.append((first + 1, until, words, np.flatnonzero(words >> 12 == 8),
                     kind(height=HEIGHT, width=WIDTH, encoding='evt3')))
    return made


def _sleep_until(when: float) -> None:
    left = when - time.monotonic()
    if left > 0:
        time.sleep(left)


class Listener:
    """Subscribes to the results; notes when each arrives, its stages, and the node's last
    diagnostics.
    """

    def __init__(self) -> None:
        """Needs rclpy.init."""
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import Image

        from mos_msgs.msg import Instances
        from mos_perception.ros import qos
        self.instances: dict[int, tuple[int, dict[str, float]]] = {}
        self.id_images: dict[int, int] = {}
        self.facts: dict[str, str] = {}
        self.node = rclpy.create_node('listener')
        self.node.create_subscription(
            Instances, '/mos_perception/instances', self._on_instances, qos.output()
        )
        self.node.create_subscription(
            Image, '/mos_perception/instance_image', self._on_image, qos.output()
        )
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.echos: dict[int, int] = {}
        self.node.create_subscription(Image, ECHO_TOPIC, self._on_echo, qos.output())

    def _on_instances(self, message: Any) -> None:
        now = time.monotonic_ns()
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.instances[stamp] = now, {stage.name: stage.milliseconds for stage in message.stages}

    def _on_image(self, message: Any) -> None:
        self.id_images[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec] = (
            time.monotonic_ns()
        )

    def _on_echo(self, message: Any) -> None:
        now = time.monotonic_ns()
        self.echos[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec] = now

    def _on_diagnostics(self, message: Any) -> None:
        self.facts = {item.key: item.value for item in message.status[0].values}


def run(command: list[str], seconds: float,
        mev: int) -> tuple[dict[str, Any], Listener, list[float]]:
    """Play to the node that `command` starts, listen.

    Returns the camera's log, what was heard, and the node's resident MB once per second.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from mos_perception.ros.transport import prepare_transport
    prepare_transport()
    rclpy.init()
    listener = Listener()
    executor = SingleThreadedExecutor()
    executor.add_node(listener.node)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / 'camera.json'
        node = subprocess.Popen([sys.executable, '-m', *command])
        source = subprocess.Popen(
            [sys.executable, '-m', 'bench.node', '--camera', str(log), '--seconds', str(seconds),
             '--mev', str(mev)]
        )
        try:
            process, resident = psutil.Process(node.pid), []
            listener.node.create_timer(
                0.2, lambda: source.poll() is not None and executor.shutdown(0)
            )

            def sample() -> None:
                if (listener.instances or listener.echos) and node.poll() is None:
                    resident.append(process.memory_info().rss / 1e6)
            listener.node.create_timer(1.0, sample)
            executor.spin()
            node.send_signal(signal.SIGINT)
            node.wait(20)
        finally:
            for child in (node, source):
                if child.poll() is None:
                    child.kill()
        if not log.exists():
            raise SystemExit('the camera process failed: see its output above')
        executor.remove_node(listener.node)
        listener.node.destroy_node()
        rclpy.try_shutdown()
        return json.loads(log.read_text()), listener, resident


def echo_ms(log: dict[str, Any], listener: Listener) -> np.ndarray:
    """Of each frame of a run of the bare node, ms from its publish to its echo."""
    sent = log['frames'][int(SETTLE_S * 1e6 / PERIOD_US):]
    return np.array([(listener.echos[stamp] - at) / 1e6 for stamp, at in sent
                     if stamp in listener.echos])


def last_needed(log: dict[str, Any], card: ModelCard) -> dict[int, int]:
    """Per stamp of a frame, when the last message was published that its answer needs.

    Frames whose needs were never published are left out.
    """
    window, evidence = card.window, card.evidence
    later_ns = round(window.length_ms * 1e6) if window and window.side == 'after' else 0
    frames_later = 0
    if evidence is not None and evidence.centred:  # as motion.history: nearest to the longest gap
        frames_later = int(np.ceil(evidence.gaps_ms[-1] * 1e3 / PERIOD_US - 0.5))
    packets = np.array(log['packets']).reshape(-1, 2)
    found = {}
    for n, (stamp, sent) in enumerate(log['frames'][:len(log['frames']) - frames_later]):
        k = np.searchsorted(packets[:, 0], stamp + later_ns)
        if window is not None and k == len(packets):
            continue
        found[stamp] = max(sent, log['frames'][n + frames_later][1],
                           int(packets[k, 1]) if window is not None else 0)
    return found


def measure(log: dict[str, Any], listener: Listener, card: ModelCard) -> dict[str, np.ndarray]:
    """Per frame, ms: end to end, overhead of both outputs, and every stage."""
    rows: dict[str, list[float]] = {}
    needed = last_needed(log, card)
    for stamp, _ in log['frames'][int(SETTLE_S * 1e6 / PERIOD_US):]:
        if stamp not in listener.instances or stamp not in needed:
            continue
        last = needed[stamp]
        arrived, stages = listener.instances[stamp]
        values = {
            'end to end': (arrived - last) / 1e6,
            'overhead': (arrived - last) / 1e6 - stages['engine'],
            **stages,
        }
        if stamp in listener.id_images:
            values['overhead to the instance image'] = (
                listener.id_images[stamp] - last
            ) / 1e6 - stages['engine']
        in_node = sum(value for name, value in stages.items() if name not in OUTSIDE)
        values['transport, convert, publish'] = values['overhead'] - in_node
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in rows.items()}


def report(log: dict[str, Any], listener: Listener, resident: list[float], card: ModelCard,
           mev: int, echos: np.ndarray) -> Report:
    """The table; `echos` of the bare node, ms."""
    found = measure(log, listener, card)
    events = f' + {mev} Mev/s' if log['packets'] else ''
    out = Report(
        'node',
        f'Node overhead, {card.id}, 640x480 at 30.5 Hz{events}',
        ('numpy', 'numba', 'onnxruntime', 'rclpy'),
    )
    if 'overhead' not in found:
        raise SystemExit('no result arrived: see the output of the node above')
    bars = {'overhead': BAR_FAST_MS if mev >= 20 else BAR_MS} if card.window is not None else {
        'end to end': BAR_END_TO_END_MS, 'motion': BAR_EVIDENCE_MS}
    if len(echos):
        bare, overhead = float(np.median(echos)), float(np.median(found['overhead']))
        out.row('bare rclpy echo of the frames p50', bare, 'ms')
        out.row('bare rclpy echo of the frames p99', float(np.percentile(echos, 99)), 'ms')
        out.row('overhead p50 / echo p50', overhead / bare, '', bar=f'<= {BAR_ECHOS:g}',
                met=overhead <= BAR_ECHOS * bare)
    for name in sorted(found, key=lambda name: (name != 'overhead', name != 'end to end', name)):
        p50, p99 = np.percentile(found[name], [50, 99])
        bar = {'bar': f'<= {bars[name]:g}', 'met': bool(p50 <= bars[name])} if name in bars else {}
        out.row(f'{name} p50', p50, 'ms', **bar)
        out.row(f'{name} p99', p99, 'ms')
    _counts(out, log, listener, card)
    if resident:
        out.row(
            'resident memory, most',
            max(resident),
            'MB',
            bar=f'<= {BAR_RSS_MB:g}',
            met=max(resident) <= BAR_RSS_MB,
        )
        half = resident[len(resident) // 2:]
        out.row('resident memory, growth over the second half', half[-1] - half[0], 'MB')
    return out


def _counts(out: Report, log: dict[str, Any], listener: Listener, card: ModelCard) -> None:
    """Rows of what was sent, answered and lost."""
    facts = listener.facts
    sent, got = len(log['frames']), len(listener.instances)
    skipped = {key[8:]: int(value) for key, value in facts.items() if key.startswith('skipped ')}
    waiting = sent - len(last_needed(log, card))  # what the last frames need never comes
    uncounted = sent - got - waiting - sum(skipped.get(name, 0) for name in COUNTED)
    rate = got / (sent * PERIOD_US / 1e6)
    bar = {'bar': f'>= {BAR_RATE:g}', 'met': rate >= BAR_RATE} if card.window is None else {}
    out.row('results per second', rate, 'Hz', **bar)
    out.row('delay of the model', float(facts.get('model delay ms', 0)), 'ms')
    out.row('frames sent', sent, '')
    out.row('frames answered', got, '')
    out.row('frames lost and not counted', uncounted, '', bar='0', met=uncounted <= 0)
    out.row('packets sent', len(log['packets']), '')
    out.row('packets received', int(facts.get('total events', 0)), '')
    out.note(
        f'skipped: {skipped or "nothing"}; publish p50/p99 in the node '
        f'{facts.get("publish p50 ms")}/{facts.get("publish p99 ms")} ms'
    )


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', type=Path)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--model', default='dimos_nano', help='not found: the tiny test model')
    parser.add_argument('--movable-model', default='', help='beside it, see mosis.launch.py')
    parser.add_argument('--causal', action='store_true', help='look at no later frame')
    parser.add_argument('--camera', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--mev', type=int, default=5, help='Mev/s, for a model that takes events')
    parser.add_argument('--echo', action='store_true', help=argparse.SUPPRESS)
    options = parsed(parser, arguments)
    if options.camera:
        camera(options.camera, options.seconds, options.mev)
        return
    if options.echo:
        echo()
        return
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 100)))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = find_model(options.model)
        except EngineError:
            from bench.tiny_model import make_tiny_model
            path = make_tiny_model(Path(folder) / 'tiny.onnx')
        card = load_card(path)
        if options.causal and card.evidence is not None:
            card = replace(card, evidence=replace(card.evidence, centred=False))
        mev = options.mev if card.window is not None else 0
        log, heard, _ = run(['bench.node', '--echo'], options.seconds, mev)
        echos = echo_ms(log, heard)
        given = {'model': str(path), 'causal': str(options.causal).lower(),
                 'movable_model': options.movable_model or '""'}
        given |= {} if mev else {'events_topic': '""'}
        words = (word for item in given.items() for word in ('-p', ':='.join(item)))
        results = run(['mos_perception.ros', '--ros-args', *words], options.seconds, mev)
        report(*results, card, mev, echos).finish(options)


if __name__ == '__main__':
    main()
