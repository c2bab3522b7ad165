"""Corrupted test images, test images with waves, and how networks classify both."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import files
from experiments.data.dataset import Dataset
from experiments.robustness import cifar10c, corruptions
from experiments.robustness.fourier import add_fourier_noise

CACHE_SIZE = 2**32
"""How many bytes of corrupted images are kept: 10,000 images take 2.6 GB."""
FOURIER_NORM = 4.0  # of the paper, see `fourier.add_fourier_noise`


class Probes(NamedTuple):
    """Images that networks classify besides the test set.

    Attributes:
        images: uint8 `[Q, H, W, C]`: those of each corruption at each severity, and
            then those of each frequency.
        corruptions: (name, severity, int labels of its images) in this order.
        sources: by name, "published" or "generated".
        frequencies: in this order; the opposite one of each has the same wave.
        labels: of the images with waves, at every frequency.
    """

    images: np.ndarray
    corruptions: Sequence[tuple[str, int, np.ndarray]]
    sources: Mapping[str, str]
    frequencies: Sequence[tuple[int, int]]
    labels: np.ndarray


def make_probes(
    dataset: Dataset,
    *,
    corruption_images: int,
    fourier_images: int,
    data_dir: str | None = None,
) -> Probes:
    """Corrupts test images, and adds waves to them.

    Args:
        dataset: whose test images to take, the first ones.
        corruption_images: how many to corrupt, in every way and at every severity.
        fourier_images: how many to add waves to, of every frequency.
        data_dir: see `cifar10c.load`.
    """
    count = corruption_images
    part = dataclasses.replace(
        dataset,
        test_images=dataset.test_images[:count],
        test_labels=dataset.test_labels[:count],
    )
    images, corrupted, sources = [dataset.test_images[:0]], [], {}
    names = corruptions.CORRUPTIONS if count else ()
    cache = files.cache_folder("corruptions")
    for name, severity in itertools.product(names, corruptions.SEVERITIES):
        loaded = cifar10c.load(
            part,
            name,
            severity,
            data_dir=data_dir,
            cache_dir=cache,
        )
        images.append(loaded.images[:count])
        corrupted.append((name, severity, loaded.labels[:count]))
        sources[name] = loaded.source
    if cache is not None:
        files.trim(cache, CACHE_SIZE)
    clean = dataset.test_images[:fourier_images] / np.float32(255)
    height, width = clean.shape[1:3]
    frequencies = [
        (row, column)
        for row, column in np.ndindex((height, width) if len(clean) else (0, 0))
        if (row, column) <= (-row % height, -column % width)
    ]
    for frequency in frequencies:
        rng = np.random.default_rng(frequency)
        waves = add_fourier_noise(rng, clean, frequency, norm=FOURIER_NORM)
        images.append(np.rint(255 * waves).astype(np.uint8))
    return Probes(
        np.concatenate(images),
        corrupted,
        sources,
        frequencies,
        dataset.test_labels[: len(clean)],
    )


def score_answers(probes: Probes | None, logits: Any) -> dict:
    """Scores one network's logits, `[Q, num_classes]`, as its record has them."""
    record: dict[str, Any] = {}
    if probes is None:
        return record
    answers = logits.argmax(-1)
    start = 0
    if probes.corruptions:
        errors: dict[str, list[float]] = {}
        for name, _, labels in probes.corruptions:
            own = answers[start : start + len(labels)]
            errors.setdefault(name, []).append(100 * float((own != labels).mean()))
            start += len(labels)
        record["corruptions"] = errors
        record["corruption_source"] = dict(probes.sources)
        record["corruption_error"] = float(
            np.mean([errors[name] for name in corruptions.BENCHMARK])
        )
    if probes.frequencies:
        count = len(probes.labels)
        wrong = answers[start:].reshape(-1, count) != probes.labels
        fourier = np.zeros(probes.images.shape[1:3])
        for (row, column), error in zip(
            probes.frequencies, 100 * wrong.mean(1), strict=True
        ):
            fourier[row, column] = fourier[-row, -column] = error
        record["fourier"] = {
            "images": count,
            "norm": FOURIER_NORM,
            "errors": fourier.tolist(),
        }
    return record
