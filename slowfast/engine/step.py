"""One optimisation step: mixing, forward and backward passes, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from slowfast.datasets.augment.on_device import TrainBatchTransform
from slowfast.datasets.loader import Batch
from slowfast.engine.observe import Observer
from slowfast.engine.precision import autocast
from slowfast.engine.record import Recorder
from slowfast.models.losses import count_correct, soft_target_cross_entropy
from slowfast.utils.distributed import Process, gather_to_all

ON_NONFINITE = ("stop", "skip")


@dataclass
class Training:
    """What an epoch of training works with.

    ``schedule`` maps progress in epochs to the learning rate; ``transform`` turns the bytes of a batch into clips;
    ``clips_per_step`` is the nominal number of clips this process sees in a step, ``micro_batch_size`` how many of
    them it computes at a time (0: all); ``seed`` is that of all random streams; ``ema`` averages the weights;
    ``on_nonfinite`` is one of ``ON_NONFINITE``.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Callable[[float], float]
    transform: TrainBatchTransform
    process: Process
    recorder: Recorder
    precision: str
    clip_gradient: float
    clips_per_step: int
    micro_batch_size: int
    log_period: int
    seed: int
    ema: AveragedModel | None = None
    on_nonfinite: str = "stop"
    observer: Observer | None = None
    num_skipped: int = 0  # steps in a row that were not finite


@dataclass
class StepResult:
    """What a step gave.

    Attributes:
        loss_sum: over the clips of this process.
        num_correct: clips classified right.
        grad_norm: of the whole gradient, before clipping.
        nonfinite: if loss or gradient are not finite and the weights were left as they were: rank, loss and video
            indices of every process.
    """

    loss_sum: float
    num_correct: float
    grad_norm: float
    nonfinite: list[tuple[int, float, list[int]]] | None = None


def train_step(training: Training, batch: Batch, mixup_rng: np.random.Generator) -> StepResult:
    """Take one optimisation step; a step whose loss or gradient is not finite changes nothing."""
    process, model = training.process, training.model
    batch = batch.to(process.device, non_blocking=True)
    is_empty = len(batch.clips) == 0
    if is_empty and process.world_size == 1:
        return StepResult(0.0, 0.0, 0.0)
    clips, targets = training.transform(batch.clips, batch.labels, mixup_rng)
    if is_empty:
        # Every video of this process was bad. It still takes part in the exchange of gradients, with zeros, and in
        # evaluation mode, so that the zero clips leave no trace in the statistics of batch norms.
        clips, targets = clips.new_zeros((2, *clips.shape[1:])), targets.new_zeros((2, targets.shape[1]))
        model.eval()
    buffers = [buffer.clone() for buffer in model.buffers()] if training.on_nonfinite == "skip" else []
    if training.observer is not None and not is_empty:
        training.observer.see_batch(clips, targets)
    training.optimizer.zero_grad(set_to_none=True)
    loss_sum, num_correct = _accumulate(training, clips, targets, weight=0.0 if is_empty else 1.0)
    training.scaler.unscale_(training.optimizer)
    max_norm = training.clip_gradient or float("inf")
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm).item()
    if is_empty:
        model.train()

    # All processes have the same gradient, so all of them come here or none does.
    nonfinite = None if math.isfinite(grad_norm) else _nonfinite(training, loss_sum, batch)
    if nonfinite is None or training.scaler.is_enabled():  # the scaler takes no step either, and lowers its scale
        training.scaler.step(training.optimizer)
        training.scaler.update()
    if nonfinite is not None:
        for buffer, value in zip(model.buffers(), buffers):
            buffer.copy_(value)
    elif training.ema is not None:
        training.ema.update_parameters(_unwrapped(model))
    return StepResult(loss_sum, num_correct, grad_norm, nonfinite)


def _nonfinite(training: Training, loss_sum: float, batch: Batch) -> list[tuple[int, float, list[int]]] | None:
    """Return whom a gradient that is not finite comes from; None if it is only the loss scale that was too high."""
    shares = gather_to_all((training.process.rank, loss_sum, batch.video_index.tolist()))
    is_scale = training.scaler.is_enabled() and all(math.isfinite(loss) for _, loss, _ in shares)
    return None if is_scale else shares


def _accumulate(training: Training, clips: torch.Tensor, targets: torch.Tensor, weight: float) -> tuple[float, float]:
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
            loss = weight * soft_target_cross_entropy(logits, part_targets)
            # Over the nominal number of clips, so that a clip weighs the same on a process that had to skip others.
            training.scaler.scale(loss / training.clips_per_step).backward()
        loss_sum += loss.item()
        num_correct += weight * count_correct(logits, part_targets).item()
    return loss_sum, num_correct


def parallel_model(model: nn.Module, process: Process, static_graph: bool = False) -> nn.Module:
    """Return the model wrapped for gradient averaging over all processes; alone, as it is."""
    if process.world_size == 1:
        return model
    device_ids = [process.local_rank] if process.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, static_graph=static_graph)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model
