from __future__ import annotations

import pickle
import shutil
import struct
import sys

import av
import cv2
import numpy as np
import pytest
from numbered_video import numbered_frame, read_number, read_numbers, write_folder, write_video

from slowfast.datasets.decoder import DecodeError, FrameFolder, open_video, resolve_backend
from slowfast.datasets.decoder.pyav_video import PyAvVideo
from slowfast.datasets.sampling import dense_test, sparse_test

try:
    resolve_backend("decord")
    BACKENDS = ["pyav", "decord"]
except ModuleNotFoundError:
    BACKENDS = ["pyav"]

NUM_FRAMES = 70
KINDS = {
    "b_frames.mp4": {"codec": "libx264", "key_every": 12},
    "one_group.mp4": {"codec": "libx264", "key_every": 250},
    "open_groups.mp4": {"codec": "libx264", "key_every": 10, "options": {"x264-params": "open-gop=1"}},
    "every_frame_a_key.mp4": {"codec": "libx264", "key_every": 1},
    "b_frames.mkv": {"codec": "libx264"},
    "vp9.webm": {"codec": "libvpx-vp9", "rate": 12, "key_every": 25},
}
# Without packet times that can be trusted; decord numbers their frames wrongly or not at all.
COUNTED_KINDS = {
    "vp8.webm": {"codec": "libvpx", "rate": 12},
    "mpeg4.avi": {"codec": "mpeg4"},
    "h264.avi": {"codec": "libx264"},
    "h264.ts": {"codec": "libx264"},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, options in (KINDS | COUNTED_KINDS).items():
        write_video(folder / name, NUM_FRAMES, **options)
    front = {"movflags": "faststart"}
    write_video(folder / "front.mp4", NUM_FRAMES, key_every=12, container_options=front)
    return folder


def read(path, indices, backend="pyav"):
    with open_video(str(path), backend) as video:
        return video.read(indices)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*KINDS, *COUNTED_KINDS])
def test_frames_are_the_ones_asked_for(videos, name, backend):
    requests = [
        np.arange(NUM_FRAMES),
        sparse_test(NUM_FRAMES, 16, 0, 1),
        dense_test(NUM_FRAMES, 8, 4, 1, 3),
        dense_test(NUM_FRAMES, 16, 8, 0, 1),  # longer than the video: the last frame repeats
        [NUM_FRAMES - 1],
        [0, 0, NUM_FRAMES - 1],
        [11, 12, 13, 24, 25],
    ]
    with open_video(str(videos / name), backend) as video:
        assert video.num_frames == NUM_FRAMES
        for indices in requests:
            frames = video.read(indices)
            assert frames.dtype == np.uint8
            assert read_numbers(frames) == list(indices)


@pytest.mark.parametrize("name", KINDS)
def test_decord_and_pyav_give_the_same_pixels(videos, name):
    if "decord" not in BACKENDS:
        pytest.skip("decord is not installed")
    indices = np.arange(0, NUM_FRAMES, 5)
    by_pyav = read(videos / name, indices, "pyav").astype(int)
    by_decord = read(videos / name, indices, "decord").astype(int)
    # Equal with PyAV 18.1 and decord 0.6; other builds of the colour conversion may round differently.
    assert np.abs(by_pyav - by_decord).max() <= 2


def test_colours_are_rgb(videos):
    frame = read(videos / "one_group.mp4", [37])[0]
    assert np.abs(frame.astype(int) - numbered_frame(37)).mean() < 6


def test_only_the_needed_group_is_decoded(videos, monkeypatch):
    decoded = []
    check = PyAvVideo._check_frame
    monkeypatch.setattr(PyAvVideo, "_check_frame", lambda self, frame: (decoded.append(1), check(self, frame)))
    with open_video(str(videos / "b_frames.mp4"), "pyav") as video:
        assert read_number(video.read([50])[0]) == 50
    assert len(decoded) <= 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_before_the_cut_of_an_edit_list_are_not_counted(videos, tmp_path, backend):
    path = str(tmp_path / "cut.mp4")
    with av.open(str(videos / "b_frames.mp4")) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        shift = sorted(packet.pts for packet in packets)[30]  # frame 30 is not a key frame
        first_key = max(packet.dts for packet in packets if packet.is_keyframe and packet.pts <= shift)
        for packet in packets:
            if packet.dts < first_key:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            target.mux(packet)
    with open_video(path, backend) as video:
        assert video.num_frames == NUM_FRAMES - 30
        assert read_numbers(video.read([0, 1, 20, 39])) == [30, 31, 50, 69]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_videos_are_turned_upright(videos, tmp_path, backend, matrix, turns):
    data = bytearray((videos / "b_frames.mp4").read_bytes())
    at = data.index(b"tkhd") + 44  # the display matrix of the track header
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    frames = read(tmp_path / "turned.mp4", [5, 6], backend)
    assert read_numbers(np.rot90(frames, -turns, axes=(1, 2))) == [5, 6]


def bad_videos(videos, folder):
    """Write damaged files and return name -> word that the reason must contain."""
    mp4, front, webm = ((videos / name).read_bytes() for name in ("b_frames.mp4", "front.mp4", "vp9.webm"))
    noise = np.random.default_rng(0).integers(0, 256, len(front) // 2, dtype=np.uint8).tobytes()
    files = {
        "empty.mp4": (b"", "Invalid data"),
        "text.mp4": (b"not a video\n" * 100, "Invalid data"),
        "no_index.mp4": (mp4[: len(mp4) * 6 // 10], "Invalid data"),
        "cut.mp4": (front[: len(front) * 6 // 10], "truncated"),
        "cut.webm": (webm[: len(webm) * 6 // 10], "truncated"),
        "noise.mp4": (front[: len(front) // 2] + noise, ""),
        "zeros.mp4": (front[: len(front) // 2] + bytes(len(front) // 2), ""),
        "header.webm": (webm[: webm.index(b"\x1f\x43\xb6\x75")], ""),  # up to the first cluster
        "codec.mp4": (mp4.replace(b"avc1", b"zzzz"), "no decoder"),
        "one_byte.webm": (webm[:1], ""),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with av.open(str(folder / "no_frames.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    words = {name: word for name, (_, word) in files.items()}
    return words | {"sound.mp4": "no video stream", "no_frames.mp4": "", "absent.mp4": "No such file"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_videos_raise_decode_error(videos, tmp_path, backend):
    for name, word in bad_videos(videos, tmp_path).items():
        path = str(tmp_path / name)
        with pytest.raises(DecodeError) as error, open_video(path, backend) as video:
            video.read(np.arange(video.num_frames))
        assert error.value.path == path
        assert word in error.value.reason, name
        assert str(error.value).startswith(path)


def test_a_damaged_frame_is_not_painted_over(videos, tmp_path):
    data = bytearray((videos / "front.mp4").read_bytes())
    with av.open(str(videos / "front.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe]
        at = keys[2].pos + keys[2].size * 3 // 4
    data[at] ^= 0xFF
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with open_video(str(path), "pyav") as video:
        assert read_numbers(video.read([3, 60])) == [3, 60]  # other groups are intact
        with pytest.raises(DecodeError, match=r"damaged|Invalid data"):
            video.read([30])


def test_decode_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "bad")))
    assert (error.path, error.reason, str(error)) == ("a.mp4", "bad", "a.mp4: bad")


def test_decord_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    assert resolve_backend("auto") == "pyav"
    with pytest.raises(ModuleNotFoundError, match="pip install decord"):
        resolve_backend("decord")


@pytest.mark.parametrize(("template", "first"), [("{:05d}.jpg", 1), ("img_{:05d}.png", 0)])
def test_frame_folder(tmp_path, template, first):
    path = write_folder(tmp_path / "clip", 12, template, first)
    frames = FrameFolder(path, template, first, 12).read([0, 3, 3, 11])
    assert read_numbers(frames) == [0, 3, 3, 11]
    assert np.abs(frames[1].astype(int) - numbered_frame(3)).mean() < 6


def test_frame_folder_with_fewer_images_than_the_list_says(tmp_path):
    path = write_folder(tmp_path / "clip", 36)
    with pytest.raises(DecodeError, match=r"00037\.jpg is missing: the list says 42 frames .* has 36 files"):
        FrameFolder(path, "{:05d}.jpg", 1, 42).read([0, 36])
    with pytest.raises(DecodeError, match="no such folder"):
        FrameFolder(str(tmp_path / "absent"), "{:05d}.jpg", 1, 42).read([0])


def test_frame_folder_with_bad_images(tmp_path):
    path = write_folder(tmp_path / "clip", 8)

    def damage(number, data):
        copy = shutil.copytree(path, tmp_path / f"bad{number}{len(data)}")
        (copy / f"{number:05d}.jpg").write_bytes(data)
        with pytest.raises(DecodeError) as error:
            FrameFolder(str(copy), "{:05d}.jpg", 1, 8).read(range(8))
        assert f"{number:05d}.jpg" in error.value.reason or "frame" in error.value.reason
        return error.value.reason

    image = (tmp_path / "clip" / "00004.jpg").read_bytes()
    assert "truncated" in damage(4, image[: len(image) // 2])
    assert "not a readable image" in damage(4, b"")
    assert "not a readable image" in damage(4, b"text")
    small = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    assert "frame 3 is 64x48, frame 0 128x96" in damage(4, small)
