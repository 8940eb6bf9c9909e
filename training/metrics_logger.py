"""Where a run's metrics go: metrics.jsonl, TensorBoard, lines now and then, on a terminal a bar."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter


class MetricsLogger:
    """Means of the steps' metrics since the last line.

    Use in a `with` block. If not `active` it is silent and writes nothing.
    """

    def __init__(self, folder: Path, name: str, first_step: int, active: bool = True) -> None:
        """`first_step`: the step the run goes on from."""
        self.active, self._folder, self._first = active, folder, first_step
        self._sums: dict[str, float] = {}
        self._logged = time.monotonic()
        self._console = Console(soft_wrap=True)
        columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                   TextColumn('step {task.fields[step]}  loss {task.fields[loss]:.3f}'))
        silent = not active or not self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, disable=silent)
        self._task = self._bar.add_task(name, total=1.0, step=first_step, loss=math.nan)
        self._open = ExitStack()

    def __enter__(self) -> MetricsLogger:
        path = self._folder / 'metrics.jsonl' if self.active else os.devnull
        with ExitStack() as opened:
            opened.enter_context(self._bar)
            self._file = opened.enter_context(open(path, 'a'))
            self._board = None
            if self.active:
                self._board = opened.enter_context(SummaryWriter(str(self._folder)))
            self._open = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._open.close()

    def add(self, step: int, progress: float, metrics: dict[str, float]) -> None:
        """One step's metrics; `progress` in [0, 1] of the run."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._bar.update(self._task, completed=progress, step=step, loss=metrics['loss'])

    def due(self, step: int, seconds: float) -> bool:
        """Whether something happened and the last line is `seconds` old."""
        return (self.active and step > self._first
                and time.monotonic() - self._logged >= seconds)

    def write(self, step: int, progress: float, seconds: float, *, learning_rate: float,
              batch: int, pace: dict[str, float]) -> dict[str, float]:
        """One entry everywhere; returns the means.

        `seconds` of the run so far, `batch` samples a step, `pace`: how fast samples are made.
        """
        now, steps = time.monotonic(), step - self._first
        means = {name: value / steps for name, value in self._sums.items()}
        samples_per_s = steps * batch / (now - self._logged)
        pace = {'samples_per_s': round(samples_per_s, 1), **pace}
        self._write_json({
            'step': step, 'seconds': round(seconds, 1), 'done': round(progress, 4),
            'learning_rate': learning_rate, **pace,
            **{name: round(value, 5) for name, value in means.items()},
        })
        if self._board:
            for name, value in {'learning_rate': learning_rate, **means}.items():
                self._board.add_scalar(name, value, step)
        self._print_line(step, progress, seconds, learning_rate, pace, means)
        self._logged, self._first, self._sums = now, step, {}
        return means

    def _write_json(self, entry: dict[str, float]) -> None:
        self._file.write(json.dumps(entry) + '\n')
        self._file.flush()

    def _print_line(self, step: int, progress: float, seconds: float, learning_rate: float,
                    pace: dict[str, float], means: dict[str, float]) -> None:
        minutes_left = seconds * (1 / progress - 1) / 60 if progress else math.inf
        parts = [
            f'step {step}',
            f'{100 * progress:.1f} %',
            f'{minutes_left:.1f} min left',
            *(f'{name} {value:g}' for name, value in pace.items()),
            f'lr {learning_rate:.2e}',
            format_metrics(means),
        ]
        self._console.print('  '.join(parts), highlight=False, markup=False)
        self._console.file.flush()


def format_metrics(metrics: dict[str, float]) -> str:
    """Names and values on one line."""
    return '  '.join(f'{name} {float(value):.4f}' for name, value in metrics.items())
