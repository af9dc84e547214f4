"""From the official files of Diving48 V2 (ECCV 2018, labels of October 2020) to list files.

    Diving48_V2_train.json, Diving48_V2_test.json    list of {vid_name, label, start_frame, end_frame}
    Diving48_vocab.json                              per label four strings: take-off, somersaults, twists, position
    rgb/<vid_name>.mp4                               cut to the dive already: start_frame is 0

The test split serves for validation, as in papers. The labels of V1 were corrected: results on V1 and V2 cannot be
compared.
"""

from __future__ import annotations

from pathlib import Path

from slowfast.prepare.annotation import Annotation, check_disjoint, field_of, find_file, read_json
from slowfast.prepare.extract import Extraction
from slowfast.prepare.lists import ClipState, ListFolder, PreparedLists, Published
from slowfast.prepare.video_files import prepare_videos

VOCAB_FILE = "Diving48_vocab.json"
SPLIT_FILES = {"train": "Diving48_V2_train.json", "val": "Diving48_V2_test.json"}
PUBLISHED = Published({"train": 15_027, "val": 1_970}, 48)


def read_vocab(path: str | Path) -> list[str]:
    """Read the vocabulary and return the class names in the order of the labels, the four strings joined by spaces.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an entry is not four strings, or occurs twice.
    """
    names: list[str] = []
    for label, parts in enumerate(read_json(path, list)):
        is_text = isinstance(parts, list) and all(isinstance(part, str) and part.isprintable() for part in parts)
        if not is_text or len(parts) != 4:
            raise ValueError(f"{path}: class {label} is {parts!r}, expected four strings")
        name = " ".join(parts)
        if name in names:
            raise ValueError(f"{path}: class {label} is {name!r}, as is class {names.index(name)}")
        names.append(name)
    return names


def read_split(path: str | Path, num_classes: int) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Read the clips of one split.

    Returns:
        The label and the (start_frame, end_frame) of every name, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no clip, a malformed entry, a label outside the vocabulary or a name that occurs twice; the message
            names file and entry, counted from 1.
    """
    labels: dict[str, int] = {}
    spans: dict[str, tuple[int, int]] = {}
    for number, entry in enumerate(read_json(path, list), 1):
        where = f"{path}: entry {number}"
        name = field_of(entry, "vid_name", str, where)
        label, start, end = (field_of(entry, key, int, where) for key in ("label", "start_frame", "end_frame"))
        if not name or "/" in name:
            raise ValueError(f"{where}: vid_name {name!r} is not the name of a file")
        if not 0 <= label < num_classes:
            raise ValueError(f"{where}: label {label} is outside 0 to {num_classes - 1} ({VOCAB_FILE})")
        if name in labels:
            raise ValueError(f"{where}: vid_name {name!r} occurs before")
        labels[name], spans[name] = label, (start, end)
    return labels, spans


def prepare_diving48(
    annotations_dir: str | Path,
    videos_dir: str | Path,
    out_dir: str | Path,
    workers: int = 1,
    extraction: Extraction | None = None,
) -> PreparedLists:
    """Measure every video, or extract its frames, and write the files that ``write_lists`` describes.

    A video that holds fewer frames than its ``end_frame``, or whose dive does not start at frame 0, is kept and
    reported.

    Args:
        annotations_dir: folder of the official JSON files.
        videos_dir: folder that holds ``<vid_name>.mp4`` at any depth.
        out_dir: folder of the lists and of the extracted frames; made if missing.
        workers: processes that read videos.
        extraction: see ``prepare_videos``.

    Raises:
        FileNotFoundError: an annotation file or the folder of videos does not exist.
        ValueError: a malformed annotation or a split of which no clip can be used. No list is written then.
    """
    folder = ListFolder.make(out_dir, videos_dir, "videos_dir (--videos)")
    class_names = read_vocab(find_file(annotations_dir, [VOCAB_FILE]))
    labels, spans = {}, {}
    for split, name in SPLIT_FILES.items():
        labels[split], split_spans = read_split(find_file(annotations_dir, [name]), len(class_names))
        spans |= split_spans
    check_disjoint(labels, f"{annotations_dir}: {' and '.join(SPLIT_FILES.values())}")

    def remark(name: str, state: ClipState) -> str:
        start, end = spans[name]
        if start != 0:
            return f"the dive starts at frame {start} of the annotation, the whole video is used"
        if state.num_frames < end:
            return f"{state.num_frames} frames, the annotation ends at frame {end}"
        return ""

    annotation = Annotation(labels, class_names)
    return prepare_videos(
        folder, annotation, workers, "the folder that holds <vid_name>.mp4", extraction, remark=remark
    )
