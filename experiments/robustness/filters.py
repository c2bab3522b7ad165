"""What corruptions are made of: noise, filters and grids of pixels."""

import math
from collections.abc import Callable

import numpy as np

SIZE = 32


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """From [0, 1], with what is outside clipped; fractions are cut off."""
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws standard normal numbers, those of each image from a child of `rng`."""
    children = rng.spawn(shape[0])
    return np.stack([child.standard_normal(shape[1:]) for child in children])


def smooth(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Scikit-image's `gaussian`: below sigma = 0.125 it changes nothing."""
    from scipy import ndimage

    return ndimage.gaussian_filter(
        pixels, (0, sigma, sigma, 0), mode="nearest", truncate=4
    )


def smear(
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


def zoom_matrix(factor: float) -> np.ndarray:
    """Enlarges the middle of one axis, linearly, as SciPy's `zoom` with order 1 does.

    Args:
        factor: 1 or more.

    Returns:
        `[32, 32]`; applied to both axes it is the published `clipped_zoom`.
    """
    crop = math.ceil(SIZE / factor)
    first = (SIZE - crop) // 2
    zoomed = round(crop * factor)
    trim = (zoomed - SIZE) // 2
    # The first and last pixels of the crop are those of the enlargement.
    places = (np.arange(SIZE) + trim) * (crop - 1) / (zoomed - 1)
    below = np.minimum(places.astype(int), crop - 2)
    matrix = np.zeros((SIZE, SIZE))
    matrix[np.arange(SIZE), first + below] = 1 - (places - below)
    matrix[np.arange(SIZE), first + below + 1] = places - below
    return matrix


def clouds(rng: np.random.Generator, num_images: int, decay: float) -> np.ndarray:
    """Fractals of the diamond-square algorithm on a torus.

    Args:
        rng: the generator.
        num_images: N.
        decay: what the scale of the noise is divided by when the grid is halved.

    Returns:
        `[N, 32, 32]` in [0, 1]; both ends occur in every one.
    """
    children = rng.spawn(num_images)
    heights = np.zeros((num_images, SIZE, SIZE))
    step, scale = SIZE, 100.0
    while step > 1:
        half = step // 2
        shape = 3, SIZE // step, SIZE // step
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


def interpolate(
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


def mirror(index: np.ndarray) -> np.ndarray:
    """Continues 0 1 2 ... 30 31 with 30 29: the edge occurs once."""
    return SIZE - 1 - np.abs(SIZE - 1 - index % (2 * SIZE - 2))


def reflect(index: np.ndarray) -> np.ndarray:
    """Continues 0 1 2 ... 30 31 with 31 30: the edge occurs twice."""
    index = index % (2 * SIZE)
    return np.minimum(index, 2 * SIZE - 1 - index)
