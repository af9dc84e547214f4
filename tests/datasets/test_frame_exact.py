"""Every backend returns the frames whose numbers were asked for, whatever the file is like."""

from __future__ import annotations

import os
import struct

import av
import numpy as np
import pytest
from numbered_video import ON, numbered_frame, read_numbers, write_video
from video_backends import BACKENDS, OTHERS

from slowfast.datasets.decoder import open_video
from slowfast.datasets.sampling import dense_test, dense_train, sparse_test

NUM_FRAMES = 60
READERS = {"pyav": "PyAvVideo", "decord": "DecordVideo", "torchcodec": "TorchCodecVideo"}
_GAPS_MS = np.random.default_rng(0).integers(10, 200, NUM_FRAMES)
VARIABLE_MS = np.cumsum(_GAPS_MS).tolist()  # the first frame is not at 0
VARIABLE_FROM_0_MS = (np.cumsum(_GAPS_MS) - _GAPS_MS[0]).tolist()
CLOSED_GROUPS = {"x265-params": "log-level=none:pools=none:frame-threads=1:open-gop=0"}

# name -> how it is written; the backends other than PyAV that read it themselves. PyAV stands in for the others.
VIDEOS = {
    "b_frames.mp4": ({}, {"decord", "torchcodec"}),
    "b_frames.mkv": ({}, {"decord", "torchcodec"}),
    "b_frames.mov": ({}, {"decord", "torchcodec"}),
    "many_b_frames.mp4": ({"options": {"bf": "8", "b-pyramid": "normal"}}, {"decord", "torchcodec"}),
    "one_group.mp4": ({"key_every": 250}, {"decord", "torchcodec"}),
    "every_frame_a_key.mp4": ({"key_every": 1}, {"decord", "torchcodec"}),
    "open_groups.mp4": ({"options": {"x264-params": "open-gop=1"}}, {"torchcodec"}),
    "fragments.mp4": ({"container_options": {"movflags": "frag_keyframe+empty_moov"}}, {"decord", "torchcodec"}),
    "variable.mp4": ({"times_ms": VARIABLE_FROM_0_MS}, {"decord", "torchcodec"}),
    "variable_later.mp4": ({"times_ms": VARIABLE_MS}, {"decord", "torchcodec"}),
    "variable_later.mkv": ({"times_ms": VARIABLE_MS}, {"decord", "torchcodec"}),
    "variable.webm": ({"codec": "libvpx-vp9", "times_ms": VARIABLE_FROM_0_MS}, {"decord", "torchcodec"}),
    "hevc_closed.mp4": ({"codec": "libx265", "options": CLOSED_GROUPS}, {"decord", "torchcodec"}),
    "hevc_open.mp4": ({"codec": "libx265"}, {"torchcodec"}),
    "hevc_open.mkv": ({"codec": "libx265"}, {"torchcodec"}),
    "vp9.webm": ({"codec": "libvpx-vp9", "rate": 12, "key_every": 25}, {"decord", "torchcodec"}),
    "odd_width.webm": ({"codec": "libvpx-vp9", "size": (96, 127)}, {"decord", "torchcodec"}),
    "odd_height.webm": ({"codec": "libvpx-vp9", "size": (97, 128)}, set()),
    "odd_both.mp4": ({"size": (97, 127), "pix_fmt": "yuv444p"}, set()),
    "vp8.webm": ({"codec": "libvpx", "rate": 12}, set()),
    "mpeg4.avi": ({"codec": "mpeg4"}, set()),
    "mpeg4.mp4": ({"codec": "mpeg4"}, set()),
    "h264.avi": ({}, set()),
    "h264.ts": ({}, set()),
    "raw.h264": ({}, set()),
    "ffv1.mkv": ({"codec": "ffv1"}, set()),
    "mjpeg.avi": ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, set()),
}
SHORT_VIDEOS = {
    "one.mp4": (1, "libx264", {"decord", "torchcodec"}),
    "one.webm": (1, "libvpx-vp9", {"torchcodec"}),  # decord finds no duration
    "one.avi": (1, "mpeg4", set()),
    "three.mp4": (3, "libx264", {"decord", "torchcodec"}),
    "three.webm": (3, "libvpx-vp9", {"decord", "torchcodec"}),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, (options, _) in VIDEOS.items():
        write_video(folder / name, NUM_FRAMES, **options)
    for name, (num_frames, codec, _) in SHORT_VIDEOS.items():
        write_video(folder / name, num_frames, codec)
    return folder


def expected_reader(backend, own):
    return READERS[backend if backend in own else "pyav"]


def random_requests(num_frames, count):
    rng = np.random.default_rng(1)
    return [np.sort(rng.integers(0, num_frames, rng.integers(1, 7))) for _ in range(count)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", VIDEOS)
def test_frames_show_their_numbers(videos, name, backend):
    clips = [
        np.arange(NUM_FRAMES),
        sparse_test(NUM_FRAMES, 16, 0, 1),
        dense_test(NUM_FRAMES, 8, 4, 1, 3),
        dense_test(NUM_FRAMES, 16, 8, 0, 1),  # longer than the video: the last frame repeats
        [NUM_FRAMES - 1],
        [0, 0, NUM_FRAMES - 1],
    ]
    with open_video(str(videos / name), backend) as video:
        assert type(video).__name__ == expected_reader(backend, VIDEOS[name][1])
        assert video.num_frames == NUM_FRAMES
        for indices in [*clips, *random_requests(NUM_FRAMES, 20)]:
            frames = video.read(indices)
            assert frames.dtype == np.uint8
            assert frames.shape == (len(indices), *VIDEOS[name][0].get("size", (96, 128)), 3)
            assert read_numbers(frames) == list(indices)
    for indices in random_requests(NUM_FRAMES, 8):  # the first request decides where decoding starts
        with open_video(str(videos / name), backend) as video:
            assert read_numbers(video.read(indices)) == list(indices)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SHORT_VIDEOS)
def test_videos_shorter_than_the_clip(videos, name, backend):
    num_frames, _, own = SHORT_VIDEOS[name]
    rng = np.random.default_rng(0)
    with open_video(str(videos / name), backend) as video:
        assert type(video).__name__ == expected_reader(backend, own)
        assert video.num_frames == num_frames
        for indices in (
            sparse_test(num_frames, 16, 0, 1),
            dense_test(num_frames, 16, 4, 3, 4),
            dense_train(num_frames, 16, 4, rng),
        ):
            assert read_numbers(video.read(indices)) == indices.tolist()


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("name", VIDEOS)
def test_backends_give_the_same_pixels(videos, name, backend):
    indices = np.arange(0, NUM_FRAMES, 5)
    by_pyav, by_other = (read(videos / name, indices, one).astype(int) for one in ("pyav", backend))
    # Equal with PyAV 18.1, decord 0.6 and torchcodec 0.17; other builds of the conversion may round differently.
    assert np.abs(by_pyav - by_other).max() <= 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("matrix", [1, 5, None])  # BT.709, BT.601
@pytest.mark.parametrize("color_range", [1, 2])  # limited, full
@pytest.mark.parametrize(("name", "codec"), [("colors.mp4", "libx264"), ("colors.webm", "libvpx-vp9")])
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path, name, codec, matrix, color_range, backend):
    colors = (matrix, color_range) if matrix else None
    write_video(tmp_path / name, 12, codec, options={"crf": "1"}, colors=colors)
    frames = read(tmp_path / name, range(12), backend).astype(int)
    true = np.stack([numbered_frame(number) for number in range(12)])
    assert color_error(frames, true) <= 3


def test_the_wrong_matrix_would_be_seen(tmp_path):
    write_video(tmp_path / "colors.mp4", 12, options={"crf": "1"}, colors=(1, 2))
    true = np.stack([numbered_frame(number) for number in range(12)])
    with av.open(str(tmp_path / "colors.mp4")) as container:
        assert (container.streams.video[0].codec_context.colorspace, container.streams.video[0].color_range) == (1, 2)
        frames = [frame.reformat(format="rgb24", src_colorspace=5).to_ndarray() for frame in container.decode(video=0)]
    assert color_error(np.stack(frames), true) > 6


def color_error(frames, true):
    """Return the largest error of a channel of the two colours; at the borders of the blocks chroma is shared."""
    error = frames.astype(int) - true
    bright = true[..., 0] == ON[0]
    return max(np.abs(np.median(error[mask], axis=0)).max() for mask in (bright, ~bright) if mask.any())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_videos_are_turned_upright(videos, tmp_path, backend, matrix, turns):
    data = bytearray((videos / "b_frames.mp4").read_bytes())
    at = data.index(b"tkhd") + 44  # the display matrix of the track header
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    frames = read(tmp_path / "turned.mp4", [5, 6], backend)
    assert frames.shape[1:3] == ((96, 128) if turns == 2 else (128, 96))
    assert read_numbers(np.rot90(frames, -turns, axes=(1, 2))) == [5, 6]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", [30, 24, 1])  # 24 is a key frame
def test_frames_before_the_cut_of_an_edit_list_are_not_counted(videos, tmp_path, backend, first):
    path = str(tmp_path / "cut.mp4")
    with av.open(str(videos / "b_frames.mp4")) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        shift = sorted(packet.pts for packet in packets)[first]
        first_key = max(packet.dts for packet in packets if packet.is_keyframe and packet.pts <= shift)
        for packet in packets:
            if packet.dts < first_key:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            target.mux(packet)
    with open_video(path, backend) as video:
        assert video.num_frames == NUM_FRAMES - first
        for indices in ([0, 1, 20, 29], [29], [0], *random_requests(NUM_FRAMES - first, 10)):
            assert read_numbers(video.read(indices)) == [index + first for index in indices]


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_that_are_never_shown_are_not_counted(tmp_path, backend):
    # Every third key frame is hidden as encoders hide alternate reference frames: it travels in one packet with the
    # frame after it, a superframe (VP9 bitstream specification, annex B).
    options = {"error-resilient": "default"}  # no frame leans on whether the one before it was shown
    shown = write_video(tmp_path / "shown.webm", NUM_FRAMES, codec="libvpx-vp9", key_every=6, options=options)
    path = str(tmp_path / "hidden.webm")
    numbers = []
    with av.open(shown) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.codec_context.framerate = 30
        hidden = b""
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            data = bytes(packet)
            if number % 18 == 6:
                assert packet.is_keyframe
                hidden = bytes([data[0] & ~2]) + data[1:]  # show_frame = 0
                continue
            if hidden:
                sizes = b"".join(len(frame).to_bytes(4, "little") for frame in (hidden, data))
                marker = bytes([0b11011001])  # two frames, sizes of four bytes
                data = hidden + data + marker + sizes + marker
            new = av.Packet(data)
            new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, stream
            new.is_keyframe = packet.is_keyframe or bool(hidden)
            target.mux(new)
            numbers.append(number)
            hidden = b""
    assert len(numbers) == NUM_FRAMES - 3
    with open_video(path, backend) as video:
        assert video.num_frames == len(numbers)
        for indices in (range(len(numbers)), *random_requests(len(numbers), 20)):
            assert read_numbers(video.read(indices)) == [numbers[index] for index in indices]


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.webm", "long_open.mp4"])
def test_a_late_clip_is_not_decoded_from_the_start(tmp_path, name):
    options = {"codec": "libvpx-vp9"} if name.endswith("webm") else {}
    if name == "long_open.mp4":
        options = {"options": {"x264-params": "open-gop=1"}}
    path = write_video(tmp_path / name, 300, key_every=50, **options)
    with av.open(path) as container:
        keys = [i for i, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
    assert len(keys) >= 6
    clip = dense_test(300, 16, 4, 3, 4)  # frames 234 to 297
    with open_video(path, "pyav") as video:
        assert video.num_decoded == 0  # the index takes no decoding
        assert read_numbers(video.read(clip)) == clip.tolist()
        # From the key frame at or before 200 on; reordering may put one group before it.
        assert video.num_decoded <= clip[-1] + 1 - 150
        before = video.num_decoded
        assert read_numbers(video.read([20, 270])) == [20, 270]
        assert video.num_decoded - before <= 2 * 50 + 2 * 21  # not what lies between them


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are listed in /proc")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["b_frames.mp4", "odd_width.webm", "mpeg4.avi"])
def test_a_reader_starts_one_thread_at_most(videos, name, backend):
    read(videos / name, [0], backend)  # libraries may start their own once
    before = len(os.listdir("/proc/self/task"))
    with open_video(str(videos / name), backend) as video:
        video.read(np.arange(NUM_FRAMES))
        assert len(os.listdir("/proc/self/task")) - before <= 1


def read(path, indices, backend):
    with open_video(str(path), backend) as video:
        return video.read(indices)
