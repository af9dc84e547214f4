"""Frames that were extracted to a folder of images."""

from __future__ import annotations

import os

import cv2
import numpy as np

from slowfast.datasets.decoder.reader import DecodeError, FrameReader


class FrameFolder(FrameReader):
    """Folder with one image per frame, turned upright by their EXIF orientation.

    Args:
        path: the folder.
        template: file name of a frame, such as ``{:05d}.jpg``.
        first_image: number in the name of the first frame.
        num_frames: by the list file; images are only looked at when they are read.
    """

    source = "frames"

    def __init__(self, path: str, template: str, first_image: int, num_frames: int) -> None:
        self.path = path
        self.num_frames = num_frames
        self._names = [template.format(number) for number in range(first_image, first_image + num_frames)]

    def files(self) -> list[str]:
        return [os.path.join(self.path, name) for name in self._names]

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        return {index: self._read_image(self._names[index]) for index in needed}

    def _read_image(self, name: str) -> np.ndarray:
        try:
            return decode_image(self._read_file(name))
        except FileNotFoundError as error:
            reason = "no such folder"
            if os.path.isdir(self.path):
                listed = f"the list says {self.num_frames} frames from {self._names[0]} on"
                reason = f"{name} is missing: {listed}, the folder has {len(os.listdir(self.path))} files"
            raise DecodeError(self.path, reason) from error
        except (OSError, ValueError) as error:
            raise DecodeError(self.path, f"{name} is {error}") from error

    def _read_file(self, name: str) -> bytes:
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()


def decode_image(content: bytes) -> np.ndarray:
    """Decode an image file to RGB uint8 (H, W, 3) by its EXIF orientation; ValueError with a word to follow "is"."""
    # libjpeg fills the rest of a truncated image with grey and OpenCV does not tell: look for the end marker. Any
    # bytes may follow it; thumbnails have one of their own, in the segments before the scan.
    if content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < _jpeg_scan(content):
        raise ValueError("truncated")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ValueError("not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _jpeg_scan(content: bytes) -> int:
    """Return the place of the first scan, or of what is no segment."""
    at = 2
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != b"\xff\xda":
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return at
