"""Time of loading: the stages of a training clip, and the whole loader."""

import itertools
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from slowfast.benchmark.op import machine_line
from slowfast.config import load_cfg
from slowfast.datasets.augment.on_device import build_train_batch_transform
from slowfast.datasets.build import build_dataset, with_num_classes
from slowfast.datasets.loader import collate, construct_loader
from slowfast.datasets.video_dataset import BadVideo, Sample
from slowfast.utils.distributed import choose_device
from slowfast.utils.errors import UserError

# Workers do all but the last, which includes the transfer to the training device.
STAGES = ("decode", "augment", "collate", "finish")
VIDEOS_PER_ROUND = 8


def report_loading(
    cfg, opts, synthetic: str | None, step_ms: float | None, stages_only: bool, rounds: int
) -> tuple[str, dict]:
    """Time the stages of loading and the whole loader; return the table as text, and the figures."""
    settings = load_cfg(cfg, opts).clone()
    settings.defrost()
    device = choose_device(settings.DEVICE, 0)
    with tempfile.TemporaryDirectory() as folder:
        if synthetic:
            _use_synthetic_frames(settings, Path(folder), synthetic)
        settings = with_num_classes(settings)
        ms, num_clips = time_stages(settings, device, rounds), settings.AUG.NUM_SAMPLE
        worker_ms = sum(ms[stage] for stage in STAGES[:-1])
        lines = [
            machine_line(device),
            "milliseconds per video on one core; finish (normalise, erase) is not the worker's",
            "  ".join(f"{stage} {ms[stage]:.2f}" for stage in STAGES),
            f"worker {worker_ms:.2f} for {num_clips} clips: {1000 * num_clips / worker_ms:.1f} clips/s per core, "
            f"decoding {100 * ms['decode'] / worker_ms:.0f} % of the time",
        ]
        if step_ms:
            needed = math.ceil(settings.TRAIN.BATCH_SIZE * worker_ms / step_ms)
            lines += [f"a step of {step_ms:g} ms on {settings.TRAIN.BATCH_SIZE} videos needs {needed} workers"]
        found = {"machine": lines[0], "ms_per_video": ms}
        if not stages_only:
            rate, is_known = time_loader(settings)
            found |= {"workers": settings.DATA_LOADER.NUM_WORKERS, "clips_per_sec": rate}
            lines += ["in total {clips_per_sec:.1f} clips/s with {workers} workers".format(**found)]
            lines += [] if is_known else ["which the list has too few batches for: the rate of a longer one is higher"]
    return "\n".join(lines), found


def time_stages(cfg, device: torch.device, rounds: int) -> dict[str, float]:
    """Return milliseconds per video of ``STAGES``, medians; this process stays with one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    dataset, batch_transform = build_dataset(cfg, "train"), build_train_batch_transform(cfg)
    batch_transform.mixup.prob = 0.0  # mixing is a part of the step
    order = np.random.default_rng(cfg.RNG_SEED).permutation(dataset.num_videos)

    def finish(batch) -> None:
        batch = batch.to(device)
        batch_transform(batch.clips, batch.labels, np.random.default_rng(number))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    measured = []
    for number in range(rounds + 1):  # the first is not counted
        ms, samples = Counter(), []
        for video in np.take(order, range(number * VIDEOS_PER_ROUND, (number + 1) * VIDEOS_PER_ROUND), mode="wrap"):
            rng = dataset.generator(number, int(video))
            frames = _timed(ms, "decode", dataset.decode, int(video), partial(dataset.sampler.train, rng=rng))
            if isinstance(frames, BadVideo):
                continue
            clips = _timed(ms, "augment", dataset.transform, frames, rng, dataset.num_copies)
            samples.append(Sample(clips, dataset.labels[video], int(video), tuple(range(len(clips)))))
        if not samples:
            raise UserError("none of the videos of a round can be decoded; `tools/prepare_data.py check` names them")
        batch = _timed(ms, "collate", collate, samples, clips.shape[1:])
        _timed(ms, "finish", finish, batch)
        measured.append({stage: value / len(samples) for stage, value in ms.items()})
    return {stage: statistics.median(one[stage] for one in measured[1:]) for stage in measured[0]}


def _timed(ms: Counter, stage: str, function: Callable, *args: Any) -> Any:
    started = time.perf_counter()
    result = function(*args)
    ms[stage] += 1000 * (time.perf_counter() - started)
    return result


def time_loader(cfg) -> tuple[float, bool]:
    """Return the clips per second of the training loader as configured, and whether it has enough batches to tell."""
    loader = construct_loader(cfg, "train")
    batches = iter(loader)
    # Workers deliver their first batches all at once: the clock starts when each has had its turn.
    for _ in range(min(max(1, loader.num_workers), len(loader) - 1)):
        next(batches)
    started = time.perf_counter()
    num_clips = sum(len(batch.clips) for batch in itertools.islice(batches, 2 * max(2, loader.num_workers)))
    return num_clips / (time.perf_counter() - started), len(loader) >= 3 * loader.num_workers


def _use_synthetic_frames(cfg, folder: Path, size: str) -> None:
    """Point the configuration at JPEG frames of a drifting texture, enough videos for a batch."""
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        raise UserError(f"--synthetic is {size!r}; allowed: WIDTHxHEIGHT in px, such as 427x240")
    rng, width, height = np.random.default_rng(0), int(width), int(height)
    num_videos, num_frames = max(VIDEOS_PER_ROUND, 2 * cfg.TRAIN.BATCH_SIZE), max(2, cfg.DATA.NUM_FRAMES * 3 // 2)
    for video in range(num_videos):
        (folder / f"{video}").mkdir()
        octaves = [rng.normal(128 / 3, 60 / scale**0.5, (side, side, 3)) for scale, side in ((1, 8), (2, 24), (6, 96))]
        texture = sum(cv2.resize(octave, (width + 64, height + 64)) for octave in octaves).clip(0, 255)
        for frame in range(num_frames):
            x, y = (round(32 + 32 * turn(0.2 * frame)) for turn in (math.sin, math.cos))
            image = texture[y : y + height, x : x + width].astype(np.uint8)
            cv2.imwrite(str(folder / f"{video}" / f"{frame + 1:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    (folder / "train.txt").write_text("".join(f"{video} {num_frames} {video % 2}\n" for video in range(num_videos)))
    cfg.merge_from_list(
        ["DATA.DATASET", "VideoList", "DATA.SOURCE", "frames", "DATA.PATH_TO_DATA_DIR", str(folder)]
        + ["DATA.PATH_PREFIX", "", "DATA.LABEL_PATH_TEMPLATE", "{}.txt", "DATA.CLASS_NAMES_FILE", ""]
        + ["DATA.IMAGE_TEMPLATE", "{:05d}.jpg", "DATA.FIRST_IMAGE", 1, "DATA.PACKED", "", "DATA.EXCLUDE_FILE", ""]
        + ["MODEL.NUM_CLASSES", cfg.MODEL.NUM_CLASSES or 2]
    )
