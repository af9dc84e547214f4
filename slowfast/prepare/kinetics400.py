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

import csv
import re
from importlib import resources
from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, label_of, read_entries, read_split

CLASS_ORDERS = ("alphabetical", "uniformer")


def class_names(order: str) -> list[str]:
    """Return the 400 class names in the order of their labels, by one of ``CLASS_ORDERS``."""
    text = resources.files(__package__).joinpath("kinetics400_classes.csv").read_text(encoding="utf-8")
    labels = {row["name"]: int(row["uniformer_label"]) for row in csv.DictReader(text.splitlines())}
    return sorted(labels) if order == "alphabetical" else sorted(labels, key=labels.__getitem__)


def read_annotation(folder: Path, class_order: str) -> Annotation:
    """Read both splits, with labels by one of ``CLASS_ORDERS``; an id is a file's name without its ending."""
    names = class_names(class_order)
    labels = {name: label for label, name in enumerate(names)}
    paths = find_file(folder, "train.csv"), find_file(folder, "val.csv", "validate.csv")

    def parse(row: tuple[str, str, str, str]) -> tuple[str, int]:
        name, youtube_id, start, end = row
        if not re.fullmatch(r"[A-Za-z0-9_-]+ [0-9]{1,6} [0-9]{1,6}", f"{youtube_id} {start} {end}"):
            found = f"youtube_id {youtube_id!r}, time_start {start!r}, time_end {end!r}"
            raise ValueError(f"found {found}; expected letters, digits, _ and -, and whole seconds")
        return f"{youtube_id}_{int(start):06d}_{int(end):06d}", label_of(name, labels, "Kinetics-400")

    columns = dict.fromkeys(("label", "youtube_id", "time_start", "time_end"), str)
    return Annotation(*(read_split(read_entries(path, **columns), parse, path) for path in paths), names)
