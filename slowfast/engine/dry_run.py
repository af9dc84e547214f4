"""Dry runs: all that a run needs is looked for and tried, its memory measured and its time predicted; none is written.

Dimension letters: ``B`` clips of a batch.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from slowfast.datasets.build import check_files, with_num_classes
from slowfast.datasets.loader import Batch
from slowfast.engine.build import Training
from slowfast.engine.checkpoint import checkpoint_to_test, list_checkpoints, refuse_foreign_weights, starting_weights
from slowfast.engine.record import Recorder
from slowfast.engine.report import peak_mib
from slowfast.engine.run import explained
from slowfast.engine.test import Evaluation, autocast, describe_views, load_tested
from slowfast.engine.train import TrainState, take_step
from slowfast.utils.errors import UserError
from slowfast.utils.logging import format_duration, setup_logging

logger = logging.getLogger(__name__)

# A second step is timed, without what a first one makes once, if that was not longer than this.
_LONG_STEP_SEC = 10
_GIB = 2**30


def dry_run(cfg, process, tasks: tuple[str, ...], command: str) -> None:
    """Try what ``tasks`` would do, as far as it leaves no trace, and stop; name all that is missing at once.

    ``command`` is that which trains.
    """
    setup_logging(None, process.is_main)
    problems: list[str] = []

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            problem = explained(error)
            if not isinstance(problem, UserError):
                raise
            problems.append(str(problem))
            return None

    attempt(_check_output_dir, cfg.OUTPUT_DIR)
    cfg = attempt(with_num_classes, cfg) or cfg
    for split in [split for split in ("train", "val", "test") if ("test" if split == "test" else "train") in tasks]:
        dataset = attempt(check_files, cfg, split, process.rank, process.world_size)
        if dataset is not None:
            logger.info("%s: %d files are listed and were looked for", split, dataset.num_videos)
    machine = Machine(process.device, cfg.DATA_LOADER.NUM_WORKERS)
    machine.report()
    model, seconds = None, {}
    if "train" in tasks:
        run = attempt(Training.from_config, cfg, process, Recorder(cfg.OUTPUT_DIR, enabled=False, tensorboard=False))
        if run is not None:
            model, seconds["training"] = run.model, attempt(_try_training, run, machine)
        elif cfg.MODEL.PRETRAINED and not list_checkpoints(cfg.OUTPUT_DIR):  # the first problem has hidden it
            attempt(starting_weights, cfg.MODEL.PRETRAINED, cfg.dump())
    if "test" in tasks:
        logger.info("test: %s, %s", describe_views(cfg), cfg.DATA.ENSEMBLE_METHOD)
        evaluation = attempt(Evaluation.from_config, cfg, process, "test")
        if "train" not in tasks:
            model = attempt(_load_tested, cfg, evaluation, command)
        if evaluation is not None:
            dataset = evaluation.loader.dataset
            logger.info("test: %d videos x %d views", dataset.num_videos, dataset.num_views)
            seconds["test"] = attempt(_try_evaluation, model, evaluation, machine, "test")
    known = [f"{task} about {format_duration(value)}" for task, value in seconds.items() if value]
    if known:
        logger.info("time, if the machine does nothing else: %s", ", ".join(known))
    if problems:
        lines = "".join(f"\n- {problem}" for problem in dict.fromkeys(problems))
        raise UserError(f"dry run: what is here was checked, but something is missing or wrong:{lines}")
    logger.info("dry run: nothing is missing; the same command without --dry-run starts")


@dataclass(frozen=True)
class Machine:
    """Cores and memory of this process's share of a machine, and what a run asks for."""

    device: torch.device
    num_workers: int  # of each process

    @property
    def num_processes(self) -> int:
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    @property
    def num_cores(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def num_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.get_device_properties(self.device).total_memory
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def report(self) -> None:
        """Log cores and workers, with a warning if these are more."""
        wanted = self.num_workers * self.num_processes
        level = logging.WARNING if wanted > self.num_cores else logging.INFO
        message = "%d cores for %d workers (DATA_LOADER.NUM_WORKERS %d in each of %d processes)"
        logger.log(level, message, self.num_cores, wanted, self.num_workers, self.num_processes)
        warnings.filterwarnings("ignore", "This DataLoader will create")  # which says the same, at every loader

    def seconds(self, computing: float, loading: float) -> float:
        """Return the time of work whose items take so long to load by one worker; workers load meanwhile."""
        if not self.num_workers:
            return computing + loading
        return max(computing, loading / min(self.num_workers, max(1, self.num_cores // self.num_processes)))


def _check_output_dir(path: str) -> None:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path) or not os.access(path, os.W_OK):
        raise UserError(f"OUTPUT_DIR cannot be made or written: {path} is no folder, or a read-only one")


def _load_tested(cfg, evaluation: Evaluation | None, command: str) -> torch.nn.Module:
    try:
        path = checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH, cfg.TEST.CHECKPOINT)
    except UserError as error:
        raise UserError(f"{error} ({command} trains)") from error
    model, _ = load_tested(cfg, path, evaluation and evaluation.loader.dataset.class_names)
    refuse_foreign_weights(cfg.OUTPUT_DIR, path)
    logger.info("test: the model has the weights of %s", path)
    return model


def _try_training(run: Training, machine: Machine) -> float:
    """Restore the newest checkpoint, if any, take a step, and return the seconds that the training would take."""
    state, plan = TrainState(run.model, run.optimizer, run.scaler, run.ema), run.plan
    is_new = not list_checkpoints(run.checkpoints.output_dir)
    run.checkpoints.resume(state)
    logger.info("training would %s", "start anew" if is_new else f"go on after {state.epoch} epochs")
    batch, item_sec = _read_some(run.loader, run.evaluation, "training")
    clip_sec = _measure_step(batch, state, plan, machine)
    num_epochs, period = max(0, plan.num_epochs - state.epoch), plan.eval_period
    num_steps, step_sec = len(run.loader), clip_sec * plan.clips_per_step
    step_sec = machine.seconds(step_sec, item_sec * run.loader.batch_size)
    logger.info(
        "steps: %d per epoch, %.2f s each; %.2f s to load a video, %.2f s to compute a clip",
        num_steps, step_sec, item_sec, clip_sec,
    )  # fmt: skip
    validation = _try_evaluation(run.model, run.evaluation, machine, "validation")
    num_validations = -(-plan.num_epochs // period) - state.epoch // period
    return num_epochs * num_steps * step_sec + max(0, num_validations) * validation


def _measure_step(batch: Batch, state: TrainState, plan, machine: Machine) -> float:
    """Take steps on the clips of ``batch``, log their memory, and return the seconds per clip.

    They are repeated to a whole pass; not so on a CPU, which has no limit that could be tried, where that would take
    long or much of the memory: both are then the larger the more clips a pass has.
    """
    size, is_gpu = plan.micro_batch or plan.clips_per_step, machine.device.type == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(machine.device)
    before = 2**20 * peak_mib(machine.device)
    fixed = 3 * sum(p.numel() * p.element_size() for p in state.model.parameters())  # gradients and moments
    for num_clips in [size] if is_gpu else sorted({min(size, len(batch.clips)), size}):
        clips = torch.arange(num_clips) % len(batch.clips)
        part = Batch(*(tensor[clips] for tensor in batch[:4])).to(machine.device)
        seconds = _timed(partial(_take_step, part, state, plan), machine.device)
        grown = 2**20 * peak_mib(machine.device) - before
        num_bytes = before + grown + max(0, grown - fixed) / num_clips * (size - num_clips)
        if seconds * size > _LONG_STEP_SEC * num_clips or 2 * num_bytes * machine.num_processes > machine.num_bytes:
            break
    measured = "measured" if num_clips == size else f"from {num_clips} clips"
    level = logging.WARNING if num_bytes * machine.num_processes > machine.num_bytes else logging.INFO
    logger.log(
        level, "memory: %.2f GiB for passes of %d clips (%s), of %.1f GiB of the %s",
        num_bytes / _GIB, size, measured, machine.num_bytes / _GIB, machine.device.type,
    )  # fmt: skip
    return seconds / num_clips


def _take_step(batch: Batch, state: TrainState, plan) -> None:
    clips, targets = plan.batch_transform(batch.clips, batch.labels, np.random.default_rng(plan.seed))
    take_step(state, clips, targets, plan)


def _try_evaluation(model, evaluation: Evaluation, machine: Machine, kind: str) -> float:
    """Read and score the first items; return the seconds for all items of this process, 0 without a model."""
    batch, item_sec = _read_some(evaluation.loader, evaluation, kind)
    if model is None:
        return 0.0
    device, dataset = evaluation.process.device, evaluation.loader.dataset
    clips = evaluation.normalize(batch.clips.to(device))
    model.to(device).eval()

    @torch.no_grad()
    def score() -> None:
        with autocast(evaluation.precision, device)():
            model(clips)

    num_items = len(evaluation.loader.sampler)
    num_clips = num_items * dataset.num_views * dataset.num_videos / len(dataset)
    return machine.seconds(_timed(score, device) / len(clips) * num_clips, item_sec * num_items)


def _read_some(loader, evaluation: Evaluation, kind: str) -> tuple[Batch, float]:
    """Read the first two items of a loader in this process, and return them and the seconds per item."""
    keys = [key for key, _ in zip(loader.sampler, range(2))]
    started = time.perf_counter()
    batch = loader.collate_fn([loader.dataset[key] for key in keys])
    seconds = (time.perf_counter() - started) / max(1, len(keys))
    for bad in batch.bad:
        logger.warning("not decodable: %s: %s", bad.path, bad.reason)
    if not len(batch.clips):
        raise UserError(f"none of the first {len(keys)} {kind} items can be decoded, see above")
    clips = evaluation.normalize(batch.clips)
    labels = (batch.labels if batch.labels.dim() == 1 else batch.labels.nonzero()[:, 1]).unique().tolist()
    message = "first %d %s items: clips %s (clips, RGB, frames, height, width), mean %.2f, deviation %.2f, labels %s"
    logger.info(message, len(keys), kind, tuple(clips.shape), clips.mean(), clips.std(), labels)
    return batch, seconds


def _timed(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, the second one if the first does not take long."""
    for _ in range(2):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        if seconds > _LONG_STEP_SEC:
            break
    return seconds
