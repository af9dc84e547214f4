"""Lists, class names and the report, from an annotation and what was found on disk."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slowfast.prepare.annotation import Annotation
from slowfast.prepare.isolation import Lost, map_isolated
from slowfast.utils.files import replacing
from slowfast.utils.logging import progress_bar

REPORT_FILE = "prepare_report.csv"
CLASSES_FILE = "classes.txt"


@dataclass(frozen=True, slots=True)
class ClipState:
    """What is on disk of a clip.

    Attributes:
        path: the video file or the folder of frames; "" if there is none.
        num_frames: measured.
        problem: why the clip cannot be used; "" if it can.
        remark: what is unusual about a clip that can be used; "" if nothing is.
    """

    path: str
    num_frames: int
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """The size of a release; a subset may have less.

    Attributes:
        num_clips: of train and val.
        num_classes: number of classes.
    """

    num_clips: dict[str, int]
    num_classes: int


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """The clips of one split: written to the list, left out of it, and written but reported as unusual."""

    name: str
    num_written: int
    num_left_out: int
    num_unusual: int


@dataclass(frozen=True, slots=True)
class PreparedLists:
    """What was written; `has_relative_paths` is False if the lists hold absolute paths."""

    splits: tuple[PreparedSplit, ...]
    num_classes: int
    has_relative_paths: bool


@dataclass(frozen=True)
class ListFolder:
    """The folder of the lists and the folder of what they name.

    Attributes:
        out_dir: absolute.
        media_dir: absolute; below `out_dir` or elsewhere.
        flag: the argument that named `media_dir`, for messages.
    """

    out_dir: Path
    media_dir: Path
    flag: str

    @classmethod
    def make(cls, out_dir: str | Path, media_dir: str | Path, flag: str) -> ListFolder:
        """Check the folders before anything long begins.

        Raises:
            FileNotFoundError: the folder of the media does not exist.
            ValueError: `out_dir` is a file, or list lines cannot hold the name of `media_dir`.
        """
        # Not resolved: a link to another disk inside out_dir counts as inside.
        out_dir, media_dir = Path(os.path.abspath(out_dir)), Path(os.path.abspath(media_dir))
        if not media_dir.is_dir():
            raise FileNotFoundError(f"{flag} is {media_dir}, which is not an existing folder")
        if out_dir.exists() and not out_dir.is_dir():
            raise ValueError(f"out_dir (--out) is {out_dir}; allowed: a folder, and this is a file")
        folder = cls(out_dir, media_dir, flag)
        problem = _listing_problem(folder.listed(str(media_dir)))
        if problem:
            raise ValueError(f"{flag} is {str(media_dir)!r}; {problem}")
        return folder

    @property
    def has_relative_paths(self) -> bool:
        """Whether the lists name paths below their own folder, so that both can be moved together."""
        return self.media_dir.is_relative_to(self.out_dir)

    def listed(self, path: str) -> str:
        """Return a path of the media as the lists hold it."""
        return Path(path).relative_to(self.out_dir).as_posix() if self.has_relative_paths else Path(path).as_posix()


def write_lists(
    folder: ListFolder, annotation: Annotation, states: Mapping[str, ClipState], of_frames: bool, hint: str
) -> PreparedLists:
    """Write the lists of both splits, `classes.txt` and `prepare_report.csv`, replacing those of an earlier run.

    Lists of frame folders are `train.txt` and `val.txt` with lines `folder num_frames label`, lists of videos
    `train.csv` and `val.csv` with lines `path,label`; both in the order of the annotation. Paths are relative to the
    folder of the lists if the media lie inside it, else absolute; either way they are found with
    DATA.PATH_TO_DATA_DIR = that folder and no DATA.PATH_PREFIX. `classes.txt` has the class names in the order of the
    labels. The report has a line `split,id,reason` for every clip that is left out of its list or is kept although it
    looks unusual; the reason begins with "left out" or "kept". Every file is replaced in one step, so that an
    interrupted run leaves no half-written list.

    Args:
        folder: where to write, and where the media are.
        annotation: splits, labels and class names.
        states: by clip id.
        of_frames: the media are folders of frames.
        hint: what the folder of the media should hold, for the error when nothing is found.

    Raises:
        ValueError: no clip of a split can be used. Nothing is written or replaced then.
    """
    splits, lists, report = [], {}, [("split", "id", "reason")]
    for split, labels in annotation.labels.items():
        rows, num_unusual = [], 0
        for clip_id, label in labels.items():
            state = states[clip_id]
            listed = folder.listed(state.path) if state.path else ""
            problem = state.problem or _listing_problem(listed)
            if problem:
                report.append((split, clip_id, f"left out: {problem}"))
                continue
            rows.append((listed, state.num_frames, label))
            if state.remark:
                num_unusual += 1
                report.append((split, clip_id, f"kept: {state.remark}"))
        if not rows:
            first_id = next(iter(labels))
            raise ValueError(
                f"none of the {len(labels)} {split} clips can be used; the first one, {first_id}: "
                f"{states[first_id].problem} ({folder.flag} is {hint})"
            )
        lists[split] = rows
        splits.append(PreparedSplit(split, len(rows), len(labels) - len(rows), num_unusual))

    folder.out_dir.mkdir(parents=True, exist_ok=True)
    with replacing(folder.out_dir / REPORT_FILE) as file:
        csv.writer(file, lineterminator="\n").writerows(report)
    with replacing(folder.out_dir / CLASSES_FILE) as file:
        file.writelines(f"{name}\n" for name in annotation.class_names)
    for split, rows in lists.items():
        with replacing(folder.out_dir / f"{split}.{'txt' if of_frames else 'csv'}") as file:
            if of_frames:
                file.writelines(f"{path} {num_frames} {label}\n" for path, num_frames, label in rows)
            else:
                separator = _separator(path for path, _, _ in rows)
                file.writelines(f"{path}{separator}{label}\n" for path, _, label in rows)
    return PreparedLists(tuple(splits), len(annotation.class_names), folder.has_relative_paths)


def inspect_all(
    inspect: Callable[[Any], ClipState], items: Mapping[str, Any], workers: int, description: str
) -> dict[str, ClipState]:
    """Return ``inspect(items[id])`` by id, from processes whose crash loses one clip only.

    Raises:
        ValueError: workers out of bounds.
    """
    states = {}
    clip_ids = list(items)
    results = map_isolated(inspect, list(items.values()), workers)
    for index, state in progress_bar(results, len(clip_ids), description, unit="clip"):
        states[clip_ids[index]] = ClipState("", 0, state.reason) if isinstance(state, Lost) else state
    return states


def frames_remark(num_frames: int, usual_frames: tuple[int, int] | None) -> str:
    """Return what to say about a frame count that no clip of the release has, or ""."""
    if usual_frames is None or usual_frames[0] <= num_frames <= usual_frames[1]:
        return ""
    return f"{num_frames} frames, the clips of the release have {usual_frames[0]} to {usual_frames[1]}"


def with_remark(state: ClipState, remark: str) -> ClipState:
    """Return the state with a further remark, which may be "" for none."""
    return replace(state, remark="; ".join(filter(None, (state.remark, remark))))


def _listing_problem(path: str) -> str:
    """Say why a reader of lists, which strips and splits lines, would not give back a path; "" if it would."""
    if path.isprintable() and not path.startswith(" "):
        return ""
    return (
        f"list lines cannot hold {path!r}, a name that begins with a space or has line breaks, tabs or undecodable "
        "bytes"
    )


def _separator(paths: Iterator[str]) -> str:
    """A comma unless a path has one; readers tell the two apart by the first line."""
    return "\t" if any("," in path for path in paths) else ","
