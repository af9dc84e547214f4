"""Training: epochs of optimisation steps, with validation and a checkpoint in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from slowfast.datasets.loader import Batch, construct_loader
from slowfast.datasets.mixup import Mixup, build_mixup, merged_accuracy_target
from slowfast.engine.checkpoint import (
    changed_settings,
    list_checkpoints,
    load_model_state,
    read_newest,
    save_checkpoint,
)
from slowfast.engine.evaluate import score_views
from slowfast.engine.precision import autocast, resolve_precision
from slowfast.engine.record import Recorder
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters
from slowfast.models.optimizer import build_optimizer
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.distributed import Process, all_reduce_sum, barrier, gather_to_all
from slowfast.utils.logging import progress_bar
from slowfast.utils.lr_policy import cosine_with_warmup
from slowfast.utils.metrics import accuracy_summary, ensemble
from slowfast.utils.seeding import seed_everything

logger = logging.getLogger(__name__)

# Keeps the random stream of mixing apart from those of data order and augmentation, which start from the seed too.
_MIXUP_STREAM = 7


@dataclass
class Training:
    """What an epoch of training works with.

    ``schedule`` maps progress in epochs to the learning rate; ``clips_per_step`` is the nominal number of clips this
    process sees in a step, ``micro_batch_size`` how many of them it computes at a time (0: all).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Callable[[float], float]
    mixup: Mixup
    process: Process
    recorder: Recorder
    precision: str
    clip_gradient: float
    clips_per_step: int
    micro_batch_size: int
    log_period: int


def train(cfg, process: Process, recorder: Recorder) -> None:
    """Train the model of ``cfg`` to its last epoch, from the newest checkpoint of OUTPUT_DIR if there is one.

    Raises:
        ValueError: a wrong setting or input, naming it.
        FileNotFoundError: a missing list or weight file.
        FloatingPointError: the loss is not finite.
    """
    _check_settings(cfg)
    precision = resolve_precision(cfg.TRAIN.PRECISION, process.device, "TRAIN.PRECISION")
    test_precision = resolve_precision(cfg.TEST.PRECISION, process.device, "TEST.PRECISION")
    train_loader = construct_loader(cfg, "train", process.rank, process.world_size)
    val_loader = construct_loader(cfg, "val", process.rank, process.world_size)
    class_names = train_loader.dataset.class_names

    newest = _find_checkpoint(cfg)
    seed_everything(cfg.RNG_SEED)
    model = build_model(cfg)
    if cfg.MODEL.PRETRAINED and newest is None:
        _load_pretrained(model, cfg)
    model.to(process.device)
    _describe(cfg, process, model, train_loader, val_loader, precision)
    training = Training(
        model=parallel_model(model, process),
        optimizer=build_optimizer(model, cfg),
        scaler=torch.amp.GradScaler(process.device.type, enabled=precision == "fp16"),
        schedule=_schedule(cfg),
        mixup=build_mixup(cfg),
        process=process,
        recorder=recorder,
        precision=precision,
        clip_gradient=cfg.SOLVER.CLIP_GRADIENT,
        clips_per_step=cfg.TRAIN.BATCH_SIZE // process.world_size * cfg.AUG.NUM_SAMPLE,
        micro_batch_size=cfg.TRAIN.MICRO_BATCH_SIZE,
        log_period=cfg.LOG_PERIOD,
    )
    first_epoch, best_top1 = (0, -1.0) if newest is None else _resume(cfg, training, model, *newest)
    _check_same_start(first_epoch, cfg.OUTPUT_DIR)
    last_epoch = cfg.SOLVER.MAX_EPOCH
    if first_epoch >= last_epoch:
        logger.info("training is already finished: %d epochs in %s", first_epoch, cfg.OUTPUT_DIR)

    for epoch in range(first_epoch, last_epoch):
        seed_everything(cfg.RNG_SEED, epoch, process.rank)
        mixup_rng = np.random.default_rng((cfg.RNG_SEED, epoch, process.rank, _MIXUP_STREAM))
        train_epoch(training, train_loader, epoch, mixup_rng, cfg.DATA.MAX_BAD_SHARE)

        top1 = None
        is_last = epoch + 1 == last_epoch
        if is_last or (epoch + 1) % cfg.TRAIN.EVAL_PERIOD == 0:
            step = (epoch + 1) * len(train_loader)
            top1 = validate(model, val_loader, process, test_precision, recorder, epoch, step)
        is_due = is_last or top1 is not None or (epoch + 1) % cfg.TRAIN.CHECKPOINT_PERIOD == 0
        if process.is_main and is_due:
            is_best = top1 is not None and top1 >= best_top1
            best_top1 = top1 if is_best else best_top1
            state = {
                "epoch": epoch + 1,
                "best_top1": best_top1,
                "model_state": model.state_dict(),
                "optimizer_state": training.optimizer.state_dict(),
                "scaler_state": training.scaler.state_dict(),
                "class_names": class_names,
                "cfg": cfg.dump(),
            }
            path = save_checkpoint(cfg.OUTPUT_DIR, state, is_best)
            recorder.event("checkpoint", epoch=epoch + 1, path=path, best=is_best)
    barrier()


def train_epoch(
    training: Training, loader: DataLoader, epoch: int, mixup_rng: np.random.Generator, max_bad_share: float
) -> None:
    """Train for one epoch: every video of the loader once, the learning rate set before every step.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: more than ``max_bad_share`` of the epoch's videos cannot be decoded.
    """
    process, num_steps = training.process, len(loader)
    training.model.train()
    loader.sampler.set_epoch(epoch)
    totals, recent = _Totals(), _Totals()
    bad_videos: list[dict[str, str]] = []
    bar = progress_bar(loader, num_steps, f"epoch {epoch + 1}", process.is_main)
    started = time.perf_counter()
    for step, batch in enumerate(bar):
        waited = time.perf_counter() - started
        learning_rate = training.schedule(epoch + step / num_steps)
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate
        loss_sum, num_correct, grad_norm = train_step(training, batch, mixup_rng)
        if not np.isfinite(loss_sum):
            raise FloatingPointError(
                f"the loss is {loss_sum} at step {step} of epoch {epoch + 1} (learning rate {learning_rate:.3g}, "
                f"loss scale {training.scaler.get_scale():g}, videos {batch.video_index.tolist()}); "
                "try TRAIN.PRECISION bf16 or fp32, a lower SOLVER.BASE_LR or a longer SOLVER.WARMUP_EPOCHS"
            )
        bad_videos += [{"path": bad.path, "reason": bad.reason} for bad in batch.bad]
        elapsed = time.perf_counter() - started
        for sums in (totals, recent):
            sums.add(len(batch.clips), loss_sum, num_correct, len(batch.bad), waited, elapsed)
        if (step + 1) % training.log_period == 0 or step + 1 == num_steps:
            scalars = {"lr": learning_rate, "grad_norm": grad_norm, **recent.scalars()}
            training.recorder.scalars("train_step", epoch * num_steps + step + 1, epoch=epoch + 1, **scalars)
            bar.set_postfix(loss=f"{scalars['loss']:.3f}", top1=f"{scalars['top1']:.1f}")
            if bar.disable:
                _log_step(epoch, step, num_steps, scalars)
            recent = _Totals()
        started = time.perf_counter()

    bad_videos = [bad for share in gather_to_all(bad_videos) for bad in share]
    for bad in bad_videos if process.is_main else ():
        logger.warning("skipped, not decodable: %(path)s: %(reason)s", bad)
        training.recorder.event("bad_video", epoch=epoch + 1, **bad)
    scalars = totals.over_all_processes(process.device).scalars()
    training.recorder.scalars("train_epoch", (epoch + 1) * num_steps, epoch=epoch + 1, **scalars)
    logger.info(
        "epoch %d: loss %.4f, top-1 %.2f %%, %.1f clips/s, %.0f %% of the time waiting for data, %d bad videos",
        epoch + 1, scalars["loss"], scalars["top1"], scalars["clips_per_sec"], scalars["wait_share"] * 100,
        scalars["bad_videos"],
    )  # fmt: skip
    num_videos = loader.dataset.num_videos
    if len(bad_videos) > max_bad_share * num_videos:
        raise ValueError(
            f"{len(bad_videos)} of {num_videos} training videos cannot be decoded, more than "
            f"DATA.MAX_BAD_SHARE {max_bad_share:g} allows; the log names each of them"
        )


def train_step(
    training: Training, batch: Batch, mixup_rng: np.random.Generator
) -> tuple[float, float, float]:
    """Take one optimisation step.

    Returns:
        Sum of the loss over the clips, number of clips classified right, and norm of the gradient before clipping.
    """
    process = training.process
    batch = batch.to(process.device, non_blocking=True)
    clips, labels = batch.clips, batch.labels
    is_empty = len(clips) == 0
    if is_empty and process.world_size == 1:
        return 0.0, 0.0, 0.0
    if is_empty:
        # Every video of this process was bad. It still takes part in the exchange of gradients, with zeros, and in
        # evaluation mode, so that the zero clips leave no trace in the statistics of batch norms.
        clips, labels = clips.new_zeros((2, *clips.shape[1:])), labels.new_zeros(2)
        training.model.eval()
    clips, targets = training.mixup(clips, labels, mixup_rng)
    training.optimizer.zero_grad(set_to_none=True)
    loss_sum, num_correct = _accumulate(training, clips, targets, weight=0.0 if is_empty else 1.0)
    training.scaler.unscale_(training.optimizer)
    max_norm = training.clip_gradient or float("inf")
    grad_norm = nn.utils.clip_grad_norm_(training.model.parameters(), max_norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if is_empty:
        training.model.train()
    return loss_sum, num_correct, grad_norm.item()


def _accumulate(
    training: Training, clips: torch.Tensor, targets: torch.Tensor, weight: float
) -> tuple[float, float]:
    """Add up the gradients of a step in passes of ``micro_batch_size`` clips; return loss sum and number right."""
    size = training.micro_batch_size or len(clips)
    parts = list(zip(clips.split(size), targets.split(size), strict=True))
    loss_sum, num_correct = 0.0, 0.0
    for index, (part, part_targets) in enumerate(parts):
        is_last = index + 1 == len(parts)
        # Processes exchange gradients once a step, in its last pass.
        is_parallel = isinstance(training.model, DistributedDataParallel)
        with nullcontext() if is_last or not is_parallel else training.model.no_sync():
            with autocast(training.precision, training.process.device):
                logits = training.model(part)
            loss = weight * F.cross_entropy(logits.float(), part_targets, reduction="sum")
            # Over the nominal number of clips, so that a clip weighs the same on a process that had to skip others.
            training.scaler.scale(loss / training.clips_per_step).backward()
        scores, label = merged_accuracy_target(logits, part_targets)
        loss_sum += loss.item()
        num_correct += weight * (scores.argmax(dim=1) == label).sum().item()
    return loss_sum, num_correct


def validate(
    model: nn.Module,
    loader: DataLoader,
    process: Process,
    precision: str,
    recorder: Recorder,
    epoch: int,
    step: int,
) -> float | None:
    """Measure the accuracy on centre clips and centre crops; return top-1 (percent) on the main process.

    Videos that cannot be decoded count as wrong: a run of days should not end on one of them.
    """
    _share_buffers(model)
    scores = score_views(model, loader, process, precision, "count_wrong", "validation")
    if scores is None:
        return None
    accuracy = accuracy_summary(ensemble(scores.logits, "sum_logits"), scores.labels)
    bad = len(scores.bad_videos)
    recorder.scalars("val", step, epoch=epoch + 1, **accuracy, num_videos=len(scores.labels), bad_videos=bad)
    logger.info(
        "epoch %d: validation top-1 %.2f %%, top-5 %.2f %% (%d videos, centre clip and crop)",
        epoch + 1, accuracy["top1"], accuracy["top5"], len(scores.labels),
    )  # fmt: skip
    return accuracy["top1"]


class _Totals:
    """Sums over training steps, and the rates they give."""

    def __init__(self) -> None:
        self.values = np.zeros(6)

    def add(self, clips: int, loss_sum: float, correct: float, bad: int, waited: float, elapsed: float) -> None:
        self.values += (clips, loss_sum, correct, bad, waited, elapsed)

    def over_all_processes(self, device: torch.device) -> _Totals:
        total = _Totals()
        total.values = all_reduce_sum(torch.tensor(self.values, device=device)).cpu().numpy()
        return total

    def scalars(self) -> dict[str, float]:
        clips, loss_sum, correct, bad, waited, elapsed = self.values.tolist()
        processes = dist.get_world_size() if dist.is_initialized() else 1
        return {
            "loss": loss_sum / max(clips, 1),
            "top1": 100 * correct / max(clips, 1),
            "clips_per_sec": processes * clips / elapsed,
            "wait_share": waited / elapsed,
            "bad_videos": int(bad),
        }


def parallel_model(model: nn.Module, process: Process) -> nn.Module:
    """Return the model wrapped for gradient averaging over all processes; alone, as it is."""
    if process.world_size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[process.local_rank] if process.device.type == "cuda" else None)


def _share_buffers(model: nn.Module) -> None:
    """Give every process the batch-norm statistics of the main one; each has updated its own in the last step."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _check_settings(cfg) -> None:
    for key, value, is_valid, allowed in (
        ("RNG_SEED", cfg.RNG_SEED, cfg.RNG_SEED >= 0, "0 or more"),
        ("LOG_PERIOD", cfg.LOG_PERIOD, cfg.LOG_PERIOD >= 1, "1 or more"),
        ("TRAIN.MICRO_BATCH_SIZE", cfg.TRAIN.MICRO_BATCH_SIZE, cfg.TRAIN.MICRO_BATCH_SIZE >= 0, "0 (all) or more"),
        ("TRAIN.EVAL_PERIOD", cfg.TRAIN.EVAL_PERIOD, cfg.TRAIN.EVAL_PERIOD >= 1, "1 or more"),
        ("TRAIN.CHECKPOINT_PERIOD", cfg.TRAIN.CHECKPOINT_PERIOD, cfg.TRAIN.CHECKPOINT_PERIOD >= 1, "1 or more"),
        ("SOLVER.MAX_EPOCH", cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.MAX_EPOCH >= 1, "1 or more"),
        ("SOLVER.WARMUP_EPOCHS", cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.WARMUP_EPOCHS >= 0, "0 or more"),
        ("SOLVER.CLIP_GRADIENT", cfg.SOLVER.CLIP_GRADIENT, cfg.SOLVER.CLIP_GRADIENT >= 0, "0 (off) or more"),
        ("SOLVER.BETAS", cfg.SOLVER.BETAS, len(cfg.SOLVER.BETAS) == 2, "two numbers"),
        ("MODEL.NUM_CLASSES", cfg.MODEL.NUM_CLASSES, cfg.MODEL.NUM_CLASSES >= 2, "2 or more"),
    ):
        if not is_valid:
            raise ValueError(f"{key} is {value!r}; allowed: {allowed}")


def _load_pretrained(model: nn.Module, cfg) -> None:
    try:
        load_pretrained(model, cfg.MODEL.PRETRAINED, cfg.MODEL.PRETRAINED_MIN_MATCH)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"MODEL.PRETRAINED: {error}. {cfg.MODEL.PRETRAINED_HINT}".rstrip()) from error


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


def _find_checkpoint(cfg) -> tuple[str, dict] | None:
    """Return path and content of the checkpoint to resume from, None to start anew."""
    if not cfg.TRAIN.AUTO_RESUME and list_checkpoints(cfg.OUTPUT_DIR):
        raise ValueError(
            f"TRAIN.AUTO_RESUME is False, but OUTPUT_DIR {cfg.OUTPUT_DIR} holds the checkpoints of an earlier run: "
            "choose another folder or remove it"
        )
    return read_newest(cfg.OUTPUT_DIR)


def _resume(cfg, training: Training, model: nn.Module, path: str, state: dict) -> tuple[int, float]:
    """Restore a checkpoint; return the epochs done and the best validation top-1 so far."""
    load_model_state(model, state["model_state"], path)
    configured = [{key: group[key] for key in ("weight_decay", "betas", "eps")} for group in _groups(training)]
    training.optimizer.load_state_dict(state["optimizer_state"])
    # The file brings its own settings; those of the configuration count, and a difference is reported below.
    for group, settings in zip(_groups(training), configured, strict=True):
        group.update(settings)
    training.scaler.load_state_dict(state["scaler_state"])
    logger.info("resumed from %s: %d epochs done", path, state["epoch"])
    for line in changed_settings(state["cfg"], cfg.dump()):
        logger.warning("the configuration differs from the checkpoint's: %s", line)
    return state["epoch"], state["best_top1"]


def _groups(training: Training) -> list[dict]:
    return training.optimizer.param_groups


def _check_same_start(first_epoch: int, output_dir: str) -> None:
    """Raise the same error on all processes if they do not all see the same checkpoint."""
    epochs = gather_to_all(first_epoch)
    if len(set(epochs)) > 1:
        raise ValueError(
            f"the processes found different checkpoints (epochs done: {epochs}): OUTPUT_DIR {output_dir} must be on "
            "storage that all nodes share"
        )


def _describe(cfg, process, model, train_loader, val_loader, precision) -> None:
    """Say what is about to be trained, so that a wrong number is seen before the hours it would cost."""
    train_set, val_set = train_loader.dataset, val_loader.dataset
    clip_shape = (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    size = "x".join(str(length) for length in clip_shape[1:])
    for line in (
        f"model: {cfg.MODEL.MODEL_NAME}, {count_parameters(model):,} parameters, "
        f"{count_gmacs(model, clip_shape):.2f} GFLOPs (multiply-accumulates) per clip of {size}",
        f"data: {train_set.num_videos:,} training and {val_set.num_videos:,} validation videos, "
        f"{cfg.MODEL.NUM_CLASSES} classes",
        f"batch: {cfg.TRAIN.BATCH_SIZE} videos x {cfg.AUG.NUM_SAMPLE} clips per step, "
        f"{cfg.TRAIN.BATCH_SIZE // process.world_size} videos per process, {len(train_loader)} steps per epoch",
        f"solver: learning rate {cfg.SOLVER.BASE_LR:g}, {cfg.SOLVER.MAX_EPOCH} epochs "
        f"({cfg.SOLVER.WARMUP_EPOCHS:g} warm-up), weight decay {cfg.SOLVER.WEIGHT_DECAY:g}, precision {precision}",
    ):
        logger.info(line)


def _log_step(epoch: int, step: int, num_steps: int, scalars: dict[str, float]) -> None:
    logger.info(
        "epoch %d step %d/%d: loss %.4f, top-1 %.1f %%, lr %.2e, %.1f clips/s, %.0f %% waiting for data",
        epoch + 1, step + 1, num_steps, scalars["loss"], scalars["top1"], scalars["lr"], scalars["clips_per_sec"],
        scalars["wait_share"] * 100,
    )  # fmt: skip
