"""Training: epochs of optimisation steps, with validations and checkpoints in between.

Dimension letters: ``B`` clips, ``K`` classes.
"""

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from slowfast.engine.build import Plan, Training
from slowfast.engine.checkpoint import Checkpoints, load_model_state, load_optimizer_state
from slowfast.engine.record import Recorder
from slowfast.engine.report import Counts, Report
from slowfast.models.losses import count_correct
from slowfast.utils.distributed import Process, barrier
from slowfast.utils.signals import StopRequest, Terminated

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Everything that training changes, hence everything that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None = None
    epoch: int = 0  # finished
    step: int = 0  # finished in the epoch under way
    is_validated: bool = True  # False after an epoch whose validation is still to come
    best_top1: float = -1.0
    num_stale: int = 0  # validations since a better one
    counts: Counts = field(default_factory=Counts)  # of the epoch under way

    @property
    def plain_model(self) -> nn.Module:
        """The model without the wrapper of several processes."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    def state_dict(self) -> dict:
        """Return plain data and tensors for a checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "is_validated": self.is_validated,
            "best_top1": self.best_top1,
            "num_stale": self.num_stale,
            "counts": self.counts.state_dict(),
            "model_state": self.plain_model.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "scaler_state": self.scaler.state_dict(),
            "ema_state": None if self.ema is None else self.ema.module.state_dict(),
            "ema_updates": 0 if self.ema is None else int(self.ema.n_averaged),
        }

    def load_state_dict(self, saved: dict, path: str) -> None:
        """Restore what :meth:`state_dict` returned; ``path`` is for messages."""
        load_model_state(self.plain_model, saved["model_state"], path)
        load_optimizer_state(self.optimizer, saved["optimizer_state"], path)
        if self.ema is not None:
            if saved["ema_state"] is None:
                logger.warning("%s has no averaged weights: averaging starts from its raw ones", path)
            load_model_state(self.ema.module, saved["ema_state"] or saved["model_state"], path)
            self.ema.n_averaged.fill_(saved["ema_updates"])
        if self.scaler.is_enabled() and saved["scaler_state"]:
            self.scaler.load_state_dict(saved["scaler_state"])
        elif self.scaler.is_enabled():
            logger.warning("%s was not trained in fp16: the loss scale starts at %g", path, self.scaler.get_scale())
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.is_validated, self.best_top1 = saved["is_validated"], saved["best_top1"]
        self.num_stale = saved["num_stale"]
        self.counts = Counts(**saved["counts"])

    def statistics(self) -> list[torch.Tensor]:
        """Return what forward passes change, as batch norms do; other buffers are tables of whole numbers or masks."""
        return [buffer for buffer in self.model.buffers() if buffer.is_floating_point() or not buffer.ndim]

    def begin_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, counted from 0."""
        self.epoch, self.step, self.counts = epoch, 0, Counts()


def train(cfg, process: Process, recorder: Recorder) -> None:
    """Train the model of ``cfg`` to its last epoch, from the newest checkpoint of OUTPUT_DIR if there is one.

    Raises:
        UserError: a wrong setting or input, or a checkpoint that this configuration does not continue.
        FloatingPointError: the run does not learn any more, since losses, gradients or loss scales are not finite.
        Terminated: the process was asked to end; the state is saved.
    """
    run = Training.from_config(cfg, process, recorder)
    plan, report, checkpoints = run.plan, run.report, run.checkpoints
    state = TrainState(run.model, run.optimizer, run.scaler, run.ema)
    checkpoints.resume(state)
    recorder.start(cfg.dump())
    report.watch_weights(state.plain_model)
    if plan.is_finished(state):
        logger.info("training is already finished: %d epochs in %s", state.epoch, cfg.OUTPUT_DIR)
    with run, StopRequest() as stop:
        while not plan.is_finished(state):
            if state.is_validated:
                train_one_epoch(state, run.loader, plan, report, checkpoints, stop)
            if not state.is_validated:  # also in a run that was killed while it validated
                with stop.at_once(f"while it validated after epoch {state.epoch}"):
                    top1 = run.validate(state.plain_model, state.ema, state.epoch, state.epoch * len(run.loader))
                    checkpoints.save_validated(state, top1)
    if state.epoch < plan.num_epochs:
        message = "training ends after epoch %d: the last %d validations were no better (SOLVER.STOP_AFTER)"
        logger.info(message, state.epoch, state.num_stale)
    barrier()


def train_one_epoch(
    state: TrainState, loader: DataLoader, plan: Plan, report: Report, checkpoints: Checkpoints, stop: StopRequest
) -> None:
    """Take the remaining steps of an epoch: every video once, whatever was done before a restart.

    Raises:
        UserError: more videos than allowed cannot be decoded.
        FloatingPointError: see :func:`train`.
        Terminated: the process was asked to end; the state is saved.
    """
    num_steps = len(loader)
    for batch in report.watch(loader, state.epoch, state.step):
        learning_rate = plan.schedule(state.epoch + state.step / num_steps)
        set_learning_rate(state.optimizer, learning_rate)
        # Draws depend on these numbers alone, not on the steps before: a run that resumes draws the same.
        rng = np.random.default_rng((plan.seed, state.epoch, state.step, plan.rank))
        torch.manual_seed(rng.integers(2**63))

        batch = batch.to(plan.device, non_blocking=True)
        clips, targets = plan.batch_transform(batch.clips, batch.labels, rng)  # normalised, erased, mixed
        values = take_step(state, clips, targets, plan)
        state.step += 1
        report.add(batch, clips, targets, values, learning_rate)

        is_over, wants_end = state.step == num_steps, stop.is_requested and plan.is_alone
        if not (is_over or wants_end or report.is_due(state.step) or checkpoints.is_due(state)):
            continue
        is_stopped = report.read(state.counts, stop.is_requested)  # the only line that waits: for device and processes
        if is_over:
            report.end_epoch(state.counts, state.plain_model)
            state.begin_epoch(state.epoch + 1)
            state.is_validated = not plan.is_validated_after(state.epoch)
        if is_stopped or checkpoints.is_due(state):
            checkpoints.save(state)
        if is_stopped:
            place = f"after epoch {state.epoch}" if is_over else f"after step {state.step} of {num_steps} in epoch"
            raise Terminated(f"stopped by a signal {place}{'' if is_over else f' {state.epoch + 1}'}", stop.status)


def take_step(state: TrainState, clips: torch.Tensor, targets: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Take one optimisation step.

    A step whose gradient is not finite leaves weights, moments and statistics as they are, and nobody waits to find
    out.

    Args:
        state: what is trained.
        clips: float32 (B, 3, T, H, W); none if every video of this process is bad.
        targets: float32 (B, K).
        plan: of the training.

    Returns:
        Sum of the losses, number of clips classified right and norm of the gradient before clipping: (3,) float32.
    """
    is_empty = len(clips) == 0
    if is_empty and plan.is_alone:
        return clips.new_zeros(3)
    if is_empty:
        # It takes part in the exchange of gradients all the same, with clips whose loss has no weight. In evaluation
        # mode, so that they leave no trace in the statistics of batch norms.
        clips, targets = clips.new_zeros((2, *clips.shape[1:])), targets.new_zeros((2, *targets.shape[1:]))
    state.model.train(not is_empty)
    state.optimizer.zero_grad(set_to_none=True)
    before = [statistic.clone() for statistic in state.statistics()]
    loss, correct = accumulate_gradients(state, clips, targets, plan, float(not is_empty))
    norm = update_weights(state, plan, before)
    return torch.stack([loss, correct * (not is_empty), norm])


def accumulate_gradients(
    state: TrainState, clips: torch.Tensor, targets: torch.Tensor, plan: Plan, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the gradients of a step in passes that fit the memory; return loss sum and number of clips right.

    The loss counts with a ``weight``.
    """
    # Of equal sizes: batch norms would learn little from a single clip that is left over.
    num_passes = -(-len(clips) // (plan.micro_batch or len(clips)))
    passes = list(zip(clips.tensor_split(num_passes), targets.tensor_split(num_passes), strict=True))
    total, correct = clips.new_zeros(()), clips.new_zeros(())
    for index, (part, part_targets) in enumerate(passes):
        # Processes exchange gradients once a step, in its last pass.
        is_local = isinstance(state.model, DistributedDataParallel) and index + 1 < len(passes)
        with state.model.no_sync() if is_local else nullcontext():
            with plan.autocast():
                logits = state.model(part)  # (B, K)
            loss = weight * plan.loss(logits, part_targets)  # summed over clips
            loss = loss + len(part) * weight * state.plain_model.penalty
            # Over the nominal number of clips, so that a clip weighs the same on a process that had to skip others.
            state.scaler.scale(loss / plan.clips_per_step).backward()
        total += loss.detach()
        correct += count_correct(logits, part_targets)
    return total, correct


def update_weights(state: TrainState, plan: Plan, statistics: list[torch.Tensor]) -> torch.Tensor:
    """Clip the gradient, update weights and their averages; return the norm before clipping, on the device.

    Where that is not finite, the model gets back the ``statistics`` of before the step.
    """
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), plan.clip_gradient or float("inf"))
    if not state.scaler.is_enabled():
        # Fused optimizers skip a step on this flag without the host, as they do for a loss scaler.
        state.optimizer.found_inf = (~norm.isfinite()).float()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    for statistic, old in zip(state.statistics(), statistics, strict=True):
        statistic.copy_(torch.where(norm.isfinite(), statistic, old))
    if state.ema is not None:
        state.ema.update_parameters(state.plain_model)
    return norm


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group of parameters, times its factor of layer decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
