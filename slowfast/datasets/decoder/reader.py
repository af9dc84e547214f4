"""What all frame readers share: the reading of chosen frames, and the error for those that cannot be read.

Dimension letters: `T` frames, `H W` height and width (px).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np


class DecodeError(RuntimeError):
    """A video or image that cannot be read.

    Attributes:
        path: the file or folder.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class FrameReader(ABC):
    """The frames of one video; a context manager that frees the decoder.

    Attributes:
        path: file or folder.
        num_frames: number of frames.
    """

    path: str
    num_frames: int

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames with the given 0-based numbers, which may repeat.

        Returns:
            uint8 RGB of shape (T, H, W, 3).

        Raises:
            DecodeError: a frame is missing or damaged, or frames differ in size.
        """
        needed = sorted({int(index) for index in indices})
        if needed[0] < 0 or needed[-1] >= self.num_frames:
            raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, asked for {needed}")
        frames = self._decode(needed)
        first = frames[needed[0]].shape
        for index in needed:
            if frames[index].shape != first:
                sizes = f"frame {index} is {_size(frames[index].shape)}, frame {needed[0]} {_size(first)}"
                raise DecodeError(self.path, sizes)
        return np.stack([frames[int(index)] for index in indices])

    @abstractmethod
    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        """Return frame number -> (H, W, 3) for the numbers ``needed``, sorted and without repetition."""

    def close(self) -> None:  # noqa: B027 (a reader may hold nothing)
        """Free what the reader holds."""

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
