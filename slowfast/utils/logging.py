"""Log for people, events of a run, and progress on terminals and without one."""

import io
import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import simplejson
from tqdm import tqdm

logger = logging.getLogger(__name__)

TEXT_LOG = "run.log"
EVENT_LOG = "log.jsonl"

_PLAIN_PERIOD_SEC = 30  # between two lines about progress, where there is no bar


def setup_logging(output_dir: str | None, is_main: bool) -> None:
    """Send the log to standard output and to ``run.log`` in ``output_dir``; from other ranks only warnings."""
    root = logging.getLogger("slowfast")
    root.setLevel(logging.INFO if is_main else logging.WARNING)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stdout)
    # A line begins where a bar, of this process or of another, may stand; the bar comes again with its next step.
    console.setFormatter(logging.Formatter(("\r\033[K" if _has_width(sys.stdout) else "") + "%(mark)s%(message)s"))
    console.addFilter(_mark_warnings)
    root.addHandler(console)
    if is_main and output_dir is not None:
        file = logging.FileHandler(os.path.join(output_dir, TEXT_LOG))
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(file)


def _mark_warnings(record: logging.LogRecord) -> bool:
    record.mark = "WARNING: " if record.levelno >= logging.WARNING else ""
    return True


def read_events(output_dir: str, event: str = "") -> list[dict]:
    """Return the events of one name ("": all) in a run's log, oldest first. Half-written lines are left out."""
    path = Path(output_dir, EVENT_LOG)
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(simplejson.JSONDecodeError):
            events.append(simplejson.loads(line))
    return [entry for entry in events if event in ("", entry["event"])]


def format_duration(seconds: float) -> str:
    """Return a duration such as "1 day, 2:03:04"."""
    return str(timedelta(seconds=round(seconds)))


def progress_bar(
    iterable: Iterable | None, total: int, description: str, is_main: bool = True, plain_lines: bool = True, **options
) -> tqdm:
    """Show progress, on the main process: a bar where there is a terminal, else a plain line every half a minute.

    Without ``plain_lines`` the caller logs lines of its own when there is no bar (``disable`` is True). ``options`` are
    those of tqdm, such as ``initial`` and ``unit``; with None for ``iterable`` the caller updates the bar.
    """
    if is_main and plain_lines and not _has_width(sys.stderr):
        options |= {"mininterval": _PLAIN_PERIOD_SEC, "miniters": 0, "file": io.StringIO()}
        return _PlainProgress(iterable, description, total, leave=False, **options)
    is_disabled = not (is_main and _has_width(sys.stderr))
    return tqdm(iterable, description, total, disable=is_disabled, dynamic_ncols=True, leave=False, **options)


def _has_width(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal that can show a bar; a pseudo-terminal may have no columns."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except (AttributeError, OSError, ValueError):  # no stream at all, one that is no file, one that is closed
        return False


class _PlainProgress(tqdm):
    """Progress as lines of the log, where tqdm would draw its bar."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None and self.initial < self.n < self.total:  # neither the begin nor the end
            left = (time.time() - self.start_t) / (self.n - self.initial) * (self.total - self.n)
            logger.info("%s: %d/%d, %s left", self.desc, self.n, self.total, format_duration(left))
