"""From a configuration to what training and tests work with, and the report on it."""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from slowfast.datasets.augment.on_device import build_train_batch_transform
from slowfast.datasets.loader import construct_loader, shut_down
from slowfast.engine.checkpoint import Checkpoints, class_difference, list_checkpoints, starting_weights
from slowfast.engine.record import Recorder
from slowfast.engine.report import Report, draw_training_batch
from slowfast.engine.test import Evaluation, autocast, resolve_precision, validate
from slowfast.models import build_model
from slowfast.models.build import different_data, freeze
from slowfast.models.complexity import count_gmacs, count_parameters, training_clip_shape
from slowfast.models.losses import build_loss
from slowfast.models.optimizer import build_optimizer
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.distributed import Process, gather_to_all
from slowfast.utils.errors import UserError
from slowfast.utils.schedule import cosine_with_warmup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Plain settings of a training."""

    seed: int
    rank: int
    is_alone: bool
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    batch_transform: Callable  # bytes (B, 3, T, H, W), labels and a generator to clips and targets
    schedule: Callable[[float], float]  # progress in epochs to the learning rate
    clips_per_step: int  # of this process, if no video is bad
    micro_batch: int  # clips of a pass, 0: all
    clip_gradient: float
    num_epochs: int
    eval_period: int
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of logits and targets (B, K), the sum over the clips
    stop_after: int  # validations without a better one; 0: never

    def is_finished(self, state) -> bool:
        """Return whether a ``train.TrainState`` is at its end: all epochs are done, or it gets no better any more."""
        is_stale = 0 < self.stop_after <= state.num_stale
        return state.is_validated and (is_stale or state.epoch >= self.num_epochs)

    def is_validated_after(self, epoch: int) -> bool:
        """Return whether a validation follows ``epoch`` finished epochs."""
        return epoch == self.num_epochs or epoch % self.eval_period == 0


@dataclass
class Training:
    """Parts of a training run, whose loaders end with its ``with`` block.

    ``model`` is wrapped where there are several processes; ``validate`` is ``test.validate`` without what is known.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    plan: Plan
    loader: DataLoader
    evaluation: Evaluation
    validate: Callable[..., float | None]
    report: Report
    checkpoints: Checkpoints

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_) -> None:
        shut_down(self.loader)
        shut_down(self.evaluation.loader)

    @classmethod
    def from_config(cls, cfg, process: Process, recorder: Recorder) -> "Training":
        """Build model, optimizer, loaders and their helpers, and log a description."""
        device = process.device
        loader = construct_loader(cfg, "train", process.rank, process.world_size)
        model = _build_model(cfg, process, loader.dataset.class_names)
        ema = None
        if cfg.SOLVER.EMA_DECAY:
            ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.SOLVER.EMA_DECAY))
            ema.n_averaged = ema.n_averaged.cpu()  # asked for in every step, which should not make the host wait
        optimizer = build_optimizer(model, cfg)
        precision = resolve_precision(cfg.TRAIN.PRECISION, device)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        evaluation = Evaluation.from_config(cfg, process, "val")
        plan = _build_plan(cfg, process, model, precision, loader.dataset.labels)
        _describe(cfg, model, precision, loader, evaluation.loader)
        report, checkpoints = _build_records(cfg, process, recorder, loader, evaluation.loader, scaler)
        if cfg.MODEL.COMPILE:
            model.compile()  # in place: names in checkpoints stay as they are
        if not plan.is_alone:
            model = DistributedDataParallel(model, device_ids=[process.local_rank] if device.type == "cuda" else None)
        validation = partial(validate, evaluation, recorder, plan.loss)
        return cls(model, optimizer, scaler, ema, plan, loader, evaluation, validation, report, checkpoints)


def choose_micro_batch(
    model: nn.Module, clip_shape: tuple[int, int, int, int], precision: str, clips_per_step: int, device: torch.device
) -> int:
    """Return the largest number of clips, a halving of ``clips_per_step``, whose passes fit on a CUDA device.

    Passes are tried, beginning with all clips; the smallest result of all processes counts. A CPU has no such limit
    that could be tried: its system kills what takes too much.
    """
    if device.type != "cuda":
        raise UserError("TRAIN.MICRO_BATCH_SIZE is auto; allowed on a CPU: a number of clips, or 0 for all at once")
    size = clips_per_step
    while size > 1 and not _fits(model, clip_shape, precision, size, device):
        size = (size + 1) // 2
    size = min(gather_to_all(size))
    logger.info("TRAIN.MICRO_BATCH_SIZE auto: passes of %d of %d clips", size, clips_per_step)
    return size


def _fits(model: nn.Module, clip_shape: tuple, precision: str, size: int, device: torch.device) -> bool:
    """Try a pass beside the optimizer state to come; parameters and buffers stay as they are."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        state = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(3)]
        with autocast(precision, device)():
            logits = model(torch.randn((size, *clip_shape), device=device))
        logits.float().sum().backward()
        del state
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
        model.penalty = 0.0  # with the graph of this pass the model could not be copied
        for buffer, kept in zip(model.buffers(), buffers):
            buffer.copy_(kept)
        torch.cuda.empty_cache()


def _build_model(cfg, process: Process, class_names: list[str] | None) -> nn.Module:
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg)
    if difference := different_data(model, cfg):
        logger.warning("%s: %s", cfg.MODEL.MODEL_NAME, difference)
    if cfg.MODEL.PRETRAINED and not list_checkpoints(cfg.OUTPUT_DIR):  # whose weights would come instead
        prefixes = ("DATA.MEAN", "DATA.STD", "MODEL.MODEL_NAME", *(f"{section}." for section in model.SECTIONS))
        path = starting_weights(cfg.MODEL.PRETRAINED, cfg.dump(), prefixes, model.TRAINING_ONLY)
        loaded = load_pretrained(model, path, cfg.MODEL.INFLATION)
        if loaded.has_head and (difference := class_difference(loaded.class_names, class_names)):
            logger.warning("%s: its classifier is of other class names or another order: %s", path, difference)
    if cfg.DIST.SYNC_BATCHNORM and process.device.type != "cuda":
        raise UserError("DIST.SYNC_BATCHNORM is True, but PyTorch synchronises batch norms on CUDA devices only")
    if cfg.DIST.SYNC_BATCHNORM and process.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    freeze(model, cfg.MODEL.FREEZE)
    return model.to(process.device)


def _build_plan(cfg, process: Process, model: nn.Module, precision: str, labels: np.ndarray) -> Plan:
    clips_per_step = cfg.TRAIN.BATCH_SIZE // process.world_size * cfg.AUG.NUM_SAMPLE
    micro_batch = cfg.TRAIN.MICRO_BATCH_SIZE
    if micro_batch == "auto":
        micro_batch = choose_micro_batch(model, training_clip_shape(cfg), precision, clips_per_step, process.device)
    return Plan(
        seed=cfg.RNG_SEED,
        rank=process.rank,
        is_alone=process.world_size == 1,
        device=process.device,
        autocast=autocast(precision, process.device),
        batch_transform=build_train_batch_transform(cfg),
        schedule=_build_schedule(cfg.SOLVER),
        clips_per_step=clips_per_step,
        micro_batch=micro_batch,
        clip_gradient=cfg.SOLVER.CLIP_GRADIENT,
        num_epochs=cfg.SOLVER.MAX_EPOCH,
        eval_period=cfg.TRAIN.EVAL_PERIOD,
        loss=build_loss(cfg, labels, process.device),
        stop_after=cfg.SOLVER.STOP_AFTER,
    )


def _build_schedule(solver) -> Callable[[float], float]:
    if solver.COSINE_END_LR > solver.BASE_LR:
        raise UserError(f"SOLVER.COSINE_END_LR {solver.COSINE_END_LR:g} is above SOLVER.BASE_LR {solver.BASE_LR:g}")
    if solver.WARMUP_EPOCHS and solver.WARMUP_START_LR > solver.BASE_LR:
        raise UserError(f"SOLVER.WARMUP_START_LR {solver.WARMUP_START_LR:g} is above BASE_LR {solver.BASE_LR:g}")
    if solver.WARMUP_EPOCHS >= solver.MAX_EPOCH:
        logger.warning("SOLVER.WARMUP_EPOCHS is not less than SOLVER.MAX_EPOCH: the learning rate rises to the end")
    rates = {"base_lr": solver.BASE_LR, "warmup_start_lr": solver.WARMUP_START_LR, "end_lr": solver.COSINE_END_LR}
    return partial(cosine_with_warmup, max_epoch=solver.MAX_EPOCH, warmup_epochs=solver.WARMUP_EPOCHS, **rates)


def _build_records(
    cfg, process: Process, recorder: Recorder, train: DataLoader, val: DataLoader, scaler: torch.amp.GradScaler
) -> tuple[Report, Checkpoints]:
    if isinstance(cfg.TEST.CHECKPOINT, int) and cfg.TEST.CHECKPOINT > cfg.SOLVER.MAX_EPOCH:
        raise UserError(f"TEST.CHECKPOINT is {cfg.TEST.CHECKPOINT}, but SOLVER.MAX_EPOCH {cfg.SOLVER.MAX_EPOCH}")
    if isinstance(cfg.TEST.CHECKPOINT, int) and cfg.SOLVER.STOP_AFTER:
        found = f"TEST.CHECKPOINT is {cfg.TEST.CHECKPOINT}, an epoch that SOLVER.STOP_AFTER {cfg.SOLVER.STOP_AFTER}"
        raise UserError(f"{found} may leave out; allowed with it: best | last")
    dataset, draw = train.dataset, None
    if process.is_main and cfg.TENSORBOARD.IMAGES_PERIOD:
        facts = (cfg.DATA.MEAN, cfg.DATA.STD, cfg.MIXUP.LABEL_SMOOTH_VALUE, dataset.class_names)
        path = os.path.join(cfg.OUTPUT_DIR, "train_batch.png")
        draw = partial(draw_training_batch, recorder, path, cfg.TENSORBOARD.IMAGES_PERIOD, facts)
    report = Report(
        recorder,
        process,
        [record.path for record in dataset.records],
        scaler,
        draw,
        log_period=cfg.LOG_PERIOD,
        may_skip=cfg.TRAIN.ON_NONFINITE == "skip",
        max_bad_share=cfg.DATA.MAX_BAD_SHARE,
        histogram_period=cfg.TENSORBOARD.HISTOGRAM_PERIOD,
    )
    lines = "".join(f"{record.name}\t{record.label}\n" for record in dataset.records)
    identity = {
        "cfg": cfg.dump(),
        "class_names": dataset.class_names,
        "lists": hashlib.sha256(lines.encode()).hexdigest(),
        "val_videos": sorted(record.name for record in val.dataset.records),
        "world_size": process.world_size,
        "num_steps": len(train),
    }
    checkpoints = Checkpoints(
        cfg.OUTPUT_DIR,
        identity,
        recorder,
        process.is_main,
        num_kept=cfg.TRAIN.KEEP_CHECKPOINTS,
        period=cfg.TRAIN.CHECKPOINT_PERIOD,
        steps=cfg.TRAIN.CHECKPOINT_STEPS,
        may_change=cfg.TRAIN.RESUME_CHANGED,
        chosen=cfg.TEST.CHECKPOINT,
    )
    return report, checkpoints


def _describe(cfg, model: nn.Module, precision: str, train: DataLoader, val: DataLoader) -> None:
    """Say what is about to be trained, so that a wrong number is seen before the hours it would cost."""
    solver, clip_shape = cfg.SOLVER, training_clip_shape(cfg)
    is_mixed = cfg.MIXUP.ENABLE and cfg.MIXUP.PROB > 0 and not cfg.DATA.MULTI_LABEL
    size = "x".join(map(str, clip_shape[1:]))
    chance = f"; mixed clips are right with either class, by chance about {200 / cfg.MODEL.NUM_CLASSES:.3g} %"
    for line in (
        f"model: {cfg.MODEL.MODEL_NAME}, {count_parameters(model):,} parameters, {count_gmacs(model, clip_shape):.4g} "
        f"GFLOPs (multiply-accumulates) per clip of {size}",
        f"data: {train.dataset.num_videos:,} training and {val.dataset.num_videos:,} validation videos, "
        f"{cfg.MODEL.NUM_CLASSES} classes",
        f"batch: {cfg.TRAIN.BATCH_SIZE} videos x {cfg.AUG.NUM_SAMPLE} clips per step, {len(train)} steps per epoch"
        f"{chance if is_mixed and cfg.MODEL.NUM_CLASSES > 2 else ''}",
        f"solver: {solver.OPTIMIZING_METHOD}, learning rate {solver.BASE_LR:g}, {solver.MAX_EPOCH} epochs "
        f"({solver.WARMUP_EPOCHS:g} warm-up), weight decay {solver.WEIGHT_DECAY:g}, precision {precision}",
    ):
        logger.info(line)
