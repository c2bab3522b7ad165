"""ResNet-20 of He et al. (2015) for small images, NHWC."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.training.regularizers import Maker, Shape
from sounddrop_jax import convolution

STAGES = (16, 32, 64)
BLOCKS = 3  # a stage


class ResNet20(nnx.Module):
    """A convolution, three stages of three residual blocks, and a linear layer.

    269,722 parameters for 3 channels and 10 classes; images of any size. Shortcuts are
    option A of the paper, as in its results on CIFAR-10: where a stage halves the maps
    and doubles the channels, every second place and zeros, which need no weights. A
    regularizer stands between the two convolutions of each block, as dropout does in
    Wide ResNets.

    Args:
        make_regularizer: see `models.Model`.
        image_shape: `(H, W, C)` of the inputs.
        num_classes: number of logits.
        dtype: of the computation; parameters and statistics are float32.
        rngs: its stream `params` initialises the network.

    References:
        He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR
        2016, section 4.2 (arxiv.org/abs/1512.03385). Zagoruyko and Komodakis, "Wide
        Residual Networks", BMVC 2016, section 2.4 (arxiv.org/abs/1605.07146).
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
        self.conv = _conv(channels, STAGES[0], dtype=dtype, rngs=rngs)
        self.norm = _norm(STAGES[0], dtype=dtype, rngs=rngs)
        channels = STAGES[0]
        self.blocks: nnx.List[Block] = nnx.List()
        for features in STAGES:
            for _ in range(BLOCKS):
                if features > channels:
                    height, width = -(-height // 2), -(-width // 2)
                regularizer = make_regularizer((height, width, features))
                block = Block(channels, features, regularizer, dtype=dtype, rngs=rngs)
                self.blocks.append(block)
                channels = features
        self.linear = nnx.Linear(channels, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Classifies images `[N, H, W, C]`: float32 logits `[N, num_classes]`."""
        maps = nnx.relu(self.norm(self.conv(images)))
        for block in self.blocks:
            maps = block(maps, rngs=rngs)
        # In bfloat16 a `maps.mean((1, 2))` is NaN on a CPU (JAX 0.12.0), if the weights
        # are constants.
        means = nnx.avg_pool(maps, maps.shape[1:3])[:, 0, 0]
        return self.linear(means).astype(jnp.float32)


class Block(nnx.Module):
    """Convolution, BatchNorm, ReLU, regularizer; convolution, BatchNorm; sum, ReLU."""

    def __init__(
        self,
        channels: int,
        features: int,
        regularizer: nnx.Module,
        *,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.widening = features - channels
        self.conv1 = _conv(channels, features, dtype=dtype, rngs=rngs)
        self.norm1 = _norm(features, dtype=dtype, rngs=rngs)
        self.regularizer = regularizer
        self.conv2 = _conv(features, features, dtype=dtype, rngs=rngs)
        self.norm2 = _norm(features, dtype=dtype, rngs=rngs)

    def __call__(self, maps: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Changes maps `[N, H, W, C]`; one that widens them halves their size."""
        branch = self.conv1(maps)
        if self.widening:
            # A stride of 2, of which `convolution` knows nothing. JAX's own would be a
            # grouped convolution under `vmap`, and those are slow on a CPU.
            branch, maps = branch[:, ::2, ::2], maps[:, ::2, ::2]
            maps = jnp.pad(maps, [(0, 0), (0, 0), (0, 0), (0, self.widening)])
        branch = self.regularizer(nnx.relu(self.norm1(branch)), rngs=rngs)
        return nnx.relu(maps + self.norm2(self.conv2(branch)))


def _init_kernel(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draws He's initial weights as a matrix, in a third of the time to compile."""
    flat = math.prod(shape[:-1]), shape[-1]
    return nnx.initializers.he_normal()(key, flat, dtype).reshape(shape)


_conv = functools.partial(
    nnx.Conv,
    kernel_size=(3, 3),
    use_bias=False,
    kernel_init=_init_kernel,
    conv_general_dilated=convolution.conv_general_dilated,
)
_norm = functools.partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)
