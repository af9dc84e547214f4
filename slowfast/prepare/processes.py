"""Work on many items in processes that may crash or hang: a damaged file that kills its decoder loses one item."""

import math
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from typing import Any

import cv2
from pebble import ProcessExpired, ProcessPool

_AHEAD = 64  # items per process that are under way, so that one that hangs does not hold up the others


def map_isolated(
    function: Callable, items: Iterable, workers: int, limit_sec: Callable = lambda item: math.inf
) -> Iterator[Any]:
    """Yield ``function(item)`` for every item, in order, and raise its exceptions.

    In its place is a str, the reason, where the process died or took longer than ``limit_sec(item)``.
    """
    # Not forked from this process, whose threads may hold locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in ("torch", "cv2", "av") if name in sys.modules])
    pool, waiting = ProcessPool(workers, initializer=_start, initargs=[function], context=context), deque()
    try:
        for item in items:
            limit = limit_sec(item)
            waiting.append((pool.schedule(_call, [item], timeout=limit), limit))
            if len(waiting) > _AHEAD * workers:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.stop()
        pool.join()


def _start(function: Callable) -> None:
    _call.function = function  # once per process, not per item: it may hold a whole data set
    cv2.setNumThreads(0)  # the processes are the parallelism


def _call(item: Any) -> Any:
    return _call.function(item)


def _result(future: Future, limit_sec: float) -> Any:
    try:
        return future.result()
    except TimeoutError:
        return f"no result after {limit_sec:g} s"
    except ProcessExpired as error:
        code = error.exitcode
        if code < 0:
            return f"the process that read it was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"the process that read it ended with status {code}"
