"""Accuracies from scores."""

import numpy as np
import pytest

from slowfast.utils.metrics import (
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
