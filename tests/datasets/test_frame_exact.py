"""A file is what FFmpeg shows of it, whatever frames are asked for, in whatever order, from a path or from bytes."""

import os
from fractions import Fraction
from pathlib import Path

import altered_video as altered
import av
import numpy as np
import pytest
from altered_video import ffmpeg_frames, new_packet
from av.bitstream import BitStreamFilterContext
from numbered_video import ON, numbered_frame, read_numbers, write_video
from video_backends import BACKENDS, OTHERS

from slowfast.datasets.decoder import DecodeError, open_video
from slowfast.datasets.sampling import DenseSampler

NUM_FRAMES = 40
SIZE = (48, 64)
TIMES_MS = np.cumsum(np.random.default_rng(0).integers(10, 200, NUM_FRAMES)).tolist()  # the first frame is not at 0
OPEN_GROUPS = {"options": {"x264-params": "open-gop=1"}}
CLOSED_HEVC = {"x265-params": "log-level=none:pools=none:frame-threads=1:open-gop=0"}
NO_LAG = {"error-resilient": "default", "lag-in-frames": "0"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}

VIDEOS = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.mov": {},
    "h264.ts": {},
    "h264.avi": {},
    "raw.h264": {},
    "pyramid.mp4": {"options": {"bf": "8", "b-pyramid": "normal"}},
    "one_group.mp4": {"key_every": 250},
    "only_keys.mp4": {"key_every": 1},
    "short_groups.mkv": {"key_every": 3},
    "open_groups.mp4": OPEN_GROUPS,
    "open_groups.mkv": OPEN_GROUPS,
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1"}},
    "interlaced.mp4": {"options": {"x264-params": "interlaced=1"}},
    "fragments.mp4": {"container_options": FRAGMENTS},
    "variable.mp4": {"times_ms": TIMES_MS},
    "variable.mkv": {"times_ms": TIMES_MS},
    "hevc_open.mp4": {"codec": "libx265"},
    "hevc_open.mkv": {"codec": "libx265"},
    "hevc_closed.mp4": {"codec": "libx265", "options": CLOSED_HEVC},
    "ten_bits.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "vp9.webm": {"codec": "libvpx-vp9", "key_every": 25},
    "vp9_no_lag.webm": {"codec": "libvpx-vp9", "key_every": 6, "options": NO_LAG},
    "vp8.webm": {"codec": "libvpx"},
    "odd.webm": {"codec": "libvpx-vp9", "size": (49, 63)},
    "odd.mp4": {"size": (49, 63), "pix_fmt": "yuv444p"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_variable.avi": {"codec": "mpeg4", "times_ms": TIMES_MS, "options": {"bf": "0"}},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1"},
}
ALTERED = [
    *((name, altered.without_first_packets) for name in VIDEOS if name.endswith(("4.mp4", "open.mp4", "webm", "ts"))),
    *((name, altered.from_second_key) for name in ("h264.mp4", "open_groups.mp4", "hevc_open.mp4", "hevc_open.mkv")),
    *((name, altered.with_empty_packets) for name in ("h264.mp4", "h264.mkv", "hevc_closed.mp4", "hevc_open.mkv")),
    ("vp9_no_lag.webm", altered.with_hidden_pictures),
    *((name, altered.without_key_frames) for name in ("h264.mp4", "hevc_open.mp4", "hevc_closed.mp4", "mpeg4.mp4")),
    *((name, altered.with_wrong_key_frames) for name in ("h264.mp4", "open_groups.mp4", "hevc_closed.mp4")),
    *((name, altered.with_edits((0.4, 0.5))) for name in ("h264.mp4", "open_groups.mp4", "hevc_open.mp4", "mpeg4.mp4")),
    *((name, altered.with_edits((0, 0.5))) for name in ("h264.mp4", "pyramid.mp4", "hevc_open.mp4")),
    ("pyramid.mp4", altered.with_edits((0.233, 9))),
    ("h264.mp4", altered.with_edits((0.7, 0.3), (0, 0.4))),
    ("h264.mp4", altered.with_edits((0.2, 0.5), (0.2, 0.5))),
    ("h264.mp4", altered.with_edits((None, 0.5), (0.2, 0.3), (0.8, 0.3))),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, options in VIDEOS.items():
        write_video(folder / name, NUM_FRAMES, **({"size": SIZE} | options))
    return folder


def assert_exact(path, expected):
    """Compare every single frame in random order, random requests of new readers and the whole with a sequence."""
    rng = np.random.default_rng(1)
    with open_video(path) as video:
        assert video.num_frames == len(expected)
        assert np.array_equal(video.read(range(len(expected))), expected)
        for index in rng.permutation(len(expected)):
            assert np.array_equal(video.read([index])[0], expected[index])
        assert all(np.array_equal(*pair) for pair in zip(video.iterate(), expected, strict=True))
    for content in (None, Path(path).read_bytes()) * 3:
        indices = rng.integers(0, len(expected), 4)  # the first request decides where decoding starts
        with open_video(path, content=content) as video:
            assert np.array_equal(video.read(indices), expected[indices])


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_those_of_ffmpeg(videos, name):
    expected = ffmpeg_frames(str(videos / name))
    assert read_numbers(expected) == list(range(NUM_FRAMES))
    assert_exact(str(videos / name), expected)


@pytest.mark.parametrize(("name", "alter"), ALTERED)
def test_frames_of_altered_files_are_those_of_ffmpeg(videos, tmp_path, name, alter):
    path = alter(str(videos / name), tmp_path / name)
    expected = ffmpeg_frames(path)
    assert len(expected) > 5
    assert_exact(path, expected)


@pytest.mark.parametrize(("ending", "codec"), [("webm", "libvpx-vp9"), ("webm", "libvpx"), ("mkv", "libx264")])
def test_frames_of_other_sizes_are_scaled_to_the_first(tmp_path, ending, codec):
    options = {"x264-params": "repeat-headers=1", "bf": "0"} if codec == "libx264" else {"lag-in-frames": "0"}
    parts = [((48, 64), 0), ((96, 128), 20), ((60, 36), 40)]
    packets = []
    for size, first in parts:
        part = write_video(
            tmp_path / f"{first}.{'h264' if codec == 'libx264' else ending}", 20, codec, size=size, options=options
        )
        with av.open(part) as container:
            packets += [bytes(packet) for packet in container.demux(video=0) if packet.size]

    def edit(first):
        first[0].time_base = Fraction(1, 1000)
        made = [new_packet(data, first[0], number * 40, number * 40) for number, data in enumerate(packets)]
        for number, packet in enumerate(made):
            packet.is_keyframe = number % 20 == 0
        return made

    source = str(tmp_path / f"0.{'h264' if codec == 'libx264' else ending}")
    path = altered.remux(source, tmp_path / f"sizes.{ending}", edit)
    expected = ffmpeg_frames(path)
    assert expected.shape == (60, 48, 64, 3)
    assert read_numbers(expected) == [*range(20)] * 3
    assert_exact(path, expected)


MATRICES = {
    (1, 0, 0, 1): lambda frames: frames,
    (-1, 0, 0, 1): lambda frames: frames[:, :, ::-1],
    (1, 0, 0, -1): lambda frames: frames[:, ::-1],
    (-1, 0, 0, -1): lambda frames: frames[:, ::-1, ::-1],
    (0, 1, 1, 0): lambda frames: frames.swapaxes(1, 2),
    (0, -1, -1, 0): lambda frames: frames[:, ::-1, ::-1].swapaxes(1, 2),
    (0, 1, -1, 0): lambda frames: np.rot90(frames, -1, (1, 2)),
    (0, -1, 1, 0): lambda frames: np.rot90(frames, 1, (1, 2)),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_turned_and_reflected(videos, tmp_path, matrix):
    path = altered.with_matrix(str(videos / "h264.mp4"), tmp_path / "turned.mp4", matrix)
    assert_exact(path, MATRICES[matrix](ffmpeg_frames(str(videos / "h264.mp4"))))
    if abs(matrix[0]) + matrix[3] != 2:  # Matroska keeps rotations only
        return
    path = altered.remux(path, tmp_path / "turned.mkv", lambda packets: packets)
    assert_exact(path, MATRICES[matrix](ffmpeg_frames(str(videos / "h264.mp4"))))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_orientation_in_the_stream_holds_for_all_frames(videos, tmp_path, ending):
    source, path = str(videos / "h264.mp4"), str(tmp_path / f"turned.{ending}")
    with av.open(source) as reader, av.open(path, "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        turn = "h264_metadata=display_orientation=insert:rotate=90:flip=horizontal"  # said with the first frame only
        turning = BitStreamFilterContext(turn, reader.streams.video[0])
        for packet in reader.demux(video=0):
            for turned in turning.filter(packet) if packet.size else ():
                turned.stream = stream
                writer.mux(turned)
    assert_exact(path, ffmpeg_frames(source).swapaxes(1, 2))


def test_duration_and_bytes_after_the_end_do_not_matter(videos, tmp_path):
    data = bytearray((videos / "vp9.webm").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = np.array(9000.0, ">f8").tobytes()  # ms
    (tmp_path / "long.webm").write_bytes(data + b"what a broken download leaves behind")
    assert_exact(str(tmp_path / "long.webm"), ffmpeg_frames(str(videos / "vp9.webm")))


@pytest.mark.parametrize("width", [2, 6, 12, 16, 72])
def test_narrow_videos(tmp_path, width):
    path = write_video(tmp_path / "narrow.mp4", 20, size=(48, width))
    assert_exact(path, ffmpeg_frames(path))


def test_the_best_of_several_tracks_is_read(tmp_path):
    with av.open(str(tmp_path / "two.mp4"), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream, (height, width) in zip(streams, (SIZE, (96, 128)), strict=True):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(20):
            for stream in streams:
                picture = numbered_frame(number, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert_exact(str(tmp_path / "two.mp4"), ffmpeg_frames(str(tmp_path / "two.mp4")))


@pytest.mark.parametrize("backend", OTHERS)
def test_decord_gives_the_same_pixels_or_refuses(videos, tmp_path, backend):
    read = set()
    turned = altered.with_matrix(str(videos / "h264.mp4"), tmp_path / "turned.mp4", (-1, 0, 0, 1))
    cut = altered.with_edits((0.4, 0.5))(str(videos / "h264.mp4"), tmp_path / "cut.mp4")
    for path in (*map(str, videos.iterdir()), turned, cut):
        try:
            with open_video(path, backend) as video:
                frames = video.read(range(video.num_frames)).astype(int)
        except DecodeError as error:
            assert "decord cannot read it exactly" in error.reason
            continue
        read.add(os.path.basename(path))
        assert np.abs(frames - ffmpeg_frames(path)).max() <= 2  # builds of the conversion may round differently
    assert {"h264.mp4", "h264.mkv", "pyramid.mp4", "fragments.mp4", "hevc_closed.mp4"} <= read
    assert read.isdisjoint({"turned.mp4", "cut.mp4", "open_groups.mp4", "odd.mp4", "mpeg4.avi"})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("colors", [(1, 1), (1, 2), (5, 1), (5, 2), None])  # BT.709 | BT.601, limited | full range
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path, colors, backend):
    write_video(tmp_path / "colors.mp4", 12, options={"crf": "1"}, colors=colors)
    with open_video(str(tmp_path / "colors.mp4"), backend) as video:
        frames = video.read(range(12))
    true = np.stack([numbered_frame(number) for number in range(12)])
    assert color_error(frames, true) <= 3
    if colors == (1, 2):  # the wrong matrix would be seen
        with av.open(str(tmp_path / "colors.mp4")) as container:
            wrong = [f.reformat(format="rgb24", src_colorspace=5).to_ndarray() for f in container.decode(video=0)]
        assert color_error(np.stack(wrong), true) > 6


def color_error(frames, true):
    """Return the largest error of a channel of the two colours; at the borders of the blocks chroma is shared."""
    error = frames.astype(int) - true
    bright = true[..., 0] == ON[0]
    return max(np.abs(np.median(error[mask], axis=0)).max() for mask in (bright, ~bright) if mask.any())


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.webm", "long_open.mp4"])
def test_a_late_clip_is_not_decoded_from_the_start(tmp_path, name):
    options = {"codec": "libvpx-vp9"} if name.endswith("webm") else OPEN_GROUPS if "open" in name else {}
    path = write_video(tmp_path / name, 300, key_every=50, size=SIZE, **options)
    clip = DenseSampler(16, 4).test(300, 3, 4)  # frames 234 to 297
    with open_video(path) as video:
        assert video.num_decoded < 20  # those that tell the size
        before = video.num_decoded
        assert read_numbers(video.read(clip)) == clip.tolist()
        # From the key frame at or before 200 on; reordering may put one group before it.
        assert video.num_decoded - before <= clip[-1] + 1 - 150
        before = video.num_decoded
        assert read_numbers(video.read([20, 270])) == [20, 270]
        assert video.num_decoded - before <= 2 * 50 + 2 * 21  # not what lies between them


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are listed in /proc")
@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
def test_a_reader_starts_one_thread_at_most(videos, name):
    with open_video(str(videos / name)) as video:
        video.read([0])  # libraries may start their own once
    before = len(os.listdir("/proc/self/task"))
    with open_video(str(videos / name)) as video:
        video.read(np.arange(NUM_FRAMES))
        assert len(os.listdir("/proc/self/task")) - before <= 1
