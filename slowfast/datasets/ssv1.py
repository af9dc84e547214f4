"""From the official files of Something-Something V1 (arXiv 1706.04261) to list files.

The release has three text files and one folder of JPEG images per clip:

    something-something-v1-train.csv, something-something-v1-validation.csv    lines `id;template`, no header
    something-something-v1-labels.csv                                          one template a line
    <id>/00001.jpg, <id>/00002.jpg, ...                                        12 frames per second

Templates contain commas and quotation marks, which are plain text here: nothing is quoted or escaped. The label
of a clip is the position of its template in the ASCII-sorted list of all templates, not in the raw order of the
labels file; published weights use the sorted order.
"""

import csv
import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

LABELS_FILE = "something-something-v1-labels.csv"
SPLIT_FILES = {"train": "something-something-v1-train.csv", "val": "something-something-v1-validation.csv"}
REPORT_FILE = "prepare_report.csv"

# Of the release; a subset may have fewer.
PUBLISHED_NUM_CLIPS = {"train": 86_017, "val": 11_522}
PUBLISHED_NUM_CLASSES = 174
# The shortest and the longest clip of the release: a clip outside is perhaps not extracted to its end.
PUBLISHED_NUM_FRAMES = (15, 120)

MAX_WORKERS = 256

_IMAGE_NAME = "{:05d}.jpg"
_IMAGE_PATTERN = re.compile(r"[0-9]{5}\.jpg")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class FolderState:
    """What a folder of frames holds.

    Attributes:
        num_frames: images 00001.jpg, 00002.jpg, ... without a gap.
        problem: why the clip cannot be used; "" if it can.
        remark: what is unusual about a clip that can be used; "" if nothing is.
    """

    num_frames: int
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """The clips of one split: written to the list, left out of it, and written but reported as unusual."""

    name: str
    num_written: int
    num_left_out: int
    num_unusual: int


@dataclass(frozen=True, slots=True)
class PreparedLists:
    """What `prepare_ssv1` wrote; `has_relative_paths` is False if the lists hold absolute paths."""

    splits: tuple[PreparedSplit, ...]
    num_classes: int
    has_relative_paths: bool


def read_templates(path: str | Path) -> list[str]:
    """Read the labels file and return the templates in the order of their labels: ASCII-sorted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no template, or the same template twice; the message names file and line.
    """
    first_line: dict[str, int] = {}
    for number, template in _numbered_lines(path):
        if template in first_line:
            raise ValueError(f"{path}:{number}: template {template!r} is already on line {first_line[template]}")
        first_line[template] = number
    return sorted(first_line)


def read_annotation(path: str | Path, templates: list[str]) -> dict[str, int]:
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
    for number, line in _numbered_lines(path):
        clip_id, separator, template = (part.strip() for part in line.partition(";"))
        if not separator or not re.fullmatch("[0-9]+", clip_id):
            raise ValueError(f"{path}:{number}: found {line!r}, expected 'id;template' with a number as id")
        if template not in label_of:
            close = difflib.get_close_matches(template, templates, n=1)
            hint = f"; the closest one there is {close[0]!r}" if close else ""
            raise ValueError(
                f"{path}:{number}: template {template!r} is not among the {len(templates)} of {LABELS_FILE}{hint}"
            )
        if clip_id in first_line:
            raise ValueError(f"{path}:{number}: id {clip_id} is already on line {first_line[clip_id]}")
        first_line[clip_id] = number
        labels[clip_id] = label_of[template]
    return labels


def inspect_folder(folder: str) -> FolderState:
    """Count the frames of a clip on disk.

    Only the last image is opened, because an interrupted extraction or a full disk damages that one: it must
    have the start and the end marker of a JPEG file. Nothing is decoded.
    """
    try:
        names = set(os.listdir(folder))
        num_frames = 0
        while _IMAGE_NAME.format(num_frames + 1) in names:
            num_frames += 1
        others = sorted(names.difference(_IMAGE_NAME.format(number) for number in range(1, num_frames + 1)))
        problem = _numbering_problem(num_frames, others)
        if not problem:
            last_image = _IMAGE_NAME.format(num_frames)
            problem = _image_problem(last_image, Path(folder, last_image).read_bytes())
    except OSError as error:  # one clip must not end the inspection of all the others
        return FolderState(0, f"{error.filename or folder}: {error.strerror}")
    if problem:
        return FolderState(num_frames, problem)
    remarks = []
    low, high = PUBLISHED_NUM_FRAMES
    if not low <= num_frames <= high:
        remarks.append(f"{num_frames} frames, the clips of the release have {low} to {high}")
    if others:
        remarks.append(f"entries that are no frames: {len(others)}, such as {others[0]!r}")
    return FolderState(num_frames, remark="; ".join(remarks))


def prepare_ssv1(
    annotations_dir: str | Path, frames_dir: str | Path, out_dir: str | Path, workers: int = 16
) -> PreparedLists:
    """Write `train.txt`, `val.txt`, `classes.txt` and `prepare_report.csv`, replacing those of an earlier run.

    The lists have lines `folder num_frames label` in the order of the annotation, with the frames counted on
    disk. Folders are relative to `out_dir` if `frames_dir` lies inside it, else absolute; either way they are
    found with DATA.PATH_TO_DATA_DIR = `out_dir` and no DATA.PATH_PREFIX. `classes.txt` has the templates in the
    order of their labels. The report has a line `split,id,reason` for every clip that is left out of its list or
    is kept although it looks unusual; the reason begins with "left out" or "kept". Every file is replaced in one
    step, so that an interrupted run leaves no half-written list.

    Args:
        annotations_dir: folder of the official text files.
        frames_dir: folder of the clips' folders.
        out_dir: folder of the lists; made if missing.
        workers: threads that look into folders.

    Raises:
        FileNotFoundError: an annotation file or the folder of frames does not exist.
        ValueError: a malformed annotation, an id in both splits, a split of which no clip can be used, or a
            folder name that a list line cannot hold. No list is written or replaced then.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"workers (--workers) is {workers}; allowed: 1 to {MAX_WORKERS}")
    # Not resolved: a link to another disk inside out_dir counts as inside.
    frames_dir, out_dir = Path(os.path.abspath(frames_dir)), Path(os.path.abspath(out_dir))
    if not frames_dir.is_dir():
        raise FileNotFoundError(f"frames_dir (--frames) is {frames_dir}, which is not an existing folder")
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"out_dir (--out) is {out_dir}; allowed: a folder, and this is a file")
    has_relative_paths = frames_dir.is_relative_to(out_dir)
    listed_dir = frames_dir.relative_to(out_dir) if has_relative_paths else frames_dir
    _check_listable(listed_dir)
    templates, annotation = _read_annotations(Path(annotations_dir))
    out_dir.mkdir(parents=True, exist_ok=True)  # before the long part, which a refused folder would waste

    folders = [frames_dir / clip_id for labels in annotation.values() for clip_id in labels]
    states = _inspect_folders(folders, workers)
    splits, lists, report = [], {}, [("split", "id", "reason")]
    for split, labels in annotation.items():
        lines, num_unusual = [], 0
        for clip_id, label in labels.items():
            state = states[frames_dir / clip_id]
            if state.problem:
                report.append((split, clip_id, f"left out: {state.problem}"))
                continue
            lines.append(f"{(listed_dir / clip_id).as_posix()} {state.num_frames} {label}\n")
            if state.remark:
                num_unusual += 1
                report.append((split, clip_id, f"kept: {state.remark}"))
        if not lines:
            clip_id = next(iter(labels))
            raise ValueError(
                f"none of the {len(labels)} {split} clips can be used; the first one, {clip_id}: "
                f"{states[frames_dir / clip_id].problem} (--frames is the folder that holds <id>/00001.jpg)"
            )
        lists[split] = lines
        splits.append(PreparedSplit(split, len(lines), len(labels) - len(lines), num_unusual))

    with _replacing(out_dir / REPORT_FILE) as file:
        csv.writer(file, lineterminator="\n").writerows(report)
    with _replacing(out_dir / "classes.txt") as file:
        file.writelines(f"{template}\n" for template in templates)
    for split, lines in lists.items():
        with _replacing(out_dir / f"{split}.txt") as file:
            file.writelines(lines)
    return PreparedLists(tuple(splits), len(templates), has_relative_paths)


def _check_listable(folder: Path) -> None:
    """Refuse names that a reader of lists, which strips and splits lines, would not give back."""
    if not str(folder).isprintable() or str(folder).startswith(" "):
        raise ValueError(
            f"frames_dir (--frames) is {str(folder)!r}; list lines cannot hold a name that begins with a space or "
            "has line breaks, tabs or undecodable bytes"
        )


def _read_annotations(folder: Path) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Return the templates in the order of their labels and, by split, the label of every id."""
    templates = read_templates(folder / LABELS_FILE)
    annotation = {split: read_annotation(folder / name, templates) for split, name in SPLIT_FILES.items()}
    shared = sorted(annotation["train"].keys() & annotation["val"].keys(), key=int)
    if shared:
        names = " and ".join(SPLIT_FILES.values())
        raise ValueError(f"{folder}: {len(shared)} ids are in both {names}, such as {shared[0]}")
    return templates, annotation


def _numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers from 1."""
    path = Path(path)
    if not path.is_file():
        needed = ", ".join((LABELS_FILE, *SPLIT_FILES.values()))
        raise FileNotFoundError(f"{path} does not exist; the folder of annotations (--annotations) needs {needed}")
    try:
        # utf-8-sig also reads files that a spreadsheet began with a byte order mark.
        with path.open(encoding="utf-8-sig") as file:
            lines = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if not lines:
        raise ValueError(f"{path} has no lines")
    return lines


def _numbering_problem(num_frames: int, others: list[str]) -> str:
    """Say what is wrong with the file names, given the images in sequence from 00001.jpg and all other names."""
    if not num_frames and not others:
        return "the folder is empty"
    stray_images = [name for name in others if _IMAGE_PATTERN.fullmatch(name)]
    if _IMAGE_NAME.format(0) in stray_images:
        return f"there is {_IMAGE_NAME.format(0)}, frames are numbered from {_IMAGE_NAME.format(1)}"
    if stray_images:
        return f"{_IMAGE_NAME.format(num_frames + 1)} is missing, yet there is {stray_images[-1]}"
    if not num_frames:
        return f"there is no {_IMAGE_NAME.format(1)}; entries that are no frames: {len(others)}, such as {others[0]!r}"
    return ""


def _image_problem(name: str, content: bytes) -> str:
    if not content:
        return f"the last frame {name} is empty (0 bytes)"
    if not content.startswith(_JPEG_START):
        return f"the last frame {name} is not a JPEG file"
    # Anywhere, since some programs append bytes; compressed data cannot contain the marker.
    if _JPEG_END not in content:
        return f"the last frame {name} is truncated"
    return ""


def _inspect_folders(folders: list[Path], workers: int) -> dict[Path, FolderState]:
    # Threads, because the time goes into waiting for the disk.
    with ThreadPool(workers) as pool:
        states = pool.imap(inspect_folder, map(str, folders), chunksize=16)
        return dict(zip(folders, list(tqdm(states, total=len(folders), desc="counting frames", unit="clip"))))


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file
    os.replace(temporary, path)
