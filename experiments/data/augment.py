"""The training transform of the original: flip, padded crop, colour jitter.

Images are NHWC, in [0, 255], whole numbers in float32 where PIL would have uint8.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax

PADDING = 4
MAX_JITTER = 0.2
# Every order of brightness (0), contrast (1) and saturation (2).
ORDERS = tuple(itertools.permutations(range(3)))
# The weights of red, green and blue in PIL's grey, in 1/65536.
GREY = (19595, 38470, 7471)


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Flips, crops and colours every image of a batch in its own way.

    Args:
        key: a PRNG key.
        images: uint8 `[N, H, W, 3]`.

    Returns:
        float32 `[N, H, W, 3]` of whole numbers in [0, 255].
    """
    flip_key, crop_key, jitter_key = jax.random.split(key, 3)
    num_images = len(images)
    flips = jax.random.bernoulli(flip_key, 0.5, (num_images,))
    offsets = jax.random.randint(crop_key, (num_images, 2), -PADDING, PADDING + 1)
    return random_jitter(jitter_key, flip_and_crop(images, flips, offsets))


def normalize(images: jax.Array) -> jax.Array:
    """Scales images from [0, 255] to [-1, 1]: mean 0.5 and deviation 0.5 of [0, 1]."""
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def flip_and_crop(images: jax.Array, flips: jax.Array, offsets: jax.Array) -> jax.Array:
    """Mirrors images, then shifts them, filling with black what comes into view.

    Each output row is one input row or none, and each column likewise: two products
    with matrices of zeros and ones, exact, and fast under `vmap` where gathering
    each image's own slice is not. A GPU gathers, and moves bytes instead of floats.

    Args:
        images: `[N, H, W, C]`, whole numbers up to 255.
        flips: bool `[N]`, which images to mirror left to right.
        offsets: int `[N, 2]`, where in the (mirrored) image row 0 and column 0 of the
            output lie; negative ones lie in the padding.

    Returns:
        float32 `[N, H, W, C]`.
    """
    _, height, width, _ = images.shape
    rows = jnp.arange(height) + offsets[:, :1]
    columns = jnp.arange(width) + offsets[:, 1:]
    columns = jnp.where(flips[:, None], width - 1 - columns, columns)
    return lax.platform_dependent(
        images, rows, columns, cuda=_gather, default=_pick_by_products
    )


def _pick_by_products(images, rows, columns):
    _, height, width, _ = images.shape
    # An index outside the image matches no input row: its one-hot row is zero.
    pick_rows = jax.nn.one_hot(rows, height, dtype=jnp.float32)
    pick_columns = jax.nn.one_hot(columns, width, dtype=jnp.float32)
    images = images.astype(jnp.float32)
    shifted = jnp.einsum("nab,nbwc->nawc", pick_rows, images)
    return jnp.einsum("nxw,nawc->naxc", pick_columns, shifted)


def _gather(images, rows, columns):
    _, height, width, _ = images.shape
    is_inside = ((rows >= 0) & (rows < height))[:, :, None, None] & (
        (columns >= 0) & (columns < width)
    )[:, None, :, None]
    nearest = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    # In one gather of pixels their places would be most of the work.
    taken = jax.vmap(lambda image, rows, columns: image[rows][:, columns])(
        images, *nearest
    )
    return jnp.where(is_inside, taken, 0).astype(jnp.float32)


def random_jitter(key: jax.Array, images: jax.Array) -> jax.Array:
    """Changes brightness, contrast and saturation by U(0.8, 1.2), in random order.

    Args:
        key: a PRNG key.
        images: float32 `[N, H, W, 3]` of whole numbers in [0, 255].

    Returns:
        The same; see `jitter`.
    """
    factor_key, order_key = jax.random.split(key)
    num_images = len(images)
    factors = jax.random.uniform(
        factor_key, (num_images, 3), minval=1 - MAX_JITTER, maxval=1 + MAX_JITTER
    )
    which = jax.random.randint(order_key, (num_images,), 0, len(ORDERS))
    return jitter(images, factors, jnp.asarray(ORDERS)[which])


def jitter(images: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
    """Blends images with black, mean grey and grey, as PIL's ImageEnhance does.

    Args:
        images: float32 `[N, H, W, 3]` of whole numbers in [0, 255].
        factors: `[N, 3]` of brightness, contrast and saturation; 1 changes nothing.
        order: int `[N, 3]`, which of the three (0, 1, 2) comes first, second, third.

    Returns:
        float32 `[N, H, W, 3]`, clipped to [0, 255] and rounded down after each step.
    """
    factors = jnp.take_along_axis(factors, order, axis=1)
    return lax.platform_dependent(
        images, factors, order, cpu=_jitter_in_a_loop, default=_jitter_in_two_passes
    )


def _jitter_in_a_loop(images, factors, order):
    def step(images, step):
        grey = _grey(*jnp.split(images, 3, axis=-1))
        return _blend(images, grey, _mean(grey), *step), None

    # A compiled loop, whose result is in memory: XLA would put the last step into the
    # padding of the first convolution, one value at a time.
    images, _ = lax.scan(step, images, (order.T, factors.T))
    return images


def _jitter_in_two_passes(images, factors, order):
    def grey_before(kind, mean):
        colours = jnp.split(images, 3, axis=-1)
        place = jnp.argmax(order == kind, axis=1)[:, None, None, None]
        for index in range(2):
            grey = _grey(*colours)
            colours = [
                jnp.where(
                    index < place,
                    _blend(colour, grey, mean, order[:, index], factors[:, index]),
                    colour,
                )
                for colour in colours
            ]
        return _grey(*colours)

    # Contrast needs the mean grey of what comes before it, and saturation the grey. To
    # compute that from the start is cheaper than to write and read each step's result.
    mean = _mean(grey_before(1, 0.0))
    grey = grey_before(2, mean)
    for index in range(3):
        images = _blend(images, grey, mean, order[:, index], factors[:, index])
    return images


def _grey(red, green, blue):
    # Whole numbers below 2^24, which float32 holds exactly. Written out, because XLA
    # does not fuse a sum over an axis this short.
    sums = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return jnp.floor((sums + 2**15) / 2**16)


def _mean(grey):
    return jnp.floor(grey.mean((1, 2, 3), keepdims=True) + 0.5)


def _blend(images, grey, mean, kind, factor):
    kind, factor = kind[:, None, None, None], factor[:, None, None, None]
    base = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, mean, grey))
    images = base + factor * (images - base)
    return jnp.floor(jnp.clip(images, 0, 255))
