"""Video files through decord (https://github.com/dmlc/decord), an optional dependency that is used by name only."""

import io
import os
from types import ModuleType

import numpy as np

from slowfast.datasets.decoder.pyav import IDENTITY, PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader, decode_errors
from slowfast.utils.errors import UserError


def import_decord() -> ModuleType:
    """Import decord, or raise UserError."""
    try:
        import decord
    except (ImportError, OSError, RuntimeError) as error:  # also where the library that it loads lacks a symbol
        advice = "`pip install decord` (its wheels are for x86-64), or set DATA.DECODING_BACKEND to auto"
        raise UserError(f"DATA.DECODING_BACKEND is decord, which cannot run here: {error}; {advice}") from error
    decord.logging.set_level(decord.logging.QUIET)  # it would print every damaged packet
    return decord


class DecordVideo(FrameReader):
    """Video file read by decord with one thread, after PyAV has told that the frames will be the same.

    decord numbers packets, not frames, skips frames at the seams of open groups of pictures, and neither reflects nor
    rescales. It places the chroma samples of interlaced frames and of frames with an odd height elsewhere.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        decord = import_decord()
        with PyAvVideo(path, content) as video:
            self.num_frames = video.num_frames
            is_usual = video.is_plain and video.codec in ("h264", "hevc") and video.matrix == IDENTITY
        if not is_usual or video.first.interlaced_frame or video.first.height % 2:
            raise DecodeError(path, "decord cannot read it exactly: set DATA.DECODING_BACKEND to auto")
        source = os.path.abspath(path) if content is None else io.BytesIO(content)
        with decode_errors(path, Exception):  # decord has no common base class for its errors
            self._video = decord.VideoReader(source, num_threads=1)
            assert len(self._video) == self.num_frames, f"counts {len(self._video)} of {self.num_frames} frames"

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        with decode_errors(self.path, Exception):
            return dict(zip(needed, self._video.get_batch(needed).asnumpy(), strict=True))
