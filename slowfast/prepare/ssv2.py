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

import re
from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, label_of, read_entries, read_json, read_split
from slowfast.utils.errors import UserError

FILES = ("something-something-v2-{}.json", "{}.json")


def read_annotation(folder: Path) -> Annotation:
    """Read the labels file and both splits."""
    contents = ("labels", "train", "validation")
    labels_path, *paths = (find_file(folder, *(file.format(content) for file in FILES)) for content in contents)
    templates = read_json(labels_path, dict)
    free = [str(label) for label in range(len(templates))]
    for template, label in templates.items():
        if label not in free or "[" in template or "\n" in template:
            expected = f"templates without brackets and line breaks, labels '0' to '{len(templates) - 1}', each once"
            raise UserError(f"{labels_path}: found {template!r}: {label!r}, expected {expected}")
        free.remove(label)
    labels = {template: int(label) for template, label in templates.items()}

    def parse(entry: tuple[str, str]) -> tuple[str, int]:
        clip_id, template = entry
        if not re.fullmatch("[0-9]+", clip_id):
            raise ValueError(f"id {clip_id!r} is not a number")
        return clip_id, label_of(template.replace("[", "").replace("]", ""), labels, labels_path.name)

    splits = (read_split(read_entries(path, id=str, template=str), parse, path) for path in paths)
    names = sorted(labels, key=labels.__getitem__)
    return Annotation(*splits, names, usual_frames=(4, 141))  # at its own 12 frames per second
