"""A small vision transformer whose tokens stay a map, NHWC."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.cli import UsageError
from experiments.training.regularizers import Maker, Shape

PATCH = 4
WIDTH = 64
HEADS = 4
LAYERS = 6


class VisionTransformer(nnx.Module):
    """Patches of 4x4, six layers of attention and MLP, their mean, a linear layer.

    207,306 parameters for 3 channels, 32x32 images and 10 classes. Pre-norm and learned
    positions, as in the paper; the mean over the tokens in place of a class token, so
    that they are maps `[N, H / 4, W / 4, 64]` throughout, in whose rows and columns
    noise can have a spectrum. Regularizers stand where the paper has dropout: after the
    positions, and at the end of every attention and every MLP.

    Args:
        make_regularizer: see `models.Model`.
        image_shape: `(H, W, C)` of the inputs, H and W multiples of 4.
        num_classes: number of logits.
        dtype: of the computation; parameters are float32.
        rngs: its stream `params` initialises the network.

    Raises:
        UsageError: if the images are of another size.

    References:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, appendix B.1
        (arxiv.org/abs/2010.11929). The mean: Beyer, Zhai and Kolesnikov, "Better plain
        ViT baselines for ImageNet-1k", 2022 (arxiv.org/abs/2205.01580).
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
        if height % PATCH or width % PATCH:
            raise UsageError(
                f"model=vit: it takes images in patches of {PATCH}x{PATCH}, and they "
                f"have {height}x{width}; give multiples of {PATCH}, or choose "
                "model=resnet20."
            )
        shape = height // PATCH, width // PATCH, WIDTH
        self.embed = nnx.Linear(PATCH**2 * channels, WIDTH, dtype=dtype, rngs=rngs)
        positions = nnx.initializers.normal(0.02)(rngs.params(), shape)
        self.positions = nnx.Param(positions)
        self.regularizer = make_regularizer(shape)
        self.layers = nnx.List(
            [Layer(make_regularizer, shape, dtype, rngs=rngs) for _ in range(LAYERS)]
        )
        self.norm = nnx.LayerNorm(WIDTH, dtype=dtype, rngs=rngs)
        self.linear = nnx.Linear(WIDTH, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Classifies images `[N, H, W, C]`: float32 logits `[N, num_classes]`."""
        tokens = self.embed(_cut(images))
        tokens += self.positions[...].astype(tokens.dtype)
        tokens = self.regularizer(tokens, rngs=rngs)
        for layer in self.layers:
            tokens = layer(tokens, rngs=rngs)
        return self.linear(self.norm(tokens).mean((1, 2))).astype(jnp.float32)


class Layer(nnx.Module):
    """Attention over all places of a map, and an MLP at each; both add to it."""

    def __init__(
        self, make_regularizer: Maker, shape: Shape, dtype: Any, *, rngs: nnx.Rngs
    ):
        kwargs: Any = {"dtype": dtype, "rngs": rngs}
        self.norm1 = nnx.LayerNorm(WIDTH, **kwargs)
        # Without biases, of which that of the keys would change nothing.
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, use_bias=False, decode=False, **kwargs
        )
        self.regularizer1 = make_regularizer(shape)
        self.norm2 = nnx.LayerNorm(WIDTH, **kwargs)
        self.widen = nnx.Linear(WIDTH, 2 * WIDTH, **kwargs)
        self.narrow = nnx.Linear(2 * WIDTH, WIDTH, **kwargs)
        self.regularizer2 = make_regularizer(shape)

    def __call__(self, maps: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Changes maps `[N, H, W, C]`."""
        tokens = self.norm1(maps).reshape(len(maps), -1, WIDTH)
        branch = self.attention(tokens).reshape(maps.shape)
        maps += self.regularizer1(branch, rngs=rngs)
        branch = self.narrow(nnx.gelu(self.widen(self.norm2(maps))))
        return maps + self.regularizer2(branch, rngs=rngs)


def _cut(images: jax.Array) -> jax.Array:
    """Cuts images `[N, H, W, C]` into patches `[N, H / 4, W / 4, 4 * 4 * C]`."""
    num, height, width, channels = images.shape
    images = images.reshape(num, height // PATCH, PATCH, width // PATCH, PATCH, -1)
    patches = images.swapaxes(2, 3)
    return patches.reshape(*patches.shape[:3], PATCH**2 * channels)
