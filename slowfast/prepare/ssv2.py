"""From the official files of Something-Something V2 (arXiv 1706.04261) to list files.

The release has JSON files and one VP9 video per clip; a later redistribution shortens the names of the files:

    something-something-v2-train.json, -validation.json    (train.json, validation.json)
        list of objects with `id`, `template` such as "Putting [something] onto [something]" and others
    something-something-v2-labels.json                     (labels.json)
        object of template without brackets -> label as a string
    <id>.webm

The label of a clip is what the labels file says of its template without the brackets. Ranks of the templates with
brackets, which sort differently, would be wrong for half of the classes. The test split comes without labels; papers
report the validation split, and no list of it is written.
"""

from __future__ import annotations

import re
from pathlib import Path

from slowfast.prepare.annotation import Annotation, check_disjoint, field_of, find_file, read_json, unknown_name
from slowfast.prepare.extract import Extraction
from slowfast.prepare.lists import ListFolder, PreparedLists, Published
from slowfast.prepare.video_files import prepare_videos

LABELS_FILES = ("something-something-v2-labels.json", "labels.json")
SPLIT_FILES = {
    "train": ("something-something-v2-train.json", "train.json"),
    "val": ("something-something-v2-validation.json", "validation.json"),
}
PUBLISHED = Published({"train": 168_913, "val": 24_777}, 174)

# The shortest and the longest clip of the release at its own 12 frames per second.
USUAL_FRAMES = (4, 141)


def read_labels(path: str | Path) -> list[str]:
    """Read the labels file and return the templates, which have no brackets, in the order of their labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the labels are not 0 to the number of templates - 1, each once.
    """
    label_of = read_json(path, dict)
    template_of: dict[int, str] = {}
    for template, label in label_of.items():
        if not isinstance(label, str) or not re.fullmatch("[0-9]+", label) or int(label) >= len(label_of):
            raise ValueError(
                f"{path}: template {template!r} has label {label!r}, expected '0' to '{len(label_of) - 1}' for "
                f"{len(label_of)} templates"
            )
        if "[" in template or "\n" in template:
            raise ValueError(f"{path}: template {template!r} has brackets or line breaks, expected it without")
        if int(label) in template_of:
            raise ValueError(f"{path}: templates {template_of[int(label)]!r} and {template!r} both have label {label}")
        template_of[int(label)] = template
    return [template_of[label] for label in range(len(template_of))]


def read_split(path: str | Path, templates: list[str]) -> dict[str, int]:
    """Read the clips of one split and return the label of every id, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no clip, a malformed entry, an unknown template or an id that occurs twice; the message names file
            and entry, counted from 1.
    """
    label_of = {template: label for label, template in enumerate(templates)}
    labels: dict[str, int] = {}
    for number, entry in enumerate(read_json(path, list), 1):
        where = f"{path}: entry {number}"
        clip_id = field_of(entry, "id", str, where)
        template = field_of(entry, "template", str, where).replace("[", "").replace("]", "")
        if not re.fullmatch("[0-9]+", clip_id):
            raise ValueError(f"{where}: id {clip_id!r} is not a number")
        if template not in label_of:
            raise ValueError(f"{where}: template {unknown_name(template, templates, 'the labels file')}")
        if clip_id in labels:
            raise ValueError(f"{where}: id {clip_id} occurs before")
        labels[clip_id] = label_of[template]
    return labels


def read_annotation(folder: str | Path) -> Annotation:
    """Read the labels file and both splits.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: a file is malformed, or an id is in both splits.
    """
    templates = read_labels(find_file(folder, LABELS_FILES))
    labels = {split: read_split(find_file(folder, names), templates) for split, names in SPLIT_FILES.items()}
    check_disjoint(labels, f"{folder}: the files of train and validation")
    return Annotation(labels, templates)


def prepare_ssv2(
    annotations_dir: str | Path,
    videos_dir: str | Path,
    out_dir: str | Path,
    workers: int = 1,
    extraction: Extraction | None = None,
) -> PreparedLists:
    """Measure every video, or extract its frames, and write the files that ``write_lists`` describes.

    Args:
        annotations_dir: folder of the official JSON files.
        videos_dir: folder that holds ``<id>.webm``, or ``.mp4``, at any depth.
        out_dir: folder of the lists and of the extracted frames; made if missing.
        workers: processes that read videos.
        extraction: see ``prepare_videos``.

    Raises:
        FileNotFoundError: an annotation file or the folder of videos does not exist.
        ValueError: a malformed annotation or a split of which no clip can be used. No list is written then.
    """
    folder = ListFolder.make(out_dir, videos_dir, "videos_dir (--videos)")
    annotation = read_annotation(annotations_dir)
    return prepare_videos(folder, annotation, workers, "the folder that holds <id>.webm", extraction, USUAL_FRAMES)
