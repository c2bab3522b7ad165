"""The datasets by name: CIFAR-10, digits where it cannot be had, a user's own."""

import re
import sys
from pathlib import Path
from typing import Literal, get_args

from experiments.cli import UsageError
from experiments.data import arrays, cifar10, digits, prepared
from experiments.data.dataset import Dataset
from experiments.words import nearest

Choice = Literal["auto", "cifar10", "digits"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


OWN = "NAME", "FILE.npz"
"""How `--help` writes those that are not among the choices."""
PATTERN = rf"^({prepared.NAME}|.*\.npz)$"
"""What names a set in a plan, which may be read where the set is not."""
DESCRIPTION = f"such as {', '.join(CHOICES)}, {' or '.join(OWN)}"


def check(name: str, data_dir: str | None = None, *, entry: str = "--dataset") -> None:
    """Raises for the name of no dataset, see `load`."""
    if name in CHOICES or name.endswith(arrays.SUFFIX):
        return
    root = prepared.find_root(data_dir)
    if not re.fullmatch(prepared.NAME, name) or not prepared.find(root, name):
        known = [*CHOICES, *(path.parent.name for path in root.glob("*/*.*.*"))]
        raise UsageError(
            f"{entry}={name}: no such dataset; choose one of {', '.join(CHOICES)}, "
            f"one that tensorflow-datasets has prepared in {root}, or the path of an "
            f"{arrays.SUFFIX} file{nearest(name, known)}."
        )


def load(
    name: str = "auto", data_dir: str | None = None, *, entry: str = "--dataset"
) -> Dataset:
    """Loads a set by name.

    Args:
        name: "cifar10" (downloaded and prepared on first use), "digits" (needs neither
          files nor a network), or "auto": CIFAR-10, but the digits, with a warning on
          stderr, where CIFAR-10 is not prepared and cannot be downloaded. The name
          of another set that TFDS has prepared, as array_record, see `prepared.load`;
          or the path of an .npz file, see `arrays.load`.
        data_dir: The folder that holds, or will hold, `cifar10/3.0.2`, and where the
          path of an .npz file begins. None is TFDS's own default: $TFDS_DATA_DIR, else
          ~/tensorflow_datasets; and the current folder.
        entry: What the user chose it by, for messages.

    Returns:
        The set; the same files give the same arrays in the same order.

    Raises:
        UsageError: If `name` is unknown, CIFAR-10 was asked for and cannot be had, or
          a prepared set is damaged (CIFAR-10 with "auto" too: a set that should be
          there is not replaced by another) or none of image classification.

    Example:
      >>> load("digits").train_images.shape
      (1437, 32, 32, 3)
    """
    check(name, data_dir, entry=entry)
    if name.endswith(arrays.SUFFIX):
        return arrays.load(Path(data_dir or "", name), entry=entry)
    if name == "digits":
        return digits.load()
    if name not in CHOICES:
        return _load_prepared(name, data_dir, entry)
    try:
        return cifar10.load(data_dir)
    except cifar10.Unavailable as error:
        if name == "cifar10":
            *_, key = entry.split()
            raise UsageError(
                f"{entry}=cifar10: {error}; {cifar10.REMEDIES}, or use {key}=digits"
            ) from error
        print(
            f"WARNING: {entry}=auto takes handwritten digits INSTEAD OF CIFAR-10: "
            f"{error}; for CIFAR-10, {cifar10.REMEDIES}",
            file=sys.stderr,
            flush=True,
        )
        return digits.load()


def _load_prepared(name: str, data_dir: str | None, entry: str) -> Dataset:
    folder = prepared.find(prepared.find_root(data_dir), name)
    assert folder is not None  # see `check`
    try:
        return prepared.load(folder, name)
    except ValueError as error:
        raise UsageError(
            f"{entry}={name}: {folder} cannot be used ({error}); prepare it anew, or "
            "take another."
        ) from error
