"""What a folder of JPEG frames 00001.jpg, 00002.jpg, ... holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slowfast.prepare.lists import ClipState, frames_remark

IMAGE_NAME = "{:05d}.jpg"

_IMAGE_PATTERN = re.compile(r"[0-9]{5}\.jpg")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def inspect_folder(folder: str, usual_frames: tuple[int, int] | None = None) -> ClipState:
    """Count the frames of a clip on disk.

    Only the last image is opened, because an interrupted extraction or a full disk damages that one: it must
    have the start and the end marker of a JPEG file. Nothing is decoded.

    Args:
        folder: the folder.
        usual_frames: the fewest and the most frames of a clip of the release; others are remarked on.
    """
    try:
        names = set(os.listdir(folder))
        num_frames = 0
        while IMAGE_NAME.format(num_frames + 1) in names:
            num_frames += 1
        others = sorted(names.difference(IMAGE_NAME.format(number) for number in range(1, num_frames + 1)))
        problem = _numbering_problem(num_frames, others)
        if not problem:
            last_image = IMAGE_NAME.format(num_frames)
            problem = _image_problem(last_image, Path(folder, last_image).read_bytes())
    except OSError as error:  # one clip must not end the inspection of all the others
        return ClipState(folder, 0, f"{error.filename or folder}: {error.strerror}")
    if problem:
        return ClipState(folder, num_frames, problem)
    remarks = [frames_remark(num_frames, usual_frames)]
    if others:
        remarks.append(f"entries that are no frames: {len(others)}, such as {others[0]!r}")
    return ClipState(folder, num_frames, remark="; ".join(filter(None, remarks)))


def _numbering_problem(num_frames: int, others: list[str]) -> str:
    """Say what is wrong with the file names, given the images in sequence from 00001.jpg and all other names."""
    if not num_frames and not others:
        return "the folder is empty"
    stray_images = [name for name in others if _IMAGE_PATTERN.fullmatch(name)]
    if IMAGE_NAME.format(0) in stray_images:
        return f"there is {IMAGE_NAME.format(0)}, frames are numbered from {IMAGE_NAME.format(1)}"
    if stray_images:
        return f"{IMAGE_NAME.format(num_frames + 1)} is missing, yet there is {stray_images[-1]}"
    if not num_frames:
        return f"there is no {IMAGE_NAME.format(1)}; entries that are no frames: {len(others)}, such as {others[0]!r}"
    return ""


def _image_problem(name: str, content: bytes) -> str:
    if not content:
        return f"the last frame {name} is empty (0 bytes)"
    if not content.startswith(_JPEG_START):
        return f"the last frame {name} is not a JPEG file"
    # Anywhere, since some programs append bytes; compressed data cannot contain the marker.
    if _JPEG_END not in content:
        return f"the last frame {name} is truncated"
    return ""
