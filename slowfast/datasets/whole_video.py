"""All frames of a video in bounded memory.

Dimension letters: `T` frames, `H W` height and width (px).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from slowfast.datasets.decoder import DecodeError, FrameReader, open_video

# A reader that is asked for a part of a video may have to decode from the key frame before it: few large parts.
_CHUNK_BYTES = 64 * 2**20


def open_whole(path: str) -> FrameReader:
    """Open a video file with the reader that notices damage: it neither paints over it nor skips it.

    Raises:
        DecodeError: not a video, no frames, or truncated.
    """
    try:
        if not os.path.getsize(path):
            raise DecodeError(path, "the file is empty (0 bytes)")
    except OSError as error:
        raise DecodeError(path, f"cannot be read: {error.strerror}") from error
    return open_video(path, "pyav")


def iterate_chunks(reader: FrameReader) -> Iterator[np.ndarray]:
    """Yield all frames of a video in order, uint8 RGB in pieces of shape (T, H, W, 3).

    Raises:
        DecodeError: a frame cannot be decoded or differs in size from the first.
    """
    shape = reader.read([0]).shape[1:]
    step = max(_CHUNK_BYTES // int(np.prod(shape)), 1)
    for start in range(0, reader.num_frames, step):
        frames = reader.read(np.arange(start, min(start + step, reader.num_frames)))
        if frames.shape[1:] != shape:
            sizes = f"frame {start} is {frames.shape[2]}x{frames.shape[1]}, frame 0 {shape[1]}x{shape[0]}"
            raise DecodeError(reader.path, sizes)
        yield frames
