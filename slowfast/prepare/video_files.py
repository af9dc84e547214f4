"""Where the videos of a release are, what they hold, and the lists of them or of frames extracted from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.whole_video import open_whole
from slowfast.prepare.annotation import Annotation
from slowfast.prepare.extract import SETTINGS_FILE, Extraction, extract_videos
from slowfast.prepare.lists import (
    ClipState,
    ListFolder,
    PreparedLists,
    frames_remark,
    inspect_all,
    with_remark,
    write_lists,
)

# In lower case. Copies that were downloaded again or re-encoded often have another ending than the release.
VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")

FRAMES_FOLDER = "frames"


def prepare_videos(
    folder: ListFolder,
    annotation: Annotation,
    workers: int,
    hint: str,
    extraction: Extraction | None = None,
    usual_frames: tuple[int, int] | None = None,
    remark: Callable[[str, ClipState], str] = lambda clip_id, state: "",
) -> PreparedLists:
    """Find the videos below ``folder.media_dir``, measure or extract them and write what ``write_lists`` describes.

    Args:
        folder: where to write, and where the videos are.
        annotation: of the release.
        workers: processes that read videos.
        hint: what the folder of the videos should hold, for the error when nothing is found.
        extraction: how to extract frames to ``frames/<id>/00001.jpg`` beside the lists, which are then of these
            folders; None lists the videos themselves.
        usual_frames: the fewest and the most frames of a clip of the release; others are remarked on.
        remark: ``remark(id, state)`` says what else is unusual about a clip that can be used.

    Raises:
        ValueError: a split of which no clip can be used, workers out of bounds, or frames extracted with other
            settings.
    """
    folder.out_dir.mkdir(parents=True, exist_ok=True)
    states, paths = locate_videos(folder.media_dir, annotation.clip_ids)
    if extraction is None:
        states |= inspect_all(inspect_video, paths, workers, "counting frames")
    else:
        frames_dir = folder.out_dir / FRAMES_FOLDER
        states |= extract_videos(paths, frames_dir, extraction, workers)
        folder = ListFolder(folder.out_dir, frames_dir, folder.flag)
    for clip_id, state in states.items():
        if not state.problem:
            state = with_remark(state, frames_remark(state.num_frames, usual_frames))
            states[clip_id] = with_remark(state, remark(clip_id, state))
    return write_lists(folder, annotation, states, of_frames=extraction is not None, hint=hint)


def locate_videos(root: Path, clip_ids: Iterable[str]) -> tuple[dict[str, ClipState], dict[str, str]]:
    """Find the file ``<id>.<a video ending>`` of every clip, in ``root`` or in folders of any depth below it.

    Returns:
        The states of the clips that have no file or several, and the paths of the others, both by id.
    """
    found: dict[str, list[str]] = {clip_id: [] for clip_id in clip_ids}
    visited = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        # A link that leads back, or millions of extracted images.
        if real in visited or SETTINGS_FILE in files:
            subfolders.clear()
            continue
        visited.add(real)
        for file in files:
            stem, ending = os.path.splitext(file)
            if ending.lower() in VIDEO_ENDINGS and stem in found:
                found[stem].append(os.path.join(folder, file))
    states, paths = {}, {}
    for clip_id, files in found.items():
        match sorted(files):
            case []:
                states[clip_id] = ClipState("", 0, f"there is no video {clip_id} ({' '.join(VIDEO_ENDINGS)})")
            case [path]:
                paths[clip_id] = path
            case several:
                states[clip_id] = ClipState("", 0, f"there are {len(several)} videos of it: {', '.join(several)}")
    return states, paths


def inspect_video(path: str) -> ClipState:
    """Count the frames of a video by a pass over its packets, which finds truncated files.

    Pictures are decoded only where packets do not tell their number; damage inside of pictures is what
    ``prepare_data.py check`` finds.
    """
    try:
        with open_whole(path) as reader:
            return ClipState(path, reader.num_frames)
    except DecodeError as error:
        return ClipState(path, 0, str(error))
