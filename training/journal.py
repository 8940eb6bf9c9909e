"""What a run tells: metrics.jsonl, TensorBoard, a line now and then, and on a terminal a bar with the time left."""

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


class Journal:
    """Means of the steps' numbers since the last line. Use in a `with` block; not `active`: silent, writes nothing."""

    def __init__(self, folder: Path, name: str, first: int, active: bool = True) -> None:
        """`first`: the step the run goes on from."""
        self.active, self._folder, self._first = active, folder, first
        self._sums: dict[str, float] = {}
        self._logged = time.monotonic()
        self._console = Console(soft_wrap=True)
        columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                   TextColumn('step {task.fields[step]}  loss {task.fields[loss]:.3f}'))
        self._bar = Progress(*columns, console=self._console, disable=not active or not self._console.is_terminal)
        self._task = self._bar.add_task(name, total=1.0, step=first, loss=math.nan)
        self._open = ExitStack()

    def __enter__(self) -> Journal:
        with ExitStack() as opened:
            opened.enter_context(self._bar)
            self._file = opened.enter_context(open(self._folder / 'metrics.jsonl' if self.active else os.devnull, 'a'))
            self._board = opened.enter_context(SummaryWriter(str(self._folder))) if self.active else None
            self._open = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._open.close()

    def add(self, step: int, done: float, numbers: dict[str, float]) -> None:
        """One step's numbers; `done` in [0, 1] of the run."""
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._bar.update(self._task, completed=done, step=step, loss=numbers['loss'])

    def due(self, step: int, seconds: float) -> bool:
        """Whether something happened and the last line is `seconds` old."""
        return self.active and step > self._first and time.monotonic() - self._logged >= seconds

    def write(self, step: int, done: float, seconds: float, rate: float, batch: int,
              pace: dict[str, float]) -> dict[str, float]:
        """One entry everywhere; returns the means. `seconds` of the run so far, `batch` samples a step, `pace`: how
        fast samples are made."""
        now = time.monotonic()
        means = {name: value / (step - self._first) for name, value in self._sums.items()}
        pace = {'samples_per_s': round((step - self._first) * batch / (now - self._logged), 1), **pace}
        self._file.write(json.dumps({'step': step, 'seconds': round(seconds, 1), 'done': round(done, 4), 'rate': rate,
                                     **pace, **{name: round(value, 5) for name, value in means.items()}}) + '\n')
        self._file.flush()
        if self._board:
            for name, value in {'rate': rate, **means}.items():
                self._board.add_scalar(name, value, step)
        left = seconds * (1 / done - 1) / 60 if done else math.inf
        made = '  '.join(f'{name} {value:g}' for name, value in pace.items())
        line = f'step {step}  {100 * done:.1f} %  {left:.1f} min left  {made}  lr {rate:.2e}  {words(means)}'
        self._console.print(line, highlight=False, markup=False)
        self._console.file.flush()
        self._logged, self._first, self._sums = now, step, {}
        return means


def words(terms: dict[str, float]) -> str:
    """Names and values on one line."""
    return '  '.join(f'{name} {float(value):.4f}' for name, value in terms.items())
