"""Scores of every view of every video, each exactly once, over any number of processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from slowfast.datasets.augment.on_device import Normalize
from slowfast.datasets.loader import Batch, explained
from slowfast.engine.precision import autocast
from slowfast.utils.distributed import Process, gather_to_all, gather_to_main
from slowfast.utils.logging import progress_bar

logger = logging.getLogger(__name__)

ON_BAD_VIDEO = ("error", "count_wrong")

# Of a network that has diverged every video is bad.
_MAX_WARNINGS = 20


@dataclass
class ViewScores:
    """Logits of all views, (M videos, V views, K classes), NaN for bad videos; labels (M,).

    Bad are videos that could not be decoded, or for which the model returned a number that is not finite.
    """

    logits: np.ndarray
    labels: np.ndarray
    bad_videos: list[dict[str, str]]


@torch.no_grad()
def score_views(
    model: nn.Module,
    loader: DataLoader,
    normalize: Normalize,
    process: Process,
    precision: str,
    on_bad_video: str,
    description: str,
) -> ViewScores | None:
    """Run the model over all views of the loader's data set.

    Which views are scored together changes a logit by the rounding of its precision, because libraries choose their
    algorithms by the size of a batch. With one clip per process and step (TEST.BATCH_SIZE 1) every number of
    processes gives the same logits to the last bit.

    Args:
        model: returns logits (B, K) of clips (B, 3, T, H, W).
        loader: this process's share of the views.
        normalize: turns the bytes of its batches into clips.
        process: this process.
        precision: fp32, bf16 or fp16.
        on_bad_video: error | count_wrong.
        description: label of the progress bar.

    Returns:
        All scores on the main process, None on the others.

    Raises:
        ValueError: a video is bad and ``on_bad_video`` is error, or none can be decoded.
        RuntimeError: a view was scored twice or not at all.
    """
    assert on_bad_video in ON_BAD_VIDEO
    was_training = model.training
    model.eval()
    videos, views, logits, bad_videos = [], [], [], []
    for batch in progress_bar(_batches(loader), len(loader), description, process.is_main):
        bad_videos += [(bad.video_index, bad.path, bad.reason) for bad in batch.bad]
        if bad_videos and on_bad_video == "error":
            break
        if len(batch.clips) == 0:
            continue
        clips = normalize(batch.to(process.device, non_blocking=True).clips)
        with autocast(precision, process.device):
            scores = model(clips)
        videos.append(batch.video_index.numpy())
        views.append(batch.view.numpy())
        logits.append(scores.float().cpu().numpy())
        bad_videos += _not_finite(logits[-1], batch, loader.dataset, precision)
    model.train(was_training)

    # Agreed on by all, so that none of them is left waiting for a process that has stopped.
    bad_anywhere = [bad for share in gather_to_all(bad_videos) for bad in share]
    if bad_anywhere and on_bad_video == "error":
        _, path, reason = bad_anywhere[0]
        raise ValueError(
            f"{path} has no score: {reason}. Remove it from the list, or set TEST.ON_BAD_VIDEO count_wrong to count "
            "such videos as wrong"
        )
    shares = gather_to_main((videos, views, logits, bad_videos))
    return None if shares is None else _assemble(shares, loader.dataset)


def _batches(loader: DataLoader) -> Iterator[Batch]:
    try:
        yield from loader
    except RuntimeError as error:
        raise explained(error) from error


def _not_finite(logits: np.ndarray, batch: Batch, dataset, precision: str) -> list[tuple[int, str, str]]:
    """Return index, path and reason of the videos of a batch with logits (B, K) that are not finite."""
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    reason = f"the model's logits are not finite in {precision} (see TEST.PRECISION)"
    return [(video, dataset.records[video].path, reason) for video in np.unique(batch.video_index[rows]).tolist()]


def _assemble(shares: list[tuple], dataset) -> ViewScores:
    bad = {index: (path, reason) for share in shares for index, path, reason in share[3]}
    videos, views, logits = ([array for share in shares for array in share[part]] for part in range(3))
    if not logits:
        path, reason = next(iter(bad.values()))
        raise ValueError(f"none of the {dataset.num_videos} videos can be decoded; the first one: {path}: {reason}")
    num_classes = logits[0].shape[1]
    table = np.full((dataset.num_videos, dataset.num_views, num_classes), np.nan, dtype=np.float32)
    times_scored = np.zeros((dataset.num_videos, dataset.num_views), dtype=np.int64)
    for video, view, scores in zip(videos, views, logits, strict=True):
        table[video, view] = scores
        np.add.at(times_scored, (video, view), 1)

    # A video with one bad clip is bad as a whole: the sum over its other views is no score of the protocol.
    table[list(bad)] = np.nan
    good = np.ones(dataset.num_videos, dtype=bool)
    good[list(bad)] = False
    if not (times_scored[good] == 1).all():
        wrong = np.argwhere((times_scored != 1) & good[:, None])
        video, view = wrong[0]
        raise RuntimeError(
            f"{len(wrong)} views were not scored exactly once, the first one view {view} of video {video} "
            f"({times_scored[video, view]} times)"
        )
    for path, reason in list(bad.values())[:_MAX_WARNINGS]:
        logger.warning("counted as wrong: %s: %s", path, reason)
    if len(bad) > _MAX_WARNINGS:
        logger.warning("counted as wrong: %d videos in all", len(bad))
    bad_videos = [{"path": path, "reason": reason} for path, reason in bad.values()]
    return ViewScores(table, np.asarray(dataset.labels), bad_videos)
