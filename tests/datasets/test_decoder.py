from __future__ import annotations

import pickle
import shutil
import sys
import types

import av
import cv2
import numpy as np
import pytest
from numbered_video import numbered_frame, read_numbers, write_folder, write_video
from video_backends import BACKENDS, OTHERS

from slowfast.datasets import decoder
from slowfast.datasets.decoder import DecodeError, FrameFolder, open_video, resolve_backend
from slowfast.datasets.decoder.pyav_video import PyAvVideo

NUM_FRAMES = 70


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "b_frames.mp4", NUM_FRAMES)
    write_video(folder / "vp9.webm", NUM_FRAMES, codec="libvpx-vp9", rate=12, key_every=25)
    write_video(folder / "mpeg4.avi", NUM_FRAMES, codec="mpeg4")
    front = {"movflags": "faststart"}
    write_video(folder / "front.mp4", NUM_FRAMES, key_every=12, container_options=front)
    return folder


def read(path, indices, backend="pyav"):
    with open_video(str(path), backend) as video:
        return video.read(indices)


def test_colours_are_rgb(videos):
    frame = read(videos / "b_frames.mp4", [37])[0]
    assert np.abs(frame.astype(int) - numbered_frame(37)).mean() < 6


def bad_videos(videos, folder):
    """Write damaged files and return name -> word that the reason must contain."""
    mp4, front, webm = ((videos / name).read_bytes() for name in ("b_frames.mp4", "front.mp4", "vp9.webm"))
    noise = np.random.default_rng(0).integers(0, 256, len(front) // 2, dtype=np.uint8).tobytes()
    files = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"not a video\n" * 100, "not a video file"),
        "no_index.mp4": (mp4[: len(mp4) * 6 // 10], "truncated: the index of the MP4 file"),
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


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_a_backend_that_is_not_installed(monkeypatch, videos, backend):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ModuleNotFoundError, match=f"DATA.DECODING_BACKEND is {backend}, .*`pip install {backend}`"):
        resolve_backend(backend)
    with pytest.raises(ModuleNotFoundError, match=backend):
        open_video(str(videos / "b_frames.mp4"), backend)


def test_auto_does_without_decord(monkeypatch, videos):
    monkeypatch.setitem(sys.modules, "decord", None)
    assert resolve_backend("auto") == "pyav"
    assert read_numbers(read(videos / "b_frames.mp4", [3, 60], "auto")) == [3, 60]


@pytest.mark.parametrize(
    ("version", "ffmpeg", "words"),
    [("0.17.0+cu130", None, "apt install ffmpeg"), ("0.9.1", 7, r"is 0\.9\.1, 0\.11 or later"), ("0.11.0", 7, None)],
)
def test_why_torchcodec_cannot_run(monkeypatch, version, ffmpeg, words):
    package, decoders = types.ModuleType("torchcodec"), types.ModuleType("torchcodec.decoders")
    package.__version__, package.ffmpeg_major_version, decoders.VideoDecoder = version, ffmpeg, object
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    if words is None:
        assert resolve_backend("torchcodec") == "torchcodec"
    else:
        with pytest.raises(ModuleNotFoundError, match=words):
            resolve_backend("torchcodec")


@pytest.mark.parametrize("backend", OTHERS)
def test_pyav_stands_in_for_a_reader_that_does_not_open_a_file(monkeypatch, videos, backend):
    def refuse(path, num_frames, content):
        raise DecodeError(path, "no")

    why, can_number, _ = decoder._OTHERS[backend]
    monkeypatch.setitem(decoder._OTHERS, backend, (why, can_number, refuse))
    with open_video(str(videos / "b_frames.mp4"), backend) as video:
        assert type(video) is PyAvVideo
        assert read_numbers(video.read([60])) == [60]


def test_names_with_a_colon_are_no_addresses(monkeypatch, videos, tmp_path):
    shutil.copy(videos / "b_frames.mp4", tmp_path / "http:12.mp4")
    monkeypatch.chdir(tmp_path)
    for backend in ("pyav", "auto"):
        assert read_numbers(read("http:12.mp4", [60], backend)) == [60]


def test_truncated_files_of_each_container(videos, tmp_path):
    write_video(tmp_path / "b.mkv", NUM_FRAMES)
    write_video(tmp_path / "f.mp4", NUM_FRAMES, container_options={"movflags": "frag_keyframe+empty_moov"})
    intact = [
        *(videos / name for name in ("front.mp4", "vp9.webm", "mpeg4.avi")),
        tmp_path / "b.mkv",
        tmp_path / "f.mp4",
    ]
    for path in intact:
        data = path.read_bytes()
        for size in (len(data) // 2, len(data) * 9 // 10, len(data) - 1):
            cut = tmp_path / f"cut_{path.name}"
            cut.write_bytes(data[:size])
            if path.name == "mpeg4.avi" or size < len(data) - 1:
                with pytest.raises(DecodeError, match="truncated"):
                    open_video(str(cut), "auto")
        (tmp_path / f"more_{path.name}").write_bytes(data + b"what a broken download leaves behind")
        assert read_numbers(read(tmp_path / f"more_{path.name}", [0, NUM_FRAMES - 1])) == [0, NUM_FRAMES - 1]


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
