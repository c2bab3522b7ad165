"""Prepared folders of tensorflow-datasets (TFDS), read as data and not believed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import check_regular, read


def open_prepared(prepared: Path) -> Any:
    """Returns TFDS's builder of a prepared folder, once that can do no harm.

    Raises:
        OSError, ValueError: if the folder holds something else than files, or of
            absurd size; or names a class that is not TFDS's own, which it would import.
    """
    import tensorflow_datasets as tfds

    check_regular(prepared)
    for path in prepared.glob("*.*"):
        if "array_record" not in path.name:
            read(path)  # within bounds, as whoever reads it next may have none
    _check_features(json.loads(read(prepared / "features.json")))
    return tfds.builder_from_directory(prepared)


def _check_features(value: Any) -> None:
    if isinstance(value, dict):
        name = value.get("pythonClassName", "tensorflow_datasets.core.features.")
        if not str(name).startswith("tensorflow_datasets.core.features."):
            raise ValueError(f"features.json names the class {name}")
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_features(each)


def read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a prepared split: images, uint8 (N, 32, 32, 3), labels, int32 (N,).

    Raises:
        ValueError: if it is not what it says; but TFDS, array_record and Pillow may
            raise anything.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    num_records = _count_records(builder, split)
    # TFDS would decode with OpenCV where it is installed and with Pillow elsewhere;
    # always Pillow, so that a JPEG has the same pixels, and fingerprint, everywhere.
    source = builder.as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    if len(source) != num_records:
        raise ValueError(f"{split} holds {num_records} records, not {len(source)}")
    records = source.__getitems__(range(len(source)))  # 3 times as fast as one by one
    images = np.empty((len(records), 32, 32, 3), np.uint8)
    for image, record in zip(images, records, strict=True):
        picture = Image.open(io.BytesIO(record["image"]))
        if (picture.size, picture.mode) != ((32, 32), "RGB"):  # told by its header
            raise ValueError(f"a picture in {split} is not of 32 x 32 pixels in colour")
        image[:] = np.asarray(picture)
    labels = np.array([record["label"] for record in records], np.int32)
    if labels.shape != (len(images),) or np.any((labels < 0) | (labels > 9)):
        raise ValueError(f"a label in {split} is none of the ten classes")
    return images, labels


def _count_records(builder: Any, split: str) -> int:
    """Counts the records of a split in its files, whatever dataset_info.json says."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    paths = [Path(builder.data_dir, Path(path).name) for path in info.filepaths]
    if [str(path) for path in paths] != [str(path) for path in info.filepaths]:
        raise ValueError(f"{split} names files in another folder")
    return sum(ArrayRecordReader(str(path)).num_records() for path in paths)
