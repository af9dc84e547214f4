"""Scores of views to scores of videos to accuracies with their 95 % intervals, in NumPy and SciPy.

Letters: ``M`` videos, ``V`` views of a video, ``K`` classes. Labels are numbers of classes (M,); where videos may have
several, 0 and 1 (M, K), and mAP stands for the accuracies.
"""

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 2000
METHOD = (
    f"95 % over videos: Wilson score interval (top1, top5), percentile bootstrap of {NUM_RESAMPLES} resamples, "
    "seed 0 (mean_class, differences)"
)

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


def ensemble(logits: np.ndarray, method: str, multi_label: bool = False) -> np.ndarray:
    """Combine the logits of the views, (M, V, K), into scores of the videos, (M, K), by a name of ENSEMBLE_METHODS.

    With ``multi_label`` the probability of each class is its own, against the rest.
    """
    combine = ENSEMBLE_METHODS[method]
    if multi_label and method == "mean_probability":
        combine = lambda logits: np.exp(-np.logaddexp(0, -logits)).mean(axis=1)  # noqa: E731
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


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of videos of each class, (K,)."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean, over the classes that have videos, of the average precision of scores (M, K), labels (M, K).

    That is the mean over a class's videos of the share of its videos among those that score as high or higher. Videos
    of NaN come last.
    """
    precisions = []
    for own, is_own in zip(np.nan_to_num(scores, nan=-np.inf).T, labels.T.astype(bool)):
        if is_own.any():
            num_higher = len(own) - np.searchsorted(np.sort(own), own[is_own])
            num_right = is_own.sum() - np.searchsorted(np.sort(own[is_own]), own[is_own])
            precisions.append((num_right / num_higher).mean())
    return float(np.mean(precisions))


def accuracy_summary(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return top1, top5 and mean_class accuracy in percent, or of several labels per video mAP in percent."""
    if labels.ndim == 2:
        return {"mAP": 100.0 * mean_average_precision(scores, labels)}
    right = {k: topk_correct(scores, labels, k) for k in (1, 5)}
    shares = {"top1": right[1].mean(), "top5": right[5].mean(), "mean_class": _class_mean(right[1], labels)}
    return {name: 100.0 * float(share) for name, share in shares.items()}


def accuracy_intervals(scores: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Return the 95 % intervals [low, high] of top1, top5 and mean_class accuracy in percent; mAP has none."""
    if labels.ndim == 2:
        return {}
    from scipy import stats  # takes half a second, for which no training has to wait

    right = {k: topk_correct(scores, labels, k) for k in (1, 5)}
    tests = {f"top{k}": stats.binomtest(int(right[k].sum()), len(labels)) for k in (1, 5)}
    # E. B. Wilson's interval (1927) stays honest where all or none are right, as a bootstrap does not.
    intervals = {name: test.proportion_ci(0.95, method="wilson") for name, test in tests.items()}
    intervals["mean_class"] = _bootstrap_interval(right[1], labels)
    return {name: [100.0 * float(end) for end in interval] for name, interval in intervals.items()}


def paired_differences(scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray) -> dict[str, dict]:
    """Return by how many percentage points B, (M, K), is better than A, (M, K): ``difference`` and ``interval95``."""
    # The same videos are drawn for both, so that what is hard for both does not widen the interval.
    gains = {k: topk_correct(scores_b, labels, k) * 1.0 - topk_correct(scores_a, labels, k) for k in (1, 5)}
    one_class = np.zeros_like(labels)
    found = {}
    for name, k, classes in (("top1", 1, one_class), ("top5", 5, one_class), ("mean_class", 1, labels)):
        interval = [100.0 * float(end) for end in _bootstrap_interval(gains[k], classes)]
        found[name] = {"difference": 100.0 * float(_class_mean(gains[k], classes)), "interval95": interval}
    return found


def seed_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of one value per seed, and half its 95 % interval by Student's t; None for one value alone."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else None
    return float(np.mean(values)), None if half is None else float(half)


def _class_mean(values: np.ndarray, labels: np.ndarray) -> float:
    counts = np.bincount(labels)
    return np.mean(np.bincount(labels, weights=values)[counts > 0] / counts[counts > 0])


def _bootstrap_interval(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    if len(values) == 1:
        return values[0], values[0]
    options = {"method": "percentile", "n_resamples": NUM_RESAMPLES, "batch": 100, "vectorized": False, "rng": 0}

    def mean_of(videos: np.ndarray) -> float:
        return _class_mean(values[videos], labels[videos])

    return stats.bootstrap((np.arange(len(values)),), mean_of, **options).confidence_interval
