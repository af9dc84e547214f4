"""Frame readers: video files (PyAV, or decord by name), folders of images, still images; packs of them (``zip``)."""

from __future__ import annotations

import os

from slowfast.datasets.decoder.decord_reader import DecordVideo, import_decord
from slowfast.datasets.decoder.frames import FrameFolder
from slowfast.datasets.decoder.image import ImageFile
from slowfast.datasets.decoder.pyav import PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

__all__ = ["BACKENDS", "DecodeError", "FrameFolder", "FrameReader", "ImageFile", "open_video", "resolve_backend"]

BACKENDS = ("auto", "pyav", "decord")


def open_video(path: str, backend: str = "auto", content: bytes | None = None) -> FrameReader:
    """Open a video file, or the ``content`` of one; ``auto`` is PyAV, decord gives the same frames or refuses the file.

    Raises:
        DecodeError: not a video, no frames, or truncated.
    """
    # Pipes and devices would be waited for.
    if content is None and not os.path.isfile(path):
        raise DecodeError(path, "not a regular file" if os.path.exists(path) else "No such file")
    return (DecordVideo if resolve_backend(backend) == "decord" else PyAvVideo)(path, content)


def resolve_backend(backend: str) -> str:
    """Return ``pyav`` or ``decord``; UserError if that is not installed."""
    assert backend in BACKENDS
    if backend == "decord":
        import_decord()
    return "pyav" if backend == "auto" else backend
