"""CIFAR-10-C as it was published, where it is at hand, or generated here."""

import contextlib
import dataclasses
import hashlib
import io
import os
from pathlib import Path

import numpy as np

from experiments import files, words
from experiments.cli import UsageError
from experiments.data import prepared
from experiments.data.dataset import Dataset
from experiments.robustness.corruptions import check, corrupt

# Raise it with any change of pixels: what was cached is then made anew.
VERSION = 1

# Of a dataset with the official pixels, and of no other.
_OFFICIAL_TITLE = "CIFAR-10"


@dataclasses.dataclass(frozen=True, eq=False)
class Corrupted:
    """Corrupted test images.

    Attributes:
        images: uint8, (M, 32, 32, 3).
        labels: int32, (M,). Published images need not be in the order of the clean
          ones, so take these and not the dataset's.
        source: "published" for CIFAR-10-C itself, "generated" for what is made here.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str


def load(
    dataset: Dataset,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    data_dir: str | None = None,
    cache_dir: Path | None = None,
) -> Corrupted:
    """Loads the test images of a dataset, corrupted.

    For the official test images of CIFAR-10 the published CIFAR-10-C is taken where it
    is prepared; whatever else is corrupted here.

    Args:
        dataset: whose test images to corrupt.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: see `corrupt`; published images do not depend on it.
        data_dir: The folder that may hold TFDS's `cifar10_corrupted`; None as in
          `datasets.load`.
        cache_dir: Where generated images are kept, 31 MB for 10,000; None keeps none.

    Returns:
        The images, their labels and where they come from.

    Raises:
        ValueError: if the name or the severity is unknown.
        UsageError: if published images are prepared but cannot be read.
    """
    check(name, severity)
    if dataset.title == _OFFICIAL_TITLE:
        published = _load_published(name, severity, data_dir)
        if published is not None:
            return published
    clean = dataset.test_images
    if cache_dir is None:
        images = corrupt(name, clean, severity, seed=seed)
        return Corrupted(images, dataset.test_labels, "generated")
    # The dataset's own fingerprint does not know the order of the images.
    digest = hashlib.sha256(np.ascontiguousarray(clean).data).hexdigest()[:16]
    path = cache_dir / f"{name}-{severity}-seed{seed}-v{VERSION}-{digest}.npy"
    cached = _read(path)
    if cached is None:
        cached = corrupt(name, clean, severity, seed=seed)
        _write(path, cached)
    return Corrupted(cached, dataset.test_labels, "generated")


def _load_published(name: str, severity: int, data_dir: str | None) -> Corrupted | None:
    """CIFAR-10-C as TFDS prepares it, or None where it is not prepared."""
    renamed = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
    root = prepared.find_root(data_dir)
    folder = f"cifar10_corrupted/{renamed.get(name, name)}_{severity}/1.0.0"
    if not os.path.exists(root / folder):
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS asks for TensorFlow
            builder = prepared.open_prepared(root / folder)
            images, labels = prepared.read_split(builder, "test")
        if images.shape[1:] != (32, 32, 3) or labels.max() > 9:
            raise ValueError("its pictures are not CIFAR-10's")
    # As for CIFAR-10 itself, what can be raised has no common base.
    except Exception as error:
        raise UsageError(
            f"--data-dir={root}: {folder} in it cannot be read "
            f"({words.reason(error)}); prepare it with "
            "file_format='array_record', or remove it to have the images made."
        ) from error
    return Corrupted(images, labels, "published")


def _read(path: Path) -> np.ndarray | None:
    """What `_write` wrote, or None where that is missing or damaged."""
    try:
        content = files.read(path, files.CACHE_SIZE)
    except OSError:
        return None
    array, checksum = content[:-32], content[-32:]
    if hashlib.sha256(array).digest() != checksum:
        return None
    return np.load(io.BytesIO(array))


def _write(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file and a checksum after it, whole or not at all, if it can."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    # np.load looks no further than the array.
    content += hashlib.sha256(content).digest()
    # Where there is no room, the next run makes it again.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(content)
