"""Diving48 V2 (ECCV 2018, labels of October 2020). The release has JSON files and MP4 videos:

    Diving48_V2_train.json, Diving48_V2_test.json    list of {vid_name, label, start_frame, end_frame}
    Diving48_vocab.json                              per label four strings: take-off, somersaults, twists, position
    rgb/<vid_name>.mp4                               cut to the dive already: start_frame is 0

The test split serves for validation, as in papers. The labels of V1 were corrected: results on V1 and V2 cannot be
compared.
"""

from __future__ import annotations

from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, read_entries, read_json, read_split
from slowfast.utils.errors import UserError

VOCAB_FILE = "Diving48_vocab.json"
SPLIT_FILES = ("Diving48_V2_train.json", "Diving48_V2_test.json")


def read_vocab(path: Path) -> list[str]:
    """Return the class names in the order of the labels, the four strings joined by spaces."""
    names: list[str] = []
    for label, parts in enumerate(read_json(path, list)):
        is_text = isinstance(parts, list) and all(isinstance(part, str) and part.isprintable() for part in parts)
        if not is_text or len(parts) != 4 or " ".join(parts) in names:
            raise UserError(f"{path}: class {label} is {parts!r}, expected four strings that no other class has")
        names.append(" ".join(parts))
    return names


def read_annotation(folder: Path) -> Annotation:
    """Read the vocabulary and both splits."""
    names = read_vocab(find_file(folder, [VOCAB_FILE]))
    spans: dict[str, tuple[int, int]] = {}

    def parse(entry: tuple[str, int, int, int]) -> tuple[str, int]:
        clip_id, label, start, end = entry
        if not clip_id or "/" in clip_id:
            raise ValueError(f"vid_name {clip_id!r} is not the name of a file")
        if not 0 <= label < len(names):
            raise ValueError(f"label {label} is outside 0 to {len(names) - 1} ({VOCAB_FILE})")
        spans[clip_id] = start, end
        return clip_id, label

    kinds = {"vid_name": str, "label": int, "start_frame": int, "end_frame": int}
    paths = [find_file(folder, [name]) for name in SPLIT_FILES]
    splits = (read_split(read_entries(path, **kinds), parse, path) for path in paths)
    return Annotation(*splits, names, media="<vid_name>.mp4", spans=spans)
