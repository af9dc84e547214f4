"""From the official files of Kinetics-400 (arXiv 1705.06950) to list files.

    train.csv, val.csv (validate.csv)    header label,youtube_id,time_start,time_end,split,is_cc; seconds
    <youtube_id>_<start>_<end>.mp4       six digits each; all in one folder, or in one folder per class

Some releases lack `is_cc`, and the test split comes without labels; papers report the validation split, and no list of
the test split is written.

Two orders of the classes are in use, and weights trained with one are worthless with the other: `alphabetical`
(ASCII), of most tools, and `uniformer`, of the published UniFormer weights (arXiv 2201.09450), which starts with
"riding a bike". `kinetics400_classes.csv` beside this file has the 400 names of the data set (its annotation is under
CC BY 4.0) in the first order with their labels in the second. Labels are positions in all 400, so that a subset keeps
the labels of the whole.
"""

from __future__ import annotations

import csv
import functools
import re
from importlib import resources
from pathlib import Path

from slowfast.prepare.annotation import Annotation, check_disjoint, find_file, read_text, unknown_name
from slowfast.prepare.lists import ListFolder, PreparedLists, Published
from slowfast.prepare.video_files import prepare_videos

CLASS_ORDERS = ("alphabetical", "uniformer")
SPLIT_NAMES = {"train": ("train",), "val": ("val", "validate", "validation")}
# Common copies; videos vanish, and the official lists are larger.
PUBLISHED = Published({"train": 240_436, "val": 19_796}, 400)

_CLASSES_FILE = "kinetics400_classes.csv"
_FILE_PREFIXES = ("", "kinetics-400_", "kinetics400_", "kinetics_")
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


@functools.cache
def _labels_in_uniformer_order() -> dict[str, int]:
    text = resources.files(__package__).joinpath(_CLASSES_FILE).read_text(encoding="utf-8")
    return {row["name"]: int(row["uniformer_label"]) for row in csv.DictReader(text.splitlines())}


def class_names(order: str) -> list[str]:
    """Return the 400 class names in the order of their labels, by one of ``CLASS_ORDERS``."""
    labels = _labels_in_uniformer_order()
    return sorted(labels) if order == "alphabetical" else sorted(labels, key=labels.__getitem__)


def read_split(path: str | Path, split: str, label_of: dict[str, int]) -> dict[str, int]:
    """Read the clips of one split and return the label of every clip's file name (without ending), in file order.

    Args:
        path: the annotation file.
        split: ``train`` or ``val``; a line of another one is an error.
        label_of: label by class name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a line is malformed, a class is unknown or a clip occurs twice; the message
            names file and line.
    """
    reader = csv.DictReader(read_text(path).splitlines())
    if not set(_COLUMNS) <= set(reader.fieldnames or ()):
        raise ValueError(f"{path}:1: found the header {reader.fieldnames}, expected {','.join(_COLUMNS)},split,is_cc")
    labels: dict[str, int] = {}
    for row in reader:
        where = f"{path}:{reader.line_num}"
        name, youtube_id, start, end = (row[column] or "" for column in _COLUMNS)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", youtube_id) or not all(
            re.fullmatch("[0-9]{1,6}", time) for time in (start, end)
        ):
            raise ValueError(
                f"{where}: found youtube_id {youtube_id!r}, time_start {start!r}, time_end {end!r}; expected letters, "
                "digits, _ and -, and whole seconds"
            )
        if row.get("split", split) not in SPLIT_NAMES[split]:
            raise ValueError(f"{where}: split {row['split']!r} in the file of {split}")
        if name not in label_of:
            raise ValueError(f"{where}: class {unknown_name(name, label_of, 'Kinetics-400')}")
        clip_id = f"{youtube_id}_{int(start):06d}_{int(end):06d}"
        if clip_id in labels:
            raise ValueError(f"{where}: {clip_id} occurs before")
        labels[clip_id] = label_of[name]
    if not labels:
        raise ValueError(f"{path} has no clips")
    return labels


def prepare_kinetics400(
    annotations_dir: str | Path, videos_dir: str | Path, out_dir: str | Path, class_order: str, workers: int = 1
) -> PreparedLists:
    """Measure every video and write the files that ``write_lists`` describes.

    Args:
        annotations_dir: folder of the official CSV files.
        videos_dir: folder that holds ``<youtube_id>_<start>_<end>.mp4`` at any depth, such as in folders per class.
        out_dir: folder of the lists; made if missing.
        class_order: one of ``CLASS_ORDERS``.
        workers: processes that read videos.

    Raises:
        FileNotFoundError: an annotation file or the folder of videos does not exist.
        ValueError: a malformed annotation or a split of which no clip can be used. No list is written then.
    """
    if class_order not in CLASS_ORDERS:
        raise ValueError(f"class_order (--class-order) is {class_order!r}; allowed: {' | '.join(CLASS_ORDERS)}")
    folder = ListFolder.make(out_dir, videos_dir, "videos_dir (--videos)")
    names = class_names(class_order)
    label_of = {name: label for label, name in enumerate(names)}
    labels = {}
    for split, split_names in SPLIT_NAMES.items():
        candidates = [f"{prefix}{name}.csv" for prefix in _FILE_PREFIXES for name in split_names]
        labels[split] = read_split(find_file(annotations_dir, candidates), split, label_of)
    check_disjoint(labels, f"{annotations_dir}: the files of train and val")
    hint = "the folder that holds <youtube_id>_<start>_<end>.mp4"
    return prepare_videos(folder, Annotation(labels, names), workers, hint)
