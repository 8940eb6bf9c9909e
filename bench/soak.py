"""Does the node stay right, and small, through hours of faults?

    python -m bench.soak --minutes 120 --json bench/results/soak.json --plot docs/soak.svg

The node is a process; cameras, listeners and a supervisor are in this one, over DDS. Every few
seconds one fault: a bag that loops, a flood of 108 Mev/s, silence of one input or of both, another
size or encoding, damaged packets, a clock that is set forward, `~/reset`, deactivate / activate,
subscribers that come and go, one that is slow. After each
  right      from the third frame on each result is whole (not degraded, of frame and events); after
             a step of the clock from 1.3 s on (docs/time.md)
  accounted  once all is quiet: frames sent = those the network lost + those received, and
             received + inputs without a frame = results + skips by reason + faults + exceptions
  flat       resident memory grows by less than 10 MB over the second half
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bench.report import Report, parsed
from bench.soak_plot import plot
from bench.tiny_model import make_tiny_model

if TYPE_CHECKING:
    from bench.soak_camera import Camera

SETTLE_FRAMES = 2
STEP_S = 1.3             # after a step of the host's clock
CHECKED_FRAMES = 10      # after each fault
QUIET_S = 120.0          # at most, until all is accounted for
GROWTH_MB = 10.0
LAST_S = 600.0           # for anything that must happen
FRAME_SKIPS = ('newer_frame', 'reset', 'no_subscriber', 'bad_frame', 'size_changed', 'out_of_order',
               'duplicate')


class Listener:
    """What the node says: results, diagnostics, its memory. Fields are appended to, never cut.

    `results` (steady ns, stamp ns, degraded reason, has both inputs, epoch); `samples` (steady s,
    resident MB, latency ms, state).
    """

    def __init__(self, pid: int, published: dict[int, int]) -> None:
        """Needs rclpy.init. `published`: when each frame was, steady ns by stamp."""
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import ChangeState

        from mos_msgs.srv import Reset
        self.node = rclpy.create_node('soak_listener')
        self.results: list[tuple[int, int, str, bool, int]] = []
        self.samples: list[tuple[float, float, float, str]] = []
        self.facts: dict[str, str] = {}
        self.reports = 0
        self._process, self._published, self._latency_ms = psutil.Process(pid), published, 0.0
        self.subscription = self.subscribe(self._on_instances)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._reset = self.node.create_client(Reset, '/mos_perception/reset')
        self._change = self.node.create_client(ChangeState, '/mos_perception/change_state')

    def subscribe(self, callback: Callable[[Any], None]) -> Any:
        """One more subscriber of the results."""
        from mos_msgs.msg import Instances
        from mos_perception.ros import qos
        return self.node.create_subscription(Instances, '/mos_perception/instances', callback,
                                             qos.output())

    def resubscribe(self) -> None:
        """The subscriber goes and comes back."""
        self.node.destroy_subscription(self.subscription)
        self.subscription = self.subscribe(self._on_instances)

    def reset(self) -> None:
        """Call `~/reset`."""
        self._call(self._reset, lambda request: request)

    def change_state(self, transition: int) -> None:
        """Call `~/change_state`. Raises RuntimeError where it fails."""
        def fill(request: Any) -> Any:
            request.transition.id = transition
            return request
        if not self._call(self._change, fill).success:
            raise RuntimeError(f'transition {transition} failed')

    def _call(self, client: Any, fill: Callable[[Any], Any]) -> Any:
        if not client.wait_for_service(LAST_S):
            raise RuntimeError(f'no service {client.srv_name} after {LAST_S} s')
        future = client.call_async(fill(client.srv_type.Request()))
        wait(future.done, f'answer of {client.srv_name}')
        return future.result()

    def _on_instances(self, message: Any) -> None:
        now, stamp = time.monotonic_ns(), message.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        self.results.append((now, stamp_ns, message.degraded_reason,
                             message.modality == message.MODALITY_BOTH, message.epoch))
        if stamp_ns in self._published:
            self._latency_ms = (now - self._published[stamp_ns]) / 1e6

    def _on_diagnostics(self, message: Any) -> None:
        self.facts = {item.key: item.value for item in message.status[0].values}
        self.reports += 1
        if self._process.is_running():
            self.samples.append((time.monotonic(), self._process.memory_info().rss / 1e6,
                                 self._latency_ms, self.facts['state']))

    def next_report(self) -> None:
        """Wait for the next diagnostics."""
        before = self.reports
        wait(lambda: self.reports > before, 'diagnostics')

    def count(self, *names: str) -> int:
        """The sum of these counters in the last diagnostics."""
        return sum(int(self.facts.get(name, 0)) for name in names)


def wait(test: Callable[[], Any], what: str, timeout_s: float = LAST_S) -> None:
    """Until `test()` is true. Raises RuntimeError after the time."""
    end = time.monotonic() + timeout_s
    while not test():
        if time.monotonic() > end:
            raise RuntimeError(f'{what}: not within {timeout_s:.0f} s')
        time.sleep(0.01)


class Soak:
    """One run: faults, and what was found wrong after each."""

    def __init__(self, camera: Camera, listener: Listener, seed: int) -> None:
        """Node, camera and listener are matched and spin."""
        self._camera, self._listener, self._rng = camera, listener, Random(seed)
        self.wrong: list[str] = []
        self.unaccounted: list[str] = []
        self.faults: list[tuple[float, str]] = []
        self._start()

    def _start(self) -> None:
        """From here on all is accounted for: results come, and nothing is on its way.

        What DDS drops before the node's first message has no number that would tell.
        """
        heard, end = len(self._listener.results), time.monotonic() + LAST_S
        while len(self._listener.results) == heard and time.monotonic() < end:
            self._camera.period()
            time.sleep(0.1)
        before = None
        while before != (before := self._counted()):
            self._listener.next_report()
            self._listener.next_report()
        self._base, self._sent = self._listener.facts, self._camera.sent.copy()

    def _counted(self) -> tuple[int, ...]:
        return tuple(map(self._listener.count, ('total frames', 'total events', 'total results')))

    def _since(self, *names: str) -> int:
        """How much these counters have grown since the start."""
        return self._listener.count(*names) - sum(int(self._base.get(name, 0)) for name in names)

    def known(self) -> dict[str, Callable[[], None]]:
        """Every fault by name."""
        camera, listener = self._camera, self._listener
        return {
            'bag loop': camera.loop,
            'flood': lambda: camera.flood(0.4),
            'silence': lambda: camera.sleep(self._rng.uniform(0.5, 3.0)),
            'frames silent': lambda: self._periods(60, frames=False),
            'events silent': lambda: self._periods(60, events=False),
            'other frame size': lambda: [camera.other_size() for _ in range(3)],
            'other encoding': lambda: [camera.other_encoding() for _ in range(3)],
            'damaged packets': lambda: self._periods(5, payload=self._damaged),
            'clock step': camera.step,
            'reset': listener.reset,
            'deactivate, activate': self._activate_anew,
            'subscriber churn': lambda: [listener.resubscribe() for _ in range(5)],
            'slow subscriber': self._slow_subscriber,
        }

    def one(self, name: str, fault: Callable[[], None]) -> None:
        """A fault, the frames after it, and what they show."""
        self.faults.append((time.monotonic(), name))
        fault()
        wait(self._camera.matched, 'the node listens')
        wait(lambda: self._listener.subscription.get_publisher_count(), 'the results are heard')
        self._caught_up()
        settle = SETTLE_FRAMES if name != 'clock step' else int(STEP_S / 0.033) + 1
        self._periods(settle)
        self._caught_up()
        stamps = {self._camera.period() for _ in range(CHECKED_FRAMES)}
        last = max(stamps)
        self._listener_waits(last)
        for _, stamp, degraded, both, _ in self._listener.results[-3 * CHECKED_FRAMES:]:
            if stamp in stamps and (degraded or not both):
                self.wrong.append(f'{name}: frame {stamp} is {degraded or "of one input"}')
        self.account(name)

    def _listener_waits(self, stamp: int) -> None:
        """Until the last frame is answered, or another in its place was."""
        try:
            wait(lambda: any(row[1] == stamp for row in self._listener.results[-20:]),
                 'the last frame is answered', QUIET_S)
        except RuntimeError:
            self.wrong.append(f'frame {stamp} was not answered in {QUIET_S:.0f} s')

    def _caught_up(self) -> None:
        """Until the node has taken all that was sent: a slow machine is behind for a while."""
        end = time.monotonic() + QUIET_S
        while self._not_taken() and time.monotonic() < end:
            self._listener.next_report()

    def account(self, name: str) -> None:
        """Wait until nothing is on its way, then compare what came in with what it became."""
        end, missing = time.monotonic() + QUIET_S, 'no diagnostics'
        while missing and time.monotonic() < end:
            self._listener.next_report()
            missing = self._missing()
        if missing:
            self.unaccounted.append(f'{name}: {missing}')
            print(self.unaccounted[-1], flush=True)
            self._activate_anew()  # so that the next is judged alone

    def _not_taken(self) -> str:
        sent = self._camera.sent - self._sent
        for role in ('frames', 'events'):
            received, lost = self._since(f'total {role}'), self._since(f'skipped lost_{role}')
            if sent[role] != received + lost:
                return f'{sent[role]} {role} sent, {received} received, {lost} lost'
        return ''

    def _missing(self) -> str:
        if missing := self._not_taken():
            return missing
        inputs = self._since('total frames', 'total inputs without frame')
        became = self._since('total results', 'total faults', 'skipped exception',
                             *(f'skipped {reason}' for reason in FRAME_SKIPS))
        if inputs == became:
            return ''
        return f'{inputs} inputs became {became}: {self._listener.facts}'

    def _periods(self, count: int, **options: Any) -> None:
        for _ in range(count):
            self._camera.period(**options)

    def _damaged(self, payload: bytes) -> bytes:
        at = self._rng.randrange(len(payload) - 40) // 2 * 2
        return payload[:at] + b'\x00\x90' + payload[at:-1]

    def _activate_anew(self) -> None:
        from lifecycle_msgs.msg import Transition
        self._listener.change_state(Transition.TRANSITION_DEACTIVATE)
        wait(lambda: not self._camera.matched(), 'the node is deaf')
        self._listener.change_state(Transition.TRANSITION_ACTIVATE)
        wait(self._camera.matched, 'the node listens')
        self._listener.next_report()
        self._start()

    def _slow_subscriber(self) -> None:
        slow = self._listener.subscribe(lambda _: time.sleep(0.2))
        self._periods(20)
        self._listener.node.destroy_subscription(slow)


def run(model: str, minutes: float, every_s: float, seed: int) -> tuple[Soak, Listener, int]:
    """Feed a node for so long; returns the run, what was heard and the node's exit code."""
    import rclpy

    from bench.soak_camera import Camera
    from mos_perception.ros.process import spin
    from mos_perception.ros.transport import prepare_transport
    prepare_transport()
    rclpy.init()
    process = subprocess.Popen(
        [sys.executable, '-m', 'mos_perception.ros', '--ros-args', '-p', f'model:={model}',
         '-p', 'input_reliable:=true', '-p', 'input_depth:=1000', '-p', 'deadline_s:=2.0',
         '-p', 'event_buffer_bytes:=32000000'])
    try:
        camera = Camera(seed)
        listener = Listener(process.pid, camera.published)
        threading.Thread(target=spin, args=(listener.node,), daemon=True).start()
        wait(camera.matched, 'the node begins')
        wait(lambda: listener.subscription.get_publisher_count(), 'the results are heard')
        soak, end = Soak(camera, listener, seed), time.monotonic() + minutes * 60
        known, rng, left = soak.known(), Random(seed), []
        while time.monotonic() < end and process.poll() is None:
            begin = time.monotonic()
            left = left or rng.sample(sorted(known), len(known))
            soak.one(name := left.pop(), known[name])
            print(f'{(end - time.monotonic()) / 60:5.1f} min left: {name}', flush=True)
            while time.monotonic() - begin < every_s:
                camera.period()
        process.send_signal(signal.SIGINT)
        return soak, listener, process.wait(LAST_S)
    finally:
        if process.poll() is None:
            process.kill()
        rclpy.try_shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog='bench.soak')
    parser.add_argument('--minutes', type=float, default=5.0)
    parser.add_argument('--every', type=float, default=5.0, metavar='S', help='a fault so often')
    parser.add_argument('--model', help='default: a tiny one')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the results there')
    parser.add_argument('--plot', type=Path, metavar='PATH', help='write an .svg there')
    args = parsed(parser, arguments)
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 100)))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(make_tiny_model(Path(folder) / 'tiny.onnx'))
        soak, listener, code = run(model, args.minutes, args.every, args.seed)
    if args.plot:
        args.plot.write_text(plot(listener.samples, soak.faults))
    return report(soak, listener, code, args)


def report(soak: Soak, listener: Listener, code: int, args: argparse.Namespace) -> int:
    """The table and the JSON; the exit code."""
    table = Report('soak', f'{args.minutes:g} minutes of faults', ('rclpy', 'numpy', 'numba'))
    resident = np.array([row[1] for row in listener.samples])
    half = resident[len(resident) // 2:]
    edge = max(len(half) // 10, 1)
    growth = float(np.median(half[-edge:]) - np.median(half[:edge])) if len(half) else 0.0
    latency = [row[2] for row in listener.samples]
    table.row('faults injected', ours=len(soak.faults), unit='')
    table.row('results', ours=len(listener.results), unit='')
    table.row('results wrong after the second frame', ours=len(soak.wrong), unit='', bar='0',
              met=not soak.wrong)
    table.row('times that inputs were not accounted for', ours=len(soak.unaccounted), unit='',
              bar='0', met=not soak.unaccounted)
    table.row('resident memory, growth over the second half', ours=growth, unit='MB',
              bar=f'< {GROWTH_MB:.0f}', met=growth < GROWTH_MB)
    table.row('resident memory, most', ours=float(resident.max(initial=0)), unit='MB')
    table.row('from publication to result, median', ours=float(np.median(latency or [0])),
              unit='ms')
    table.row('exit code at the end', ours=code, unit='', bar='0', met=code == 0)
    if args.plot:
        table.note(f'memory, latency and state over time: {args.plot}')
    for text in (soak.wrong + soak.unaccounted)[:20]:
        print(text, file=sys.stderr)
    table.finish(args)
    return int(bool(soak.wrong or soak.unaccounted or code or growth >= GROWTH_MB))


if __name__ == '__main__':
    sys.exit(main())
