"""CIFAR-10-C's corruptions against slow evaluations of their definitions; the cache.

What a corruption draws is drawn again here, in the same order, so that the slow
evaluation can be compared pixel by pixel.
"""

import colorsys
import dataclasses
import hashlib
import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal, stats

from experiments.cli import UsageError
from experiments.data.dataset import Dataset
from experiments.robustness import cifar10c, corruptions

DETERMINISTIC = {
    *("defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast"),
    *("saturate", "pixelate", "jpeg_compression"),
}
NAMES = list(corruptions.CORRUPTIONS)


def make_images(num_images: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with a hard-edged box: black, white and grey pixels among them."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_images, 32, 32, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0), mode="wrap")
    smooth += 0.2 * ndimage.gaussian_filter(noise, (0, 1, 1, 0), mode="wrap")
    images = np.clip(110 + 400 * smooth, 0, 255)
    for image in images:
        top, left = rng.integers(0, 20, 2)
        image[top : top + 10, left : left + 12] = rng.choice([0, 128, 255])
        image[top + 3 : top + 6, left + 3 : left + 6] = rng.integers(0, 256, 3)
    return images.astype(np.uint8)


def corrupt(name: str, images: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
    return corruptions.corrupt(name, images, severity, seed=seed)


def draw(name: str, images: np.ndarray, severity: int):
    """The corrupted images, and for each one the generator that it was drawn with."""
    corrupted = corruptions.CORRUPTIONS[name](
        np.random.default_rng(0), images, severity
    )
    return corrupted, np.random.default_rng(0).spawn(len(images))


def assert_cut_off(corrupted: np.ndarray, expected: np.ndarray) -> None:
    """Asserts that levels are expected ones, in [0, 1], without their fractions.

    Where one is a whole level, rounding errors decide: it or the one below.
    """
    levels = np.clip(expected, 0, 1) * 255
    assert (corrupted >= np.floor(levels - 1e-6)).all()
    assert (corrupted <= np.floor(levels + 1e-6)).all()


# All of them


def test_table_holds_the_benchmark_less_frost_and_three_extra_ones():
    published = {
        *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur"),
        *("glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog"),
        *("brightness", "contrast", "elastic_transform", "pixelate"),
        "jpeg_compression",
    }
    assert set(corruptions.BENCHMARK) == published - {"frost"}
    assert len(corruptions.BENCHMARK) == 14
    assert set(corruptions.EXTRA) == {"speckle_noise", "gaussian_blur", "saturate"}
    assert set(NAMES) == {*corruptions.BENCHMARK, *corruptions.EXTRA}


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
@pytest.mark.parametrize("name", NAMES)
def test_any_image_gives_an_image(name, severity):
    images = make_images(4)
    images[0], images[1] = 0, 255
    clean = images.copy()
    corrupted = corrupt(name, images, severity)
    assert (corrupted.dtype, corrupted.shape) == (np.uint8, images.shape)
    assert not np.array_equal(corrupted, clean)
    np.testing.assert_array_equal(images, clean)


def test_no_images_give_no_images():
    for name in NAMES:
        assert corrupt(name, make_images(0), 1).shape == (0, 32, 32, 3)


# Glass blurs more but shuffles less from 1 to 3 and from 4 to 5, and saturate takes
# colour away at 1 and 2 and adds it from 3 on. From 1 to 5 elastic_transform moves the
# image less as a whole, and its parts more: see `test_elastic_bends_more`.
DISTANCES = {
    name: [(1, 2, 3, 4, 5)] for name in NAMES if name != "elastic_transform"
} | {"glass_blur": [(1, 4), (2, 4), (3, 5)], "saturate": [(1, 2), (3, 4, 5)]}


@pytest.mark.parametrize("name", DISTANCES)
def test_severities_lead_away_from_the_clean_image(name):
    images = make_images(48)
    distances = {
        severity: np.abs(corrupt(name, images, severity) - images.astype(float)).mean()
        for severity in corruptions.SEVERITIES
    }
    for severities in DISTANCES[name]:
        ascending = [distances[severity] for severity in severities]
        assert ascending == sorted(ascending)


@pytest.mark.parametrize("name", NAMES)
def test_seed_severity_and_position_decide_the_draws(name):
    images = np.repeat(make_images(1), 3, axis=0)
    once, again, other = (corrupt(name, images, 2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(again, once)
    if name in DETERMINISTIC:
        np.testing.assert_array_equal(other, once)
        np.testing.assert_array_equal(once[1:], once[:1].repeat(2, axis=0))
    else:
        assert all((other != once).any(axis=(1, 2, 3)))
        assert len({image.tobytes() for image in once}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_decide_nothing(name, monkeypatch):
    images = make_images(5)
    whole = corrupt(name, images, 4)
    np.testing.assert_array_equal(corrupt(name, images[:2], 4), whole[:2])
    others = make_images(5, seed=1)
    others[3] = images[3]
    np.testing.assert_array_equal(corrupt(name, others, 4)[3], whole[3])
    # Nor does the size of the blocks.
    monkeypatch.setattr(corruptions, "_BLOCK", 2)
    np.testing.assert_array_equal(corrupt(name, images, 4), whole)


def test_names_and_severities_draw_differently():
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    noises = [
        corrupt(name, grey, severity).astype(float) - 128
        for name, severity in [
            *(("gaussian_noise", 1), ("gaussian_noise", 2), ("speckle_noise", 1))
        ]
    ]
    correlations = np.corrcoef([noise.ravel() for noise in noises]) - np.eye(3)
    assert np.abs(correlations).max() < 4 / grey.size**0.5


# Noise: 1.2 million values, and 4 standard errors


def make_grey(level: int) -> np.ndarray:
    return np.full((400, 32, 32, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("name", "variances"),
    {
        "gaussian_noise": [0.04**2, 0.06**2, 0.08**2, 0.09**2, 0.10**2],
        "speckle_noise": [
            (scale * 100 / 255) ** 2 for scale in (0.06, 0.1, 0.12, 0.16, 0.2)
        ],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_noise_has_its_variance_about_the_clean_pixel(name, variances):
    grey = make_grey(100)
    for severity, variance in enumerate(variances, 1):
        # Cutting off costs half a level on average, and adds a uniform error.
        noise = (corrupt(name, grey, severity) + 0.5 - 100) / 255
        variance += 255**-2 / 12
        assert abs(noise.mean()) < 4 * (variance / grey.size) ** 0.5
        tolerance = 4 * (2 / grey.size) ** 0.5
        assert noise.var() == pytest.approx(variance, rel=tolerance)


def test_gaussian_noise_is_normal_white_and_clipped():
    noise = corrupt("gaussian_noise", make_grey(128), 5).astype(float) - 127.5
    # Cut-off levels are no continuous variable: spread each over its own width.
    spread = noise + np.random.default_rng(0).uniform(-0.5, 0.5, noise.shape)
    assert stats.kstest(spread.ravel()[:20_000] / 25.5, "norm").pvalue > 1e-3
    for axis in range(4):
        neighbours = np.roll(noise, 1, axis=axis)
        correlation = np.corrcoef(noise.ravel(), neighbours.ravel())[0, 1]
        assert abs(correlation) < 4 / noise.size**0.5
    black = corrupt("gaussian_noise", make_grey(0), 5)
    assert (black == 0).mean() == pytest.approx(0.5 + 0.4 / 25.5, abs=0.005)


def test_speckle_noise_grows_with_the_pixel():
    dark, light = (corrupt("speckle_noise", make_grey(k), 3).std() for k in (60, 120))
    assert light / dark == pytest.approx(2, rel=0.01)
    assert (corrupt("speckle_noise", make_grey(0), 5) == 0).all()


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_shot_noise_is_a_poisson_count(severity):
    full = (500, 250, 100, 75, 50)[severity - 1]
    images = make_images(2)
    corrupted, children = draw("shot_noise", images, severity)
    counts = [
        child.poisson(image / 255 * full)
        for child, image in zip(children, images, strict=True)
    ]
    assert_cut_off(corrupted, np.stack(counts) / full)
    if full <= 250:  # and so levels tell counts apart
        mean = full / 5
        levels = corrupt("shot_noise", make_grey(51), severity)
        counts = np.ceil(levels.astype(float) * full / 255 - 1e-9)
        assert abs(counts.mean() - mean) < 4 * (mean / counts.size) ** 0.5
        tolerance = 4 * ((2 + 1 / mean) / counts.size) ** 0.5
        assert counts.var() == pytest.approx(mean, rel=tolerance)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_impulse_noise_sets_a_share_of_values_to_either_end(severity):
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    grey = make_grey(100)
    corrupted = corrupt("impulse_noise", grey, severity)
    assert set(np.unique(corrupted)) == {0, 100, 255}
    standard_error = (share / 2 / grey.size) ** 0.5
    for end in 0, 255:
        assert abs((corrupted == end).mean() - share / 2) < 4 * standard_error
    # Channels fall on their own: three at a time in share**3 of the pixels only.
    together = (corrupted != 100).all(axis=-1).sum()
    assert together <= stats.poisson(grey.size / 3 * share**3).ppf(1 - 1e-4)


# Blur


def correlate(pixels: np.ndarray, kernel: np.ndarray, mode: str) -> np.ndarray:
    """Slides a kernel with odd sides over [N, H, W, C], padded as np.pad does."""
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode)
    height, width = pixels.shape[1:3]
    result = np.zeros(pixels.shape)
    for (row, column), weight in np.ndenumerate(kernel):
        result += weight * padded[:, row : row + height, column : column + width]
    return result


def gaussian_kernel(sigma: float, reach: int) -> np.ndarray:
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.exp(-(rows**2 + columns**2) / (2 * sigma**2))
    return kernel / kernel.sum()


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_gaussian_blur_is_a_gaussian(severity):
    sigma = (0.4, 0.6, 0.7, 0.8, 1)[severity - 1]
    images = make_images(4)
    kernel = gaussian_kernel(sigma, reach=(2, 2, 3, 3, 4)[severity - 1])
    expected = correlate(images / 255, kernel, "edge")
    assert_cut_off(corrupt("gaussian_blur", images, severity), expected)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_defocus_blur_is_a_smoothed_disk(severity):
    radius, sigma = {
        1: (0.3, 0.4),
        2: (0.4, 0.5),
        3: (0.5, 0.6),
        4: (1, 0.2),
        5: (1.5, 0.1),
    }[severity]
    disk = np.zeros((17, 17))
    for row, column in np.ndindex(disk.shape):
        disk[row, column] = math.hypot(row - 8, column - 8) <= radius
    assert disk.sum() == (1, 1, 1, 5, 9)[severity - 1]
    kernel = signal.convolve2d(disk / disk.sum(), gaussian_kernel(sigma, 1), "same")
    images = make_images(4)
    expected = correlate(images / 255, kernel, "reflect")
    assert_cut_off(corrupt("defocus_blur", images, severity), expected)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_glass_blur_is_the_published_loop(severity):
    sigma, iterations = {
        1: (0.05, 1),
        2: (0.25, 1),
        3: (0.4, 1),
        4: (0.25, 2),
        5: (0.4, 2),
    }[severity]
    images = make_images(2)
    corrupted, children = draw("glass_blur", images, severity)

    def blur(image):
        # As published; `test_gaussian_blur_is_a_gaussian` says what it does.
        blurred = ndimage.gaussian_filter(
            image / 255, (sigma, sigma, 0), mode="nearest"
        )
        return (blurred * 255).astype(np.uint8)

    for image, child, result in zip(images, children, corrupted, strict=True):
        image = blur(image)
        steps = child.integers(-1, 1, (iterations, 2, 30, 30))
        for iteration in range(iterations):
            for row in range(31, 1, -1):
                for column in range(31, 1, -1):
                    down, right = steps[iteration, :, row - 2, column - 2]
                    here, there = (row, column), (row + down, column + right)
                    # Views, not copies: this overwrites `here` before it is read.
                    image[here], image[there] = image[there], image[here]
        np.testing.assert_array_equal(result, blur(image))


def test_glass_blur_takes_the_four_neighbours_equally_often():
    rows, columns = np.mgrid[:32, :32]
    image = np.stack([rows, columns, columns], axis=-1).astype(np.uint8)
    corrupted = corrupt("glass_blur", np.repeat(image[None], 20, axis=0), 1)
    steps = (image.astype(int) - corrupted)[:, 2:, 2:, :2].reshape(-1, 2)
    counts = np.bincount(2 * steps[:, 0] + steps[:, 1])
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-3


def smear(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur of uint8 [H, W, C], pixel by pixel, in levels."""
    height, width, _ = image.shape
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(2 * radius + 1)]
    result = np.zeros(image.shape)
    for row, column in np.ndindex(height, width):
        for step, weight in enumerate(weights):
            down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
            right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
            from_row = min(max(row + down, 0), height - 1)
            from_column = min(max(column + right, 0), width - 1)
            result[row, column] += weight * image[from_row, from_column]
    return result / sum(weights)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_motion_blur_is_a_half_gaussian_along_a_line(severity):
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    images = make_images(2)
    corrupted, children = draw("motion_blur", images, severity)
    for image, child, result in zip(images, children, corrupted, strict=True):
        expected = smear(image, radius, sigma, child.uniform(-45, 45))
        np.testing.assert_allclose(result, expected, rtol=0, atol=0.5 + 1e-6)


def zoom_in(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of [32, 32, C], enlarged to the same size by SciPy."""
    crop = int(np.ceil(32 / factor))
    first = (32 - crop) // 2
    middle = image[first : first + crop, first : first + crop]
    enlarged = ndimage.zoom(middle, (factor, factor, 1), order=1)
    trim = (len(enlarged) - 32) // 2
    return enlarged[trim : trim + 32, trim : trim + 32]


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_zoom_blur_is_an_average_of_enlargements(severity):
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    assert len(factors) == (7, 12, 16, 21, 26)[severity - 1]
    images = make_images(2)
    corrupted = corrupt("zoom_blur", images, severity)
    for image, result in zip(images / 255, corrupted, strict=True):
        copies = [image, *(zoom_in(image, factor) for factor in factors)]
        assert_cut_off(result, np.mean(copies, axis=0))


# Weather


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_snow_is_smeared_flakes_on_a_whitened_image(severity):
    mean, std, factor, threshold, radius, sigma, keep = {
        1: (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        2: (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        3: (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        4: (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        5: (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    }[severity]
    images = make_images(2)
    corrupted, children = draw("snow", images, severity)
    for image, child, result in zip(images / 255, children, corrupted, strict=True):
        flakes = zoom_in(child.normal(mean, std, (32, 32, 1)), factor)
        flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
        angle = child.uniform(-135, -45)
        smeared = smear((flakes * 255).astype(np.uint8), radius, sigma, angle)
        layer = np.rint(smeared) / 255
        red, green, blue = np.moveaxis(image, -1, 0)
        grey = (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]
        white = np.maximum(image, grey * 1.5 + 0.5)
        whitened = keep * image + (1 - keep) * white
        assert_cut_off(result, whitened + layer + np.rot90(layer, k=2))


def make_cloud(child: np.random.Generator, decay: float) -> np.ndarray:
    """Diamond-square, point by point; the 32 x 32 grid is a torus."""
    cloud = np.zeros((32, 32))
    step, scale = 32, 100
    while step >= 2:
        half, count = step // 2, 32 // step
        noise = scale * child.uniform(-scale, scale, (3, count, count))

        def set_to_mean(row, column, offsets, wobble):
            values = [cloud[(row + r) % 32, (column + c) % 32] for r, c in offsets]
            cloud[row, column] = sum(values) / 4 + wobble

        diagonal = [(r, c) for r in (-half, half) for c in (-half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for i, j in np.ndindex(count, count):
            row, column = i * step, j * step
            set_to_mean(row + half, column + half, diagonal, noise[0, i, j])
        for i, j in np.ndindex(count, count):
            row, column = i * step, j * step
            set_to_mean(row, column + half, straight, noise[1, i, j])
            set_to_mean(row + half, column, straight, noise[2, i, j])
        step, scale = half, scale / decay
    return (cloud - cloud.min()) / np.ptp(cloud)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_fog_is_a_fractal_cloud(severity):
    amount, decay = {
        1: (0.2, 3),
        2: (0.5, 3),
        3: (0.75, 2.5),
        4: (1, 2),
        5: (1.5, 1.75),
    }[severity]
    images = make_images(2)
    images[1] //= 2  # not every image has a white pixel
    corrupted, children = draw("fog", images, severity)
    for image, child, result in zip(images / 255, children, corrupted, strict=True):
        cloud = make_cloud(child, decay)
        expected = image + amount * cloud[..., None]
        assert_cut_off(result, expected * image.max() / (image.max() + amount))


# Colour and resolution


def each_pixel(function, images: np.ndarray) -> np.ndarray:
    """Maps (red, green, blue) in [0, 1] to another."""
    pixels = (images / 255).reshape(-1, 3).tolist()
    return np.array([function(*pixel) for pixel in pixels]).reshape(images.shape)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_brightness_raises_the_value_of_hsv(severity):
    def raise_value(*colour):
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        amount = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
        return colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))

    images = make_images(2)
    images[0, :4, :4] = 0
    expected = each_pixel(raise_value, images)
    assert_cut_off(corrupt("brightness", images, severity), expected)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_saturate_changes_the_saturation_of_hsv(severity):
    factor, offset = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]

    def change_saturation(*colour):
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        saturation = min(saturation * factor + offset, 1)
        return colorsys.hsv_to_rgb(hue, saturation, value)

    images = make_images(2)
    images[0, :4, :4], images[0, 4:8, :4] = 0, 90
    expected = each_pixel(change_saturation, images)
    corrupted = corrupt("saturate", images, severity)
    assert_cut_off(corrupted, expected)
    # Grey turns red, as published.
    assert (corrupted[0, 5, 0] != 90).any() == (severity > 3)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_contrast_shrinks_towards_the_mean_of_the_channel(severity):
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    images = make_images(3)
    expected = np.empty(images.shape)
    for image, channel in np.ndindex(3, 3):
        plane = images[image, :, :, channel] / 255
        mean = math.fsum(plane.ravel()) / 1024
        expected[image, :, :, channel] = factor * plane + (1 - factor) * mean
    assert_cut_off(corrupt("contrast", images, severity), expected)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_pixelate_averages_pairs_and_repeats(severity):
    size = (30, 28, 27, 24, 20)[severity - 1]
    scale = 32 / size
    centres = np.arange(32) + 0.5

    def shrink(images, axis):
        # The box takes a pixel whole if its centre lies inside.
        inside = [
            (centres > scale * place) & (centres <= scale * (place + 1))
            for place in range(size)
        ]
        means = [images.compress(one, axis).mean(axis) for one in inside]
        return np.floor(np.stack(means, axis) + 0.5)

    images = make_images(3)
    small = shrink(shrink(images.astype(float), axis=2), axis=1)
    nearest = (centres / scale).astype(int)
    expected = small[:, nearest][:, :, nearest]
    np.testing.assert_array_equal(corrupt("pixelate", images, severity), expected)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_jpeg_compression_is_pillows(severity, tmp_path):
    images = make_images(3)
    corrupted = corrupt("jpeg_compression", images, severity)
    quality = (80, 65, 58, 50, 40)[severity - 1]
    for image, result in zip(images, corrupted, strict=True):
        path = tmp_path / "image.jpg"
        Image.fromarray(image).save(path, quality=quality, subsampling="4:2:0")
        with Image.open(path) as picture:
            np.testing.assert_array_equal(result, np.asarray(picture))


# Geometry

ELASTIC = {
    1: (0, 0, 0.08),
    2: (0.05, 0.2, 0.07),
    3: (0.08, 0.06, 0.06),
    4: (0.1, 0.04, 0.05),
    5: (0.1, 0.03, 0.03),
}


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_elastic_transform_is_an_affine_map_and_then_a_smooth_field(severity):
    amount, sigma, jitter = (32 * number for number in ELASTIC[severity])
    images = make_images(3)
    corrupted, children = draw("elastic_transform", images, severity)
    for image, child, result in zip(images / 255, children, corrupted, strict=True):
        points = np.array([[26, 26], [26, 6], [6, 6]], float)
        moved = points + child.uniform(-jitter, jitter, (3, 2))
        # (column, row, 1) of a moved point times this is the point itself.
        back = np.linalg.inv(np.column_stack([moved, np.ones(3)])) @ points
        linear, offset = back[:2, ::-1].T[:, ::-1], back[2, ::-1]
        fields = [
            ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)
            for field in child.uniform(-1, 1, (2, 32, 32))
        ]
        rows, columns = np.mgrid[:32, :32]
        for channel in range(3):
            plane = ndimage.affine_transform(
                image[..., channel], linear, offset, order=1, mode="mirror"
            )
            places = [rows + amount * fields[1], columns + amount * fields[0]]
            plane = ndimage.map_coordinates(plane, places, order=1, mode="reflect")
            assert_cut_off(result[..., channel], plane)


def test_elastic_bends_more():
    """What no affine map explains, in pixels, grows with the severity."""
    rows, columns = np.mgrid[:32, :32]
    ramps = np.stack([8 * rows, 8 * columns, 0 * rows], axis=-1).astype(np.uint8)
    inner = slice(8, 24)  # untouched by what lies beyond the edges
    places = np.stack([rows, columns, np.ones_like(rows)], axis=-1)[inner, inner]
    bends = []
    for severity in corruptions.SEVERITIES:
        images = corrupt("elastic_transform", np.repeat(ramps[None], 20, 0), severity)
        moved = images[:, inner, inner, :2].reshape(20, -1, 2) / 8
        fits = [np.linalg.lstsq(places.reshape(-1, 3), one)[1] for one in moved]
        bends.append(np.sqrt(np.mean(fits) / 256))
    assert bends[0] < 0.1  # the levels cut off
    assert bends == sorted(bends)
    assert bends[4] > 0.3


# Errors


@pytest.mark.parametrize(
    ("name", "severity", "error"),
    [
        ("gausian_noise", 1, r"^name='gausian_noise': unknown; choose one of gaussian"),
        ("frost", 1, r"^name='frost': needs photographs that do not ship; choose one"),
        ("fog", 0, r"^severity=0: give a whole number from 1 to 5\.$"),
        ("fog", 6, r"^severity=6: give a whole number from 1 to 5\.$"),
        ("fog", 1.0, r"^severity=1\.0: give a whole number from 1 to 5\.$"),
        ("fog", "1", r"^severity='1': give a whole number from 1 to 5\.$"),
    ],
)
def test_unknown_names_and_severities_are_refused(name, severity, error):
    for use in (
        lambda: corrupt(name, make_images(1), severity),
        lambda: cifar10c.load(make_dataset(), name, severity),
    ):
        with pytest.raises(ValueError, match=error) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_other_images_are_refused():
    with pytest.raises(TypeError, match=r"^images.dtype=float32: .* take uint8 .*\.$"):
        corrupt("fog", make_images(1).astype(np.float32), 1)
    for shape in (1, 28, 28, 3), (1, 3, 32, 32), (32, 32, 3), (1, 32, 32, 1):
        with pytest.raises(ValueError, match=r"^images.shape=.*: give \(N, 32, 32, 3"):
            corrupt("fog", np.zeros(shape, np.uint8), 1)


def test_severity_may_be_numpys():
    images = make_images(1)
    np.testing.assert_array_equal(
        corrupt("fog", images, np.int64(2)), corrupt("fog", images, 2)
    )


# What is kept on disk


def make_dataset(title: str = "somebody's copy") -> Dataset:
    images = make_images(8)
    labels = np.arange(8, dtype=np.int32)
    names = tuple("abcdefghij")
    return Dataset("cifar10", title, "", images[:0], labels[:0], images, labels, names)


@pytest.fixture
def no_work(monkeypatch):
    """A function that makes all further corrupting an error."""

    def work(*arguments, **settings):
        raise AssertionError("computed again")

    def forbid():
        monkeypatch.setattr(corruptions, "corrupt", work)

    return forbid


def test_without_a_cache_images_are_made():
    dataset = make_dataset()
    loaded = cifar10c.load(dataset, "fog", 3, seed=7)
    assert loaded.source == "generated"
    np.testing.assert_array_equal(loaded.labels, dataset.test_labels)
    np.testing.assert_array_equal(
        loaded.images, corrupt("fog", dataset.test_images, 3, seed=7)
    )


def test_second_load_reads_what_the_first_one_wrote(tmp_path, no_work):
    dataset, cache_dir = make_dataset(), tmp_path / "new" / "cache"
    first = cifar10c.load(dataset, "fog", 3, cache_dir=cache_dir)
    no_work()
    second = cifar10c.load(dataset, "fog", 3, cache_dir=cache_dir)
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.labels, first.labels)
    assert second.source == first.source == "generated"
    second.images[:] = 0  # its owner may write to it
    [path] = cache_dir.iterdir()
    np.testing.assert_array_equal(np.load(path), first.images)


def test_whatever_changes_the_images_changes_the_file(tmp_path, monkeypatch):
    dataset = make_dataset()
    reordered = dataclasses.replace(dataset, test_images=dataset.test_images[::-1])
    cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    [path] = tmp_path.iterdir()
    digest = hashlib.sha256(dataset.test_images.tobytes()).hexdigest()[:16]
    assert path.name == f"fog-3-seed0-v{cifar10c.VERSION}-{digest}.npy"
    cifar10c.load(dataset, "fog", 2, cache_dir=tmp_path)
    cifar10c.load(dataset, "snow", 3, cache_dir=tmp_path)
    cifar10c.load(dataset, "fog", 3, seed=1, cache_dir=tmp_path)
    cifar10c.load(reordered, "fog", 3, cache_dir=tmp_path)
    monkeypatch.setattr(cifar10c, "VERSION", cifar10c.VERSION + 1)
    cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def numpys_own(content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda content: content[:-100],
        lambda content: content[:20],
        lambda content: b"",
        numpys_own,
    ],
    ids=["bit", "end missing", "most missing", "empty", "another array"],
)
def test_damaged_file_is_made_anew(damage, tmp_path, no_work):
    dataset = make_dataset()
    first = cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.images, first.images)
    no_work()
    repaired = cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    np.testing.assert_array_equal(repaired.images, first.images)


def write_half(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    raise KeyboardInterrupt


def fail(file):
    raise OSError(28, "No space left on device")


def refuse(source, target):
    del source, target
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "interrupted"),
    [(Path, "write_bytes", write_half), (os, "replace", refuse)],
    ids=["writing", "renaming"],
)
def test_interrupted_write_leaves_nothing(
    owner, name, interrupted, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            cifar10c.load(make_dataset(), "fog", 3, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    cifar10c.load(make_dataset(), "fog", 3, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    first = cifar10c.load(make_dataset(), "fog", 3, cache_dir=file)
    monkeypatch.setattr(os, "fsync", fail)
    again = cifar10c.load(make_dataset(), "fog", 3, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.images, again.images)
    assert list(tmp_path.iterdir()) == [file]


# What is published


@pytest.fixture
def published(tmp_path):
    """A data_dir with CIFAR-10-C's glass_blur_2, prepared: 5 images of one colour."""
    import tensorflow_datasets as tfds

    class Cifar10Corrupted(
        tfds.builder_cls("cifar10_corrupted"), skip_registration=True
    ):
        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for key in range(5):
                image = np.full((32, 32, 3), 50 * key, np.uint8)
                yield key, {"image": Image.fromarray(image), "label": key}

    data_dir = tmp_path / "data"
    builder = Cifar10Corrupted(data_dir=data_dir, config="frosted_glass_blur_2")
    tfds.disable_progress_bar()
    builder.download_and_prepare(file_format="array_record")
    return data_dir


def test_official_images_take_what_is_published(published, tmp_path, no_work):
    no_work()
    loaded = cifar10c.load(
        make_dataset("CIFAR-10"),
        "glass_blur",
        2,
        data_dir=str(published),
        cache_dir=tmp_path / "cache",
    )
    assert loaded.source == "published"
    assert sorted(loaded.labels) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(loaded.images[:, 0, 0, 0], 50 * loaded.labels)
    assert not (tmp_path / "cache").exists()


def test_other_images_and_what_is_not_prepared_are_generated(published):
    data_dir = str(published)
    for dataset, severity in (make_dataset(), 2), (make_dataset("CIFAR-10"), 3):
        loaded = cifar10c.load(dataset, "glass_blur", severity, data_dir=data_dir)
        assert loaded.source == "generated"
        assert len(loaded.images) == 8


def test_published_images_that_cannot_be_read_are_an_error(published):
    folder = published / "cifar10_corrupted/frosted_glass_blur_2/1.0.0"
    [records] = folder.glob("*.array_record*")
    records.write_bytes(b"")
    error = r"^--data-dir=.*: cifar10_corrupted/frosted_glass_blur_2/1.0.0 in it cannot"
    with pytest.raises(UsageError, match=error) as caught:
        cifar10c.load(
            make_dataset("CIFAR-10"), "glass_blur", 2, data_dir=str(published)
        )
    assert "\n" not in str(caught.value)
