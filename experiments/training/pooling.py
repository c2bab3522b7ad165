"""ReLU, BatchNorm and 2x2 max pooling of a convolution's maps, bias included.

They go through every value of the maps, forward and back, and so are a matter of
memory. All but the maximum are monotone in each channel, so that they can be put after
it, on a quarter of the values. Which order is fast, and what is best computed by hand,
depends on the platform that a program is compiled for.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

EPSILON = 1e-5  # added to a variance


def relu_norm_and_pool(
    maps: jax.Array,
    bias: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    moments: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adds a bias, applies ReLU and BatchNorm, and takes the largest of 2x2 squares.

    Where the height or the width is odd, the last row or column is not pooled, as in
    PyTorch; it counts in the moments. Has a gradient in reverse mode, once.

    Args:
        maps: `[N, H, W, C]`.
        bias: `[C]`, added to the maps; float32, as all that follows.
        scale: `[C]`, of BatchNorm.
        shift: `[C]`, of BatchNorm.
        moments: mean and variance by which to normalise, each `[C]`; by default those
            of the values after ReLU.

    Returns:
        The outputs, `[N, H // 2, W // 2, C]`, of the maps' dtype; the mean and the
        variance of the values after ReLU, float32 `[C]`.
    """
    arguments = *_vary_alike(maps, bias, scale, shift), *(moments or ())
    on_a_cpu = functools.partial(_normalize_winners, _relu_then_pool)
    height, width = maps.shape[1:3]
    if height % 2 or width % 2:  # which no data set here comes to
        return on_a_cpu(*arguments)
    return lax.platform_dependent(
        *arguments,
        cpu=on_a_cpu,
        tpu=functools.partial(_normalize_winners, _pool_then_relu),
        # Without moments to compute a GPU has nothing to gain.
        default=on_a_cpu if moments else _in_merged_seeds,
    )


def _vary_alike(*arrays):
    """Makes arrays vary over the same axes of a mesh, within `jax.shard_map`.

    A gradient by a rule of one's own has to vary as what it is the gradient of.
    """
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    axes = frozenset().union(*varying)
    return [
        lax.pcast(array, tuple(sorted(axes - own)), to="varying")
        for array, own in zip(arrays, varying, strict=True)
    ]


def _normalize_winners(relu_and_pool, maps, bias, scale, shift, *moments):
    winners, mean, square = relu_and_pool(maps, bias, _sign(scale))
    own = mean, jnp.maximum(square - mean**2, 0)
    mean, variance = moments or own
    outputs = _normalize(winners, mean, variance, scale, shift)
    return outputs.astype(maps.dtype), *own


def _sign(scale):
    """Returns 1 where the largest value wins, -1 where the smallest does."""
    return jnp.where(scale < 0, -1.0, 1.0)


def _normalize(values, mean, variance, scale, shift):
    return (values - mean) * (scale * lax.rsqrt(variance + EPSILON)) + shift


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
    return winners, *_moments(squares, bias)


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
    winners, places, _ = _pick_of_four(_join(squares), sign)
    return winners.astype(squares.dtype), (places, sign)


def _pick_of_four(maps, sign):
    """Returns the winners of squares, their places, and the four values of each."""
    four = [
        maps[:, row::2, column::2].astype(jnp.float32)
        for row in range(2)
        for column in range(2)
    ]
    one, two, three, last = (sign * each for each in four)
    upper, lower = jnp.maximum(one, two), jnp.maximum(three, last)
    of_row = jnp.where(one >= two, 0, 1), jnp.where(three >= last, 2, 3)
    return (
        sign * jnp.maximum(upper, lower),
        jnp.where(upper >= lower, *of_row),
        four,
    )


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


def _merge_seeds(function: Callable) -> Callable:
    """Makes `vmap` merge what it maps over into the channels, the last axis of all.

    The maps of a convolution whose seeds are channels then stay as they lie in memory.
    What is not mapped over is copied for each seed.

    Args:
        function: of arrays that end in channels, and computes each by itself.

    Returns:
        The function, which returns a tuple of arrays.
    """

    @jax.custom_batching.custom_vmap
    def run(*arrays):
        return function(*arrays)

    @run.def_vmap
    def run_many(size, is_mapped, *arrays):
        def merge(array, is_mapped):
            if not is_mapped:
                array = jnp.broadcast_to(array, (size, *array.shape))
            array = jnp.moveaxis(array, 0, -2)
            return array.reshape(*array.shape[:-2], -1)

        def split(array):
            return jnp.moveaxis(array.reshape(*array.shape[:-1], size, -1), -2, 0)

        results = run(*map(merge, arrays, is_mapped))
        return tuple(map(split, results)), (True,) * len(results)

    return run


@_merge_seeds
def _run_forward(maps, bias, scale, shift):
    values = nnx.relu(maps.astype(jnp.float32) + bias)
    num_values = values.size // values.shape[-1]
    mean, square = (_sum(each) / num_values for each in (values, values**2))
    variance = jnp.maximum(square - mean**2, 0)
    # Of the maps as they are, which lose nothing where they are kept in bfloat16.
    winners, places, four = _pick_of_four(maps, _sign(scale))
    # In one byte: the place, and how many of the four are above 0.
    counts = sum(jnp.where(each + bias > 0, 4, 0) for each in four)
    kept = winners.astype(maps.dtype), (places + counts).astype(jnp.uint8)
    # Without the barrier XLA makes them again from the maps wherever they are used.
    winners, codes = lax.optimization_barrier(kept)
    outputs = _normalize(
        nnx.relu(winners.astype(jnp.float32) + bias), mean, variance, scale, shift
    )
    return outputs.astype(maps.dtype), mean, variance, winners, codes


@_merge_seeds
def _run_backward(
    maps, bias, scale, mean, variance, winners, codes, gradient, of_mean, of_variance
):
    gradient = gradient.astype(jnp.float32)
    winners = nnx.relu(winners.astype(jnp.float32) + bias)
    num_values = maps.size // maps.shape[-1]
    root = lax.rsqrt(variance + EPSILON)
    slope = scale * root
    of_shift, inner = _sum(gradient), _sum(gradient * (winners - mean))
    of_scale = root * inner
    of_mean = of_mean - slope * of_shift
    of_variance = of_variance - slope * inner * root**2 / 2
    values = maps.astype(jnp.float32) + bias
    of_maps = _join(_put_back(codes & 3, slope * gradient))
    of_maps += (of_mean + 2 * of_variance * (values - mean)) / num_values
    of_maps = jnp.where(values > 0, of_maps, 0).astype(maps.dtype)
    # The gradient of the bias is the sum of that of the maps: of what comes by winners
    # above 0, and of what comes by the moments, where the sum of (v - mean) over all
    # v > 0 is num_values * mean * (1 - share).
    by_winners = _sum(jnp.where(winners > 0, gradient, 0))
    share = _sum((codes >> 2).astype(jnp.float32)) / num_values
    by_moments = of_mean * share + 2 * of_variance * mean * (1 - share)
    return of_maps, slope * by_winners + by_moments, of_scale, of_shift


def _sum(values):
    """Sums over places, then over images.

    In one step XLA would write some of what it sums to memory before.
    """
    return lax.optimization_barrier(values.sum((1, 2))).sum(0)


@jax.custom_vjp
def _in_merged_seeds(maps, bias, scale, shift):
    """A GPU's program: few passes through the maps, each as they lie in memory."""
    return _in_merged_seeds_forward(maps, bias, scale, shift)[0]


def _in_merged_seeds_forward(maps, bias, scale, shift):
    *results, winners, codes = _run_forward(maps, bias, scale, shift)
    _, mean, variance = results
    return tuple(results), (maps, bias, scale, mean, variance, winners, codes)


def _in_merged_seeds_backward(residuals, gradients):
    return _run_backward(*residuals, *gradients)


_in_merged_seeds.defvjp(_in_merged_seeds_forward, _in_merged_seeds_backward)
