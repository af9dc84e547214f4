"""A still image as a video of one frame."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from slowfast.datasets.decoder.reader import DecodeError, FrameReader

# What Pillow makes of 16-bit grey images.
_GREY16_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


class ImageFile(FrameReader):
    """An image of any kind and colour space that Pillow reads, whatever the ending of its name.

    Transparency is dropped and orientation tags are not followed, as where ImageNet models are evaluated.

    Args:
        path: the file; it is only looked at when it is read.
        content: the bytes of the file, if they are not to be read from ``path``.
    """

    num_frames = 1

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        self._content = content

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        try:
            source = self.path if self._content is None else io.BytesIO(self._content)
            with Image.open(source) as image:
                return {0: _to_rgb(image)}
        except FileNotFoundError as error:
            raise DecodeError(self.path, "no such file") from error
        # Besides OSError (not an image, truncated) Pillow's readers raise whatever damaged headers lead them to:
        # ValueError, SyntaxError, DecompressionBombError, ... One file must not end an epoch.
        except Exception as error:
            raise DecodeError(self.path, f"not a readable image: {error or type(error).__name__}") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return uint8 (H, W, 3); where Pillow's conversion would clip, grey levels are scaled to bytes instead."""
    if image.mode in _GREY16_MODES:
        grey = np.asarray(image).astype(np.uint16) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), whose range is not known")
    return np.array(image.convert("RGB"))
