"""List files to records: one line names a video, its label and, for folders of images, its frame count."""

import csv
import logging
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os.path import isfile

import numpy as np

from slowfast.utils.errors import UserError
from slowfast.utils.files import LABEL_SEPARATOR, read_text

logger = logging.getLogger(__name__)

# The fields of a line, in order, for each DATA.SOURCE.
FIELDS = {"video": ("path", "label"), "frames": ("folder", "num_frames", "label"), "image": ("path", "label")}

# Header of the list of bad items that ``tools/prepare_data.py check`` writes and DATA.EXCLUDE_FILE may name.
BAD_ITEMS_HEADER = ("path", "split", "reason")

SEPARATORS = ",\t "
_INTEGER, _LABELS = re.compile(r"-?[0-9]+"), re.compile(r"-?[0-9]+(\|-?[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a list file."""

    path: str  # of the video file, of the folder of images or of the image, in full
    label: int | tuple[int, ...]  # several where DATA.MULTI_LABEL is on
    num_frames: int | None  # images in the folder; None for a video file, which is counted when opened, and an image
    origin: str  # ``list file:line``, for messages
    name: str = ""  # path as the list has it, which is the same on every machine

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels, one or several."""
        return self.label if isinstance(self.label, tuple) else (self.label,)

    @property
    def label_text(self) -> str:
        """The label field of a list file."""
        return LABEL_SEPARATOR.join(map(str, self.labels))


def read_manifest(
    list_path: str, prefix: str, source: str, num_classes: int, multi_label: bool = False
) -> list[Record]:
    """Read and check a list file.

    The separator is found on the first line. With commas or tabs a line has exactly the fields of ``FIELDS[source]``.
    With spaces it is split from the right, so that a path may contain spaces. Blank lines are skipped. Paths are
    relative to ``prefix``; with ``multi_label`` a label field may be "3|17"; labels must lie in [0, num_classes), or be
    at least 0 if that is 0.
    """
    fields = " ".join(FIELDS[source])
    text = _read(
        list_path,
        f"set DATA.PATH_TO_DATA_DIR to the folder with your lists (one line per video: {fields}; "
        "DATA.LABEL_PATH_TEMPLATE names the files), or make them with tools/prepare_data.py (docs/data.md)",
    )
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"list file {list_path} is empty, expected lines '{fields}'")
    settings = (prefix, source, _detect_separator(lines[0][1], len(FIELDS[source])), num_classes, multi_label)
    records = [_parse_line(line, f"{list_path}:{number}", *settings) for number, line in lines]
    labels = {record.label_text for record in records}
    if len(labels) == 1 and len(records) > 1 and num_classes != 1:
        message = "all %d lines of %s have label %s: is this a test list without labels?"
        logger.warning(message, len(records), list_path, labels.pop())
    return records


def _read(path: str, hint: str) -> str:
    if not os.path.isfile(path):
        raise UserError(f"{path} {'is a folder' if os.path.isdir(path) else 'does not exist'}: {hint}")
    return read_text(path)


def _split(line: str, separator: str, num_fields: int) -> list[str]:
    if separator == " ":
        return line.rsplit(maxsplit=num_fields - 1)
    return [field.strip() for field in line.split(separator)]


def _detect_separator(line: str, num_fields: int) -> str:
    """Return the separator that makes ``line`` a path followed by integers."""
    for separator in SEPARATORS:
        fields = _split(line, separator, num_fields)
        if len(fields) == num_fields and all(map(_LABELS.fullmatch, fields[1:])):
            return separator
    # None does: take the first that occurs, whose error then describes the line.
    return next((separator for separator in SEPARATORS if separator in line), " ")


def _parse_line(
    line: str, origin: str, prefix: str, source: str, separator: str, num_classes: int, multi_label: bool
) -> Record:
    names = FIELDS[source]
    fields = _split(line, separator, len(names))
    path = os.path.join(prefix, fields[0])
    expected = f"'{separator.join(names)}'"
    parts = [*fields[1:-1], *(fields[-1].split(LABEL_SEPARATOR) if multi_label else fields[-1:])]
    numbers = [int(part) for part in parts if _INTEGER.fullmatch(part)]
    labels = tuple(numbers[len(names) - 2 :])
    wrong = [label for label in labels if not 0 <= label < (num_classes or math.inf)]
    if len(fields) != len(names) or not all(fields):
        problem = f"found {len(fields)} fields separated by {separator!r}, expected {len(names)} non-empty ones, "
        problem += f"{expected}, by DATA.SOURCE {source}"
    elif len(numbers) < len(parts):
        found = f"{' '.join(names[1:])} {' '.join(fields[1:])!r}"
        problem = f"{found} must be integers; expected {expected}, without a header line"
        problem += "; several labels need DATA.MULTI_LABEL True" if _LABELS.fullmatch(fields[-1]) else ""
    elif wrong:
        rule = f"outside 0 to {num_classes - 1}, for MODEL.NUM_CLASSES is {num_classes}" if num_classes else "negative"
        problem = f"label {wrong[0]} is {rule}"
    elif numbers[0] < 1 and source == "frames":
        problem = f"num_frames {numbers[0]} is less than 1"
    # "folder 42 7" would pass as the video "folder 42".
    elif source != "frames" and separator == " " and re.search(r"\s[0-9]+$", fields[0]):
        problem = "found 3 fields 'folder num_frames label', expected 'path label': set DATA.SOURCE to frames for "
        problem += "folders of images, or separate by commas if the name of the file ends in a number"
    else:
        label = labels if multi_label else labels[0]
        return Record(path, label, numbers[0] if source == "frames" else None, origin, fields[0])
    raise UserError(f"{origin}: {problem} (line {line!r}, full path tried: {path})")


def find_missing(paths: Sequence[str]) -> list[int]:
    """Return the positions of the paths that are no files; threads hide the latency of storage on a network."""
    starts = range(0, len(paths), 1000)
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda i: [k for k in range(i, i + 1000) if k < len(paths) and not isfile(paths[k])], starts)
        return [position for part in found for position in part]


def read_class_names(path: str, num_classes: int) -> list[str]:
    """Read the class names, one a line in the order of the labels: ``num_classes`` if that is not 0."""
    names = [line.strip() for line in _read(path, "DATA.CLASS_NAMES_FILE names it").rstrip().split("\n")]
    if len(names) != (num_classes or len(names)):
        raise UserError(f"{path} has {len(names)} class names, MODEL.NUM_CLASSES is {num_classes}")
    for number, name in enumerate(names):
        # An empty line would shift the name of every later label.
        if not name or name in names[:number]:
            raise UserError(f"{path}:{number + 1}: class name {name!r} is empty or stands above already")
    return names


def read_exclusion(path: str) -> list[str]:
    """Read the paths of a ``bad_items.csv`` (columns path, split, reason) or of a file with one path a line."""
    lines = _read(path, "DATA.EXCLUDE_FILE names it").split("\n")
    if lines[0].split(",") == list(BAD_ITEMS_HEADER):
        return [row[0] for row in csv.reader(lines[1:]) if row]
    return [line.strip() for line in lines if line.strip()]


def exclude_records(records: Sequence[Record], paths: Sequence[str]) -> tuple[list[Record], list[str]]:
    """Return the records that no path (as in the list, full, or from here) names, and the paths that name no record."""
    present = {name for record in records for name in (record.name, os.path.abspath(record.path))}
    excluded = {path for path in paths if path in present} | {os.path.abspath(path) for path in paths} & present
    unmatched = [path for path in paths if not {path, os.path.abspath(path)} & excluded]
    return [record for record in records if not {record.name, os.path.abspath(record.path)} & excluded], unmatched


def label_array(records: Sequence[Record], num_classes: int) -> np.ndarray:
    """Return the labels of the records, int64 (M,), or where they have several 0 and 1, (M, num_classes)."""
    if not any(isinstance(record.label, tuple) for record in records):
        return np.array([record.label for record in records], dtype=np.int64)
    array = np.zeros((len(records), num_classes), dtype=np.int64)
    for row, record in zip(array, records):
        row[list(record.labels)] = 1
    return array
