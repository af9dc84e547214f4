"""Work on many items in processes that may crash or hang: a damaged file that kills its decoder loses one item."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from itertools import islice
from typing import Any

import cv2
from pebble import ProcessExpired, ProcessPool

from slowfast.utils.errors import UserError


class Lost(str):
    """Reason why an item has no result, in its place."""


def map_isolated(
    function: Callable, items: Sequence, workers: int, limit_sec: Callable = lambda item: None
) -> Iterator[tuple[int, Any]]:
    """Yield ``(index, function(items[index]))`` for every item, in the order in which they finish.

    The result is ``Lost`` where the process died or took longer than ``limit_sec(item)`` (None waits for ever); an
    exception of ``function`` is raised here.
    """
    if not 1 <= workers <= 256:
        raise UserError(f"--workers is {workers}; allowed: 1 to 256")
    # Not forked from this process, whose threads may hold locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in ("torch", "cv2", "av") if name in sys.modules])
    pool = ProcessPool(workers, initializer=_start, initargs=[function], context=context)
    try:
        numbered, waiting = iter(enumerate(items)), {}
        while True:
            for index, item in islice(numbered, 4 * workers - len(waiting)):
                limit = limit_sec(item)
                waiting[pool.schedule(_call, [item], timeout=limit)] = index, limit
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                index, limit = waiting.pop(future)
                yield index, _result(future, limit)
    finally:
        pool.stop()
        pool.join()


def _start(function: Callable) -> None:
    _call.function = function  # of this process
    cv2.setNumThreads(0)  # the processes are the parallelism


def _call(item: Any) -> Any:
    return _call.function(item)


def _result(future: Future, limit_sec: float | None) -> Any:
    try:
        return future.result()
    except TimeoutError:
        return Lost(f"no result after {limit_sec:g} s")
    except ProcessExpired as error:
        code = error.exitcode
        how = (
            f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
        )
        return Lost(f"the process that read it {how}")
