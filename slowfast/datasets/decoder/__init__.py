"""How frames are read: folders of images, and video files through PyAV or decord.

Every reader gives the same numbers to the same frames: frame i of a video is the i-th one that a player would
show. Colours are RGB, by the decoder's default conversion, and frames are turned as the file says.
"""

from __future__ import annotations

import importlib.util

from slowfast.datasets.decoder.decord_video import DecordVideo
from slowfast.datasets.decoder.frame_folder import FrameFolder
from slowfast.datasets.decoder.pyav_video import PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

__all__ = ["BACKENDS", "DecodeError", "FrameFolder", "FrameReader", "open_video", "resolve_backend"]

BACKENDS = ("auto", "decord", "pyav")


def open_video(path: str, backend: str) -> FrameReader:
    """Open a video file and count its frames.

    Args:
        path: the file.
        backend: ``pyav``; ``decord``, with PyAV for files whose frames decord cannot number, such as those
            with an edit list; or ``auto``, decord where it is installed, else PyAV.

    Raises:
        DecodeError: not a video, no frames, or truncated.
        ModuleNotFoundError: backend ``decord`` without the package.
    """
    video = PyAvVideo(path)
    if resolve_backend(backend) == "pyav" or not video.suits_decord:
        return video
    video.close()
    return DecordVideo(path, video.num_frames)


def resolve_backend(backend: str) -> str:
    """Return the backend that ``backend`` (one of ``BACKENDS``) stands for here, ``decord`` or ``pyav``.

    Raises:
        ModuleNotFoundError: backend ``decord`` without the package.
    """
    assert backend in BACKENDS
    has_decord = importlib.util.find_spec("decord") is not None
    if backend == "decord" and not has_decord:
        raise ModuleNotFoundError(
            "DATA.DECODING_BACKEND is decord, which is not installed: run `pip install decord` (its wheels "
            "are for x86-64), or set DATA.DECODING_BACKEND to auto or pyav"
        )
    return "decord" if has_decord and backend != "pyav" else "pyav"
