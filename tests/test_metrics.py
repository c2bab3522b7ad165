"""Scores: by hand, against scikit-learn, and on networks whose answer is known."""

import json
import math

import numpy as np
import pytest

from experiments.training import metrics

CALIBRATION_SCORES = ("nll", "brier", "ece", "ece_mass")


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
    score = metrics.score(make_logits([0, 0, 0, 0], 2), np.array([0, 0, 1, 1]))
    assert score["f1"] == pytest.approx(1 / 3)
    assert (score["accuracy"], score["precision"], score["recall"]) == (50, 0.25, 0.5)
    assert score["confusion"] == [[2, 0], [2, 0]]
    assert json.loads(json.dumps(score)) == score  # plain Python


def test_a_class_without_images_keeps_its_row_and_column():
    score = metrics.score(make_logits([0, 3, 3], 4), np.array([0, 0, 3]))
    assert score["confusion"] == [[1, 0, 0, 1], [0] * 4, [0] * 4, [0, 0, 0, 1]]
    # It has no weight in the averages: precisions 1 and 1/2, weights 2 and 1.
    assert score["precision"] == pytest.approx((2 * 1 + 1 / 2) / 3)


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
    assert (score["accuracy"], score["confusion"]) == (25, [[1, 0], [3, 0]])


# Probabilities


def make_network(num_images: int, num_classes: int, seed=0):
    """Logits, float32, and labels drawn from their softmax: calibrated by design."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((num_images, num_classes), np.float32)
    # The largest of logits plus Gumbel noise is a draw from their softmax.
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(-1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def test_calibration_worked_out_by_hand():
    probabilities = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.05, 0.05, 0.9]]
    probabilities.append([0.25, 0.24, 0.51])
    scores = metrics.calibration(np.log(probabilities), np.array([0, 1, 2, 2]))
    # Only the second is wrong. The bins of equal width hold 0.5 and 0.51; 0.7; 0.9.
    # Those of equal mass hold one image each.
    expected = {
        "nll": -math.log(0.7 * 0.3 * 0.9 * 0.51) / 4,
        "brier": (0.14 + 0.78 + 0.015 + 0.3602) / 4,
        "ece": (abs(1.01 - 1) + 0.3 + 0.1) / 4,
        "ece_mass": (0.5 + 0.49 + 0.3 + 0.1) / 4,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert set(scores) == {*expected, "reliability"}
    # By the number of a bin: images, their mean confidence, the share that is right.
    bins = {7: (2, 0.505, 0.5), 10: (1, 0.7, 1), 13: (1, 0.9, 1)}
    columns = zip(*(bins.get(k, (0, None, None)) for k in range(15)), strict=True)
    count, confidence, accuracy = map(list, columns)
    reliability = scores["reliability"]
    assert reliability["confidence"] == pytest.approx(confidence)
    del reliability["confidence"]
    assert reliability == {"count": count, "accuracy": accuracy}


@pytest.mark.parametrize("num_images", [1, 15, 44, 500])
def test_calibration_errors_are_those_of_direct_loops(num_images):
    logits, labels = make_network(num_images, 10)
    probabilities = softmax(logits)
    pairs = sorted(
        (row.max(), row.argmax() == label)
        for row, label in zip(probabilities, labels, strict=True)
    )
    widths = [
        [pair for pair in pairs if k / 15 < pair[0] <= (k + 1) / 15] for k in range(15)
    ]
    small, larger = divmod(num_images, 15)
    rest = iter(pairs)
    masses = [[next(rest) for _ in range(small + (k < larger))] for k in range(15)]
    assert list(rest) == []

    def error(bins):
        gaps = [abs(sum(float(c) - bool(r) for c, r in held)) for held in bins]
        return sum(gaps) / num_images

    scores = metrics.calibration(logits, labels)
    assert scores["ece"] == pytest.approx(error(widths))
    assert scores["ece_mass"] == pytest.approx(error(masses))
    assert scores["reliability"]["count"] == [len(held) for held in widths]


def test_images_of_equal_confidence_stay_in_their_order():
    logits = np.log(np.full((30, 2), [0.7, 0.3]))
    # Pairs of one right and one wrong; then seven of two right, one of either and
    # seven of two wrong.
    taking_turns = metrics.calibration(logits, np.arange(30) % 2)
    right_first = metrics.calibration(logits, np.arange(30) // 15)
    assert taking_turns["ece_mass"] == pytest.approx(15 * 0.4 / 30)
    assert right_first["ece_mass"] == pytest.approx((7 * 0.6 + 0.4 + 7 * 1.4) / 30)
    assert taking_turns["ece"] == right_first["ece"] == pytest.approx(0.2)


@pytest.mark.parametrize(("num_classes", "index"), [(15, 0), (5, 2), (3, 4), (1, 14)])
def test_a_bin_holds_its_right_edge(num_classes, index):
    # Of equal logits the confidence is 1 / num_classes.
    scores = metrics.calibration(np.zeros((2, num_classes)), np.array([0, 0]))
    assert scores["reliability"]["count"] == [2 * (k == index) for k in range(15)]


def test_the_most_confident_bin_counts():
    logits = np.full((4, 10), -1000.0)
    logits[:, 3] = 0
    scores = metrics.calibration(logits, np.array([3, 3, 3, 7]))
    assert scores["ece"] == scores["ece_mass"] == 0.25
    last = {name: values[-1] for name, values in scores["reliability"].items()}
    assert last == {"count": 4, "confidence": 1, "accuracy": 0.75}
    # Where the probability itself is below the smallest float.
    assert scores["nll"] == pytest.approx(1000 / 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_diverged_network_has_no_probabilities(value):
    logits, labels = make_network(20, 10)
    logits[7, 2] = value
    names = (*CALIBRATION_SCORES, "reliability")
    assert metrics.calibration(logits, labels) == dict.fromkeys(names)
