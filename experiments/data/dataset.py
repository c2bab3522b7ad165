"""A dataset as arrays, and what tells it from others."""

import dataclasses
import hashlib

import numpy as np

LARGEST = 4 * 2**30
"""Bytes that a file of a set may have, and the pixels of a split."""
SMALLEST = 8
"""Rows and columns that an image needs, because a network halves them three times."""


# Comparing two sets is comparing fingerprints: == on arrays would give an array.
@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A train and a test split as arrays.

    Attributes:
        name: "cifar10", "digits", or that of a prepared set or of a user's file.
        title: What reports call it: "CIFAR-10" for the official pixels only.
        fingerprint: See `fingerprint`.
        train_images: uint8, (N, H, W, 3), H and W from `SMALLEST`.
        train_labels: int32, (N,), indices into `class_names`.
        test_images: uint8, (M, H, W, 3).
        test_labels: int32, (M,).
        class_names: One name per class.
    """

    name: str
    title: str
    fingerprint: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def fingerprint(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
) -> str:
    """Identifies pixels and labels, whatever the order of the records.

    Each record (its pixels row by row, then its label as one byte) is hashed; a
    split's hash is that of its sorted record hashes, the set's that of train and test.

    Args:
        train_images: uint8, (N, H, W, 3).
        train_labels: Integers below 256, (N,).
        test_images: uint8, (M, H, W, 3).
        test_labels: Integers below 256, (M,).

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    whole = hashlib.sha256()
    for images, labels in (train_images, train_labels), (test_images, test_labels):
        records = sorted(
            hashlib.sha256(image.tobytes() + bytes([label])).digest()
            for image, label in zip(images, labels, strict=True)
        )
        whole.update(hashlib.sha256(b"".join(records)).digest())
    return whole.hexdigest()


def split_by_label(labels: np.ndarray) -> np.ndarray:
    """Chooses a fifth of the images to test on, the same with every library's version.

    Every fifth record in label order: stratified to within one image a class.

    Returns:
        bool, (N,).
    """
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    return is_test


def describe_dataset(dataset: Dataset) -> dict:
    """Describes a dataset: names, fingerprint, sizes."""
    return {
        "name": dataset.name,
        "title": dataset.title,
        "fingerprint": dataset.fingerprint,
        "train_size": len(dataset.train_labels),
        "test_size": len(dataset.test_labels),
        "class_names": list(dataset.class_names),
    }
