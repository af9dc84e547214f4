"""Score files: what a model said about every view of every video, from which everything else can be computed.

A score file is an ``.npz`` that ``numpy.load`` opens without pickle. Letters: ``M`` videos, ``V`` views, ``K`` classes.

===============  ==================  ==================================================================================
array            shape, type         content
===============  ==================  ==================================================================================
``videos``       (M,) text           paths as in the list file
``labels``       (M,) int64          true classes
``views``        (V,) int64          numbers of the views, ``clip * crops + crop``
``logits``       (M, V, K) float32   outputs of the model; NaN for a video that has no score
``scores``       (M, K) float64      scores of the videos, by the ensemble method in ``facts``
``class_names``  (K,) text           or (0,) if classes have no names
``facts``        () text             JSON: protocol (and view_protocol, without the ensemble method), ensemble_method,
                                     checkpoint, checkpoint_time, epoch, precision, bad_videos, config
===============  ==================  ==================================================================================

A file of another program needs ``videos``, ``labels`` and ``logits`` only.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from slowfast.utils.metrics import ensemble


@dataclass(frozen=True)
class Scores:
    """Content of a score file, see the top of this module; ``path`` is the file, for messages."""

    videos: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_names: list[str] | None = None
    facts: dict = field(default_factory=dict)
    path: str = ""


def save_scores(path: str, saved: Scores, scores: np.ndarray) -> None:
    """Write a score file; ``scores`` (M, K) are those of the videos. The file is there completely or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = {
        "videos": np.asarray(saved.videos, dtype=np.str_),
        "labels": saved.labels,
        "views": np.arange(saved.logits.shape[1]),
        "logits": saved.logits,
        "scores": scores,
        "class_names": np.asarray(saved.class_names or [], dtype=np.str_),
        "facts": np.asarray(json.dumps(saved.facts)),
    }
    temporary = f"{path}.writing"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        # Half a file on a full disk would only be in the way.
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise OSError(f"the scores cannot be written to {path}: {error.strerror or error}") from error


def load_scores(path: str) -> Scores:
    """Read a score file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no score file, or its arrays do not fit together.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"score file {path} does not exist; a test writes one into its OUTPUT_DIR")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path} is no score file (.npz), or it is damaged: {error}") from error
    missing = [name for name in ("videos", "labels", "logits") if name not in arrays]
    if missing:
        raise ValueError(f"{path} is no score file: it has no {', '.join(missing)}; found: {', '.join(arrays)}")
    videos, labels, logits = arrays["videos"], arrays["labels"], arrays["logits"]
    if logits.ndim != 3 or 0 in logits.shape or not videos.shape == labels.shape == logits.shape[:1]:
        raise ValueError(
            f"{path}: videos {videos.shape}, labels {labels.shape} and logits {logits.shape} must have the shapes "
            "(M,), (M,) and (M, V, K)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[2]:
        raise ValueError(
            f"{path}: labels must be integers from 0 to {logits.shape[2] - 1}, "
            f"found {labels.min()} to {labels.max()} ({labels.dtype})"
        )
    class_names = arrays.get("class_names", np.empty(0)).tolist() or None
    if class_names and len(class_names) != logits.shape[2]:
        raise ValueError(f"{path}: {len(class_names)} class names for logits of {logits.shape[2]} classes")
    facts = json.loads(str(arrays["facts"])) if "facts" in arrays else {}
    return Scores(videos.astype(np.str_), labels.astype(np.int64), logits, class_names, facts, path)


def align(runs: Sequence[Scores]) -> list[Scores]:
    """Return the runs with the videos of each in the order of the first one.

    Raises:
        ValueError: the runs have other videos, labels, numbers of classes or class names.
    """
    first = runs[0]
    order = _canonical_order(first)
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    aligned = [first]
    for run in runs[1:]:
        _check_same_task(first, run)
        # A path may be listed twice: sorted by label too, equal lines fall on each other.
        index = _canonical_order(run)[position]
        differing = np.flatnonzero(run.labels[index] != first.labels)
        if len(differing):
            video = differing[0]
            raise ValueError(
                f"{len(differing)} videos have other labels in {run.path} than in {first.path}, such as "
                f"{first.videos[video]}: {run.labels[index][video]} there, {first.labels[video]} here"
            )
        aligned.append(replace(run, videos=run.videos[index], labels=run.labels[index], logits=run.logits[index]))
    return aligned


def combine(runs: Sequence[Scores], method: str, weights: Sequence[float] | None = None) -> np.ndarray:
    """Return the scores (M, K) of one run by an ensemble method, or of several together.

    A run's part in the sum does not depend on its number of views: of several runs, the weighted mean of the mean
    logits (sum_logits), mean probabilities (mean_probability) or largest logits (max) is taken. Probabilities are the
    method for models whose logits differ in scale. A video without a score in one of the runs has none.

    Args:
        runs: aligned (``align``).
        method: a name of ``metrics.ENSEMBLE_METHODS``.
        weights: one per run, none negative; equal by default.

    Raises:
        ValueError: weights that are none.
    """
    if weights is not None and len(weights) != len(runs):
        raise ValueError(f"{len(weights)} weights for {len(runs)} score files, they must be as many")
    if weights is not None and not (np.isfinite(weights).all() and min(weights) >= 0 and sum(weights) > 0):
        raise ValueError(f"weights must not be negative, and one at least must be positive, found {list(weights)}")
    if len(runs) == 1:
        return ensemble(runs[0].logits, method)  # to the last digit what the test computed
    shares = np.full(len(runs), 1 / len(runs)) if weights is None else np.asarray(weights) / np.sum(weights)
    total = np.zeros(runs[0].logits[:, 0].shape)
    for run, share in zip(runs, shares, strict=True):
        num_summed = run.logits.shape[1] if method == "sum_logits" else 1
        total += share / num_summed * ensemble(run.logits, method)
    return total


def _canonical_order(run: Scores) -> np.ndarray:
    return np.lexsort((run.labels, run.videos))


def _check_same_task(first: Scores, run: Scores) -> None:
    here, there = Counter(first.videos.tolist()), Counter(run.videos.tolist())
    if here != there:
        counts = []
        for path, only in ((first.path, here - there), (run.path, there - here)):
            example = f" (such as {next(iter(only))})" if only else ""
            counts.append(f"{only.total()} only in {path}{example}")
        raise ValueError(f"the score files are not about the same videos: {', '.join(counts)}")
    classes = first.logits.shape[2], run.logits.shape[2]
    if classes[0] != classes[1]:
        raise ValueError(f"{first.path} has {classes[0]} classes, {run.path} has {classes[1]}")
    if first.class_names and run.class_names and first.class_names != run.class_names:
        label = next(k for k in range(classes[0]) if first.class_names[k] != run.class_names[k])
        raise ValueError(
            f"class {label} is {first.class_names[label]!r} in {first.path} and {run.class_names[label]!r} in "
            f"{run.path}: other class names or another order"
        )
