"""Byte ranges of the files in a folder, on disk or behind an fsspec URL, from any number of worker processes."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# A shard that is closed is opened again when it is next needed; users have 1,024 open files by default.
_MAX_OPEN_FILES = 128

# Every request to an object store costs as much time as transferring about this much, so nearer ranges share one.
_MERGE_GAP_BYTES = 1 << 16


class Storage(ABC):
    """The files in one folder; instances may be forked and pickled.

    Attributes:
        root: the folder or URL.
    """

    root: str

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size of a file (bytes).

        Raises:
            OSError: it does not exist or cannot be reached.
        """

    @abstractmethod
    def read_all(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: it does not exist or cannot be read.
        """

    @abstractmethod
    def read(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the ranges ``(offset, size)`` (bytes) of a file; shorter ones where the file ends too early.

        Raises:
            OSError: it does not exist or cannot be read.
        """


def open_storage(root: str) -> Storage:
    """Return the storage that ``root``, a folder or an fsspec URL such as ``s3://bucket/folder``, stands for.

    Raises:
        ModuleNotFoundError: the protocol of the URL needs a package that is not installed.
        ValueError: there is no such protocol.
    """
    return UrlFolder(root) if "://" in root else LocalFolder(root)


class LocalFolder(Storage):
    """A folder of a mounted file system. Files stay open, and are read without moving any shared file position."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._open_files = functools.lru_cache(_MAX_OPEN_FILES)(_OpenFile)

    def size(self, name: str) -> int:
        return os.stat(os.path.join(self.root, name)).st_size

    def read_all(self, name: str) -> bytes:
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read()

    def read(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        file = self._open_files(os.path.join(self.root, name))
        return [_pread(file.descriptor, offset, size) for offset, size in ranges]

    def __reduce__(self) -> tuple:
        return LocalFolder, (self.root,)


class _OpenFile:
    """A descriptor that is closed when nobody uses it any more, so that the cache may drop one that is being read."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    content = os.pread(descriptor, size, offset)
    while len(content) < size:  # one call reads at most 2 GiB
        more = os.pread(descriptor, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


class UrlFolder(Storage):
    """A folder behind an fsspec URL; each process makes a connection of its own when it first reads."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._connection: tuple[int, Any, str] | None = None
        try:
            self._connect()
        except ImportError as error:
            raise ModuleNotFoundError(f"{root} needs a package that is not installed: {error}") from error
        except ValueError as error:
            raise ValueError(f"{root}: {error}; allowed: a folder, or a URL that fsspec can open") from error

    def size(self, name: str) -> int:
        fs, folder = self._connect()
        with _os_errors(f"{self.root}/{name}"):
            size = fs.size(f"{folder}/{name}")
        if size is None:
            raise OSError(f"{self.root}/{name}: the server does not tell the size of files")
        return size

    def read_all(self, name: str) -> bytes:
        fs, folder = self._connect()
        with _os_errors(f"{self.root}/{name}"):
            return fs.cat_file(f"{folder}/{name}")

    def read(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        fs, folder = self._connect()
        blocks = list(_merge(ranges))
        starts, ends = [block[0] for block in blocks], [block[1] for block in blocks]
        with _os_errors(f"{self.root}/{name}"):
            contents = fs.cat_ranges([f"{folder}/{name}"] * len(blocks), starts, ends, on_error="raise")
        for (start, end), content in zip(blocks, contents, strict=True):
            if len(content) > end - start:
                raise OSError(f"{self.root}/{name}: the server sends whole files where ranges are asked for")
        result = []
        for offset, size in ranges:
            block = bisect_right(starts, offset) - 1
            result.append(contents[block][offset - starts[block] : offset - starts[block] + size])
        return result

    def _connect(self) -> tuple[Any, str]:
        # Connections do not survive a fork.
        if self._connection is None or self._connection[0] != os.getpid():
            import fsspec

            self._connection = (os.getpid(), *fsspec.core.url_to_fs(self.root))
        return self._connection[1:]

    def __reduce__(self) -> tuple:
        return UrlFolder, (self.root,)


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Turn whatever a file system raises into OSError: every fsspec package has errors of its own."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {error}") from error


def _merge(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the sorted blocks that cover all ranges."""
    block: tuple[int, int] | None = None
    for offset, size in sorted(ranges):
        if block is not None and offset - block[1] <= _MERGE_GAP_BYTES:
            block = (block[0], max(block[1], offset + size))
            continue
        if block is not None:
            yield block
        block = (offset, offset + size)
    if block is not None:
        yield block
