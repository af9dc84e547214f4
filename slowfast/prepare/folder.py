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
from slowfast.utils.files import find_files, make_folder, read_text

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
    for clip in clips.values():
        listed_path(clip.path, root)  # before the long part, which a refused name would waste
    paths = {clip_id: clip.path for clip_id, clip in clips.items()}
    if extraction:
        seen = _extract(paths, root, workers, extraction)
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
    lists = _plan_lists(labels, fold_of, names, scheme, shots, seed)
    _refuse_other_classes(root, names, lists)
    lists = {name: [rows[position] for position in positions] for name, positions in lists.items()}
    write_lists(root, lists, names, report, of_frames=extraction is not None)
    sizes = [f"{len(lists[name])}/{len(lists[name[:-5] + 'val'])}" for name in lists if name.endswith("train")]
    counts = f"{len(usable)} videos of {len(names)} classes, {len(report)} left out"
    logger.info("%s: %s; train/val %s", out, counts, ", ".join(dict.fromkeys(sizes)))
    return len(report)


def _extract(paths: dict[str, str], root: Path, workers: int, settings: dict[str, int]) -> dict[str, extract.Clip]:
    """Extract videos by id to a folder each, named by the id with underscores for slashes."""
    ids: dict[str, str] = {}
    for clip_id in paths:
        name = clip_id.replace("/", "_")
        if name in ids:
            raise UserError(f"{paths[ids[name]]} and {paths[clip_id]} would have the same folder: rename one of them")
        ids[name] = clip_id
    frames = extract.extract_all({name: paths[clip_id] for name, clip_id in ids.items()}, root, workers, **settings)
    return {clip_id: frames[name] for name, clip_id in ids.items()}


def _plan_lists(
    labels: np.ndarray, fold_of: np.ndarray, names: list[str], scheme: str, shots: Sequence[int], seed: int
) -> dict[str, np.ndarray]:
    """Return the positions of the clips of each list, by its name without ending."""
    lists = {}
    for fold in range(1 if scheme == "none" else max(fold_of) + 1):
        name = "" if scheme == "none" else f"fold{fold + 1}/"
        train, val = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        lists |= {f"{name}train": train, f"{name}val": val}
        for count in shots:
            few = draw_shots(labels, train, names, count, [seed, fold])
            prefix = f"shots{count}_{name}" if name else f"shots{count}/"
            lists |= {f"{prefix}train": few, f"{prefix}val": val}
    absent = [name for label, name in enumerate(names) if label not in labels[fold_of == 0]]
    if scheme == "none" and absent:
        problem = "val has no video of %d classes, such as %s; --folds none 2 gives it more"
        logger.warning(problem, len(absent), absent[0])
    return lists


def _refuse_other_classes(root: Path, names: list[str], lists: Collection[str]) -> None:
    """Refuse a folder in which lists of an earlier call would stay, whose labels are of other class names."""
    classes = root / "classes.txt"
    if classes.exists() and read_text(classes).splitlines() != names:
        found = sorted([*root.glob("*/train.csv"), *root.glob("*/train.txt")])
        if others := [path for path in found if path.relative_to(root).with_suffix("").as_posix() not in lists]:
            problem = "has the labels of other classes, those of an earlier call"
            raise UserError(f"{others[0]} {problem}: delete such folders, or choose another --out")


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
    found = sorted(find_files(folder, without=extract.SETTINGS_FILE))
    files = [file for file in found if file.suffix.lower() in extract.VIDEO_ENDINGS]
    for file in files:
        path = file.relative_to(folder)
        match = expression.fullmatch(path.with_suffix("").as_posix())
        if not match:
            report.append(("", path.as_posix(), f"left out: its name does not fit {pattern}"))
            continue
        parts = match.groupdict("")
        seen.add(parts["class"])
        if parts["class"] not in without:
            clips[path.as_posix()] = Clip(str(file), parts["class"], parts.get("person", ""))
    endings = " ".join(extract.VIDEO_ENDINGS)
    if len(found) > len(files):
        other = next(file for file in found if file not in files)
        logger.info("%d files are no videos (%s), such as %s", len(found) - len(files), endings, other)
    if not clips:
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
