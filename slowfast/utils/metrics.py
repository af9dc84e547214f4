"""Scores of views to scores of videos to accuracies, in NumPy.

Letters: ``M`` videos, ``V`` views of a video, ``K`` classes.
"""

from __future__ import annotations

import numpy as np

ENSEMBLE_METHODS = {
    "sum_logits": lambda logits: logits.sum(axis=1),
    "mean_probability": lambda logits: softmax(logits).mean(axis=1),
    "max": lambda logits: logits.max(axis=1),
}

_VIDEOS_AT_ONCE = 1024


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def ensemble(logits: np.ndarray, method: str) -> np.ndarray:
    """Combine the logits of the views, (M, V, K), into scores of the videos, (M, K), by a name of ENSEMBLE_METHODS."""
    combine = ENSEMBLE_METHODS[method]
    # In parts: copies of all views of Kinetics in float64 would take gigabytes.
    parts = (logits[first : first + _VIDEOS_AT_ONCE] for first in range(0, len(logits), _VIDEOS_AT_ONCE))
    return np.concatenate([combine(part.astype(np.float64)) for part in parts])


def topk_correct(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return which videos have their label among the ``k`` best scores, (M,) bool. Rows of NaN are wrong."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    # A tie is won by the smaller class index, as in a stable sort.
    tied_before = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    rank = ((scores > own) | tied_before).sum(axis=1)
    return (rank < k) & ~np.isnan(scores).any(axis=1)


def confusion_matrix(scores: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return counts (K, K), rows the true class and columns the predicted one; rows of NaN scores are left out."""
    valid = ~np.isnan(scores).any(axis=1)
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (labels[valid], scores[valid].argmax(axis=1)), 1)
    return matrix


def per_class_accuracy(scores: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return top-1 accuracy (K,), NaN where a class has no video, and the number of videos (K,)."""
    correct = topk_correct(scores, labels, 1)
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, weights=correct, minlength=num_classes)
    return np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0), counts


def accuracy_summary(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return top1, top5 and mean_class accuracy in percent."""
    per_class, _ = per_class_accuracy(scores, labels, scores.shape[1])
    return {
        "top1": 100.0 * float(topk_correct(scores, labels, 1).mean()),
        "top5": 100.0 * float(topk_correct(scores, labels, 5).mean()),
        "mean_class": 100.0 * float(np.nanmean(per_class)),
    }
