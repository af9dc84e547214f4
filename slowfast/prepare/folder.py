"""Videos of one's own, sorted into folders or named by their class: to lists, folds and few-shot sets.

A clip is a pair of its label and its group: clips of one group, such as those of a person, are never both trained on
and validated.
"""

import logging
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slowfast.prepare import extract
from slowfast.prepare.lists import listed_path, write_lists
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder

logger = logging.getLogger(__name__)

SCHEMES = ("person", "stratified", "none")
_NUM_FOLDS = 5  # where none is given


class Clip(NamedTuple):
    """A video file, its class, and the person (or whatever else must not be divided) in its name, if any."""

    path: str
    class_name: str
    person: str


def prepare_folder(
    videos: str,
    out: str,
    pattern: str,
    folds: Sequence[str],
    shots: Sequence[int] = (),
    without: Collection[str] = (),
    seed: int = 0,
    workers: int = 1,
    extraction: dict[str, int] | None = None,
) -> int:
    """Write lists of the videos of a folder and return how many were left out.

    Args:
        videos: folder of the videos, at the depth of ``pattern``.
        out: folder of ``classes.txt``, ``prepare_report.csv`` and, for every fold N, ``foldN/train`` and ``foldN/val``
            with every video in one val; one ``train`` and ``val`` for the scheme none. Frames are folders in it.
        pattern: of the paths in ``videos`` without ending, see :func:`compile_pattern`.
        folds: a name of SCHEMES and perhaps a number of folds.
        shots: numbers of training clips a class, for each of which there are lists ``shotsK_foldN/train`` and ``val``,
            too; the same videos are validated, and fewer clips are some of those that more have.
        without: classes to leave out.
        seed: of what is drawn.
        workers: processes that read videos.
        extraction: settings of :func:`slowfast.prepare.extract.extract_all`, to list extracted frames.
    """
    root, folder = Path(os.path.abspath(out)), Path(os.path.abspath(videos))
    scheme, num_folds = read_folds(folds, "{person}" in pattern)
    clips, report = find_clips(folder, pattern, without)
    make_folder(root)
    paths = {clip_id: clip.path for clip_id, clip in clips.items()}
    if extraction:
        seen = extract.extract_all(paths, root, workers, **extraction)
    else:
        seen = extract.inspect_all(extract.inspect_video, paths, workers)
    report += [("", clip_id, f"left out: {found}") for clip_id, found in seen.items() if isinstance(found, str)]
    usable = [clip_id for clip_id in clips if not isinstance(seen[clip_id], str)]
    names = sorted({clips[clip_id].class_name for clip_id in usable})
    if len(names) < 2:
        found = f"usable videos of one class only, {names[0]}" if names else "no usable videos"
        raise UserError(f"--videos {folder} has {found}, by --pattern {pattern!r}; at least two classes are needed")
    labels = np.array([names.index(clips[clip_id].class_name) for clip_id in usable])
    persons = [clips[clip_id].person or clip_id for clip_id in usable]
    fold_of = assign_folds(labels, persons, names, scheme, num_folds, seed)

    found = [seen[clip_id] for clip_id in usable]
    rows = [(listed_path(path, root), num, int(label)) for (path, num), label in zip(found, labels)]
    lists = {}
    for fold in range(1 if scheme == "none" else max(fold_of) + 1):
        name = "" if scheme == "none" else f"fold{fold + 1}/"
        train, val = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        lists |= {f"{name}train": train, f"{name}val": val}
        for count in shots:
            few = draw_shots(labels, train, names, count, [seed, fold])
            prefix = f"shots{count}_{name}" if name else f"shots{count}/"
            lists |= {f"{prefix}train": few, f"{prefix}val": val}
    lists = {name: [rows[position] for position in positions] for name, positions in lists.items()}
    write_lists(root, lists, names, report, of_frames=extraction is not None)
    sizes = [f"{len(lists[name])}/{len(lists[name[:-5] + 'val'])}" for name in lists if name.endswith("train")]
    counts = f"{len(usable)} videos of {len(names)} classes, {len(report)} left out"
    logger.info("%s: %s; train/val %s", out, counts, ", ".join(dict.fromkeys(sizes)))
    return len(report)


def read_folds(words: Sequence[str], has_person: bool) -> tuple[str, int]:
    """Return the scheme and the number of folds, 0 for as many as persons, of the words after ``--folds``."""
    scheme, *number = words
    number = number or ["0" if scheme == "person" else str(_NUM_FOLDS)]
    is_number = len(number) == 1 and re.fullmatch("[0-9]+", number[0])
    if scheme not in SCHEMES or not is_number or int(number[0]) == 1:
        allowed = f"{' | '.join(SCHEMES)}, and a number from 2 on"
        raise UserError(f"--folds is {' '.join(words)}; allowed: {allowed}")
    if scheme == "person" and not has_person:
        raise UserError("--folds person needs to know the person: a --pattern with {person}, as '{class}/{person}_*'")
    return scheme, int(number[0])


def compile_pattern(pattern: str) -> re.Pattern:
    """Return the regular expression of a pattern such as ``{class}/{person}_*`` of paths without ending.

    ``{class}`` and ``{person}`` stand for as few characters as fit, ``*`` for any, none of them for a slash.
    """
    parts = re.split(r"(\{.*?\}|\*)", pattern)
    known = {"*": "[^/]*", "{class}": "(?P<class>[^/]+?)", "{person}": "(?P<person>[^/]+?)"}
    unknown = [part for part in parts[1::2] if part not in known]
    if unknown or parts.count("{class}") != 1 or parts.count("{person}") > 1:
        raise UserError(f"--pattern is {pattern!r}; allowed: one {{class}}, perhaps one {{person}}, * and other text")
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))


def find_clips(
    folder: Path, pattern: str, without: Collection[str] = ()
) -> tuple[dict[str, Clip], list[tuple[str, str, str]]]:
    """Return the videos below ``folder`` by an id, and the report of those that the pattern does not fit."""
    if not folder.is_dir():
        raise UserError(f"--videos {folder} is not an existing folder")
    expression, clips, report, seen = compile_pattern(pattern), {}, [], set()
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in extract.VIDEO_ENDINGS)
    for file in files:
        path = file.relative_to(folder)
        match = expression.fullmatch(path.with_suffix("").as_posix())
        if not match:
            report.append(("", path.as_posix(), f"left out: its name does not fit {pattern}"))
            continue
        parts = match.groupdict("")
        seen.add(parts["class"])
        if parts["class"] not in without:
            clip_id = "_".join(path.parts)
            if clip_id in clips:
                raise UserError(f"{clips[clip_id].path} and {file} would have the same name: rename one of them")
            clips[clip_id] = Clip(str(file), parts["class"], parts.get("person", ""))
    if not clips:
        endings = " ".join(extract.VIDEO_ENDINGS)
        example = f"; {len(files)} have other names, such as {report[0][1]}" if report else f" ({endings})"
        raise UserError(f"--videos {folder} has no videos that fit --pattern {pattern!r}{example}")
    if unknown := set(without) - seen:
        raise UserError(f"--without {' '.join(sorted(unknown))}: no such class, found {', '.join(sorted(seen))}")
    return clips, report


def assign_folds(
    labels: np.ndarray, groups: Sequence[str], names: Sequence[str], scheme: str, num_folds: int, seed: int
) -> np.ndarray:
    """Return the fold (M,), from 0 on, in which each clip is validated.

    Groups are never divided. One after another, the largest first, they go to the fold that has least of their classes
    and least altogether, so that folds have as much of every class as can be. ``num_folds`` 0: one for every group.

    Raises:
        UserError: there are too few groups, or a class would not be trained in some fold.
    """
    members: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    what = "persons" if len(members) < len(labels) else "clips"
    num_folds = num_folds or len(members)
    for label, name in enumerate(names):
        found = len({groups[position] for position in np.flatnonzero(labels == label)})
        least = num_folds if scheme == "stratified" and what == "clips" else 2
        if found < least:
            rule = f"--folds {scheme} {num_folds} needs at least {least}; fewer folds, more, or --without {name}"
            raise UserError(f"class {name!r} has {found} {what}: {rule}")
    if len(members) < num_folds:
        raise UserError(f"--folds {scheme} {num_folds}: there are {len(members)} {what} only")
    fold_of = np.empty(len(labels), dtype=np.int64)
    if num_folds == len(members):
        order = sorted(members)  # person by person
        fold_of[:] = [order.index(group) for group in groups]
        return fold_of
    counts = np.zeros((num_folds, len(names)), dtype=np.int64)
    rng = np.random.default_rng(seed)
    drawn = [[*members][position] for position in rng.permutation(len(members))]
    drawn.sort(key=lambda group: (-len(members[group]), labels[members[group][0]]))  # stable: drawn within a class
    for group in drawn:
        own = np.bincount(labels[members[group]], minlength=len(names))
        fold = min(range(num_folds), key=lambda fold: (counts[fold] @ own, counts[fold].sum()))
        counts[fold] += own
        fold_of[members[group]] = fold
    for fold, label in np.argwhere(counts == np.bincount(labels)):
        problem = f"fold {fold + 1} would validate all clips of class {names[label]!r}"
        raise UserError(f"--folds {scheme} {num_folds}: {problem}; choose another number of folds")
    return fold_of


def draw_shots(
    labels: np.ndarray, train: np.ndarray, names: Sequence[str], count: int, seed: Sequence[int]
) -> np.ndarray:
    """Return ``count`` of the clips ``train`` of every class, a part of those that a larger count gives."""
    drawn = np.random.default_rng(seed).permutation(train)
    chosen = [drawn[labels[drawn] == label][:count] for label in range(len(names))]
    for name, own in zip(names, chosen):
        if len(own) < count:
            raise UserError(f"--shots {count}: class {name!r} has {len(own)} training clips only")
    return np.sort(np.concatenate(chosen))
