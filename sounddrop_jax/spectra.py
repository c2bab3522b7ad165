"""Power-law noise: from a key and a shape to a field with power 1/f^exponent.

A field has zero mean and unit variance at every position, in expectation: the
normalisation is worked out from the law, not measured on the sample.
"""

import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

# Axes up to this length are transformed by a product with a matrix, longer ones by a
# Fourier transform. In JAX 0.11.1 and 0.11.2 more are products: two Fourier transforms
# in one program there can wait for each other's threads for good, on a CPU.
LONGEST_PRODUCT = 4096 if jax.__version_info__ in ((0, 11, 1), (0, 11, 2)) else 256


def power_law(
    key: jax.Array,
    shape: Sequence[int],
    *,
    exponent: float = 1.0,
    axes: int | Sequence[int] = (-1,),
    min_frequency: float = 0.0,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Draws Gaussian noise whose power falls as 1/f^exponent along some axes.

    White noise is filtered in the frequency domain, after Timmer & Koenig (1995),
    "On generating power law noise", by Hartley's real transform (Bracewell, 1983,
    "Discrete Hartley transform"). Over several axes f is the distance from the
    origin of the frequency plane, so the noise has no preferred direction. Along all
    other axes it is white.

    The zero frequency obeys the law where the law is finite: it has full power in
    white noise and none for exponents below 0. For exponents above 0 the law diverges
    there; the frequency is left out, and the noise sums to zero along `axes`.

    Args:
        key: a PRNG key.
        shape: of the noise: any rank from 1, any lengths, odd or even.
        exponent: 0 is white, 1 pink, 2 brown, -1 blue, -2 violet; in [-3, 3].
        axes: along which the spectrum is shaped, say -2 for the rows of an NHWC map
            or (-3, -2) for its plane. Along an axis of length 1 nothing can be.
        min_frequency: below it, zero included, the spectrum is flat; in cycles per
            sample, from 0 (every frequency is shaped) to 0.5 (the Nyquist frequency).
        dtype: of the result, floating point. The arithmetic is float32 or better.

    Returns:
        Noise of the shape and dtype asked for.

    Raises:
        ValueError: if `exponent` or `min_frequency` is out of range or NaN, or `axes`
            is empty, repeats an axis, or names one that `shape` lacks.
        TypeError: if `dtype` is not floating point.

    Example:
        >>> import jax
        >>> rows = power_law(jax.random.key(0), (64, 16, 16, 8), axes=-2)
        >>> rows.shape, bool(abs(rows.std() - 1) < 0.01)
        ((64, 16, 16, 8), True)
        >>> bool(abs(rows.sum(-2)).max() < 1e-4)  # no power at zero frequency
        True
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"Noise is floating point, but dtype is {jnp.dtype(dtype)}: "
            "draw float32 and convert the result."
        )
    shape = tuple(shape)
    axes = _normalize_axes(axes, len(shape))
    lengths = tuple(shape[axis] for axis in axes)
    _check_law(exponent, min_frequency)
    if 0 in shape:
        return jnp.zeros(shape, dtype)
    compute_dtype = np.promote_types(dtype, jnp.float32)
    noise = jax.random.normal(key, shape, compute_dtype)
    if exponent == 0:
        return noise.astype(dtype)

    law = power_at_frequencies(lengths, exponent=exponent, min_frequency=min_frequency)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    amplitude = jnp.expand_dims(jnp.asarray(np.sqrt(law), compute_dtype), others)
    # The law is the same for a frequency and its opposite along each axis, so that
    # Hartley's transform diagonalises the filter as Fourier's does, without a complex
    # number; and it is its own inverse.
    for axis in axes:
        noise = _hartley(noise, axis)
    noise = noise * amplitude
    for axis in axes:
        noise = _hartley(noise, axis)
    return noise.astype(dtype)


def _hartley(field: jax.Array, axis: int) -> jax.Array:
    """Transforms along one axis: sums of values times (cos + sin)(2 pi j k / n)."""
    length = field.shape[axis]
    scale = 1 / math.sqrt(length)
    if length > LONGEST_PRODUCT:
        spectrum = jnp.fft.fft(field, axis=axis)
        return (spectrum.real - spectrum.imag) * scale
    # A product with a small matrix costs no more than a fast Fourier transform, and of
    # a batch that is sharded over devices each transforms its own part: XLA gathers
    # the batch for a Fourier transform in JAX before 0.12.
    steps = np.arange(length)
    angles = 2 * np.pi / length * (np.outer(steps, steps) % length)
    matrix = jnp.asarray((np.cos(angles) + np.sin(angles)) * scale, field.dtype)
    product = jnp.tensordot(field, matrix, (axis, 0), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, -1, axis)


def power_at_frequencies(
    lengths: Sequence[int], *, exponent: float, min_frequency: float = 0.0
) -> np.ndarray:
    """Evaluates the law that `power_law` follows, as the noise power of each bin.

    Args:
        lengths: of the axes that are shaped, each 1 or more.
        exponent: see `power_law`.
        min_frequency: see `power_law`.

    Returns:
        float64 `[*lengths]`, in the order of `np.fft.fftfreq`, with mean 1, as the mean
        over all frequencies is the variance of the noise.

    Raises:
        ValueError: if `exponent` or `min_frequency` is out of range or NaN.

    Example:
        >>> power_at_frequencies((4,), exponent=1.0)  # at 0, 1/4, -1/2, -1/4
        array([0. , 1.6, 0.8, 1.6])
    """
    _check_law(exponent, min_frequency)
    frequency = np.maximum(_radial_frequency(lengths), min_frequency)
    power = np.zeros_like(frequency)
    np.power(frequency, -exponent, out=power, where=frequency > 0)
    if exponent == 0 or math.prod(lengths) == 1:
        power[...] = 1.0  # white, the zero frequency included
    return power / power.mean()


def periodogram(
    noise: ArrayLike, *, axes: int | Sequence[int] = (-1,)
) -> tuple[np.ndarray, np.ndarray]:
    """Measures the power of a field at each frequency of some of its axes.

    Args:
        noise: real, any shape; averaged over all other axes.
        axes: the axes to measure along; over several, frequencies are radial. The last
            one by default, which in feature maps is that of the channels: -2 are rows.

    Returns:
        Frequencies, float64 `[F]`, rising, above 0, in cycles per sample; and the mean
        power there, float64 `[F]`, 1 for white noise of unit variance.

    Example:
        >>> import numpy as np
        >>> wave = np.cos(2 * np.pi * np.arange(8) / 4)
        >>> frequencies, power = periodogram(wave)
        >>> frequencies
        array([0.125, 0.25 , 0.375, 0.5  ])
        >>> power.round(3)
        array([0., 2., 0., 0.])
    """
    field = np.asarray(noise, np.float64)
    axes = _normalize_axes(axes, field.ndim)
    lengths = tuple(field.shape[axis] for axis in axes)
    power = np.abs(np.fft.fftn(field, axes=axes)) ** 2 / math.prod(lengths)
    power = power.mean(axis=tuple(set(range(field.ndim)) - set(axes)))
    # Rounded, because equal distances come out unequal in the last bit.
    frequency = _radial_frequency(lengths).round(12)
    frequencies, bins = np.unique(frequency, return_inverse=True)
    bins = bins.ravel()
    totals = np.bincount(bins, power.ravel()) / np.bincount(bins)
    return frequencies[frequencies > 0], totals[frequencies > 0]


def fit_exponent(noise: ArrayLike, *, axes: int | Sequence[int] = (-1,)) -> float:
    """Fits the exponent of a field's spectrum: minus the slope of log power on log f.

    Every frequency bin weighs the same, so a radial frequency that many bins share
    counts as often.

    Args:
        noise: real, any shape; averaged over all other axes.
        axes: the axes to measure along.

    Returns:
        The exponent, about 0 for white noise and 1 for pink noise.

    Raises:
        ValueError: if there are fewer than two frequencies to fit a line through, or
            one of them has no power.

    Example:
        >>> import jax
        >>> pink = power_law(jax.random.key(0), (4096, 64), exponent=1.0)
        >>> bool(abs(fit_exponent(pink) - 1) < 0.02)
        True
    """
    lengths = [np.shape(noise)[a] for a in _normalize_axes(axes, np.ndim(noise))]
    frequencies, power = periodogram(noise, axes=axes)
    if len(frequencies) < 2:
        raise ValueError(
            f"A slope needs two frequencies, but axes of lengths {lengths} hold "
            f"{len(frequencies)} above zero; measure along longer axes."
        )
    if not (power > 0).all():
        raise ValueError(
            "A slope needs power at every frequency, and there is none at "
            f"{frequencies[~(power > 0)][0]:.3g} cycles per sample; measure noise that "
            "has all of them."
        )
    radial = _radial_frequency(lengths).round(12)
    _, counts = np.unique(radial[radial > 0], return_counts=True)
    # polyfit's weights multiply the residuals, whose squares are summed.
    slope, _ = np.polyfit(np.log(frequencies), np.log(power), 1, w=np.sqrt(counts))
    return -float(slope)


def _check_law(exponent: float, min_frequency: float) -> None:
    if not -3 <= exponent <= 3:
        raise ValueError(f"exponent must lie in [-3, 3], not {exponent}.")
    if not 0 <= min_frequency <= 0.5:
        raise ValueError(
            f"min_frequency must lie in [0, 0.5] cycles per sample, "
            f"not {min_frequency}."
        )


def _radial_frequency(lengths: Sequence[int]) -> np.ndarray:
    """Distance of every bin of a discrete Fourier transform from zero frequency."""
    squares = [np.fft.fftfreq(length) ** 2 for length in lengths]
    return np.sqrt(sum(np.meshgrid(*squares, indexing="ij", sparse=True), 0.0))


def _normalize_axes(axes: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Returns distinct axes in rising order, counted from the front."""
    given = tuple(map(operator.index, np.atleast_1d(axes).tolist()))
    if not all(-rank <= axis < rank for axis in given):
        raise ValueError(
            f"axes={given} do not all exist in an array of rank {rank}: name axes that "
            "it has."
        )
    normal = tuple(sorted({axis % rank for axis in given}))
    if not given or len(normal) < len(given):
        raise ValueError(f"axes must name different axes, at least one, not {given}.")
    return normal
