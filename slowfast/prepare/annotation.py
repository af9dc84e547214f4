"""Reading the text files of a release: errors name the file and the place in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast.utils import files


@dataclass(frozen=True)
class Annotation:
    """What a release says.

    Attributes:
        labels: by split (train, val) the label of every clip id, in the order of the annotation.
        class_names: in the order of the labels.
    """

    labels: dict[str, dict[str, int]]
    class_names: list[str]

    @property
    def clip_ids(self) -> list[str]:
        """The ids of all splits."""
        return [clip_id for labels in self.labels.values() for clip_id in labels]


def find_file(folder: str | Path, names: Sequence[str]) -> Path:
    """Return the file of ``folder`` that has one of the names under which it is distributed.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    found = [name for name in names if Path(folder, name).is_file()]
    if not found:
        wanted = names[0] if len(names) == 1 else f"{names[0]} (or {', '.join(names[1:])})"
        raise FileNotFoundError(f"{Path(folder, names[0])} does not exist; --annotations needs a folder with {wanted}")
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(found)}: keep one, it is not clear which is meant")
    return Path(folder, found[0])


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8 text.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist (--annotations)")
    return files.read_text(path)


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers from 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no lines, or not UTF-8 text.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} has no lines")
    return lines


def read_json(path: str | Path, kind: type) -> Any:
    """Read a JSON file that holds a non-empty ``kind`` (list or dict); a key given twice is an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: invalid JSON, another kind, or nothing in it.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
        return content

    try:
        content = json.loads(read_text(path), object_pairs_hook=unique)
    except FileNotFoundError:
        raise
    except ValueError as error:  # of which JSONDecodeError is one
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, kind) or not content:
        raise ValueError(f"{path} holds {_shown(content)}, expected a {kind.__name__} that is not empty")
    return content


def field_of(entry: Any, name: str, kind: type, where: str) -> Any:
    """Return ``entry[name]``, which must be of type ``kind``.

    Raises:
        ValueError: there is no such field or it is of another type.
    """
    if not isinstance(entry, dict) or type(entry.get(name)) is not kind:
        raise ValueError(f"{where}: found {_shown(entry)}, expected an object with {name!r} ({kind.__name__})")
    return entry[name]


def unknown_name(name: str, known: Collection[str], where: str) -> str:
    """Return the message for a name that is none of ``known``, with the closest of them."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; the closest one there is {close[0]!r}" if close else ""
    return f"{name!r} is not among the {len(known)} of {where}{hint}"


def check_disjoint(labels: dict[str, dict[str, int]], where: str) -> None:
    """Refuse ids that are in both splits: one would be validated on what was trained.

    Raises:
        ValueError: there are some.
    """
    shared = sorted(labels["train"].keys() & labels["val"].keys())
    if shared:
        raise ValueError(f"{where}: {len(shared)} ids are in both, such as {shared[0]}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
