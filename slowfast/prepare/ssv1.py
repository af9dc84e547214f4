"""Something-Something V1 (arXiv 1706.04261). The release has three text files and a folder of JPEG images per clip:

    something-something-v1-train.csv, something-something-v1-validation.csv    lines ``id;template``, no header
    something-something-v1-labels.csv                                          one template a line
    <id>/00001.jpg, <id>/00002.jpg, ...                                        12 frames per second

Templates contain commas and quotation marks, which are plain text here: nothing is quoted or escaped. The label of a
class is its position in the ASCII-sorted list of templates, which is not the raw order of the labels file; published
weights use the sorted order.
"""

import re
from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, label_of, read_lines, read_split

FILE = "something-something-v1-{}.csv"


def read_annotation(folder: Path) -> Annotation:
    """Read the labels file and both splits."""
    path = find_file(folder, FILE.format("labels"))
    templates = sorted(read_split(read_lines(path), lambda template: (template, 0), path))
    labels = {template: label for label, template in enumerate(templates)}

    def parse(line: str) -> tuple[str, int]:
        clip_id, separator, template = (part.strip() for part in line.partition(";"))
        if not separator or not re.fullmatch("[0-9]+", clip_id):
            raise ValueError(f"found {line!r}, expected 'id;template' with a number as id")
        return clip_id, label_of(template, labels, path.name)

    paths = [find_file(folder, FILE.format(split)) for split in ("train", "validation")]
    splits = (read_split(read_lines(path), parse, path) for path in paths)
    # A clip outside of the usual frames is perhaps not extracted to its end.
    return Annotation(*splits, templates, usual_frames=(15, 120), is_folders=True)
