"""What the containers say of their own size, to find files that lost their end. FFmpeg reads those as shorter ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

_MP4_BOXES = set(b"ftyp styp moov moof mdat sidx mfra free skip wide uuid emsg".split())


def announced_size(file: BinaryIO, container_format: str) -> int | None:
    """Return the smallest size in bytes that the file can have if it is complete, or None if that is not announced.

    Args:
        file: at its start.
        container_format: FFmpeg's name of it.
    """
    # FFmpeg's name of a format lists its usual endings.
    for ending, read_size in _READERS.items():
        if ending in container_format.split(","):
            return read_size(file)
    return None


def file_size(file: BinaryIO) -> int:
    """Return the size in bytes, leaving the file at its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def why_no_container(file: BinaryIO) -> str:
    """Return why FFmpeg finds no container that it knows in the file."""
    names = {name for name, _ in _mp4_boxes(file)}
    if not file_size(file):
        return "the file is empty"
    if b"ftyp" in names and b"moov" not in names:
        return "truncated: the index of the MP4 file (moov) is missing"
    return "not a video file, or damaged where it begins"


def _avi_size(file: BinaryIO) -> int:
    return 8 + int.from_bytes(file.read(8)[4:], "little")


def _mp4_size(file: BinaryIO) -> int:
    return max((end for _, end in _mp4_boxes(file)), default=0)


def _mp4_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Walk over the boxes of the file, giving their names and where they end.

    Each begins with its size (4 bytes) and its name (4 bytes). The last one may end after the file.
    """
    at, end = 0, file_size(file)
    while at + 8 <= end:
        file.seek(at)
        header = file.read(16)
        size, name = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:  # it did not fit: 8 bytes after the name
            size = int.from_bytes(header[8:], "big")
        elif size == 0:  # up to the end of the file
            size = end - at
        if name not in _MP4_BOXES or size < 8:
            return
        at += size
        yield name, at


def _matroska_size(file: BinaryIO) -> int | None:
    """Return the end of the segment, which follows the EBML header (RFC 8794)."""
    file.seek(4)
    header_size = _read_ebml_size(file)
    if header_size is None:
        return None
    file.seek(header_size, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    size = _read_ebml_size(file)
    return None if size is None else file.tell() + size


def _read_ebml_size(file: BinaryIO) -> int | None:
    """Read a size: as many leading zero bits as bytes follow the first one; all other bits set is "unknown"."""
    first = file.read(1)
    if not first:
        return None
    num_more = 8 - first[0].bit_length()
    unknown = (1 << 7 * (num_more + 1)) - 1
    size = int.from_bytes(first + file.read(num_more), "big") & unknown
    return None if size == unknown else size


_READERS: dict[str, Callable[[BinaryIO], int | None]] = {"avi": _avi_size, "mp4": _mp4_size, "matroska": _matroska_size}
