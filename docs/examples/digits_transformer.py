"""A transformer on handwritten digits, in Flax Linen: Dropout or water.

A row of pixels is a token. One line changes: the layer before each residual sum. All
seeds train side by side, in one compiled program.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from sounddrop_jax import linen as noise

# The line that changed. Water is pink noise along the tokens, from the first row of
# pixels to the last: neighbours share much of it. Neither number was tuned.
LAYERS = {
    "dropout": lambda: nn.Dropout(0.1),
    "water": lambda: noise.WaterNoiseLayer(0.1),
}

NUM_TRAIN = 1000  # images of the 1,797; the others test
BATCH_SIZE = 32
WIDTH = 64


class Transformer(nn.Module):
    """Two blocks of self-attention and MLP, and the mean over the tokens."""

    make_layer: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[N, 8, 8]` to logits `[N, 10]`."""
        positions = self.param("positions", nn.initializers.normal(), (8, WIDTH))
        tokens = nn.Dense(WIDTH)(images) + positions
        for _ in range(2):
            normed = nn.LayerNorm()(tokens)
            update = nn.MultiHeadDotProductAttention(num_heads=4)(normed)
            tokens += self.make_layer()(update, deterministic=not train)
            normed = nn.LayerNorm()(tokens)
            update = nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(normed)))
            tokens += self.make_layer()(update, deterministic=not train)
        return nn.Dense(10)(nn.LayerNorm()(tokens).mean(-2))


def train(model, images, labels, num_steps, variables, key) -> jax.Array:
    """Trains and tests one network: a pure function, so that it maps over seeds.

    Args:
        model: the network.
        images: float32 `[N, 8, 8]`.
        labels: int32 `[N]`.
        num_steps: of training, a batch each.
        variables: the initial weights.
        key: decides the batches and the noise.

    Returns:
        float32 `[]`, the test accuracy in %.
    """
    tx = optax.adam(2e-3)

    def train_step(step, state):
        variables, opt_state = state
        batch_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
        batch = jax.random.randint(batch_key, (BATCH_SIZE,), 0, NUM_TRAIN)

        def loss_fn(variables):
            # Either layer draws from the stream "dropout".
            rngs = {"dropout": noise_key}
            logits = model.apply(variables, images[batch], train=True, rngs=rngs)
            return optax.losses.softmax_cross_entropy_with_integer_labels(
                logits, labels[batch]
            ).mean()

        updates, opt_state = tx.update(jax.grad(loss_fn)(variables), opt_state)
        return optax.apply_updates(variables, updates), opt_state

    state = variables, tx.init(variables)
    variables, _ = jax.lax.fori_loop(0, num_steps, train_step, state)
    logits = model.apply(variables, images[NUM_TRAIN:], train=False)
    return 100 * (logits.argmax(-1) == labels[NUM_TRAIN:]).mean()


def main(num_steps: int = 400, num_seeds: int = 5) -> dict[str, np.ndarray]:
    """Trains one network a layer and seed, and prints a line a layer.

    Args:
        num_steps: of training, a batch each.
        num_seeds: two or more, or there is no spread to state.

    Returns:
        For each layer the test accuracies `[num_seeds]`, in %.
    """
    digits = load_digits()
    images = jnp.asarray(digits.images / 16, jnp.float32)
    labels = jnp.asarray(digits.target, jnp.int32)
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    init_keys, train_keys = jax.vmap(jax.random.split, out_axes=1)(keys)

    # Neither layer has weights: what one network starts from, the other can.
    @jax.jit
    @jax.vmap
    def init(key):
        return Transformer(LAYERS["dropout"]).init(key, images[:1], train=False)

    variables = init(init_keys)

    accuracies = {}
    for name, make_layer in LAYERS.items():
        model = Transformer(make_layer)
        train_one = functools.partial(train, model, images, labels, num_steps)
        train_all = jax.jit(jax.vmap(train_one))
        accuracies[name] = np.asarray(train_all(variables, train_keys))

        mean, std = accuracies[name].mean(), accuracies[name].std(ddof=1)
        print(
            f"{name:>7}: test accuracy {mean:.1f} ± {std:.1f} %, n = {num_seeds} seeds"
        )
    # A few seeds of a toy say that both work, and nothing about which is better.
    return accuracies


if __name__ == "__main__":
    main()
