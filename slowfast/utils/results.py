"""Results of a test, for programs (JSON, CSV, score files) and for people (text, pictures).

docs/results.md describes score files. Letters: ``M`` videos, ``V`` views, ``K`` classes.
"""

import csv
import json
import logging
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejson

from slowfast.utils.errors import UserError
from slowfast.utils.files import LABEL_SEPARATOR, replacing
from slowfast.utils.logging import read_events
from slowfast.utils.metrics import (
    METHOD,
    accuracy_intervals,
    accuracy_summary,
    class_counts,
    confusion_matrix,
    ensemble,
    per_class_accuracy,
)

logger = logging.getLogger(__name__)

RESULTS = "test_results.json"
SCORES = "test_scores.npz"


def measure(scores: np.ndarray, labels: np.ndarray, views_per_video: int, bad_videos: list[dict], **facts) -> dict:
    """Return the content of ``test_results.json`` from scores (M, K), NaN where a video has none, and labels (M,)."""
    return {
        **accuracy_summary(scores, labels),
        "interval95": accuracy_intervals(scores, labels),
        "interval_method": METHOD,
        "num_videos": len(labels),
        "num_views": len(labels) * views_per_video,
        "views_per_video": views_per_video,
        "num_classes": scores.shape[1],
        "num_classes_with_videos": int(np.count_nonzero(class_counts(labels, scores.shape[1]))),
        "bad_videos": bad_videos,
        **facts,
    }


def write_results(output_dir: str, results: dict, run: "Scores", scores: np.ndarray, probabilities: np.ndarray) -> None:
    """Write ``per_class_accuracy.csv``, ``predictions.csv``, ``confusion_matrix.png`` and ``results`` of ``measure``.

    Where videos may have several labels, ``predictions.csv`` and ``results`` alone.

    Args:
        output_dir: folder of the files.
        results: content of ``test_results.json``.
        run: its videos, labels and class names are used.
        scores: (M, K), whose highest is the prediction; NaN where a video has none.
        probabilities: (M, K), averaged over the views.
    """
    names = run.class_names or [str(label) for label in range(scores.shape[1])]
    _write_predictions(os.path.join(output_dir, "predictions.csv"), run, names, scores, probabilities)
    if run.labels.ndim == 1:
        _write_tables(output_dir, run.labels, names, scores)
    # Last: its presence says that the test is complete.
    write_json(os.path.join(output_dir, RESULTS), results)


def _write_predictions(
    path: str, run: "Scores", names: list[str], scores: np.ndarray, probabilities: np.ndarray
) -> None:
    """Write a line per video: its class and that of the highest score; or its classes, and all above one half."""
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "class", "prediction", "predicted_class", "probability"])
        for video, label, of_video, shares in zip(run.videos, run.labels, scores, probabilities):
            true, predicted = np.atleast_1d(label), of_video.argmax(keepdims=True)
            if run.labels.ndim == 2:
                true, predicted = np.flatnonzero(label), np.flatnonzero(shares > 0.5)
            predicted = predicted[:0] if np.isnan(of_video).any() else predicted
            columns = [each for own in (true, predicted) for each in (own, [names[k] for k in own])]
            columns.append([f"{share:.6f}" for share in shares[predicted]])
            writer.writerow([video, *(LABEL_SEPARATOR.join(map(str, column)) for column in columns)])


def _write_tables(output_dir: str, labels: np.ndarray, names: list[str], scores: np.ndarray) -> None:
    num_classes = scores.shape[1]
    accuracy, counts = per_class_accuracy(scores, labels, num_classes)
    with replacing(os.path.join(output_dir, "per_class_accuracy.csv")) as file:
        writer = csv.writer(file)
        writer.writerow(["label", "class", "num_videos", "top1_percent"])
        for label, name in enumerate(names):
            percent = "" if np.isnan(accuracy[label]) else f"{100 * accuracy[label]:.2f}"
            writer.writerow([label, name, counts[label], percent])
    matrix = confusion_matrix(scores, labels, num_classes)
    from slowfast.utils.pictures import plot_confusion_matrix  # torch takes seconds, which few readers need

    plot_confusion_matrix(matrix, names, os.path.join(output_dir, "confusion_matrix.png"))


def write_difference(folder: str, plain_path: str, run: "Scores") -> None:
    """Write ``difference.csv``, the accuracy of every class and of all videos in a plain test and in ``run``.

    The scores at ``plain_path`` must be of the same checkpoint, videos and views, or the log says that there are none.
    """
    plain = load_scores(plain_path) if os.path.isfile(plain_path) else None
    keys = ("checkpoint", "checkpoint_time", "weights", "ensemble_method", "precision", "view_protocol")
    facts = run.facts | {"view_protocol": run.facts["view_protocol"].partition(", frames: ")[0]}
    if plain is None or any(plain.facts.get(key) != facts[key] for key in keys) or [*plain.videos] != [*run.videos]:
        logger.info("without a plain test of the same checkpoint, videos and views there is no difference to it")
        Path(folder, "difference.csv").unlink(missing_ok=True)
        return
    method, num_classes = run.facts["ensemble_method"], run.logits.shape[2]
    tests = [ensemble(scores.logits, method) for scores in (plain, run)]
    (before, counts), (after, _) = (per_class_accuracy(scores, run.labels, num_classes) for scores in tests)
    totals = [accuracy_summary(scores, run.labels)["top1"] for scores in tests]
    names = run.class_names or [str(label) for label in range(num_classes)]
    with replacing(os.path.join(folder, "difference.csv")) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "class", "num_videos", "plain_top1_percent", "top1_percent", "difference"])
        for label in np.argsort(after - before, kind="stable"):  # first those that need time most, classes without last
            percents = [100 * before[label], 100 * after[label], 100 * (after[label] - before[label])]
            shown = ["" if np.isnan(percent) else f"{percent:.2f}" for percent in percents]
            writer.writerow([label, names[label], counts[label], *shown])
        writer.writerow(["", "all", len(run.labels), *(f"{x:.2f}" for x in (*totals, totals[1] - totals[0]))])
    logger.info(
        "the plain test has top-1 %.2f %%, this one %.2f %%; %s/difference.csv has the classes", *totals, folder
    )


def plot_run(output_dir: str) -> None:
    """Draw ``learning_curves.png`` from the run's event log."""
    train, val = read_epochs(output_dir, "train_epoch"), read_epochs(output_dir, "val")
    if train:
        from slowfast.utils.pictures import plot_learning_curves

        plot_learning_curves(train, val, os.path.join(output_dir, "learning_curves.png"))


def read_epochs(output_dir: str, event: str) -> list[dict]:
    """Return the events of one name of a run that has one per epoch, in the order of the epochs."""
    # A resumed run logs an epoch again that it had not finished; the last one counts.
    events = {entry["epoch"]: entry for entry in read_events(output_dir, event)}
    return [events[epoch] for epoch in sorted(events)]


def read_results(output_dir: str) -> dict | None:
    """Return the results of a finished test in ``output_dir``, None if there are none that are complete."""
    path = os.path.join(output_dir, RESULTS)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return simplejson.load(file)


def summary_line(results: dict) -> str:
    """Return the results as one line of text."""
    accuracies = [f"mAP {results['mAP']:.2f} %"] if "mAP" in results else []
    for key, (low, high) in results["interval95"].items():
        name = {"top1": "top-1", "top5": "top-5", "mean_class": "mean class"}[key]
        accuracies.append(f"{name} {results[key]:.2f} % [{low:.1f}, {high:.1f}]")
    num_bad = len(results["bad_videos"])
    return (
        f"test: {', '.join(accuracies)} on {results['num_videos']} videos, {results['num_views']} views"
        + (f", {num_bad} without a score" if num_bad else "")
        + f" ({results['protocol']}{'; 95 % intervals in brackets' if results['interval95'] else ''})"
        + ("; TOO HIGH: the checkpoint was chosen on these videos" if results.get("selected_on_test") else "")
    )


def write_json(path: str, content: dict) -> None:
    """Write a JSON file completely or not at all; NaN becomes null."""
    with replacing(path) as file:
        simplejson.dump(content, file, indent=2, ignore_nan=True)


@dataclass(frozen=True)
class Scores:
    """Content of a score file; ``path`` is the file, for messages."""

    videos: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_names: list[str] | None = None
    facts: dict = field(default_factory=dict)
    path: str = ""


def save_scores(path: str, saved: Scores, probabilities: np.ndarray) -> None:
    """Write a score file, completely or not at all; ``probabilities`` (M, K) are averaged over the views."""
    arrays = {
        "videos": np.asarray(saved.videos, dtype=np.str_),
        "labels": saved.labels,
        "views": np.arange(saved.logits.shape[1]),
        "logits": saved.logits,
        "scores": probabilities,
        "class_names": np.asarray(saved.class_names or [], dtype=np.str_),
        "facts": np.asarray(json.dumps(saved.facts)),
    }
    try:
        with replacing(path, "wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(f"the scores cannot be written to {path}: {error.strerror or error}") from error


def load_scores(path: str) -> Scores:
    """Read and check a score file."""
    if not os.path.isfile(path):
        raise UserError(f"score file {path} does not exist; a test writes one into its OUTPUT_DIR")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path} is no score file (.npz), or it is damaged") from error
    missing = [name for name in ("videos", "labels", "logits") if name not in arrays]
    if missing:
        raise UserError(f"{path} is no score file: it has no {', '.join(missing)}; found: {', '.join(arrays)}")
    videos, labels, logits = arrays["videos"], arrays["labels"], arrays["logits"]
    if labels.ndim == 2:
        raise UserError(f"{path} is of a test with several labels per video, of which nothing is computed again")
    if logits.ndim != 3 or 0 in logits.shape or not videos.shape == labels.shape == logits.shape[:1]:
        raise UserError(
            f"{path}: videos {videos.shape}, labels {labels.shape} and logits {logits.shape} must have the shapes "
            "(M,), (M,) and (M, V, K)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[2]:
        raise UserError(
            f"{path}: labels must be integers from 0 to {logits.shape[2] - 1}, "
            f"found {labels.min()} to {labels.max()} ({labels.dtype})"
        )
    class_names = arrays.get("class_names", np.empty(0)).tolist() or None
    if class_names and len(class_names) != logits.shape[2]:
        raise UserError(f"{path}: {len(class_names)} class names for logits of {logits.shape[2]} classes")
    facts = json.loads(str(arrays["facts"])) if "facts" in arrays else {}
    return Scores(videos.astype(np.str_), labels.astype(np.int64), logits, class_names, facts, path)
