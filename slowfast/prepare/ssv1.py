"""From the official files of Something-Something V1 (arXiv 1706.04261) to list files.

The release has three text files and one folder of JPEG images per clip:

    something-something-v1-train.csv, something-something-v1-validation.csv    lines `id;template`, no header
    something-something-v1-labels.csv                                          one template a line
    <id>/00001.jpg, <id>/00002.jpg, ...                                        12 frames per second

Templates contain commas and quotation marks, which are plain text here: nothing is quoted or escaped. The label
of a clip is the position of its template in the ASCII-sorted list of all templates, not in the raw order of the
labels file; published weights use the sorted order.
"""

import functools
import re
from pathlib import Path

from slowfast.prepare.annotation import Annotation, check_disjoint, find_file, numbered_lines, unknown_name
from slowfast.prepare.frame_folder import inspect_folder
from slowfast.prepare.lists import ListFolder, PreparedLists, Published, inspect_all, write_lists

LABELS_FILE = "something-something-v1-labels.csv"
SPLIT_FILES = {"train": "something-something-v1-train.csv", "val": "something-something-v1-validation.csv"}
PUBLISHED = Published({"train": 86_017, "val": 11_522}, 174)

# The shortest and the longest clip of the release: a clip outside is perhaps not extracted to its end.
USUAL_FRAMES = (15, 120)


def read_templates(path: str | Path) -> list[str]:
    """Read the labels file and return the templates in the order of their labels: ASCII-sorted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no template, or the same template twice; the message names file and line.
    """
    first_line: dict[str, int] = {}
    for number, template in numbered_lines(path):
        if template in first_line:
            raise ValueError(f"{path}:{number}: template {template!r} is already on line {first_line[template]}")
        first_line[template] = number
    return sorted(first_line)


def read_split(path: str | Path, templates: list[str]) -> dict[str, int]:
    """Read the lines `id;template` of one split and return the label of every id, in the order of the file.

    Args:
        path: the annotation file.
        templates: all templates in the order of their labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no clip, a malformed line, an unknown template or an id that occurs twice, which leaves open
            which line is right; the message names file and line.
    """
    label_of = {template: label for label, template in enumerate(templates)}
    first_line: dict[str, int] = {}
    labels = {}
    for number, line in numbered_lines(path):
        clip_id, separator, template = (part.strip() for part in line.partition(";"))
        if not separator or not re.fullmatch("[0-9]+", clip_id):
            raise ValueError(f"{path}:{number}: found {line!r}, expected 'id;template' with a number as id")
        if template not in label_of:
            raise ValueError(f"{path}:{number}: template {unknown_name(template, templates, LABELS_FILE)}")
        if clip_id in first_line:
            raise ValueError(f"{path}:{number}: id {clip_id} is already on line {first_line[clip_id]}")
        first_line[clip_id] = number
        labels[clip_id] = label_of[template]
    return labels


def read_annotation(folder: str | Path) -> Annotation:
    """Read the labels file and both splits.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: a file is malformed, or an id is in both splits.
    """
    templates = read_templates(find_file(folder, [LABELS_FILE]))
    labels = {split: read_split(find_file(folder, [name]), templates) for split, name in SPLIT_FILES.items()}
    check_disjoint(labels, f"{folder}: {' and '.join(SPLIT_FILES.values())}")
    return Annotation(labels, templates)


def prepare_ssv1(
    annotations_dir: str | Path, frames_dir: str | Path, out_dir: str | Path, workers: int = 16
) -> PreparedLists:
    """Count the frames of every clip and write the files that ``write_lists`` describes.

    Args:
        annotations_dir: folder of the official text files.
        frames_dir: folder of the clips' folders.
        out_dir: folder of the lists; made if missing.
        workers: processes that look into folders; they mostly wait for the disk.

    Raises:
        FileNotFoundError: an annotation file or the folder of frames does not exist.
        ValueError: a malformed annotation, an id in both splits, a split of which no clip can be used, or a
            folder name that a list line cannot hold. No list is written or replaced then.
    """
    folder = ListFolder.make(out_dir, frames_dir, "frames_dir (--frames)")
    annotation = read_annotation(annotations_dir)
    folder.out_dir.mkdir(parents=True, exist_ok=True)  # before the long part, which a refused folder would waste
    paths = {clip_id: str(folder.media_dir / clip_id) for clip_id in annotation.clip_ids}
    inspect = functools.partial(inspect_folder, usual_frames=USUAL_FRAMES)
    states = inspect_all(inspect, paths, workers, "counting frames")
    return write_lists(folder, annotation, states, of_frames=True, hint="the folder that holds <id>/00001.jpg")
