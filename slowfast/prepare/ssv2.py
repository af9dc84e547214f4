"""Something-Something V2 (arXiv 1706.04261). The release has JSON files, which a later redistribution renamed, and one
VP9 video per clip:

    something-something-v2-train.json, -validation.json    (train.json, validation.json)
        list of objects with ``id``, ``template`` such as "Putting [something] onto [something]" and others
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

from slowfast.prepare.lists import Annotation, find_file, label_of, read_entries, read_json, read_split
from slowfast.utils.errors import UserError

LABELS_FILES = ("something-something-v2-labels.json", "labels.json")
SPLIT_FILES = (
    ("something-something-v2-train.json", "train.json"),
    ("something-something-v2-validation.json", "validation.json"),
)


def read_labels(path: Path) -> dict[str, int]:
    """Return the label by template without brackets: 0 to the number of templates - 1, each once."""
    content = read_json(path, dict)
    names = {str(label): template for template, label in content.items()}
    for template, label in content.items():
        if "[" in template or "\n" in template:
            raise UserError(f"{path}: template {template!r} has brackets or line breaks, expected it without")
        if not isinstance(label, str) or not re.fullmatch("[0-9]+", label) or int(label) >= len(content):
            expected = f"'0' to '{len(content) - 1}' for {len(content)} templates"
            raise UserError(f"{path}: template {template!r} has label {label!r}, expected {expected}")
        if names[label] != template:
            raise UserError(f"{path}: templates {template!r} and {names[label]!r} both have label {label}")
    return {template: int(label) for template, label in content.items()}


def read_annotation(folder: Path) -> Annotation:
    """Read the labels file and both splits."""
    labels = read_labels(find_file(folder, LABELS_FILES))

    def parse(entry: tuple[str, str]) -> tuple[str, int]:
        clip_id, template = entry
        if not re.fullmatch("[0-9]+", clip_id):
            raise ValueError(f"id {clip_id!r} is not a number")
        return clip_id, label_of(template.replace("[", "").replace("]", ""), labels, "the labels file")

    paths = [find_file(folder, names) for names in SPLIT_FILES]
    splits = (read_split(read_entries(path, id=str, template=str), parse, path) for path in paths)
    names = sorted(labels, key=labels.__getitem__)
    return Annotation(*splits, names, media="<id>.webm", usual_frames=(4, 141))  # at its own 12 frames per second
