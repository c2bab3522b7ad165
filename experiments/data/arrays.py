"""A user's own images, from an .npz file."""

from pathlib import Path

import numpy as np

from experiments import files, words
from experiments.cli import UsageError
from experiments.data.dataset import (
    LARGEST,
    SMALLEST,
    Dataset,
    fingerprint,
    split_by_label,
)

SUFFIX = ".npz"
KEYS = {"images", "labels", "is_test", "class_names"}


def load(path: Path, *, entry: str = "--dataset") -> Dataset:
    """Reads images and labels.

    Args:
        path: of a file with `images`, uint8 (N, H, W, 3), H and W 8 or more; `labels`,
            integers from 0 to 255, (N,); and, if there are, `is_test`, bool (N,), and
            `class_names`, strings. Without `is_test` every fifth image of each class is
            a test image.
        entry: what the user chose it by, for messages.

    Returns:
        The set, titled by the name of the file.

    Raises:
        UsageError: names the array at fault and the remedy.
    """
    try:
        arrays = files.read_arrays(path, LARGEST)
        return _make(path, arrays)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{entry}={path}: {words.reason(error).removesuffix('.')}; see "
            "docs/experiment.md for what it has to hold."
        ) from None


def _make(path: Path, arrays: dict[str, np.ndarray]) -> Dataset:
    if unknown := sorted(arrays.keys() - KEYS):
        known = ", ".join(sorted(KEYS))
        raise ValueError(f"holds {unknown[0]}, which is none of {known}")
    if missing := sorted({"images", "labels"} - arrays.keys()):
        raise ValueError(f"{missing[0]} are missing")
    images, labels = arrays["images"], arrays["labels"]
    is_colour = images.ndim == 4 and images.shape[-1] == 3
    if images.dtype != np.uint8 or not is_colour or min(images.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"images are {images.dtype} {images.shape}, not uint8 (N, H, W, 3) with H "
            f"and W of {SMALLEST} or more"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}, not integers "
            f"({len(images)},), one for each image"
        )
    if not len(labels) or labels.min() < 0 or labels.max() > 255:
        raise ValueError("labels have to go from 0 to 255 at most")
    count = int(labels.max()) + 1
    names = arrays.get("class_names", np.arange(count).astype(str))
    if names.dtype.kind != "U" or names.ndim != 1 or len(names) < count:
        raise ValueError(f"class_names are not strings for {count} classes")
    is_test = arrays.get("is_test", split_by_label(labels))
    if is_test.dtype != bool or is_test.shape != labels.shape:
        raise ValueError("is_test is not a bool for each image")
    if is_test.all() or not is_test.any():
        raise ValueError("is_test leaves no image to train on, or none to test on")
    labels = labels.astype(np.int32)
    splits = images[~is_test], labels[~is_test], images[is_test], labels[is_test]
    classes = tuple(map(str, names))
    return Dataset(path.stem, path.name, fingerprint(*splits), *splits, classes)
