"""Call a function on many items in processes that may die or hang without ending the whole.

Decoders are native code: a damaged file can crash one. ``multiprocessing.Pool`` then waits for ever and a process pool
of ``concurrent.futures`` gives up on everything; here that item alone is lost, and said to be.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

MAX_WORKERS = 256


@dataclass(frozen=True, slots=True)
class Lost:
    """What stands in the place of a result whose process died or took too long."""

    reason: str


def map_isolated(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, timeout_sec: float = math.inf
) -> Iterator[tuple[int, Any]]:
    """Yield ``(index, function(items[index]))`` for every item, in the order in which they finish.

    The result is ``Lost`` where the process died or took longer than ``timeout_sec``, which ends that process; another
    one takes over. An exception of ``function`` is raised here and stops all processes.

    Args:
        function: called in the workers; must be picklable where processes are not forked, as must the items.
        items: the arguments.
        workers: processes.
        timeout_sec: for one item.

    Raises:
        ValueError: workers or timeout_sec out of bounds.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"workers (--workers) is {workers}; allowed: 1 to {MAX_WORKERS}")
    if not timeout_sec > 0:  # nor NaN
        raise ValueError(f"timeout_sec (--timeout) is {timeout_sec:g}; allowed: above 0, inf for none")
    return _map(function, items, workers, timeout_sec)


def _map(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, timeout_sec: float
) -> Iterator[tuple[int, Any]]:
    queue = deque(range(len(items)))
    idle: list[_Worker] = []
    busy: dict[Connection, _Worker] = {}
    try:
        while queue or busy:
            while queue and len(busy) < workers:
                worker = idle.pop() if idle else _Worker(function)
                index = queue.popleft()
                worker.give(index, items[index], timeout_sec)
                busy[worker.connection] = worker
            next_deadline = min(worker.deadline for worker in busy.values())
            patience = None if next_deadline == math.inf else max(next_deadline - time.monotonic(), 0)
            for connection in wait(list(busy), patience):
                worker = busy.pop(connection)
                try:
                    is_result, value = connection.recv()
                except (EOFError, OSError):
                    yield worker.index, Lost(worker.cause_of_death())
                    continue
                if not is_result:
                    worker.stop()
                    error, where = value
                    raise error from RuntimeError(f"in a worker process:\n{where}")
                idle.append(worker)
                yield worker.index, value
            for worker in [worker for worker in busy.values() if worker.deadline <= time.monotonic()]:
                del busy[worker.connection]
                worker.stop()
                yield worker.index, Lost(f"no result after {timeout_sec:g} s")
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


class _Worker:
    """A process that works on one item at a time."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        # Forked processes start at once and share the memory of what the function refers to.
        can_fork = "fork" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if can_fork else None)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.connection, function), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, index: int, item: Any, timeout_sec: float) -> None:
        self.index, self.deadline = index, time.monotonic() + timeout_sec
        with contextlib.suppress(BrokenPipeError):  # it died: seen when its result is awaited
            self.connection.send(item)

    def cause_of_death(self) -> str:
        """Wait for the end of the process and say how it came."""
        self._process.join()
        code = self._process.exitcode
        self.stop()
        if code < 0:
            return f"the process that read it was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"the process that read it ended with status {code}"

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, other_end: Connection, function: Callable[[Any], Any]) -> None:
    other_end.close()  # else this process would not see that the main one is gone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which stops this one
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, function(item))
        except Exception as error:
            answer = (False, (error, traceback.format_exc()))
        try:
            connection.send(answer)
        except BrokenPipeError:
            return
