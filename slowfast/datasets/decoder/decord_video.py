"""Video files through decord (https://github.com/dmlc/decord), an optional dependency."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from slowfast.datasets.decoder.reader import DecodeError, FrameReader


class DecordVideo(FrameReader):
    """A video file read by decord with one thread.

    Args:
        path: the file, for which ``PyAvVideo.suits_decord`` holds.
        num_frames: frames of the file by the index.

    Raises:
        DecodeError: decord cannot open it, or counts other frames.
    """

    def __init__(self, path: str, num_frames: int) -> None:
        self.path = path
        self.num_frames = num_frames
        try:
            self._video = _import_decord().VideoReader(path, num_threads=1)
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
    return f"decord: {str(error).splitlines()[0]}"
