"""A recorded run of the node, shown: scores, counts and times as tables, overlay video, contact
sheet.

Input and recorded output are two bags; results are joined to their frames and events by stamp.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mos_perception.datatypes import EventPacket, EventWindow, Frame, Skip
from mos_perception.errors import BagError
from mos_perception.evaluation.ground_truth import GroundTruthEvaluator
from mos_perception.evaluation.score import Scorer
from mos_perception.events.buffer import EventBuffer
from mos_perception.events.decode import EventStream
from mos_perception.recording.bag import Bag, open_bag
from mos_perception.recording.messages import deserialize
from mos_perception.recording.results import NodeResult
from mos_perception.reports.overlay_video import Picture, draw, write_overlays
from mos_perception.reports.run_statistics import RunStatistics

SHOWN_NS = 33_000_000  # events drawn for a result: those up to this long before it
BUFFER_BYTES = 64_000_000
FRAMES_KEPT = 300
DIAGNOSTICS = 'diagnostic_msgs/msg/DiagnosticArray'


def show(
    source: Path,
    recorded: Path,
    out: Path,
    image_topic: str | None = None,
    events_topic: str | None = None,
    results_topic: str | None = None,
) -> tuple[dict[str, Any], list[Path], Scorer | None]:
    """Draw and score the node's recorded results on the bag it was fed.

    Returns (summary for JSON, files written, scorer or None without ground truth). Raises BagError.
    """
    with open_bag(source) as bag, open_bag(recorded) as answers:
        topics = bag.pick(image_topic, events_topic)
        evaluator = GroundTruthEvaluator(bag.truth()) if bag.candidates('truth') else None
        statistics = RunStatistics()
        inputs = Inputs(bag, *topics)
        pictures = _pictures(inputs, node_results(answers, results_topic), statistics, evaluator,
                             all(topics))
        files = write_overlays(out, pictures)
        if not files:
            raise BagError(f'{recorded} holds no results: look at the log of the node')
        run = statistics.summary(inputs.start_ns or 0)
        counts = {topic.name: topic.count for topic in bag.topics if topic.name in topics}
        run['counts'] = {
            **{f'messages in the bag: {name}': count for name, count in counts.items()},
            **node_counts(answers, run['skipped']),
            **run['counts'],
        }
        faults = '; '.join(filter(None, (bag.fault, answers.fault)))
    summary = {'bag': str(source), 'results': str(recorded), 'partial': faults, 'run': run}
    if evaluator is not None:
        summary['score'] = evaluator.summary()
    return summary, files, evaluator.scorer if evaluator is not None else None


def node_results(bag: Bag, topic: str | None = None) -> Iterator[NodeResult]:
    """The results recorded in a bag. Raises BagError when there are none or one cannot be read."""
    found = bag.candidates('results')
    name = topic or (found[0] if found else None)
    if name is None:
        raise BagError(f'{bag.path} holds no mos_msgs/msg/Instances: record the topic ~/instances; '
                       f'its topics: {bag.listing()}')
    for _, value in bag.items([name]):
        if isinstance(value, Skip):
            raise BagError(f'{bag.path}: {value.detail}')
        yield value


def node_counts(bag: Bag, skipped: dict[str, int]) -> dict[str, int]:
    """The node's own last counters from its recorded diagnostics; its skips are put into `skipped`.
    """
    counts: dict[str, int] = {}
    for item in bag.messages({topic.name for topic in bag.topics if topic.msgtype == DIAGNOSTICS}):
        for status in deserialize(DIAGNOSTICS, item.data).status:
            if not status.name.endswith(': perception'):
                continue
            for pair in status.values:
                kind, _, name = pair.key.partition(' ')
                if kind == 'total':
                    counts[f'node: {name}'] = int(pair.value)
                elif kind == 'skipped':
                    skipped[name] = int(pair.value)
    return counts


class Inputs:
    """The inputs of a recording, read on just far enough to have those of each result."""

    def __init__(self, bag: Bag, image_topic: str, events_topic: str) -> None:
        """'' for a topic that is not used."""
        self.start_ns: int | None = None
        self._with_frames, self._with_events = bool(image_topic), bool(events_topic)
        self._items = bag.items([topic for topic in (image_topic, events_topic) if topic])
        self._frames: deque[Frame] = deque(maxlen=FRAMES_KEPT)
        self._stream, self._buffer = EventStream(), EventBuffer(BUFFER_BYTES)
        self._sensor: tuple[int, int] | None = None
        self._reached_ns = -1

    def at(self, stamp_ns: int) -> tuple[Frame | None, EventWindow | None]:
        """The frame with this stamp, and the events up to it."""
        while not self._have(stamp_ns):
            item = next(self._items, None)
            if item is None:
                break
            self._take(item[1])
        frame = next((frame for frame in self._frames if frame.stamp_ns == stamp_ns), None)
        if self._sensor is None:
            return frame, None
        first = stamp_ns - SHOWN_NS
        return frame, EventWindow(
            self._buffer.window(first, stamp_ns), first, stamp_ns, *self._sensor
        )

    def _have(self, stamp_ns: int) -> bool:
        frames = not self._with_frames or (
            bool(self._frames) and self._frames[-1].stamp_ns >= stamp_ns
        )
        return frames and (not self._with_events or self._reached_ns >= stamp_ns)

    def _take(self, value: object) -> None:
        if isinstance(value, Skip):
            return
        if self.start_ns is None:
            self.start_ns = value.stamp_ns
        if isinstance(value, Frame):
            self._frames.append(value)
            return
        if isinstance(value, EventPacket):
            events, watermark_ns, _ = self._stream.push(value)
        else:
            events, watermark_ns, _ = self._stream.push_events(
                value.events, value.height, value.width, None
            )
        self._sensor = (value.height, value.width)
        self._buffer.push(events)
        if watermark_ns is not None:
            self._reached_ns = max(self._reached_ns, watermark_ns)
            self._buffer.drop_before(self._reached_ns - 10**9)


def _pictures(inputs: Inputs, results: Iterator[NodeResult], statistics: RunStatistics,
              evaluator: GroundTruthEvaluator | None, both: bool) -> Iterator[Picture]:
    for result in results:
        frame, window = inputs.at(result.stamp_ns)
        statistics.add(result)
        if evaluator is not None:
            evaluator.add(result)
        yield draw(result, frame, window, inputs.start_ns or 0, 2 if both else 1)
