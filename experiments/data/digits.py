"""Handwritten digits, which are always at hand."""

import numpy as np

from experiments.data.dataset import Dataset, fingerprint, split_by_label


def load() -> Dataset:
    """The 8x8 digits of scikit-learn, enlarged to the shape of CIFAR-10's images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = grey.repeat(4, axis=1).repeat(4, axis=2)[..., np.newaxis].repeat(3, axis=3)
    labels = digits.target.astype(np.int32)
    is_test = split_by_label(labels)
    splits = images[~is_test], labels[~is_test], images[is_test], labels[is_test]
    names = tuple(str(digit) for digit in digits.target_names)
    return Dataset("digits", "handwritten digits", fingerprint(*splits), *splits, names)
