"""Bias, ReLU and 2x2 max pooling, with the moments of the values after ReLU.

Adding a bias, ReLU, BatchNorm and the maximum go through every value of a convolution's
maps, forward and back, and so are a matter of memory. All but the maximum are monotone
in each channel, so that they can be put after it, on a quarter of the values. Which
order is fast depends on the platform that a program is compiled for.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


def relu_and_pool(
    maps: jax.Array, bias: jax.Array, sign: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adds a bias, applies ReLU, and takes the winner of every 2x2 square.

    Where the height or the width is odd, the last row or column is not pooled, as in
    PyTorch; it counts in the moments.

    Args:
        maps: `[N, H, W, C]`.
        bias: `[C]`.
        sign: `[C]`, 1 where the largest value wins, -1 where the smallest does.

    Returns:
        The winners, `[N, H // 2, W // 2, C]`; the mean of the values after ReLU, and
        of their squares, float32 `[C]`.
    """
    # As the maps vary over the devices of a mesh, within `jax.shard_map`: a gradient by
    # a rule of one's own has to vary as what it is the gradient of.
    axes = jax.typeof(maps).manual_axis_type.varying
    bias, sign = (
        lax.pcast(
            each, tuple(axes - jax.typeof(each).manual_axis_type.varying), to="varying"
        )
        for each in (bias, sign)
    )
    height, width = maps.shape[1:3]
    if height % 2 or width % 2:  # which no data set here comes to
        return _relu_then_pool(maps, bias, sign)
    return lax.platform_dependent(
        maps, bias, sign, tpu=_pool_then_relu, default=_relu_then_pool
    )


def _relu_then_pool(maps, bias, sign):
    maps = nnx.relu(maps + bias.astype(maps.dtype))
    values = maps.astype(jnp.float32)
    sign = sign.astype(maps.dtype)
    winners = sign * max_pool(sign * maps)
    return winners, values.mean((0, 1, 2)), (values**2).mean((0, 1, 2))


def max_pool(maps: jax.Array) -> jax.Array:
    """Takes the largest of every 2x2 square of maps `[N, H, W, C]`.

    The last row and the last column of an odd number are left out, as PyTorch does.
    The gradient goes to the largest value, to the first of equals. `nnx.max_pool` gives
    the same, but its gradient, a select-and-scatter, takes longer on a CPU than the
    rest of the network.
    """
    _, height, width, _ = maps.shape
    if height % 2 or width % 2:
        maps = maps[:, : height // 2 * 2, : width // 2 * 2]
    return _max_pool(maps)


@jax.custom_vjp
def _max_pool(maps):
    return _max_pool_forward(maps)[0]


def _max_pool_forward(maps):
    num, height, width, channels = maps.shape
    squares = maps.reshape(num, height // 2, 2, width // 2, 2, channels)
    squares = squares.swapaxes(2, 3).reshape(num, height // 2, width // 2, 4, channels)
    places = lax.broadcasted_iota(jnp.int8, squares.shape, 3)

    def larger(one, other):
        (value, place), (other_value, other_place) = one, other
        is_first = (value == other_value) & (place < other_place)
        is_one = (value > other_value) | is_first | jnp.isnan(value)
        return (
            jnp.where(is_one, value, other_value),
            jnp.where(is_one, place, other_place),
        )

    # One reduction to the maximum and its place, because XLA keeps its results in
    # memory. What it computes value by value, it would compute again where it is used.
    lowest = jnp.asarray(-jnp.inf, maps.dtype), jnp.int8(0)
    return lax.reduce((squares, places), lowest, larger, (3,))


def _max_pool_backward(places, gradient):
    return (_join(_put_back(places, gradient)),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _put_back(places, gradient):
    """Puts gradients `[N, H, W, C]` at their places in squares `[N, H, 2, W, 2, C]`."""
    corners = jnp.arange(4, dtype=places.dtype).reshape(2, 1, 2, 1)
    wins = places[:, :, None, :, None] == corners
    return jnp.where(wins, gradient[:, :, None, :, None], 0)


def _join(squares):
    """From `[N, H, 2, W, 2, C]` to maps `[N, 2 H, 2 W, C]`."""
    num, height, _, width, _, channels = squares.shape
    return squares.reshape(num, 2 * height, 2 * width, channels)


def _pool_then_relu(maps, bias, sign):
    """A TPU's order, in which nothing but the convolution writes maps going forward.

    Their moments are of what the convolution has at hand. Going back, one kernel makes
    their gradient.
    """
    squares = _split(maps)
    winners = nnx.relu(_pick(squares, sign).astype(jnp.float32) + bias)
    return winners.astype(maps.dtype), *_moments(squares, bias)


@jax.custom_vjp
def _split(maps):
    num, height, width, channels = maps.shape
    return maps.reshape(num, height // 2, 2, width // 2, 2, channels)


def _split_backward(_, gradient):
    # Without the barrier XLA takes the squares apart before it adds up their gradient,
    # and each part of it is in memory.
    return (_join(lax.optimization_barrier(gradient)),)


_split.defvjp(lambda maps: (_split(maps), None), _split_backward)


@jax.custom_vjp
def _pick(squares, sign):
    # Without a gradient the places are not needed, and one reduction does.
    sign = sign.astype(squares.dtype)
    return sign * nnx.max_pool(sign * _join(squares), (2, 2), (2, 2))


def _pick_forward(squares, sign):
    maps = _join(squares)
    one, two, three, four = (
        sign * maps[:, row::2, column::2].astype(jnp.float32)
        for row in range(2)
        for column in range(2)
    )
    upper, lower = jnp.maximum(one, two), jnp.maximum(three, four)
    of_row = jnp.where(one >= two, 0, 1), jnp.where(three >= four, 2, 3)
    places = jnp.where(upper >= lower, *of_row)
    winners = sign * jnp.maximum(upper, lower)
    return winners.astype(squares.dtype), (places, sign)


def _pick_backward(residuals, gradient):
    places, sign = residuals
    return _put_back(places, gradient), jnp.zeros_like(sign)


_pick.defvjp(_pick_forward, _pick_backward)


@jax.custom_vjp
def _moments(squares, bias):
    return _moments_forward(squares, bias)[0]


def _moments_forward(squares, bias):
    axes = tuple(range(squares.ndim - 1))
    values = nnx.relu(squares.astype(jnp.float32) + bias)
    mean = values.mean(axes)
    # The share that is above 0. As a comparison it would be kept for the backward pass,
    # a bit for each value.
    share = jnp.sign(values).mean(axes)
    return (mean, (values**2).mean(axes)), (squares, bias, mean, share)


def _moments_backward(residuals, gradients):
    squares, bias, mean, share = residuals
    of_mean, of_square = gradients
    num_values = squares.size // squares.shape[-1]
    values = squares.astype(jnp.float32) + bias
    gradient = (of_mean + 2 * of_square * values) / num_values
    gradient = jnp.where(values > 0, gradient, 0).astype(squares.dtype)
    # Its sum, by what the forward pass knows.
    return gradient, of_mean * share + 2 * of_square * mean


_moments.defvjp(_moments_forward, _moments_backward)
