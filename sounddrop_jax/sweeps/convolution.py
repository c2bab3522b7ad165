"""A convolution that is fast under `vmap` over kernels and in loops.

XLA turns a convolution that is vmapped over its kernels into a grouped one. On a CPU
that costs one to two orders of magnitude, and so do kernel gradients inside `lax.scan`
and `lax.fori_loop`. So a CPU convolves one network after the other, by XLA's
convolution, and its kernel gradients are matrix products, which do not have these
cliffs.

An accelerator is fast at grouped convolutions, but JAX makes the kernel gradient of a
vmapped one a convolution with a window as large as the maps. So there the seeds are
merged into the channels by hand, and the gradients are those of what this gives.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]

# Of the maps of a block of images, from which a CPU makes a kernel gradient: few enough
# to stay in a core's cache, and enough for several threads to share.
PLACES = 4096


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
    """Convolves as `jax.lax.conv_general_dilated` does, fast for many networks.

    Takes over plain 2-D convolutions: NHWC inputs and HWIO kernels, strides and
    dilations of 1, one group. Everything else goes to JAX's own function, so
    it can stand wherever that stands: `nnx.Conv(conv_general_dilated=...)`, or the
    attribute of the same name of a `flax.linen.Conv`.

    How it is computed depends on the platform that a program is compiled for: on a CPU
    one network after the other, elsewhere as a grouped convolution under `vmap`. Unlike
    in JAX, what it takes over can be differentiated in reverse mode alone (no
    `jax.jvp`, `jacfwd` or `hessian`).

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
        precision: of the products, as in JAX.
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
            settings = {"padding": exact, "precision": precision}
            return lax.platform_dependent(
                *_vary_alike(lhs, rhs),
                cpu=functools.partial(_convolve, is_merged=False, **settings),
                default=functools.partial(_convolve, is_merged=True, **settings),
            )
    return jax_convolution(lhs, rhs)


def _vary_alike(*arrays):
    """Makes arrays vary over the same axes of a mesh, as JAX's own functions do.

    Within `jax.shard_map` images differ from device to device and kernels do not; a
    gradient by a rule of one's own has to vary as what it is the gradient of.
    """
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    axes = frozenset().union(*varying)
    return [
        lax.pcast(array, tuple(sorted(axes - own)), to="varying")
        for array, own in zip(arrays, varying, strict=True)
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(inputs, kernel, is_merged: bool, padding: Padding, precision):
    convolve = functools.partial(_convolve_by_xla, padding=padding, precision=precision)
    if is_merged:
        return _map_merged(convolve)(inputs, kernel)
    if _is_narrow(inputs, kernel, padding):
        convolve = functools.partial(
            _convolve_narrow, padding=padding, precision=precision
        )
    return _map_in_turn(convolve)(inputs, kernel)


def _forward(inputs, kernel, *settings):
    return _convolve(inputs, kernel, *settings), (inputs, kernel)


def _backward(*settings_and_residuals_and_gradient):
    *settings, (inputs, kernel), gradient = settings_and_residuals_and_gradient
    return (
        _input_gradient(kernel, gradient, *settings),
        _kernel_gradient(inputs, gradient, *settings),
    )


_convolve.defvjp(_forward, _backward)


def _input_gradient(kernel, gradient, is_merged: bool, padding: Padding, precision):
    """Convolves with the kernel turned round, padded to what the forward pass left."""
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    (top, bottom), (left, right) = padding
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    outside = ((rows - top, rows - bottom), (columns - left, columns - right))
    return _convolve(gradient, turned, is_merged, outside, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _kernel_gradient(inputs, gradient, is_merged: bool, padding: Padding, precision):
    """Sums over images and places what each weight meets of inputs and gradient."""
    (top, bottom), (left, right) = padding
    rows = inputs.shape[1] + top + bottom - gradient.shape[1] + 1
    columns = inputs.shape[2] + left + right - gradient.shape[2] + 1

    def transposed(inputs, gradient, groups):
        def convolve(kernel):
            return _convolve_by_xla(
                inputs, kernel, groups, padding=padding, precision=precision
            )

        shape = rows, columns, inputs.shape[-1] // groups, gradient.shape[-1]
        # Not only its shape: of a kernel that is everywhere the same, JAX would sum
        # the gradients of all devices.
        kernel, _ = _vary_alike(jnp.zeros(shape, inputs.dtype), inputs)
        return jax.linear_transpose(convolve, kernel)(gradient)[0]

    def in_blocks(inputs, gradient):
        padded = _pad(inputs, padding)
        return _kernel_gradient_in_blocks(padded, gradient, rows, columns, precision)

    run = _map_merged(transposed) if is_merged else _map_in_turn(in_blocks)
    return run(inputs, gradient)


def _forward_kernel_gradient(inputs, gradient, *settings):
    return _kernel_gradient(inputs, gradient, *settings), (inputs, gradient)


def _backward_kernel_gradient(*settings_and_residuals_and_kernel):
    *settings, (inputs, gradient), kernel = settings_and_residuals_and_kernel
    return (
        _input_gradient(kernel, gradient, *settings),
        _convolve(inputs, kernel, *settings),
    )


_kernel_gradient.defvjp(_forward_kernel_gradient, _backward_kernel_gradient)


def _convolve_by_xla(inputs, kernel, groups: int = 1, *, padding: Padding, precision):
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


def _is_narrow(inputs, kernel, padding: Padding) -> bool:
    """Returns whether outputs come two by two, of the colours of an image."""
    rows, columns, channels, _ = kernel.shape
    height, width = (
        inputs.shape[1 + axis] + sum(padding[axis]) - kernel.shape[axis] + 1
        for axis in range(2)
    )
    return channels <= 3 <= min(rows, columns) and height % 2 == width % 2 == 0


def _convolve_narrow(inputs, kernel, padding: Padding, precision):
    """Convolves in strides of two, for 2x2 outputs at once.

    For a kernel of 3x3 that is 16/9 of the arithmetic, in products four times as wide:
    with only three channels, narrow products are so slow that this wins.
    """
    # The kernel where each of the four outputs sees its inputs.
    moved = [
        jnp.pad(kernel, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0)))
        for row in range(2)
        for column in range(2)
    ]
    outputs = lax.conv_general_dilated(
        inputs,
        jnp.concatenate(moved, axis=-1),
        (2, 2),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
    num, height, width, features = outputs.shape
    squares = outputs.reshape(num, height, width, 2, 2, features // 4)
    return squares.swapaxes(2, 3).reshape(num, 2 * height, 2 * width, -1)


def _kernel_gradient_in_blocks(inputs, gradient, rows: int, columns: int, precision):
    """Multiplies strips of inputs and of gradient, a few images at a time.

    As many as have `PLACES` places in their maps. What a strip of inputs lays side by
    side are the columns that the kernel sees; of the gradient, the rows. All pairs are
    the kernel: one product, three times as wide as the maps for a kernel of 3x3 on
    either side.

    Args:
        inputs: `[N, H, W, C]`, padded.
        gradient: `[N, H - rows + 1, W - columns + 1, O]`.
        rows: of the kernel.
        columns: of the kernel.
        precision: as in JAX.

    Returns:
        `[rows, columns, C, O]`.
    """
    num, height, width, features = gradient.shape
    size = math.gcd(num, 2 ** max(0, (PLACES // (height * width)).bit_length() - 1))
    beyond = ((rows - 1, rows - 1), (0, 0))
    dtype = np.promote_types(inputs.dtype, np.float32)

    def add_block(total, block):
        inputs, gradient = block
        strips = _side_by_side(inputs, columns, axis=2)
        rest = _side_by_side(_pad(gradient, beyond), rows, axis=1)
        product = lax.dot_general(
            strips.reshape(-1, strips.shape[-1]),
            rest.reshape(-1, rest.shape[-1]),
            (((0,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=dtype,
        )
        return total + product, None

    blocks = [
        maps.reshape(num // size, size, *maps.shape[1:]) for maps in (inputs, gradient)
    ]
    channels = inputs.shape[-1]
    zeros, _ = _vary_alike(
        jnp.zeros((columns * channels, rows * features), dtype), inputs
    )
    total, _ = lax.scan(add_block, zeros, blocks)
    kernel = total.reshape(columns, channels, rows, features).transpose(2, 0, 1, 3)
    # The last rows of the gradient are the first that lie side by side.
    return jnp.flip(kernel, 0).astype(inputs.dtype)


def _pad(maps, padding: Padding):
    """Zero-pads height and width; negative amounts crop."""
    return lax.pad(
        maps,
        jnp.zeros((), maps.dtype),
        ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)),
    )


def _side_by_side(maps, size: int, axis: int):
    """Lays `size` neighbours along an axis side by side in the features."""
    length = maps.shape[axis] - size + 1
    shifted = [
        lax.slice_in_dim(maps, start, start + length, axis=axis)
        for start in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


def _map_in_turn(convolve):
    """Makes `vmap` compute one network after the other.

    Args:
        convolve: (left, right) -> outputs, all of rank 4.

    Returns:
        (left, right) -> outputs.
    """

    @jax.custom_batching.custom_vmap
    def run(left, right):
        return convolve(left, right)

    @run.def_vmap
    def run_many(size, is_mapped, left, right):
        del size
        if not is_mapped[1]:  # one network, of which JAX makes a larger batch
            return jax.vmap(lambda left: convolve(left, right))(left), True
        if not is_mapped[0]:
            return lax.map(lambda right: run(left, right), right), True
        return lax.map(lambda both: run(*both), (left, right)), True

    return run


def _map_merged(convolve, groups: int = 1):
    """Makes `vmap` merge what it maps over into the last axis of all arrays.

    Args:
        convolve: (left, right, groups) -> outputs, all of rank 4, whose last axes are
            made of as many groups, except that those of the left are shared by all
            of the right where there is but one.
        groups: how many there are already.

    Returns:
        (left, right) -> outputs.
    """

    @jax.custom_batching.custom_vmap
    def run(left, right):
        return convolve(left, right, groups)

    @run.def_vmap
    def run_many(size, is_mapped, left, right):
        if not is_mapped[1]:  # one network, of which JAX makes a larger batch
            return jax.vmap(lambda left: convolve(left, right, groups))(left), True
        # Of images that all networks share, as in evaluation, one convolution with
        # the kernels of all.
        is_shared = groups == 1 and not is_mapped[0]
        if not is_shared:
            left = _merge(
                left if is_mapped[0] else jnp.broadcast_to(left, (size, *left.shape))
            )
        merged = _map_merged(convolve, groups if is_shared else groups * size)
        outputs = merged(left, _merge(right))
        split = outputs.reshape(*outputs.shape[:-1], size, -1)
        return jnp.moveaxis(split, -2, 0), True

    return run


def _merge(arrays):
    """From `[S, A, B, C, D]` to `[A, B, C, S * D]`."""
    moved = jnp.moveaxis(arrays, 0, -2)
    return moved.reshape(*moved.shape[:-2], -1)
