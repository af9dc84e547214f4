"""Text for people and one JSON line per event for programs."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TextIO

import simplejson
from tqdm import tqdm

TEXT_LOG = "run.log"
EVENT_LOG = "log.jsonl"


class _TqdmHandler(logging.StreamHandler):
    """Print above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def setup_logging(output_dir: str, is_main: bool) -> None:
    """Send the package's log to standard output and to ``OUTPUT_DIR/run.log``; other ranks report warnings only."""
    root = logging.getLogger("slowfast")
    root.setLevel(logging.INFO if is_main else logging.WARNING)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    console = _TqdmHandler()
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)
    if is_main:
        file = logging.FileHandler(os.path.join(output_dir, TEXT_LOG))
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(file)


class EventLog:
    """Appends events to ``OUTPUT_DIR/log.jsonl``: {"event": name, "time": seconds since 1970, **fields}.

    Args:
        output_dir: folder of the run.
        enabled: False writes nothing (all processes but the main one).
    """

    def __init__(self, output_dir: str, enabled: bool = True) -> None:
        self.path = os.path.join(output_dir, EVENT_LOG)
        self.enabled = enabled
        if enabled and os.path.exists(self.path):
            with open(self.path, "rb+") as file:
                # A run that died while writing leaves half a line; the next event must not continue it.
                if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                    file.write(b"\n")

    def write(self, event: str, **fields) -> None:
        """Append one line; NaN and infinity become null, which plain JSON does not have."""
        if self.enabled:
            line = simplejson.dumps({"event": event, "time": round(time.time(), 3), **fields}, ignore_nan=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")


def read_events(output_dir: str, event: str) -> list[dict]:
    """Return the events of one name in a run's log, oldest first. Half-written lines are left out."""
    events = []
    path = os.path.join(output_dir, EVENT_LOG)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    events.append(simplejson.loads(line))
                except simplejson.JSONDecodeError:
                    continue
    return [entry for entry in events if entry["event"] == event]


def _has_width(stream: TextIO) -> bool:
    """Return whether the stream is a terminal that can show a bar; a pseudo-terminal may have no columns."""
    return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0


def progress_bar(iterable, total: int, description: str, is_main: bool):
    """Wrap ``iterable`` in a progress bar if this is the main process on a terminal; return a tqdm either way."""
    return tqdm(
        iterable,
        total=total,
        desc=description,
        disable=not (is_main and _has_width(sys.stderr)),
        dynamic_ncols=True,
        leave=False,
    )
