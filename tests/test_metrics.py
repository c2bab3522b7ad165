"""Scores against counts worked out by hand."""

import numpy as np
import pytest

from experiments import metrics


def logits_of(predicted, num_classes=3) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[predicted]


def test_score_of_a_small_confusion():
    labels = np.array([0, 0, 0, 1, 1, 2])
    score = metrics.score(logits_of([0, 0, 1, 1, 0, 2]), labels)
    assert score["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert score["accuracy"] == pytest.approx(100 * 4 / 6)
    # Weighted by support 3, 2, 1.
    assert score["precision"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6)
    assert score["recall"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6)
    assert score["f1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6)


def test_a_class_never_predicted_counts_as_zero_precision():
    score = metrics.score(logits_of([0, 0]), np.array([0, 1]))
    assert score["precision"] == pytest.approx(0.25)
    assert score["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_accuracy_keeps_leading_axes():
    logits = np.stack([logits_of([0, 1, 2, 2]), logits_of([0, 0, 0, 0])])
    labels = np.array([0, 1, 2, 0])
    np.testing.assert_array_equal(metrics.accuracy(logits, labels), [75, 50])
