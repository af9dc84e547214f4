"""Videos and images whose frames carry their number, as twelve large bright or dark blocks."""

import os
from collections.abc import Sequence
from fractions import Fraction

import av
import cv2
import numpy as np

ROWS, COLUMNS = 3, 4
NUM_BITS = ROWS * COLUMNS
HEIGHT, WIDTH = 96, 128
ON, OFF = (210, 120, 60), (30, 60, 90)  # RGB: the channels differ, so that swapped ones show

# Near-lossless, with B-frames or invisible frames where the codec has them.
# No AV1: libsvtav1 gives the process of root real-time priority, and with it all that the tests start after it.
CODEC_OPTIONS = {
    "libx264": {"crf": "10", "bf": "3", "preset": "fast"},
    "libx265": {"crf": "10", "preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx-vp9": {"crf": "10", "b:v": "0", "cpu-used": "8", "lag-in-frames": "10"},
    "libvpx": {"crf": "10", "b:v": "1M", "auto-alt-ref": "1", "lag-in-frames": "10"},
    "mpeg4": {"bf": "2", "q:v": "2"},
    "mjpeg": {"q:v": "2"},
    "ffv1": {},
}


def numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return uint8 RGB (height, width, 3) that shows ``number``."""
    bits = [(number >> bit) & 1 for bit in range(NUM_BITS)]
    blocks = np.array([ON if bit else OFF for bit in bits], np.uint8).reshape(ROWS, COLUMNS, 3)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


def read_number(frame: np.ndarray) -> int:
    """Return the number that a frame shows."""
    blocks = cv2.resize(frame, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA).reshape(NUM_BITS, 3)
    return int(((blocks[:, 0] > (ON[0] + OFF[0]) / 2) << np.arange(NUM_BITS)).sum())


def read_numbers(frames: np.ndarray) -> list[int]:
    """Return the numbers that frames (T, H, W, 3) show."""
    return [read_number(frame) for frame in frames]


def write_video(
    path: str | os.PathLike,
    num_frames: int,
    codec: str = "libx264",
    rate: int = 30,
    key_every: int = 12,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    colors: tuple[int, int] | None = None,
) -> str:
    """Encode frames 0 to num_frames - 1 and return the path.

    The ending of ``path`` decides the container. ``options`` are those of the encoder, over ``CODEC_OPTIONS``;
    ``times_ms`` replaces ``rate`` (frames per second); ``colors``: matrix and range to convert with and to write down,
    as FFmpeg numbers them (BT.709 is 1, BT.601 5; limited range 1, full 2).
    """
    matrix, color_range = colors or (None, None)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = key_every
        stream.options = CODEC_OPTIONS[codec] | (options or {})
        if colors:
            stream.codec_context.colorspace, stream.codec_context.color_range = colors
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=color_range)
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def write_folder(path: str | os.PathLike, num_frames: int, template: str = "{:05d}.jpg", first: int = 1) -> str:
    """Write frames 0 to num_frames - 1 as images and return the path."""
    os.makedirs(path)
    for number in range(num_frames):
        image = cv2.cvtColor(numbered_frame(number), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(os.path.join(path, template.format(number + first)), image)
    return str(path)
