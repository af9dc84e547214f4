"""Video files through torchcodec (https://github.com/meta-pytorch/torchcodec), an optional dependency."""

from __future__ import annotations

import os

import numpy as np

from slowfast.datasets.decoder.pyav_video import PyAvVideo
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

# Versions before this do not turn videos upright.
_MIN_VERSION = (0, 11)
_NEEDS_FFMPEG = (
    "torchcodec needs the shared libraries of FFmpeg, which its wheel does not hold: install them, for example with "
    "`apt install ffmpeg` or `conda install -c conda-forge ffmpeg`, and the torchcodec that fits the installed torch"
)


def why_unavailable() -> str | None:
    """Return why torchcodec cannot run here, or None."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except ModuleNotFoundError as error:
        return f"{error}; run `pip install torchcodec`"
    # It loads libraries on import, and says at length which ones it tried.
    except (ImportError, OSError, RuntimeError) as error:
        return f"{_first_line(error)} {_NEEDS_FFMPEG}"
    version = torchcodec.__version__.split("+")[0]
    if tuple(int(number) for number in version.split(".")[:2]) < _MIN_VERSION:
        minimum = ".".join(map(str, _MIN_VERSION))
        return f"torchcodec is {version}, {minimum} or later is needed: run `pip install -U torchcodec`"
    # Recent versions can be imported without FFmpeg and only fail when a video is opened.
    if torchcodec.ffmpeg_major_version is None:
        return _NEEDS_FFMPEG
    return None


def can_number(video: PyAvVideo) -> bool:
    """Say whether torchcodec gives the frames of this file the numbers that PyAV gives them.

    It needs packet times. In frames with an odd height it would place the chroma samples elsewhere.
    """
    return video.is_indexed and video.has_even_height


class TorchCodecVideo(FrameReader):
    """A video file read by torchcodec on the CPU with one thread.

    Args:
        path: the file, for which ``can_number`` holds.
        num_frames: frames of the file by the index.
        content: the bytes of the file, if they are not to be read from ``path``.

    Raises:
        DecodeError: torchcodec cannot open it, or counts other frames.
    """

    def __init__(self, path: str, num_frames: int, content: bytes | None = None) -> None:
        from torchcodec.decoders import VideoDecoder

        self.path = path
        self.num_frames = num_frames
        try:
            self._video = VideoDecoder(
                os.path.abspath(path) if content is None else content,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device="cpu",
                seek_mode="exact",  # frames are counted, not computed from the frame rate
            )
        # Its errors are RuntimeError, ValueError, IndexError, ...
        except Exception as error:
            raise DecodeError(path, f"torchcodec: {_first_line(error)}") from error
        if len(self._video) != num_frames:
            raise DecodeError(path, f"torchcodec counts {len(self._video)} frames, the file has {num_frames}")

    def close(self) -> None:
        self._video = None

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        try:
            frames = self._video.get_frames_at(needed).data.numpy()  # (T, H, W, 3)
        except Exception as error:
            raise DecodeError(self.path, f"torchcodec: {_first_line(error)}") from error
        return dict(zip(needed, frames, strict=True))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
