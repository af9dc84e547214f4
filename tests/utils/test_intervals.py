"""Intervals beside accuracies."""

import numpy as np
import pytest

from slowfast.utils.intervals import (
    accuracy_intervals,
    bootstrap_interval,
    paired_differences,
    seed_interval,
    student_t_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("right", "videos", "low", "high"),
    # Table I of R. G. Newcombe, Statistics in Medicine 17 (1998), score method without correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(right, videos, low, high):
    assert wilson_interval(right, videos) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(videos - right, videos) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_bootstrap_against_drawing_videos():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=60)
    labels[labels == 3] = 7  # classes 3 to 6 have no videos
    values = (rng.random(60) < 0.3 + 0.1 * labels % 0.7) - 1.0 * (rng.random(60) < 0.2)

    def class_mean(drawn):
        return np.mean([values[drawn][labels[drawn] == k].mean() for k in np.unique(labels[drawn])])

    draws = [rng.integers(0, 60, size=60) for _ in range(4000)]
    for found, means in (
        (bootstrap_interval(values), [values[drawn].mean() for drawn in draws]),
        (bootstrap_interval(values, labels), [class_mean(drawn) for drawn in draws]),
    ):
        # 0.02 is a sixth of the width: the spread of percentiles of so many draws is less.
        assert found == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_intervals_contain_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    num_classes, num_videos, share, tests = 5, 200, 0.75, 200
    inside = {"top1": 0, "mean_class": 0}
    for _ in range(tests):
        labels = rng.integers(0, num_classes, size=num_videos)
        predicted = np.where(rng.random(num_videos) < share, labels, (labels + 1) % num_classes)
        intervals = accuracy_intervals(np.eye(num_classes)[predicted], labels)
        for name in inside:
            inside[name] += intervals[name][0] <= 100 * share <= intervals[name][1]
    # Of 200 tests 95 % are 190, with a standard deviation of 3.
    assert all(180 <= count <= 199 for count in inside.values()), inside


def test_intervals_are_repeatable_and_honest_at_the_ends():
    scores, labels = np.eye(3), np.arange(3)
    assert accuracy_intervals(scores, labels) == accuracy_intervals(scores, labels)
    low, high = accuracy_intervals(scores, labels)["top1"]
    assert low == pytest.approx(43.85, abs=0.01) and high == 100.0
    wrong = accuracy_intervals(np.full((3, 3), np.nan), labels)
    assert wrong["top1"][0] == 0.0 and wrong["top1"][1] == pytest.approx(56.15, abs=0.01)


def test_paired_differences_know_that_the_videos_are_the_same():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, size=500)
    hard = rng.random(500) < 0.4
    a = np.eye(10)[np.where(hard, (labels + 1) % 10, labels)]
    helped = hard & (rng.random(500) < 0.1)
    b = np.eye(10)[np.where(hard & ~helped, (labels + 1) % 10, labels)]
    found = paired_differences(a, b, labels)["top1"]
    assert found["difference"] == pytest.approx(100 * helped.mean())
    low, high = found["interval95"]
    assert 0 < low < found["difference"] < high
    # Alone, each accuracy is uncertain by more than the whole difference.
    alone = accuracy_intervals(a, labels)["top1"]
    assert alone[1] - alone[0] > 2 * (high - low)
    assert paired_differences(b, a, labels)["top1"]["difference"] == -found["difference"]
    assert paired_differences(a, a, labels)["mean_class"] == {"difference": 0.0, "interval95": [0.0, 0.0]}


@pytest.mark.parametrize(
    ("degrees", "expected"),
    # From printed tables of Student's distribution (two-sided, 95 %).
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_student_t_as_in_printed_tables(degrees, expected):
    assert student_t_quantile(degrees) == pytest.approx(expected, abs=6e-4)


def test_interval_over_seeds():
    mean, half = seed_interval([50.0, 52.0, 57.0])
    assert mean == pytest.approx(53) and half == pytest.approx(4.302653 * 13**0.5 / 3**0.5)
    assert seed_interval([50.0]) == (50.0, None)
    assert seed_interval([50.0, 50.0]) == (50.0, 0.0)


def test_interval_over_seeds_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [seed_interval(values) for values in rng.normal(size=(4000, 3))]
    assert np.mean([abs(mean) <= half for mean, half in found]) == pytest.approx(0.95, abs=0.011)  # 3 deviations
