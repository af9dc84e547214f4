"""Base class of frame readers, and the error for what cannot be read. Letters: ``T`` frames, ``H W`` size (px)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np


class DecodeError(RuntimeError):
    """Video or image that cannot be read: its ``path``, and the ``reason``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class FrameReader(ABC):
    """Frames of one video; a context manager that frees the decoder.

    Attributes:
        path: file or folder.
        num_frames: number of frames.
        source: value of DATA.SOURCE for such data, ``video``, ``frames`` or ``image``.
    """

    path: str
    num_frames: int
    source = "video"

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames with the given 0-based numbers, in any order, as uint8 RGB (T, H, W, 3).

        Raises:
            DecodeError: a frame is missing or damaged, or frames differ in size.
        """
        needed = sorted({int(index) for index in indices})
        if needed[0] < 0 or needed[-1] >= self.num_frames:
            raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, asked for {needed}")
        frames = self._decode(needed)
        for index in needed:
            self._check_size(index, frames[index], frames[needed[0]])
        return np.stack([frames[int(index)] for index in indices])

    def iterate(self) -> Iterator[np.ndarray]:
        """Yield all frames in order, uint8 RGB (H, W, 3), each decoded once, in the memory of one."""
        first = self._decode([0])[0]
        yield first
        for index in range(1, self.num_frames):
            frame = self._decode([index])[index]
            self._check_size(index, frame, first)
            yield frame

    def files(self) -> list[str]:
        """Return the paths of the files with the frames, in order."""
        return [self.path]

    def _check_size(self, index: int, frame: np.ndarray, first: np.ndarray) -> None:
        if frame.shape != first.shape:
            size, first_size = (f"{width}x{height}" for height, width, _ in (frame.shape, first.shape))
            raise DecodeError(self.path, f"frame {index} is {size}, others are {first_size}")

    @abstractmethod
    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        """Return frame number -> (H, W, 3) for the numbers ``needed``, sorted and without repetition."""

    def close(self) -> None:  # noqa: B027 (a reader may hold nothing)
        """Free what the reader holds."""

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
