"""The network of the original: three convolution blocks and a linear layer, NHWC."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.training.pooling import relu_norm_and_pool
from experiments.training.regularizers import Maker, Shape
from sounddrop_jax import convolution

FEATURES = (16, 32, 64)


class CNN(nnx.Module):
    """Convolution, ReLU, BatchNorm, 2x2 max pooling, regularizer; thrice; linear.

    34,058 parameters for 3 channels, 32x32 images and 10 classes. Initial weights and
    biases are PyTorch's defaults, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
        make_regularizer: see `models.Model`; one after each block.
        image_shape: `(H, W, C)` of the inputs, H and W 8 or more.
        num_classes: number of logits.
        dtype: of the computation; parameters and statistics are float32.
        rngs: its stream `params` initialises the network.
    """

    def __init__(
        self,
        make_regularizer: Maker,
        *,
        image_shape: Shape = (32, 32, 3),
        num_classes: int = 10,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, channels = image_shape
        self.blocks: nnx.List[Block] = nnx.List()
        for features in FEATURES:
            height, width = height // 2, width // 2
            regularizer = make_regularizer((height, width, features))
            block = Block(channels, features, regularizer, dtype=dtype, rngs=rngs)
            self.blocks.append(block)
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
        regularizer: nnx.Module,
        *,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        fan_in = 3 * 3 * channels
        self.conv = nnx.Conv(
            channels,
            features,
            (3, 3),
            kernel_init=uniform_below(fan_in),
            bias_init=uniform_below(fan_in),
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = NormPool(features)
        self.regularizer = regularizer

    def __call__(self, maps: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Halves the height and the width of maps `[N, H, W, C]`."""
        conv = self.conv
        assert conv.bias is not None  # as Flax's type allows
        # Without the bias, which is added where a platform is fast at it.
        maps = convolution.conv_general_dilated(
            maps.astype(conv.dtype),
            conv.kernel[...].astype(conv.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self.regularizer(self.norm(maps, conv.bias[...]), rngs=rngs)


class NormPool(nnx.Module):
    """ReLU, BatchNorm, then 2x2 max pooling; but pools first, which gives the same.

    Normalising is the same increasing (or, at a negative scale, decreasing) function at
    every place of a channel, so that only winners need it: a quarter of the values, in
    the forward and in the backward pass. Epsilon is 1e-5, and running statistics keep
    0.9 of the old, as in PyTorch; mean and variance as in `nnx.BatchNorm`.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.use_running_average = False

    def __call__(self, maps: jax.Array, bias: jax.Array) -> jax.Array:
        """Normalises what ReLU leaves of maps `[N, H, W, C]`, and halves H and W.

        Args:
            maps: of a convolution.
            bias: `[C]`, of the convolution, not yet added.
        """
        arguments = maps, bias, self.scale[...], self.bias[...]
        if self.use_running_average:
            moments = self.mean[...], self.var[...]
            return relu_norm_and_pool(*arguments, moments)[0]
        outputs, mean, var = relu_norm_and_pool(*arguments)
        for running, batch in ((self.mean, mean), (self.var, var)):
            running[...] = 0.9 * running[...] + 0.1 * batch
        return outputs

    def set_view(self, use_running_average: bool | None = None):
        """Switches the mode, as `nnx.view` asks for it."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


def uniform_below(fan_in: int) -> nnx.Initializer:
    """Initialises from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), kernels and biases alike."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
