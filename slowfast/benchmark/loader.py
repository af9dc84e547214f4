"""Time of loading: stages of a training clip against the plain pipeline, the recipe word for word in Pillow."""

import itertools
import math
import os
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
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from slowfast.benchmark.op import machine_line
from slowfast.config import load_cfg
from slowfast.datasets.augment.on_device import build_train_batch_transform
from slowfast.datasets.augment.rand_augment import GEOMETRIC, Operation
from slowfast.datasets.augment.transform import draw_crop_box
from slowfast.datasets.augment.warp import VALUE_TABLES
from slowfast.datasets.build import build_dataset, with_num_classes
from slowfast.datasets.loader import collate, construct_loader
from slowfast.datasets.video_dataset import BadVideo, Sample, TrainVideos
from slowfast.utils.distributed import choose_device
from slowfast.utils.errors import UserError

# Workers do all but the last, which includes the transfer to the training device.
STAGES = ("decode", "augment", "collate", "finish")
VIDEOS_PER_ROUND = 8


def report_loading(
    cfg, opts, synthetic: str | None, compare_plain: bool, step_ms: float | None, stages_only: bool, rounds: int
) -> tuple[str, dict]:
    """Time the stages of loading and the whole loader; return the table as text, and the figures."""
    settings = load_cfg(cfg, opts).clone()
    settings.defrost()
    device = choose_device(settings.DEVICE, 0)
    with tempfile.TemporaryDirectory() as folder:
        if synthetic:
            _use_synthetic_frames(settings, Path(folder), synthetic)
        settings = with_num_classes(settings)
        ms, num_clips = time_stages(settings, device, rounds, compare_plain), settings.AUG.NUM_SAMPLE
        worker_ms = sum(ms[stage] for stage in STAGES[:-1])
        lines = [
            machine_line(device),
            "milliseconds per video on one core; finish (normalise, erase) is not the worker's",
            "  ".join(f"{stage} {ms[stage]:.2f}" for stage in STAGES),
            f"worker {worker_ms:.2f} for {num_clips} clips: {1000 * num_clips / worker_ms:.1f} clips/s per core, "
            f"decoding {100 * ms['decode'] / worker_ms:.0f} % of the time",
        ]
        if compare_plain:
            ratio = ms["plain"] / (worker_ms + ms["finish"])
            lines += [f"plain pipeline {ms['plain']:.1f}: {ratio:.2f}x the time of all stages"]
        if step_ms:
            needed = math.ceil(settings.TRAIN.BATCH_SIZE * worker_ms / step_ms)
            lines += [f"a step of {step_ms:g} ms on {settings.TRAIN.BATCH_SIZE} videos needs {needed} workers"]
        found = {"machine": lines[0], "ms_per_video": ms}
        if not stages_only:
            found |= {"workers": settings.DATA_LOADER.NUM_WORKERS, "clips_per_sec": time_loader(settings)}
            lines += ["in total {clips_per_sec:.1f} clips/s with {workers} workers".format(**found)]
    return "\n".join(lines), found


def time_stages(cfg, device: torch.device, rounds: int, compare_plain: bool) -> dict[str, float]:
    """Return milliseconds per video of ``STAGES`` and ``plain``, medians; this process stays with one thread."""
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
            rng, plain_rng = (dataset.generator(number, int(video)) for _ in range(2))
            frames = _timed(ms, "decode", dataset.decode, int(video), partial(dataset.sampler.train, rng=rng))
            if isinstance(frames, BadVideo):
                continue
            clips = _timed(ms, "augment", dataset.transform, frames, rng, dataset.num_copies)
            samples.append(Sample(clips, dataset.labels[video], int(video), tuple(range(len(clips)))))
            if compare_plain:
                _timed(ms, "plain", plain_clips, cfg, dataset, int(video), frames, plain_rng, batch_transform.erasing)
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


def time_loader(cfg) -> float:
    """Return the clips per second of the training loader as configured, over two batches of each worker."""
    loader = construct_loader(cfg, "train")
    batches = iter(loader)
    # Workers deliver their first batches all at once: the clock starts when each has had its turn.
    for _ in range(min(max(1, loader.num_workers), len(loader) - 1)):
        next(batches)
    started = time.perf_counter()
    num_clips = sum(len(batch.clips) for batch in itertools.islice(batches, 2 * max(2, loader.num_workers)))
    return num_clips / (time.perf_counter() - started)


def apply_with_pillow(image: Image.Image, operation: Operation) -> Image.Image:
    """Apply one operation of RandAugment to a frame, by its definition."""
    name, arguments = operation
    if name in GEOMETRIC:
        affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, affine, arguments, bicubic, fillcolor=(128, 128, 128))
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(*arguments)
    if name in ("AutoContrast", "Equalize", "Invert"):
        return getattr(ImageOps, name.lower())(image)
    return image.point(VALUE_TABLES[name](*arguments).tolist() * 3)


def plain_clips(cfg, dataset: TrainVideos, video: int, frames: np.ndarray, rng, erasing) -> list[torch.Tensor]:
    """Make the clips of a video plainly: whole frames, one by one, each step in full, with the draws of the data set.

    Image files are decoded by Pillow too; of videos ``frames`` are taken, as decoded.
    """
    record, recipe = dataset.records[video], dataset.transform
    numbers = dataset.sampler.train(record.num_frames or len(frames), rng)
    images = [Image.fromarray(frame) for frame in frames]
    if os.path.isdir(record.path):
        names = (cfg.DATA.IMAGE_TEMPLATE.format(number + cfg.DATA.FIRST_IMAGE) for number in numbers)
        images = [Image.open(os.path.join(record.path, name)).convert("RGB") for name in names]
    width, height = images[0].size
    mean, std = torch.tensor([cfg.DATA.MEAN, cfg.DATA.STD])
    clips = []
    for _ in range(dataset.num_copies):
        augmented = images
        for operation in recipe.rand_augment.draw(rng, height, width) if recipe.rand_augment else ():
            augmented = [apply_with_pillow(image, operation) for image in augmented]
        clip = torch.from_numpy(np.stack([np.asarray(image) for image in augmented])).float() / 255  # (T, H, W, 3)
        clip = ((clip - mean) / std).permute(3, 0, 1, 2)  # (3, T, H, W)
        top, left, box_height, box_width = draw_crop_box(rng, height, width, recipe.area_range, recipe.aspect_range)
        clip = clip[:, :, top : top + box_height, left : left + box_width]
        clip = F.interpolate(clip, size=(recipe.size, recipe.size), mode="bilinear", align_corners=False)
        clips.append(clip.flip(-1) if rng.random() < recipe.flip_prob else clip)
    return [erasing(clip[None], rng)[0] for clip in clips]


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
