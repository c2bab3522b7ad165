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

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from experiments.robustness.filters import (
    SIZE,
    clouds,
    interpolate,
    mirror,
    normal,
    reflect,
    smear,
    smooth,
    to_uint8,
    zoom_matrix,
)

SEVERITIES = (1, 2, 3, 4, 5)
# Few enough images for their float64 copies to stay in the processor's cache.
_BLOCK = 100

# Noise


def gaussian_noise(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Adds white noise."""
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return to_uint8(images / 255 + scale * normal(rng, images.shape))


def shot_noise(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Counts photons: Poisson draws whose mean is the pixel times a full count."""
    full = (500, 250, 100, 75, 50)[severity - 1]
    means = images / 255 * full
    children = rng.spawn(len(images))
    counts = [child.poisson(mean) for child, mean in zip(children, means, strict=True)]
    return to_uint8(np.stack(counts) / full)


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
    return to_uint8(images / 255 * (1 + scale * normal(rng, images.shape)))


# Blur


def gaussian_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs with a Gaussian, cut off at four standard deviations."""
    del rng
    return to_uint8(smooth(images / 255, (0.4, 0.6, 0.7, 0.8, 1)[severity - 1]))


def defocus_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs with a disk that a small Gaussian has smoothed.

    OpenCV filters in float32, this in float64: some values differ by a level.
    """
    from scipy import ndimage

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
    return to_uint8(ndimage.correlate(images / 255, kernel, mode="mirror"))


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
    pixels = to_uint8(smooth(images / 255, sigma))
    places = np.arange(2, SIZE)
    shape = iterations, 2, len(places), len(places)
    steps = np.stack([child.integers(-1, 1, shape) for child in rng.spawn(len(images))])
    which = np.arange(len(images))[:, None, None]
    for iteration in range(iterations):
        rows = places[:, None] + steps[:, iteration, 0]
        columns = places + steps[:, iteration, 1]
        pixels[:, 2:, 2:] = pixels[which, rows, columns]
    return to_uint8(smooth(pixels / 255, sigma))


def motion_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Blurs along a line, at an angle of up to 45 degrees: see `smear`."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    angles = [child.uniform(-45, 45) for child in rng.spawn(len(images))]
    return smear(images, radius, sigma, np.array(angles))


def zoom_blur(
    rng: np.random.Generator, images: np.ndarray, severity: int
) -> np.ndarray:
    """Averages the image with enlargements of itself.

    In float64, not float32: some values differ by a level.
    """
    from scipy import sparse

    del rng
    largest = (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1]
    # Rounding lets the first two severities, not the others, reach their largest.
    factors = np.arange(1, largest, 0.01).tolist()
    # An average of linear maps of the pixels is one such map.
    average = sparse.eye_array(SIZE**2, format="csr")
    for factor in factors:
        matrix = sparse.csr_array(zoom_matrix(factor))
        average = average + sparse.kron(matrix, matrix, format="csr")
    average = average / (len(factors) + 1)
    columns = images.reshape(len(images), SIZE**2, 3).transpose(1, 0, 2) / 255
    blurred = average @ columns.reshape(SIZE**2, -1)
    blurred = blurred.reshape(SIZE**2, len(images), 3).transpose(1, 0, 2)
    return to_uint8(blurred.reshape(images.shape))


# Weather


def snow(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Whitens the image and lets flakes fall on it: thresholded noise, smeared.

    For the smearing see `smear`; float64, not float32.
    """
    mean, std, zoom, threshold, radius, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    children = rng.spawn(len(images))
    flakes = np.stack([child.normal(mean, std, (SIZE, SIZE)) for child in children])
    angles = np.array([child.uniform(-135, -45) for child in children])
    matrix = zoom_matrix(zoom)
    flakes = matrix @ flakes @ matrix.T
    flakes[flakes < threshold] = 0
    flakes = smear(to_uint8(flakes)[..., None], radius, sigma, angles) / 255
    pixels = images / 255
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    whitened = np.maximum(pixels, 1.5 * grey[..., None] + 0.5)
    pixels = keep * pixels + (1 - keep) * whitened
    return to_uint8(pixels + flakes + flakes[:, ::-1, ::-1])


def fog(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Adds a fractal cloud, and scales so that the brightest pixel would stay."""
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    pixels = images / 255
    brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
    fields = clouds(rng, len(images), decay)[..., None]
    return to_uint8((pixels + amount * fields) * brightest / (brightest + amount))


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
    return to_uint8(np.minimum(value + amount, 1) * ratios)


def contrast(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Shrinks the distance from each channel's mean over the image."""
    del rng
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    pixels = images / 255
    means = pixels.mean(axis=(1, 2), keepdims=True)
    return to_uint8((pixels - means) * factor + means)


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
    return to_uint8(value - full * np.clip(factor * saturation + offset, 0, 1))


def pixelate(rng: np.random.Generator, images: np.ndarray, severity: int) -> np.ndarray:
    """Shrinks and enlarges with Pillow's box filter, which rounds."""
    del rng
    size = int(SIZE * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1])
    box = Image.Resampling.BOX
    pixelated = np.empty_like(images)
    for result, image in zip(pixelated, images, strict=True):
        small = Image.fromarray(image).resize((size, size), box)
        result[:] = np.asarray(small.resize((SIZE, SIZE), box))
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
    from scipy import ndimage

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
    reach = SIZE * jitter
    moves = np.stack([child.uniform(-reach, reach, (3, 2)) for child in children])
    fields = np.stack([child.uniform(-1, 1, (2, SIZE, SIZE)) for child in children])
    # The affine map that leads from the moved points back: a pixel's new place to
    # its old one.
    moved = np.concatenate([points + moves, np.ones((len(images), 3, 1))], axis=2)
    back = np.linalg.solve(moved, np.broadcast_to(points, moves.shape))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    old = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3) @ back
    old_columns, old_rows = np.moveaxis(old.reshape(-1, SIZE, SIZE, 2), -1, 0)
    pixels = interpolate(images / 255, old_rows, old_columns, mirror)
    width = SIZE * sigma
    fields = ndimage.gaussian_filter(
        fields, (0, 0, width, width), mode="reflect", truncate=3
    )
    right, down = np.moveaxis(SIZE * amount * fields, 1, 0)
    return to_uint8(interpolate(pixels, rows + down, columns + right, reflect))


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
    check(name, severity)
    if images.dtype != np.uint8:
        raise TypeError(
            f"images.dtype={images.dtype}: corruptions take uint8 from 0 to 255, "
            "before any normalisation."
        )
    if images.shape[1:] != (SIZE, SIZE, 3):
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


def check(name: str, severity: int) -> None:
    """Raises ValueError for a corruption or a severity that there is not."""
    if name not in CORRUPTIONS:
        why = "needs photographs that do not ship" if name == "frost" else "unknown"
        raise ValueError(
            f"name={name!r}: {why}; choose one of {', '.join(CORRUPTIONS)}."
        )
    if not isinstance(severity, int | np.integer) or severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r}: give a whole number from 1 to 5.")
