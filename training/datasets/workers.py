"""Jobs done by processes in the background, results by number. Nothing outlives its owner.

One pipe per process and no shared locks: a process may be stopped at any moment, and it ends by
itself once the owner is gone, however that came about. Ctrl-C reaches the owner only.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from mos_perception.errors import MosError

_STOP_S = 5.0


class RenderError(MosError):
    """A job that failed in the background, with the traceback of the place where it did."""


def _serve(pipe: Connection, job: Callable[..., Any]) -> None:
    """A process: one thread, arguments in, (result, traceback text) out.

    Until the other end is closed.
    """
    import cv2
    import numba
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    try:
        while True:
            arguments = pipe.recv()
            try:
                answer = job(*arguments), ''
            except Exception:
                answer = None, traceback.format_exc()
            pipe.send(answer)
    except (EOFError, OSError):
        return  # the owner closed the pipe, or is gone


class Workers:
    """`submit` numbered jobs, `take` their results; the jobs start in the order they came in.

    With 0 processes `take` works. Use from one thread, and `close` it (a `with` block does).
    """

    def __init__(self, count: int, job: Callable[..., Any]) -> None:
        """`job` must be importable by name.

        Processes start at once ("spawn"), with one thread each.
        """
        self._job = job
        self._queue: deque[tuple[int, tuple]] = deque()
        self._wanted: set[int] = set()
        self._results: dict[int, tuple[Any, str]] = {}
        self._dead = ''
        self._closed = False
        self._changed = threading.Condition()
        self._busy: dict[Connection, int] = {}
        self._idle: list[Connection] = []
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._thread: threading.Thread | None = None
        if count:
            context = multiprocessing.get_context('spawn')
            self._woken, self._wake = context.Pipe(duplex=False)
            self._start(context, count)
            self._thread = threading.Thread(target=self._collect, name='workers', daemon=True)
            self._thread.start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process numbers."""
        return [process.pid for process in self._processes.values() if process.pid]

    def submit(self, number: int, arguments: tuple, first: bool = False) -> None:
        """Queue the job `number`, at the front if `first`."""
        with self._changed:
            self._wanted.add(number)
            (self._queue.appendleft if first else self._queue.append)((number, arguments))
            self._hand_out()

    def take(self, number: int, note: Callable[[float], None] = lambda seconds: None) -> Any:
        """The result of a submitted job, once. Raises RenderError if it failed or a process died.

        `note` is called with the seconds waited so far, every 10 s.
        """
        if self._thread is None and not self._closed:
            return self._do(number)
        begun = time.monotonic()
        with self._changed:
            while number not in self._results:
                if self._dead or self._closed:
                    closed = f'job {number} was asked of closed workers: make new ones'
                    raise RenderError(self._dead or closed)
                if not self._changed.wait(10.0):
                    note(time.monotonic() - begun)
            self._wanted.discard(number)
            value, trouble = self._results.pop(number)
        if trouble:
            raise RenderError(f'job {number} failed in a worker process:\n{trouble}')
        return value

    def cancel(self) -> None:
        """Forget every job not taken; what is under way is finished for nothing."""
        with self._changed:
            self._wanted.clear()
            self._queue.clear()
            self._results.clear()

    def close(self) -> None:
        """Stop every process, whatever it is doing, and wait until it is gone."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._thread is None:
            return
        self._wake.send(None)
        self._thread.join(_STOP_S)
        for process in self._processes.values():
            process.terminate()
        for pipe, process in self._processes.items():
            process.join(_STOP_S)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
        self._processes.clear()
        self._wake.close()
        self._woken.close()

    def _start(self, context: multiprocessing.context.BaseContext, count: int) -> None:
        main = threading.current_thread() is threading.main_thread()
        # a new process inherits "ignore"
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            for number in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, self._job),
                                          name=f'render-{number}', daemon=True)
                process.start()
                theirs.close()
                self._processes[ours] = process
                self._idle.append(ours)
        finally:
            if main:
                signal.signal(signal.SIGINT, before)

    def _do(self, number: int) -> Any:
        """Without processes: the job, here and now."""
        arguments = next(arguments for queued, arguments in self._queue if queued == number)
        self._queue.remove((number, arguments))
        try:
            return self._job(*arguments)
        except Exception as error:
            raise RenderError(f'job {number} failed:\n{traceback.format_exc()}') from error

    def _hand_out(self) -> None:
        """Give queued jobs to idle processes. A process that is gone shows itself in `_collect`."""
        while self._queue and self._idle and not self._closed:
            pipe, (number, arguments) = self._idle.pop(), self._queue.popleft()
            self._busy[pipe] = number
            try:
                pipe.send(arguments)
            except OSError:
                continue

    def _collect(self) -> None:
        """The thread: results in, next jobs out, so that no process waits for the training step."""
        while True:
            ready = wait([*self._processes, self._woken])
            if self._woken in ready:
                return
            for pipe in ready:
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):
                    self._bury(pipe)
                    return
                with self._changed:
                    number = self._busy.pop(pipe)
                    if number in self._wanted:
                        self._results[number] = answer
                    self._idle.append(pipe)
                    self._hand_out()
                    self._changed.notify_all()

    def _bury(self, pipe: Connection) -> None:
        """Note that a process died."""
        process = self._processes[pipe]
        process.join(_STOP_S)
        with self._changed:
            doing = f'job {self._busy[pipe]}' if pipe in self._busy else 'nothing'
            self._dead = (f'worker process {process.name} ended with exit code '
                          f'{process.exitcode} while doing {doing}: if it was killed (code -9), '
                          'there may be too little memory: use fewer workers or less cache')
            self._changed.notify_all()
