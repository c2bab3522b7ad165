"""The window of a bank as a TPU cuts it best: the same numbers, by another program.

A TPU computes on tiles of 8 x 128 numbers, taken from two axes of an array. In a
network of convolutions these are channels and images; in a window, as it lies in a
bank, images are the axis that changes last. So a window has to be turned. XLA by itself
cuts the windows of many seeds in a loop, turns them in a second pass and adds them in a
third.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap, sequential_vmap
from jax.experimental.layout import Layout, with_layout_constraint

LANES = 128
# By the compiler's cost, a product with a larger identity matrix takes longer than what
# it saves.
LONGEST_ROW = 512
# A program of more slices would take long to compile.
MOST_SLICES = 256


def cut(
    values: jax.Array,
    start: jax.Array,
    size: int,
    arrange: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
) -> jax.Array:
    """Cuts entries from a start, and arranges them to a shape.

    Args:
        values: `[num_entries, *field]`.
        start: int32 `[]`.
        size: how many entries.
        arrange: from `[size, *field]` to the shape.
        shape: of the window, the batch first.

    Returns:
        `[*shape]`, bit by bit what `arrange` makes of `values[start : start + size]`.

    Example:
        >>> cut(jnp.arange(9.0), jnp.int32(3), 4, lambda entries: entries, (4,))
        Array([3., 4., 5., 6.], dtype=float32)
    """

    def cut_plainly(values, start):
        return arrange(lax.dynamic_slice_in_dim(values, start, size))

    row_length = math.prod(shape[-2:])
    if len(shape) > 2 and row_length <= LONGEST_ROW and values.dtype.itemsize <= 4:
        cut_here = _cut_and_turn(size, arrange, shape)
    elif values.ndim <= 3:
        cut_here = _cut_in_turn(size, arrange)
    else:  # entries as large as a map need no arranging
        return cut_plainly(values, start)
    cut_here = jax.custom_vjp(cut_here)
    bank = jax.ShapeDtypeStruct(values.shape, values.dtype)

    def backward(start, gradient):
        pull_back = jax.linear_transpose(lambda bank: cut_plainly(bank, start), bank)
        return *pull_back(gradient), None

    cut_here.defvjp(lambda values, start: (cut_here(values, start), start), backward)
    return cut_here(values, start)


def _cut_and_turn(size, arrange, shape):
    """Returns (values, start) -> window, which is turned by a product.

    The product of each row of a map with an identity matrix leaves the numbers as they
    are, each sum having one term that is not zero, and the result where the TPU wants
    it. What is done with it, such as to add the inputs, happens in the same kernel.
    """
    *outer, width, channels = shape
    row_length = width * channels

    def cut_rows(values, start):
        # Long rows are cut faster, however narrow the field.
        rows = values
        if values.ndim > 2:
            rows = values.reshape(*values.shape[:-2], -1)
        entries = lax.dynamic_slice_in_dim(rows, start, size)
        window = arrange(entries.reshape(size, *values.shape[1:]))
        return window.reshape(*outer, row_length)

    def turn(windows):  # [num_windows, *outer, row_length]
        identity = jnp.eye(row_length, dtype=windows.dtype)
        windows = jnp.einsum(
            "...k,kwc->...wc",
            windows,
            identity.reshape(row_length, width, channels),
            precision=lax.Precision.HIGHEST,  # or some digits of float32 are lost
            preferred_element_type=windows.dtype,
        )
        # Seeds lie next to channels, as they do where convolutions merge the two.
        seed, image, *middle, channel = range(windows.ndim)
        tile = (image, channel)
        if min(shape[0], LANES) > channels:  # which would leave more lanes empty
            tile = (channel, image)
        return with_layout_constraint(windows, Layout((*middle, seed, *tile)))

    @custom_vmap
    def cut_one(values, start):
        return turn(cut_rows(values, start)[None])[0]

    @cut_one.def_vmap
    def _cut_all(num_windows, is_mapped, values, start):
        if num_windows > MOST_SLICES:
            axes = [0 if mapped else None for mapped in is_mapped]
            return turn(jax.vmap(sequential_vmap(cut_rows), axes)(values, start)), True
        windows = [
            cut_rows(
                values[index] if is_mapped[0] else values,
                start[index] if is_mapped[1] else start,
            )
            for index in range(num_windows)
        ]
        return turn(jnp.stack(windows)), True

    return cut_one


def _cut_in_turn(size, arrange):
    """Returns (values, start) -> window; of many, each is arranged on the chip."""

    def cut_rows(values, start):
        rows = values.reshape(len(values), -1)
        entries = lax.dynamic_slice_in_dim(rows, start, size)
        return arrange(entries.reshape(size, *values.shape[1:]))

    return sequential_vmap(cut_rows)
