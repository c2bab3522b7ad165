"""The corruptions of CIFAR-10-C, made from clean images.

Definitions and severities are those of Hendrycks and Dietterich, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", ICLR 2019
(arxiv.org/abs/1903.12261), as their program for CIFAR-10 has them
(github.com/hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py); the numbers are
not those of ImageNet-C. 14 of the benchmark's 15 are here: frost pastes photographs,
which cannot ship. Of its four extra ones spatter is left out, which hangs on OpenCV's
edge detector.

Every corruption takes a generator, uint8 images `[N, 32, 32, 3]` and a severity from 1
to 5, and returns uint8 images; `corrupt` checks all three. As in the published files a
fraction of a level is cut off, not rounded, except where a function says otherwise.
Random numbers are the project's own, and so no image equals its published counterpart.
"""

import dataclasses
import hashlib
import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage, sparse

from experiments import datasets, files
from experiments.datasets import Dataset, DatasetError

# Raise it with any change of pixels: what was cached is then made anew.
VERSION = 1
SEVERITIES = (1, 2, 3, 4, 5)

# Of a dataset with the official pixels, and of no other.
_OFFICIAL_TITLE = "CIFAR-10"

_SIZE = 32
# Few enough images for their float64 copies to stay in the processor's cache.
_BLOCK = 100

# Noise


def gaussian_noise(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Adds white noise."""
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return _to_uint8(images / 255 + scale * _normal(rng, images.shape))


def shot_noise(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Counts photons: Poisson draws whose mean is the pixel times a full count."""
    full = (500, 250, 100, 75, 50)[severity - 1]
    means = images / 255 * full
    children = rng.spawn(len(images))
    counts = [child.poisson(mean) for child, mean in zip(children, means, strict=True)]
    return _to_uint8(np.stack(counts) / full)


def impulse_noise(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Sets a share of the values, each channel on its own, to 0 or 255."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    shape = 2, *images.shape[1:]
    draws = np.stack([child.random(shape) for child in rng.spawn(len(images))])
    extremes = np.where(draws[:, 1] < 0.5, 255, 0).astype(np.uint8)
    return np.where(draws[:, 0] < share, extremes, images)


def speckle_noise(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Adds white noise in proportion to the pixel."""
    scale = (0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1]
    return _to_uint8(images / 255 * (1 + scale * _normal(rng, images.shape)))


# Blur


def gaussian_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs with a Gaussian, cut off at four standard deviations."""
    del rng
    return _to_uint8(_smooth(images / 255, (0.4, 0.6, 0.7, 0.8, 1)[severity - 1]))


def defocus_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs with a disk that a small Gaussian has smoothed.

    OpenCV filters in float32, this in float64: some values differ by a level.
    """
    del rng
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[
        severity - 1
    ]
    steps = np.arange(-2, 3)  # as far as the widest disk reaches, smoothed
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
    gaussian = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    smoothing = np.outer(gaussian, gaussian) / gaussian.sum() ** 2
    kernel = ndimage.correlate(disk / disk.sum(), smoothing, mode="constant")
    kernel = kernel[None, :, :, None]
    return _to_uint8(ndimage.correlate(images / 255, kernel, mode="mirror"))


def glass_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs, lets pixels take the place of a neighbour, and blurs again.

    The paper speaks of swapped pixels. The published program overwrites a pixel before
    it reads it, so that a pixel becomes a copy of itself or of one of the three
    neighbours above and to the left, and the first two rows and columns stay; as in
    the published files, so here. Going from the last pixel to the first, the program
    never copies a pixel that it has changed: all can change at once.
    """
    sigma, iterations = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[
        severity - 1
    ]
    pixels = _to_uint8(_smooth(images / 255, sigma))
    places = np.arange(2, _SIZE)
    shape = iterations, 2, len(places), len(places)
    steps = np.stack([child.integers(-1, 1, shape) for child in rng.spawn(len(images))])
    which = np.arange(len(images))[:, None, None]
    for iteration in range(iterations):
        rows = places[:, None] + steps[:, iteration, 0]
        columns = places + steps[:, iteration, 1]
        pixels[:, 2:, 2:] = pixels[which, rows, columns]
    return _to_uint8(_smooth(pixels / 255, sigma))


def motion_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs along a line, at an angle of up to 45 degrees: see `_smear`."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    angles = [child.uniform(-45, 45) for child in rng.spawn(len(images))]
    return _smear(images, radius, sigma, np.array(angles))


def zoom_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Averages the image with enlargements of itself.

    In float64, not float32: some values differ by a level.
    """
    del rng
    largest = (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1]
    # Rounding lets the first two severities, not the others, reach their largest.
    factors = np.arange(1, largest, 0.01).tolist()
    # An average of linear maps of the pixels is one such map.
    average = sparse.eye_array(_SIZE**2, format="csr")
    for factor in factors:
        matrix = sparse.csr_array(_zoom_matrix(factor))
        average = average + sparse.kron(matrix, matrix, format="csr")
    average = average / (len(factors) + 1)
    columns = images.reshape(len(images), _SIZE**2, 3).transpose(1, 0, 2) / 255
    blurred = average @ columns.reshape(_SIZE**2, -1)
    blurred = blurred.reshape(_SIZE**2, len(images), 3).transpose(1, 0, 2)
    return _to_uint8(blurred.reshape(images.shape))


# Weather


def snow(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Whitens the image and lets flakes fall on it: thresholded noise, smeared.

    For the smearing see `_smear`; float64, not float32.
    """
    mean, std, zoom, threshold, radius, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    children = rng.spawn(len(images))
    flakes = np.stack([child.normal(mean, std, (_SIZE, _SIZE)) for child in children])
    angles = np.array([child.uniform(-135, -45) for child in children])
    matrix = _zoom_matrix(zoom)
    flakes = matrix @ flakes @ matrix.T
    flakes[flakes < threshold] = 0
    flakes = _smear(_to_uint8(flakes)[..., None], radius, sigma, angles) / 255
    pixels = images / 255
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    whitened = np.maximum(pixels, 1.5 * grey[..., None] + 0.5)
    pixels = keep * pixels + (1 - keep) * whitened
    return _to_uint8(pixels + flakes + flakes[:, ::-1, ::-1])


def fog(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Adds a fractal cloud, and scales so that the brightest pixel would stay."""
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    pixels = images / 255
    brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
    clouds = _clouds(rng, len(images), decay)[..., None]
    return _to_uint8((pixels + amount * clouds) * brightest / (brightest + amount))


# Colour and resolution


def brightness(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Raises the value of HSV, the largest channel; hue and saturation stay."""
    del rng
    amount = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    pixels = images / 255
    value = pixels.max(axis=-1, keepdims=True)
    # Equal hue and saturation are equal ratios of the channels; black turns grey.
    ratios = np.divide(pixels, value, out=np.ones_like(pixels), where=value > 0)
    return _to_uint8(np.minimum(value + amount, 1) * ratios)


def contrast(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Shrinks the distance from each channel's mean over the image."""
    del rng
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    pixels = images / 255
    means = pixels.mean(axis=(1, 2), keepdims=True)
    return _to_uint8((pixels - means) * factor + means)


def saturate(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Changes the saturation of HSV; hue and value stay.

    Grey has hue 0, which is red: severities 4 and 5 tint it, as published.
    """
    del rng
    factor, offset = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    pixels = images / 255
    value = pixels.max(axis=-1, keepdims=True)
    below = value - pixels
    largest = below.max(axis=-1, keepdims=True)
    coloured = largest > 0
    saturation = np.divide(largest, value, out=np.zeros_like(value), where=coloured)
    # How far below the value each channel is at full saturation.
    full = np.divide(
        below * value, largest, out=value * np.array([0, 1, 1]), where=coloured
    )
    return _to_uint8(value - full * np.clip(factor * saturation + offset, 0, 1))


def pixelate(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Shrinks and enlarges with Pillow's box filter, which rounds."""
    del rng
    size = int(_SIZE * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1])
    box = Image.Resampling.BOX
    pixelated = np.empty_like(images)
    for result, image in zip(pixelated, images, strict=True):
        small = Image.fromarray(image).resize((size, size), box)
        result[:] = np.asarray(small.resize((_SIZE, _SIZE), box))
    return pixelated


def jpeg_compression(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Compresses with Pillow's JPEG, chroma at half the resolution."""
    del rng
    quality = (80, 65, 58, 50, 40)[severity - 1]
    compressed = np.empty_like(images)
    for result, image in zip(compressed, images, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        result[:] = np.asarray(Image.open(file))
    return compressed


# Geometry


def elastic_transform(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Moves three points, the image with them, then every pixel by a smooth field.

    OpenCV rounds the first map to 1/32 of a pixel and computes in float32; this does
    neither.
    """
    amount, sigma, jitter = (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )[severity - 1]
    children = rng.spawn(len(images))
    # Points are (column, row).
    points = np.array([[26, 26], [26, 6], [6, 6]])
    reach = _SIZE * jitter
    moves = np.stack([child.uniform(-reach, reach, (3, 2)) for child in children])
    fields = np.stack([child.uniform(-1, 1, (2, _SIZE, _SIZE)) for child in children])
    # The affine map that leads from the moved points back: a pixel's new place to
    # its old one.
    moved = np.concatenate([points + moves, np.ones((len(images), 3, 1))], axis=2)
    back = np.linalg.solve(moved, np.broadcast_to(points, moves.shape))
    rows, columns = np.mgrid[:_SIZE, :_SIZE]
    old = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3) @ back
    old_columns, old_rows = np.moveaxis(old.reshape(-1, _SIZE, _SIZE, 2), -1, 0)
    pixels = _interpolate(images / 255, old_rows, old_columns, _mirror)
    width = _SIZE * sigma
    fields = ndimage.gaussian_filter(
        fields, (0, 0, width, width), mode="reflect", truncate=3
    )
    right, down = np.moveaxis(_SIZE * amount * fields, 1, 0)
    return _to_uint8(_interpolate(pixels, rows + down, columns + right, _reflect))


# What they share


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    """From [0, 1], with what is outside clipped; fractions are cut off."""
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    children = rng.spawn(shape[0])
    return np.stack([child.standard_normal(shape[1:]) for child in children])


def _smooth(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Scikit-image's `gaussian`: below sigma = 0.125 it changes nothing."""
    return ndimage.gaussian_filter(
        pixels, (0, sigma, sigma, 0), mode="nearest", truncate=4
    )


def _smear(
    images: np.ndarray, radius: int, sigma: float, angles: np.ndarray
) -> np.ndarray:
    """Motion blur as ImageMagick defines it (MagickCore/effect.c, MotionBlurImage).

    A pixel becomes the mean of itself and the 2 * radius pixels that lie ahead along
    the angle, each rounded to whole pixels, with the weights of half a Gaussian;
    beyond the edge lies the edge's own pixel. The mean is rounded, here once, by
    ImageMagick first to 16 bits and then to 8.

    Args:
        images: uint8 `[N, H, W, C]`.
        radius: in pixels.
        sigma: in pixels.
        angles: `[N]` in degrees, clockwise from the right.

    Returns:
        uint8 `[N, H, W, C]`.
    """
    num_images, height, width, _ = images.shape
    ahead = np.arange(2 * radius + 1)
    weights = np.exp(-(ahead**2) / (2 * sigma**2))
    weights /= weights.sum()
    radians = np.deg2rad(angles)[:, None]
    down = np.ceil(ahead * np.sin(radians) - 0.5).astype(int)
    right = np.ceil(ahead * np.cos(radians) - 0.5).astype(int)
    which = np.arange(num_images)[:, None, None]
    smeared = np.full(images.shape, 0.5)
    for step, weight in enumerate(weights):
        rows = np.clip(np.arange(height) + down[:, step, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, step, None], 0, width - 1)
        smeared += weight * images[which, rows[:, :, None], columns[:, None, :]]
    return smeared.astype(np.uint8)


def _zoom_matrix(factor: float) -> np.ndarray:
    """Enlarges the middle of one axis, linearly, as SciPy's `zoom` with order 1 does.

    Args:
        factor: 1 or more.

    Returns:
        `[32, 32]`; applied to both axes it is the published `clipped_zoom`.
    """
    crop = math.ceil(_SIZE / factor)
    first = (_SIZE - crop) // 2
    zoomed = round(crop * factor)
    trim = (zoomed - _SIZE) // 2
    # The first and last pixels of the crop are those of the enlargement.
    places = (np.arange(_SIZE) + trim) * (crop - 1) / (zoomed - 1)
    below = np.minimum(places.astype(int), crop - 2)
    matrix = np.zeros((_SIZE, _SIZE))
    matrix[np.arange(_SIZE), first + below] = 1 - (places - below)
    matrix[np.arange(_SIZE), first + below + 1] = places - below
    return matrix


def _clouds(rng: np.random.Generator, num_images: int, decay: float) -> np.ndarray:
    """Fractals of the diamond-square algorithm on a torus.

    Args:
        rng: the generator.
        num_images: N.
        decay: what the scale of the noise is divided by when the grid is halved.

    Returns:
        `[N, 32, 32]` in [0, 1]; both ends occur in every one.
    """
    children = rng.spawn(num_images)
    heights = np.zeros((num_images, _SIZE, _SIZE))
    step, scale = _SIZE, 100.0
    while step > 1:
        half = step // 2
        shape = 3, _SIZE // step, _SIZE // step
        noise = np.stack([child.uniform(-1, 1, shape) for child in children])
        # The published program scales twice.
        noise *= scale**2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        centres = (pairs + np.roll(pairs, -1, axis=2)) / 4 + noise[:, 0]
        heights[:, half::step, half::step] = centres
        # Each edge's middle has two corners and two centres beside it.
        across = corners + np.roll(corners, -1, axis=2)
        across += centres + np.roll(centres, 1, axis=1)
        along = pairs + centres + np.roll(centres, 1, axis=2)
        heights[:, ::step, half::step] = across / 4 + noise[:, 1]
        heights[:, half::step, ::step] = along / 4 + noise[:, 2]
        step, scale = half, scale / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)


def _interpolate(
    pixels: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    extend: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Takes pixels at places between them, bilinearly.

    Args:
        pixels: `[N, 32, 32, C]`.
        rows: `[N, 32, 32]`, the row where each pixel of the result is taken.
        columns: the same.
        extend: says which row or column stands in for one outside the image.

    Returns:
        `[N, 32, 32, C]`.
    """
    which = np.arange(len(pixels))[:, None, None]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    result = np.zeros_like(pixels)
    for row, row_weight in (top, 1 - (rows - top)), (top + 1, rows - top):
        for column, weight in (
            (left, row_weight * (1 - (columns - left))),
            (left + 1, row_weight * (columns - left)),
        ):
            result += weight[..., None] * pixels[which, extend(row), extend(column)]
    return result


def _mirror(index: np.ndarray) -> np.ndarray:
    """Continues 0 1 2 ... 30 31 with 30 29: the edge occurs once."""
    return _SIZE - 1 - np.abs(_SIZE - 1 - index % (2 * _SIZE - 2))


def _reflect(index: np.ndarray) -> np.ndarray:
    """Continues 0 1 2 ... 30 31 with 31 30: the edge occurs twice."""
    index = index % (2 * _SIZE)
    return np.minimum(index, 2 * _SIZE - 1 - index)


# All of them

Corruption = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]

_FUNCTIONS: tuple[Corruption, ...] = (
    *(gaussian_noise, shot_noise, impulse_noise),
    *(defocus_blur, glass_blur, motion_blur, zoom_blur),
    *(snow, fog, brightness, contrast),
    *(elastic_transform, pixelate, jpeg_compression),
    *(speckle_noise, gaussian_blur, saturate),
)
CORRUPTIONS = {function.__name__: function for function in _FUNCTIONS}
# Not among the benchmark's 15, so in no mean over them.
EXTRA = ("speckle_noise", "gaussian_blur", "saturate")
BENCHMARK = tuple(name for name in CORRUPTIONS if name not in EXTRA)


def corrupt(name: str, images: np.ndarray, severity: int, *, seed: int) -> np.ndarray:
    """Corrupts images.

    Args:
        name: a key of `CORRUPTIONS`.
        images: uint8 `[N, 32, 32, 3]`.
        severity: 1 to 5.
        seed: 0 or more. Image i's random numbers depend on the seed, the name, the
          severity and i, and on nothing else: not on the other images.

    Returns:
        uint8 `[N, 32, 32, 3]`.

    Raises:
        ValueError: if the name or the severity is unknown, or the shape is another.
        TypeError: if the images are not uint8.

    Example:
      >>> images = np.full((2, 32, 32, 3), 100, np.uint8)
      >>> corrupt("brightness", images, 4, seed=0)[0, 0, 0].tolist()
      [151, 151, 151]
    """
    _check(name, severity)
    if images.dtype != np.uint8:
        raise TypeError(
            f"images.dtype={images.dtype}: corruptions take uint8 from 0 to 255, "
            "before any normalisation."
        )
    if images.shape[1:] != (_SIZE, _SIZE, 3):
        raise ValueError(
            f"images.shape={images.shape}: give (N, 32, 32, 3); the parameters are "
            "those for CIFAR-10."
        )
    # Functions spawn a generator for every image, and block by block this one keeps
    # count of them: child i is image i's, wherever a block ends.
    rng = np.random.default_rng([seed, severity, *name.encode()])
    corrupted = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        corrupted[block] = CORRUPTIONS[name](rng, images[block], severity)
    return corrupted


def _check(name: str, severity: int) -> None:
    if name not in CORRUPTIONS:
        why = "needs photographs that do not ship" if name == "frost" else "unknown"
        raise ValueError(
            f"name={name!r}: {why}; choose one of {', '.join(CORRUPTIONS)}."
        )
    if not isinstance(severity, int | np.integer) or severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r}: give a whole number from 1 to 5.")


# Kept on disk


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
        DatasetError: if published images are prepared but cannot be read, or
          `cache_dir` cannot be written.
    """
    _check(name, severity)
    if dataset.title == _OFFICIAL_TITLE:
        published = _load_published(name, severity, data_dir)
        if published is not None:
            return published
    clean = dataset.test_images
    if cache_dir is None:
        images = corrupt(name, clean, severity, seed=seed)
        return Corrupted(images, dataset.test_labels, "generated")
    # The dataset's own fingerprint does not know the order of the images.
    digest = hashlib.sha256(clean.tobytes()).hexdigest()[:16]
    path = cache_dir / f"{name}-{severity}-seed{seed}-v{VERSION}-{digest}.npy"
    cached = _read(path)
    if cached is None:
        cached = corrupt(name, clean, severity, seed=seed)
        _write(path, cached)
    return Corrupted(cached, dataset.test_labels, "generated")


def _load_published(name: str, severity: int, data_dir: str | None) -> Corrupted | None:
    """CIFAR-10-C as TFDS prepares it, or None where it is not prepared."""
    import tensorflow_datasets as tfds

    renamed = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
    root = Path(os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR))
    folder = f"cifar10_corrupted/{renamed.get(name, name)}_{severity}/1.0.0"
    if not os.path.exists(root / folder):
        return None
    try:
        builder = tfds.builder_from_directory(root / folder)
        images, labels = datasets.read_split(builder, "test")
    # As for CIFAR-10 itself, what can be raised has no common base.
    except Exception as error:
        raise DatasetError(
            f"--data-dir={root}: {folder} in it cannot be read "
            f"({datasets.reason(error)}); prepare it with "
            "file_format='array_record', or remove it to have the images made."
        ) from error
    return Corrupted(images, labels, "published")


def _read(path: Path) -> np.ndarray | None:
    """What `_write` wrote, or None where that is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    array, checksum = content[:-32], content[-32:]
    if hashlib.sha256(array).digest() != checksum:
        return None
    return np.load(io.BytesIO(array))


def _write(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file and a checksum after it, whole or not at all."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    # np.load looks no further than the array.
    content += hashlib.sha256(content).digest()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, suffix=f".{os.getpid()}.tmp") as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DatasetError(
            f"cache_dir={path.parent}: cannot be written ({error.strerror}); name "
            "another folder, or none."
        ) from error
