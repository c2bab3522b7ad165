"""The training transform: PIL's own pixels for every draw, and fair draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from experiments.data import augment
from tests.platforms import on

everywhere = pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
ORDERS = list(augment.ORDERS)
# What a compiled program may change, see `assert_nearly_equal`.
MAX_UNEQUAL_SHARE = 1e-4


def make_images(num_images: int, seed: int = 0) -> np.ndarray:
    shape = (num_images, 32, 32, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def make_factors(num_images: int, low: float, high: float) -> np.ndarray:
    factors = np.random.default_rng(1).uniform(low, high, (num_images, 3))
    return factors.astype(np.float32)


def pil_jitter(images, factors, orders) -> np.ndarray:
    """What PIL makes of uint8 images, one at a time."""
    jittered = []
    for image, factor, order in zip(images, factors, orders, strict=True):
        picture = Image.fromarray(image)
        for kind in order:
            picture = ENHANCERS[kind](picture).enhance(float(factor[kind]))
        jittered.append(np.asarray(picture))
    return np.stack(jittered)


def assert_nearly_equal(images, expected) -> None:
    """Asserts that images agree up to what a fused multiply-add may change.

    Where PIL's blend, rounded twice, lands on a whole number, a fused one, rounded
    once, may land just below it and lose a level. Each later step stretches a lost
    level to 1.2 at most, which rounds to two. Of 36.9 million values, compiled for a
    CPU, 68 differed; so one in 10,000 is generous, and a wrong formula is far off.
    """
    differences = np.abs(np.asarray(images, np.float64) - expected)
    assert differences.max() <= 2
    assert (differences > 0).mean() < MAX_UNEQUAL_SHARE


# Colour jitter


@everywhere
@pytest.mark.parametrize(("low", "high"), [(0.8, 1.2), (0, 3)], ids=["ours", "clip"])
def test_jitter_is_pils_for_every_order(low, high, platform):
    images = make_images(96)
    factors = make_factors(96, low, high)
    orders = np.tile(ORDERS, (16, 1))
    # Of these factors every single pixel is PIL's: operation by operation nothing is
    # fused, but for a CPU's loop.
    np.testing.assert_array_equal(
        on(platform, augment.jitter)(images.astype(np.float32), factors, orders),
        pil_jitter(images, factors, orders),
    )


@everywhere
def test_jitter_is_a_loop_on_a_cpu_alone(platform):
    images, factors = jnp.ones((2, 4, 4, 3)), jnp.ones((2, 3))
    traced = jax.jit(augment.jitter).trace(images, factors, jnp.asarray(ORDERS[:2]))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == (platform == "cpu")


@everywhere
def test_compiled_jitter_is_pils_up_to_fusion(platform):
    images = make_images(192)
    factors = make_factors(192, 0.8, 1.2)
    orders = np.repeat(ORDERS, 32, axis=0)
    jitter = jax.jit(jax.vmap(on(platform, augment.jitter)))
    arguments = [images.astype(np.float32), factors, orders]
    arguments = [array.reshape(12, 16, *array.shape[1:]) for array in arguments]
    jittered = np.asarray(jitter(*arguments)).reshape(images.shape)
    assert_nearly_equal(jittered, pil_jitter(images, factors, orders))


# Flip and crop

OFFSETS = [(row, column) for row in range(-4, 5) for column in range(-4, 5)]


@everywhere
@pytest.mark.parametrize("flip", [False, True])
def test_flip_and_crop_is_pad_and_slice(flip, platform):
    height, width = shape = 6, 9
    num_images = len(OFFSETS)
    images = np.random.default_rng(0).integers(1, 256, (num_images, *shape, 3))
    images[0] = 255  # the largest value stays exact too
    pads = (0, 0), (4, 4), (4, 4), (0, 0)
    padded = np.pad(images[:, :, ::-1] if flip else images, pads)
    expected = [
        image[4 + row : 4 + row + height, 4 + column : 4 + column + width]
        for image, (row, column) in zip(padded, OFFSETS, strict=True)
    ]
    cropped = on(platform, augment.flip_and_crop)(
        jnp.asarray(images, jnp.uint8),
        jnp.full(num_images, flip),
        jnp.asarray(OFFSETS),
    )
    assert cropped.dtype == np.float32
    np.testing.assert_array_equal(cropped, expected)


# Draws


def draw_geometry(monkeypatch, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The flips, bool [N], and offsets, int [N, 2], that `augment` draws."""
    monkeypatch.setattr(augment, "random_jitter", lambda key, images: images)
    # Pixels that say where they come from: rows in red, columns in green.
    rows, columns = np.mgrid[:12, :12]
    image = np.stack([rows, columns, columns], axis=-1).astype(np.uint8)
    images = np.broadcast_to(image, (num_images, 12, 12, 3))
    augmented = np.asarray(augment.augment(jax.random.key(58), images))
    # Row and column 5 and 6 stay in the image whatever the offset.
    flips = augmented[:, 5, 6, 1] < augmented[:, 5, 5, 1]
    columns = np.where(flips, 11 - augmented[:, 5, 5, 1], augmented[:, 5, 5, 1])
    offsets = np.stack([augmented[:, 5, 5, 0], columns], axis=1) - 5
    return flips, offsets.astype(int)


def test_flips_and_offsets_are_uniform(monkeypatch):
    num_images = 8_100
    flips, offsets = draw_geometry(monkeypatch, num_images)
    assert set(map(tuple, offsets)) == set(OFFSETS)
    # 162 cells of 50 on average; the key is fixed, so a fair die passes for ever.
    cells = 81 * flips + 9 * (offsets[:, 0] + 4) + offsets[:, 1] + 4
    counts = np.bincount(cells, minlength=162)
    assert stats.chisquare(counts).pvalue > 1e-3
    # Within 4 standard errors, of 1/sqrt(4N) and of 1/sqrt(N).
    assert abs(flips.mean() - 0.5) < 2 / num_images**0.5
    for draws in (flips, *offsets.T):  # of neighbours in the batch
        correlation = np.corrcoef(draws[1:], draws[:-1])[0, 1]
        assert abs(correlation) < 4 / num_images**0.5


def draw_jitter(monkeypatch, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The factors [N, 3] and orders [N, 3] that `random_jitter` draws."""
    drawn = []
    monkeypatch.setattr(
        augment, "jitter", lambda images, *draws: drawn.extend(draws) or images
    )
    augment.random_jitter(jax.random.key(58), jnp.zeros((num_images, 1, 1, 3)))
    factors, orders = drawn
    return np.asarray(factors), np.asarray(orders)


def test_factors_are_uniform_and_orders_equally_likely(monkeypatch):
    num_images = 6_000
    factors, orders = draw_jitter(monkeypatch, num_images)
    assert factors.shape == orders.shape == (num_images, 3)
    for kind in range(3):
        uniform = stats.uniform(0.8, 0.4)
        assert stats.kstest(factors[:, kind], uniform.cdf).pvalue > 1e-3
    # In [0.8, 1.2) up to float32's rounding of both ends.
    assert factors.min() > 0.8 - 1e-6 and factors.max() < 1.2 + 1e-6
    counts = [(orders == order).all(axis=1).sum() for order in ORDERS]
    assert sum(counts) == num_images
    assert stats.chisquare(counts).pvalue > 1e-3
    # The three factors, the order and the neighbour's factor: within 4 standard errors.
    draws = np.column_stack([factors[1:], orders[1:, 0], factors[:-1, 0]])
    correlations = np.corrcoef(draws, rowvar=False) - np.eye(5)
    assert np.abs(correlations).max() < 4 / num_images**0.5


def test_augment_is_pils_flip_then_crop_then_jitter(monkeypatch):
    images = make_images(64)
    draws = {}

    def spy(name):
        function = getattr(augment, name)

        def record(images, *drawn):
            draws[name] = [np.asarray(array) for array in drawn]
            return function(images, *drawn)

        monkeypatch.setattr(augment, name, record)

    spy("flip_and_crop")
    spy("jitter")
    augmented = augment.augment(jax.random.key(0), images)
    cropped = []
    for image, flip, (row, column) in zip(images, *draws["flip_and_crop"], strict=True):
        picture = Image.fromarray(image)
        if flip:
            picture = ImageOps.mirror(picture)
        picture = ImageOps.expand(picture, 4)
        box = (4 + column, 4 + row, 36 + column, 36 + row)
        cropped.append(np.asarray(picture.crop(box)))
    expected = pil_jitter(np.stack(cropped), *draws["jitter"])
    np.testing.assert_array_equal(augmented, expected)


# Normalisation


def test_normalize_takes_0_to_minus_1_and_255_to_1():
    levels = jnp.arange(256, dtype=jnp.uint8)
    normalized = augment.normalize(levels)
    assert normalized.dtype == jnp.float32
    assert (float(normalized[0]), float(normalized[255])) == (-1, 1)
    # Three roundings of numbers of at most 1, the last of them doubled.
    expected = np.arange(256) / 127.5 - 1
    np.testing.assert_allclose(normalized, expected, rtol=0, atol=4 * 2**-24)
    np.testing.assert_array_equal(
        augment.normalize(levels.astype(jnp.float32)), normalized
    )
