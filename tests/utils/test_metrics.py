"""Accuracies from scores, and intervals beside them."""

import numpy as np
import pytest

from slowfast.utils.metrics import (
    ENSEMBLE_METHODS,
    accuracy_intervals,
    accuracy_summary,
    confusion_matrix,
    ensemble,
    mean_average_precision,
    paired_differences,
    per_class_accuracy,
    seed_interval,
    topk_correct,
)


def test_topk_against_sorting():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, size=(200, 6)).astype(float)  # many ties
    labels = rng.integers(0, 6, size=200)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 2, 5, 9):
        expected = (order[:, :k] == labels[:, None]).any(axis=1)
        np.testing.assert_array_equal(topk_correct(scores, labels, k), expected)
    # Predictions win ties as top-1 does.
    matrix = confusion_matrix(scores, labels, 6)
    assert np.trace(matrix) == topk_correct(scores, labels, 1).sum()
    assert matrix.sum(axis=1).tolist() == np.bincount(labels, minlength=6).tolist()


def test_undecodable_videos_count_as_wrong():
    scores = np.array([[1.0, 0.0], [np.nan, np.nan], [0.0, 1.0], [0.0, 1.0]])
    labels = np.array([0, 0, 1, 0])
    assert topk_correct(scores, labels, 1).tolist() == [True, False, True, False]
    assert topk_correct(scores, labels, 5).tolist() == [True, False, True, True]
    assert confusion_matrix(scores, labels, 2).tolist() == [[1, 1], [0, 1]]
    summary = accuracy_summary(scores, labels)
    assert (summary["top1"], summary["mean_class"]) == (50.0, pytest.approx(100 * (1 / 3 + 1) / 2))
    assert set(accuracy_summary(scores * np.nan, labels).values()) == {0}


def test_class_without_videos_has_no_accuracy():
    accuracy, counts = per_class_accuracy(np.eye(3)[[0, 2]], np.array([0, 2]), 3)
    assert counts.tolist() == [1, 0, 1]
    assert np.isnan(accuracy[1]) and accuracy[0] == accuracy[2] == 1


def test_fewer_than_five_classes():
    scores = np.array([[0.0, 1.0], [2.0, 1.0], [np.nan, np.nan]])
    summary = accuracy_summary(scores, np.array([0, 0, 1]))
    # Any score is among the five best of two, but a video without a score never is.
    assert summary["top5"] == pytest.approx(200 / 3) and summary["top1"] == pytest.approx(100 / 3)
    assert accuracy_summary(np.array([[3.0]]), np.array([0])) == {"top1": 100, "top5": 100, "mean_class": 100}


@pytest.mark.parametrize("method", ENSEMBLE_METHODS)
def test_ensembles_keep_videos_without_a_score_apart(method):
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    logits[1] = np.nan
    scores = ensemble(logits, method)
    assert np.isnan(scores).any(axis=1).tolist() == [False, True, False]
    # The order of the views says nothing.
    np.testing.assert_allclose(ensemble(logits[:, ::-1], method), scores, rtol=1e-12)
    # Far from zero, where exp overflows unless it is shifted.
    np.testing.assert_array_equal(ensemble(logits + 2000, method).argmax(axis=1)[[0, 2]], scores.argmax(axis=1)[[0, 2]])


@pytest.mark.parametrize(
    ("right", "videos", "low", "high"),
    # Table I of R. G. Newcombe, Statistics in Medicine 17 (1998), score method without correction.
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18), (20, 20, 83.89, 100)],
)
def test_top1_interval_against_published_values(right, videos, low, high):
    predicted = np.arange(videos) >= right  # class 0 as often as it is right
    found = accuracy_intervals(np.eye(2)[predicted.astype(int)], np.zeros(videos, int))
    assert found["top1"] == pytest.approx((low, high), abs=5e-3)
    assert all(type(end) is float for ends in found.values() for end in ends)


def test_intervals_are_repeatable_and_there_for_a_single_video():
    scores, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 2])
    assert accuracy_intervals(scores, labels) == accuracy_intervals(scores, labels)
    assert accuracy_intervals(scores[:1], labels[:1])["mean_class"] == [100, 100]


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


def test_average_precision_by_hand():
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    scores = np.array([[0.9, 0.5, 1], [0.8, 0.5, 1], [0.7, 0.1, 1], [0.6, 0.5, 1], [0.5, 0.0, 1]])
    # First class: videos at ranks 1, 3 and 5; second: one of three tied ones, and at rank 4; the third has no video.
    first, second = (1 / 1 + 2 / 3 + 3 / 5) / 3, (1 / 3 + 2 / 4) / 2
    assert mean_average_precision(scores, labels) == pytest.approx((first + second) / 2)
    assert accuracy_summary(scores, labels) == {"mAP": pytest.approx(50 * (first + second))}
    scores[0] = np.nan  # the worst of all
    first, second = (1 / 2 + 2 / 4 + 3 / 5) / 3, (1 / 2 + 2 / 3) / 2
    assert mean_average_precision(scores, labels) == pytest.approx((first + second) / 2)


def test_several_labels_are_questions_of_their_own():
    logits = np.random.default_rng(0).normal(size=(4, 2, 3))
    probabilities = (1 / (1 + np.exp(-logits))).mean(axis=1)
    np.testing.assert_allclose(ensemble(logits, "mean_probability", multi_label=True), probabilities)


def test_interval_over_seeds():
    mean, half = seed_interval([50.0, 52.0, 57.0])
    assert mean == pytest.approx(53) and half == pytest.approx(4.302653 * 13**0.5 / 3**0.5)  # t of printed tables
    assert seed_interval([50.0]) == (50.0, None)
    assert seed_interval([50.0, 50.0]) == (50.0, 0.0)
