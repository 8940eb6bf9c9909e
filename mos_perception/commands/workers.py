"""Tasks in worker processes of this machine, or on a Ray cluster. Knows nothing of recordings.

A worker that dies (killed for memory, a crash of a library) costs its task alone: the result is
then the reason, a string.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from mos_perception.errors import ConfigError

T = TypeVar('T')
CHECK_S = 0.2  # how often an interrupt is looked for
DIED = 'the process that worked on it died: was memory full? "--jobs 1" works on one at a time'


def in_processes(run: Callable[[T], Any], tasks: Sequence[T],
                 jobs: int) -> Iterator[tuple[T, Any]]:
    """(task, run(task)) as they end, `jobs` at a time; 1: in this very process.

    `run` must be importable and not raise.
    """
    if jobs <= 1:
        yield from ((task, run(task)) for task in tasks)
        return
    own, pools = threading.local(), []

    def in_own_process(task: T) -> tuple[T, Any]:
        """Each thread has a process, and a new one where it died."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the process has begun
        if getattr(own, 'pool', None) is None:
            own.pool = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _begin)
            pools.append(own.pool)
        try:
            return task, own.pool.submit(run, task).result()
        except BrokenProcessPool:
            own.pool = None
            return task, DIED
    with _interrupts() as interrupted, ThreadPoolExecutor(min(jobs, max(len(tasks), 1))) as threads:
        futures = [threads.submit(in_own_process, task) for task in tasks]
        try:
            left = set(futures)
            while left:
                done, left = wait(left, CHECK_S, FIRST_COMPLETED)
                if interrupted.is_set():
                    raise KeyboardInterrupt
                yield from (future.result() for future in done)
        finally:  # an interrupt reaches the processes too
            for future in futures:
                future.cancel()
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by SIGINT, where this is the main thread: raised anywhere, as Python does, it may get
    lost in a destructor, and the workers that it ended would count as failures.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    """An interrupt ends this process at once and without a word: the parent says what is to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def on_ray(run: Callable[[T], Any], tasks: Sequence[T], address: str) -> Iterator[tuple[T, Any]]:
    """(task, run(task)) as they end, on the Ray cluster at `address`, a core each.

    Its nodes must have this package and see the same files. Raises ConfigError without ray or
    without a cluster there.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f'--ray: {error}: pip install ray, the version of the cluster; or use '
                          '--jobs') from error
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level='ERROR')
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
        raise ConfigError(f'--ray {address}: no Ray cluster there ({str(error)[:200]}): start one '
                          'with "ray start --head"') from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=1)(run)
        running = {remote.remote(task): task for task in tasks}
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(ended)
            try:
                yield task, ray.get(ended)
            except ray.exceptions.RayError as error:
                yield task, f'{DIED} ({type(error).__name__})'
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once where nobody answers: Ray itself would try for minutes."""
    host, colon, port = address.rpartition('://')[2].rpartition(':')
    if colon and port.isdigit():
        socket.create_connection((host.strip('[]'), int(port)), timeout=5).close()
