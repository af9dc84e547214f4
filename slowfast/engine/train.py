"""Training: epochs of optimisation steps, with a checkpoint and a validation in between."""

from __future__ import annotations

import logging
import time
from functools import partial

import torch.distributed as dist
from torch import nn

from slowfast.engine.checkpoint import (
    changed_settings,
    list_checkpoints,
    load_model_state,
    read_newest,
    save_best,
    save_checkpoint,
)
from slowfast.engine.epoch import Progress, Terminated, train_epoch
from slowfast.engine.evaluate import score_views
from slowfast.engine.record import Recorder
from slowfast.engine.setup import Setup, build_setup
from slowfast.utils.distributed import Process, barrier, broadcast_from_main, gather_to_all
from slowfast.utils.logging import format_duration
from slowfast.utils.metrics import accuracy_summary, ensemble
from slowfast.utils.signals import Termination

logger = logging.getLogger(__name__)


def train(cfg, process: Process, recorder: Recorder) -> None:
    """Train the model of ``cfg`` to its last epoch, from the newest checkpoint of OUTPUT_DIR if there is one.

    Raises:
        ValueError: a wrong setting or input, naming it.
        FileNotFoundError: a missing list or weight file.
        FloatingPointError: the loss is not finite.
        OSError: a checkpoint cannot be written, or a worker process of the loader was killed.
        Terminated: the process was asked to end; the state is saved.
    """
    newest = _find_checkpoint(cfg)
    setup = build_setup(cfg, process, recorder, is_resumed=newest is not None)
    training, train_cfg = setup.training, cfg.TRAIN
    epoch, progress, best_top1, is_validated = 0, Progress(), -1.0, True
    if newest is not None:
        epoch, progress, best_top1, is_validated = _resume(cfg, setup, *newest)
    _check_same_start(epoch, progress.steps, cfg.OUTPUT_DIR)
    num_epochs = cfg.SOLVER.MAX_EPOCH

    def state(epoch: int, progress: Progress) -> dict:
        return {
            "epoch": epoch,
            "progress": progress.state(),
            "data_order": setup.train_loader.sampler.order,
            "best_top1": best_top1,
            "is_validated": is_validated,
            "model_state": setup.model.state_dict(),
            "ema_state": None if training.ema is None else training.ema.module.state_dict(),
            "optimizer_state": training.optimizer.state_dict(),
            "scaler_state": training.scaler.state_dict(),
            "class_names": setup.train_loader.dataset.class_names,
            "world_size": process.world_size,
            "cfg": cfg.dump(),
        }

    def save(epoch: int, progress: Progress) -> None:
        if process.is_main:
            kept = (train_cfg.KEEP_CHECKPOINTS, train_cfg.KEEP_EVERY)
            path = save_checkpoint(cfg.OUTPUT_DIR, state(epoch, progress), *kept)
            recorder.event("checkpoint", epoch=epoch, steps=progress.steps, path=path, best=False)

    started, done_before = time.perf_counter(), epoch + progress.steps / len(setup.train_loader)
    while True:
        # Here and not after the epoch: a run that was killed while it validated validates first.
        if not is_validated:
            top1 = validate(setup, recorder, epoch)
            is_validated, is_best = True, top1 >= best_top1
            best_top1 = max(top1, best_top1)
            if is_best and process.is_main:
                path = save_best(cfg.OUTPUT_DIR, state(epoch, progress))
                recorder.event("checkpoint", epoch=epoch, steps=0, path=path, best=True)
            save(epoch, progress)
        if epoch >= num_epochs:
            break
        if epoch > done_before:
            sec_per_epoch = (time.perf_counter() - started) / (epoch - done_before)
            left = format_duration(sec_per_epoch * (num_epochs - epoch))
            logger.info("%d of %d epochs done, %s left", epoch, num_epochs, left)
        # Not around the validation: what comes before it is saved, so that a signal may end it at once.
        with Termination() as termination:
            train_epoch(
                training, setup.train_loader, epoch, progress, cfg.DATA.MAX_BAD_SHARE, train_cfg.CHECKPOINT_STEPS,
                partial(save, epoch), cfg.OUTPUT_DIR, termination,
            )  # fmt: skip
            epoch, progress = epoch + 1, Progress()
            is_validated = not (epoch == num_epochs or epoch % train_cfg.EVAL_PERIOD == 0)
            is_stopped = any(gather_to_all(termination.is_requested))
            if is_stopped or not is_validated or epoch % train_cfg.CHECKPOINT_PERIOD == 0:
                save(epoch, progress)
        if is_stopped:
            raise Terminated(f"stopped by a signal after epoch {epoch}")
    barrier()


def validate(setup: Setup, recorder: Recorder, epoch: int) -> float:
    """Measure the accuracy after ``epoch`` epochs on centre clips and crops; return that of the raw weights (percent).

    Videos that cannot be decoded count as wrong: a run of days should not end on one of them.
    """
    training = setup.training
    models = {"val": setup.model} if training.ema is None else {"val": setup.model, "val_ema": training.ema.module}
    top1 = {name: _validate(model, name, setup, recorder, epoch) for name, model in models.items()}
    return broadcast_from_main(top1["val"])


def _validate(model: nn.Module, name: str, setup: Setup, recorder: Recorder, epoch: int) -> float | None:
    process, loader = setup.training.process, setup.val_loader
    _share_buffers(model)
    scores = score_views(model, loader, setup.val_normalize, process, setup.val_precision, "count_wrong", "validation")
    if scores is None:
        return None
    accuracy = accuracy_summary(ensemble(scores.logits, "sum_logits"), scores.labels)
    bad, step = len(scores.bad_videos), epoch * len(setup.train_loader)
    recorder.scalars(name, step, epoch=epoch, **accuracy, num_videos=len(scores.labels), bad_videos=bad)
    logger.info(
        "epoch %d: validation%s top-1 %.2f %%, top-5 %.2f %% (%d videos, centre clip and crop)",
        epoch, " of averaged weights" if name == "val_ema" else "", accuracy["top1"], accuracy["top5"],
        len(scores.labels),
    )  # fmt: skip
    return accuracy["top1"]


def _share_buffers(model: nn.Module) -> None:
    """Give every process the batch-norm statistics of the main one; each has updated its own in the last step."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _find_checkpoint(cfg) -> tuple[str, dict] | None:
    """Return path and content of the checkpoint to resume from, None to start anew."""
    if not cfg.TRAIN.AUTO_RESUME and list_checkpoints(cfg.OUTPUT_DIR):
        raise ValueError(
            f"TRAIN.AUTO_RESUME is False, but OUTPUT_DIR {cfg.OUTPUT_DIR} holds the checkpoints of an earlier run: "
            "choose another folder or remove it"
        )
    return read_newest(cfg.OUTPUT_DIR)


def _resume(cfg, setup: Setup, path: str, state: dict) -> tuple[int, Progress, float, bool]:
    """Restore a checkpoint.

    Returns:
        Epochs done, progress in the next one, best validation top-1 so far, and whether a due validation was done.
    """
    training = setup.training
    load_model_state(setup.model, state["model_state"], path)
    if training.ema is not None:
        averaged = state["ema_state"]
        if averaged is None:
            logger.warning("%s has no averaged weights: averaging starts from its raw ones", path)
        load_model_state(training.ema.module, averaged or state["model_state"], path)
        training.ema.n_averaged.fill_(1)  # the next update averages instead of copying
    _load_optimizer(training.optimizer, state["optimizer_state"], path)
    training.scaler.load_state_dict(state["scaler_state"])
    progress = Progress.from_state(state["progress"], training.process.is_main)
    steps = f" and {progress.steps} steps" if progress.steps else ""
    logger.info("resumed from %s: %d epochs%s done", path, state["epoch"], steps)
    before, now = state["world_size"], training.process.world_size
    if before != now:
        logger.warning(
            "%d processes go on with what %d began: a step still has %d videos, %d per process; random draws of mixing "
            "and dropping paths, and the batches that batch norms see, differ from those of an uninterrupted run",
            now, before, cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.BATCH_SIZE // now,
        )  # fmt: skip
    for line in changed_settings(state["cfg"], cfg.dump()):
        logger.warning("the configuration differs from the checkpoint's: %s", line)
    order = setup.train_loader.sampler.order
    if progress.steps and state["data_order"] != order:
        logger.warning(
            "epoch %d begins anew, since its videos are in another order than when it was left: %s then, %s now",
            state["epoch"] + 1, state["data_order"], order,
        )  # fmt: skip
        progress = Progress()
    if state["epoch"] >= cfg.SOLVER.MAX_EPOCH and state["is_validated"]:
        logger.info("training is already finished: %d epochs in %s", state["epoch"], cfg.OUTPUT_DIR)
    return state["epoch"], progress, state["best_top1"], state["is_validated"]


def _load_optimizer(optimizer, state: dict, path: str) -> None:
    """Restore moments; of the settings, those of the configuration count, and a difference is reported elsewhere."""
    configured = [{key: group[key] for key in group if key not in ("params", "lr")} for group in optimizer.param_groups]
    sizes, saved_sizes = ([len(group["params"]) for group in groups] for groups in _both_groups(optimizer, state))
    if sizes != saved_sizes:
        raise ValueError(
            f"{path} was trained with other groups of parameters ({len(saved_sizes)} groups, {len(sizes)} here): "
            "SOLVER.DECAY_RELATIVE_BIAS or SOLVER.LAYER_DECAY differ; set them as before, or start anew from these "
            "weights with MODEL.PRETRAINED"
        )
    kinds = [{key for group in groups for key in group} for groups in _both_groups(optimizer, state)]
    if ("betas" in kinds[0]) != ("betas" in kinds[1]):
        raise ValueError(
            f"{path} was trained with another SOLVER.OPTIMIZING_METHOD; set it as before, or start anew from these "
            "weights with MODEL.PRETRAINED"
        )
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update(settings)


def _both_groups(optimizer, state: dict) -> tuple[list[dict], list[dict]]:
    return optimizer.param_groups, state["param_groups"]


def _check_same_start(epoch: int, steps: int, output_dir: str) -> None:
    """Raise the same error on all processes if they do not all see the same checkpoint."""
    starts = gather_to_all((epoch, steps))
    if len(set(starts)) > 1:
        raise ValueError(
            f"the processes found different checkpoints (epochs and steps done: {starts}): OUTPUT_DIR {output_dir} "
            "must be on storage that all nodes share"
        )
