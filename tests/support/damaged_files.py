"""Writes hundreds of damaged videos, frame folders and images, and reads them in a process that may die or hang."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numbered_video import numbered_frame, read_numbers, write_folder, write_video

from slowfast.datasets.decoder import DecodeError, FrameFolder, FrameReader, ImageFile, open_video, resolve_backend

NUM_FRAMES = 30
NUM_ASKED = 6
VIDEO_SOURCES = {
    "h264.mp4": {"codec": "libx264", "key_every": 8, "container_options": {"movflags": "faststart"}},
    "hevc.mp4": {"codec": "libx265", "key_every": 8, "container_options": {"movflags": "faststart"}},
    "vp9.webm": {"codec": "libvpx-vp9", "key_every": 8},
    "h264.mkv": {"codec": "libx264", "key_every": 8},
    "mpeg4.avi": {"codec": "mpeg4", "key_every": 8},
    "h264.ts": {"codec": "libx264", "key_every": 8},
    "raw.h264": {"codec": "libx264", "key_every": 8},
}
IMAGE_ENDINGS = ("jpg", "png", "webp", "bmp", "tiff", "ppm")


@dataclass(frozen=True)
class Damaged:
    """One damaged file or folder.

    Attributes:
        path: where it is.
        kind: ``video``, ``folder`` or ``image``; ``crash`` and ``hang`` do that.
        damage: what is wrong with it.
        may_be_read: no frames, or only wrong ones, could come out of it where this is False.
        numbers_survive: whatever frames come out must show their own numbers.
        vanishes: it is deleted between opening and reading.
        intact: nothing is wrong but its name or its rights.
    """

    path: str
    kind: str
    damage: str
    may_be_read: bool = True
    numbers_survive: bool = False
    vanishes: bool = False
    intact: bool = False

    @property
    def can_be_opened(self) -> bool:
        return os.access(self.path, os.R_OK)


@dataclass(frozen=True)
class Outcome:
    """What a reader made of one item.

    Attributes:
        status: ``frames``, ``error`` (DecodeError), ``exception`` (any other), ``crash`` or ``hang``.
        path: that the error names.
        reason: of the error.
        shape: of the frames.
        asked: the frame numbers that were asked for.
        shown: the frame numbers that the frames show.
    """

    status: str
    path: str = ""
    reason: str = ""
    shape: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()


def write_damaged(folder: Path, seed: int = 0) -> list[Damaged]:
    """Write all items below ``folder``; ``seed`` decides where the damage is."""
    rng = np.random.default_rng(seed)
    (folder / "intact").mkdir(parents=True)
    return [*_videos(folder, rng), *_not_videos(folder), *_folders(folder, rng), *_images(folder, rng)]


def read_damaged(items: list[Damaged], backend: str, limit_sec: float = 20.0) -> dict[str, Outcome]:
    """Read every item in another process and return path -> outcome.

    Args:
        items: what to read.
        backend: for the videos.
        limit_sec: an item that takes longer has hung.
    """
    context = multiprocessing.get_context("spawn")
    report = {}
    process = connection = None
    for item in items:
        if process is None:
            connection, child = context.Pipe()
            process = context.Process(target=_serve, args=(child, backend), daemon=True)
            process.start()
            child.close()
            assert connection.poll(120), "the reading process does not start"
            connection.recv()
        connection.send(item)
        try:
            report[item.path] = connection.recv() if connection.poll(limit_sec) else Outcome("hang")
        except EOFError:
            process.join()
            report[item.path] = Outcome("crash", reason=f"exit status {process.exitcode}")
        if report[item.path].status in ("hang", "crash"):
            process.kill()
            process.join()
            process = None
    if process is not None:
        connection.send(None)
        process.join()
    return report


def _serve(connection: multiprocessing.connection.Connection, backend: str) -> None:
    resolve_backend(backend)  # imports it, which may take longer than an item
    connection.send("ready")
    while (item := connection.recv()) is not None:
        connection.send(_read(item, backend))


def _read(item: Damaged, backend: str) -> Outcome:
    try:
        with _open(item, backend) as reader:
            asked = np.linspace(0, reader.num_frames - 1, NUM_ASKED).astype(int)
            if item.vanishes:
                shutil.rmtree(item.path) if os.path.isdir(item.path) else os.remove(item.path)
            frames = reader.read(asked)
            assert frames.dtype == np.uint8
            return Outcome("frames", "", "", frames.shape, tuple(asked.tolist()), tuple(read_numbers(frames)))
    except DecodeError as error:
        return Outcome("error", error.path, error.reason)
    except BaseException as error:
        return Outcome("exception", reason=repr(error))


def _open(item: Damaged, backend: str) -> FrameReader:
    if item.kind == "video":
        return open_video(item.path, backend)
    if item.kind == "folder":
        return FrameFolder(item.path, "{:05d}.jpg", 1, 12)
    if item.kind == "image":
        return ImageFile(item.path)
    # What a decoder might do, to test the test.
    if item.kind == "crash":
        os.abort()
    time.sleep(3600)
    raise AssertionError


def _videos(folder: Path, rng: np.random.Generator) -> Iterator[Damaged]:
    (folder / "video").mkdir()
    for name, options in VIDEO_SOURCES.items():
        data = Path(write_video(folder / "intact" / name, NUM_FRAMES, **options)).read_bytes()
        stem, ending = name.replace(".", "_"), name.partition(".")[2]

        def write(label: str, damaged: bytes, ending: str = ending, stem: str = stem, **facts: bool) -> Damaged:
            path = folder / "video" / f"{stem}_{label}.{ending}"
            path.write_bytes(damaged)
            return Damaged(str(path), "video", label, **facts)

        for size in (1, 13, 100, *np.linspace(200, len(data) - 1, 11).astype(int)):
            # Transport streams and raw ones have no end: the last frames of what is left may lack a neighbour.
            yield write(f"truncated_{size}", data[:size], numbers_survive=ending not in ("ts", "h264"))
        for i in range(14):
            flipped = np.frombuffer(data, np.uint8).copy()
            at = rng.integers(0, len(data), 1 + i * 2)
            np.bitwise_xor.at(flipped, at, (1 << rng.integers(0, 8, len(at))).astype(np.uint8))
            yield write(f"flipped_{i}", flipped.tobytes())
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
        yield write("unreadable", data, numbers_survive=True, intact=True)
        os.chmod(folder / "video" / f"{stem}_unreadable.{ending}", 0)


def _not_videos(folder: Path) -> Iterator[Damaged]:
    image = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    intact = folder / "intact" / "h264.mp4"
    contents = {
        "empty": b"",
        "text": b"not a video\n" * 100,
        "image": image,
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{intact}\n#EXT-X-ENDLIST\n".encode(),
        "address": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "script": f"ffconcat version 1.0\nfile {intact}\n".encode(),
    }
    for label, data in contents.items():
        for ending in ("mp4", "webm", "avi", "mkv", "ts", "txt"):
            path = folder / "video" / f"{label}.{ending}"
            path.write_bytes(data)
            yield Damaged(str(path), "video", label, may_be_read=False)
    for ending in ("mp4", "mkv", "avi"):
        path = str(folder / "video" / f"sound.{ending}")
        with av.open(path, "w") as container:
            stream = container.add_stream("aac", rate=44100)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 44100
            container.mux([*stream.encode(sound), *stream.encode()])
        yield Damaged(path, "video", "sound", may_be_read=False)
        path = str(folder / "video" / f"zero_frames.{ending}")
        write_video(path, 0, codec="mpeg4" if ending == "avi" else "libx264")
        yield Damaged(path, "video", "zero_frames", may_be_read=False)
        path = folder / "video" / f"directory.{ending}"
        path.mkdir()
        yield Damaged(str(path), "video", "directory", may_be_read=False)
        path = folder / "video" / f"dangling.{ending}"
        path.symlink_to(folder / "absent")
        yield Damaged(str(path), "video", "dangling", may_be_read=False)
        yield Damaged(str(folder / "video" / f"absent.{ending}"), "video", "absent", may_be_read=False)
    path = folder / "video" / "pipe.mp4"
    os.mkfifo(path)
    yield Damaged(str(path), "video", "pipe", may_be_read=False)


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
        return Damaged(str(path), "folder", label, **facts)

    for size in np.linspace(0, len(data) - 2, 24).astype(int):
        yield copy(f"truncated_{size}", data[:size], may_be_read=False)
    for i in range(30):
        flipped = np.frombuffer(data, np.uint8).copy()
        flipped[rng.integers(0, len(data), i + 1)] ^= 1 << int(rng.integers(8))
        yield copy(f"flipped_{i}", flipped.tobytes())
    other = cv2.cvtColor(numbered_frame(8), cv2.COLOR_RGB2BGR)
    yield copy("renamed", cv2.imencode(".png", other)[1].tobytes(), numbers_survive=True, intact=True)
    yield copy("smaller", cv2.imencode(".jpg", other[::2, ::2])[1].tobytes(), may_be_read=False)
    yield copy("text", b"not an image\n" * 50, may_be_read=False)
    yield copy("missing", None, may_be_read=False)
    yield copy("vanishes", data, vanishes=True, may_be_read=False)
    item = copy("directory", None, may_be_read=False)
    os.mkdir(Path(item.path, frame))
    yield item
    item = copy("dangling", None, may_be_read=False)
    Path(item.path, frame).symlink_to(folder / "absent")
    yield item
    (folder / "folder" / "file").write_bytes(data)
    yield Damaged(str(folder / "folder" / "file"), "folder", "file", may_be_read=False)
    (folder / "folder" / "empty").mkdir()
    yield Damaged(str(folder / "folder" / "empty"), "folder", "empty", may_be_read=False)
    yield Damaged(str(folder / "folder" / "absent"), "folder", "absent", may_be_read=False)


def _images(folder: Path, rng: np.random.Generator) -> Iterator[Damaged]:
    (folder / "image").mkdir()

    def write(label: str, damaged: bytes, ending: str, **facts: bool) -> Damaged:
        path = folder / "image" / f"{label}.{ending}"
        path.write_bytes(damaged)
        return Damaged(str(path), "image", label, **facts)

    for ending in IMAGE_ENDINGS:
        data = cv2.imencode(f".{ending}", cv2.cvtColor(numbered_frame(0), cv2.COLOR_RGB2BGR))[1].tobytes()
        for i, size in enumerate(np.linspace(1, len(data) * 9 // 10, 6).astype(int)):
            yield write(f"truncated_{i}", data[:size], ending, may_be_read=False)
        for i in range(6):
            flipped = np.frombuffer(data, np.uint8).copy()
            flipped[rng.integers(0, len(data), 2 * i + 1)] ^= 1 << int(rng.integers(8))
            yield write(f"flipped_{i}", flipped.tobytes(), ending)
        yield write("empty", b"", ending, may_be_read=False)
        yield write("text", b"not an image\n" * 50, ending, may_be_read=False)
        yield write("renamed", data, "jpeg" if ending == "png" else f"{ending}.png", intact=True)
    (folder / "image" / "directory.jpg").mkdir()
    yield Damaged(str(folder / "image" / "directory.jpg"), "image", "directory", may_be_read=False)
    yield Damaged(str(folder / "image" / "absent.jpg"), "image", "absent", may_be_read=False)
