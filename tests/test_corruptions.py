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
from scipy import ndimage

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


def test_no_images_give_no_images():
    for name in NAMES:
        assert corrupt(name, make_images(0), 1).shape == (0, 32, 32, 3)


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
    others = make_images(4, seed=1)
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
            *(("gaussian_noise", 1), ("gaussian_noise", np.int64(2))),
            ("speckle_noise", 1),
        ]
    ]
    correlations = np.corrcoef([noise.ravel() for noise in noises]) - np.eye(3)
    assert np.abs(correlations).max() < 4 / grey.size**0.5


# Definitions: of an image, its generator and the severity, the new image; or levels
# from 0 to 1, of which a fraction of 1/255 is cut off.


def gaussian_noise(image, child, severity):
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return image / 255 + child.normal(0, scale, image.shape)


def speckle_noise(image, child, severity):
    scale = (0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1]
    return image / 255 + image / 255 * child.normal(0, scale, image.shape)


def shot_noise(image, child, severity):
    full = (500, 250, 100, 75, 50)[severity - 1]
    return child.poisson(image / 255 * full) / full


def impulse_noise(image, child, severity):
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    is_hit, is_white = child.random((2, *image.shape)) < [[[[share]]], [[[0.5]]]]
    return np.where(is_hit, np.where(is_white, np.uint8(255), np.uint8(0)), image)


def gaussian_blur(image, child, severity):
    sigma, reach = ((0.4, 2), (0.6, 2), (0.7, 3), (0.8, 3), (1, 4))[severity - 1]
    return ndimage.gaussian_filter(
        image / 255, sigma, mode="nearest", radius=reach, axes=(0, 1)
    )


def defocus_blur(image, child, severity):
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[
        severity - 1
    ]
    disk = np.hypot(*np.mgrid[-8:9, -8:9]) <= radius
    kernel = ndimage.gaussian_filter(
        disk / disk.sum(), sigma, mode="constant", radius=1
    )
    return ndimage.correlate(image / 255, kernel[..., None], mode="mirror")


def glass_blur(image, child, severity):
    sigma, iterations = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[
        severity - 1
    ]

    def blur(image):
        blurred = ndimage.gaussian_filter(
            image / 255, (sigma, sigma, 0), mode="nearest"
        )
        return (blurred * 255).astype(np.uint8)

    image = blur(image)
    steps = child.integers(-1, 1, (iterations, 2, 30, 30))
    for iteration in range(iterations):
        for row in range(31, 1, -1):
            for column in range(31, 1, -1):
                down, right = steps[iteration, :, row - 2, column - 2]
                here, there = (row, column), (row + down, column + right)
                # As published. Views, not copies: this overwrites `here` before it
                # is read.
                image[here], image[there] = image[there], image[here]
    return blur(image)


def smear(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur of uint8 [32, 32, C], step by step, in whole levels."""
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(2 * radius + 1)]
    result = np.zeros(image.shape)
    for step, weight in enumerate(weights):
        down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        rows = np.clip(np.arange(32) + down, 0, 31)
        columns = np.clip(np.arange(32) + right, 0, 31)
        result += weight * image[rows][:, columns]
    return np.rint(result / sum(weights)).astype(np.uint8)


def motion_blur(image, child, severity):
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return smear(image, radius, sigma, child.uniform(-45, 45))


def zoom_in(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of [32, 32, C], enlarged to the same size by SciPy."""
    crop = int(np.ceil(32 / factor))
    first = (32 - crop) // 2
    middle = image[first : first + crop, first : first + crop]
    enlarged = ndimage.zoom(middle, (factor, factor, 1), order=1)
    trim = (len(enlarged) - 32) // 2
    return enlarged[trim : trim + 32, trim : trim + 32]


def zoom_blur(image, child, severity):
    count = (7, 12, 16, 21, 26)[severity - 1]
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    assert len(factors) == count
    image = image / 255
    return np.mean([image, *(zoom_in(image, factor) for factor in factors)], axis=0)


def snow(image, child, severity):
    mean, std, factor, threshold, radius, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    flakes = zoom_in(child.normal(mean, std, (32, 32, 1)), factor)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    angle = child.uniform(-135, -45)
    layer = smear((flakes * 255).astype(np.uint8), radius, sigma, angle) / 255
    image = image / 255
    red, green, blue = np.moveaxis(image, -1, 0)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]
    white = np.maximum(image, grey * 1.5 + 0.5)
    return keep * image + (1 - keep) * white + layer + np.rot90(layer, k=2)


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


def fog(image, child, severity):
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    image = image / 255
    fogged = image + amount * make_cloud(child, decay)[..., None]
    return fogged * image.max() / (image.max() + amount)


def each_pixel(function, image: np.ndarray) -> np.ndarray:
    """Maps (hue, saturation, value) to another."""
    colours = (image / 255).reshape(-1, 3).tolist()
    colours = [
        colorsys.hsv_to_rgb(*function(*colorsys.rgb_to_hsv(*each))) for each in colours
    ]
    return np.reshape(colours, image.shape)


def brightness(image, child, severity):
    amount = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    return each_pixel(lambda h, s, v: (h, s, min(v + amount, 1)), image)


def saturate(image, child, severity):
    factor, offset = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    return each_pixel(lambda h, s, v: (h, min(s * factor + offset, 1), v), image)


def contrast(image, child, severity):
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    return factor * image / 255 + (1 - factor) * (image / 255).mean((0, 1))


def pixelate(image, child, severity):
    size = (30, 28, 27, 24, 20)[severity - 1]
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
    return np.asarray(small.resize((32, 32), Image.Resampling.BOX))


def jpeg_compression(image, child, severity):
    file = io.BytesIO()
    quality = (80, 65, 58, 50, 40)[severity - 1]
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def elastic_transform(image, child, severity):
    amounts, sigmas = (0, 0.05, 0.08, 0.1, 0.1), (0, 0.2, 0.06, 0.04, 0.03)
    jitters = (0.08, 0.07, 0.06, 0.05, 0.03)
    amount, sigma, jitter = (
        32 * each[severity - 1] for each in (amounts, sigmas, jitters)
    )
    points = np.array([[26, 26], [26, 6], [6, 6]], float)
    moved = points + child.uniform(-jitter, jitter, (3, 2))
    # (column, row, 1) of a moved point times this is the point itself.
    back = np.linalg.inv(np.column_stack([moved, np.ones(3)])) @ points
    linear, offset = back[:2, ::-1].T[:, ::-1], back[2, ::-1]
    right, down = (
        amount * ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)
        for field in child.uniform(-1, 1, (2, 32, 32))
    )
    places = np.mgrid[:32, :32] + [down, right]
    planes = [
        ndimage.map_coordinates(
            ndimage.affine_transform(plane, linear, offset, order=1, mode="mirror"),
            places,
            order=1,
            mode="reflect",
        )
        for plane in np.moveaxis(image / 255, -1, 0)
    ]
    return np.stack(planes, axis=-1)


DEFINITIONS = (
    *(gaussian_noise, speckle_noise, shot_noise, impulse_noise, gaussian_blur),
    *(defocus_blur, glass_blur, motion_blur, zoom_blur, snow, fog, brightness),
    *(saturate, contrast, pixelate, jpeg_compression, elastic_transform),
)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
@pytest.mark.parametrize("define", DEFINITIONS)
def test_a_corruption_is_its_definition(define, severity):
    images = make_images(3)
    images[0, :4, :4], images[0, 4:8, :4] = 0, 90  # grey may turn red, as published
    images[1] //= 2  # not every image has a white pixel
    images[2, :, :16], images[2, :, 16:] = 0, 255
    clean, name = images.copy(), define.__name__
    corrupted = corruptions.CORRUPTIONS[name](
        np.random.default_rng(0), images, severity
    )
    assert (corrupted.dtype, corrupted.shape) == (np.uint8, images.shape)
    np.testing.assert_array_equal(images, clean)
    children = np.random.default_rng(0).spawn(3)
    for image, child, result in zip(images, children, corrupted, strict=True):
        expected = define(image, child, severity)
        if expected.dtype == np.uint8:
            np.testing.assert_array_equal(result, expected)
            continue
        # Where one is a whole level, rounding errors decide: it or the one below.
        levels = np.clip(expected, 0, 1) * 255
        assert (result >= np.floor(levels - 1e-6)).all()
        assert (result <= np.floor(levels + 1e-6)).all()


# Laws of noise: 1.2 million values, and 4 standard errors

# Errors


@pytest.mark.parametrize(
    ("name", "severity", "error"),
    [
        ("gausian_noise", 1, r"^name='gausian_noise': unknown; choose one of gaussian"),
        ("frost", 1, r"^name='frost': needs photographs that do not ship; choose one"),
        ("fog", 0, r"^severity=0: give a whole number from 1 to 5\.$"),
        ("fog", 1.0, r"^severity=1\.0: give a whole number from 1 to 5\.$"),
    ],
)
def test_unknown_names_and_severities_are_refused(name, severity, error):
    with pytest.raises(ValueError, match=error):
        corrupt(name, make_images(1), severity)
    with pytest.raises(ValueError, match=error):
        cifar10c.load(make_dataset(), name, severity)


def test_other_images_are_refused():
    with pytest.raises(TypeError, match=r"^images.dtype=float32: .* take uint8 .*\.$"):
        corrupt("fog", make_images(1).astype(np.float32), 1)
    for shape in (1, 28, 28, 3), (32, 32, 3):
        with pytest.raises(ValueError, match=r"^images.shape=.*: give \(N, 32, 32, 3"):
            corrupt("fog", np.zeros(shape, np.uint8), 1)


# What is kept on disk


def make_dataset(title: str = "somebody's copy") -> Dataset:
    images = make_images(8)
    labels = np.arange(8, dtype=np.int32)
    names = tuple("abcdefghij")
    return Dataset("cifar10", title, "", images[:0], labels[:0], images, labels, names)


def test_second_load_reads_what_the_first_one_wrote(tmp_path, monkeypatch):
    dataset, cache_dir = make_dataset(), tmp_path / "new" / "cache"
    first = cifar10c.load(dataset, "fog", 3, cache_dir=cache_dir)
    monkeypatch.setattr(corruptions, "corrupt", None)  # what would make them anew
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


@pytest.mark.parametrize("damage", [flip_a_bit, lambda content: b""])
def test_damaged_file_is_made_anew(damage, tmp_path, monkeypatch):
    dataset = make_dataset()
    first = cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.images, first.images)
    monkeypatch.setattr(corruptions, "corrupt", None)
    repaired = cifar10c.load(dataset, "fog", 3, cache_dir=tmp_path)
    np.testing.assert_array_equal(repaired.images, first.images)


def fail(file):
    raise OSError(28, "No space left on device")


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def write_half(path: Path, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "write_bytes", write_half)
        cifar10c.load(make_dataset(), "fog", 3, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


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


def test_official_images_take_what_is_published(published, tmp_path, monkeypatch):
    monkeypatch.setattr(corruptions, "corrupt", None)
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
    with pytest.raises(UsageError, match=error):
        cifar10c.load(
            make_dataset("CIFAR-10"), "glass_blur", 2, data_dir=str(published)
        )
