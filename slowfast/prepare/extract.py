"""Clips on disk: what folders of frames and videos hold, and videos to folders of JPEG frames."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from slowfast.datasets.decoder import DecodeError, FrameFolder, open_video
from slowfast.prepare.processes import Lost, map_isolated
from slowfast.utils.errors import UserError
from slowfast.utils.files import locked, read_text, replacing
from slowfast.utils.logging import progress_bar

SETTINGS_FILE = "extraction.json"
IMAGE_NAME = "{:05d}.jpg"
# In lower case. Copies that were downloaded again or re-encoded often have another ending than the release.
VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")


@dataclass(frozen=True)
class Clip:
    """Video or folder of frames, with why it cannot be used, or what is unusual about it."""

    path: str = ""
    num_frames: int = 0
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Extraction:
    """Settings of extracted frames: the short side they are scaled to (px; 0 keeps their size), the JPEG quality."""

    short_side: int = 0
    quality: int = 95

    def __post_init__(self) -> None:
        if self.short_side != 0 and not 16 <= self.short_side <= 4096:
            raise UserError(f"--short-side is {self.short_side}; allowed: 0 (as it is), 16 to 4096")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality is {self.quality}; allowed: 1 to 100")


def inspect_all(inspect: Callable[[Any], Clip], items: Mapping[str, Any], workers: int) -> dict[str, Clip]:
    """Return ``inspect(items[id])`` by id, from processes whose crash loses one clip only."""
    clips, clip_ids = {}, list(items)
    results = map_isolated(inspect, list(items.values()), workers)
    for index, clip in progress_bar(results, len(clip_ids), "reading clips", unit="clip"):
        clips[clip_ids[index]] = Clip(problem=clip) if isinstance(clip, Lost) else clip
    return clips


def inspect_folder(folder: str) -> Clip:
    """Count the frames 00001.jpg, 00002.jpg, ... of a folder.

    Only the last one is decoded, because an interrupted extraction or a full disk damages that one.
    """
    try:
        names = set(os.listdir(folder))
    except OSError as error:  # one clip must not end the inspection of all the others
        return Clip(problem=f"{folder}: {error.strerror}")
    num_frames = 0
    while IMAGE_NAME.format(num_frames + 1) in names:
        num_frames += 1
    others = sorted(names.difference(map(IMAGE_NAME.format, range(1, num_frames + 1))))
    stray_images = [name for name in others if re.fullmatch(r"[0-9]{5}\.jpg", name)]
    if stray_images or not num_frames:
        there_is = (stray_images or others or ["nothing"])[-1]
        return Clip(problem=f"{folder}: {IMAGE_NAME.format(num_frames + 1)} is missing, yet there is {there_is}")
    try:
        FrameFolder(folder, IMAGE_NAME, 1, num_frames).read([num_frames - 1])
    except DecodeError as error:
        return Clip(problem=str(error))
    remark = f"entries that are no frames: {len(others)}, such as {others[0]!r}" if others else ""
    return Clip(folder, num_frames, remark=remark)


def find_videos(root: Path, clip_ids: Iterable[str]) -> tuple[dict[str, Clip], dict[str, str]]:
    """Find the file ``<id>.<a video ending>`` of every clip at any depth below ``root``.

    Returns the clips that have no file or several, and the paths of the others, both by id.
    """
    found: dict[str, list[str]] = {clip_id: [] for clip_id in clip_ids}
    visited = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited or SETTINGS_FILE in names:  # a link that leads back, or millions of extracted images
            subfolders.clear()
            continue
        visited.add(real)
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in VIDEO_ENDINGS and stem in found:
                found[stem].append(os.path.join(folder, name))
    clips, paths = {}, {}
    for clip_id, files in found.items():
        if len(files) == 1:
            paths[clip_id] = files[0]
        else:
            endings = " ".join(VIDEO_ENDINGS)
            clips[clip_id] = Clip(problem=f"{len(files)} videos of it ({endings}): {', '.join(sorted(files)) or root}")
    return clips, paths


def inspect_video(path: str) -> Clip:
    """Count the frames of a video; damage inside of pictures is what ``prepare_data.py check`` finds."""
    try:
        with open_video(path) as reader:
            return Clip(path, reader.num_frames)
    except DecodeError as error:
        return Clip(problem=str(error))


def extract_all(paths: Mapping[str, str], out: Path, extraction: Extraction, workers: int) -> dict[str, Clip]:
    """Extract the videos ``paths`` (by id) to ``out/frames/<id>/00001.jpg``, ... and return these folders.

    A folder gets its name when all of its frames are written, so that an interrupted extraction goes on where it
    stopped. ``frames/extraction.json`` keeps the settings.
    """
    frames = out / "frames"
    frames.mkdir(exist_ok=True)
    with locked(frames):
        settings, path = json.dumps(asdict(extraction)), frames / SETTINGS_FILE
        if not any(frames.iterdir()):
            with replacing(path) as file:
                file.write(settings)
        found = read_text(path) if path.exists() else "unknown settings"
        if found != settings:
            raise UserError(
                f"{frames} holds frames that were extracted with {found}, not with {settings}; use the same settings, "
                "choose another --out, or delete the folder"
            )
        for leftover in frames.glob(".*.tmp"):
            shutil.rmtree(leftover)
        items = {clip_id: (path, frames / clip_id) for clip_id, path in paths.items()}
        return inspect_all(partial(extract_video, extraction=extraction), items, workers)


def extract_video(item: tuple[str, Path], extraction: Extraction) -> Clip:
    """Extract a video to a folder, unless it holds the frames already; one that cannot be decoded leaves nothing."""
    path, folder = item
    if folder.is_dir():
        clip = inspect_folder(str(folder))
        if not clip.problem:
            return clip
        shutil.rmtree(folder)
    # With the number of the process: one of a command that was killed may still be at work for a moment.
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        with open_video(path) as reader:
            for number, frame in enumerate(reader.iterate(), 1):
                _write_jpeg(temporary / IMAGE_NAME.format(number), _scaled(frame, extraction), extraction.quality)
    except DecodeError as error:
        shutil.rmtree(temporary)
        return Clip(problem=str(error))
    os.replace(temporary, folder)
    return Clip(str(folder), number)


def _scaled(frame: np.ndarray, extraction: Extraction) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = extraction.short_side / min(height, width)
    if scale in (0, 1):
        return frame
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=interpolation)


def _write_jpeg(path: Path, frame: np.ndarray, quality: int) -> None:
    _, content = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    content.tofile(path)  # raises where cv2.imwrite would only return False, as on a full disk
