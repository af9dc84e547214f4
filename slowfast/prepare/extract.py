"""Clips on disk: what folders of frames and videos hold, and videos to folders of JPEG frames."""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from slowfast.datasets.decoder import DecodeError, FrameFolder, open_video
from slowfast.prepare.processes import map_isolated
from slowfast.utils.files import claimed, find_files
from slowfast.utils.logging import progress_bar

SETTINGS_FILE = "extraction.json"
IMAGE_NAME = "{:05d}.jpg"
# In lower case. Copies that were downloaded again or re-encoded often have another ending than the release.
VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")
VIDEO_ENDINGS += (".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".ogv")

Clip = tuple[str, int] | str  # path and number of frames, or why it cannot be used


def inspect_all(inspect: Callable[[Any], Clip], items: Mapping[str, Any], workers: int) -> dict[str, Clip]:
    """Return ``inspect(items[id])`` by id, from processes whose crash loses one clip only."""
    results = map_isolated(inspect, items.values(), workers)
    return dict(zip(items, progress_bar(results, len(items), "reading clips", unit="clip"), strict=True))


def inspect_folder(folder: str) -> Clip:
    """Count the frames 00001.jpg, 00002.jpg, ... of a folder.

    Only the last one is decoded, because an interrupted extraction or a full disk damages that one.
    """
    try:
        images = {name for name in os.listdir(folder) if re.fullmatch(r"[0-9]{5}\.jpg", name)}
    except OSError as error:  # one clip must not end the inspection of all the others
        return f"{folder}: {error.strerror}"
    missing = [name for name in map(IMAGE_NAME.format, range(1, len(images) + 1)) if name not in images]
    if missing or not images:
        there_is = f"there are {len(images)} images, the last one {max(images)}" if images else "there is no image"
        return f"{folder}: {(missing or [IMAGE_NAME.format(1)])[0]} is missing, {there_is}"
    try:
        FrameFolder(folder, IMAGE_NAME, 1, len(images)).read([len(images) - 1])
    except DecodeError as error:
        return str(error)
    return folder, len(images)


def find_videos(root: Path, clip_ids: Iterable[str]) -> dict[str, list[str]]:
    """Find the files ``<id>.<a video ending>`` of every clip at any depth below ``root``."""
    found: dict[str, list[str]] = {clip_id: [] for clip_id in clip_ids}
    for file in find_files(root, without=SETTINGS_FILE):  # which lies beside millions of extracted images
        if file.suffix.lower() in VIDEO_ENDINGS and file.stem in found:
            found[file.stem].append(str(file))
    return found


def inspect_video(path: str) -> Clip:
    """Count the frames of a video; damage inside of pictures is what ``prepare_data.py check`` finds."""
    try:
        with open_video(path) as reader:
            return path, reader.num_frames
    except DecodeError as error:
        return str(error)


def extract_all(
    paths: Mapping[str, str],
    out: Path,
    workers: int,
    short_side: int = 0,
    quality: int = 95,
    parts: Mapping[str, tuple[str, int, int]] | None = None,
) -> dict[str, Clip]:
    """Extract the videos ``paths`` (by id) to ``out/frames/<id>/00001.jpg``, ... and return these folders.

    Where clips are ``parts`` of videos (by id: any name of the video, first and last frame), a video is read once.
    A folder gets its name when all of its frames are written, so that an interrupted extraction goes on where it
    stopped; a video that was written after its frames is extracted again. ``frames/extraction.json`` keeps the
    settings: the short side of the frames (px; 0 keeps their size) and the JPEG quality.
    """
    frames, settings = out / "frames", {"short_side": short_side, "quality": quality}
    with claimed(frames / SETTINGS_FILE, settings):
        for leftover in frames.glob(".*.tmp"):
            shutil.rmtree(leftover)
        clips: dict[str, dict[str, tuple[Path, float, float]]] = {}  # by path and id
        for clip_id, path in paths.items():
            first, last = parts[clip_id][1:] if parts else (0, math.inf)
            clips.setdefault(path, {})[clip_id] = (frames / clip_id, first, last)
        items = {path: (path, [*of_video.values()]) for path, of_video in clips.items()}
        results = inspect_all(partial(extract_video, **settings), items, workers)
        found: dict[str, Clip] = {}
        for path, of_video in clips.items():
            result = results[path]  # of all, where the process died
            found |= dict.fromkeys(of_video, result) if isinstance(result, str) else dict(zip(of_video, result))
        return found


def extract_video(
    item: tuple[str, list[tuple[Path, float, float]]], short_side: int = 0, quality: int = 95
) -> list[Clip]:
    """Extract parts of a video, in one pass, to a folder each that does not hold their frames already.

    A part that cannot be decoded leaves nothing.

    Args:
        item: path, and of each part the folder, the first and the last frame, counted from 0; a video may end before.
        short_side: of the frames, px; 0 keeps their size.
        quality: of the JPEG files.
    """
    path, parts = item
    clips = [_extracted(folder, path) for folder, _, _ in parts]
    waiting = {number: part for number, part in enumerate(parts) if clips[number] == ""}
    if not waiting:
        return clips
    counts = dict.fromkeys(waiting, 0)
    # With the number of the process: one of a command that was killed may still be at work for a moment.
    made = {number: folder.with_name(f".{os.getpid()}.{number}.tmp") for number, (folder, _, _) in waiting.items()}

    def finish(number: int) -> None:
        folder, _, _ = waiting.pop(number)
        os.replace(made[number], folder)
        clips[number] = str(folder), counts[number]

    index, reason = -1, ""
    try:
        with open_video(path) as reader:
            for index, frame in enumerate(reader.iterate()):
                for number in [number for number, (_, first, _) in waiting.items() if first <= index]:
                    counts[number] += 1
                    made[number].mkdir(exist_ok=True)
                    _write_jpeg(made[number] / IMAGE_NAME.format(counts[number]), frame, short_side, quality)
                    if index == waiting[number][2]:
                        finish(number)
                if not waiting:
                    break
    except DecodeError as error:
        reason = str(error)
    for number, (_, first, _) in [*waiting.items()]:
        if reason or not counts[number]:
            clips[number] = reason or f"{path} has {index + 1} frames, the clip begins at frame {first}"
            shutil.rmtree(made[number], ignore_errors=True)
        else:
            finish(number)
    return clips


def _extracted(folder: Path, path: str) -> Clip:
    """Return the clip of a folder that holds the frames of a video, else "", and no folder."""
    if not folder.is_dir():
        return ""
    clip = inspect_folder(str(folder))
    is_newer = os.path.isfile(path) and os.path.getmtime(path) > folder.stat().st_mtime
    if isinstance(clip, str) or is_newer:
        shutil.rmtree(folder)
        return ""
    return clip


def _write_jpeg(path: Path, frame: np.ndarray, short_side: int, quality: int) -> None:
    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    if scale not in (0, 1):
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame = cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=interpolation)
    _, content = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    content.tofile(path)  # raises where cv2.imwrite would only return False, as on a full disk
