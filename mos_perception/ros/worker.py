"""One inference thread with room for one waiting item: the newest wins, and nobody polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Worker:
    """Runs `process(item)` for the newest item offered, and `due()` when an alarm set by `wake_at`
    rings.

    Both run in the worker's thread and must not raise.
    """

    def __init__(self, process: Callable[[Any], None], due: Callable[[], None]) -> None:
        self._process, self._due = process, due
        self._change = threading.Condition()
        self._item: Any = None
        self._alarm_ns: int | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def offer(self, item: Any) -> Any:
        """Hand over an item; returns the older one it replaced, None if there was none."""
        with self._change:
            replaced, self._item = self._item, item
            self._change.notify()
        return replaced

    def take(self) -> Any:
        """Take the waiting item back, None if there is none."""
        return self.offer(None)

    def wake_at(self, when_ns: int | None) -> None:
        """Call `due` at this steady time (`time.monotonic_ns`), unless set anew before; None:
        never.
        """
        with self._change:
            if when_ns != self._alarm_ns:
                self._alarm_ns = when_ns
                self._change.notify()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after the item in work; False if it did not end in time."""
        with self._change:
            self._stopping, self._item = True, None
            self._change.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._change:
                item, rang = self._next()
                if self._stopping:
                    return
            if rang:
                self._due()
            if item is not None:
                self._process(item)

    def _next(self) -> tuple[Any, bool]:
        """Wait for an item, the alarm or the end. Called with the lock held."""
        while not self._stopping:
            left_s = (
                None if self._alarm_ns is None else (self._alarm_ns - time.monotonic_ns()) / 1e9
            )
            if left_s is not None and left_s <= 0:
                self._alarm_ns = None
                return None, True
            if self._item is not None:
                item, self._item = self._item, None
                return item, False
            self._change.wait(left_s)
        return None, False
