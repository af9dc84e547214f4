"""Accuracies from scores."""

import numpy as np
import pytest

from slowfast.utils.metrics import (
    ENSEMBLE_METHODS,
    accuracy_summary,
    confusion_matrix,
    ensemble,
    per_class_accuracy,
    softmax,
    topk_correct,
)


def test_ensembles_differ_as_defined():
    # Two views: one very sure of class 1, one mildly for class 0; all scores negative.
    logits = np.array([[[-9.0, -2.0, -8.0], [-3.0, -7.0, -4.0]]])
    np.testing.assert_allclose(ensemble(logits, "sum_logits"), [[-12, -9, -12]])
    np.testing.assert_allclose(ensemble(logits, "max"), [[-3, -2, -4]])
    expected = (softmax(logits[:, 0]) + softmax(logits[:, 1])) / 2
    np.testing.assert_allclose(ensemble(logits, "mean_probability"), expected)


def test_topk_against_sorting():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, size=(200, 6)).astype(float)  # many ties
    labels = rng.integers(0, 6, size=200)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 2, 5, 9):
        expected = (order[:, :k] == labels[:, None]).any(axis=1)
        np.testing.assert_array_equal(topk_correct(scores, labels, k), expected)


def test_undecodable_videos_count_as_wrong():
    scores = np.array([[1.0, 0.0], [np.nan, np.nan], [0.0, 1.0], [0.0, 1.0]])
    labels = np.array([0, 0, 1, 0])
    assert topk_correct(scores, labels, 1).tolist() == [True, False, True, False]
    assert topk_correct(scores, labels, 5).tolist() == [True, False, True, True]
    assert confusion_matrix(scores, labels, 2).tolist() == [[1, 1], [0, 1]]
    summary = accuracy_summary(scores, labels)
    assert summary["top1"] == 50.0
    assert summary["mean_class"] == pytest.approx(100 * (1 / 3 + 1) / 2)


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


def test_prediction_and_top1_agree_on_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 3, size=(300, 5)).astype(float), rng.integers(0, 5, size=300)
    matrix = confusion_matrix(scores, labels, 5)
    assert np.trace(matrix) == topk_correct(scores, labels, 1).sum()
    assert matrix.sum(axis=1).tolist() == np.bincount(labels, minlength=5).tolist()


def test_no_video_has_a_score():
    scores, labels = np.full((4, 3), np.nan), np.array([0, 0, 1, 1])
    assert accuracy_summary(scores, labels) == {"top1": 0, "top5": 0, "mean_class": 0}
    assert confusion_matrix(scores, labels, 3).sum() == 0


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
