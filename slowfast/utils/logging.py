"""Text for people and one JSON line per event for programs."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Iterable
from typing import TextIO

import simplejson
from tqdm import tqdm

logger = logging.getLogger(__name__)

TEXT_LOG = "run.log"
EVENT_LOG = "log.jsonl"

# Between two plain lines about progress, where there is no bar.
_PLAIN_PERIOD_SEC = 30
_CLEAR_LINE = "\r\033[K"


class _TqdmHandler(logging.StreamHandler):
    """Print above a running progress bar instead of through it.

    Args:
        draws_bars: False in processes whose bars are disabled, while another one may draw on the same terminal.
    """

    def __init__(self, draws_bars: bool) -> None:
        super().__init__(sys.stdout)
        # A forked worker of the loader has a copy of the bar, which must not be drawn a second time.
        self._bar_pid = os.getpid() if draws_bars else None

    def emit(self, record: logging.LogRecord) -> None:
        if os.getpid() == self._bar_pid:
            tqdm.write(self.format(record), file=sys.stdout)
        else:
            sys.stdout.write(f"{_CLEAR_LINE if _has_width(sys.stdout) else ''}{self.format(record)}\n")
        sys.stdout.flush()


def setup_logging(output_dir: str | None, is_main: bool) -> None:
    """Send the package's log to standard output and, unless ``output_dir`` is None, to ``run.log`` in it.

    Other ranks report warnings only.
    """
    root = logging.getLogger("slowfast")
    root.setLevel(logging.INFO if is_main else logging.WARNING)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    console = _TqdmHandler(draws_bars=is_main)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)
    if is_main and output_dir is not None:
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
        """Append one line; NaN and infinity become null, which plain JSON does not have.

        Raises:
            OSError: the file cannot be written.
        """
        assert "time" not in fields, "every event has its time already"
        if not self.enabled:
            return
        line = simplejson.dumps({"event": event, "time": round(time.time(), 3), **fields}, ignore_nan=True)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error


def read_events(output_dir: str, event: str = "") -> list[dict]:
    """Return the events of one name ("": all) in a run's log, oldest first. Half-written lines are left out."""
    events = []
    path = os.path.join(output_dir, EVENT_LOG)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    events.append(simplejson.loads(line))
                except simplejson.JSONDecodeError:
                    continue
    return [entry for entry in events if event in ("", entry["event"])]


def _has_width(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal that can show a bar; a pseudo-terminal may have no columns."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except (AttributeError, OSError, ValueError):  # no stream at all, one that is no file, one that is closed
        return False


def format_duration(seconds: float) -> str:
    """Return hours, minutes and seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def progress_bar(
    iterable: Iterable | None,
    total: int,
    description: str,
    is_main: bool = True,
    initial: int = 0,
    plain_lines: bool = True,
    unit: str = "it",
    unit_scale: bool = False,
) -> tqdm:
    """Show progress: on the main process a bar where there is a terminal, else a plain line every half a minute.

    Args:
        iterable: what to wrap, or None for a bar that the caller updates.
        total: number of items.
        description: label.
        is_main: False shows nothing: bars of several processes would overwrite each other.
        initial: items done before.
        plain_lines: False where the caller logs lines of its own when there is no bar (``disable`` is True).
        unit: of the rate that the bar shows.
        unit_scale: print 1.5M instead of 1500000.
    """
    common = {"total": total, "initial": initial, "desc": description, "unit": unit, "unit_scale": unit_scale}
    if is_main and plain_lines and not _has_width(sys.stderr):
        return _PlainProgress(iterable, mininterval=_PLAIN_PERIOD_SEC, miniters=1, file=io.StringIO(), **common)
    return tqdm(iterable, disable=not (is_main and _has_width(sys.stderr)), dynamic_ncols=True, leave=False, **common)


class _PlainProgress(tqdm):
    """Progress as lines of the log; when to draw is tqdm's business, what is drawn is not."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if not self.initial < self.n < self.total:  # nothing is known yet, or the caller says how it ended
            return
        left = format_duration((time.time() - self.start_t) / (self.n - self.initial) * (self.total - self.n))
        size = self.format_sizeof if self.unit_scale else str
        remark = f", {self.postfix}" if self.postfix else ""
        logger.info("%s: %s/%s, %s left%s", self.desc, size(self.n), size(self.total), left, remark)
