"""A convolutional network on handwritten digits, in Flax NNX: Dropout or plane noise.

One line changes: the layer after each convolution. The rest is a training loop as you
would write it anyway.
"""

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from sounddrop_jax import NoiseInjection

# The line that changed. Noise with power 1/f in the plane of the maps: blots of all
# sizes, where Dropout makes holes of one pixel. Neither number was tuned.
LAYERS = {
    "dropout": lambda rngs: nnx.Dropout(0.2, rngs=rngs),
    "plane": lambda rngs: NoiseInjection(0.3, exponent=1.0, axes=(-3, -2), rngs=rngs),
}

NUM_TRAIN = 1000  # images of the 1,797; the others test
BATCH_SIZE = 64


class Network(nnx.Module):
    """Two convolutions, each followed by the layer in question, and a linear layer."""

    def __init__(self, make_layer, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.layer1 = make_layer(rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.layer2 = make_layer(rngs)
        self.linear = nnx.Linear(4 * 4 * 32, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[N, 8, 8, 1]` to logits `[N, 10]`."""
        maps = self.layer1(nnx.relu(self.conv1(images)))
        maps = nnx.max_pool(maps, (2, 2), (2, 2))
        maps = self.layer2(nnx.relu(self.conv2(maps)))
        return self.linear(maps.reshape(len(maps), -1))


@nnx.jit
def train_step(model, optimizer, images, labels):
    """Takes one step of the optimizer, in place."""

    def loss_fn(model):
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    optimizer.update(model, nnx.grad(loss_fn)(model))


@nnx.jit
def predict(model, images):
    """Returns the most likely class of each image."""
    return model(images).argmax(-1)


def main(num_steps: int = 400, num_seeds: int = 5) -> dict[str, np.ndarray]:
    """Trains one network a layer and seed, and prints a line a layer.

    Args:
        num_steps: of training, a batch each.
        num_seeds: two or more, or there is no spread to state.

    Returns:
        For each layer the test accuracies `[num_seeds]`, in %.
    """
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    labels = digits.target
    tx = optax.adam(2e-3)  # made once: another one would compile the step again

    accuracies = {}
    for name, make_layer in LAYERS.items():
        accuracies[name] = np.zeros(num_seeds)
        for seed in range(num_seeds):
            # The same seed is the same initial weights and the same batches: neither
            # layer has weights, and both take their random stream from `rngs` alike.
            model = Network(make_layer, rngs=nnx.Rngs(seed))
            optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
            rng = np.random.default_rng(seed)
            for _ in range(num_steps):
                batch = rng.integers(NUM_TRAIN, size=BATCH_SIZE)
                train_step(model, optimizer, images[batch], labels[batch])

            # A view shares the weights; in this one the layer returns its inputs.
            model = nnx.view(model, deterministic=True)
            correct = predict(model, images[NUM_TRAIN:]) == labels[NUM_TRAIN:]
            accuracies[name][seed] = 100 * correct.mean()

        mean, std = accuracies[name].mean(), accuracies[name].std(ddof=1)
        print(
            f"{name:>7}: test accuracy {mean:.1f} ± {std:.1f} %, n = {num_seeds} seeds"
        )
    # A few seeds of a toy say that both work, and nothing about which is better.
    return accuracies


if __name__ == "__main__":
    main()
