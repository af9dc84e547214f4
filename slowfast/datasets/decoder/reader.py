"""Base class of frame readers, and the error for what cannot be read. Letters: ``T`` frames, ``H W`` size (px)."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np


class DecodeError(RuntimeError):
    """Video or image that cannot be read: its ``path``, and the ``reason``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@contextmanager
def decode_errors(path: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of a library about a bad file into DecodeError."""
    try:
        yield
    except kinds as error:
        reason = str(getattr(error, "strerror", None) or error).split("\n")[0]
        reason = "truncated" if isinstance(error, EOFError) else f"{type(error).__name__}: {reason}"
        raise DecodeError(path, reason) from error


class FrameReader(AbstractContextManager):
    """Frames of one video; a context manager that frees the decoder."""

    path: str
    num_frames: int
    source = "video"  # the value of DATA.SOURCE for such data
    frames_per_sec: float | None = None  # on average, where it is known
    _shape: tuple[int, ...] | None = None

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames with the given 0-based numbers, in any order, as uint8 RGB (T, H, W, 3)."""
        return np.stack(self.read_each(indices))

    def read_each(self, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the same as T arrays (H, W, 3), of one size, where nobody needs a copy of them in one piece."""
        needed = sorted({int(index) for index in indices})
        if needed[0] < 0 or needed[-1] >= self.num_frames:
            raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, asked for {needed}")
        frames = self._decode(needed)
        for index, frame in frames.items():
            self._shape = self._shape or frame.shape
            if frame.shape != self._shape:
                size, others = (f"{width}x{height}" for height, width, _ in (frame.shape, self._shape))
                raise DecodeError(self.path, f"frame {index} is {size}, others are {others}")
        return [frames[int(index)] for index in indices]

    def iterate(self) -> Iterator[np.ndarray]:
        """Yield all frames in order, uint8 RGB (H, W, 3), each decoded once, in the memory of one."""
        return (self.read([index])[0] for index in range(self.num_frames))

    def seconds(self, index: int) -> float:
        """Return when a frame begins, seconds after the first; by ``frames_per_sec`` if that is all that is known."""
        return index / self.frames_per_sec

    @abstractmethod
    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        """Return frame number -> (H, W, 3) for the numbers ``needed``, sorted and without repetition."""

    def close(self) -> None:
        """Free what the reader holds."""

    def __exit__(self, *exc_info: object) -> None:
        self.close()
