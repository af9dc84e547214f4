"""Frames that were extracted to a folder of images."""

from __future__ import annotations

import os

import cv2
import numpy as np

from slowfast.datasets.decoder.reader import DecodeError, FrameReader


class FrameFolder(FrameReader):
    """A folder with one image per frame.

    Args:
        path: the folder.
        template: file name of a frame, such as ``{:05d}.jpg``.
        first_image: number in the name of the first frame.
        num_frames: number of frames by the list file; images are only looked at when they are read.
    """

    def __init__(self, path: str, template: str, first_image: int, num_frames: int) -> None:
        self.path = path
        self.num_frames = num_frames
        self._template = template
        self._first_image = first_image

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        return {index: self._read_image(index) for index in needed}

    def _read_image(self, index: int) -> np.ndarray:
        name = self._template.format(index + self._first_image)
        try:
            data = np.fromfile(os.path.join(self.path, name), np.uint8)
        except OSError as error:
            raise DecodeError(self.path, self._missing(name, error)) from error
        try:
            return decode_image(data)
        except ValueError as error:
            raise DecodeError(self.path, f"{name} is {error}") from error

    def _missing(self, name: str, error: OSError) -> str:
        if not os.path.isdir(self.path):
            return "no such folder"
        if not isinstance(error, FileNotFoundError):
            return f"{name} cannot be read: {error}"
        first = self._template.format(self._first_image)
        return (
            f"{name} is missing: the list says {self.num_frames} frames from {first} on, "
            f"the folder has {len(os.listdir(self.path))} files"
        )


def decode_image(data: np.ndarray) -> np.ndarray:
    """Decode the bytes of an image file, uint8 of shape (bytes,), to RGB uint8 (H, W, 3).

    Raises:
        ValueError: what the data is instead of an image, in words that follow "is".
    """
    # libjpeg fills the rest of a truncated image with grey and OpenCV does not tell: look for the end marker.
    if data[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in data[-1024:].tobytes():
        raise ValueError("truncated")
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ValueError("not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
