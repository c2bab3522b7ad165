"""Prepared sets of tensorflow-datasets (TFDS), read as data and not believed."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.cli import UsageError
from experiments.data.dataset import LARGEST, SMALLEST, Dataset, fingerprint
from experiments.words import reason

NAME = r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
"""What TFDS calls a set, or one of its configs: fashion_mnist, cmaterdb/bangla."""
MOST_CLASSES = 256
"""That the byte of a label in a fingerprint can tell apart."""
_FIELDS = dataclasses.fields(Dataset)


def find_root(data_dir: str | None) -> Path:
    """Returns the folder of prepared sets: None is TFDS's own default.

    Raises:
        UsageError: if it is in the home of nobody.
    """
    import tensorflow_datasets as tfds

    root = Path(os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR))
    if root.parts[:1] and root.parts[0].startswith("~"):
        raise UsageError(
            f"--data-dir={root}: there is no user {root.parts[0][1:]}; name a folder"
        )
    return root


def find(root: Path, name: str) -> Path | None:
    """Returns the folder of a set's newest version; None if none is prepared."""
    versions = [
        (tuple(map(int, path.name.split("."))), path)
        for path in Path(root, name).glob("*.*.*")
        if re.fullmatch(r"\d{1,9}(\.\d{1,9}){2}", path.name, re.ASCII)
    ]
    return max(versions)[1] if versions else None


def load(
    prepared: Path, name: str, recognise: Callable[[Dataset], Dataset] = lambda d: d
) -> Dataset:
    """Reads a set for image classification from its folder, see `find`.

    Grey pictures become three equal channels. The test split is `test`, or
    `validation` where there is none.

    Args:
        prepared: the folder, `NAME/VERSION` or `NAME/CONFIG/VERSION`.
        name: of the set.
        recognise: returns the set under another title, or raises ValueError for one
            that is not what it should be.

    Raises:
        ValueError: says why it cannot be used.
    """
    # To decode 60,000 pictures takes longer than to start all the rest, so what came of
    # it is kept among the user's caches, one file for a prepared folder.
    found = _describe_files(prepared)
    decoded = _find_decoded(prepared, name)
    if decoded and found and (dataset := _read_decoded(decoded, found)):
        return dataset
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS asks for TensorFlow
            dataset = recognise(_decode(prepared, name))
    # What TFDS, array_record, protobuf and Pillow raise on damaged files has no
    # common base.
    except Exception as error:
        raise ValueError(reason(error).removesuffix(".")) from error
    size = dataset.train_images.nbytes + dataset.test_images.nbytes
    if decoded and found and size < files.CACHE_SIZE:
        _write_decoded(decoded, found, dataset)
    return dataset


def _find_decoded(prepared: Path, name: str) -> Path | None:
    cache = files.cache_folder("datasets")
    digest = hashlib.sha256(os.fsencode(prepared.resolve())).hexdigest()
    return cache and cache / f"{name.replace('/', '-')}-{digest[:16]}.npz"


def _describe_files(prepared: Path) -> str | None:
    """Names, sizes and times: where these are the same, so are the pictures."""
    try:
        stats = {path.name: path.stat() for path in sorted(prepared.iterdir())}
    except OSError:
        return None  # which whoever reads them explains
    return "\n".join(f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in stats.items())


def _read_decoded(decoded: Path, found: str) -> Dataset | None:
    """Returns what was decoded of the same files; None if nothing was, or damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        saved = files.read_arrays(decoded, files.CACHE_SIZE)
        fields: dict[str, Any] = {each.name: saved[each.name] for each in _FIELDS}
        is_whole = saved["digest"] == files.digest_arrays(fields)
        if str(saved["files"]) == found and is_whole:
            texts = {n: str(fields[n]) for n in ("name", "title", "fingerprint")}
            names = tuple(fields["class_names"].tolist())
            return Dataset(**fields | texts | {"class_names": names})
    return None


def _write_decoded(decoded: Path, found: str, dataset: Dataset) -> None:
    fields = {each.name: np.asarray(getattr(dataset, each.name)) for each in _FIELDS}
    digest = files.digest_arrays(fields)
    entries: Any = fields | {"files": found, "digest": digest}
    # Where there is no room, the next run decodes again.
    with contextlib.suppress(OSError):
        with files.replacing(decoded) as temporary:
            with open(temporary, "wb") as file:
                np.savez(file, **entries)
        files.trim(decoded.parent)


def _decode(prepared: Path, name: str) -> Dataset:
    builder = open_prepared(prepared)
    held = sorted(builder.info.splits)
    tested = "test" if "test" in held else "validation"
    if not {"train", tested} <= set(held):
        raise ValueError(f"its splits are {', '.join(held)}, not train and test")
    _, names = _find_features(builder)
    splits = *read_split(builder, "train"), *read_split(builder, tested)
    if splits[0].shape[1:] != splits[2].shape[1:]:
        raise ValueError("its training and test pictures differ in size")
    title = f"{name} {prepared.name}"
    return Dataset(name, title, fingerprint(*splits), *splits, names)


def open_prepared(prepared: Path) -> Any:
    """Returns TFDS's builder of a prepared folder, once that can do no harm.

    Raises:
        OSError, ValueError: if the folder holds something else than files, or of
            absurd size; or names a class that is not TFDS's own, which it would import;
            or is of a format that TensorFlow alone reads.
    """
    import tensorflow_datasets as tfds

    files.check_regular(prepared)
    for path in prepared.glob("*.*"):
        if "array_record" not in path.name:
            files.read(path)  # within bounds, as whoever reads it next may have none
    _check_features(json.loads(files.read(prepared / "features.json")))
    builder = tfds.builder_from_directory(prepared)
    if (format := builder.info.file_format.value) != "array_record":
        raise ValueError(
            f"its files are {format}, which needs TensorFlow; prepare it with "
            "file_format='array_record'"
        )
    return builder


def _check_features(value: Any) -> None:
    if isinstance(value, dict):
        name = value.get("pythonClassName", "tensorflow_datasets.core.features.")
        if not str(name).startswith("tensorflow_datasets.core.features."):
            raise ValueError(f"features.json names the class {name}")
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_features(each)


def _find_features(builder: Any) -> tuple[tuple[str, str], tuple[str, ...]]:
    """Returns the names of the image and of the label, and those of the classes."""
    from tensorflow_datasets.core import features

    keys = builder.info.supervised_keys or ("image", "label")
    kinds = [dict(builder.info.features).get(key) for key in keys]
    image, label = (*kinds, None)[:2]
    if not isinstance(image, features.Image) or not isinstance(
        label, features.ClassLabel
    ):
        raise ValueError("it is not for image classification: an image, and its class")
    count = label.num_classes or 0
    if not 0 < count <= MOST_CLASSES:
        raise ValueError(f"it has {count} classes, not 1 to {MOST_CLASSES}")
    return (keys[0], keys[1]), tuple(label.names)


def read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a prepared split: images, uint8 (N, H, W, 3), labels, int32 (N,).

    Raises:
        ValueError: if it is not what it says; but TFDS, array_record and Pillow may
            raise anything.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    (image_key, label_key), names = _find_features(builder)
    num_records = _count_records(builder, split)
    # TFDS would decode with OpenCV where it is installed and with Pillow elsewhere;
    # always Pillow, so that a JPEG has the same pixels, and fingerprint, everywhere.
    others = {key for key in builder.info.features if key != label_key}
    source = builder.as_data_source(
        split, decoders=dict.fromkeys(others, tfds.decode.SkipDecoding())
    )
    if len(source) != num_records:
        raise ValueError(f"{split} holds {num_records} records, not {len(source)}")
    records = source.__getitems__(range(len(source)))  # 3 times as fast as one by one
    # No other formats are TFDS's, and some of Pillow's have had holes.
    pictures = [
        Image.open(io.BytesIO(record[image_key]), formats=["PNG", "JPEG"])
        for record in records
    ]
    images = np.empty((num_records, *_check_pictures(pictures, split), 3), np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        pixels = np.asarray(picture)
        image[:] = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    labels = np.array([record[label_key] for record in records], np.int32)
    if labels.shape != (num_records,) or np.any((labels < 0) | (labels >= len(names))):
        raise ValueError(f"a label in {split} is none of the {len(names)} classes")
    return images, labels


def _check_pictures(pictures: list[Any], split: str) -> tuple[int, int]:
    """Returns rows and columns of pictures, of which only the headers were read."""
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) != 1:
        some = " and ".join(f"{width} x {height}" for width, height in sizes[:2])
        raise ValueError(
            f"its pictures in {split} are of {len(sizes)} sizes, {some} among them, "
            "where a network takes one"
            if sizes
            else f"{split} is empty"
        )
    modes = {picture.mode for picture in pictures} - {"L", "RGB"}
    if modes:
        raise ValueError(
            f"its pictures in {split} are of Pillow's mode {min(modes)}, neither grey "
            "nor RGB, in 8 bits"
        )
    ((width, height),) = sizes
    if min(width, height) < SMALLEST:
        raise ValueError(
            f"its pictures are of {width} x {height} pixels, and a network needs "
            f"{SMALLEST} each way"
        )
    if (size := len(pictures) * width * height * 3) > LARGEST:
        raise ValueError(f"{split} has {size:,} bytes of pixels, more than {LARGEST:,}")
    return height, width


def _count_records(builder: Any, split: str) -> int:
    """Counts the records of a split in its files, whatever dataset_info.json says."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    paths = [Path(builder.data_dir, Path(path).name) for path in info.filepaths]
    if [str(path) for path in paths] != [str(path) for path in info.filepaths]:
        raise ValueError(f"{split} names files in another folder")
    if (size := sum(path.stat().st_size for path in paths)) > LARGEST:
        raise ValueError(f"{split} has {size:,} bytes, more than {LARGEST:,}")
    return sum(ArrayRecordReader(str(path)).num_records() for path in paths)
