"""Scores of a classifier's predictions, with scikit-learn."""

import numpy as np


def accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the percentage of right answers.

    Args:
        logits: `[..., M, num_classes]`.
        labels: int `[M]`.

    Returns:
        float64 `[...]`, in percent.
    """
    return 100 * (logits.argmax(-1) == labels).sum(-1) / labels.size


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
