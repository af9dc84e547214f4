"""Dry runs: build what a command works with, read a few videos, and say what is missing, in seconds."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from slowfast.datasets.augment.on_device import Normalize, build_normalize
from slowfast.datasets.build import build_dataset
from slowfast.datasets.loader import construct_loader
from slowfast.engine.checkpoint import checkpoint_to_test, list_checkpoints
from slowfast.engine.precision import resolve_precision
from slowfast.engine.record import Recorder
from slowfast.engine.setup import build_setup, check_train_settings, describe, estimate_training_memory, find_pretrained
from slowfast.engine.test import check_test_settings, describe_views, load_tested
from slowfast.models import build_model
from slowfast.utils.distributed import Process
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

# Read in the process itself, whatever the size of a batch: one of 256 videos of 32 frames would take minutes.
NUM_ITEMS = 2


def dry_run(cfg, process: Process, tasks: tuple[str, ...], command: str) -> None:
    """Log what ``tasks`` would do, as far as what they need is there; write nothing.

    Args:
        cfg: the configuration.
        process: this process.
        tasks: of "train" and "test".
        command: what trains this configuration, for the report on a missing checkpoint.

    Raises:
        ValueError: a wrong setting or input, or no video can be decoded; files are missing, all of them named.
    """
    missing: list[str] = []
    if "train" in tasks:
        _dry_train(cfg, process, missing)
    if "test" in tasks:
        _dry_test(cfg, process, missing, None if "train" in tasks else command)
    if missing:
        raise ValueError(f"dry run: what is here was checked, but something is missing:{_listed(missing)}")


def _listed(missing: list[str]) -> str:
    """Return a line per problem; training and test may have the same."""
    return "".join(f"\n- {problem}" for problem in dict.fromkeys(missing))


@contextlib.contextmanager
def _noted(missing: list[str], *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, UserError, *kinds) as error:
        missing.append(str(error))


def _dry_train(cfg, process: Process, missing: list[str]) -> None:
    check_train_settings(cfg, process)
    checkpoints, before = list_checkpoints(cfg.OUTPUT_DIR), len(missing)
    for split in ("train", "val"):
        with _noted(missing):
            build_dataset(cfg, split)
    if cfg.MODEL.PRETRAINED and not checkpoints:
        with _noted(missing, ValueError):  # which says that an earlier experiment is not finished
            find_pretrained(cfg)
    if len(missing) > before:
        precision = resolve_precision(cfg.TRAIN.PRECISION, process.device, "TRAIN.PRECISION")
        with torch.device("meta"):
            model = build_model(cfg)
        clips = cfg.TRAIN.BATCH_SIZE // process.world_size * cfg.AUG.NUM_SAMPLE
        memory = estimate_training_memory(cfg, model, precision)
        describe(cfg, process, model, precision, memory, clips, None, None)
        return
    nothing = Recorder(cfg.OUTPUT_DIR, enabled=False, tensorboard=False)
    setup = build_setup(cfg, process, nothing, is_resumed=bool(checkpoints))
    _read_some(setup.train_loader, build_normalize(cfg), process, "training")
    logger.info(
        "dry run: %s", f"training would go on from {checkpoints[0]}" if checkpoints else "training would start anew"
    )


def _dry_test(cfg, process: Process, missing: list[str], command: str | None) -> None:
    """Check a test; ``command`` trains what it needs, None if that is part of the run."""
    before = len(missing)
    with _noted(missing):
        check_test_settings(cfg)
    with _noted(missing):
        if command:
            _find_tested(cfg, command)
    logger.info("test: %s, %s", describe_views(cfg), cfg.DATA.ENSEMBLE_METHOD)
    if len(missing) > before:
        return
    loader = construct_loader(cfg, "test", process.rank, process.world_size)
    videos = loader.dataset
    logger.info(
        "test: %d videos x %d views of %s, %d clips per step",
        videos.num_videos, videos.num_views, videos.records[0].origin.rpartition(":")[0], cfg.TEST.BATCH_SIZE,
    )  # fmt: skip
    if command:
        path = _find_tested(cfg, command)
        with _noted(missing):
            load_tested(cfg, path, videos.class_names)
        if missing:
            return
        logger.info("test: the model has the weights of %s", path)
        _read_some(loader, build_normalize(cfg), process, "test")
        logger.info("dry run: the test would write its results to %s", cfg.OUTPUT_DIR)


def _find_tested(cfg, command: str) -> str:
    try:
        return checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} ({command} trains)") from error


def _read_some(loader: DataLoader, normalize: Normalize, process: Process, what: str) -> None:
    """Read the first items of a loader and normalise them for the model."""
    started = time.perf_counter()
    items = [loader.dataset[key] for key in itertools.islice(loader.sampler, NUM_ITEMS)]
    batch = loader.collate_fn(items)
    for bad in batch.bad:
        logger.warning("not decodable: %s: %s", bad.path, bad.reason)
    if not len(batch.clips):
        raise ValueError(f"none of the first {len(items)} {what} items can be decoded, see above")
    clips = normalize(batch.to(process.device).clips)
    logger.info(
        "first %d %s items: clips %s, %s, mean %.2f, standard deviation %.2f, labels %d to %d, read in %.1f s",
        len(items), what, tuple(clips.shape), str(clips.dtype).removeprefix("torch."), clips.mean(), clips.std(),
        batch.labels.min(), batch.labels.max(), time.perf_counter() - started,
    )  # fmt: skip
