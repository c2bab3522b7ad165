"""Scores of a classifier's predictions and of its probabilities."""

import numpy as np

NUM_BINS = 15  # as in Guo et al. 2017, see calibration


def accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the percentage of right answers.

    Args:
        logits: `[..., M, num_classes]`.
        labels: int `[M]`.

    Returns:
        float64 `[...]`, in percent.
    """
    return 100 * (logits.argmax(-1) == labels).sum(-1) / labels.size


def diverged(losses: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns of networks whether a loss or a logit is NaN or infinite.

    Args:
        losses: `[..., num_epochs]`.
        logits: `[..., M, num_classes]`.

    Returns:
        bool `[...]`.

    Example:
        >>> logits = np.zeros((2, 3, 10))
        >>> diverged(np.array([[1.5, 1.2], [1.5, np.nan]]), logits)
        array([False,  True])
    """
    return ~(np.isfinite(losses).all(-1) & np.isfinite(logits).all((-2, -1)))


def score(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Scores one network's test logits as the original does.

    Args:
        logits: `[M, num_classes]`.
        labels: int `[M]`.

    Returns:
        accuracy in percent; precision, recall and F1 in [0, 1], averaged over the
        classes by their support, a class never predicted counting as precision 0; and
        the confusion matrix, a row for each true class.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = logits.argmax(-1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="weighted", zero_division=0
    )
    confusion = confusion_matrix(labels, predicted, labels=np.arange(logits.shape[-1]))
    return {
        "accuracy": float(accuracy(logits, labels)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "confusion": confusion.tolist(),
    }


def calibration(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Scores the probabilities of one network's predictions.

    They are the softmax of the logits, in float64. The confidence of a prediction is
    the largest of them, and a bin's gap how far the mean confidence of its images is
    from the fraction of right answers among them. A calibration error is the mean gap,
    every bin weighing as much as it has images.

    Args:
        logits: `[M, num_classes]`, M at least 1.
        labels: int `[M]`, from 0 to num_classes - 1.

    Returns:
        Plain Python, ready for JSON. Every entry is None if any logit is NaN or
        infinite: a network that diverged has no probabilities.

        * "nll": the mean negative log-likelihood, in nats, 0 or more.
        * "brier": the mean over the images of the squared differences to the one-hot
          labels, summed over the classes, in [0, 2] (Brier 1950). Some halve it.
        * "ece": the expected calibration error, in [0, 1], not percent, over 15 bins of
          equal width, k from 0 on with the confidences in (k/15, (k+1)/15] (Guo et al.
          2017).
        * "ece_mass": the same over 15 bins of equal mass: the images sorted by
          confidence and cut into 15 parts, the first M % 15 of them one image larger.
          Images of equal confidence stay in their order, so where a cut falls between
          such, the score depends on it.
        * "reliability": of the bins of equal width, in rising order: "count", 15 ints;
          "confidence" and "accuracy", 15 means each, in [0, 1], None for an empty bin.

    Raises:
        ImportError: SciPy is not installed.

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly
        Weather Review 78, 1950. Guo et al., "On Calibration of Modern Neural Networks",
        ICML 2017 (arxiv.org/abs/1706.04599). Bins of equal mass: Nguyen and O'Connor,
        "Posterior Calibration and Exploratory Analysis for Natural Language Processing
        Models", EMNLP 2015 (arxiv.org/abs/1508.05154).

    Example:
        >>> logits = np.log([[0.7, 0.3], [0.7, 0.3], [0.1, 0.9]])
        >>> scores = calibration(logits, labels=np.array([0, 1, 1]))
        >>> for name in ("nll", "brier", "ece", "ece_mass"):
        ...     print(name, round(scores[name], 3))
        nll 0.555
        brier 0.393
        ece 0.167
        ece_mass 0.367
        >>> reliability = scores["reliability"]  # 0.7 is in the bin from 10/15 to 11/15
        >>> reliability["count"][10], reliability["accuracy"][10]
        (2, 0.5)
    """
    from scipy.special import log_softmax, softmax

    logits = np.asarray(logits, np.float64)
    if not np.isfinite(logits).all():
        return dict.fromkeys(("nll", "brier", "ece", "ece_mass", "reliability"))
    num_images, num_classes = logits.shape
    probabilities = softmax(logits, axis=-1)
    log_likelihoods = log_softmax(logits, axis=-1)[np.arange(num_images), labels]
    squares = (probabilities - np.eye(num_classes)[labels]) ** 2
    confidence = probabilities.max(-1)
    right = logits.argmax(-1) == labels

    edges = np.arange(1, NUM_BINS) / NUM_BINS
    bins = np.digitize(confidence, edges, right=True)
    count = np.bincount(bins, minlength=NUM_BINS)
    confidence_sums = np.bincount(bins, confidence, NUM_BINS)
    right_sums = np.bincount(bins, right, NUM_BINS)

    by_confidence = np.argsort(confidence, kind="stable")
    parts = np.array_split((confidence - right)[by_confidence], NUM_BINS)

    def means(sums: np.ndarray) -> list[float | None]:
        return [
            float(total / n) if n else None
            for total, n in zip(sums, count, strict=True)
        ]

    return {
        "nll": float(-log_likelihoods.mean()),
        "brier": float(squares.sum(-1).mean()),
        "ece": float(np.abs(confidence_sums - right_sums).sum() / num_images),
        "ece_mass": float(sum(abs(part.sum()) for part in parts) / num_images),
        "reliability": {
            "count": count.tolist(),
            "confidence": means(confidence_sums),
            "accuracy": means(right_sums),
        },
    }
