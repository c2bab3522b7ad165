"""A convolution as matrix products: fast under `vmap` over kernels and in loops.

XLA turns a convolution that is vmapped over its kernels into a grouped one, and on
a CPU it runs kernel gradients inside `lax.scan` and `lax.fori_loop` without its fast
paths. Both cost one to two orders of magnitude. Matrix products do not have these
cliffs: `vmap` makes them batched, a loop leaves them as they are.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    **kwargs: Any,
) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated` does, with matrix products.

    Takes over plain 2-D convolutions: NHWC inputs and HWIO kernels, strides and
    dilations of 1, one group. Everything else goes to JAX's own function, so
    it can stand wherever that stands: `nnx.Conv(conv_general_dilated=...)`, or the
    attribute of the same name of a `flax.linen.Conv`.

    Args:
        lhs: inputs, `[N, H, W, C]`, floating point.
        rhs: kernel, `[kH, kW, C, O]`, of the same dtype.
        window_strides: stride of each spatial dimension.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension.
        lhs_dilation: as in JAX.
        rhs_dilation: as in JAX.
        dimension_numbers: as in JAX; Flax passes NHWC, HWIO, NHWC.
        feature_group_count: as in JAX.
        batch_group_count: as in JAX.
        precision: of the matrix products, as in JAX.
        **kwargs: as in JAX; any that is set makes JAX's own function do the work.

    Returns:
        `[N, H', W', O]`, equal to JAX's result up to the order of summation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import convolution
        >>> conv = nnx.Conv(3, 16, (3, 3), rngs=nnx.Rngs(0),
        ...                 conv_general_dilated=convolution.conv_general_dilated)
        >>> conv(jnp.ones((8, 32, 32, 3))).shape
        (8, 32, 32, 16)
    """

    def jax_convolution(lhs, rhs):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            **kwargs,
        )

    # Without computing anything, JAX refuses here what it refuses anywhere.
    outputs = jax.eval_shape(jax_convolution, lhs, rhs)

    ones = (1, 1)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    channels_last = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    if (
        numbers == channels_last
        and tuple(window_strides) == ones
        and tuple(lhs_dilation or ones) == ones
        and tuple(rhs_dilation or ones) == ones
        and feature_group_count == batch_group_count == 1
        and all(value is None for value in kwargs.values())
        and 0 not in (lhs.size, rhs.size, outputs.size)
    ):
        if isinstance(padding, str):
            pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], ones, padding)
        else:
            pads = list(padding)
        top_bottom, left_right = pads
        # A negative padding crops; JAX's own function knows how.
        if min(*top_bottom, *left_right) >= 0:
            exact = (tuple(top_bottom), tuple(left_right))
            return _convolve(lhs, rhs, exact, precision)
    return jax_convolution(lhs, rhs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(inputs, kernel, padding: Padding, precision):
    return _forward(inputs, kernel, padding, precision)[0]


def _forward(inputs, kernel, padding: Padding, precision):
    patches = _patches(inputs, kernel.shape[:2], padding)
    flat = kernel.reshape(-1, kernel.shape[-1])
    outputs = lax.dot_general(
        patches, flat, (((3,), (0,)), ((), ())), precision=precision
    )
    return outputs, (patches, kernel)


def _backward(padding: Padding, precision, residuals, gradient):
    patches, kernel = residuals
    # Flat, and the narrower one first: XLA then copies neither for its CPU products.
    kernel_gradient = lax.dot_general(
        gradient.reshape(-1, gradient.shape[-1]),
        patches.reshape(-1, patches.shape[-1]),
        (((0,), (0,)), ((), ())),
        precision=precision,
    ).T.reshape(kernel.shape)

    # The input's gradient is the convolution of the output's with the kernel
    # turned round, padded to what the forward pass left out.
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    (top, bottom), (left, right) = padding
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    outside = ((rows - top, rows - bottom), (columns - left, columns - right))
    return _convolve_by_rows(gradient, turned, outside, precision), kernel_gradient


_convolve.defvjp(_forward, _backward)


def _pad(inputs, padding: Padding):
    """Zero-pads height and width; negative amounts crop."""
    return lax.pad(
        inputs,
        jnp.zeros((), inputs.dtype),
        ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)),
    )


def _side_by_side(inputs, size: int, axis: int):
    """Lays `size` neighbours along an axis side by side in the features."""
    length = inputs.shape[axis] - size + 1
    shifted = [
        lax.slice_in_dim(inputs, start, start + length, axis=axis)
        for start in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


def _patches(inputs, window: tuple[int, int], padding: Padding):
    """Returns `[N, H', W', kH * kW * C]`: what the kernel sees at each position.

    In two steps, width and then height, because the second then copies long runs.
    """
    columns = _side_by_side(_pad(inputs, padding), window[1], axis=2)
    return _side_by_side(columns, window[0], axis=1)


def _convolve_by_rows(inputs, kernel, padding: Padding, precision):
    """Convolves with one product for all kernel rows, then adds the shifted rows.

    It moves less memory than patches where the outputs have fewer channels than the
    inputs, as they do in an input gradient.
    """
    rows, width, channels, features = kernel.shape
    columns = _side_by_side(_pad(inputs, padding), width, axis=2)
    flat = kernel.transpose(1, 2, 0, 3).reshape(width * channels, rows * features)
    products = lax.dot_general(
        columns, flat, (((3,), (0,)), ((), ())), precision=precision
    )
    height = products.shape[1] - rows + 1
    return sum(
        products[:, row : row + height, :, row * features : (row + 1) * features]
        for row in range(rows)
    )
