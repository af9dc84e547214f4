"""Results of a test, for programs (JSON, CSV) and for people (text, pictures)."""

from __future__ import annotations

import csv
import logging
import os

import numpy as np
import simplejson

from slowfast.engine.evaluate import ViewScores
from slowfast.engine.record import Recorder
from slowfast.utils.logging import read_events
from slowfast.utils.metrics import accuracy_summary, confusion_matrix, per_class_accuracy
from slowfast.visualization.plots import plot_confusion_matrix, plot_learning_curves

logger = logging.getLogger(__name__)

RESULTS = "test_results.json"


def write_results(
    output_dir: str,
    views: ViewScores,
    scores: np.ndarray,
    class_names: list[str] | None,
    recorder: Recorder,
    facts: dict,
) -> dict:
    """Write ``test_results.json``, ``per_class_accuracy.csv`` and ``confusion_matrix.png``; return the first's content.

    Args:
        output_dir: folder of the run.
        views: scores of all views.
        scores: (M, K) scores of the videos.
        class_names: K names, or None for numbers.
        recorder: gets the event ``test``.
        facts: what else the JSON file should hold (protocol, checkpoint, ...).
    """
    num_videos, num_views, num_classes = views.logits.shape
    names = class_names or [str(label) for label in range(num_classes)]
    accuracy, counts = per_class_accuracy(scores, views.labels, num_classes)
    results = {
        **accuracy_summary(scores, views.labels),
        "num_videos": num_videos,
        "num_views": num_videos * num_views,
        "views_per_video": num_views,
        "bad_videos": views.bad_videos,
        **facts,
    }
    with open(os.path.join(output_dir, "per_class_accuracy.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "class", "num_videos", "top1_percent"])
        for label, name in enumerate(names):
            percent = "" if np.isnan(accuracy[label]) else f"{100 * accuracy[label]:.2f}"
            writer.writerow([label, name, counts[label], percent])
    matrix = confusion_matrix(scores, views.labels, num_classes)
    plot_confusion_matrix(matrix, names, os.path.join(output_dir, "confusion_matrix.png"))
    # Last: its presence says that the test is complete.
    _write_json(os.path.join(output_dir, RESULTS), results)
    recorder.event("test", **{key: value for key, value in results.items() if key != "config"})
    logger.info(summary_line(results))
    return results


def plot_run(output_dir: str) -> None:
    """Draw ``learning_curves.png`` from the run's event log."""
    # A resumed run logs an epoch again that it had not finished; the last one counts.
    train = {event["epoch"]: event for event in read_events(output_dir, "train_epoch")}
    val = {event["epoch"]: event for event in read_events(output_dir, "val")}
    if train:
        path = os.path.join(output_dir, "learning_curves.png")
        plot_learning_curves([train[k] for k in sorted(train)], [val[k] for k in sorted(val)], path)


def read_results(output_dir: str) -> dict | None:
    """Return the results of a finished test in ``output_dir``, None if there are none."""
    path = os.path.join(output_dir, RESULTS)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return simplejson.load(file)


def summary_line(results: dict) -> str:
    """Return the results as one line of text."""
    return (
        f"test: top-1 {results['top1']:.2f} %, top-5 {results['top5']:.2f} %, mean class {results['mean_class']:.2f} % "
        f"on {results['num_videos']} videos, {results['num_views']} views, {len(results['bad_videos'])} not decodable "
        f"({results['protocol']})"
    )


def _write_json(path: str, content: dict) -> None:
    temporary = f"{path}.writing"
    with open(temporary, "w", encoding="utf-8") as file:
        simplejson.dump(content, file, indent=2, ignore_nan=True)
    os.replace(temporary, path)
