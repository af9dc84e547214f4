"""How frames are read: image files, folders of images, and video files through PyAV, decord or torchcodec.

Every reader gives the same numbers to the same frames: frame i of a video is the i-th one that a player would
show. Colours are RGB by the matrix and range that the file names (BT.601 and limited range if it names none), and
frames are turned as it says.
"""

from __future__ import annotations

import os

from slowfast.datasets.decoder import decord_video, torchcodec_video
from slowfast.datasets.decoder.frame_folder import FrameFolder
from slowfast.datasets.decoder.image_file import ImageFile
from slowfast.datasets.decoder.pyav_video import PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

__all__ = ["BACKENDS", "DecodeError", "FrameFolder", "FrameReader", "ImageFile", "open_video", "resolve_backend"]

BACKENDS = ("auto", "decord", "pyav", "torchcodec")

# The optional ones. Each knows why it cannot run here and which files it numbers as PyAV does.
_OTHERS = {
    "decord": (decord_video.why_unavailable, decord_video.can_number, decord_video.DecordVideo),
    "torchcodec": (torchcodec_video.why_unavailable, torchcodec_video.can_number, torchcodec_video.TorchCodecVideo),
}


def open_video(path: str, backend: str, content: bytes | None = None) -> FrameReader:
    """Open a video file and count its frames.

    PyAV goes over the packets of every file first, which finds truncated ones. It also reads the frames where the
    backend cannot number them or does not open the file, so that the frames never depend on the backend. Damage
    inside frames is only reported by PyAV: decord and torchcodec return what their decoder painted over it.

    Args:
        path: the file.
        backend: one of ``BACKENDS``; ``auto`` is decord where it can be imported, else PyAV.
        content: the bytes of the file, if they are not to be read from ``path``.

    Raises:
        DecodeError: not a video, no frames, or truncated.
        ModuleNotFoundError: the backend cannot run here.
    """
    name = resolve_backend(backend)
    # Pipes and devices would be waited for.
    if content is None and not os.path.isfile(path):
        raise DecodeError(path, "not a regular file" if os.path.exists(path) else "No such file")
    video = PyAvVideo(path, content)
    if name == "pyav":
        return video
    _, can_number, reader = _OTHERS[name]
    if not can_number(video):
        return video
    try:
        other = reader(path, video.num_frames, content)
    except DecodeError:
        return video
    video.close()
    return other


def resolve_backend(backend: str) -> str:
    """Return the backend that ``backend`` (one of ``BACKENDS``) stands for here.

    Raises:
        ModuleNotFoundError: it cannot run here; the message says what to install.
    """
    assert backend in BACKENDS
    if backend == "auto":
        return "pyav" if decord_video.why_unavailable() else "decord"
    if backend in _OTHERS:
        why_unavailable, _, _ = _OTHERS[backend]
        reason = why_unavailable()
        if reason:
            raise ModuleNotFoundError(
                f"DATA.DECODING_BACKEND is {backend}, which cannot run here: {reason}; or set DATA.DECODING_BACKEND "
                "to auto or pyav"
            )
    return backend
