"""Text as people save it, files replaced in one step, and folders with one writer at a time."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

LABEL_SEPARATOR = "|"  # of several labels of a video, in lists and tables

# The folder of the repository; of an installed package, which has none, the current folder.
ROOT = Path(__file__).resolve().parents[2]
ROOT = ROOT if (ROOT / "setup.py").is_file() else Path.cwd()


def full_path(path: str) -> str:
    """Return the full path of a setting: relative ones start at the repository, wherever a command was started.

    ``~`` is the home folder; URLs stay as they are.
    """
    return path if "://" in path else os.path.join(ROOT, os.path.expanduser(path))


def path_in_repository(path: str) -> str:
    """Return a path relative to the repository; the full path of what is outside of it."""
    relative = os.path.relpath(os.path.realpath(path), ROOT)
    return os.path.abspath(path) if relative.split(os.sep)[0] == os.pardir else relative


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark, lines ending in a line feed."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # which takes a byte order mark away
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a file, ``w`` for UTF-8 text or ``wb``, that replaces ``path`` in one step; not so after an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with temporary.open(mode, **text) as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:  # of a full disk: without a name
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path) -> Iterator[int]:
    """Let one process at a time write to a folder; the others wait, which the log says.

    The lock ends with the process and its children that were forked or given the yielded descriptor (``pass_fds``).
    """
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


def find_files(root: str | Path, without: str = "") -> Iterator[Path]:
    """Yield the files at any depth below a folder, through links too, in the order of their names; none that is hidden.

    A folder is looked into once, whatever links lead to it, and not at all if it has a file named ``without``.
    """
    visited = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited or without in names:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        yield from (Path(folder, name) for name in sorted(names) if name[0] != ".")


def make_folder(path: Path) -> None:
    """Make a folder and those above it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder: {error.strerror}; choose another --out") from error


@contextmanager
def claimed(path: Path, settings: dict) -> Iterator[None]:
    """Lock the folder of ``path``, a JSON file of settings: a new or empty folder, or one with the same settings."""
    folder, settings = path.parent, json.loads(json.dumps(settings))  # lists instead of tuples
    make_folder(folder)
    with locked(folder):
        if all(entry.name == f".{path.name}.tmp" for entry in folder.iterdir()):
            with replacing(path) as file:
                file.write(json.dumps(settings, indent=2) + "\n")
        if not path.exists():
            raise UserError(f"{folder} is not empty and has no {path.name}; choose another --out")
        found = json.loads(read_text(path))
        for name, value in settings.items():
            if found.get(name) != value:
                different = f"{name} is {found.get(name)} there and {value} here"
                raise UserError(f"{path}: {different}; choose another --out or delete the folder")
        yield
