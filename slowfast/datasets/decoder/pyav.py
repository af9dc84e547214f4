"""Video files through PyAV: the frames that a player shows.

The frames of a file are those that FFmpeg decodes, in that order, whatever its headers say of their number, duration or
key frames, and the same whatever frames are asked for:

* frames outside of an edit list, pictures before the first decodable one and packets without a picture do not count;
* of several tracks FFmpeg's best one is read; a cover picture is no video;
* frames are turned and reflected as the display matrix of the first one says, that of the container or the stream;
* where the picture size changes, frames are scaled to the size of the first one (bicubic, as FFmpeg does);
* colours are RGB by the matrix and range that the file names (BT.601, limited range if it names none), 8 bits per
  channel whatever the depth of the file, without tone mapping; transparency is dropped;
* non-square pixels are not stretched, interlaced fields not separated;
* damaged frames are errors, and so are missing bytes at the end, where FFmpeg would see a shorter video, in files that
  tell their length (MP4, MOV, 3GP, Matroska, WebM, AVI); transport streams, live recordings and raw streams do not.
"""

import io
import itertools
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from slowfast.datasets.decoder.reader import DecodeError, FrameReader, decode_errors

IDENTITY = (1 << 16, 0, 0, 1 << 16)

# Where packets have reliable times and seeking to a key frame works. In anything else (AVI has no presentation
# times) frames are numbered by decoding from the beginning.
_MOV, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
_INDEXED_CODECS = ("h264", "hevc", "vp9", "av1")

_ERRORS = (av.FFmpegError, OSError, ValueError)  # of PyAV about a bad file
_NOT_VIDEOS = ("tty", "hls", "dash", "concat", "image2")  # FFmpeg draws text, and opens lists of other files

_SEEK_GAP_FRAMES = 8  # decoding this many frames that nobody needs is cheaper than seeking past them


class PyAvVideo(FrameReader):
    """Video file, or the ``content`` of one, read by PyAV with one thread.

    A pass over the packets, without decoding, gives the time of every frame; frames are then decoded from the key frame
    before them, or from the beginning where the container turns out not to tell. Reading goes on where it ended before.

    ``codec`` has FFmpeg's name; the pixel at (x, y) is shown at (a x + c y, b x + d y) for the ``matrix`` (a, b, c, d)
    of the ``first`` frame. ``is_plain``: every packet is a shown frame, none before the key frame that it follows.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path, self._content = path, content
        self.first: av.VideoFrame | None = None
        self.num_decoded = 0  # frames, needed or not
        self._container = None
        self._frames: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._next = 0  # number of the frame that _frames yields next
        try:
            with decode_errors(path, *_ERRORS):
                self._open()
                self.codec = self._stream.codec_context.codec.canonical_name
                self.frames_per_sec = float(self._stream.average_rate or self._stream.guessed_rate or 0) or None
                self._scan()
                self.num_frames = self._count()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def seconds(self, index: int) -> float:
        """Return when a frame begins, of any rate; the one after the last begins where that ends, about."""
        if not self._times:
            return super().seconds(index)
        last = min(index, self.num_frames - 1)
        since_first = (self._times[last] - self._times[0]) * self._stream.time_base
        return float(since_first) + (index - last) / self.frames_per_sec

    def _open(self) -> None:
        self.close()
        # One for all frames: setting up a conversion costs more than converting a small frame.
        self._reformatter = VideoReformatter()
        # An absolute path, or a name with a colon would be an address; and a text file may be a play list.
        source = os.path.abspath(self.path)
        if self._content is not None:
            source = io.BytesIO(self._content)
            source.name = self.path  # whose ending FFmpeg considers when it looks for the container format
        try:
            self._container = av.open(source, options={"protocol_whitelist": "file"}, metadata_errors="ignore")
        except av.InvalidDataError as error:
            reason = "not a video file, empty, damaged where it begins, or truncated (an MP4 file without its index)"
            raise DecodeError(self.path, reason) from error
        container_format = self._container.format.name
        if container_format in _NOT_VIDEOS or container_format.endswith("_pipe"):
            raise DecodeError(self.path, f"not a video file but {container_format}")
        streams = [one for one in self._container.streams.video if not one.disposition & Disposition.attached_pic]
        if not streams:
            raise DecodeError(self.path, "the file has no video stream, or what describes it is truncated")
        best = self._container.streams.best("video")
        self._stream = best if best in streams else streams[0]
        if self._stream.codec_context is None:
            raise DecodeError(self.path, "there is no decoder for its codec")
        self._stream.codec_context.thread_count = 1  # parallelism comes from the loader's workers

    def _scan(self) -> None:
        """Pass over the packets: sorted times of frames and of key frames, if packets tell them, and ``is_plain``."""
        times, shown, cut, key_places = [], [], [], []
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                raise DecodeError(self.path, f"truncated: packet {len(times) + 1} of the video is incomplete")
            if not packet.size:
                continue
            if packet.is_keyframe:
                key_places.append(len(times))
            times.append(packet.pts)
            if packet.is_discard:
                cut.append(packet.pts)  # by an edit list: decoded for the frames after it, but not shown
            elif self._shows_picture(packet):
                shown.append(packet.pts)
        self._check_end()
        self._times, self._keys, self.is_plain = [], [], False
        has_index = self._container.format.name in (_MOV, _MATROSKA) and self.codec in _INDEXED_CODECS
        if not has_index or None in times or not shown or key_places[:1] != [0] or len(set(shown)) < len(shown):
            return
        order = sorted(shown)
        # What is shown must be all from the first key frame on, or one piece of it.
        if times[0] <= order[0] and not any(order[0] <= time <= order[-1] for time in cut):
            self._times, self._keys = order, sorted(times[place] for place in key_places)
            self.is_plain = shown == times and all(order[place] == times[place] for place in key_places)

    def _check_end(self) -> None:
        with io.BytesIO(self._content) if self._content is not None else open(self.path, "rb") as file:
            head, size = file.read(256).ljust(256, b"\0"), file.seek(0, os.SEEK_END)
        announced, container_format = 0, self._container.format.name
        if container_format == _MOV:
            announced = max((entry.pos + entry.size for entry in self._stream.index_entries), default=0)
        elif container_format == "avi":
            announced = 8 + int.from_bytes(head[4:8], "little")
        elif container_format == _MATROSKA:
            at = head.find(b"\x18\x53\x80\x67", 0, 200) + 4  # the segment: leading zero bits tell the bytes of its size
            num_bytes = 9 - head[at].bit_length()
            unknown = (1 << 7 * num_bytes) - 1
            length = int.from_bytes(head[at : at + num_bytes], "big") & unknown
            announced = 0 if at < 4 or length == unknown else at + num_bytes + length
        if size < announced:
            raise DecodeError(self.path, f"truncated: holds {size} of {announced} bytes")

    def _count(self) -> int:
        """Return the number of times if the first two frames have the first two, else that of frames decoded."""
        if self._times:
            self._frames = self._frames_from(self._keys[0])
            with suppress(DecodeError, *_ERRORS):
                self._next = sum(number == i for i, (number, _) in enumerate(itertools.islice(self._frames, 2)))
                if self._next == min(len(self._times), 2):
                    return len(self._times)
        self._frames, self._times, self._keys, self.is_plain = None, [], [], False
        num_frames = sum(1 for _ in self._frames_from(None))
        if not num_frames:
            raise DecodeError(self.path, "the video has no frames")
        return num_frames

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        with decode_errors(self.path, *_ERRORS):
            if self._keys:
                with suppress(DecodeError, *_ERRORS):
                    return self._read(needed, self._keys)
            return self._read(needed, [])

    def _read(self, needed: list[int], keys: list[int]) -> dict[int, np.ndarray]:
        """Decode frames, starting at the last of the key frames ``keys`` before each unless going on costs less."""
        read = {}
        frames, self._frames = self._frames, None  # after an error nothing goes on
        for index in needed:
            key = keys[max(bisect_right(keys, self._times[index]) - 1, 0)] if keys else None
            num_skipped = bisect_left(self._times, key) - self._next if keys else 0
            if frames is None or self._next > index or num_skipped > _SEEK_GAP_FRAMES:
                frames = self._frames_from(key)
            number, frame = next((pair for pair in frames if pair[0] >= index), (None, None))
            if number != index:
                raise DecodeError(self.path, f"frame {index} of {self.num_frames} cannot be decoded")
            self._next = index + 1
            read[index] = self._to_rgb(frame)
        self._frames = frames
        return read

    def _frames_from(self, key: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield numbers and frames from the key frame at time ``key``, or from the start of the reopened file."""
        if key is None:
            self._open()
        else:
            self._container.seek(key, stream=self._stream)
        number, start, is_decodable = -1, None, False
        for packet in self._container.demux(self._stream):
            start = packet.pts if start is None else start
            is_decodable |= packet.is_keyframe
            try:
                frames = self._stream.decode(packet)  # the last one is empty: what waits in the decoder
            except av.InvalidDataError:
                if is_decodable and self._shows_picture(packet):
                    raise
                continue
            self.num_decoded += len(frames)
            for frame in frames:
                if not self._times:
                    number += 1
                elif number < 0 and (frame.pts is None or frame.pts < start):
                    continue  # of an open group of pictures: leans on frames before the key frame
                else:
                    # The first frame is that of the first packet, unless this is not shown.
                    expected = start if number < 0 else frame.pts
                    is_key = key is None or frame.key_frame or frame.pts != start
                    number = bisect_left(self._times, expected)
                    if self._times[number : number + 1] != [frame.pts] or not is_key:
                        raise DecodeError(self.path, f"unexpected frame at time {frame.pts}")
                # The decoder paints over the damage and goes on; later frames copy from this one.
                if frame.is_corrupt:
                    raise DecodeError(self.path, f"damaged frame at {frame.time or 0:.2f} s")
                if self.first is None:
                    data = frame.side_data.get("DISPLAYMATRIX")
                    matrix = np.frombuffer(data, np.int32)[[0, 1, 3, 4]].tolist() if data else IDENTITY
                    self.first, self.matrix = frame, tuple(matrix) if any(matrix) else IDENTITY
                yield number, frame

    def _shows_picture(self, packet: av.Packet) -> bool:
        """Say whether a packet holds a picture to show, and not only parameters, remarks or a hidden picture."""
        data, extradata = memoryview(packet), self._stream.codec_context.extradata or b""
        if not packet.size:
            return False
        if self.codec == "vp9":
            is_superframe = data[-1] & 0xE0 == 0xC0  # ends with a shown picture (bitstream specification, annex B)
            return is_superframe or bool(data[0] & (0x05 if data[0] & 0x30 == 0x30 else 0x0A))
        length_at = {"h264": 4, "hevc": 21}.get(self.codec, len(extradata))  # in avcC and hvcC
        if length_at >= len(extradata) or extradata[0] != 1:
            return True
        at = length_size = (extradata[length_at] & 3) + 1  # each unit follows its length
        while at < len(data):
            if 1 <= data[at] & 31 <= 5 if self.codec == "h264" else data[at] >> 1 & 63 < 32:
                return True
            at += length_size + int.from_bytes(data[at - length_size : at], "big")
        return False

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        is_scaled = (frame.height, frame.width) != (self.first.height, self.first.width)
        pixels = self._reformatter.reformat(
            frame,
            width=self.first.width,
            height=self.first.height,
            format="rgb24",
            interpolation=Interpolation.BICUBIC if is_scaled else None,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=int(frame.color_range),
            threads=1,
        ).to_ndarray()
        a, b, c, d = self.matrix
        if abs(a) + abs(d) < abs(b) + abs(c):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
