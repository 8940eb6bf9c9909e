"""How long each stage of the data path took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimes(dict[str, float]):
    """Milliseconds by stage name, in the order of the data path."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Book the time spent inside under `name`."""
        start = time.perf_counter()
        yield
        self[name] = (time.perf_counter() - start) * 1e3
