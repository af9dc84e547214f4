"""Frames, videos and images whose bytes lie in a larger file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from slowfast.datasets.decoder.frame_folder import decode_image
from slowfast.datasets.decoder.reader import DecodeError, FrameReader


class Members(Protocol):
    """The files of one clip inside a larger file; ``name`` and ``read`` take their numbers from 0."""

    path: str
    num_members: int

    def name(self, number: int) -> str: ...

    def read(self, numbers: Sequence[int]) -> list[bytes]: ...


class PackedFrames(FrameReader):
    """A clip with one image per frame, of which only the needed ones are read.

    Args:
        members: its images.
    """

    def __init__(self, members: Members) -> None:
        self.path = members.path
        self.num_frames = members.num_members
        self._members = members

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        frames = {}
        for index, content in zip(needed, self._members.read(needed), strict=True):
            try:
                frames[index] = decode_image(np.frombuffer(content, np.uint8))
            except ValueError as error:
                raise DecodeError(self.path, f"{self._members.name(index)} is {error}") from error
        return frames


class PackedFile(FrameReader):
    """A video or an image, read whole: a video reader looks at all packets in any case.

    Args:
        members: its only file.
        open_reader: opens (path, content).

    Raises:
        DecodeError: it cannot be opened.
    """

    def __init__(self, members: Members, open_reader: Callable[[str, bytes], FrameReader]) -> None:
        self.path = members.path
        self._members = members
        (content,) = members.read([0])
        try:
            self._reader = open_reader(members.path, content)
        except DecodeError as error:
            raise self._located(error) from error
        self.num_frames = self._reader.num_frames

    def close(self) -> None:
        self._reader.close()

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        try:
            return self._reader._decode(needed)
        except DecodeError as error:
            raise self._located(error) from error

    def _located(self, error: DecodeError) -> DecodeError:
        return DecodeError(self.path, f"{self._members.name(0)}: {error.reason}")
