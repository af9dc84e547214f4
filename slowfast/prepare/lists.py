"""From a release's annotation and what is on disk to list files, class names and a report of what is left out.

Also the reading of annotations: its errors name the file and the place in it.
"""

from __future__ import annotations

import csv
import difflib
import json
import logging
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slowfast.prepare import extract
from slowfast.prepare.extract import Clip, Extraction
from slowfast.utils.errors import UserError
from slowfast.utils.files import read_text, replacing

logger = logging.getLogger(__name__)

REPORT_FILE = "prepare_report.csv"


@dataclass(frozen=True)
class Annotation:
    """Contents of a release: labels by clip id, in the order of the files, and names in the order of the labels."""

    train: dict[str, int]
    val: dict[str, int]
    class_names: list[str]
    media: str  # pattern of the media
    usual_frames: tuple[float, float] = (0, float("inf"))  # of the shortest and the longest clip
    flag: str = "--videos"  # or --frames: folders of frames
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)  # first and last frame, where they are named


def prepare(
    annotation: Annotation, media: str, out: str, workers: int = 1, extraction: Extraction | None = None
) -> int:
    """Look at every clip on disk, write the lists of both splits, and return the number of clips left out.

    Lists of frame folders are ``train.txt`` and ``val.txt`` with lines ``folder num_frames label``, lists of videos
    ``train.csv`` and ``val.csv`` with lines ``path,label``. Paths are relative to ``out`` if the media lie inside it.
    ``classes.txt`` has the class names, ``prepare_report.csv`` a line ``split,id,reason`` for every clip that is left
    out or unusual. After an error the files of an earlier run are still there. With ``extraction`` the videos, found at
    any depth below ``media``, are extracted to ``frames/<id>/00001.jpg`` in ``out``, and the lists name these folders.
    """
    # Not resolved: a link to another disk inside of out counts as inside.
    root, folder = Path(os.path.abspath(out)), Path(os.path.abspath(media))
    if not folder.is_dir():
        raise UserError(f"{annotation.flag} is {folder}, which is not an existing folder")
    shared = sorted(annotation.train.keys() & annotation.val.keys())
    if shared:  # they would be validated on what was trained
        raise UserError(f"{len(shared)} ids are in both train and val, such as {shared[0]} (--annotations)")
    try:
        root.mkdir(parents=True, exist_ok=True)  # before the long part, which a refused folder would waste
    except OSError as error:
        raise UserError(f"--out is {root}, which cannot be made a folder: {error.strerror}") from error
    clip_ids = [*annotation.train, *annotation.val]
    if annotation.flag == "--frames":
        clips = extract.inspect_all(
            extract.inspect_folder, {clip_id: str(folder / clip_id) for clip_id in clip_ids}, workers
        )
    else:
        clips, paths = extract.find_videos(folder, clip_ids)
        if extraction:
            folder = root
            clips |= extract.extract_all(paths, root, extraction, workers)
        else:
            clips |= extract.inspect_all(extract.inspect_video, paths, workers)

    lists, report = {}, []
    for split in ("train", "val"):
        rows, lines = _list_split(annotation, split, clips, root)
        if not rows:
            _, first, reason = lines[0]
            raise UserError(
                f"none of the {len(lines)} {split} clips can be used ({annotation.flag} is the folder that holds "
                f"{annotation.media}); the first one, {first}, is {reason}"
            )
        lists[split] = rows
        report += lines
    with replacing(root / REPORT_FILE) as file:
        csv.writer(file, lineterminator="\n").writerows([("split", "id", "reason"), *report])
    with replacing(root / "classes.txt") as file:
        file.writelines(f"{name}\n" for name in annotation.class_names)
    for split, rows in lists.items():
        _write_list(root / split, rows, of_frames=annotation.flag == "--frames" or extraction is not None)
    if not folder.is_relative_to(root):
        logger.info("the lists hold absolute paths, since %s lies outside --out", annotation.flag)
    if report:
        logger.info("%s names %d clips that are left out or look unusual", root / REPORT_FILE, len(report))
    left_out = {split: len(getattr(annotation, split)) - len(rows) for split, rows in lists.items()}
    counts = (f"{split} {len(rows)} written, {left_out[split]} left out" for split, rows in lists.items())
    logger.info("%s: %s, %d classes", out, "; ".join(counts), len(annotation.class_names))
    return sum(left_out.values())


def _list_split(
    annotation: Annotation, split: str, clips: dict[str, Clip], root: Path
) -> tuple[list[tuple[str, int, int]], list[tuple[str, str, str]]]:
    """Return the rows (path, frames, label) of a list and the lines of the report."""
    rows, report = [], []
    low, high = annotation.usual_frames
    for clip_id, label in getattr(annotation, split).items():
        clip = clips[clip_id]
        path = _listed(Path(clip.path), root)
        problem = clip.problem or _listing_problem(path)
        if problem:
            report.append((split, clip_id, f"left out: {problem}"))
            continue
        rows.append((path, clip.num_frames, label))
        remarks = [clip.remark] if clip.remark else []
        if not low <= clip.num_frames <= high:
            remarks.append(f"{clip.num_frames} frames, the clips of the release have {low} to {high}")
        start, end = annotation.spans.get(clip_id, (0, 0))
        if start:
            remarks.append(f"it starts at frame {start} of the annotation, the whole video is used")
        elif clip.num_frames < end:
            remarks.append(f"{clip.num_frames} frames, the annotation ends at frame {end}")
        if remarks:
            report.append((split, clip_id, f"kept: {'; '.join(remarks)}"))
    return rows, report


def _write_list(path: Path, rows: list[tuple[str, int, int]], of_frames: bool) -> None:
    # Readers tell comma and tab apart by the first line.
    separator = "\t" if any("," in row[0] for row in rows) else ","
    with replacing(path.with_suffix(".txt" if of_frames else ".csv")) as file:
        for listed, num_frames, label in rows:
            file.write(f"{listed} {num_frames} {label}\n" if of_frames else f"{listed}{separator}{label}\n")


def _listed(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _listing_problem(path: str) -> str:
    """Return why a reader of lists, which strips and splits lines, would not give back a path; "" if it would."""
    if path.isprintable() and not path.startswith(" "):
        return ""
    return f"list lines cannot hold {path!r}: a leading space, line breaks, tabs or undecodable bytes"


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """Return the file of ``folder`` that has one of the names under which it is distributed."""
    found = [name for name in names if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder / names[0]} does not exist; --annotations needs a folder with {' or '.join(names)}")
    if len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(found)}: keep one, it is not clear which is meant")
    return folder / found[0]


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Return ``(path:number, line)`` for the lines that are not blank, stripped."""
    lines = [(f"{path}:{number}", line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)]
    return [(where, line) for where, line in lines if line]


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a list or a dict (``kind``)."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds {reprlib.repr(content)}, expected a {kind.__name__}")
    return content


def read_entries(path: Path, **kinds: type) -> Iterator[tuple[str, tuple]]:
    """Yield ``(path: entry number, values)`` for a JSON list of objects, with the fields ``kinds`` in that order."""
    for number, entry in enumerate(read_json(path, list), 1):
        for name, kind in kinds.items():
            if not isinstance(entry, dict) or type(entry.get(name)) is not kind:
                expected = f"an object with {name!r} ({kind.__name__})"
                raise UserError(f"{path}: entry {number}: found {reprlib.repr(entry)}, expected {expected}")
        yield f"{path}: entry {number}", tuple(entry[name] for name in kinds)


def read_split(rows: Iterable[tuple[str, Any]], parse: Callable[[Any], tuple[str, int]], path: Path) -> dict[str, int]:
    """Return the label of every clip id of a file.

    ``rows`` are places in the file and what is there, which ``parse`` turns into an id and a label, or raises
    ValueError with what is wrong.
    """
    labels: dict[str, int] = {}
    places: dict[str, str] = {}
    for where, row in rows:
        try:
            clip_id, label = parse(row)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if clip_id in labels:
            raise UserError(f"{where}: {clip_id} is already at {places[clip_id]}")
        labels[clip_id], places[clip_id] = label, where
    if not labels:
        raise UserError(f"{path} has no clips")
    return labels


def label_of(name: str, labels: dict[str, int], where: str) -> int:
    """Return the label of a class name; a ValueError names the closest one that is known."""
    if name in labels:
        return labels[name]
    close = difflib.get_close_matches(name, labels, n=1)
    hint = f"; the closest one there is {close[0]!r}" if close else ""
    raise ValueError(f"{name!r} is not among the {len(labels)} of {where}{hint}")
