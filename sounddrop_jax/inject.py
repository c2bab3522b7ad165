"""The injection of noise: pure functions from key, inputs and noise to outputs.

The noise is a constant to the gradient: d(outputs)/d(inputs) is 1, and neither the
noise nor its bank receives a gradient. Outputs keep the shape and dtype of the inputs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from sounddrop_jax import spectra
from sounddrop_jax.banks import NoiseBank, sample_window


def add_noise(
    inputs: jax.Array, noise: jax.Array, *, intensity: ArrayLike
) -> jax.Array:
    """Returns `inputs + intensity * noise`.

    Args:
        inputs: `[...]`, floating point.
        noise: of a shape that broadcasts to that of the inputs.
        intensity: the standard deviation of what is added, if that of the noise is 1;
            a number or an array, which may be traced and broadcasts like the noise.

    Returns:
        `[...]`, of the inputs' dtype.

    Raises:
        TypeError: if the inputs are not floating point.
        ValueError: if noise or intensity do not broadcast to the inputs' shape.

    Example:
        >>> import jax.numpy as jnp
        >>> add_noise(jnp.ones(3), jnp.array([-1.0, 0.0, 1.0]), intensity=0.5)
        Array([0.5, 1. , 1.5], dtype=float32)
    """
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"Noise is added to floating point features, but these are {inputs.dtype}: "
            "convert them first."
        )
    scale = jnp.asarray(intensity, inputs.dtype)
    shapes = inputs.shape, noise.shape, scale.shape
    if jnp.broadcast_shapes(*shapes) != inputs.shape:
        raise ValueError(
            f"Noise of shape {noise.shape} at an intensity of shape {scale.shape} "
            f"would change the shape of the inputs, {inputs.shape}."
        )
    return inputs + scale * lax.stop_gradient(noise).astype(inputs.dtype)


def random_window(
    key: jax.Array,
    inputs: jax.Array,
    bank: NoiseBank,
    *,
    intensity: ArrayLike,
    broadcast_dims: Sequence[int] = (),
) -> jax.Array:
    """Adds a random window of a noise bank.

    Args:
        key: a PRNG key.
        inputs: `[...]`, floating point, ending with the bank's field.
        bank: the noise, see `banks.sample_window`.
        intensity: see `add_noise`.
        broadcast_dims: dimensions of the inputs that share the same noise.

    Returns:
        `[...]`, of the inputs' dtype.

    Raises:
        ValueError: if the inputs do not end with the bank's field.
        TypeError: if the inputs are not floating point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sounddrop_jax import make_power_law_bank
        >>> bank = make_power_law_bank(jax.random.key(0), (16, 8), num_entries=256)
        >>> maps = jnp.zeros((2, 16, 16, 8))
        >>> random_window(jax.random.key(1), maps, bank, intensity=0.05).shape
        (2, 16, 16, 8)
    """
    shape = _noise_shape(inputs, broadcast_dims)
    return add_noise(inputs, sample_window(key, bank, shape), intensity=intensity)


def random_power_law(
    key: jax.Array,
    inputs: jax.Array,
    *,
    intensity: ArrayLike,
    exponent: float = 1.0,
    axes: int | Sequence[int] = (-2,),
    broadcast_dims: Sequence[int] = (),
) -> jax.Array:
    """Adds power-law noise drawn afresh, of whatever shape the inputs have.

    Args:
        key: a PRNG key.
        inputs: `[...]`, floating point.
        intensity: see `add_noise`.
        exponent: of the spectrum, see `spectra.power_law`; 0 is white Gaussian noise.
        axes: of the inputs along which the spectrum is shaped; not used by white
            noise, which looks the same along any.
        broadcast_dims: dimensions of the inputs that share the same noise.

    Returns:
        `[...]`, of the inputs' dtype.

    Raises:
        ValueError: if the law or its axes are out of range.
        TypeError: if the inputs are not floating point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> maps = jnp.zeros((2, 16, 16, 8), jnp.bfloat16)
        >>> random_power_law(jax.random.key(0), maps, intensity=0.05).dtype
        dtype(bfloat16)
    """
    shape = _noise_shape(inputs, broadcast_dims)
    # White noise has no axes; features of rank 1 may lack the one named by default.
    noise = spectra.power_law(
        key,
        shape,
        exponent=exponent,
        axes=-1 if exponent == 0 else axes,
    )
    return add_noise(inputs, noise, intensity=intensity)


def _noise_shape(inputs: jax.Array, broadcast_dims: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of the inputs with 1 where the noise is shared."""
    shape = list(inputs.shape)
    for dim in broadcast_dims:
        shape[dim] = 1
    return tuple(shape)
