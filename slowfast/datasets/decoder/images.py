"""Frames that were extracted to a folder of images, and still images as videos of one frame."""

import io
import os
from contextlib import suppress

import cv2
import numpy as np
from PIL import Image, ImageOps

from slowfast.datasets.decoder.reader import DecodeError, FrameReader, decode_errors


class FrameFolder(FrameReader):
    """Folder with one image per frame, turned upright by their EXIF orientation; only looked at when it is read.

    The names are ``template`` (such as ``{:05d}.jpg``) with the numbers from ``first_image`` on.
    """

    source = "frames"

    def __init__(self, path: str, template: str, first_image: int, num_frames: int) -> None:
        self.path, self.num_frames = path, num_frames
        self.names = [template.format(number) for number in range(first_image, first_image + num_frames)]

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        return {index: self._read_image(self.names[index]) for index in needed}

    def _read_image(self, name: str) -> np.ndarray:
        try:
            return _decode_image(self.read_file(name))
        except FileNotFoundError as error:
            reason = "no such folder"
            if os.path.isdir(self.path):
                listed = f"the list says {self.num_frames} frames from {self.names[0]} on"
                reason = f"{name} is missing: {listed}, the folder has {len(os.listdir(self.path))} files"
            raise DecodeError(self.path, reason) from error
        except (OSError, ValueError) as error:
            raise DecodeError(self.path, f"{name} is {error}") from error

    def read_file(self, name: str) -> bytes:
        """Return the bytes of the image ``name``."""
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()


def _decode_image(content: bytes) -> np.ndarray:
    """Return RGB uint8 (H, W, 3), or raise ValueError with a word to follow "is"."""
    # libjpeg fills the rest of a truncated image with grey and OpenCV does not tell: look for the end marker behind
    # the last scan. Bytes may follow it; thumbnails have scans and end markers of their own before.
    if content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda"):
        raise ValueError("truncated")
    # OpenCV takes little more than half of Pillow's time, for the same pixels.
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    if image is None:
        raise ValueError("not a readable image")
    return image


class ImageFile(FrameReader):
    """Image of any kind and colour space that Pillow reads, whatever its name, or the ``content`` of one.

    It is turned upright by its EXIF orientation; transparency is dropped. It is only looked at when it is read.
    """

    num_frames = 1
    source = "image"

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        self._content = content

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        # Besides OSError (not an image, truncated) Pillow's readers raise whatever damaged headers lead them to:
        # ValueError, SyntaxError, DecompressionBombError, ... One file must not end an epoch.
        source = self.path if self._content is None else io.BytesIO(self._content)
        with decode_errors(self.path, Exception), Image.open(source) as image:
            image.load()
            with suppress(Exception):  # damaged metadata is no reason to refuse the picture
                image = ImageOps.exif_transpose(image)
            return {0: _to_rgb(image)}


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return uint8 (H, W, 3); where Pillow's conversion would clip, grey levels are scaled to bytes instead."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), whose range is not known")
    return np.array(image.convert("RGB"))
