"""A convolution that is fast under `vmap` over kernels and in loops.

XLA turns a convolution that is vmapped over its kernels into a grouped one. On a CPU
that costs one to two orders of magnitude, and so do kernel gradients inside `lax.scan`
and `lax.fori_loop`. So a CPU convolves by matrix products, which do not have these
cliffs: `vmap` makes them batched, a loop leaves them as they are. Only the input
gradient of one network is left to XLA, which has no cliff there and is faster.

An accelerator is fast at grouped convolutions, but JAX makes the kernel gradient of a
vmapped one a convolution with a window as large as the maps. So there the seeds are
merged into the channels by hand, and the gradients are those of what this gives.
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
    """Convolves as `jax.lax.conv_general_dilated` does, fast for many networks.

    Takes over plain 2-D convolutions: NHWC inputs and HWIO kernels, strides and
    dilations of 1, one group. Everything else goes to JAX's own function, so
    it can stand wherever that stands: `nnx.Conv(conv_general_dilated=...)`, or the
    attribute of the same name of a `flax.linen.Conv`.

    How it is computed depends on the platform that a program is compiled for: as
    matrix products on a CPU, as a grouped convolution under `vmap` elsewhere. Two
    things that it takes over are not as in JAX: they can be differentiated in reverse
    mode alone (no `jax.jvp`, `jacfwd` or `hessian`), and a CPU keeps the patches of
    their inputs for the backward pass, up to kH * kW times the inputs.

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
                lhs,
                rhs,
                cpu=functools.partial(_convolve, **settings),
                default=functools.partial(_convolve_merged, **settings),
            )
    return jax_convolution(lhs, rhs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(inputs, kernel, padding: Padding, precision):
    return _forward(inputs, kernel, padding, precision)[0]


def _forward(inputs, kernel, padding: Padding, precision):
    patches, block = _patches(inputs, kernel, padding)
    products = lax.dot_general(
        patches, _spread(kernel, block), (((3,), (0,)), ((), ())), precision=precision
    )
    return _split_blocks(products, block), (patches, kernel)


def _backward(padding: Padding, precision, residuals, gradient):
    patches, kernel = residuals
    block = gradient.shape[1] // patches.shape[1]
    spread_gradient = _contract_rows(patches, _join_blocks(gradient, block), precision)
    spread = functools.partial(_spread, block=block)
    (kernel_gradient,) = jax.linear_transpose(spread, kernel)(spread_gradient)

    turned, outside = _turn(kernel, padding)
    input_gradient = _convolve_without_patches(gradient, turned, outside, precision)
    return input_gradient, kernel_gradient


_convolve.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_without_patches(inputs, kernel, padding: Padding, precision):
    """Convolves where no kernel gradient will share the cost of patches.

    One network's input gradients are faster by XLA's convolution, many networks' by
    matrix products.
    """

    @jax.custom_batching.custom_vmap
    def convolve(inputs, kernel):
        return _convolve_by_xla(inputs, kernel, 1, padding, precision)

    @convolve.def_vmap
    def convolve_many(axis_size, is_mapped, inputs, kernel):
        del axis_size
        by_rows = functools.partial(
            _convolve_by_rows, padding=padding, precision=precision
        )
        in_axes = tuple(0 if mapped else None for mapped in is_mapped)
        return jax.vmap(by_rows, in_axes)(inputs, kernel), True

    return convolve(inputs, kernel)


def _forward_without_patches(inputs, kernel, padding: Padding, precision):
    outputs = _convolve_without_patches(inputs, kernel, padding, precision)
    return outputs, (inputs, kernel)


def _backward_without_patches(padding: Padding, precision, residuals, gradient):
    inputs, kernel = residuals
    patches, _ = _patches(inputs, kernel, padding)
    return _backward(padding, precision, (patches, kernel), gradient)


_convolve_without_patches.defvjp(_forward_without_patches, _backward_without_patches)


def _convolve_by_xla(inputs, kernel, groups: int, padding: Padding, precision):
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


def _turn(kernel, padding: Padding):
    """Returns what convolves the output's gradient to that of the input.

    It is the kernel turned round, padded to what the forward pass left out.
    """
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    (top, bottom), (left, right) = padding
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    outside = ((rows - top, rows - bottom), (columns - left, columns - right))
    return turned, outside


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


def _pad(inputs, padding: Padding):
    """Zero-pads height and width; negative amounts crop."""
    return lax.pad(
        inputs,
        jnp.zeros((), inputs.dtype),
        ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)),
    )


def _side_by_side(inputs, size: int, axis: int, stride: int = 1):
    """Lays `size` neighbours along an axis side by side in the features."""
    length = inputs.shape[axis] - size + 1
    shifted = [
        lax.slice_in_dim(inputs, start, start + length, stride, axis)
        for start in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


def _patches(inputs, kernel, padding: Padding):
    """Lays side by side what a block of outputs sees; a block is 1x1 or 2x2 outputs.

    A block of 2x2 sees 4x4 inputs through a kernel of 3x3. That takes 4/9 of the memory
    of four patches and 16/9 of the arithmetic. It pays for the colours of an image,
    because products as narrow as theirs are far from their best.

    Returns:
        patches: `[N, H' / block, W' / block, rows * columns * C]`.
        block: 1 or 2.
    """
    inputs = _pad(inputs, padding)
    rows, columns, channels, _ = kernel.shape
    height, width = inputs.shape[1] - rows + 1, inputs.shape[2] - columns + 1
    is_narrow = channels <= 3 <= min(rows, columns)
    block = 2 if is_narrow and height % 2 == width % 2 == 0 else 1
    # Width and then height, because the second then copies long runs.
    strips = _side_by_side(inputs, columns + block - 1, axis=2, stride=block)
    return _side_by_side(strips, rows + block - 1, axis=1, stride=block), block


def _spread(kernel, block: int):
    """Returns `[rows * columns * C, block * block * O]`: the kernel at each output."""
    moved = [
        jnp.pad(
            kernel,
            ((row, block - 1 - row), (column, block - 1 - column), *2 * [(0, 0)]),
        )
        for row in range(block)
        for column in range(block)
    ]
    return jnp.stack(moved, axis=3).reshape(-1, block**2 * kernel.shape[-1])


def _split_blocks(maps, block: int):
    """From `[N, H, W, block * block * C]` to `[N, block * H, block * W, C]`."""
    num, height, width, features = maps.shape
    maps = maps.reshape(num, height, width, block, block, features // block**2)
    return maps.swapaxes(2, 3).reshape(num, block * height, block * width, -1)


def _join_blocks(maps, block: int):
    """Undoes `_split_blocks`."""
    num, height, width, channels = maps.shape
    maps = maps.reshape(num, height // block, block, width // block, block, channels)
    return maps.swapaxes(2, 3).reshape(num, height // block, width // block, -1)


def _contract_rows(left, right, precision):
    """Returns `left.T @ right`, contracting all axes but the last."""
    left, right = (side.reshape(-1, side.shape[-1]) for side in (left, right))
    # The narrower side first is the faster product, but XLA would swap the sides to
    # save the transposition. It does not swap those of a sum of products. Sides
    # of about one width are left whole, for then neither has to be first.
    widths = sorted((left.shape[-1], right.shape[-1]))
    halves = 2 if 2 * widths[0] <= widths[1] and len(left) % 2 == 0 else 1
    left, right = (side.reshape(halves, -1, side.shape[-1]) for side in (left, right))

    def product(first, second):
        numbers = (((1,), (1,)), ((0,), (0,)))
        return lax.dot_general(first, second, numbers, precision=precision).sum(0)

    if left.shape[-1] <= right.shape[-1]:
        return product(left, right)
    return product(right, left).T


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_merged(inputs, kernel, padding: Padding, precision):
    """Convolves as one grouped convolution under `vmap`."""
    convolve = functools.partial(_convolve_by_xla, padding=padding, precision=precision)
    return _map_merged(convolve)(inputs, kernel)


def _forward_merged(inputs, kernel, padding: Padding, precision):
    return _convolve_merged(inputs, kernel, padding, precision), (inputs, kernel)


def _backward_merged(padding: Padding, precision, residuals, gradient):
    inputs, kernel = residuals
    input_gradient = _input_gradient_merged(kernel, gradient, padding, precision)
    kernel_gradient = _kernel_gradient_merged(inputs, gradient, padding, precision)
    return input_gradient, kernel_gradient


_convolve_merged.defvjp(_forward_merged, _backward_merged)


def _input_gradient_merged(kernel, gradient, padding: Padding, precision):
    turned, outside = _turn(kernel, padding)
    return _convolve_merged(gradient, turned, outside, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient_merged(inputs, gradient, padding: Padding, precision):
    """Sums over images and places what each weight meets of inputs and gradient."""
    (top, bottom), (left, right) = padding
    rows = inputs.shape[1] + top + bottom - gradient.shape[1] + 1
    columns = inputs.shape[2] + left + right - gradient.shape[2] + 1

    def transposed(inputs, gradient, groups):
        def convolve(kernel):
            return _convolve_by_xla(inputs, kernel, groups, padding, precision)

        shape = rows, columns, inputs.shape[-1] // groups, gradient.shape[-1]
        kernel = jax.ShapeDtypeStruct(shape, inputs.dtype)
        return jax.linear_transpose(convolve, kernel)(gradient)[0]

    return _map_merged(transposed)(inputs, gradient)


def _forward_kernel_gradient(inputs, gradient, padding: Padding, precision):
    outputs = _kernel_gradient_merged(inputs, gradient, padding, precision)
    return outputs, (inputs, gradient)


def _backward_kernel_gradient(padding: Padding, precision, residuals, kernel):
    inputs, gradient = residuals
    return (
        _input_gradient_merged(kernel, gradient, padding, precision),
        _convolve_merged(inputs, kernel, padding, precision),
    )


_kernel_gradient_merged.defvjp(_forward_kernel_gradient, _backward_kernel_gradient)


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
            left = _merge(left if is_mapped[0] else jnp.stack([left] * size))
        merged = _map_merged(convolve, groups if is_shared else groups * size)
        outputs = merged(left, _merge(right))
        split = outputs.reshape(*outputs.shape[:-1], size, -1)
        return jnp.moveaxis(split, -2, 0), True

    return run


def _merge(arrays):
    """From `[S, A, B, C, D]` to `[A, B, C, S * D]`."""
    moved = jnp.moveaxis(arrays, 0, -2)
    return moved.reshape(*moved.shape[:-2], -1)
