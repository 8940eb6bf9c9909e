"""`dimos_node`, or `python -m mos_perception.ros`: the node's process, from its first moment."""

from __future__ import annotations

import signal
import sys


def main(args: list[str] | None = None) -> int:
    """See `process.run`.

    A KeyboardInterrupt that falls into the import of a library may be lost in there, and the node
    would run on. So until all is imported SIGINT ends the process at once, in the background too,
    where a shell has it ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mos_perception.ros.node import main as node
    return node(args)


if __name__ == '__main__':
    sys.exit(main())
