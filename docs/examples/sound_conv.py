"""A 1-D convolution that names sounds, in Flax NNX: Dropout or a recording as noise.

Told apart are excerpts of the five built-in tracks, 6 ms each: white, pink and brown
noise, rain, and a glitch track. No file is read.
"""

import jax
import numpy as np
import optax
from flax import nnx

from sounddrop_jax import AphexNoiseLayer, make_recording_bank
from sounddrop_jax.tracks import TRACKS, make_track

# One bank for all layers: 24 s of another glitch track than the excerpts are of.
BANK = make_recording_bank(make_track("glitch", seed=0))

# The line that changed. Every call adds another window of the recording, whose time
# runs along the time of the features. Neither number was tuned.
LAYERS = {
    "dropout": lambda rngs: nnx.Dropout(0.2, rngs=rngs),
    "aphex": lambda rngs: AphexNoiseLayer(bank=BANK, intensity=0.3, rngs=rngs),
}

NUM_FRAMES = 256  # an excerpt
BATCH_SIZE = 64


class Network(nnx.Module):
    """Two convolutions over time, each with the layer in question, and a mean."""

    def __init__(self, make_layer, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (9,), strides=2, rngs=rngs)
        self.layer1 = make_layer(rngs)
        self.conv2 = nnx.Conv(16, 32, (9,), strides=4, rngs=rngs)
        self.layer2 = make_layer(rngs)
        self.linear = nnx.Linear(32, len(TRACKS), rngs=rngs)

    def __call__(self, excerpts: jax.Array) -> jax.Array:
        """Maps excerpts `[N, T, 1]` to logits `[N, num_tracks]`."""
        features = self.layer1(nnx.relu(self.conv1(excerpts)))
        features = self.layer2(nnx.relu(self.conv2(features)))
        return self.linear(features.mean(-2))


@nnx.jit
def train_step(model, optimizer, excerpts, labels):
    """Takes one step of the optimizer, in place."""

    def loss_fn(model):
        logits = model(excerpts)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    # The bank is no nnx.Param: it gets no gradient and no update.
    optimizer.update(model, nnx.grad(loss_fn)(model))


@nnx.jit
def predict(model, excerpts):
    """Returns the most likely track of each excerpt."""
    return model(excerpts).argmax(-1)


def make_excerpts(num_excerpts: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts excerpts, evenly spread, out of every built-in track.

    Args:
        num_excerpts: of each track, a power of two.
        seed: of the tracks.

    Returns:
        Excerpts `[5 * num_excerpts, NUM_FRAMES, 1]` and labels, indices to `TRACKS`.
    """
    tracks = np.stack([make_track(name, seed=seed) for name in TRACKS])
    excerpts = tracks.reshape(len(TRACKS) * num_excerpts, -1)[:, :NUM_FRAMES]
    # Each as loud as any other, so that loudness gives nothing away.
    excerpts = excerpts - excerpts.mean(1, keepdims=True)
    excerpts = excerpts / excerpts.std(1, keepdims=True)
    return excerpts[..., np.newaxis], np.arange(len(TRACKS)).repeat(num_excerpts)


def main(num_steps: int = 400, num_seeds: int = 5) -> dict[str, np.ndarray]:
    """Trains one network a layer and seed, and prints a line a layer.

    Args:
        num_steps: of training, a batch each.
        num_seeds: two or more, or there is no spread to state.

    Returns:
        For each layer the test accuracies `[num_seeds]`, in %.
    """
    # Other tracks to test with; few excerpts to train on.
    train_excerpts, train_labels = make_excerpts(64, seed=1)
    test_excerpts, test_labels = make_excerpts(256, seed=2)
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
                batch = rng.integers(len(train_labels), size=BATCH_SIZE)
                train_step(model, optimizer, train_excerpts[batch], train_labels[batch])

            # A view shares the weights; in this one the layer returns its inputs.
            model = nnx.view(model, deterministic=True)
            correct = predict(model, test_excerpts) == test_labels
            accuracies[name][seed] = 100 * correct.mean()

        mean, std = accuracies[name].mean(), accuracies[name].std(ddof=1)
        print(
            f"{name:>7}: test accuracy {mean:.1f} ± {std:.1f} %, n = {num_seeds} seeds"
        )
    # A few seeds of a toy say that both work, and nothing about which is better.
    return accuracies


if __name__ == "__main__":
    main()
