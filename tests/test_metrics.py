"""Scores against confusion matrices worked out by hand."""

import numpy as np
import pytest

from experiments import metrics


def make_logits(predicted, num_classes: int) -> np.ndarray:
    """Logits, not one-hot, whose largest is the predicted class."""
    rng = np.random.default_rng(0)
    logits = rng.uniform(-5, 0, (*np.shape(predicted), num_classes))
    np.put_along_axis(logits, np.expand_dims(predicted, -1), 0.5, axis=-1)
    return logits.astype(np.float32)


def test_scores_of_a_small_confusion_worked_out_by_hand():
    # Of class 0 two of three are right, of class 1 one of one, of class 2 one of two.
    labels = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([0, 0, 1, 1, 2, 0])
    score = metrics.score(make_logits(predicted, 3), labels)
    assert score["confusion"] == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    # By class: precisions 2/3, 1/2, 1; recalls 2/3, 1, 1/2; so F1 2/3, 2/3, 2/3. The
    # averages have the weights 3, 1, 2 of the classes.
    expected = {
        "accuracy": 100 * 4 / 6,
        "precision": (3 * 2 / 3 + 1 / 2 + 2 * 1) / 6,
        "recall": (3 * 2 / 3 + 1 + 2 * 1 / 2) / 6,
        "f1": 2 / 3,
    }
    assert {name: score[name] for name in expected} == pytest.approx(expected)
    assert set(score) == {*expected, "confusion"}


def test_a_class_never_predicted_has_precision_0_without_a_warning():
    labels = np.array([0, 0, 1, 1])
    score = metrics.score(make_logits([0, 0, 0, 0], 2), labels)
    assert score["confusion"] == [[2, 0], [2, 0]]
    assert score["accuracy"] == 50
    assert score["precision"] == pytest.approx((2 * 1 / 2 + 2 * 0) / 4)
    assert score["recall"] == pytest.approx(1 / 2)
    assert score["f1"] == pytest.approx((2 * 2 / 3 + 2 * 0) / 4)


def test_a_class_without_images_keeps_its_row_and_column():
    score = metrics.score(make_logits([0, 3, 3], 4), np.array([0, 0, 3]))
    assert score["confusion"] == [[1, 0, 0, 1], [0] * 4, [0] * 4, [0, 0, 0, 1]]
    # It has no weight in the averages: precisions 1 and 1/2, weights 2 and 1.
    assert score["precision"] == pytest.approx((2 * 1 + 1 / 2) / 3)


def test_perfect_predictions_score_1():
    labels = np.arange(20) % 10
    score = metrics.score(make_logits(labels, 10), labels)
    assert score["accuracy"] == 100
    assert score["precision"] == score["recall"] == score["f1"] == 1
    np.testing.assert_array_equal(score["confusion"], 2 * np.eye(10))


def test_scores_are_plain_python():
    score = metrics.score(make_logits([0, 1], 2), np.array([0, 0], np.int32))
    for name, value in score.items():
        assert type(value) is (list if name == "confusion" else float)
    assert type(score["confusion"][0][0]) is int


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
def test_accuracy_keeps_leading_axes(leading):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    predicted = rng.integers(0, 4, (*leading, 50))
    accuracy = metrics.accuracy(make_logits(predicted, 4), labels)
    assert (accuracy.shape, accuracy.dtype) == (leading, np.float64)
    for index in np.ndindex(leading):
        right = sum(int(a == b) for a, b in zip(predicted[index], labels, strict=True))
        assert accuracy[index] == pytest.approx(2 * right)


def test_a_diverged_network_is_scored_as_it_predicts():
    # All logits NaN: argmax takes the first class.
    score = metrics.score(np.full((4, 2), np.nan), np.array([0, 1, 1, 1]))
    assert score["accuracy"] == 25
    assert score["confusion"] == [[1, 0], [3, 0]]
