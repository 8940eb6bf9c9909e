"""`mos replay --rrd`: a run as a recording for the Rerun viewer, on one timeline of stamps.

    camera/frame camera/events camera/masks camera/tracks   what was seen and found
    timings/<stage>                                         milliseconds
    log                                                     refused inputs and failed inferences
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import Fault, Result, Skip
from mos_perception.errors import ConfigError
from mos_perception.replay import Step
from mos_perception.reports.visualize import colour, event_picture

JPEG_QUALITY = 90
_IDS = 255  # classes with a colour; track ids above wrap around


def rerun_library() -> Any:
    """The package `rerun`. Raises ConfigError where it is not installed."""
    try:
        import rerun
        return rerun
    except ImportError as error:
        raise ConfigError(f'--rrd needs rerun-sdk ({error}): pip install rerun-sdk') from error


class RerunFile:
    """Writes steps to an .rrd file, which appears when it is whole. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Start. Raises ConfigError where rerun-sdk is not installed."""
        self._rerun = rerun_library()
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = path.with_name(f'.{path.name}.{os.getpid()}')
        self._out = self._rerun.RecordingStream('mos_perception')
        self._out.save(self._scratch)
        colours = [(0, (0, 0, 0, 0)), *((n, (*colour(n), 110)) for n in range(1, _IDS + 1))]
        self._out.log('camera', self._rerun.AnnotationContext(
            [self._rerun.AnnotationInfo(id=n, color=ink) for n, ink in colours]), static=True)

    def __enter__(self) -> RerunFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._out.flush()
        self._out.disconnect()
        if kind is None:
            self._scratch.replace(self.path)
        else:
            self._scratch.unlink(missing_ok=True)

    def watch(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The steps, each written down on its way."""
        for step in steps:
            self.add(step)
            yield step

    def add(self, step: Step) -> None:
        """Write one step."""
        outcome, sample = step.outcome, step.sample
        if outcome.stamp_ns > 0:
            self._out.set_time('stamp', timestamp=np.datetime64(outcome.stamp_ns, 'ns'))
        if isinstance(outcome, Skip):
            text = f'{outcome.reason.value}: {outcome.detail}'
            self._out.log('log', self._rerun.TextLog(text, level='WARN'))
        elif isinstance(outcome, Fault):
            self._out.log('log', self._rerun.TextLog(outcome.message, level='ERROR'))
        else:
            if sample is not None and sample.frame is not None:
                self._out.log('camera/frame', self._rerun.Image(sample.frame.image).compress(
                    jpeg_quality=JPEG_QUALITY))
            self._result(outcome)

    def _result(self, result: Result) -> None:
        rerun, out = self._rerun, self._out
        if result.window is not None:
            size = result.window.height, result.window.width
            picture = event_picture(result.window.events, size, dark=True)
            # events of another size have a space of their own
            name = 'camera/events' if size == result.instances.size else 'events'
            out.log(name, rerun.Image(picture).compress(jpeg_quality=JPEG_QUALITY))
        found, ids = result.instances, result.tracks.instance_ids(len(result.instances))
        classes = np.where(ids > 0, (ids - 1) % _IDS + 1, 0)
        out.log('camera/masks', rerun.SegmentationImage(found.id_image(classes).astype(np.uint8)))
        shown = np.flatnonzero(ids > 0)
        labels = [f'#{ids[n]} {found.scores[n]:.2f}' if found.moving[n] else
                  f'#{ids[n]} {found.label(n)}' for n in shown]
        out.log('camera/tracks', rerun.Boxes2D(
            array=found.boxes[shown].reshape(-1, 4), array_format=rerun.Box2DFormat.XYXY,
            labels=labels, class_ids=classes[shown]))
        for stage, value in result.stage_ms.items():
            out.log(f'timings/{stage}', rerun.Scalars(float(value)))
