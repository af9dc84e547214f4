"""Diving48 V2 (ECCV 2018, labels of October 2020). The release has JSON files and MP4 videos:

    Diving48_V2_train.json, Diving48_V2_test.json    list of {vid_name, label, start_frame, end_frame}
    Diving48_vocab.json                              per label four strings: take-off, somersaults, twists, position
    rgb/<vid_name>.mp4                               cut to the dive already: start_frame is 0

The test split serves for validation, as in papers. The labels of V1 were corrected: results on V1 and V2 cannot be
compared.
"""

from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, read_entries, read_json, read_split
from slowfast.utils.errors import UserError

VOCAB_FILE = "Diving48_vocab.json"


def read_annotation(folder: Path) -> Annotation:
    """Read the vocabulary and both splits."""
    names, ends, path = [], {}, find_file(folder, VOCAB_FILE)
    for label, parts in enumerate(read_json(path, list)):
        is_text = isinstance(parts, list) and all(isinstance(part, str) and part.isprintable() for part in parts)
        if not is_text or len(parts) != 4 or " ".join(parts) in names:
            raise UserError(f"{path}: class {label} is {parts!r}, expected four strings that no other class has")
        names.append(" ".join(parts))

    def parse(entry: tuple[str, int, int]) -> tuple[str, int]:
        clip_id, label, end = entry
        if not clip_id or "/" in clip_id:
            raise ValueError(f"vid_name {clip_id!r} is not the name of a file")
        if not 0 <= label < len(names):
            raise ValueError(f"label {label} is outside 0 to {len(names) - 1} ({VOCAB_FILE})")
        ends[clip_id] = end
        return clip_id, label

    kinds = {"vid_name": str, "label": int, "end_frame": int}
    paths = [find_file(folder, f"Diving48_V2_{split}.json") for split in ("train", "test")]
    splits = (read_split(read_entries(path, **kinds), parse, path) for path in paths)
    return Annotation(*splits, names, least_frames=ends)
