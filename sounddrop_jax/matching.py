"""Noise that varies as activations do: a bank made of what is measured on them."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sounddrop_jax.banks import NoiseBank, _check_dtype, _count_entries


def make_matched_bank(
    activations: jax.Array | np.ndarray | Iterable[jax.Array | np.ndarray],
    *,
    seed: int = 0,
    num_entries: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> NoiseBank:
    """Makes a bank of Gaussian noise that varies as activations do.

    It has their power spectrum over the plane, direction by direction, and their
    covariance over channels, both divided by the mean of the channels' variances. So an
    intensity means what it does with other banks, while channels keep their relative
    variances, and dead ones have no noise. What else the activations have is not kept:
    every channel has the same spectrum, the mean over channels by power; the noise is
    the same everywhere and goes on across the edges of the plane.

    An entry is a whole map, so a window starts at one, and channels stay in their
    places. Give the maps of the layer that the noise is for, of the same size: in
    smaller ones the first places are taken. Leave `channel_correlation` and
    `broadcast_dims` along channels as they are: they would copy the noise of the first
    channel to the others.

    Args:
        activations: `[B, H, W, C]`, or `[B, T, C]`, or `[B, C]` without a spectrum;
            real and finite, not traced. Or an iterable of such batches, gone through
            once and held one at a time; B may differ. As many independent examples as
            there are channels, and better many more: what is measured on fewer is
            theirs, and not the network's.
        seed: at least 0, for `np.random.default_rng`: the noise is drawn on the host.
        num_entries: see `banks.make_power_law_bank`.
        dtype: of the values, floating point.

    Returns:
        A bank of independent entries, of the field `(H, W, C)`.

    Raises:
        ValueError: if there are no activations, batches differ in more than B, lack an
            axis, hold NaN or infinity, or are constant in every channel; if
            `num_entries` is below 1 or `seed` below 0.
        TypeError: if `dtype` is not floating point.

    References:
        Galerne, Gousseau and Morel, "Random phase textures: theory and synthesis", IEEE
        Transactions on Image Processing 20 (2011), 257-267: Gaussian noise with the
        spectrum of an image.

    Example:
        >>> from sounddrop_jax import make_matched_bank
        >>> from sounddrop_jax.spectra import power_law
        >>> keys = jax.random.split(jax.random.key(0), 10)
        >>> batches = (power_law(key, (32, 16, 16, 8), axes=(1, 2)) for key in keys)
        >>> make_matched_bank(batches)
        NoiseBank(float32[2048, 16, 16, 8])
    """
    _check_dtype(dtype)
    is_one = hasattr(activations, "shape")
    power, covariance = _measure([activations] if is_one else activations)
    field_shape = (*power.shape, len(covariance))
    num_entries = _count_entries(num_entries, field_shape)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_entries, *field_shape), np.float32)
    plane = range(1, power.ndim + 1)
    filtered = np.fft.fftn(noise, axes=plane) * np.sqrt(power)[..., None]
    # A root of the covariance, which may be singular.
    variances, directions = np.linalg.eigh(covariance)
    root = directions * np.sqrt(np.maximum(variances, 0))
    noise = np.fft.ifftn(filtered, axes=plane).real @ root.T
    with jax.ensure_compile_time_eval():
        return NoiseBank(jnp.asarray(noise, dtype))


def _measure(batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the power `[*plane]` and the covariance `[C, C]`, of mean variance 1."""
    first: tuple[int, ...] = ()
    num_examples = 0
    for batch in map(np.asarray, batches):
        first = first or batch.shape
        if batch.ndim < 2 or batch.size == 0 or batch.shape[1:] != first[1:]:
            raise ValueError(
                "Activations are batches [B, H, W, C], alike but for B, and none is "
                f"empty: this one has shape {batch.shape}, the first {first}."
            )
        if not num_examples:
            power, total = np.zeros(first[1:-1]), np.zeros(first[-1])
            products = np.zeros((first[-1], first[-1]))
        num_examples += len(batch)
        for part in np.array_split(batch, min(-(-batch.size // 2**20), len(batch))):
            part = part.astype(np.float64)
            if not np.isfinite(part).all():
                raise ValueError("The activations hold NaN or infinity; clean them.")
            waves = np.fft.fftn(part, axes=range(1, part.ndim - 1))
            power += (np.abs(waves) ** 2).sum((0, -1))
            rows = part.reshape(-1, first[-1])
            total += rows.sum(0)
            products += rows.T @ rows
    if not num_examples:
        raise ValueError("There are no activations to match: give at least one batch.")
    size = math.prod(first[1:-1])
    mean = total / (num_examples * size)
    covariance = products / (num_examples * size) - np.outer(mean, mean)
    variance = np.trace(covariance) / len(mean)
    if not variance > 1e-12 * np.square(mean).mean():
        raise ValueError("The activations are constant; give some that vary.")
    # The means of the channels are no noise, and all at the zero frequency.
    power[(0,) * power.ndim] -= num_examples * size**2 * np.square(mean).sum()
    power = np.maximum(power, 0)  # what is left there may be a rounding below
    return power / power.mean(), covariance / variance
