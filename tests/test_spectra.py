"""Power-law noise: mean, variance, spectrum and marginal, whatever the shape."""

import functools
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sounddrop_jax import spectra
from sounddrop_jax.spectra import (
    fit_exponent,
    periodogram,
    power_at_frequencies,
    power_law,
)

ROOT = Path(__file__).parents[1]
# About a million numbers each: batches of feature maps, NHWC, and one of sequences.
FIELDS = [
    ((512, 8, 8, 32), (-2,)),
    ((1500, 11, 15, 4), (-2,)),
    ((256, 16, 16, 16), (-3, -2)),
    ((1500, 11, 15, 4), (-3, -2)),
    ((2**15, 64), (-1,)),
]
EXPONENTS = [-2.0, -1.0, 0.0, 1.0, 2.0]

every_field = pytest.mark.parametrize(("shape", "axes"), FIELDS)
every_exponent = pytest.mark.parametrize("exponent", EXPONENTS)


@functools.cache
def draw_once(shape, axes, exponent, seed) -> jax.Array:
    return power_law(jax.random.key(seed), shape, exponent=exponent, axes=axes)


def draw(shape, axes, exponent, seed=0) -> np.ndarray:
    """The noise in float64, so that sums over it are exact enough to judge it."""
    return np.asarray(draw_once(shape, axes, exponent, seed), np.float64)


def expected_power(lengths, exponent) -> np.ndarray:
    """The law worked out bin by bin, as the documentation states it."""
    power = np.empty(lengths)
    for bins in np.ndindex(*lengths):
        steps = [min(b, n - b) / n for b, n in zip(bins, lengths, strict=True)]
        radius = math.hypot(*steps)
        power[bins] = radius**-exponent if radius else float(exponent == 0)
    return power / power.mean()


def lengths_along(shape, axes) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes)


def measured_power(noise, axes) -> np.ndarray:
    others = tuple(set(range(noise.ndim)) - {axis % noise.ndim for axis in axes})
    transform = np.fft.fftn(noise, axes=axes, norm="ortho")
    return (np.abs(transform) ** 2).mean(axis=others)


def spread(shape, axes, exponent) -> float:
    """The mean squared power: how many times fewer numbers the noise is worth.

    For Gaussian noise of power P and n numbers, the mean of squares has variance
    2 mean(P^2) / n, and a mean of products with independent noise mean(P^2) / n.
    """
    return float((expected_power(lengths_along(shape, axes), exponent) ** 2).mean())


def slope_error(lengths, relative_error) -> float:
    """The standard error of a slope fitted to bins with that relative error."""
    grid = np.meshgrid(*[np.fft.fftfreq(n) for n in lengths])
    logs = np.log(np.hypot(*grid).ravel()[1:] if len(grid) == 2 else abs(grid[0][1:]))
    # Half of the bins are copies of the other half, hence the root of 2.
    return math.sqrt(2) * relative_error / math.sqrt(((logs - logs.mean()) ** 2).sum())


# The field


@pytest.mark.parametrize("exponent", [-1.0, 2.0])
@every_field
def test_variance_is_one_at_every_position(shape, axes, exponent):
    noise = draw(shape, axes, exponent)
    others = tuple(set(range(noise.ndim)) - {axis % noise.ndim for axis in axes})
    variances = (noise**2).mean(axis=others)
    # 5 standard errors of the mean of this many independent squares, since the
    # fields of up to 256 positions are each a chance to stray.
    error = math.sqrt(2 * variances.size / noise.size)
    assert_allclose(variances, 1, rtol=0, atol=5 * error)


@every_exponent
@every_field
def test_every_frequency_has_the_power_of_the_law(shape, axes, exponent):
    lengths = lengths_along(shape, axes)
    expected = expected_power(lengths, exponent)
    measured = measured_power(draw(shape, axes, exponent), axes)
    # 5 standard errors. A power averages the squares of a complex number, or of a
    # real one at the zero and Nyquist frequencies, which vary twice as much.
    relative_error = math.sqrt(2 * math.prod(lengths) / math.prod(shape))
    assert_allclose(measured, expected, rtol=5 * relative_error, atol=1e-9)


@pytest.mark.parametrize("exponent", [-2.0, 2.0])
@every_field
def test_other_directions_are_white(shape, axes, exponent):
    noise = draw(shape, axes, exponent)
    shaped = {axis % noise.ndim for axis in axes}
    for axis in set(range(noise.ndim)) - shaped:
        length = shape[axis]
        relative_error = math.sqrt(spread(shape, axes, exponent) * length / noise.size)
        error = slope_error((length,), relative_error)
        assert abs(fit_exponent(noise, axes=axis)) < 4 * error

        products = np.delete(noise, 0, axis) * np.delete(noise, -1, axis)
        error = math.sqrt(spread(shape, axes, exponent) / products.size)
        assert abs(products.mean()) < 4 * error


@pytest.mark.parametrize("exponent", [-2.0, 1.0, 2.0])
@every_field
def test_marginal_is_normal(shape, axes, exponent):
    # One position of each field: independent numbers.
    noise = draw(shape, axes, exponent)
    sample = np.take(noise, 1, axis=axes[0] % noise.ndim)
    for axis in axes[1:]:
        sample = np.take(sample, 1, axis=axis)
    assert stats.kstest(sample.ravel(), "norm").pvalue > 1e-3


def test_exponent_zero_is_white_noise_itself():
    key = jax.random.key(3)
    noise = power_law(key, (256, 16, 16, 16), exponent=0.0, axes=(-3, -2))
    assert_array_equal(noise, jax.random.normal(key, noise.shape))


# Of which the second makes all by Fourier transforms.
@pytest.mark.parametrize("longest", [spectra.LONGEST_PRODUCT, 0])
@pytest.mark.parametrize("exponent", [-1.0, 1.5])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        *[((8,), -1), ((9,), (0,)), ((1,), 0), ((2,), 0)],
        ((5, 4), (1, -2)),  # in any order
        *[((3, 1, 6), (1, 2)), ((3, 6, 1), (1, 2)), ((2, 5, 4, 3, 3), (0, 1, 3, 4))],
    ],
)
def test_any_rank_and_length_is_white_noise_filtered(
    shape, axes, exponent, longest, monkeypatch
):
    monkeypatch.setattr(spectra, "LONGEST_PRODUCT", longest)
    key = jax.random.key(1)
    noise = jax.jit(lambda: power_law(key, shape, exponent=exponent, axes=axes))()
    assert noise.shape == shape
    axes = tuple(sorted(a % len(shape) for a in np.atleast_1d(axes)))
    lengths = lengths_along(shape, axes)
    white = np.asarray(jax.random.normal(key, shape), np.float64)
    # Along nothing but axes of length 1 there is nothing to shape.
    flat = math.prod(lengths) == 1
    amplitude = np.sqrt(expected_power(lengths, 0.0 if flat else exponent))
    filtered = np.fft.fftn(white, axes=axes) * np.expand_dims(
        amplitude, [axis for axis in range(len(shape)) if axis not in axes]
    )
    expected = np.fft.ifftn(filtered, axes=axes).real
    assert_allclose(noise, expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_an_empty_shape_gives_an_empty_field(shape):
    noise = power_law(jax.random.key(0), shape, exponent=1.0)
    assert (noise.shape, noise.dtype) == (shape, jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_dtype_is_the_one_asked_for_and_arithmetic_float32(exponent, dtype):
    make = functools.partial(
        power_law, jax.random.key(0), (64, 9), exponent=exponent, axes=-1
    )
    noise = make(dtype=dtype)
    assert noise.dtype == dtype
    assert_array_equal(noise, make().astype(dtype))


def test_float64_is_drawn_in_float64():
    with jax.enable_x64(True):
        noise = power_law(jax.random.key(0), (64, 9), dtype=jnp.float64)
    assert noise.dtype == np.float64
    assert not np.array_equal(noise, np.asarray(noise).astype(np.float32))


def test_normalisation_is_of_the_law_and_not_of_the_sample():
    variances = (draw((2**15, 64), (-1,), 1.0) ** 2).mean(axis=1)
    # See `spread`. The standard error of a standard deviation, for 2^15 numbers with
    # a kurtosis of 9 at the most, is 0.8 %; this is 4 of them.
    expected = math.sqrt(2 * spread((64,), (-1,), 1.0) / 64)
    assert variances.std() == pytest.approx(expected, rel=0.032)


LAW = {"exponent": 1.0, "axes": (-1,), "min_frequency": 0.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exponent": math.nan}, r"exponent must lie in \[-3, 3\], not nan"),
        ({"exponent": -3.01}, r"exponent must lie in \[-3, 3\], not -3.01"),
        ({"min_frequency": 0.51}, r"min_frequency must lie in \[0, 0.5\]"),
        ({"min_frequency": math.nan}, r"min_frequency must lie in \[0, 0.5\]"),
        ({"axes": ()}, "at least one"),
        ({"axes": (1, -1)}, "different axes"),
        ({"axes": 2}, r"axes=\(2,\) do not all exist in an array of rank 2"),
    ],
    ids=str,
)
def test_a_law_or_axes_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        power_law(jax.random.key(0), (0, 8), **LAW | changed)


@pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.complex64])
def test_a_dtype_without_noise_is_refused(dtype):
    with pytest.raises(TypeError, match="Noise is floating point, but dtype is"):
        power_law(jax.random.key(0), (4, 8), dtype=dtype)


# The law


@pytest.mark.parametrize("exponent", [-3.0, 0.0, 0.5, 3.0])
@pytest.mark.parametrize("lengths", [(2,), (7,), (16,), (4, 6), (5, 3, 4)], ids=str)
def test_the_law_is_a_power_of_the_radius_with_mean_one(lengths, exponent):
    power = power_at_frequencies(lengths, exponent=exponent)
    assert power.dtype == np.float64
    assert_allclose(power, expected_power(lengths, exponent), rtol=1e-12)
    assert power.mean() == pytest.approx(1, abs=1e-12)
    # None at zero frequency where the law is 0 or has no finite value there.
    assert (power.flat[0] == 0) == (exponent != 0)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize("lengths", [(), (1,), (1, 1)], ids=str)
def test_a_single_frequency_has_all_the_power(lengths, exponent):
    power = power_at_frequencies(lengths, exponent=exponent)
    assert_array_equal(power, np.ones(lengths))


@pytest.mark.parametrize("exponent", [-1.0, 1.0, 2.0])
@pytest.mark.parametrize("lengths", [(16,), (16, 15)], ids=str)
def test_the_law_is_flat_below_min_frequency(lengths, exponent):
    power = power_at_frequencies(lengths, exponent=exponent, min_frequency=0.25)
    radius = np.sqrt(sum(f**2 for f in np.ix_(*map(np.fft.fftfreq, lengths))))
    below = radius <= 0.25
    assert power.mean() == pytest.approx(1, abs=1e-12)
    assert np.ptp(power[below]) < 1e-12  # zero frequency included
    ratios = power[~below] / power.flat[0]
    assert_allclose(ratios, (radius[~below] / 0.25) ** -exponent)


def test_min_frequency_reaches_the_noise():
    key, shape = jax.random.key(0), (2**15, 64)
    noise = power_law(key, shape, exponent=2.0, min_frequency=0.25)
    measured = measured_power(np.asarray(noise, np.float64), (-1,))
    expected = power_at_frequencies((64,), exponent=2.0, min_frequency=0.25)
    # 5 standard errors over 2^15 rows, see the test of every frequency.
    assert_allclose(measured, expected, rtol=5 * math.sqrt(2 / 2**15))


# Its measurement


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        *[((4, 9), (-1,)), ((6, 4), (0,)), ((3, 4, 5, 6), (0, 2, 3))],
        ((15, 15), (0, 1)),  # 3, 4 and 5, 0 are equally far but for the last bit
    ],
)
def test_periodogram_is_the_power_of_waves_binned_by_radius(shape, axes):
    field = np.random.default_rng(0).standard_normal(shape) + 3
    frequencies, power = periodogram(field, axes=axes)
    every = measured_power(field, axes)
    grid = np.ix_(*map(np.fft.fftfreq, every.shape))
    radii = np.sqrt(sum(steps**2 for steps in grid)).round(9)
    expected = np.unique(radii)[1:]  # without zero frequency
    assert_allclose(frequencies, expected, atol=1e-9)
    means = [every[radii == radius].mean() for radius in expected]
    assert_allclose(power, means, rtol=1e-9)


@pytest.mark.parametrize("exponent", [-2.0, -0.5, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("lengths", [(4,), (15,), (8, 6)], ids=str)
def test_fit_of_an_exact_power_law_is_exact(lengths, exponent):
    # Any phases do: those of white noise, whose own powers are divided out.
    white = np.fft.fftn(np.random.default_rng(0).standard_normal(lengths))
    power = expected_power(lengths, exponent)
    field = np.fft.ifftn(white / np.abs(white) * np.sqrt(power)).real
    axes = tuple(range(len(lengths)))
    assert fit_exponent(field, axes=axes) == pytest.approx(exponent, abs=1e-9)


@pytest.mark.parametrize("shape", [(5, 1), (5, 2), (5, 3)], ids=str)
def test_fit_needs_two_frequencies(shape):
    with pytest.raises(ValueError, match="A slope needs two frequencies"):
        fit_exponent(np.ones(shape))


@pytest.mark.parametrize("power", [0.0, math.nan])
def test_fit_needs_power_at_every_frequency(power):
    with pytest.raises(ValueError, match="and there is none at 0.0625 cycles per"):
        fit_exponent(np.full((4, 16), power))


@pytest.mark.parametrize("measure", [periodogram, fit_exponent])
@pytest.mark.parametrize("axes", [(), (0, -2), 2])
def test_measuring_along_wrong_axes_is_refused(measure, axes):
    with pytest.raises(ValueError, match="axes"):
        measure(np.ones((4, 8)), axes=axes)


AT_ONCE = """
import os
if hasattr(os, "sched_setaffinity"):  # the fewer threads, the sooner all of them wait
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax
from sounddrop_jax.spectra import power_law

@jax.jit
def draw(key):
    keys = jax.random.split(key, 8)
    return [power_law(key, (64, 300, 8), axes=1) for key in keys]

for seed in range(30):
    jax.block_until_ready(draw(jax.random.key(seed)))
"""


@pytest.mark.slow
def test_many_fields_of_one_program_come_to_an_end():
    # In a process of its own: one that waits for its own threads hears nothing.
    subprocess.run([sys.executable, "-c", AT_ONCE], cwd=ROOT, check=True, timeout=120)
