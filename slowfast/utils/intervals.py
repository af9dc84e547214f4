"""How sure an accuracy is: 95 % intervals over the videos of a test, and over the seeds of its training, in NumPy.

Letters: ``M`` videos, ``K`` classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from slowfast.utils.metrics import topk_correct

NUM_RESAMPLES = 2000
METHOD = (
    f"95 % over videos: Wilson score interval (top1, top5), percentile bootstrap of {NUM_RESAMPLES} resamples, "
    "seed 0 (mean_class, differences)"
)

_NORMAL_QUANTILE = 1.959963984540054  # of 0.975


def wilson_interval(num_right: int, num_videos: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (E. B. Wilson, 1927).

    A bootstrap of right and wrong answers approximates the same binomial distribution, but finds no spread at all
    where all videos are right or all are wrong; this interval stays honest there.
    """
    z2 = _NORMAL_QUANTILE**2
    share = num_right / num_videos
    centre = share + z2 / (2 * num_videos)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * num_videos)) / num_videos)
    low, high = (centre - half) / (1 + z2 / num_videos), (centre + half) / (1 + z2 / num_videos)
    # Exact at the ends, where rounding would leave 1e-17 or push the share itself outside.
    return (0.0 if num_right == 0 else float(low)), (1.0 if num_right == num_videos else float(high))


def bootstrap_interval(values: np.ndarray, labels: np.ndarray | None = None, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean over videos, which are drawn with replacement.

    A resample depends on a video only through its value and its class, so that the counts of each (class, value) are
    drawn, which have a multinomial distribution, instead of M videos. Where all values are equal there is nothing to
    resample: the interval is that one value.

    Args:
        values: (M,) a number per video, of few distinct ones: 1 or 0 for right or wrong, or a difference of those.
        labels: (M,) classes; the mean is then that of the classes' means, over the classes that a resample has.
            None is the mean over all videos.
        seed: of the resamples.
    """
    groups = np.zeros(len(values)) if labels is None else labels
    cells, counts = np.unique(np.stack([groups, values], axis=1), axis=0, return_counts=True)  # sorted by class
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), counts / len(values), size=NUM_RESAMPLES).astype(np.float64)
    first_of_class = np.flatnonzero(np.diff(cells[:, 0], prepend=-1))
    sums = np.add.reduceat(drawn * cells[:, 1], first_of_class, axis=1)  # (resamples, classes)
    sizes = np.add.reduceat(drawn, first_of_class, axis=1)
    means = np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0)
    low, high = np.percentile(np.nanmean(means, axis=1), [2.5, 97.5])
    return float(low), float(high)


def accuracy_intervals(scores: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Return the 95 % intervals [low, high] of top1, top5 and mean_class accuracy in percent."""
    right = {k: topk_correct(scores, labels, k) for k in (1, 5)}
    intervals = {
        "top1": wilson_interval(int(right[1].sum()), len(labels)),
        "top5": wilson_interval(int(right[5].sum()), len(labels)),
        "mean_class": bootstrap_interval(right[1], labels),
    }
    return {name: [100.0 * end for end in ends] for name, ends in intervals.items()}


def paired_differences(scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray) -> dict[str, dict]:
    """Return by how many percentage points B is better than A, both of shape (M, K) for the same videos.

    The same videos are drawn for both, so that what is hard for both does not widen the interval.

    Returns:
        For top1, top5 and mean_class: ``difference`` and its ``interval95`` [low, high].
    """
    gains = {k: topk_correct(scores_b, labels, k) * 1.0 - topk_correct(scores_a, labels, k) for k in (1, 5)}
    counts = np.bincount(labels)
    by_class = np.bincount(labels, weights=gains[1])[counts > 0] / counts[counts > 0]
    found = {
        "top1": (gains[1].mean(), bootstrap_interval(gains[1])),
        "top5": (gains[5].mean(), bootstrap_interval(gains[5])),
        "mean_class": (by_class.mean(), bootstrap_interval(gains[1], labels)),
    }
    return {
        name: {"difference": 100.0 * float(difference), "interval95": [100.0 * end for end in ends]}
        for name, (difference, ends) in found.items()
    }


def seed_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of one value per seed, and half the width of its 95 % interval by Student's t.

    It assumes that the values of many seeds would be about normally distributed. One value alone has no interval: None.
    """
    if len(values) == 1:
        return float(values[0]), None
    standard_error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(student_t_quantile(len(values) - 1) * standard_error)


@functools.cache
def student_t_quantile(degrees: int) -> float:
    """Return the t that 95 % of Student's distribution of ``degrees`` degrees of freedom lie within, from -t to t."""
    low, high = 0.0, np.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _share_within(middle, degrees) < 0.95 else (low, middle)
    return float(np.tan(low) * np.sqrt(degrees))


def _share_within(angle: float, degrees: int) -> float:
    """Return P(|T| < sqrt(degrees) tan(angle)), for which whole degrees have a finite series (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.3 and 26.7.4)."""
    is_odd = degrees % 2
    powers = np.arange(degrees // 2)
    steps = 2 * powers[1:]
    factors = np.cumprod([1.0, *(steps / (steps + 1) if is_odd else (steps - 1) / steps)])[: len(powers)]
    series = np.sin(angle) * np.sum(factors * np.cos(angle) ** (2 * powers + is_odd))
    return float(2 / np.pi * (angle + series) if is_odd else series)
