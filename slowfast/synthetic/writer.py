"""Write synthetic clips as encoded files in the layouts of real data sets.

frames  numbered JPEG folders as in Something-Something V1, `frames/<id>/00001.jpg`;
        lists `train.txt`, `val.txt` with lines `frames/<id> num_frames label`
mp4     H.264 videos, `videos/<id>.mp4`; lists `train.csv`, `val.csv` with lines `videos/<id>.mp4,label`
webm    VP9 videos, `videos/<id>.webm`; lists as for mp4

Paths in the lists are relative to the data set's folder, which also gets `classes.txt` (one name per line in
the order of the labels) and `dataset.json` (every parameter). Scenes have a second label, in lists of the same
videos such as `train_appearance.csv` and in `classes_appearance.txt`. The videos consist of key frames at a
constant quantiser, so that every picture is coded on its own: a codec that predicts a picture from the one before
leaves traces of the order of time in single pictures, and those could give the class away.
"""

import json
import logging
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from slowfast.synthetic.scenes import DIRECTION_NAMES, KIND_NAMES, SceneSpec, render_scene
from slowfast.synthetic.specs import CLASS_NAMES, MotionSpec, SpriteSpec, check_bounds, render_clip
from slowfast.utils.files import locked, replacing
from slowfast.utils.logging import progress_bar

logger = logging.getLogger(__name__)

_SPLITS = ("train", "val")  # the index of a split is part of its random seeds
_JPEG_QUALITY = 95
_MAX_CLIPS = 10_000_000


def _write_jpegs(folder: Path, clip: np.ndarray) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run may have left
    folder.mkdir()
    for number, frame in enumerate(clip, start=1):
        path = folder / f"{number:05d}.jpg"
        if not cv2.imwrite(str(path), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
            raise OSError(f"{path} could not be written")


def _write_video(
    path: Path, clip: np.ndarray, container_format: str, codec: str, options: dict[str, str], fps: int
) -> None:
    # bitexact: no random identifiers in the file, so that the same clip gives the same bytes.
    with av.open(str(path), "w", format=container_format, container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 1
        stream.codec_context.thread_count = 1  # the processes are the parallelism
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class _MediaFormat:
    """How one format is stored: `write(path, clip)` writes a clip (L, S, S, 3) uint8 RGB."""

    folder: str
    suffix: str
    list_suffix: str
    list_line: str
    fps: int
    write: Callable[[Path, np.ndarray], None]


_H264 = partial(
    _write_video, container_format="mp4", codec="libx264", options={"preset": "veryfast", "qp": "20"}, fps=30
)
_VP9 = partial(
    _write_video,
    container_format="webm",
    codec="libvpx-vp9",
    options={
        "deadline": "realtime",
        "cpu-used": "8",
        "lag-in-frames": "0",
        "crf": "16",
        "b": "0",
        "qmin": "16",
        "qmax": "16",
    },
    fps=12,
)
_CSV_LINE = "{path},{label}\n"
_FORMATS = {
    "frames": _MediaFormat("frames", "", ".txt", "{path} {num_frames} {label}\n", 12, _write_jpegs),
    "mp4": _MediaFormat("videos", ".mp4", ".csv", _CSV_LINE, 30, _H264),
    "webm": _MediaFormat("videos", ".webm", ".csv", _CSV_LINE, 12, _VP9),
}
MEDIA_FORMATS: tuple[str, ...] = tuple(_FORMATS)


@dataclass(frozen=True)
class _Generator:
    """What makes the clips of a spec: `render(seed, *labels, spec)`, with one label for each of `questions`.

    `questions` maps what is added to the names of the lists to the names of the classes. The version is raised when the
    same parameters come to mean other pictures, so that an old set is not taken for a new one.
    """

    name: str
    version: int
    questions: dict[str, tuple[str, ...]]
    render: Callable[..., np.ndarray]


_GENERATORS = {
    MotionSpec: _Generator("synthetic motion", 1, {"": CLASS_NAMES}, render_clip),
    SceneSpec: _Generator("synthetic scenes", 1, {"": DIRECTION_NAMES, "_appearance": KIND_NAMES}, render_scene),
}


@dataclass(frozen=True)
class _Clip:
    """One clip to be written: path relative to the data set's folder, labels, split and index in the split."""

    path: str
    labels: tuple[int, ...]
    split: int
    index: int


def _labels_of(number: int, num_classes: list[int]) -> tuple[int, ...]:
    """Return the labels of the clip with a number; each label is balanced, and so are the pairs of two labels."""
    # Side by side, the labels repeat after `period` clips and then meet the same partners, so each moves on by another
    # offset.
    period = math.lcm(*num_classes)
    return tuple((number + place * (number // period)) % count for place, count in enumerate(num_classes))


def _plan_splits(
    counts: tuple[int, ...], media_format: _MediaFormat, num_classes: list[int], seed: int
) -> list[list[_Clip]]:
    """List the clips of every split: labels balanced, in random order so that ids do not tell the class."""
    splits, first = [], 1
    for split, count in enumerate(counts):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split,)))
        clips = []
        for index, number in enumerate(rng.permutation(np.arange(count)).tolist()):
            path = f"{media_format.folder}/{first + index:06d}{media_format.suffix}"
            clips.append(_Clip(path, _labels_of(number, num_classes), split, index))
        splits.append(clips)
        first += count
    return splits


def _write_clip(clip: _Clip, out_dir: Path, spec: SpriteSpec, media_format: str, seed: int) -> None:
    """Render and encode one clip unless it is there; a clip under its final name is always complete."""
    path = out_dir / clip.path
    if path.exists():
        return
    clip_seed = np.random.SeedSequence(seed, spawn_key=(clip.split, clip.index))
    frames = _GENERATORS[type(spec)].render(clip_seed, *clip.labels, spec)
    temporary = path.with_name(f".{path.name}.tmp")
    _FORMATS[media_format].write(temporary, frames)
    os.replace(temporary, path)


def _write_clips(
    clips: list[_Clip], out_dir: Path, spec: SpriteSpec, media_format: str, seed: int, workers: int
) -> None:
    write = partial(_write_clip, out_dir=out_dir, spec=spec, media_format=media_format, seed=seed)
    progress = partial(progress_bar, total=len(clips), description=f"writing {media_format}", unit="clip")
    if workers == 1:
        for clip in progress(clips):
            write(clip)
        return
    # Spawned, not forked: a fork copies the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for _ in progress(pool.map(write, clips, chunksize=8)):
            pass


def _check_same_parameters(path: Path, parameters: dict) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); choose another --out or delete the folder") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not describe a data set; choose another --out or delete the folder")
    for name in parameters | found:
        if found.get(name) != parameters.get(name):
            raise ValueError(
                f"{path} holds another data set: {name} is {found.get(name)} there and "
                f"{parameters.get(name)} here; choose another --out or delete the folder"
            )


def write_dataset(
    out_dir: str | Path,
    spec: SpriteSpec,
    num_train: int,
    num_val: int,
    media_format: str,
    seed: int = 0,
    workers: int = 1,
) -> bool:
    """Write a data set, or complete an interrupted one.

    The same arguments give the same files whatever the number of workers. `dataset.json` is written last: a
    folder that has it is complete. Several processes may call this at once for one folder: one writes, the
    others wait.

    Args:
        out_dir: Folder of the data set; made if missing.
        spec: Size and difficulty of the clips, and by its class what they show.
        num_train: Number of training clips.
        num_val: Number of validation clips, drawn from random streams of their own.
        media_format: One of `MEDIA_FORMATS`.
        seed: Seed of the whole set.
        workers: Number of processes; 1 stays in this process. More are started afresh ("spawn"), so a script
            that asks for them needs the usual `if __name__ == "__main__"`.

    Returns:
        True if the set was written, False if the very same set was there already.

    Raises:
        ValueError: If an argument is out of bounds, or the folder holds anything else than this data set.
    """
    out_dir = Path(out_dir)
    if media_format not in _FORMATS:
        raise ValueError(f"media_format (--format) is {media_format!r}; allowed: {', '.join(_FORMATS)}")
    for name, value, low, high in (
        ("num_train", num_train, 1, _MAX_CLIPS),
        ("num_val", num_val, 1, _MAX_CLIPS),
        ("seed", seed, 0, 2**63 - 1),
        ("workers", workers, 1, 256),
    ):
        check_bounds(name, value, low, high)
    if media_format != "frames" and spec.size % 2:
        raise ValueError(f"size (--size) is {spec.size}; allowed: even sizes for {media_format} (colour is halved)")

    layout, generator = _FORMATS[media_format], _GENERATORS[type(spec)]
    parameters = {
        "generator": generator.name,
        "generator_version": generator.version,
        "media_format": media_format,
        "fps": layout.fps,
        "num_classes": len(generator.questions[""]),
        "num_train": num_train,
        "num_val": num_val,
        "seed": seed,
        **json.loads(json.dumps(asdict(spec))),  # as read back from the file: lists instead of tuples
    }
    complete, partial_state = out_dir / "dataset.json", out_dir / "dataset.partial.json"
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"out_dir (--out) is {out_dir}; allowed: a folder, and this is a file")
    if complete.exists():  # before the lock, which a read-only disk may refuse
        _check_same_parameters(complete, parameters)
        return False

    out_dir.mkdir(parents=True, exist_ok=True)
    with locked(out_dir):
        if complete.exists():  # another process finished while this one waited
            _check_same_parameters(complete, parameters)
            return False
        if partial_state.exists():
            _check_same_parameters(partial_state, parameters)
            logger.info("%s was interrupted and is being completed", out_dir)
        elif any(path.name != ".dataset.partial.json.tmp" for path in out_dir.iterdir()):
            raise ValueError(f"out_dir (--out) is {out_dir}, not empty; allowed: an empty or new folder")
        with replacing(partial_state) as file:
            file.write(json.dumps(parameters, indent=2) + "\n")
        (out_dir / layout.folder).mkdir(exist_ok=True)

        num_classes = [len(names) for names in generator.questions.values()]
        splits = _plan_splits((num_train, num_val), layout, num_classes, seed)
        _write_clips([clip for split in splits for clip in split], out_dir, spec, media_format, seed, workers)
        for question, (addition, class_names) in enumerate(generator.questions.items()):
            for name, clips in zip(_SPLITS, splits, strict=True):
                with replacing(out_dir / (name + addition + layout.list_suffix)) as file:
                    for clip in clips:
                        label = clip.labels[question]
                        file.write(layout.list_line.format(path=clip.path, num_frames=spec.num_frames, label=label))
            with replacing(out_dir / f"classes{addition}.txt") as file:
                file.writelines(f"{name}\n" for name in class_names)
        os.replace(partial_state, complete)
    return True
