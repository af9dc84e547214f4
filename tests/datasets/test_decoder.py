"""Files that cannot be read are named with one reason; folders of frames and still images."""

import pickle
import shutil
import sys

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from numbered_video import numbered_frame, read_numbers, write_folder, write_video
from PIL import Image
from video_backends import BACKENDS

from slowfast.datasets.decoder import DecodeError, FrameFolder, ImageFile, import_decord, open_video
from slowfast.datasets.decoder.pyav import PyAvVideo
from slowfast.utils.errors import UserError

NUM_FRAMES = 70
FRONT = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "b_frames.mp4", NUM_FRAMES)
    write_video(folder / "vp9.webm", NUM_FRAMES, codec="libvpx-vp9", key_every=25)
    write_video(folder / "mpeg4.avi", NUM_FRAMES, codec="mpeg4")
    write_video(folder / "h264.mkv", NUM_FRAMES)
    write_video(folder / "front.mp4", NUM_FRAMES, container_options=FRONT)
    write_video(folder / "fragments.mp4", NUM_FRAMES, container_options=FRAGMENTS)
    return folder


def write_sound(path, cover=None):
    """Write sound, and a cover picture if there is one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = *cover.shape[:2], "yuvj420p"
            picture.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")
            container.mux([*picture.encode(frame), *picture.encode()])
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux([*stream.encode(sound), *stream.encode()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_videos_that_cannot_be_read_are_named_with_a_reason(videos, tmp_path, backend):
    mp4, webm = ((videos / name).read_bytes() for name in ("b_frames.mp4", "vp9.webm"))
    contents = {
        "empty.mp4": b"",
        "truncated (.*without its index).mp4": mp4[: len(mp4) * 6 // 10],
        "no frames.webm": webm[: webm.index(b"\x1f\x43\xb6\x75")],  # up to the first cluster
        "no decoder.mp4": mp4.replace(b"avc1", b"zzzz"),
        "not a video file.mp4": cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    write_sound(tmp_path / "no video stream.mp4")
    (tmp_path / "cover").mkdir()
    write_sound(tmp_path / "cover" / "no video stream.mp4", numbered_frame(7))
    for path in [*tmp_path.glob("**/*.*"), tmp_path / "No such file"]:
        with pytest.raises(DecodeError, match=path.stem) as error:
            open_video(str(path), backend)
        assert error.value.path == str(path) and "\n" not in str(error.value)


def test_a_damaged_frame_is_not_painted_over(videos, tmp_path):
    data = bytearray((videos / "front.mp4").read_bytes())
    with av.open(str(videos / "front.mp4")) as container:
        keys = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    data[keys[2].pos + keys[2].size * 3 // 4] ^= 0xFF
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with open_video(str(path)) as video:
        for _ in range(2):  # other groups are intact, before and after the damage was met
            assert read_numbers(video.read([3, 60])) == [3, 60]
            with pytest.raises(DecodeError, match=r"damaged|Invalid data"):
                video.read([30])


@pytest.mark.parametrize("name", ["front.mp4", "fragments.mp4", "vp9.webm", "h264.mkv", "mpeg4.avi"])
def test_truncated_files_of_each_container(videos, tmp_path, name):
    data = (videos / name).read_bytes()
    cut = tmp_path / name
    for size in (len(data) // 2, len(data) * 9 // 10):
        cut.write_bytes(data[:size])
        with pytest.raises(DecodeError, match="truncated"):
            open_video(str(cut))
    cut.write_bytes(data + b"what a broken download leaves behind")
    with open_video(str(cut)) as video:
        assert read_numbers(video.read([0, NUM_FRAMES - 1])) == [0, NUM_FRAMES - 1]


def test_a_decoder_that_failed_on_the_first_frames_is_not_gone_on_with(monkeypatch, videos):
    frames_from, keys = PyAvVideo._frames_from, []

    def fail_once(video, key):
        keys.append(key)
        for pair in frames_from(video, key):
            yield pair
            if len(keys) == 1:
                raise DecodeError(video.path, "unexpected frame")

    monkeypatch.setattr(PyAvVideo, "_frames_from", fail_once)
    with open_video(str(videos / "front.mp4")) as video:
        assert keys == [0, None] and video.num_frames == NUM_FRAMES
        assert read_numbers(video.read([60, 3])) == [60, 3]


def test_names_with_a_colon_are_no_addresses(monkeypatch, videos, tmp_path):
    shutil.copy(videos / "b_frames.mp4", tmp_path / "http:12.mp4")
    monkeypatch.chdir(tmp_path)
    with open_video("http:12.mp4") as video:
        assert read_numbers(video.read([60])) == [60]


def test_decord_is_used_by_name_only(monkeypatch, videos):
    monkeypatch.setitem(sys.modules, "decord", None)
    assert type(open_video(str(videos / "b_frames.mp4"), "auto")) is PyAvVideo
    for ask in (import_decord, lambda: open_video(str(videos / "b_frames.mp4"), "decord")):
        with pytest.raises(UserError, match=r"DATA.DECODING_BACKEND is decord, .*`pip install decord`"):
            ask()


def test_decode_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "bad")))
    assert (error.path, error.reason, str(error)) == ("a.mp4", "bad", "a.mp4: bad")


@pytest.mark.parametrize(("template", "first"), [("{:05d}.jpg", 1), ("img_{:05d}.png", 0)])
def test_frame_folder(tmp_path, template, first):
    reader = FrameFolder(write_folder(tmp_path / "clip", 12, template, first), template, first, 12)
    assert read_numbers(reader.read([11, 3, 3, 0])) == [11, 3, 3, 0]
    assert np.abs(reader.read([3])[0].astype(int) - numbered_frame(3)).mean() < 6
    assert read_numbers(reader.iterate()) == list(range(12))


def test_frame_folder_with_bad_images(tmp_path):
    path = write_folder(tmp_path / "clip", 8)
    with pytest.raises(DecodeError, match=r"00009\.jpg is missing: the list says 12 frames .* has 8 files"):
        FrameFolder(path, "{:05d}.jpg", 1, 12).read([0, 8])
    with pytest.raises(DecodeError, match="no such folder"):
        FrameFolder(str(tmp_path / "absent"), "{:05d}.jpg", 1, 8).read([0])
    image = (tmp_path / "clip" / "00004.jpg").read_bytes()
    thumbnail = b"\xff\xe1" + (len(image) + 2).to_bytes(2, "big") + image  # which has an end marker of its own
    small = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    for data, reason in (
        (image[:-9], "00004.jpg is truncated"),
        (image[:2] + thumbnail + image[2:-9], "00004.jpg is truncated"),
        (b"", "00004.jpg is not a readable image"),
        (b"text", "00004.jpg is not a readable image"),
        (small, "frame 3 is 64x48, others are 128x96"),
    ):
        (tmp_path / "clip" / "00004.jpg").write_bytes(data)
        reader = FrameFolder(path, "{:05d}.jpg", 1, 8)
        with pytest.raises(DecodeError, match=reason):
            reader.read(range(8))
        with pytest.raises(DecodeError, match=reason):
            list(reader.iterate())


def test_bytes_after_the_end_of_a_jpeg_do_not_matter(tmp_path):
    path = write_folder(tmp_path / "clip", 6)
    for file in (tmp_path / "clip").iterdir():
        file.write_bytes(file.read_bytes() + bytes(2048))
    assert read_numbers(FrameFolder(path, "{:05d}.jpg", 1, 6).read(range(6))) == list(range(6))
    assert read_numbers(ImageFile(f"{path}/00004.jpg").read([0])) == [3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stills_and_frames_follow_the_orientation_alike(tmp_path, orientation):
    upright = numbered_frame(9)
    # Stored so that the orientation (EXIF 0x0112) makes them upright again.
    stored = np.rot90(upright, {3: 2, 4: 2, 5: -1, 6: 1, 7: 1, 8: -1}.get(orientation, 0))
    stored = stored[:, ::-1] if orientation in (2, 4, 5, 7) else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "00001.jpg", exif=exif, quality=95)
    for reader in (ImageFile(str(tmp_path / "00001.jpg")), FrameFolder(str(tmp_path), "{:05d}.jpg", 1, 1)):
        shown = reader.read([0])[0]
        assert shown.shape == upright.shape
        assert np.abs(shown.astype(int) - upright).mean() < 6
    data = (tmp_path / "00001.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 6
    damaged = ImageFile("", data[:at] + b"\xff" * 8 + data[at + 8 :])
    assert np.array_equal(damaged.read([0])[0], np.array(Image.open(tmp_path / "00001.jpg")))  # shown as it is stored
