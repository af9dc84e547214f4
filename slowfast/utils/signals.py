"""Requests to stop: a first signal lets the work at hand be finished and saved, a second one ends at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(Exception):
    """The run was asked to stop; ``args[0]`` says where it did, ``status`` is the exit status of the process."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StopRequest:
    """A context in which SIGTERM and SIGINT (Ctrl-C) only note a request; a second SIGINT raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_requested = False
        self.status = 128 + signal.SIGTERM
        self._place: str | None = None  # set where stopping at once loses nothing

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self, place: str) -> Iterator[None]:
        """Raise :class:`Terminated` as soon as it is requested; ``place`` says where that is."""
        self._place = place
        try:
            self._raise_if_requested()
            yield
        finally:
            self._place = None

    def _note(self, number: int, _) -> None:
        if number == signal.SIGINT and self.is_requested:
            raise KeyboardInterrupt
        self.is_requested, self.status = True, 128 + number
        self._raise_if_requested()

    def _raise_if_requested(self) -> None:
        if self.is_requested and self._place is not None:
            raise Terminated(f"stopped by a signal {self._place}", self.status)
