"""Kinetics-400 (arXiv 1705.06950). The release has CSV files and MP4 videos:

    train.csv, val.csv (validate.csv)    header label,youtube_id,time_start,time_end,split,is_cc; seconds
    <youtube_id>_<start>_<end>.mp4       six digits each; all in one folder, or in one folder per class

Some releases lack ``is_cc``, and the test split comes without labels; papers report the validation split, and no list
of the test split is written.

Two orders of the classes are in use, and weights trained with one are worthless with the other: ``alphabetical``
(ASCII), of most tools, and ``uniformer``, of the published UniFormer weights (arXiv 2201.09450), which starts with
"riding a bike". ``kinetics400_classes.csv`` beside this file has the 400 names of the data set (its annotation is under
CC BY 4.0) in the first order with their labels in the second. Labels are positions in all 400, so that a subset keeps
the labels of the whole.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, label_of, read_split
from slowfast.utils.errors import UserError
from slowfast.utils.files import read_text

CLASS_ORDERS = ("alphabetical", "uniformer")
SPLIT_NAMES = (("train",), ("val", "validate", "validation"))

_FILE_PREFIXES = ("", "kinetics-400_", "kinetics400_", "kinetics_")
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def class_names(order: str) -> list[str]:
    """Return the 400 class names in the order of their labels, by one of ``CLASS_ORDERS``."""
    text = resources.files(__package__).joinpath("kinetics400_classes.csv").read_text(encoding="utf-8")
    labels = {row["name"]: int(row["uniformer_label"]) for row in csv.DictReader(text.splitlines())}
    return sorted(labels) if order == "alphabetical" else sorted(labels, key=labels.__getitem__)


def _read_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(read_text(path).splitlines())
    if not set(_COLUMNS) <= set(reader.fieldnames or ()):
        raise UserError(f"{path}:1: found the header {reader.fieldnames}, expected {','.join(_COLUMNS)},split,is_cc")
    for row in reader:
        yield f"{path}:{reader.line_num}", row


def read_annotation(folder: Path, class_order: str) -> Annotation:
    """Read both splits, with labels by one of ``CLASS_ORDERS``; an id is a file's name without its ending."""
    names = class_names(class_order)
    labels = {name: label for label, name in enumerate(names)}

    def parse(row: dict[str, str], split_names: tuple[str, ...]) -> tuple[str, int]:
        name, youtube_id, start, end = (row[column] or "" for column in _COLUMNS)
        if not re.fullmatch(r"[A-Za-z0-9_-]+ [0-9]{1,6} [0-9]{1,6}", f"{youtube_id} {start} {end}"):
            found = f"youtube_id {youtube_id!r}, time_start {start!r}, time_end {end!r}"
            raise ValueError(f"found {found}; expected letters, digits, _ and -, and whole seconds")
        if row.get("split", split_names[0]) not in split_names:
            raise ValueError(f"split {row['split']!r} in the file of {split_names[0]}")
        return f"{youtube_id}_{int(start):06d}_{int(end):06d}", label_of(name, labels, "Kinetics-400")

    splits = []
    for split_names in SPLIT_NAMES:
        path = find_file(folder, [f"{prefix}{name}.csv" for prefix in _FILE_PREFIXES for name in split_names])
        splits.append(read_split(_read_rows(path), functools.partial(parse, split_names=split_names), path))
    return Annotation(*splits, names, media="<youtube_id>_<start>_<end>.mp4")
