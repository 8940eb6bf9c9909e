"""The end of a command: an error that is no defect of ours is one line."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from mos_perception.errors import MosError

Main = Callable[..., int]


def command(name: str) -> Callable[[Main], Main]:
    """A decorator of `main` functions: their MosError or OSError is a line on stderr, begun by
    `name`, and exit code 1, as it is of `mos`.
    """
    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        def run(arguments: list[str] | None = None) -> int:
            try:
                return main(arguments)
            except (MosError, OSError) as error:
                print(f'{name}: {error}', file=sys.stderr)
                return 1
        return run
    return wrap
