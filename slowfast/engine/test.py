"""Validation and multi-view test: every view of every video once, over any number of processes.

Dimension letters: ``M`` videos, ``V`` views of a video, ``K`` classes.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from slowfast.datasets.augment.mixup import smooth_labels
from slowfast.datasets.augment.on_device import build_normalize
from slowfast.datasets.build import build_dataset
from slowfast.datasets.loader import Batch, construct_loader, shut_down
from slowfast.datasets.video_dataset import VideoDataset
from slowfast.engine.checkpoint import (
    checkpoint_to_test,
    class_difference,
    count_chosen_on,
    load_model_state,
    refuse_foreign_weights,
)
from slowfast.engine.record import Recorder
from slowfast.models import build_model
from slowfast.models.pretrained import read_checkpoint, unwrap_weights
from slowfast.utils.distributed import Process, broadcast_from_main, gather_to_all, gather_to_main
from slowfast.utils.errors import UserError
from slowfast.utils.logging import progress_bar
from slowfast.utils.metrics import accuracy_summary, ensemble
from slowfast.utils.results import (
    SCORES,
    Scores,
    measure,
    read_results,
    save_scores,
    summary_line,
    write_difference,
    write_results,
)

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SHOWN = {"top1": "top-1", "top5": "top-5", "mAP": "mAP"}  # of a validation, in the log
# Of a network that has diverged every video is bad.
_MAX_WARNINGS = 20


@dataclass(frozen=True)
class Evaluation:
    """Views to score: their loader, the last part of their transform, the precision, and who scores."""

    loader: DataLoader
    normalize: Callable[[torch.Tensor], torch.Tensor]
    precision: str
    process: Process
    on_bad_video: str
    ensemble_method: str

    @classmethod
    def from_config(cls, cfg, process: Process, split: str) -> "Evaluation":
        """Build the views of ``val`` or ``test``; a bad video of a validation is no reason to end a run of days."""
        precision = resolve_precision(cfg.TEST.PRECISION, process.device)
        loader = construct_loader(cfg, split, process.rank, process.world_size)
        on_bad_video = cfg.TEST.ON_BAD_VIDEO if split == "test" else "count_wrong"
        return cls(loader, build_normalize(cfg), precision, process, on_bad_video, cfg.DATA.ENSEMBLE_METHOD)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16; "auto" is what the device is good at."""
    if name != "auto":
        return name
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: str, device: torch.device) -> Callable[[], torch.autocast]:
    """Return the maker of contexts in which a forward pass of this precision runs; fp32 leaves everything as it is."""
    dtype = _DTYPES[precision]
    return partial(torch.autocast, device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def test(cfg, process: Process, recorder: Recorder, perturb: str = "") -> dict | None:
    """Test a checkpoint, or a weight file as others publish it, on all views and write the results to OUTPUT_DIR.

    With the frames of all clips in another order, ``perturb``, they are written to ``OUTPUT_DIR/perturb_ORDER``, with
    the difference to those of the plain test.

    Returns:
        The content of ``test_results.json`` on the main process, None on the others.
    """
    evaluation = Evaluation.from_config(cfg, process, "test")
    dataset = evaluation.loader.dataset
    if perturb and dataset.labels.ndim == 2:
        raise UserError(
            "--perturb compares accuracies, which videos with several labels (DATA.MULTI_LABEL) do not have"
        )
    dataset.perturb = perturb
    path = checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH, cfg.TEST.CHECKPOINT)
    model, saved = load_tested(cfg, path, dataset.class_names)
    refuse_foreign_weights(cfg.OUTPUT_DIR, path)
    if not perturb:
        recorder.start(cfg.dump())
    logger.info(
        "testing %s (%s) on %d videos x %d views of %s",
        path, f"epoch {saved['epoch']}" if "epoch" in saved else "weights only", dataset.num_videos, dataset.num_views,
        dataset.records[0].origin.rpartition(":")[0],
    )  # fmt: skip
    names = [record.name for record in dataset.records]
    num_chosen_on = count_chosen_on(saved, names)
    if num_chosen_on and process.is_main:
        logger.warning(
            "%d of the %d test videos are validation videos, on which this checkpoint was chosen: on other videos it is"
            " less accurate. A test list of its own mends that, or TEST.CHECKPOINT last without SOLVER.STOP_AFTER",
            num_chosen_on, len(names),
        )  # fmt: skip
    views = score_views(model.to(process.device), evaluation, "test")
    shut_down(evaluation.loader)
    if views is None:
        return None
    view_protocol = describe_views(cfg) + (f", frames: {perturb}" if perturb else "")
    facts = {
        "protocol": f"{view_protocol}, {cfg.DATA.ENSEMBLE_METHOD}",
        "view_protocol": view_protocol,
        "ensemble_method": cfg.DATA.ENSEMBLE_METHOD,
        "checkpoint": path,
        "checkpoint_time": os.path.getmtime(path),
        "epoch": saved.get("epoch"),
        "selected_on_test": num_chosen_on > 0,
        "weights": cfg.TEST.WEIGHTS,
        "precision": evaluation.precision,
        "bad_videos": views.bad_videos,
        "config": cfg.dump(),
    }
    run = Scores(np.array(names), views.labels, views.logits, dataset.class_names, facts)
    step = saved["epoch"] * saved["num_steps"] + saved["step"] if "num_steps" in saved else 0
    return _conclude(cfg.OUTPUT_DIR, run, views, recorder, step, perturb)


def _conclude(output_dir: str, run: Scores, views: "ViewScores", recorder: Recorder, step: int, perturb: str) -> dict:
    """Log and write the results of a test, and return them."""
    scores, probabilities = (views.combine(name) for name in (run.facts["ensemble_method"], "mean_probability"))
    results = measure(scores, run.labels, run.logits.shape[1], **run.facts)
    # First what cost hours: the line, should the disk be full, then the scores.
    logger.info(summary_line(results))
    if not perturb:
        recorder.event("test", **{key: value for key, value in results.items() if key != "config"})
        recorder.draw("test", step, **accuracy_summary(scores, run.labels))
    folder = os.path.join(output_dir, f"perturb_{perturb}") if perturb else output_dir
    os.makedirs(folder, exist_ok=True)
    save_scores(os.path.join(folder, SCORES), run, probabilities)
    write_results(folder, results, run, scores, probabilities)
    if perturb:
        write_difference(folder, os.path.join(output_dir, SCORES), run)
    return results


def is_tested(cfg, process: Process) -> bool:
    """Return whether the results of this very configuration, checkpoint and list are there already, and show them."""
    results = read_results(cfg.OUTPUT_DIR) if process.is_main else None
    scores = os.path.join(cfg.OUTPUT_DIR, SCORES)
    path = checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH, cfg.TEST.CHECKPOINT)
    found = broadcast_from_main(
        results is not None
        and (results["checkpoint"], results["config"]) == (path, cfg.dump())
        and results["checkpoint_time"] == os.path.getmtime(path)
        and os.path.isfile(scores)
        and are_of(scores, build_dataset(cfg, "test"))
    )
    if found and process.is_main:
        logger.info("already tested: %s", summary_line(results))
    return found


def are_of(scores: str, dataset: VideoDataset) -> bool:
    """Return whether a score file has the videos and labels of a list."""
    with np.load(scores) as file:
        same_videos = file["videos"].tolist() == [record.name for record in dataset.records]
        return same_videos and np.array_equal(file["labels"], dataset.labels)


def load_tested(cfg, path: str, class_names: list[str] | None) -> tuple[nn.Module, dict]:
    """Return the model with the weights of ``path``, on the CPU, and the content of that file.

    Refused are files that do not fill the model exactly, or were trained with other class names.
    """
    saved = read_checkpoint(path)
    if difference := class_difference(saved.get("class_names"), class_names):
        problem = f"was trained with other class names or another order: {difference}"
        raise UserError(f"{path} {problem}; check the label lists")
    if cfg.TEST.WEIGHTS == "ema" and not saved.get("ema_state"):
        raise UserError(f"TEST.WEIGHTS is ema, but {path} has no averaged weights (SOLVER.EMA_DECAY makes them)")
    model = build_model(cfg)
    weights, note = saved.get("ema_state"), ""
    if cfg.TEST.WEIGHTS == "model":
        weights, note = unwrap_weights(saved, path, model.state_dict())
    if note and "model_state" not in saved:  # of another program
        logger.info("%s: %s", path, note.removesuffix("; "))
    load_model_state(model, weights, path)
    return model, saved


def describe_views(cfg) -> str:
    """Return how a video is tested: frames, views, resolution and sampling."""
    data, side = cfg.DATA, cfg.DATA.TEST_CROP_SIZE
    short_side = data.TEST_SHORT_SIDE or side
    is_default = short_side == side and data.TEST_INTERPOLATION == "bilinear"
    scaled = "" if is_default else f" of short side {short_side} ({data.TEST_INTERPOLATION})"
    return (
        f"{data.NUM_FRAMES} frames x {cfg.TEST.NUM_ENSEMBLE_VIEWS} clips x {cfg.TEST.NUM_SPATIAL_CROPS} crops, "
        f"{side}x{side} px{scaled}, {data.FRAME_SAMPLING} sampling"
    )


def validate(
    evaluation: Evaluation, recorder: Recorder, loss_of: Callable, model: nn.Module, ema: nn.Module | None, epoch: int,
    step: int,
) -> float | None:  # fmt: skip
    """Measure the accuracy after ``epoch`` epochs and ``step`` steps in all, of the averaged weights too.

    ``loss_of`` is that of the training (see ``losses.LOSSES``), whose mean over the views is measured besides.

    Returns:
        Top-1 of the raw weights, or mAP (percent), on the main process, None on the others.
    """
    best = None
    for name, network in (("val_ema", None if ema is None else ema.module), ("val", model)):
        if network is None:
            continue
        if dist.is_initialized():  # each process has updated the statistics of its batch norms in the last step
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)
        views = score_views(network, evaluation, "validation")
        if views is None:
            continue
        accuracy = accuracy_summary(views.combine(evaluation.ensemble_method), views.labels)
        loss, dataset = mean_loss(loss_of, views, evaluation.process.device), evaluation.loader.dataset
        counts = {"num_videos": len(views.labels), "bad_videos": len(views.bad_videos)}
        if not recorder.has(name, epoch=epoch, **accuracy):  # from before the run was killed
            recorder.scalars(name, step, epoch=epoch, loss=loss, **accuracy, **counts)
        logger.info(
            "epoch %d: validation%s: loss %.4f, %s (%d videos x %d clips x %d crops)",
            epoch, " of averaged weights" if name == "val_ema" else "", loss,
            ", ".join(f"{SHOWN[key]} {value:.2f} %" for key, value in accuracy.items() if key in SHOWN),
            dataset.num_videos, dataset.num_clips, dataset.transform.num_crops,
        )  # fmt: skip
        best = next(iter(accuracy.values()))
    return best


class ViewScores(NamedTuple):
    """Scores of all views; bad are videos that cannot be decoded, or for which the model gave no finite numbers."""

    logits: np.ndarray  # (M, V, K), NaN for bad videos
    labels: np.ndarray  # (M,), or of several labels 0 and 1 (M, K)
    bad_videos: list[dict[str, str]]

    def combine(self, method: str) -> np.ndarray:
        """Return the scores of the videos, (M, K), by a name of ENSEMBLE_METHODS."""
        return ensemble(self.logits, method, multi_label=self.labels.ndim == 2)


def mean_loss(loss_of: Callable, views: ViewScores, device: torch.device) -> float:
    """Return the mean of a training loss over all views, without label smoothing; videos without a score do not count.

    Class weights of the loss are on ``device``.
    """
    valid = ~np.isnan(views.logits).any(axis=(1, 2))
    _, num_views, num_classes = views.logits.shape
    logits = torch.from_numpy(views.logits[valid]).to(device).flatten(0, 1)  # (M V, K)
    targets = smooth_labels(torch.from_numpy(views.labels[valid]).to(device), num_classes, 0.0)  # (M, K)
    total = loss_of(logits, targets.repeat_interleave(num_views, dim=0)).item()
    return total / len(logits) if len(logits) else float("nan")


@torch.no_grad()
def score_views(model: nn.Module, evaluation: Evaluation, description: str) -> ViewScores | None:
    """Run the model over all views of the data set; return all scores on the main process, None on the others.

    Libraries choose their algorithms by the size of a batch, which changes the rounding of logits; with TEST.BATCH_SIZE
    1 every number of processes gives the same ones to the last bit.
    """
    process, loader, precision = evaluation.process, evaluation.loader, evaluation.precision
    is_strict = evaluation.on_bad_video == "error"
    was_training = model.training
    model.eval()
    videos, views, logits, bad_videos = [], [], [], []
    for batch in progress_bar(loader, len(loader), description, process.is_main and description != ""):
        bad_videos += [(bad.video_index, bad.path, bad.reason) for bad in batch.bad]
        if bad_videos and is_strict:
            if process.world_size > 1:
                logger.warning("%s has no score: %s; waiting for the other processes", *bad_videos[0][1:])
            break
        if len(batch.clips) == 0:
            continue
        clips = evaluation.normalize(batch.clips.to(process.device, non_blocking=True))
        with autocast(precision, process.device)():
            scores = model(clips)
        videos.append(batch.video_index.numpy())
        views.append(batch.view.numpy())
        logits.append(scores.float().cpu().numpy())
        bad_videos += _not_finite(logits[-1], batch, loader.dataset, precision)
    model.train(was_training)

    # Agreed on by all, so that none of them is left waiting for a process that has stopped.
    bad_anywhere = [bad for share in gather_to_all(bad_videos) for bad in share]
    if bad_anywhere and is_strict:
        _, path, reason = bad_anywhere[0]
        raise UserError(f"{path} has no score: {reason}. Exclude it, or set TEST.ON_BAD_VIDEO count_wrong")
    shares = gather_to_main((videos, views, logits))
    bad = {index: (path, reason) for index, path, reason in bad_anywhere}
    return None if shares is None else _assemble(shares, bad, loader.dataset, evaluation.on_bad_video)


def _not_finite(logits: np.ndarray, batch: Batch, dataset, precision: str) -> list[tuple[int, str, str]]:
    """Return index, path and reason of the videos of a batch with logits (B, K) that are not finite."""
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    reason = f"the model's logits are not finite in {precision} (see TEST.PRECISION)"
    return [(video, dataset.records[video].path, reason) for video in np.unique(batch.video_index[rows]).tolist()]


def _assemble(shares: list[tuple], bad: dict[int, tuple[str, str]], dataset, on_bad_video: str) -> ViewScores:
    """Join the scores of all processes and prove that every view was scored exactly once."""
    videos, views, logits = ([array for share in shares for array in share[part]] for part in range(3))
    if not logits and on_bad_video != "report":
        path, reason = next(iter(bad.values()))
        raise UserError(f"none of the {dataset.num_videos} videos can be decoded; the first one: {path}: {reason}")
    num_classes = logits[0].shape[1] if logits else 1
    table = np.full((dataset.num_videos, dataset.num_views, num_classes), np.nan, dtype=np.float32)
    times_scored = np.zeros(table.shape[:2], dtype=np.int64)
    for video, view, scores in zip(videos, views, logits, strict=True):
        table[video, view] = scores
        np.add.at(times_scored, (video, view), 1)
    # A video with one bad clip is bad as a whole: the sum over its other views is no score of the protocol.
    table[list(bad)] = np.nan
    times_scored[list(bad)] = 1
    if (times_scored != 1).any():
        video, view = np.argwhere(times_scored != 1)[0]
        raise RuntimeError(f"view {view} of video {video} was scored {times_scored[video, view]} times, not once")
    bad_videos = [{"path": path, "reason": reason} for path, reason in bad.values()]
    for video in () if on_bad_video == "report" else bad_videos[:_MAX_WARNINGS]:
        logger.warning("counted as wrong, one of %d: %s: %s", len(bad), video["path"], video["reason"])
    return ViewScores(table, np.asarray(dataset.labels), bad_videos)
