"""Video files through PyAV, frame-exact.

A pass over the packets, without decoding, gives the time of every frame and the key frames, and finds
truncated files. Frames are then matched by their times, never by a frame rate.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from slowfast.datasets.decoder.container import announced_size, file_size, why_no_container
from slowfast.datasets.decoder.reader import DecodeError, FrameReader

# Where one packet is one frame with a reliable time, and seeking to a key frame is exact. In anything else
# (AVI has no presentation times, VP8 has packets that show nothing) frames are counted by decoding the file
# once.
_INDEXED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_INDEXED_CODECS = {"h264", "hevc", "vp9", "av1"}

# What FFmpeg also opens: text, which it draws, and lists of other files.
_NOT_VIDEOS = {"tty", "hls", "dash", "concat"}

# A Matroska file of unknown size that ends this much, and two frames, before its announced duration has lost its
# tail.
_MAX_MISSING_TAIL_SEC = 0.5

# Decoding on over this many frames that nobody needs is cheaper than seeking past them.
_SEEK_GAP_FRAMES = 8


@contextmanager
def _decode_errors(path: str) -> Iterator[None]:
    """Turn what PyAV raises for a bad file into DecodeError."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DecodeError(path, f"{type(error).__name__}: {reason}") from error


class _NamedBytes(io.BytesIO):
    """Bytes with a file name, whose ending FFmpeg considers when it looks for the container format."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


class PyAvVideo(FrameReader):
    """A video file read by PyAV with one thread.

    Decoding starts at the key frame before the first needed frame and seeks on where that saves decoding.

    Args:
        path: the file.
        content: the bytes of the file, if they are not to be read from ``path``.

    Attributes:
        codec: FFmpeg's name of it, such as ``h264``.
        is_indexed: every frame was found with its time, so that the file need not be decoded from its start.
        is_in_order: all packets are shown, and none before the key frame that it follows in the file.
        has_even_height: by the header of the file.
        num_decoded: frames decoded so far, needed or not.

    Raises:
        DecodeError: not a video, no frames, or truncated.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        self._content = content
        self.num_decoded = 0
        self._container = None
        try:
            with _decode_errors(path):
                self._open()
                self._build_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> None:
        self.close()
        # One for all frames: setting up a conversion costs more than converting a small frame.
        self._reformatter = VideoReformatter()
        # An absolute path, or a name with a colon would be an address; and a text file may be a play list.
        source = os.path.abspath(self.path) if self._content is None else _NamedBytes(self._content, self.path)
        files_only = {"protocol_whitelist": "file"}
        try:
            self._container = av.open(source, options=files_only, metadata_errors="ignore")
        except av.InvalidDataError as error:
            with self._raw() as file:
                raise DecodeError(self.path, why_no_container(file)) from error
        container_format = self._container.format.name
        if container_format in _NOT_VIDEOS:
            raise DecodeError(self.path, f"not a video file but {container_format}")
        if container_format == "image2" or container_format.endswith("_pipe"):
            raise DecodeError(self.path, f"a still image ({container_format}), not a video")
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            raise DecodeError(self.path, "the file has no video stream")
        if self._stream.codec_context is None:
            raise DecodeError(self.path, "there is no decoder for its codec")
        # Parallelism comes from the loader's workers.
        self._stream.codec_context.thread_count = 1

    def _raw(self) -> BinaryIO:
        return open(self.path, "rb") if self._content is None else io.BytesIO(self._content)

    def _build_index(self) -> None:
        times: list[int | None] = []  # of the frames to show, in the stream's time base
        keys: list[int] = []  # of the key frames
        num_packets = 0
        end_sec = 0.0  # of all streams: sound may outlast the picture
        self.is_in_order = True
        for packet in self._container.demux():
            if packet.size == 0:
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                end_sec = max(end_sec, float((time + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != self._stream.index:
                continue
            num_packets += 1
            if packet.is_corrupt:
                raise DecodeError(self.path, f"truncated: packet {num_packets} of the video is incomplete")
            if packet.is_keyframe and time is not None:
                keys.append(time)
            if packet.is_discard:
                self.is_in_order = False  # cut by an edit list: decoded for the frames after it, but not shown
                continue
            if keys and time is not None and time < keys[-1]:
                self.is_in_order = False  # an open group of pictures
            times.append(packet.pts)
        self._check_complete(num_packets, end_sec)

        self.codec = self._stream.codec.canonical_name
        self.has_even_height = self._stream.height % 2 == 0
        self.is_indexed = (
            self._container.format.name in _INDEXED_CONTAINERS
            and self.codec in _INDEXED_CODECS
            and None not in times
            and len(set(times)) == len(times)
            and bool(keys)
        )
        self._times = sorted(times) if self.is_indexed else []
        self._keys = sorted(keys)
        self.num_frames = len(times) if self.is_indexed else sum(1 for _ in self._decode_all())
        if not self.num_frames:
            raise DecodeError(self.path, "the video has no frames")

    def _check_complete(self, num_packets: int, end_sec: float) -> None:
        container_format = self._container.format.name
        if container_format.startswith("mov") and self._stream.frames:
            if num_packets < self._stream.frames:
                raise DecodeError(self.path, f"truncated: holds {num_packets} of {self._stream.frames} frames")
            return
        with self._raw() as file:
            size, announced = file_size(file), announced_size(file, container_format)
        if announced is not None and size < announced:
            raise DecodeError(self.path, f"truncated: holds {size} of {announced} bytes")
        if container_format.startswith("matroska") and self._container.duration:
            duration_sec = self._container.duration / av.time_base
            two_frames_sec = 2 * end_sec / max(num_packets, 1)
            if end_sec < duration_sec - _MAX_MISSING_TAIL_SEC - two_frames_sec:
                raise DecodeError(self.path, f"truncated: ends at {end_sec:.2f} s of {duration_sec:.2f} s")

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        with _decode_errors(self.path):
            if not self.is_indexed:
                frames = self._decode_counting(needed)
            else:
                frames = {}
                for key, group in self._groups(needed):
                    frames |= self._decode_group(key, group)
                missing = [index for index in needed if index not in frames]
                if missing:
                    # The key frame did not suffice (an open group, a coarse seek): decode from the beginning.
                    self._open()
                    frames |= self._decode_group(None, missing)
        missing = [index for index in needed if index not in frames]
        if missing:
            raise DecodeError(self.path, f"frames {missing} of {self.num_frames} cannot be decoded")
        return frames

    def _groups(self, needed: list[int]) -> list[tuple[int, list[int]]]:
        """Split the frames where seeking saves decoding: pairs of a key frame's time and the frames after it."""
        groups: list[tuple[int, list[int]]] = []
        for index in needed:
            key = self._key_before(index)
            if groups and bisect_left(self._times, key) - groups[-1][1][-1] <= _SEEK_GAP_FRAMES:
                groups[-1][1].append(index)
            else:
                groups.append((key, [index]))
        return groups

    def _key_before(self, index: int) -> int:
        return self._keys[max(bisect_right(self._keys, self._times[index]) - 1, 0)]

    def _decode_group(self, key: int | None, group: list[int]) -> dict[int, np.ndarray]:
        """Decode the frames ``group`` (sorted) from a key frame on, or from the start of a reopened file."""
        index_of = {self._times[index]: index for index in group}
        start = self._times[0]
        if key is not None:
            start = key
            self._container.seek(key, stream=self._stream)
        frames: dict[int, np.ndarray] = {}
        for frame in self._decode_on():
            if frame.pts is None or frame.pts < start:
                continue
            if frame.pts > self._times[group[-1]]:
                break
            self._check_frame(frame)
            if frame.pts in index_of:
                frames[index_of[frame.pts]] = self._to_rgb(frame)
                if len(frames) == len(group):
                    break
        return frames

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        self._open()
        for frame in self._decode_on():
            self._check_frame(frame)
            yield frame

    def _decode_on(self) -> Iterator[av.VideoFrame]:
        for frame in self._container.decode(self._stream):
            self.num_decoded += 1
            yield frame

    def _decode_counting(self, needed: list[int]) -> dict[int, np.ndarray]:
        wanted = set(needed)
        first_frames = itertools.islice(self._decode_all(), needed[-1] + 1)
        return {index: self._to_rgb(frame) for index, frame in enumerate(first_frames) if index in wanted}

    def _check_frame(self, frame: av.VideoFrame) -> None:
        # The decoder paints over the damage and goes on; later frames copy from this one.
        if frame.is_corrupt:
            at = f" at {frame.time:.2f} s" if frame.time is not None else ""
            raise DecodeError(self.path, f"damaged frame{at}")

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        # Versions of PyAV before 17 only look at the matrix and range of the frame when told of another matrix or range
        # for the result, which has neither.
        pixels = self._reformatter.reformat(
            frame,
            format="rgb24",
            dst_colorspace=Colorspace.ITU601,
            src_color_range=int(frame.color_range),
            **_one_thread(),
        ).to_ndarray()
        # Phones store upright videos lying down with a rotation beside them; decord turns them as well.
        return np.rot90(pixels, round(frame.rotation / 90) % 4)


@functools.cache
def _one_thread() -> dict[str, int]:
    """Return the argument that keeps the colour conversion from starting a thread for each core."""
    try:
        VideoReformatter().reformat(av.VideoFrame(16, 16, "yuv420p"), format="rgb24", threads=1)
    except TypeError:  # versions of PyAV that start none do not know it
        return {}
    return {"threads": 1}
