"""Videos that are not what their headers say: FFmpeg's own sequence of their frames, and ways to alter a file."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np


def ffmpeg_frames(path: str) -> np.ndarray:
    """Decode a file once from its beginning, with nothing left out but what cannot be decoded: RGB (T, H, W, 3)."""
    frames: list[np.ndarray] = []
    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                continue
            for frame in decoded:
                size = frames[0].shape[:2] if frames else (frame.height, frame.width)
                scaling = {} if size == (frame.height, frame.width) else {"interpolation": "BICUBIC"}
                colors = {"dst_colorspace": 5, "src_color_range": int(frame.color_range)}
                frame = frame.reformat(format="rgb24", height=size[0], width=size[1], **colors, **scaling)
                frames.append(frame.to_ndarray())
    return np.stack(frames)


def remux(source: str, target: Path, edit: Callable[[list[av.Packet]], list[av.Packet]]) -> str:
    """Write the packets that ``edit`` makes of those of a video, without encoding."""
    with av.open(source) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in edit([packet for packet in reader.demux(video=0) if packet.size]):
            packet.stream = stream
            writer.mux(packet)
    return str(target)


def new_packet(data: bytes, like: av.Packet, pts: int | None = None, dts: int | None = None) -> av.Packet:
    """Return a packet with other data, and other times where they are given."""
    packet = av.Packet(data)
    packet.pts = like.pts if pts is None else pts
    packet.dts = like.dts if dts is None else dts
    packet.time_base, packet.is_keyframe = like.time_base, like.is_keyframe
    return packet


def without_first_packets(source: str, target: Path) -> str:
    """Begin between two key frames."""
    return remux(source, target, lambda packets: packets[5:])


def from_second_key(source: str, target: Path) -> str:
    """Begin with a key frame that is shown after frames which follow it in the file."""
    return remux(source, target, lambda p: p[[i for i, packet in enumerate(p) if packet.is_keyframe][1] :])


def with_empty_packets(source: str, target: Path) -> str:
    """Add packets of an H.264 or HEVC video that hold only a remark (SEI)."""
    remark = b"\0\0\0\x05\x06\x05\x01\xaa\x80"
    with av.open(source) as container:
        if container.streams.video[0].codec_context.name == "hevc":
            remark = b"\0\0\0\x06\x4e\x01\x05\x01\xaa\x80"

    def edit(packets: list[av.Packet]) -> list[av.Packet]:
        edited = []
        for number, packet in enumerate(packets):
            if number in (7, 20):
                middle = (packets[number - 1].dts + packet.dts) // 2
                edited.append(new_packet(remark, packet, middle + 3, middle))
            edited.append(packet)
        return edited

    return remux(source, target, edit)


def with_hidden_pictures(source: str, target: Path) -> str:
    """Hide pictures of a VP9 video (show_frame = 0)."""

    def hidden(packet: av.Packet) -> av.Packet:
        return new_packet(bytes([bytes(packet)[0] & ~2]) + bytes(packet)[1:], packet)

    return remux(source, target, lambda packets: [hidden(p) if i % 9 == 4 else p for i, p in enumerate(packets)])


def with_edits(*edits: tuple[float | None, float]) -> Callable[[str, Path], str]:
    """Return a function that gives an MP4 file this edit list: (start or None for a pause, duration) in seconds."""

    def alter(source: str, target: Path) -> str:
        with av.open(source) as container:
            unit = 1 / container.streams.video[0].time_base
        data = Path(source).read_bytes()
        at = data.index(b"elst")  # of an encoder: one edit, which skips the delay of the decoder
        (delay,) = struct.unpack(">i", data[at + 16 : at + 20])
        starts = [-1 if start is None else delay + round(start * unit) for start, _ in edits]
        entries = [(int(length * 1000), start) for start, (_, length) in zip(starts, edits)]
        body = b"".join(struct.pack(">IiI", duration, start, 1 << 16) for duration, start in entries)
        old = data[at - 4 : at - 4 + struct.unpack(">I", data[at - 4 : at])[0]]
        altered = bytearray(data.replace(old, struct.pack(">I4sII", len(body) + 16, b"elst", 0, len(entries)) + body))
        for name in (b"edts", b"trak", b"moov"):  # the boxes around it, at the end of the file
            place = altered.index(name) - 4
            (size,) = struct.unpack(">I", altered[place : place + 4])
            altered[place : place + 4] = struct.pack(">I", size + len(altered) - len(data))
        target.write_bytes(altered)
        return str(target)

    return alter


def with_wrong_key_frames(source: str, target: Path) -> str:
    """Shift the key frames in the table of an MP4 file by two frames."""
    data = bytearray(Path(source).read_bytes())
    at = data.index(b"stss") + 12
    for place in range(at + 4, at + 4 * struct.unpack(">I", data[at - 4 : at])[0], 4):
        data[place : place + 4] = struct.pack(">I", struct.unpack(">I", data[place : place + 4])[0] - 2)
    target.write_bytes(data)
    return str(target)


def without_key_frames(source: str, target: Path) -> str:
    """Leave out the table of key frames of an MP4 file, so that every frame is called one."""
    target.write_bytes(Path(source).read_bytes().replace(b"stss", b"free"))
    return str(target)


def with_matrix(source: str, target: Path, matrix: tuple[int, int, int, int]) -> str:
    """Set the display matrix of an MP4 file."""
    data = bytearray(Path(source).read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return str(target)
