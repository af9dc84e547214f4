"""Results of a test, for programs (JSON, CSV) and for people (text, pictures)."""

from __future__ import annotations

import csv
import os

import numpy as np
import simplejson

from slowfast.utils.files import replacing
from slowfast.utils.logging import read_events
from slowfast.utils.metrics import METHOD, accuracy_intervals, accuracy_summary, confusion_matrix, per_class_accuracy

RESULTS = "test_results.json"
SCORES = "test_scores.npz"


def measure(scores: np.ndarray, labels: np.ndarray, views_per_video: int, bad_videos: list[dict], **facts) -> dict:
    """Return the content of ``test_results.json``: accuracies with their intervals, counts and ``facts``.

    Args:
        scores: (M, K) scores of the videos, NaN where a video has none.
        labels: (M,).
        views_per_video: scored to get them.
        bad_videos: path and reason of the videos without scores.
        facts: what else the file should hold; ``protocol`` at least.
    """
    return {
        **accuracy_summary(scores, labels),
        "interval95": accuracy_intervals(scores, labels),
        "interval_method": METHOD,
        "num_videos": len(labels),
        "num_views": len(labels) * views_per_video,
        "views_per_video": views_per_video,
        "num_classes": scores.shape[1],
        "num_classes_with_videos": len(np.unique(labels)),
        "bad_videos": bad_videos,
        **facts,
    }


def write_results(
    output_dir: str, results: dict, scores: np.ndarray, labels: np.ndarray, class_names: list[str] | None
) -> None:
    """Write ``per_class_accuracy.csv``, ``confusion_matrix.png`` and ``test_results.json``.

    Args:
        output_dir: folder, which exists.
        results: what ``measure`` returned.
        scores: (M, K) scores of the videos.
        labels: (M,).
        class_names: K names, or None for numbers.
    """
    num_classes = scores.shape[1]
    names = class_names or [str(label) for label in range(num_classes)]
    accuracy, counts = per_class_accuracy(scores, labels, num_classes)
    with open(os.path.join(output_dir, "per_class_accuracy.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "class", "num_videos", "top1_percent"])
        for label, name in enumerate(names):
            percent = "" if np.isnan(accuracy[label]) else f"{100 * accuracy[label]:.2f}"
            writer.writerow([label, name, counts[label], percent])
    from slowfast.engine.pictures import plot_confusion_matrix  # matplotlib: half a second, not at the start

    matrix = confusion_matrix(scores, labels, num_classes)
    plot_confusion_matrix(matrix, names, os.path.join(output_dir, "confusion_matrix.png"))
    # Last: its presence says that the test is complete.
    write_json(os.path.join(output_dir, RESULTS), results)


def plot_run(output_dir: str) -> None:
    """Draw ``learning_curves.png`` from the run's event log."""
    train, val = read_epochs(output_dir, "train_epoch"), read_epochs(output_dir, "val")
    if train:
        path = os.path.join(output_dir, "learning_curves.png")
        from slowfast.engine.pictures import plot_learning_curves  # as above

        plot_learning_curves(train, val, path)


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
        results = simplejson.load(file)
    # Those of earlier versions had no intervals.
    return results if "interval95" in results else None


def summary_line(results: dict) -> str:
    """Return the results as one line of text."""
    accuracies = []
    for key, name in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "mean class")):
        low, high = results["interval95"][key]
        accuracies.append(f"{name} {results[key]:.2f} % [{low:.1f}, {high:.1f}]")
    return (
        f"test: {', '.join(accuracies)} on {results['num_videos']} videos, {results['num_views']} views, "
        f"{len(results['bad_videos'])} without a score ({results['protocol']}; 95 % intervals in brackets)"
    )


def write_json(path: str, content: dict) -> None:
    """Write a JSON file completely or not at all; NaN becomes null."""
    with replacing(path) as file:
        simplejson.dump(content, file, indent=2, ignore_nan=True)
