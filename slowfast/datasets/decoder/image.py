"""Still image as a video of one frame."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from slowfast.datasets.decoder.reader import DecodeError, FrameReader


class ImageFile(FrameReader):
    """Image of any kind and colour space that Pillow reads, whatever its name, or the ``content`` of one.

    It is turned upright by its EXIF orientation, as frames in folders are; transparency is dropped. The file is only
    looked at when it is read.
    """

    num_frames = 1
    source = "image"

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        self._content = content

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        try:
            with Image.open(self.path if self._content is None else io.BytesIO(self._content)) as image:
                image.load()
                return {0: _to_rgb(_upright(image))}
        except FileNotFoundError as error:
            raise DecodeError(self.path, "no such file") from error
        # Besides OSError (not an image, truncated) Pillow's readers raise whatever damaged headers lead them to:
        # ValueError, SyntaxError, DecompressionBombError, ... One file must not end an epoch.
        except Exception as error:
            raise DecodeError(self.path, f"not a readable image: {error or type(error).__name__}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata is no reason to refuse the picture
        return image


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return uint8 (H, W, 3); where Pillow's conversion would clip, grey levels are scaled to bytes instead."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), whose range is not known")
    return np.array(image.convert("RGB"))
