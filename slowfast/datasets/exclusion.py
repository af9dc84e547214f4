"""Lists of videos to leave out."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from slowfast.datasets.manifest import Record
from slowfast.utils.files import read_text

# Header of what ``prepare_data.py check`` writes.
BAD_ITEMS_HEADER = ("path", "split", "reason")


def read_exclusion(path: str) -> list[str]:
    """Return the paths of a ``bad_items.csv`` (columns path, split, reason) or of a file with one path a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not UTF-8 text.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"exclusion list {path} (DATA.EXCLUDE_FILE) does not exist")
    lines = read_text(path).split("\n")
    if lines[0].split(",") == list(BAD_ITEMS_HEADER):
        return [row[0] for row in csv.reader(lines[1:]) if row]
    return [line.strip() for line in lines if line.strip()]


def exclude_records(records: Sequence[Record], paths: Sequence[str], prefix: str) -> tuple[list[Record], list[str]]:
    """Split records and paths into what remains of each.

    Args:
        records: of a list.
        paths: full, or relative to the working folder or to ``prefix``.
        prefix: folder to which the paths in the list files are relative.

    Returns:
        The records that none of the paths names, and the paths that name no record.
    """
    present = {os.path.abspath(record.path) for record in records}
    excluded, unmatched = set(), []
    for path in paths:
        named = {os.path.abspath(path), os.path.abspath(os.path.join(prefix, path))} & present
        excluded |= named
        if not named:
            unmatched.append(path)
    return [record for record in records if os.path.abspath(record.path) not in excluded], unmatched
