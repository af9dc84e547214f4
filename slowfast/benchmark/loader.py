"""What loading costs: milliseconds of each stage of a training clip, and clips per second of the whole loader.

With it the plain pipeline, against which the fast one is measured: the recipe word for word, frame by frame in Pillow.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from slowfast.benchmark.op import find_device, machine_line
from slowfast.config import load_cfg
from slowfast.datasets.augment.erasing import draw_erasing, erase_
from slowfast.datasets.augment.finish import build_finish
from slowfast.datasets.augment.transform import TrainTransform, draw_crop_box
from slowfast.datasets.build import build_dataset
from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.loader import collate, construct_loader
from slowfast.datasets.manifest import Record
from slowfast.datasets.video_dataset import Sample, TrainVideos
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

# Stages in their order; workers do all but the last, which includes the transfer to the training device.
STAGES = ("read", "decode", "augment", "collate", "finish")


@dataclass
class LoaderTimes:
    """Costs on one core, medians over the rounds.

    Attributes:
        stages_ms: milliseconds per video of each of ``STAGES``.
        clips_per_video: augmented copies.
        plain_ms: milliseconds per video of the plain pipeline on the same videos, None if it was not run.
    """

    stages_ms: dict[str, float]
    clips_per_video: int
    plain_ms: float | None = None

    @property
    def worker_ms(self) -> float:
        """Milliseconds per video in the worker."""
        return sum(self.stages_ms.values()) - self.stages_ms["finish"]

    def workers_for(self, num_videos: int, step_ms: float) -> int:
        """Return how many workers, with a core each, make a batch in the time of a step."""
        return math.ceil(num_videos * self.worker_ms / step_ms)


def time_stages(
    cfg, device: torch.device, videos_per_round: int = 8, rounds: int = 5, compare_plain: bool = False
) -> LoaderTimes:
    """Time every stage of training clips in this process, with one thread as in a worker.

    Each round takes other videos, as far as there are any, and new draws. The plain pipeline takes the same videos and
    draws, in turn with the other. Videos that cannot be decoded are left out.

    Args:
        cfg: the configuration.
        device: where batches are finished.
        videos_per_round: videos of a batch.
        rounds: number of measurements, after one that is not counted.
        compare_plain: whether to time the plain pipeline too.

    Raises:
        ValueError: no video of a round can be decoded, or a wrong value in the configuration.
    """
    dataset = build_dataset(cfg, "train")
    finish = build_finish(cfg, "train")
    clip_shape = (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    order = np.random.default_rng(cfg.RNG_SEED).permutation(dataset.num_videos)
    measured = []
    with _one_thread():
        for number in range(rounds + 1):
            videos = np.take(order, range(number * videos_per_round, (number + 1) * videos_per_round), mode="wrap")
            stopwatch, samples = _Stopwatch(), []
            for video in videos.tolist():
                sample = _time_sample(cfg, dataset, number, video, stopwatch, compare_plain)
                samples += [sample] if sample is not None else []
            if not samples:
                raise ValueError(f"none of the videos {videos.tolist()} (counted from 0) can be decoded")
            with stopwatch("collate"):
                batch = collate(samples, clip_shape)
            with stopwatch("finish", device):
                finish(batch.to(device).clips, batch.remainders)
            measured.append({stage: ms / len(samples) for stage, ms in stopwatch.ms.items()})
    medians = {stage: statistics.median(one[stage] for one in measured[1:]) for stage in measured[0]}
    return LoaderTimes({stage: medians[stage] for stage in STAGES}, dataset.num_copies, medians.get("plain"))


def time_loader(cfg, num_batches: int) -> float:
    """Return the clips per second of the training loader as configured, with all its workers."""
    loader = construct_loader(cfg, "train")
    # Workers deliver their first batches all at once: the clock starts when each has had its turn.
    warm_up = max(1, loader.num_workers)
    num_seen, num_clips, started, epoch = 0, 0, 0.0, 0
    while True:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            num_seen += 1
            if num_seen <= warm_up:
                started = time.perf_counter()
                continue
            num_clips += len(batch.clips)
            if num_seen == warm_up + num_batches:
                return num_clips / (time.perf_counter() - started)
        epoch += 1


def plain_clip(
    images: Sequence[Image.Image],
    rng: np.random.Generator,
    recipe: TrainTransform,
    mean: Sequence[float],
    std: Sequence[float],
    erase_mode: str,
) -> torch.Tensor:
    """Augment one clip as the recipe is written: whole frames, one by one, each step in full.

    Args:
        images: T frames, RGB.
        rng: source of every random number; from the same state the clip is that of the fast pipeline.
        recipe: the settings.
        mean: per channel, of RGB in [0, 1].
        std: per channel, of RGB in [0, 1].
        erase_mode: ``pixel`` | ``const``.

    Returns:
        float32 of shape (3, T, S, S), normalised.
    """
    width, height = images[0].size
    if recipe.rand_augment is not None:
        drawn = recipe.rand_augment.draw(rng, height, width)
        images = [recipe.rand_augment.apply_to_image(image, drawn) for image in images]
    clip = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float() / 255  # (T, H, W, 3)
    clip = ((clip - torch.tensor(mean)) / torch.tensor(std)).permute(3, 0, 1, 2)  # (3, T, H, W)
    top, left, box_height, box_width = draw_crop_box(rng, height, width, recipe.area_range, recipe.aspect_range)
    clip = clip[:, :, top : top + box_height, left : left + box_width]
    clip = F.interpolate(clip, size=(recipe.size, recipe.size), mode="bilinear", align_corners=False)
    if rng.random() < recipe.flip_prob:
        clip = clip.flip(-1)
    erasing = draw_erasing(rng, recipe.size, recipe.size, recipe.erase_prob, recipe.erase_count)
    return erase_(clip, erasing, erase_mode)


def write_synthetic_frames(
    folder: Path, num_videos: int, width: int, height: int, num_frames: int, seed: int = 0
) -> None:
    """Write videos of a drifting texture as folders of JPEG files, and the lists ``train.txt`` and ``val.txt``."""
    rng = np.random.default_rng(seed)
    lines = []
    for video in range(num_videos):
        texture = sum(
            cv2.resize(rng.normal(128 / octaves, 60 / scale**0.5, (size, size, 3)), (width + 64, height + 64))
            for octaves, scale, size in ((3, 1, 8), (3, 2, 24), (3, 6, 96))
        )
        texture = texture.clip(0, 255).astype(np.uint8)
        (folder / f"{video}").mkdir(parents=True)
        for frame in range(num_frames):
            x, y = (round(32 + 32 * turn(0.2 * frame)) for turn in (math.sin, math.cos))
            window = texture[y : y + height, x : x + width]
            cv2.imwrite(str(folder / f"{video}" / f"{frame + 1:05d}.jpg"), window, [cv2.IMWRITE_JPEG_QUALITY, 90])
        lines.append(f"{video} {num_frames} {video % 2}\n")
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("".join(lines))


class _Stopwatch:
    """Adds up the milliseconds spent under each name."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, device: torch.device | None = None):
        started = time.perf_counter()
        yield
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        self.add(name, 1000 * (time.perf_counter() - started))

    def add(self, name: str, ms: float) -> None:
        self.ms[name] = self.ms.get(name, 0.0) + ms


def _time_sample(
    cfg, dataset: TrainVideos, epoch: int, video: int, stopwatch: _Stopwatch, compare_plain: bool
) -> Sample | None:
    """Make one sample as the data set does, stage by stage; None if the video cannot be decoded."""
    record = dataset.records[video]
    rng = dataset.generator(epoch, video)
    try:
        first_read_ms = _read_ms(_files(cfg, record)) if os.path.isfile(record.path) else 0.0
        started = time.perf_counter()
        with dataset.open_reader(record) as reader:
            opened_ms = 1000 * (time.perf_counter() - started)
            indices = dataset.sampler.train(reader.num_frames, rng)
            files = _files(cfg, record, indices)
            first_read_ms = first_read_ms or _read_ms(files)
            # What reading costs once the files are in memory is part of what decoding takes from here on.
            again_ms = _read_ms(files)
            started = time.perf_counter()
            frames = reader.read(indices)
            decode_ms = opened_ms + 1000 * (time.perf_counter() - started) - again_ms
    except DecodeError as error:
        logger.warning("left out, not decodable: %s", error)
        return None
    stopwatch.add("read", first_read_ms)
    stopwatch.add("decode", max(decode_ms, 0.0))
    plain_rng = copy.deepcopy(rng)
    with stopwatch("augment"):
        sample = dataset.augment(frames, video, rng)
    if compare_plain:
        stopwatch.add("plain", first_read_ms - again_ms)
        with stopwatch("plain"):
            _plain_video(cfg, dataset, frames, files if os.path.isdir(record.path) else None, plain_rng)
    return sample


def _plain_video(cfg, dataset: TrainVideos, frames: np.ndarray, files: list[str] | None, rng) -> list[torch.Tensor]:
    """Make all clips of a video; image files are decoded by Pillow, videos are taken as decoded."""
    if files is None:
        images = [Image.fromarray(frame) for frame in frames]
    else:
        images = [Image.open(file).convert("RGB") for file in files]
    arguments = (rng, dataset.transform, cfg.DATA.MEAN, cfg.DATA.STD, cfg.AUG.RE_MODE)
    return [plain_clip(images, *arguments) for _ in range(dataset.num_copies)]


def _files(cfg, record: Record, indices: Sequence[int] = ()) -> list[str]:
    """Return the files that hold frames of a record; none where they are no files of their own."""
    if not os.path.isdir(record.path):
        return [record.path] if os.path.isfile(record.path) else []
    names = (cfg.DATA.IMAGE_TEMPLATE.format(index + cfg.DATA.FIRST_IMAGE) for index in indices)
    return [os.path.join(record.path, name) for name in names]


def _read_ms(files: Sequence[str]) -> float:
    started = time.perf_counter()
    for file in files:
        if os.path.exists(file):  # the reader says what is missing
            Path(file).read_bytes()
    return 1000 * (time.perf_counter() - started)


@contextmanager
def _one_thread():
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def report_loading(
    cfg: str,
    opts: Sequence[str],
    synthetic: str | None,
    compare_plain: bool,
    step_ms: float | None,
    stages_only: bool,
    videos: int,
    rounds: int,
    batches: int | None,
) -> tuple[str, dict]:
    """Time the stages of loading and the whole loader; return the table as text, and the figures."""
    settings = load_cfg(cfg, opts).clone()
    settings.defrost()
    device = find_device(settings.DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        if synthetic:
            _use_synthetic_frames(settings, Path(folder), synthetic, videos)
        times = time_stages(settings, device, videos, rounds, compare_plain)
        lines = [machine_line(device), *_stage_lines(times)]
        found = {"machine": lines[0], "clips_per_video": times.clips_per_video, "stages_ms": times.stages_ms}
        found |= {"worker_ms": times.worker_ms, "plain_ms": times.plain_ms}
        if compare_plain:
            ratios = [times.plain_ms / ms for ms in (times.worker_ms, times.worker_ms + times.stages_ms["finish"])]
            lines.append(
                f"plain pipeline {times.plain_ms:.1f} ms per video: {ratios[0]:.2f}x the time of the worker, "
                f"{ratios[1]:.2f}x with the finish"
            )
        if step_ms:
            num_videos = settings.TRAIN.BATCH_SIZE
            needed = times.workers_for(num_videos, step_ms)
            lines.append(f"a step of {step_ms:g} ms on {num_videos} videos needs {needed} workers, with a core each")
        if not stages_only:
            num_workers = settings.DATA_LOADER.NUM_WORKERS
            total = time_loader(settings, batches or 2 * max(2, num_workers))
            lines.append(f"in total {total:.1f} clips/s with {num_workers} workers on {os.cpu_count()} cores")
            found |= {"clips_per_sec": total, "workers": num_workers}
    return "\n".join(lines), found


def _use_synthetic_frames(cfg, folder: Path, size: str, num_videos: int) -> None:
    """Point the configuration at frames made for the occasion, as many as a batch needs."""
    try:
        width, height = (int(length) for length in size.split("x"))
    except ValueError:
        width = height = 0
    if min(width, height) < 16:
        raise UserError(f"--synthetic is {size!r}; allowed: WIDTHxHEIGHT in px, such as 427x240")
    num_frames = max(2, cfg.DATA.NUM_FRAMES * 3 // 2)
    write_synthetic_frames(folder, max(num_videos, cfg.TRAIN.BATCH_SIZE), width, height, num_frames)
    cfg.merge_from_list(
        ["DATA.DATASET", "VideoList", "DATA.SOURCE", "frames", "DATA.PATH_TO_DATA_DIR", str(folder)]
        + ["DATA.PATH_PREFIX", "", "DATA.LABEL_PATH_TEMPLATE", "{}.txt", "DATA.CLASS_NAMES_FILE", ""]
        + ["DATA.IMAGE_TEMPLATE", "{:05d}.jpg", "DATA.FIRST_IMAGE", 1, "DATA.PATH_LABEL_SEPARATOR", "auto"]
        + ["DATA.PACKED", "", "DATA.EXCLUDE_FILE", ""]
    )


def _stage_lines(times: LoaderTimes) -> list[str]:
    lines = ["stage     ms per video   share of the worker"]
    for stage, ms in times.stages_ms.items():
        share = "training process" if stage == "finish" else f"{ms / times.worker_ms:.1%}"
        lines.append(f"{stage:<10} {ms:11.2f}   {share}")
    lines.append(
        f"worker     {times.worker_ms:11.2f}   for {times.clips_per_video} clips: "
        f"{1000 * times.clips_per_video / times.worker_ms:.1f} clips/s per core, decoding "
        f"{times.stages_ms['decode'] / times.worker_ms:.0%} of the time"
    )
    return lines
