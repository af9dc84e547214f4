"""Text as people save it, files that are never seen half written, and folders with one writer at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


def read_text(path: str | Path) -> str:
    """Return the content of a UTF-8 file, with or without a byte order mark, lines ending in a line feed.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: not UTF-8 text.
    """
    try:
        # utf-8-sig also reads files that a spreadsheet began with a byte order mark.
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


@contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes the place of ``path`` in one step at the end; after an error nothing has changed.

    Args:
        path: of the file; its folder must exist.
        mode: ``w`` for UTF-8 text, whose line feeds are written as they are, or ``wb``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with temporary.open(mode, **text) as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path) -> Iterator[int]:
    """Let one process at a time write to a folder; the others wait, which the log says.

    The lock ends with the process, or with the last of those that were forked while it was held or that were started
    with the file descriptor which this gives (``pass_fds``).
    """
    import fcntl  # not on Windows, where the rest of this file works

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process is writing to %s: waiting for it", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
