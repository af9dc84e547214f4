"""Videos to folders of JPEG frames, in parallel; an interrupted extraction goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.whole_video import iterate_chunks, open_whole
from slowfast.prepare.frame_folder import IMAGE_NAME, inspect_folder
from slowfast.prepare.lists import ClipState, inspect_all
from slowfast.utils.files import locked, replacing

SETTINGS_FILE = "extraction.json"

_MAX_FRAMES = 99_999  # of the five digits of an image's name


@dataclass(frozen=True)
class Extraction:
    """How frames are stored.

    Attributes:
        short_side: scale frames up or down so that the short side has this length (px); 0 keeps their size.
        quality: of the JPEG images, 1 to 100.

    Raises:
        ValueError: a value out of bounds.
    """

    short_side: int = 0
    quality: int = 95

    def __post_init__(self) -> None:
        if self.short_side != 0 and not 16 <= self.short_side <= 4096:
            raise ValueError(f"short_side (--short-side) is {self.short_side}; allowed: 0 (as it is), 16 to 4096")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality (--quality) is {self.quality}; allowed: 1 to 100")


def extract_videos(
    paths: Mapping[str, str], frames_dir: Path, extraction: Extraction, workers: int
) -> dict[str, ClipState]:
    """Extract the videos ``paths`` (by id) to ``frames_dir/<id>/00001.jpg``, ... and return the states of the folders.

    A folder gets its name when all of its frames are written, so that a folder that is there is complete and is not
    extracted again. ``extraction.json`` keeps the settings.

    Raises:
        ValueError: workers out of bounds, or the folder holds frames that were extracted with other settings.
    """
    frames_dir.mkdir(parents=True, exist_ok=True)
    # The workers share the lock: those of a command that was killed finish their video before the next one begins.
    with locked(frames_dir):
        _check_same_settings(frames_dir / SETTINGS_FILE, asdict(extraction))
        extract = partial(_extract_one, frames_dir=frames_dir, extraction=extraction)
        clips = {clip_id: (clip_id, path) for clip_id, path in paths.items()}
        return inspect_all(extract, clips, workers, "extracting frames")


def extract_video(path: str, folder: Path, extraction: Extraction) -> ClipState:
    """Extract one video, unless ``folder`` holds its frames already; nothing is left of one that cannot be decoded."""
    if folder.is_dir():
        state = inspect_folder(str(folder))
        if not state.problem:
            return state
        shutil.rmtree(folder)
    cv2.setNumThreads(0)  # the processes are the parallelism
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what an interrupted run may have left
    temporary.mkdir()
    try:
        with open_whole(path) as reader:
            if reader.num_frames > _MAX_FRAMES:
                raise DecodeError(path, f"{reader.num_frames} frames, at most {_MAX_FRAMES} can be named")
            number = 0
            for frames in iterate_chunks(reader):
                for frame in frames:
                    number += 1
                    _write_jpeg(temporary / IMAGE_NAME.format(number), _scaled(frame, extraction), extraction.quality)
        os.replace(temporary, folder)
    except DecodeError as error:
        shutil.rmtree(temporary)
        return ClipState("", 0, str(error))
    return ClipState(str(folder), number)


def _extract_one(clip: tuple[str, str], frames_dir: Path, extraction: Extraction) -> ClipState:
    clip_id, path = clip
    return extract_video(path, frames_dir / clip_id, extraction)


def _scaled(frame: np.ndarray, extraction: Extraction) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = extraction.short_side / min(height, width)
    if extraction.short_side == 0 or scale == 1:
        return frame
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=interpolation)


def _write_jpeg(path: Path, frame: np.ndarray, quality: int) -> None:
    _, content = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    content.tofile(path)  # raises where cv2.imwrite would only return False, as on a full disk


def _check_same_settings(path: Path, settings: dict[str, int]) -> None:
    if not path.exists():
        others = sorted(entry for entry in os.listdir(path.parent) if not entry.startswith("."))
        if others:
            raise ValueError(
                f"{path.parent} holds {len(others)} entries, such as {others[0]!r}, but no {path.name}: they are not "
                "from this command; choose another --out"
            )
        with replacing(path) as file:
            file.write(json.dumps(settings) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete {path.parent} to extract afresh") from error
    if found != settings:
        raise ValueError(
            f"{path.parent} has frames that were extracted with {found}, not with {settings}; use the same settings, "
            "choose another --out, or delete the folder"
        )
