"""Video files through decord (https://github.com/dmlc/decord), an optional dependency."""

from __future__ import annotations

import functools
import io
import os
from typing import Any

import numpy as np

from slowfast.datasets.decoder.pyav_video import PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

_CODECS = {"h264", "hevc", "vp9"}


def why_unavailable() -> str | None:
    """Return why decord cannot run here, or None."""
    try:
        import decord  # noqa: F401
    # The library that it loads may be missing a symbol or a file.
    except (ImportError, OSError, RuntimeError) as error:
        return f"{error}; run `pip install decord` (its wheels are for x86-64)"
    return None


def can_number(video: PyAvVideo) -> bool:
    """Say whether decord gives the frames of this file the numbers that PyAV gives them.

    It counts packets that are not shown, skips frames at the seams of open groups of pictures, and needs packet
    times. In frames with an odd height it would place the chroma samples elsewhere.
    """
    return video.is_indexed and video.is_in_order and video.has_even_height and video.codec in _CODECS


class DecordVideo(FrameReader):
    """A video file read by decord with one thread.

    Args:
        path: the file, for which ``can_number`` holds.
        num_frames: frames of the file by the index.
        content: the bytes of the file, if they are not to be read from ``path``.

    Raises:
        DecodeError: decord cannot open it, or counts other frames.
    """

    def __init__(self, path: str, num_frames: int, content: bytes | None = None) -> None:
        self.path = path
        self.num_frames = num_frames
        source = os.path.abspath(path) if content is None else io.BytesIO(content)
        try:
            self._video = _import_decord().VideoReader(source, num_threads=1)
        # decord has no common base class for its errors.
        except Exception as error:
            raise DecodeError(path, _decord_reason(error)) from error
        if len(self._video) != num_frames:
            raise DecodeError(path, f"decord counts {len(self._video)} frames, the file has {num_frames}")

    def close(self) -> None:
        self._video = None

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        try:
            frames = self._video.get_batch(needed).asnumpy()
        except Exception as error:
            raise DecodeError(self.path, _decord_reason(error)) from error
        return dict(zip(needed, frames, strict=True))


@functools.cache
def _import_decord() -> Any:
    import decord

    # It would print every damaged packet; the error that follows says enough.
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_reason(error: Exception) -> str:
    return f"decord: {next(iter(str(error).splitlines()), type(error).__name__)}"
