"""Write synthetic clips as encoded files in the layouts of real data sets.

frames  numbered JPEG folders as in Something-Something V1, ``frames/<id>/00001.jpg``;
        lists ``train.txt``, ``val.txt`` with lines ``frames/<id> num_frames label``
mp4     H.264 videos, ``videos/<id>.mp4``; lists ``train.csv``, ``val.csv`` with lines ``videos/<id>.mp4,label``

Beside them are ``dataset.json`` (every parameter) and, last, ``classes.txt``. Videos consist of key frames at a
constant quantiser: pictures predicted from others would show the order of time. Stimuli are always videos.
"""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from slowfast.synthetic.scenes import CLASS_NAMES, SceneSpec, render
from slowfast.utils.errors import UserError
from slowfast.utils.files import claimed, replacing
from slowfast.utils.logging import progress_bar

_VERSION = 2  # raised when the same parameters come to mean other pictures
_JPEG_QUALITY = 95


class _Clip(NamedTuple):
    path: str  # relative to the data set's folder
    label: int
    origin: Any  # what it is drawn from: a seed, or a record


def write_dataset(
    out_dir: str | Path, spec: SceneSpec, num_train: int, num_val: int, media: str, seed: int = 0, workers: int = 1
) -> bool:
    """Write a data set, or complete an interrupted one; return False if the very same set is there already.

    The same arguments give the same files whatever the number of workers (processes; 1 stays in this one). Several
    callers may name one folder at once: one writes, the others wait.
    """
    if media == "mp4" and spec.size % 2:
        raise UserError(f"--size is {spec.size}; allowed: even sizes for mp4 (colour is halved)")
    out_dir = Path(out_dir)
    parameters = {"version": _VERSION, "format": media, "num_train": num_train, "num_val": num_val, "seed": seed}
    with claimed(out_dir / "dataset.json", parameters | asdict(spec)):
        if (out_dir / "classes.txt").exists():
            return False
        train = _plan(num_train, media, seed, split=0, first=1)
        val = _plan(num_val, media, seed, split=1, first=1 + num_train)
        _write_clips([*train, *val], out_dir, partial(_draw_scene, spec), workers)
        suffix, middle = (".csv", ",") if media == "mp4" else (".txt", f" {spec.num_frames} ")
        for split, clips in (("train", train), ("val", val)):
            _write_list(out_dir / f"{split}{suffix}", clips, middle)
        _write_lines(out_dir / "classes.txt", CLASS_NAMES)
    return True


def write_stimuli(
    out_dir: str | Path, source: Any, records: Mapping[str, Sequence[Any]], facts: dict[str, Any], workers: int = 1
) -> bool:
    """Write what ``source`` (of DATA.DATASET) opens as videos, or complete them; return False if they are there.

    Args:
        out_dir: folder, as that of :func:`write_dataset`.
        source: has ``open`` and ``class_names``; it is sent to processes.
        records: by split, in the order of its list.
        facts: all that decides what the clips show.
        workers: processes.
    """
    if facts["size"] % 2:
        raise UserError(f"DATA.TRAIN_CROP_SIZE is {facts['size']}; allowed: even sizes for mp4 (colour is halved)")
    out_dir = Path(out_dir)
    with claimed(out_dir / "dataset.json", {"version": _VERSION, "format": "mp4", **facts}):
        if (out_dir / "classes.txt").exists():
            return False
        both = [record for some in records.values() for record in some]
        paths = [f"videos/{number:06d}.mp4" for number in range(1, 1 + len(both))]
        clips = [_Clip(path, record.label, record) for path, record in zip(paths, both)]
        _write_clips(clips, out_dir, partial(_read_clip, source.open), workers)
        for split, some in records.items():
            own, clips = clips[: len(some)], clips[len(some) :]
            _write_list(out_dir / f"{split}.csv", own, ",")
        _write_lines(out_dir / "classes.txt", source.class_names)
    return True


def _write_list(path: Path, clips: Sequence[_Clip], middle: str) -> None:
    _write_lines(path, [f"{clip.path}{middle}{clip.label}" for clip in clips])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with replacing(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def _plan(count: int, media: str, seed: int, split: int, first: int) -> list[_Clip]:
    """List the clips of a split: labels balanced, in random order so that ids do not tell the class."""
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split,))).permutation(np.arange(count))
    clips = []
    for index, number in enumerate(order.tolist()):
        name = f"frames/{first + index:06d}" if media == "frames" else f"videos/{first + index:06d}.mp4"
        key = np.random.SeedSequence(seed, spawn_key=(split, index))
        clips.append(_Clip(name, number % len(CLASS_NAMES), key))
    return clips


def _draw_scene(spec: SceneSpec, clip: _Clip) -> np.ndarray:
    return render(clip.origin, clip.label, spec)


def _read_clip(open_record: Callable[[Any], Any], clip: _Clip) -> np.ndarray:
    with open_record(clip.origin) as reader:
        return reader.read(range(reader.num_frames))


def _write_clips(clips: list[_Clip], out_dir: Path, draw: Callable[[_Clip], np.ndarray], workers: int) -> None:
    (out_dir / clips[0].path).parent.mkdir(exist_ok=True)
    write = partial(_write_clip, out_dir=out_dir, draw=draw)
    # Spawned, not forked: a fork copies the locks of whatever threads the caller runs. Their one thread each is enough.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        written = pool.map(write, clips, chunksize=8) if workers > 1 else map(write, clips)
        for _ in progress_bar(written, len(clips), "writing clips", unit="clip"):
            pass


def _write_clip(clip: _Clip, out_dir: Path, draw: Callable[[_Clip], np.ndarray]) -> None:
    """Draw and encode one clip unless it is there; a clip under its final name is always complete."""
    path = out_dir / clip.path
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.tmp")
    (_write_mp4 if path.suffix else _write_jpegs)(temporary, draw(clip))
    os.replace(temporary, path)


def _write_jpegs(folder: Path, clip: np.ndarray) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run may have left
    folder.mkdir()
    for number, frame in enumerate(clip, start=1):
        _, content = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        content.tofile(folder / f"{number:05d}.jpg")  # raises where cv2.imwrite would only return False


def _write_mp4(path: Path, clip: np.ndarray) -> None:
    # bitexact: no random identifiers in the file, so that the same clip gives the same bytes.
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "qp": "20"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 1
        stream.codec_context.thread_count = 1  # the processes are the parallelism
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
