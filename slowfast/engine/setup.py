"""From a configuration to what training works with, and the report on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from slowfast.datasets.augment.on_device import Normalize, build_normalize, build_train_batch_transform
from slowfast.datasets.loader import construct_loader
from slowfast.engine.chain import starting_weights
from slowfast.engine.memory import MIB, MemoryEstimate, choose_micro_batch, estimate_memory
from slowfast.engine.observe import build_observer
from slowfast.engine.precision import resolve_precision
from slowfast.engine.record import Recorder
from slowfast.engine.step import ON_NONFINITE, Training, parallel_model
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters
from slowfast.models.optimizer import build_optimizer
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.distributed import Process, gather_to_all
from slowfast.utils.schedule import cosine_with_warmup, seed_everything

logger = logging.getLogger(__name__)


@dataclass
class Setup:
    """All that a training run works with; ``model`` is the one that ``training`` may have wrapped."""

    training: Training
    model: nn.Module
    train_loader: DataLoader
    val_loader: DataLoader
    val_normalize: Normalize
    val_precision: str


def build_setup(cfg, process: Process, recorder: Recorder, is_resumed: bool) -> Setup:
    """Build loaders, model, optimizer and their helpers, and log a report.

    Args:
        cfg: the configuration.
        process: this process.
        recorder: of the run.
        is_resumed: whether weights will come from a checkpoint, so that MODEL.PRETRAINED is not needed.

    Raises:
        ValueError: a wrong setting or input, naming it.
        FileNotFoundError: a missing list or weight file, or an experiment to start from that has not been trained.
    """
    check_train_settings(cfg, process)
    precision = resolve_precision(cfg.TRAIN.PRECISION, process.device, "TRAIN.PRECISION")
    val_precision = resolve_precision(cfg.TEST.PRECISION, process.device, "TEST.PRECISION")
    train_loader = construct_loader(cfg, "train", process.rank, process.world_size)
    val_loader = construct_loader(cfg, "val", process.rank, process.world_size)

    seed_everything(cfg.RNG_SEED)
    model = build_model(cfg)
    if cfg.MODEL.PRETRAINED and not is_resumed:
        load_pretrained(model, find_pretrained(cfg), cfg.MODEL.PRETRAINED_MIN_MATCH)
    if cfg.DIST.SYNC_BATCHNORM and process.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(process.device)

    ema = None
    if cfg.SOLVER.EMA_DECAY:
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.SOLVER.EMA_DECAY))
    clips_per_step = cfg.TRAIN.BATCH_SIZE // process.world_size * cfg.AUG.NUM_SAMPLE
    memory = estimate_training_memory(cfg, model, precision)
    micro_batch_size = cfg.TRAIN.MICRO_BATCH_SIZE
    if micro_batch_size == "auto":
        local = int(os.environ.get("LOCAL_WORLD_SIZE", process.world_size))
        shape = _clip_shape(cfg)
        size = choose_micro_batch(model, shape, precision, memory, clips_per_step, process.device, local)
        micro_batch_size = min(gather_to_all(size))
        logger.info("TRAIN.MICRO_BATCH_SIZE auto: passes of %d of %d clips", micro_batch_size, clips_per_step)
    clips_per_pass = micro_batch_size or clips_per_step
    describe(cfg, process, model, precision, memory, clips_per_pass, train_loader, val_loader)

    optimizer = build_optimizer(model, cfg)
    if cfg.MODEL.COMPILE:
        model.compile()  # in place: names in checkpoints stay as they are
    training = Training(
        model=parallel_model(model, process, cfg.DIST.STATIC_GRAPH),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(process.device.type, enabled=precision == "fp16"),
        schedule=_schedule(cfg),
        transform=build_train_batch_transform(cfg),
        process=process,
        recorder=recorder,
        precision=precision,
        clip_gradient=cfg.SOLVER.CLIP_GRADIENT,
        clips_per_step=clips_per_step,
        micro_batch_size=micro_batch_size,
        log_period=cfg.LOG_PERIOD,
        seed=cfg.RNG_SEED,
        ema=ema,
        on_nonfinite=cfg.TRAIN.ON_NONFINITE,
        observer=build_observer(cfg, recorder, process.is_main, train_loader.dataset.class_names),
    )
    return Setup(training, model, train_loader, val_loader, build_normalize(cfg), val_precision)


def check_train_settings(cfg, process: Process) -> None:
    """Raise ValueError for a setting of training that is wrong by itself."""
    train, solver = cfg.TRAIN, cfg.SOLVER
    micro_batch_is_valid = train.MICRO_BATCH_SIZE == "auto" or train.MICRO_BATCH_SIZE >= 0
    for key, value, is_valid, allowed in (
        ("RNG_SEED", cfg.RNG_SEED, cfg.RNG_SEED >= 0, "0 or more"),
        ("LOG_PERIOD", cfg.LOG_PERIOD, cfg.LOG_PERIOD >= 1, "1 or more"),
        ("DATA.MAX_BAD_SHARE", cfg.DATA.MAX_BAD_SHARE, 0 <= cfg.DATA.MAX_BAD_SHARE <= 1, "0 to 1"),
        ("TRAIN.MICRO_BATCH_SIZE", train.MICRO_BATCH_SIZE, micro_batch_is_valid, "auto, 0 (all) or more"),
        ("TRAIN.EVAL_PERIOD", train.EVAL_PERIOD, train.EVAL_PERIOD >= 1, "1 or more"),
        ("TRAIN.CHECKPOINT_PERIOD", train.CHECKPOINT_PERIOD, train.CHECKPOINT_PERIOD >= 1, "1 or more"),
        ("TRAIN.CHECKPOINT_STEPS", train.CHECKPOINT_STEPS, train.CHECKPOINT_STEPS >= 0, "0 (off) or more"),
        ("TRAIN.KEEP_CHECKPOINTS", train.KEEP_CHECKPOINTS, train.KEEP_CHECKPOINTS >= 2, "2 or more"),
        ("TRAIN.KEEP_EVERY", train.KEEP_EVERY, train.KEEP_EVERY >= 0, "0 (off) or more"),
        ("TRAIN.ON_NONFINITE", train.ON_NONFINITE, train.ON_NONFINITE in ON_NONFINITE, " | ".join(ON_NONFINITE)),
        ("SOLVER.MAX_EPOCH", solver.MAX_EPOCH, solver.MAX_EPOCH >= 1, "1 or more"),
        ("SOLVER.WARMUP_EPOCHS", solver.WARMUP_EPOCHS, solver.WARMUP_EPOCHS >= 0, "0 or more"),
        ("SOLVER.CLIP_GRADIENT", solver.CLIP_GRADIENT, solver.CLIP_GRADIENT >= 0, "0 (off) or more"),
        ("SOLVER.BETAS", solver.BETAS, len(solver.BETAS) == 2, "two numbers"),
        ("SOLVER.EMA_DECAY", solver.EMA_DECAY, 0 <= solver.EMA_DECAY < 1, "0 (off) or more, below 1"),
        ("MODEL.NUM_CLASSES", cfg.MODEL.NUM_CLASSES, cfg.MODEL.NUM_CLASSES >= 2, "2 or more"),
    ):
        if not is_valid:
            raise ValueError(f"{key} is {value!r}; allowed: {allowed}")
    if cfg.DIST.SYNC_BATCHNORM and process.device.type != "cuda":
        raise ValueError("DIST.SYNC_BATCHNORM is True, but PyTorch synchronises batch norms on CUDA devices only")


def find_pretrained(cfg) -> str:
    """Return the weight file that MODEL.PRETRAINED means.

    Raises:
        FileNotFoundError: there is none, saying where to get it or what to train first.
        ValueError: the experiment that it names is not finished.
    """
    try:
        return starting_weights(cfg.MODEL.PRETRAINED, cfg.dump())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"MODEL.PRETRAINED: {error}. {cfg.MODEL.PRETRAINED_HINT}".rstrip()) from error
    except ValueError as error:
        raise ValueError(f"MODEL.PRETRAINED: {error}") from error


def estimate_training_memory(cfg, model: nn.Module, precision: str) -> MemoryEstimate:
    """Estimate what training ``model`` (on any device) takes, as :func:`estimate_memory` does."""
    states = {"adamw": 2}.get(cfg.SOLVER.OPTIMIZING_METHOD, 1) + bool(cfg.SOLVER.EMA_DECAY)
    return estimate_memory(model, _clip_shape(cfg), precision, states)


def _clip_shape(cfg) -> tuple[int, int, int, int]:
    return (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)


def _schedule(cfg) -> Callable[[float], float]:
    solver = cfg.SOLVER
    if solver.WARMUP_EPOCHS >= solver.MAX_EPOCH:
        logger.warning(
            "SOLVER.WARMUP_EPOCHS %g is not less than SOLVER.MAX_EPOCH %d: the learning rate rises to the end",
            solver.WARMUP_EPOCHS, solver.MAX_EPOCH,
        )  # fmt: skip
    return partial(
        cosine_with_warmup,
        base_lr=solver.BASE_LR,
        max_epoch=solver.MAX_EPOCH,
        warmup_epochs=solver.WARMUP_EPOCHS,
        warmup_start_lr=solver.WARMUP_START_LR,
        end_lr=solver.COSINE_END_LR,
    )


def describe(
    cfg, process: Process, model: nn.Module, precision: str, memory: MemoryEstimate, clips_per_pass: int,
    train_loader: DataLoader | None, val_loader: DataLoader | None,
) -> None:  # fmt: skip
    """Say what is about to be trained, so that a wrong number is seen before the hours it would cost.

    Without loaders (None), where the data are missing, without what only they know.
    """
    clip_shape = _clip_shape(cfg)
    size = "x".join(str(length) for length in clip_shape[1:])
    steps = "" if train_loader is None else f", {len(train_loader)} steps per epoch"
    logger.info(
        "model: %s, %s parameters, %.2f GFLOPs (multiply-accumulates) per clip of %s",
        cfg.MODEL.MODEL_NAME, f"{count_parameters(model):,}", count_gmacs(model, clip_shape), size,
    )  # fmt: skip
    if train_loader is not None and val_loader is not None:
        logger.info(
            "data: %s training and %s validation videos, %d classes",
            f"{train_loader.dataset.num_videos:,}", f"{val_loader.dataset.num_videos:,}", cfg.MODEL.NUM_CLASSES,
        )  # fmt: skip
    for line in (
        f"batch: {cfg.TRAIN.BATCH_SIZE} videos x {cfg.AUG.NUM_SAMPLE} clips per step, "
        f"{cfg.TRAIN.BATCH_SIZE // process.world_size} videos per process{steps}",
        f"memory: about {memory.of(clips_per_pass) / MIB:,.0f} MiB per process in passes of {clips_per_pass} clips "
        f"({memory.per_clip / MIB:,.0f} MiB of activations a clip), without the loader",
        f"solver: {cfg.SOLVER.OPTIMIZING_METHOD}, learning rate {cfg.SOLVER.BASE_LR:g}, {cfg.SOLVER.MAX_EPOCH} epochs "
        f"({cfg.SOLVER.WARMUP_EPOCHS:g} warm-up), weight decay {cfg.SOLVER.WEIGHT_DECAY:g}, precision {precision}",
    ):
        logger.info(line)
