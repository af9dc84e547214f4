"""One epoch of training: steps, what they report, and how an epoch is left and entered in its middle."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import simplejson
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from slowfast.datasets.loader import Batch, explained
from slowfast.engine.memory import MIB, peak_bytes
from slowfast.engine.step import StepResult, Training, train_step
from slowfast.utils.distributed import Process, all_reduce_sum, gather_to_all
from slowfast.utils.logging import format_duration, progress_bar
from slowfast.utils.schedule import seed_everything
from slowfast.utils.signals import Termination, child_signals_held_back, raise_missed_child_signals

logger = logging.getLogger(__name__)

# Keeps the random stream of mixing apart from that of the model, which starts from the same numbers.
_MIXUP_STREAM = 7
# Steps in a row that TRAIN.ON_NONFINITE skip leaves out before it gives up.
MAX_SKIPPED = 10
# Share of the time waiting for data above which an epoch's report says what to do.
STALLED_SHARE = 0.5
# Of the undecodable videos of an epoch, how many an error names; the log names all.
_NUM_NAMED = 5


class Totals:
    """Sums over training steps, and the rates they give."""

    def __init__(self, values: list[float] | None = None) -> None:
        self.values = np.zeros(6) if values is None else np.array(values)

    def add(self, clips: int, loss_sum: float, correct: float, bad: int, waited: float, elapsed: float) -> None:
        self.values += (clips, loss_sum, correct, bad, waited, elapsed)

    def over_all_processes(self, device: torch.device) -> Totals:
        return Totals(all_reduce_sum(torch.tensor(self.values, device=device)).tolist())

    def scalars(self) -> dict[str, float]:
        clips, loss_sum, correct, bad, waited, elapsed = self.values.tolist()
        processes = dist.get_world_size() if dist.is_initialized() else 1
        return {
            "loss": loss_sum / max(clips, 1),
            "top1": 100 * correct / max(clips, 1),
            "clips_per_sec": processes * clips / max(elapsed, 1e-9),
            "wait_share": waited / max(elapsed, 1e-9),
            "bad_videos": int(bad),
        }


@dataclass
class Progress:
    """How far an epoch has come: what is left out when it is entered again, and what it has counted till then.

    ``steps`` is the number of steps done; ``totals`` and ``bad_videos`` (path and reason of each) are those of all
    processes before this one entered the epoch, on the main process, and empty on the others.
    """

    steps: int = 0
    totals: Totals = field(default_factory=Totals)
    bad_videos: list[dict[str, str]] = field(default_factory=list)

    def state(self) -> dict:
        """Return plain data for a checkpoint."""
        return {"steps": self.steps, "totals": self.totals.values.tolist(), "bad_videos": self.bad_videos}

    @classmethod
    def from_state(cls, state: dict, is_main: bool) -> Progress:
        """Return what :meth:`state` described."""
        if not is_main:
            return cls(state["steps"])
        return cls(state["steps"], Totals(state["totals"]), state["bad_videos"])


class Terminated(Exception):
    """The run was asked to end; ``args[0]`` says where it stopped."""


def train_epoch(
    training: Training,
    loader: DataLoader,
    epoch: int,
    progress: Progress,
    max_bad_share: float,
    checkpoint_steps: int,
    save: Callable[[Progress], None],
    output_dir: str,
    termination: Termination,
) -> None:
    """Train for one epoch, or for the rest of one: every video once, the learning rate set before every step.

    The random draws of a step depend on seed, epoch, step and rank alone, not on the steps before it.

    Args:
        training: model, optimizer and settings.
        loader: of this process.
        epoch: counted from 0.
        progress: where in the epoch to begin.
        max_bad_share: share of the data set that may be undecodable.
        checkpoint_steps: steps between two calls of ``save`` within the epoch; 0 for none.
        save: keeps what is needed to go on from a progress; called by all processes at the same step.
        output_dir: for the names of videos that gave a loss which is not finite.
        termination: says when to end; the caller looks at it after the last step.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: more than ``max_bad_share`` of the videos cannot be decoded.
        OSError: a worker process of the loader was killed, or ``save`` failed.
        Terminated: the process was asked to end, after ``save``.
    """
    run = _Epoch(training, loader, epoch, progress, max_bad_share, output_dir)
    training.model.train()
    loader.sampler.set_epoch(epoch, progress.steps)
    batches = iter(loader)
    if training.observer is not None:
        training.observer.start_epoch(epoch, epoch * run.num_steps + progress.steps)
    with run.bar:
        for step in range(progress.steps, run.num_steps):
            started = time.perf_counter()
            batch = _next_batch(batches, termination)
            waited = time.perf_counter() - started
            with child_signals_held_back():
                is_stopped, num_bad = _agree(training.process, batch)
                if is_stopped:
                    save(run.reached(step))
                    raise Terminated(f"stopped by a signal after step {step} of {run.num_steps} in epoch {epoch + 1}")
                run.count_bad(step, batch, num_bad)
                run.take_step(step, batch, started, waited)
                if checkpoint_steps and (step + 1) % checkpoint_steps == 0 and step + 1 < run.num_steps:
                    save(run.reached(step + 1))
    run.report()


class _Epoch:
    """An epoch that is running, and what it has counted so far."""

    def __init__(
        self, training: Training, loader: DataLoader, epoch: int, progress: Progress, max_bad_share: float,
        output_dir: str,
    ) -> None:  # fmt: skip
        self.training = training
        self.records = loader.dataset.records
        self.output_dir = output_dir
        self.epoch = epoch
        self.num_steps = len(loader)
        self.num_videos = loader.dataset.num_videos
        self.max_bad_share = max_bad_share
        self.totals = Totals(progress.totals.values)
        self.recent = Totals()  # since the last line of the log
        self.bad_videos = list(progress.bad_videos)
        # Of all processes, known to all of them.
        self.num_bad = sum(gather_to_all(len(self.bad_videos)))
        self.first_step, self.started = progress.steps, time.perf_counter()
        is_main = training.process.is_main
        self.bar = progress_bar(
            None, self.num_steps, f"epoch {epoch + 1}", is_main, initial=progress.steps, plain_lines=False
        )

    def reached(self, steps: int) -> Progress:
        """Return the progress after ``steps`` steps; all processes must ask for it together."""
        bad_videos = [bad for share in gather_to_all(self.bad_videos) for bad in share]
        return Progress(steps, self.totals.over_all_processes(self.training.process.device), bad_videos)

    def count_bad(self, step: int, batch: Batch, num_bad: int) -> None:
        """Count the videos of a step that cannot be decoded, ``num_bad`` over all processes."""
        self.bad_videos += [{"path": bad.path, "reason": bad.reason} for bad in batch.bad]
        self.num_bad += num_bad
        if self.num_bad > self.max_bad_share * self.num_videos:
            bad_videos = self.reached(step).bad_videos
            self._report_bad(bad_videos)
            raise ValueError(_too_many(bad_videos, self.num_videos, self.max_bad_share))

    def take_step(self, step: int, batch: Batch, started: float, waited: float) -> None:
        """Train on a batch and log it; ``started`` is when the step began to wait for it, ``waited`` how long (s)."""
        training, epoch = self.training, self.epoch
        learning_rate = training.schedule(epoch + step / self.num_steps)
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        key = (training.seed, epoch, step, training.process.rank)
        seed_everything(*key)
        mixup_rng = np.random.default_rng((*key, _MIXUP_STREAM))
        result = train_step(training, batch, mixup_rng)
        training.num_skipped = 0 if result.nonfinite is None else training.num_skipped + 1
        if result.nonfinite is not None:
            self._guard(step, learning_rate, result)
        elapsed = time.perf_counter() - started
        counted = (len(batch.clips), result.loss_sum, result.num_correct) if result.nonfinite is None else (0, 0.0, 0.0)
        for sums in (self.totals, self.recent):
            sums.add(*counted, len(batch.bad), waited, elapsed)
        self.bar.update()
        if (step + 1) % training.log_period == 0 or step + 1 == self.num_steps:
            self._log(step, {"lr": learning_rate, "grad_norm": result.grad_norm, **self.recent.scalars()})
            self.recent = Totals()

    def report(self) -> None:
        """Log the whole epoch; all processes must call it."""
        progress = self.reached(self.num_steps)
        self._report_bad(progress.bad_videos)
        peak = max(gather_to_all(peak_bytes(self.training.process.device)))
        scalars = {**progress.totals.scalars(), "peak_memory_mib": round(peak / MIB, 1)}
        step = (self.epoch + 1) * self.num_steps
        self.training.recorder.scalars("train_epoch", step, epoch=self.epoch + 1, **scalars)
        if self.training.observer is not None:
            self.training.observer.end_epoch(self.training.model, self.epoch, step)
        logger.info(
            "epoch %d: loss %.4f, top-1 %.2f %%, %.1f clips/s, %.0f %% of the time waiting for data, %d bad videos",
            self.epoch + 1, scalars["loss"], scalars["top1"], scalars["clips_per_sec"], scalars["wait_share"] * 100,
            scalars["bad_videos"],
        )  # fmt: skip
        logger.info("peak memory so far: %.0f MiB per process", peak / MIB)
        if scalars["wait_share"] > STALLED_SHARE:
            logger.warning(
                "training waited for data %.0f %% of the time: use more DATA_LOADER.NUM_WORKERS; "
                "`tools/benchmark.py loader --cfg FILE` says how many, and where the time goes",
                scalars["wait_share"] * 100,
            )

    def _guard(self, step: int, learning_rate: float, result: StepResult) -> None:
        """Keep the names of the videos of a step that is not finite; stop, or go on if that is allowed."""
        training = self.training
        losses = [loss for _, loss, _ in result.nonfinite]
        what = "the gradient" if all(map(math.isfinite, losses)) else f"the loss is {sum(losses)}, the gradient"
        where = (
            f"{what} is {result.grad_norm} at step {step} of epoch {self.epoch + 1} (learning rate "
            f"{learning_rate:.3g}, loss scale {training.scaler.get_scale():g})"
        )
        path = os.path.join(self.output_dir, f"nonfinite_epoch_{self.epoch + 1:05d}_step_{step:06d}.json")
        if training.process.is_main:
            shares = [
                {"rank": rank, "loss": str(loss), "videos": [self.records[video].path for video in sorted(set(videos))]}
                for rank, loss, videos in result.nonfinite
            ]
            with open(path, "w", encoding="utf-8") as file:
                simplejson.dump({"message": where, "processes": shares}, file, indent=2)
            training.recorder.event("nonfinite", epoch=self.epoch + 1, step=step, path=path)
        if training.on_nonfinite == "skip" and training.num_skipped <= MAX_SKIPPED:
            logger.warning("%s: step skipped; its videos are in %s", where, path)
            return
        skipped = f" after {MAX_SKIPPED} skipped steps in a row" if training.on_nonfinite == "skip" else ""
        paths = sorted({self.records[video].path for _, _, videos in result.nonfinite for video in videos})
        more = f" and {len(paths) - _NUM_NAMED} more" if len(paths) > _NUM_NAMED else ""
        raise FloatingPointError(
            f"{where}{skipped}; videos {', '.join(paths[:_NUM_NAMED])}{more} (all in {path}). Try TRAIN.PRECISION bf16 "
            "or fp32, a lower SOLVER.BASE_LR or a longer SOLVER.WARMUP_EPOCHS; TRAIN.ON_NONFINITE skip leaves such "
            "steps out"
        )

    def _log(self, step: int, scalars: dict[str, float]) -> None:
        done = self.epoch * self.num_steps + step + 1
        self.training.recorder.scalars("train_step", done, epoch=self.epoch + 1, **scalars)
        self.bar.set_postfix(loss=f"{scalars['loss']:.3f}", top1=f"{scalars['top1']:.1f}")
        if self.bar.disable:
            logger.info(
                "epoch %d step %d/%d: loss %.4f, top-1 %.1f %%, lr %.2e, %.1f clips/s, %.0f %% waiting for data, "
                "%s left in the epoch",
                self.epoch + 1, step + 1, self.num_steps, scalars["loss"], scalars["top1"], scalars["lr"],
                scalars["clips_per_sec"], scalars["wait_share"] * 100, self._time_left(step + 1),
            )  # fmt: skip

    def _time_left(self, steps: int) -> str:
        """Return how long the epoch takes from here, after ``steps`` steps, at the mean pace since it was entered."""
        sec_per_step = (time.perf_counter() - self.started) / (steps - self.first_step)
        return format_duration(sec_per_step * (self.num_steps - steps))

    def _report_bad(self, bad_videos: list[dict[str, str]]) -> None:
        for bad in bad_videos if self.training.process.is_main else ():
            logger.warning("skipped, not decodable: %(path)s: %(reason)s", bad)
            self.training.recorder.event("bad_video", epoch=self.epoch + 1, **bad)


def _next_batch(batches: Iterator[Batch], termination: Termination) -> Batch | None:
    """Return the next batch, or None if the run is asked to end."""
    try:
        raise_missed_child_signals()
        batch = next(batches)
    except RuntimeError as error:
        # A scheduler's signal reaches the workers too, and possibly first.
        if "DataLoader worker" in str(error) and (termination.is_requested or "Terminated" in str(error)):
            return None
        raise explained(error) from error
    return None if termination.is_requested else batch


def _agree(process: Process, batch: Batch | None) -> tuple[bool, int]:
    """Return whether any process stops here, and how many videos of this step all processes could not decode."""
    found = torch.tensor([batch is None, 0 if batch is None else len(batch.bad)], dtype=torch.float64)
    stopping, bad = all_reduce_sum(found.to(process.device)).tolist()
    return stopping > 0, int(bad)


def _too_many(bad_videos: list[dict[str, str]], num_videos: int, max_bad_share: float) -> str:
    named = "; ".join("{path}: {reason}".format(**bad) for bad in bad_videos[:_NUM_NAMED])
    more = f"; and {len(bad_videos) - _NUM_NAMED} more, see the log" if len(bad_videos) > _NUM_NAMED else ""
    return (
        f"{len(bad_videos)} of {num_videos} training videos cannot be decoded, more than DATA.MAX_BAD_SHARE "
        f"{max_bad_share:g} allows: {named}{more}"
    )
