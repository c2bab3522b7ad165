"""The datasets by name: CIFAR-10, and digits where it cannot be had."""

import sys
from typing import Literal, get_args

from experiments.cli import UsageError
from experiments.data import cifar10, digits
from experiments.data.dataset import Dataset
from experiments.words import nearest

Choice = Literal["auto", "cifar10", "digits"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


def load(name: str = "auto", data_dir: str | None = None) -> Dataset:
    """Loads a set by name.

    Args:
        name: "cifar10" (downloaded and prepared on first use), "digits" (needs neither
          files nor a network), or "auto": CIFAR-10, but the digits, with a warning on
          stderr, where CIFAR-10 is not prepared and cannot be downloaded.
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
    if name not in CHOICES:
        raise UsageError(
            f"--dataset={name}: no such dataset; choose one of {', '.join(CHOICES)}"
            f"{nearest(name, CHOICES)}"
        )
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
