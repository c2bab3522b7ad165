"""The datasets by name: CIFAR-10, digits where it cannot be had, or a file."""

import sys
from pathlib import Path
from typing import Literal, get_args

from experiments.cli import UsageError
from experiments.data import arrays, cifar10, digits
from experiments.data.dataset import Dataset
from experiments.words import nearest

Choice = Literal["auto", "cifar10", "digits"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


def check(name: str) -> None:
    """Raises for the name of no dataset."""
    if name not in CHOICES and not name.endswith(arrays.SUFFIX):
        raise UsageError(
            f"--dataset={name}: no such dataset; choose one of {', '.join(CHOICES)}, "
            f"or the path of an {arrays.SUFFIX} file{nearest(name, CHOICES)}."
        )


def load(name: str = "auto", data_dir: str | None = None) -> Dataset:
    """Loads a set by name.

    Args:
        name: "cifar10" (downloaded and prepared on first use), "digits" (needs neither
          files nor a network), or "auto": CIFAR-10, but the digits, with a warning on
          stderr, where CIFAR-10 is not prepared and cannot be downloaded. The path
          of an .npz file for images of one's own, see `arrays.load`.
        data_dir: The folder that holds, or will hold, `cifar10/3.0.2`. None is TFDS's
          own default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
        The set; the same files give the same arrays in the same order.

    Raises:
        UsageError: If `name` is unknown, CIFAR-10 was asked for and cannot be had, or
          a prepared CIFAR-10 is damaged (with "auto" too: a set that should be there
          is not replaced by another).

    Example:
      >>> load("digits").train_images.shape
      (1437, 32, 32, 3)
    """
    check(name)
    if name.endswith(arrays.SUFFIX):
        return arrays.load(Path(name))
    if name == "digits":
        return digits.load()
    try:
        return cifar10.load(data_dir)
    except cifar10.Unavailable as error:
        if name == "cifar10":
            raise UsageError(
                f"--dataset=cifar10: {error}; {cifar10.REMEDIES}, or use "
                "--dataset=digits"
            ) from error
        print(
            "WARNING: --dataset=auto takes handwritten digits INSTEAD OF CIFAR-10: "
            f"{error}; for CIFAR-10, {cifar10.REMEDIES}",
            file=sys.stderr,
            flush=True,
        )
        return digits.load()
