"""The network of the original: three convolution blocks and a linear layer, NHWC."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sounddrop_jax import convolution

Regularizer = Callable[..., jax.Array]
FEATURES = (16, 32, 64)


class Network(nnx.Module):
    """Convolution, ReLU, BatchNorm, 2x2 max pooling, regularizer; thrice; linear.

    34,058 parameters for 3 channels, 32x32 images and 10 classes. Initial weights and
    biases are PyTorch's defaults, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
        make_regularizer: from the shape `(H, W, C)` of the maps that it will see to a
            layer that is called as `layer(maps, rngs=rngs)`.
        image_shape: `(H, W, C)` of the inputs, H and W multiples of 8.
        num_classes: number of logits.
        dtype: of the computation; parameters and statistics are float32.
        rngs: its stream `params` initialises the network.
    """

    def __init__(
        self,
        make_regularizer: Callable[[tuple[int, int, int]], Regularizer],
        *,
        image_shape: tuple[int, int, int] = (32, 32, 3),
        num_classes: int = 10,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, channels = image_shape
        self.blocks: nnx.List[Block] = nnx.List()
        for features in FEATURES:
            height, width = height // 2, width // 2
            self.blocks.append(
                Block(
                    channels,
                    features,
                    make_regularizer((height, width, features)),
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            channels = features
        fan_in = height * width * channels
        self.linear = nnx.Linear(
            fan_in,
            num_classes,
            kernel_init=uniform_below(fan_in),
            bias_init=uniform_below(fan_in),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Classifies images.

        Args:
            images: `[N, H, W, C]`, normalised.
            rngs: randomness for the regularizers; evaluation needs none.

        Returns:
            float32 `[N, num_classes]`, the logits.
        """
        maps = images
        for block in self.blocks:
            maps = block(maps, rngs=rngs)
        return self.linear(maps.reshape(len(maps), -1)).astype(jnp.float32)


class Block(nnx.Module):
    """Convolution 3x3, ReLU, BatchNorm, 2x2 max pooling, regularizer."""

    def __init__(
        self,
        channels: int,
        features: int,
        regularizer: Regularizer,
        *,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        fan_in = 3 * 3 * channels
        self.conv = nnx.Conv(
            channels,
            features,
            (3, 3),
            conv_general_dilated=convolution.conv_general_dilated,
            kernel_init=uniform_below(fan_in),
            bias_init=uniform_below(fan_in),
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(
            features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs
        )
        self.regularizer = regularizer

    def __call__(self, maps: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Halves the height and the width of maps `[N, H, W, C]`."""
        maps = max_pool(self.norm(nnx.relu(self.conv(maps))))
        return self.regularizer(maps, rngs=rngs)


@jax.custom_vjp
def max_pool(maps: jax.Array) -> jax.Array:
    """Takes the largest of every 2x2 square of maps `[N, H, W, C]`.

    Not `nnx.max_pool`, whose gradient, a select-and-scatter, takes longer on a CPU
    than the rest of the network. The gradient goes to the largest value, to the first
    of equals.
    """
    return _max_pool_forward(maps)[0]


def _max_pool_forward(maps):
    num, height, width, channels = maps.shape
    squares = maps.reshape(num, height // 2, 2, width // 2, 2, channels)
    left, right = squares[:, :, :, :, 0], squares[:, :, :, :, 1]
    rows = jnp.maximum(left, right)
    # Who won, not who equals the maximum: a compiler may compute the maps twice and
    # round them differently, and then nobody would.
    left_wins = left >= right
    top_wins = rows[:, :, 0] >= rows[:, :, 1]
    return jnp.maximum(rows[:, :, 0], rows[:, :, 1]), (left_wins, top_wins)


def _max_pool_backward(winners, gradient):
    left_wins, top_wins = winners
    num, height, width, channels = gradient.shape
    row_wins = jnp.stack([top_wins, ~top_wins], axis=2)
    wins = jnp.stack([row_wins & left_wins, row_wins & ~left_wins], axis=4)
    squares = jnp.where(wins, gradient[:, :, None, :, None], 0)
    return (squares.reshape(num, 2 * height, 2 * width, channels),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def uniform_below(fan_in: int) -> nnx.Initializer:
    """Initialises from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), kernels and biases alike."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
