"""From a release's annotation, and its reading, and what is on disk to list files, class names and a report."""

import csv
import difflib
import itertools
import json
import logging
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slowfast.prepare import extract
from slowfast.prepare.extract import Clip
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder, read_text, replacing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotation:
    """Contents of a release: labels by clip id, in the order of the files, and names in the order of the labels."""

    train: dict[str, int]
    val: dict[str, int]
    class_names: list[str]
    usual_frames: tuple[float, float] = (0, float("inf"))  # of the shortest and the longest clip
    is_folders: bool = False  # of frames, not videos
    least_frames: dict[str, int] = field(default_factory=dict)  # of single clips, where it is known
    test: dict[str, int] = field(default_factory=dict)  # where it is a split of its own
    # Where clips are parts of videos: id of the video, first and last frame, counted from 0, by id of the clip.
    parts: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, dict[str, int]]:
        """The labels by clip id of each split."""
        return {"train": self.train, "val": self.val} | ({"test": self.test} if self.test else {})


def prepare(
    annotation: Annotation, media: str, out: str, workers: int = 1, extraction: dict[str, int] | None = None
) -> int:
    """Look at every clip on disk, write the lists of all splits, and return the number of clips left out.

    Lists of frame folders are ``train.txt``, ... with lines ``folder num_frames label``, lists of videos
    ``train.csv``, ... with lines ``path,label``. Paths are relative to ``out`` if the media lie inside it.
    ``prepare_report.csv`` has a line ``split,id,reason`` for every clip that is left out or unusual. After an error the
    files of an earlier run are still there. With ``extraction``, its settings, the lists name extracted frames.
    """
    # Not resolved: a link to another disk inside of out counts as inside.
    root, folder = Path(os.path.abspath(out)), Path(os.path.abspath(media))
    if not folder.is_dir():
        raise UserError(f"{folder} (--frames, --videos) is not an existing folder")
    for first, second in itertools.combinations(annotation.splits, 2):
        if shared := annotation.splits[first].keys() & annotation.splits[second].keys():  # tested on what was trained
            raise UserError(
                f"{len(shared)} ids are in both {first} and {second}, such as {min(shared)} (--annotations)"
            )
    make_folder(root)  # before the long part, which a refused folder would waste
    clips = _inspect(annotation, folder, root, workers, extraction)
    splits, lists, report = annotation.splits, {}, []
    for split, labels in splits.items():
        lists[split], remarks = _list_split(annotation, labels, clips, root)
        if not lists[split]:
            raise UserError(f"none of the {len(labels)} {split} clips can be used; {': '.join(remarks[0])}")
        report += [(split, *remark) for remark in remarks]
    write_lists(root, lists, annotation.class_names, report, annotation.is_folders or extraction is not None)
    left_out = {split: len(labels) - len(lists[split]) for split, labels in splits.items()}
    counts = "; ".join(f"{split} {len(rows)} written, {left_out[split]} left out" for split, rows in lists.items())
    logger.info("%s: %s, %d classes", out, counts, len(annotation.class_names))
    return sum(left_out.values())


def _inspect(
    annotation: Annotation, folder: Path, root: Path, workers: int, extraction: dict[str, int] | None
) -> dict[str, Clip]:
    clip_ids = [clip_id for labels in annotation.splits.values() for clip_id in labels]
    if annotation.is_folders:
        folders = {clip_id: str(folder / clip_id) for clip_id in clip_ids}
        return extract.inspect_all(extract.inspect_folder, folders, workers)
    videos = {clip_id: annotation.parts[clip_id][0] if annotation.parts else clip_id for clip_id in clip_ids}
    of_videos = extract.find_videos(folder, videos.values())
    found = {clip_id: of_videos[video] for clip_id, video in videos.items()}
    paths = {clip_id: files[0] for clip_id, files in found.items() if len(files) == 1}
    if extraction:
        clips = extract.extract_all(paths, root, workers, parts=annotation.parts, **extraction)
    else:
        clips = extract.inspect_all(extract.inspect_video, paths, workers)
    for clip_id in found.keys() - paths.keys():
        files, endings = found[clip_id], " ".join(extract.VIDEO_ENDINGS)
        clips[clip_id] = f"{len(files)} videos ({endings}): {', '.join(sorted(files)) or folder}"
    return clips


def _list_split(
    annotation: Annotation, labels: dict[str, int], clips: dict[str, Clip], root: Path
) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]]]:
    """Return the rows (path, frames, label) of a list and remarks (id, reason) for the report."""
    rows, report = [], []
    low, high = annotation.usual_frames
    for clip_id, label in labels.items():
        if isinstance(clip := clips[clip_id], str):
            report.append((clip_id, f"left out: {clip}"))
            continue
        num_frames = clip[1]
        rows.append((listed_path(clip[0], root), num_frames, label))
        least = annotation.least_frames.get(clip_id, low)
        if not least <= num_frames <= high:
            report.append((clip_id, f"kept: {num_frames} frames, expected {least} to {high}"))
    return rows, report


def listed_path(path: str, root: Path) -> str:
    """Return a path as the lists in ``root`` have it, relative if it lies inside."""
    listed = (Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path(path)).as_posix()
    # Readers of lists strip lines and split them; what is not UTF-8 has surrogates.
    if listed != listed.strip() or any(letter in "\t\r\n" or "\ud800" <= letter <= "\udfff" for letter in listed):
        raise UserError(f"lists cannot hold {listed!r}: a space at an end, line breaks, tabs or undecodable bytes")
    return listed


def write_lists(
    root: Path,
    lists: dict[str, list[tuple[str, int, int]]],
    class_names: list[str],
    report: list[tuple[str, str, str]],
    of_frames: bool,
) -> None:
    """Write the lists, rows (path, frames, label) by name without ending, class names and the report on clips."""
    with replacing(root / "prepare_report.csv") as file:
        csv.writer(file, lineterminator="\n").writerows([("split", "id", "reason"), *report])
    for name, rows in lists.items():
        make_folder((root / name).parent)
        _write_list(root / name, rows, of_frames)
    with replacing(root / "classes.txt") as file:  # last, as a sign that all is there
        file.writelines(f"{name}\n" for name in class_names)
    if report:
        logger.info("%s/prepare_report.csv names %d clips that are left out or look unusual", root, len(report))


def _write_list(path: Path, rows: list[tuple[str, int, int]], of_frames: bool) -> None:
    # Readers tell comma and tab apart by the first line.
    separator = "\t" if any("," in row[0] for row in rows) else ","
    with replacing(path.with_suffix(".txt" if of_frames else ".csv")) as file:
        for listed, num_frames, label in rows:
            file.write(f"{listed} {num_frames} {label}\n" if of_frames else f"{listed}{separator}{label}\n")


def find_file(folder: Path, *names: str) -> Path:
    """Return the file of ``folder`` that has one of the names under which it is distributed."""
    found = [name for name in names if (folder / name).is_file()]
    if len(found) != 1:
        there_is = " and ".join(found) or "none"
        raise UserError(f"--annotations {folder} needs one file {' or '.join(names)}; there is {there_is}")
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
    """Yield ``(path:number, values)`` of a JSON list of objects or a CSV file, with the fields ``kinds`` in that order.

    Entries of a list count from 1, rows of a CSV file by lines.
    """
    is_csv = path.suffix == ".csv"
    rows = csv.DictReader(read_text(path).splitlines()) if is_csv else read_json(path, list)
    for number, row in enumerate(rows, 1):
        where = f"{path}:{rows.line_num}" if is_csv else f"{path}: entry {number}"
        for name, kind in kinds.items():
            if not isinstance(row, dict) or type(row.get(name)) is not kind:
                raise UserError(f"{where}: found {reprlib.repr(row)}, expected a field {name!r} ({kind.__name__})")
        yield where, tuple(row[name] for name in kinds)


def read_split(rows: Iterable[tuple[str, Any]], parse: Callable[[Any], tuple[str, int]], path: Path) -> dict[str, int]:
    """Return the label of every clip id of a file.

    ``rows`` are places in the file and what is there, which ``parse`` turns into an id and a label, or raises
    ValueError with what is wrong.
    """
    labels: dict[str, int] = {}
    for where, row in rows:
        try:
            clip_id, label = parse(row)
            if clip_id in labels:
                raise ValueError(f"{clip_id} is there for the second time")
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        labels[clip_id] = label
    if not labels:
        raise UserError(f"{path} has no clips")
    return labels


def label_of(name: str, labels: dict[str, int], where: str) -> int:
    """Return the label of a class name; a ValueError names the closest one that is known."""
    if name not in labels:
        close = difflib.get_close_matches(name, labels, n=1)
        hint = f"; the closest one there is {close[0]!r}" if close else ""
        raise ValueError(f"{name!r} is not among the {len(labels)} of {where}{hint}")
    return labels[name]
