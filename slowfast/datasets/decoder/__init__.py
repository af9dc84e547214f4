"""Frame readers: video files (PyAV, or decord by name), folders of images, still images; packs of them (``zip``)."""

import os

from slowfast.datasets.decoder.decord_reader import DecordVideo, import_decord
from slowfast.datasets.decoder.images import FrameFolder, ImageFile
from slowfast.datasets.decoder.pyav import PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

__all__ = ["DecodeError", "FrameFolder", "FrameReader", "ImageFile", "import_decord", "open_video"]


def open_video(path: str, backend: str = "auto", content: bytes | None = None) -> FrameReader:
    """Open a video file, or the ``content`` of one, with ``auto`` | ``pyav`` (both PyAV) | ``decord``."""
    # Pipes and devices would be waited for.
    if content is None and not os.path.isfile(path):
        raise DecodeError(path, "not a regular file" if os.path.exists(path) else "No such file")
    return (DecordVideo if backend == "decord" else PyAvVideo)(path, content)
