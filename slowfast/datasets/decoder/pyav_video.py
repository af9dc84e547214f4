"""Video files through PyAV, frame-exact.

A pass over the packets, without decoding, gives the time of every frame and the key frames, and finds
truncated files. Frames are then matched by their times, never by a frame rate.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from slowfast.datasets.decoder.reader import DecodeError, FrameReader

# Where one packet is one frame with a reliable time, and seeking to a key frame is exact. In anything else
# (AVI has no presentation times, VP8 has packets that show nothing) frames are counted by decoding the file
# once.
_INDEXED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_INDEXED_CODECS = {"h264", "hevc", "vp9", "av1"}
_DECORD_CODECS = {"h264", "hevc", "vp9"}

# A Matroska file that ends this much, and two frames, before its announced duration has lost its tail.
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


class PyAvVideo(FrameReader):
    """A video file read by PyAV with one thread.

    Decoding starts at the key frame before the first needed frame and seeks on where that saves decoding.

    Args:
        path: the file.

    Attributes:
        suits_decord: decord numbers the frames of this file in the same way.

    Raises:
        DecodeError: not a video, no frames, or truncated.
    """

    def __init__(self, path: str) -> None:
        self.path = path
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
        self._container = av.open(self.path, metadata_errors="ignore")
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            raise DecodeError(self.path, "the file has no video stream")
        if self._stream.codec_context is None:
            raise DecodeError(self.path, "there is no decoder for its codec")
        # Parallelism comes from the loader's workers.
        self._stream.codec_context.thread_count = 1

    def _build_index(self) -> None:
        times: list[int | None] = []  # of the frames to show, in the stream's time base
        keys: list[tuple[int, int]] = []  # (time, where to seek) of the key frames
        num_packets = 0
        end_sec = 0.0  # of all streams: sound may outlast the picture
        in_order = True  # all packets are shown, and none before the key frame that it follows in the file
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
                # MP4 seeks by decoding time, which is never after the presentation time of the frame.
                keys.append((time, packet.dts if packet.dts is not None else time))
            if packet.is_discard:
                in_order = False  # cut by an edit list: decoded for the frames after it, but not shown
                continue
            if keys and time is not None and time < keys[-1][0]:
                in_order = False  # an open group of pictures
            times.append(packet.pts)
        self._check_complete(num_packets, end_sec)

        codec = self._stream.codec.canonical_name
        is_indexed = (
            self._container.format.name in _INDEXED_CONTAINERS
            and codec in _INDEXED_CODECS
            and None not in times
            and len(set(times)) == len(times)
            and bool(keys)
        )
        self._times = sorted(times) if is_indexed else None
        self._keys = sorted(keys)
        self.num_frames = len(times) if is_indexed else sum(1 for _ in self._decode_all())
        # decord counts packets that are not shown, and skips frames at the seams of open groups.
        self.suits_decord = is_indexed and in_order and codec in _DECORD_CODECS
        if not self.num_frames:
            raise DecodeError(self.path, "the video has no frames")

    def _check_complete(self, num_packets: int, end_sec: float) -> None:
        container_format = self._container.format.name
        if container_format.startswith("mov") and num_packets < self._stream.frames:
            raise DecodeError(self.path, f"truncated: holds {num_packets} of {self._stream.frames} frames")
        if container_format.startswith("matroska") and self._container.duration:
            duration_sec = self._container.duration / av.time_base
            two_frames_sec = 2 * end_sec / max(num_packets, 1)
            if end_sec < duration_sec - _MAX_MISSING_TAIL_SEC - two_frames_sec:
                raise DecodeError(self.path, f"truncated: ends at {end_sec:.2f} s of {duration_sec:.2f} s")

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        with _decode_errors(self.path):
            if self._times is None:
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

    def _groups(self, needed: list[int]) -> list[tuple[tuple[int, int], list[int]]]:
        """Split the frames where seeking saves decoding: pairs of a key frame and the frames to decode from it on."""
        groups: list[tuple[tuple[int, int], list[int]]] = []
        for index in needed:
            key = self._key_before(index)
            if groups and bisect_left(self._times, key[0]) - groups[-1][1][-1] <= _SEEK_GAP_FRAMES:
                groups[-1][1].append(index)
            else:
                groups.append((key, [index]))
        return groups

    def _key_before(self, index: int) -> tuple[int, int]:
        return self._keys[max(bisect_right(self._keys, self._times[index], key=lambda key: key[0]) - 1, 0)]

    def _decode_group(self, key: tuple[int, int] | None, group: list[int]) -> dict[int, np.ndarray]:
        """Decode the frames ``group`` (sorted) from a key frame on, or from the start of a reopened file."""
        index_of = {self._times[index]: index for index in group}
        start = self._times[0]
        if key is not None:
            start = key[0]
            self._container.seek(key[1], stream=self._stream)
        frames: dict[int, np.ndarray] = {}
        for frame in self._container.decode(self._stream):
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
        for frame in self._container.decode(self._stream):
            self._check_frame(frame)
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
        # Phones store upright videos lying down with a rotation beside them; decord turns them as well.
        pixels = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        return np.rot90(pixels, round(frame.rotation / 90) % 4)
