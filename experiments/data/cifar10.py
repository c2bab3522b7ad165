"""CIFAR-10 without TensorFlow: read, or downloaded and prepared.

It comes as whole uint8 arrays, (N, 32, 32, 3), in an order that depends on nothing but
the files. It is read from a folder in the format of
tensorflow-datasets (TFDS); where there is none, the official archive is downloaded,
checked and prepared into one that TFDS itself can read as well.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import os
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cli import UsageError
from experiments.data import prepared
from experiments.data.dataset import Dataset
from experiments.data.downloads import receive
from experiments.words import reason

# The URL and the checksum under which TFDS knows the archive.
ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_BYTES = 170_052_171
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_VERSION = "3.0.2"
_FOLDER = f"cifar10/{_VERSION}"
REMEDIES = (
    f"connect and rerun, or point --data-dir at a folder that holds {_FOLDER}, or that "
    "can be written to"
)

# Channel sums (red, green, blue) of the official train and test images. They follow
# from the published means, e.g. 0.49139968, 0.48215841, 0.44653091 for train
# (github.com/akamaster/pytorch_resnet_cifar10/issues/9). With all digits quoted, mean
# * 255 * number of pixels is a whole number, which confirms them:
#   train 0.49139967861519607 0.48215840839460783 0.44653091444546567
#   test  0.4942142800245098  0.4851313890165441  0.4504090927542892
_OFFICIAL_CHANNEL_SUMS = [
    [6_415_714_204, 6_295_060_180, 5_829_907_619],
    [1_290_492_328, 1_266_775_083, 1_176_108_223],
]

_CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

# Copies with other pixels, by the fingerprint of what Pillow decodes.
_JPEG_75_COPY = "3f5109b70bebac950889ca4e8c3f2aa5b36450f88a5ce01728de32464ac7583f"
_KNOWN_COPIES = {_JPEG_75_COPY: "CIFAR-10, JPEG-75 copy"}


class Unavailable(Exception):
    """CIFAR-10 is neither here nor to be fetched: the case `auto` falls back from."""


def load(data_dir: str | None) -> Dataset:
    """Loads CIFAR-10, see `datasets.load`; downloads and prepares it if need be.

    Raises:
        Unavailable: if it is not prepared, and cannot be.
        UsageError: if what is prepared is damaged, or the archive is.
    """
    root = prepared.find_root(data_dir)
    # os.path.exists, unlike Path.exists, is False where looking is not permitted.
    if not os.path.exists(root / _FOLDER):
        _prepare(root)
    try:
        return prepared.load(root / _FOLDER, "cifar10", _recognise)
    except ValueError as error:
        raise UsageError(
            f"--data-dir={root}: {_FOLDER} in it cannot be read ({error}); "
            "point --data-dir elsewhere, or remove that folder to have it prepared "
            "afresh"
        ) from error


def _recognise(dataset: Dataset) -> Dataset:
    if dataset.class_names != _CLASS_NAMES:
        raise ValueError("its class names are not CIFAR-10's")
    if dataset.train_images.shape[1:] != (32, 32, 3):
        raise ValueError("its pictures are not of 32 x 32 pixels")
    title = _cifar10_title(
        dataset.fingerprint,
        train_images=dataset.train_images,
        test_images=dataset.test_images,
    )
    return dataclasses.replace(dataset, title=title)


def _cifar10_title(
    digest: str, *, train_images: np.ndarray, test_images: np.ndarray
) -> str:
    # Images first: 10 times as fast as over all three axes at once.
    channel_sums = [
        images.sum(axis=0, dtype=np.int64).sum(axis=(0, 1)).tolist()
        for images in (train_images, test_images)
    ]
    if channel_sums == _OFFICIAL_CHANNEL_SUMS:
        return "CIFAR-10"
    return _KNOWN_COPIES.get(digest, "CIFAR-10, unrecognised pixels")


def _prepare(root: Path) -> None:
    """Downloads the archive and writes `cifar10/3.0.2` under root, whole or not at all.

    Raises:
        Unavailable: If root cannot be written or the archive cannot be had.
        UsageError: If root is no folder or the archive holds something else.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    parent = next(path for path in (root, *root.parents) if os.path.lexists(path))
    if not parent.is_dir():
        raise UsageError(
            f"--data-dir={root}: {parent} is not a folder; point --data-dir at one"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Unavailable(f"not prepared in {root}, which cannot be written to")
    try:
        archive = _download()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"not prepared in {root} and the download failed ({reason(error)})"
        ) from error
    class_names, splits = _parse(archive)

    official: Any = tfds.builder_cls("cifar10")

    class Cifar10(official, skip_registration=True):  # type: ignore[call-arg]
        """TFDS's builder, with its name, features and keys but no TensorFlow."""

        VERSION = tfds.core.Version(_VERSION)
        # Otherwise TFDS looks for a table of checksums beside this module, and to do
        # so imports importlib_resources, which it does not declare as a dependency.
        url_infos = None

        def _split_generators(self, dl_manager):
            del dl_manager  # The archive is in memory already.
            self.info.features["label"].names = class_names
            return {
                split: self._generate_examples(split, images, labels)
                for split, (images, labels) in splits.items()
            }

        def _generate_examples(self, split, images, labels):
            # TFDS orders records by a hash of their key, so the key must be its own.
            for key, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield (
                    key,
                    {
                        "id": f"{split}_{key:05d}",
                        # An array would be encoded by TensorFlow, a picture is not.
                        "image": Image.fromarray(image),
                        "label": int(label),
                    },
                )

    print(f"Preparing CIFAR-10 in {root}", file=sys.stderr, flush=True)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what we just did
            # Written to a temporary folder beside its place, and renamed when whole.
            Cifar10(data_dir=root).download_and_prepare(file_format="array_record")
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        if os.path.exists(root / _FOLDER):  # Another process was faster.
            return
        raise Unavailable(
            f"not prepared in {root} and preparing it failed ({reason(error)})"
        ) from error


def _download() -> bytearray:
    """The archive, verified, in memory: no partial file can be left behind.

    Raises:
        OSError: If it cannot be fetched, or is not the file it should be.
        http.client.HTTPException: If the host does not speak HTTP.
    """
    megabytes = f"{ARCHIVE_BYTES / 1e6:.0f} MB"
    print(f"Downloading CIFAR-10, {megabytes}: {ARCHIVE_URL}", file=sys.stderr)
    show_progress = sys.stderr.isatty()
    archive = bytearray()
    try:
        with contextlib.closing(receive(ARCHIVE_URL)) as chunks:
            for chunk in chunks:
                archive += chunk
                if show_progress:
                    done = f"\r{len(archive) / 1e6:.0f} of {megabytes} "
                    print(done, end="", file=sys.stderr, flush=True)
                if len(archive) > ARCHIVE_BYTES:
                    break  # a byte too many shows that this is another file
    finally:
        if show_progress:
            print(file=sys.stderr)
    sha256 = hashlib.sha256(archive).hexdigest()
    if len(archive) != ARCHIVE_BYTES or sha256 != ARCHIVE_SHA256:
        raise OSError(
            f"got {len(archive):,} bytes with sha256 {sha256[:8]}..., "
            f"not {ARCHIVE_BYTES:,} with {ARCHIVE_SHA256[:8]}..."
        )
    return archive


def _parse(
    archive: bytearray,
) -> tuple[list[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Class names, and images and labels by split, of CIFAR-10's binary version.

    Raises:
        UsageError: If a file is missing, cut off or holds a label that is no class.
    """
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as tar:
            for member in tar:
                if content := tar.extractfile(member):  # None for a folder
                    files[member.name] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _bad_archive(reason(error)) from error

    def read(name: str) -> bytes:
        try:
            return files[f"cifar-10-batches-bin/{name}"]
        except KeyError:
            raise _bad_archive(f"{name} is missing") from None

    def read_batch(name: str) -> np.ndarray:
        content = read(name)
        if not content or len(content) % 3073:
            raise _bad_archive(
                f"{name} holds {len(content):,} bytes, not whole records of 3,073"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        if (largest := np.max(records[:, 0])) > 9:
            raise _bad_archive(f"{name} holds label {largest}, not only 0 to 9")
        return records

    class_names = read("batches.meta.txt").decode().split()
    if len(class_names) != 10:
        raise _bad_archive(f"batches.meta.txt names {len(class_names)} classes, not 10")
    splits = {}
    for split, names in {
        "train": [f"data_batch_{number}.bin" for number in range(1, 6)],
        "test": ["test_batch.bin"],
    }.items():
        # A record is the label, then the red, the green and the blue plane.
        records = np.concatenate([read_batch(name) for name in names])
        planes = records[:, 1:].reshape(-1, 3, 32, 32)
        splits[split] = planes.transpose(0, 2, 3, 1), records[:, 0]
    return class_names, splits


def _bad_archive(problem: str) -> UsageError:
    return UsageError(
        f"{ARCHIVE_URL} is not CIFAR-10's binary version ({problem}); point --data-dir "
        f"at a folder that holds {_FOLDER}"
    )
