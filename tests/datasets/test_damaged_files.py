"""Hundreds of damaged files: each is named in a DecodeError or read right, and none ends or stops a process."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numbered_video import numbered_frame, read_numbers, write_folder, write_video
from pebble import ProcessExpired, ProcessPool
from video_backends import BACKENDS

from slowfast.datasets.decoder import DecodeError, FrameFolder, FrameReader, ImageFile, open_video

NUM_FRAMES = 30
NUM_ASKED = 6
GROUPS = {"key_every": 8}
FRONT = GROUPS | {"container_options": {"movflags": "faststart"}}
VIDEO_SOURCES = {
    "h264.mp4": FRONT,
    "hevc.mp4": FRONT | {"codec": "libx265"},
    "vp9.webm": GROUPS | {"codec": "libvpx-vp9"},
    "h264.mkv": GROUPS,
    "mpeg4.avi": GROUPS | {"codec": "mpeg4"},
    "h264.ts": GROUPS,
    "raw.h264": GROUPS,
}
IMAGE_ENDINGS = ("jpg", "png", "webp", "bmp", "tiff", "ppm")


@dataclass(frozen=True)
class Damaged:
    """One damaged file or folder."""

    path: str
    kind: str  # video, folder or image; crash and hang do that
    may_be_read: bool = True  # else no frames, or only wrong ones, could come out of it
    numbers_survive: bool = False  # whatever frames come out must show their own numbers
    vanishes: bool = False  # it is deleted between opening and reading
    intact: bool = False  # nothing is wrong but its name or its rights


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("damaged"), np.random.default_rng(0)
    for name in ("intact", "video", "folder", "image"):
        (folder / name).mkdir()
    return [*_videos(folder, rng), *_not_videos(folder), *_folders(folder, rng), *_images(folder, rng)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_damaged_file_is_named_or_read_right(items, backend):
    if backend != "pyav":  # folders and images do not depend on it
        items = [item for item in items if item.kind == "video" and not item.vanishes]
    outcomes = read_damaged(items, backend)
    assert not [pair for pair in zip(items, outcomes, strict=True) if pair[1] not in ("frames", "error")]
    # Most of the damage is found; what a bit flip does to VP9 and HEVC leaves no trace.
    assert len(items) > 300 and outcomes.count("error") > len(items) / 2


def test_a_crash_and_a_hang_are_seen(items):
    intact = next(item for item in items if item.intact)
    outcomes = read_damaged([intact, Damaged("a", "crash"), Damaged("b", "hang"), intact], "pyav", limit_sec=1)
    assert outcomes == ["frames", "crash", "hang", "frames"]


def read_damaged(items: list[Damaged], backend: str, limit_sec: float = 20.0) -> list[str]:
    """Read every item in another process: ``frames`` or ``error`` as it should be, or what is wrong."""

    def outcome(future: Future) -> str:
        try:
            return future.result()
        except TimeoutError:
            return "hang"
        except ProcessExpired:
            return "crash"

    with ProcessPool(1) as pool:
        futures = [pool.schedule(_read, (item, backend), timeout=limit_sec) for item in items]
        return [outcome(future) for future in futures]


def _read(item: Damaged, backend: str) -> str:
    try:
        with _open(item, backend) as reader:
            asked = np.linspace(0, reader.num_frames - 1, NUM_ASKED).astype(int).tolist()
            if item.vanishes:
                shutil.rmtree(item.path) if os.path.isdir(item.path) else os.remove(item.path)
            frames = reader.read(asked)
    except DecodeError as error:
        if error.path != item.path or not error.reason:
            return f"an error that does not name it: {error}"
        is_refused = (
            item.intact and os.access(item.path, os.R_OK) and "decord cannot read it exactly" not in error.reason
        )
        return f"refused although nothing is wrong with it: {error.reason}" if is_refused else "error"
    except BaseException as error:
        return repr(error)
    if not item.may_be_read or frames.ndim != 4 or frames.shape[0::3] != (NUM_ASKED, 3) or asked[-1] >= 2 * NUM_FRAMES:
        return f"frames {asked} of shape {frames.shape}"
    if item.numbers_survive and read_numbers(frames) != asked:
        return f"asked for {asked}, got {read_numbers(frames)}"
    return "frames"


def _open(item: Damaged, backend: str) -> FrameReader:
    if item.kind == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.kind == "hang":
        time.sleep(3600)
    if item.kind == "folder":
        return FrameFolder(item.path, "{:05d}.jpg", 1, 12)
    return ImageFile(item.path) if item.kind == "image" else open_video(item.path, backend)


def _flipped(data: bytes, count: int, rng: np.random.Generator) -> bytes:
    flipped = np.frombuffer(data, np.uint8).copy()
    at = rng.integers(0, len(data), count)
    np.bitwise_xor.at(flipped, at, (1 << rng.integers(0, 8, count)).astype(np.uint8))
    return flipped.tobytes()


def _write(path: Path, kind: str, data: bytes, **facts: bool) -> Damaged:
    path.write_bytes(data)
    return Damaged(str(path), kind, **facts)


def _videos(folder: Path, rng: np.random.Generator) -> Iterator[Damaged]:
    for name, options in VIDEO_SOURCES.items():
        data = Path(write_video(folder / "intact" / name, NUM_FRAMES, **options)).read_bytes()
        ending = name.partition(".")[2]

        def write(label: str, damaged: bytes, ending: str = ending, name: str = name, **facts: bool) -> Damaged:
            return _write(folder / "video" / f"{name}_{label}.{ending}", "video", damaged, **facts)

        for size in (1, 13, 100, *np.linspace(200, len(data) - 1, 11).astype(int)):
            # Transport streams and raw ones have no end: the last frames of what is left may lack a neighbour.
            yield write(f"truncated_{size}", data[:size], numbers_survive=ending not in ("ts", "h264"))
        for i in range(14):
            yield write(f"flipped_{i}", _flipped(data, 1 + i * 2, rng))
        for i in range(4):
            at, size = int(rng.integers(0, len(data) * 3 // 4)), len(data) // 10
            yield write(f"zeros_{i}", data[:at] + bytes(size) + data[at + size :])
            yield write(f"noise_{i}", data[:at] + rng.bytes(size) + data[at + size :])
            yield write(f"hole_{i}", data[:at] + data[at + size :])
            yield write(f"twice_{i}", data[: at + size] + data[at:])
        yield write("no_head", rng.bytes(64) + data[64:])
        for other in {"mp4", "webm", "avi", "jpg"} - {ending}:
            yield write("renamed", data, other, numbers_survive=True, intact=True)
        yield write("vanishes", data, vanishes=True, numbers_survive=True)
        item = write("unreadable", data, numbers_survive=True, intact=True)
        os.chmod(item.path, 0)
        yield item


def _not_videos(folder: Path) -> Iterator[Damaged]:
    intact = folder / "intact" / "h264.mp4"
    play_list = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    contents = {
        "text": b"not a video\n" * 100,
        "image": cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes(),
        "playlist": play_list.format(intact).encode(),
        "address": play_list.format("http://127.0.0.1:9/a.ts").encode(),
        "script": f"ffconcat version 1.0\nfile {intact}\n".encode(),
    }
    for name, data in contents.items():
        for ending in ("mp4", "webm", "mkv", "ts", "txt"):
            yield _write(folder / "video" / f"{name}.{ending}", "video", data, may_be_read=False)
    (folder / "video" / "directory.mp4").mkdir()
    (folder / "video" / "dangling.mp4").symlink_to(folder / "absent")
    os.mkfifo(folder / "video" / "pipe.mp4")
    write_video(folder / "video" / "zero_frames.mkv", 0)
    for name in ("directory.mp4", "dangling.mp4", "pipe.mp4", "zero_frames.mkv", "absent.mp4"):
        yield Damaged(str(folder / "video" / name), "video", may_be_read=False)


def _folders(folder: Path, rng: np.random.Generator) -> Iterator[Damaged]:
    intact = write_folder(folder / "intact" / "frames", 12)
    frame = "00009.jpg"  # one of those that are read
    data = Path(intact, frame).read_bytes()

    def copy(label: str, damaged: bytes | None, **facts: bool) -> Damaged:
        path = folder / "folder" / label
        shutil.copytree(intact, path)
        os.remove(path / frame)
        if damaged is not None:
            (path / frame).write_bytes(damaged)
        return Damaged(str(path), "folder", **facts)

    for size in np.linspace(0, len(data) - 2, 24).astype(int):
        yield copy(f"truncated_{size}", data[:size], may_be_read=False)
    for i in range(30):
        yield copy(f"flipped_{i}", _flipped(data, i + 1, rng))
    other = cv2.cvtColor(numbered_frame(8), cv2.COLOR_RGB2BGR)
    yield copy("renamed", cv2.imencode(".png", other)[1].tobytes(), numbers_survive=True, intact=True)
    yield copy("smaller", cv2.imencode(".jpg", other[::2, ::2])[1].tobytes(), may_be_read=False)
    yield copy("text", b"not an image\n" * 50, may_be_read=False)
    yield copy("vanishes", data, vanishes=True, may_be_read=False)
    yield copy("missing", None, may_be_read=False)
    item = copy("directory", None, may_be_read=False)
    os.mkdir(Path(item.path, frame))
    yield item
    (folder / "folder" / "file").write_bytes(data)
    for name in ("file", "absent"):
        yield Damaged(str(folder / "folder" / name), "folder", may_be_read=False)


def _images(folder: Path, rng: np.random.Generator) -> Iterator[Damaged]:
    def write(label: str, damaged: bytes, ending: str, **facts: bool) -> Damaged:
        return _write(folder / "image" / f"{label}.{ending}", "image", damaged, **facts)

    for ending in IMAGE_ENDINGS:
        data = cv2.imencode(f".{ending}", cv2.cvtColor(numbered_frame(0), cv2.COLOR_RGB2BGR))[1].tobytes()
        for size in np.linspace(0, len(data) * 9 // 10, 7).astype(int):
            yield write(f"truncated_{size}", data[:size], ending, may_be_read=False)
        for i in range(6):
            yield write(f"flipped_{i}", _flipped(data, 2 * i + 1, rng), ending)
        yield write("text", b"not an image\n" * 50, ending, may_be_read=False)
        yield write("renamed", data, "jpeg" if ending == "png" else f"{ending}.png", intact=True)
    for path in (folder / "image", folder / "image" / "absent.jpg"):
        yield Damaged(str(path), "image", may_be_read=False)
