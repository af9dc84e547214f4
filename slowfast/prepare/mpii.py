"""MPII Cooking 2 (arXiv 1502.06648), as the code of Video Motion Prompts (arXiv 2407.03179) splits it. The release has:

    attributesAnnotations_MPII-Cooking-2.mat    of each segment of a video fileName, startFrame, endFrame and activity
    experimentalSetup/sequencesTrainAttr.txt, sequencesVal.txt, sequencesTest.txt    names of sequences, first on a line
    <sequence>-cam-002.avi                      videos of the camera that is used

Classes are the activities that are names of the ``attributeMap``, too, sorted; 67. Clips are their segments, both end
frames included, frames counted from 0 as that code does. The annotation is HDF5, which h5py reads.
"""

import logging
from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, read_lines
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

ANNOTATION_FILE = "attributesAnnotations_MPII-Cooking-2.mat"
SPLITS = {"train": "sequencesTrainAttr.txt", "val": "sequencesVal.txt", "test": "sequencesTest.txt"}
CAMERA = "-cam-002"

Segment = tuple[str, int, int, str]  # video, first and last frame, activity


def read_annotation(folder: Path) -> Annotation:
    """Read the segments and the three splits."""
    path = find_file(folder, ANNOTATION_FILE)
    segments, attributes = read_mat(path)
    names = sorted({activity for *_, activity in segments} & attributes)
    labels = {name: label for label, name in enumerate(names)}
    parts: dict[str, tuple[str, int, int]] = {}
    by_video: dict[str, dict[str, int]] = {}
    for video, first, last, activity in segments:
        if activity in labels:
            # That code names files so, in a folder of the activity: of two with one start the later one counts.
            clip_id = f"{video}_{first}_{activity}"
            parts[clip_id] = (video, first, last)
            by_video.setdefault(video, {})[clip_id] = labels[activity]
    splits: dict[str, dict[str, int]] = {}
    for split, name in SPLITS.items():
        listed = find_file(folder / "experimentalSetup", name)
        splits[split] = {}
        for where, line in read_lines(listed):
            video = line.split()[0] + CAMERA
            if video not in by_video:
                raise UserError(f"{where}: {path} has no segments of {video}")
            splits[split] |= by_video[video]
    used = {clip_id for clips in splits.values() for clip_id in clips}
    logger.info("%s: %d segments of %d activities, %d in a split", path, len(parts), len(names), len(used))
    return Annotation(
        **splits, class_names=names, parts={clip_id: parts[clip_id] for clip_id in parts if clip_id in used}
    )


def read_mat(path: Path) -> tuple[list[Segment], set[str]]:
    """Return all segments, and the names of the map of attributes, of a MATLAB file of version 7.3."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} is HDF5, for which h5py is missing: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:

            def texts(name: str) -> list[str]:
                """Return a column of references to UTF-16 codes as strings."""
                return ["".join(map(chr, file[row[0]][:].ravel())) for row in file[f"annos/{name}"]]

            starts, ends = ([int(row[0]) for row in file[f"annos/{name}"]] for name in ("startFrame", "endFrame"))
            segments = list(zip(texts("fileName"), starts, ends, texts("activity"), strict=True))
            attributes = set(texts("attributeMap"))
    except (OSError, KeyError, ValueError, TypeError) as error:
        expected = "fileName, startFrame, endFrame, activity and attributeMap in annos"
        raise UserError(f"{path} cannot be read, expected {expected}: {error}") from error
    wrong = [one for one in segments if not 0 <= one[1] <= one[2] or "/" in one[0] + one[3]]
    if wrong or not segments:
        raise UserError(
            f"{path}: {wrong[0] if wrong else 'no segment'}, expected video, first and last frame, activity"
        )
    return segments, attributes
