"""Signals that must not act in the middle of something: being asked to end, and the death of a child."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager


class Termination:
    """A context in which SIGTERM, which schedulers send before they kill, only sets ``is_requested``.

    Outside the main thread, where Python handles no signals, nothing changes.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Termination:
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._previous = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_) -> None:
        if self._is_main:
            signal.signal(signal.SIGTERM, self._previous)

    def _request(self, *_) -> None:
        self.is_requested = True


@contextmanager
def child_signals_held_back():
    """In this context the death of a child process raises nothing; call :func:`raise_missed_child_signals` after it.

    PyTorch's data loader raises from its SIGCHLD handler, wherever the main thread happens to be: halfway through an
    optimisation step or a checkpoint.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def raise_missed_child_signals() -> None:
    """Run the SIGCHLD handler as if a signal had come: PyTorch's raises RuntimeError if a worker has died."""
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler):
        handler(signal.SIGCHLD, None)
