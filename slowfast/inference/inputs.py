"""Videos as users have them: files, folders, list files and arrays, as a source of ``datasets.build``."""

import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from slowfast.config.parser import CfgNode
from slowfast.datasets.decoder import DecodeError, FrameFolder, FrameReader, ImageFile, open_video
from slowfast.datasets.image_folder import IMAGE_ENDINGS
from slowfast.datasets.manifest import Record, read_manifest
from slowfast.datasets.video_list import VideoList
from slowfast.utils.errors import UserError
from slowfast.utils.files import find_files, full_path

LIST_ENDINGS = (".csv", ".txt")

Video = str | os.PathLike | np.ndarray


class _Frames(FrameReader):
    """Frames in memory."""

    def __init__(self, frames: np.ndarray) -> None:
        self.path, self.num_frames, self._frames = "frames", len(frames), frames

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        return {index: self._frames[index] for index in needed}


class Inputs:
    """Videos to predict: files, folders with the frames of a video, and arrays (T, H, W, 3) uint8 RGB."""

    class_names = None

    def __init__(self, videos: Iterable[Video | Record], cfg: CfgNode) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._data = cfg.DATA
        self.records = [self._record(video) for video in videos]
        if not self.records:
            raise UserError("there are no videos to predict")

    @cached_property
    def _list(self) -> VideoList:
        return VideoList((), None, self._data)

    def _record(self, video: Video | Record) -> Record:
        if isinstance(video, Record):
            return video
        if isinstance(video, np.ndarray):
            if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
                raise UserError(f"frames must be uint8 RGB (T, H, W, 3), found {video.dtype} {video.shape}")
            name = f"frames {len(self._arrays)}"
            self._arrays[name] = video
            return Record(name, 0, len(video), "", name)
        if not isinstance(video, (str, os.PathLike)):
            kind = type(video).__name__
            raise UserError(f"a video is a path, or frames as an array uint8 RGB (T, H, W, 3), found a {kind}")
        path = os.fspath(video)
        return Record(path, 0, None, "", path)

    def stems(self, folder: str | os.PathLike) -> list[Path]:
        """Return paths in ``folder``, without ending, for what is written about each video."""
        names: dict[Path, str] = {}
        for record in self.records:
            stem = Path(folder, Path(record.name).stem or "video")
            if stem in names:
                raise UserError(f"{names[stem]} and {record.name} would both be {stem}; choose an --out for each")
            names[stem] = record.name
        return [*names]

    def open(self, record: Record) -> FrameReader:
        """Open a video, whatever it is."""
        if record.path in self._arrays:
            return _Frames(self._arrays[record.path])
        if record.origin:  # of a list, to be read as the run's own lists
            return self._list.open(record)
        if os.path.isdir(record.path):
            return open_folder(record.path)
        return ImageFile(record.path) if is_image(record.path) else open_video(record.path)


def is_image(path: str) -> bool:
    """Return whether a name is that of a still image; an animated GIF is a video."""
    return path.lower().endswith(IMAGE_ENDINGS) and not path.lower().endswith(".gif")


def open_folder(path: str) -> FrameFolder:
    """Open the images of a folder, in the order of the numbers in their names, as the frames of a video."""
    names = [name for name in os.listdir(path) if is_image(name) and name[0] != "."]
    # Text and numbers take turns, so that 2.jpg comes before 10.jpg.
    names.sort(key=lambda name: [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))])
    if not names:
        raise DecodeError(path, "the folder has no images")
    reader = FrameFolder(path, "", 0, len(names))
    reader.names = names
    return reader


def expand(paths: Sequence[str], cfg: CfgNode) -> list[str | Record]:
    """Return the videos of files, folders and list files, in the order given.

    A folder with images is one video, any other one stands for the files below it. The lines of a list file are those
    of a list of the run, relative to its DATA.PATH_PREFIX or DATA.PATH_TO_DATA_DIR.
    """
    videos: list[str | Record] = []
    for path in paths:
        if path.lower().endswith(LIST_ENDINGS):
            prefix = full_path(cfg.DATA.PACKED or cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR)
            videos += read_manifest(path, prefix, cfg.DATA.SOURCE, 0, cfg.DATA.MULTI_LABEL)
        elif os.path.isdir(path) and not any(is_image(name) for name in os.listdir(path)):
            files = sorted(str(file) for file in find_files(path) if file.is_file())
            if not files:
                raise UserError(f"{path} has no videos")
            videos += files
        elif os.path.exists(path):
            videos.append(path)
        else:
            raise UserError(f"{os.path.abspath(path)} does not exist")
    return videos
