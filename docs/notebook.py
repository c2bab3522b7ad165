# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Noise seen, heard and put to the test
#
# A track and what is left of it when something is taken away; a window of it as a
# feature map; the line that changes in a network; ten seeds of three arms side by side;
# and what a paired comparison says of them. Everything is made here: no file, no
# download.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from IPython.display import Audio, display
from sklearn.datasets import load_digits

from sounddrop_jax import (
    AphexNoiseLayer,
    NoiseInjection,
    banks,
    convolution,
    ensembles,
    make_power_law_bank,
    make_recording_bank,
    spectra,
    statistics,
    tracks,
)

RATE = 44_100  # frames per second

# %% [markdown]
# ## Heard
#
# `glitch` is one of the built-in tracks: bursts, clicks, gated tones, pauses. A
# *surrogate* keeps one thing of a track and loses the rest. With random phases it has
# the same spectrum and no structure; with shuffled samples the same values and no
# spectrum.

# %%
glitch = tracks.make_track("glitch", num_frames=2 * RATE)
heard = {
    "glitch": glitch,
    "random phases: its spectrum alone": tracks.randomize_phases(glitch),
    "shuffled samples: its values alone": tracks.shuffle_samples(glitch),
}
for name, track in heard.items():
    print(name)
    display(Audio(track[: RATE * 3 // 2], rate=RATE, normalize=True))

# %% [markdown]
# ## Seen
#
# A layer takes a window of a bank and adds it to the feature maps. Here are windows for
# maps of 32 x 32: of the track, which runs along the rows, of its surrogates, and of
# noise that has a power law in the plane and no recording behind it.

# %%
shape = (1, 32, 32, 1)
key = jax.random.key(3)
windows = {
    name.partition(":")[0]: banks.sample_window(key, make_recording_bank(track), shape)
    for name, track in heard.items()
}
for exponent in (1.0, 2.0):
    windows[f"plane, 1/f^{exponent:.0f}"] = spectra.power_law(
        key, shape, exponent=exponent, axes=(-3, -2)
    )
figure, axes = plt.subplots(1, len(windows), figsize=(11, 2.6), layout="constrained")
for axis, (name, window) in zip(axes, windows.items(), strict=True):
    axis.imshow(window[0, :, :, 0], cmap="gray", vmin=-2.5, vmax=2.5)
    axis.set_title(name, fontsize=10)
    axis.set_axis_off()

# %% [markdown]
# ## The line that changes
#
# A small network for 8 x 8 handwritten digits. What stands between its layers is given;
# with `nnx.Dropout` and with noise the rest is the same, to the initial weights.


# %%
class Network(nnx.Module):
    """A convolution, the layer in question, and a linear layer."""

    def __init__(self, make_layer, *, rngs):
        # A convolution that stays fast where every seed has a kernel of its own.
        conv = convolution.conv_general_dilated
        self.conv = nnx.Conv(1, 16, (3, 3), rngs=rngs, conv_general_dilated=conv)
        self.layer = make_layer()
        self.linear = nnx.Linear(4 * 4 * 16, 10, rngs=rngs)

    def __call__(self, images, *, rngs=None):
        """Maps images `[N, 8, 8, 1]` to logits `[N, 10]`."""
        maps = self.layer(nnx.relu(self.conv(images)), rngs=rngs)
        maps = nnx.max_pool(maps, (2, 2), (2, 2))
        return self.linear(maps.reshape(len(maps), -1))


recording = make_recording_bank(glitch)
ARMS = {
    "none": lambda: NoiseInjection(0.0),
    "dropout": lambda: nnx.Dropout(0.2),
    "glitch": lambda: AphexNoiseLayer(bank=recording, intensity=0.5),
}
nnx.display(Network(ARMS["glitch"], rngs=nnx.Rngs(0)).layer)

# %% [markdown]
# A bank is a constant to Flax, so the model has the state that it has with Dropout.
# Made without `rngs`, the layer has none at all: keys come with the call.

# %% [markdown]
# ## Ten seeds, side by side
#
# A training is a function of a seed, so `vmap` trains ten at once. The same seed is the
# same weights and the same batches in every arm, which makes the arms *pairs*. There
# are few images to learn from, so that there is something to regularize.

# %%
NUM_SEEDS, NUM_STEPS, NUM_TRAIN, BATCH_SIZE = 10, 400, 150, 50
digits = load_digits()
images = jnp.asarray(digits.images[..., np.newaxis] / 16, jnp.float32)
labels = jnp.asarray(digits.target)
tx = optax.adam(3e-3)


def make_train(make_layer):
    """Returns a function of a seed: its test accuracy in %."""

    def train(seed):
        weights, order, noise = jax.random.split(jax.random.key(seed), 3)
        model = Network(make_layer, rngs=nnx.Rngs(weights))
        graphdef, params = nnx.split(model, nnx.Param)

        def loss_fn(params, batch, key):
            model = nnx.merge(graphdef, params)
            logits = model(images[batch], rngs=nnx.Rngs(dropout=key))
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels[batch]
            ).mean()

        def step(carry, inputs):
            params, opt_state = carry
            grads = jax.grad(loss_fn)(params, *inputs)
            updates, opt_state = tx.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        batches = jax.random.randint(order, (NUM_STEPS, BATCH_SIZE), 0, NUM_TRAIN)
        keys = jax.random.split(noise, NUM_STEPS)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), (batches, keys))
        trained = nnx.view(nnx.merge(graphdef, params), deterministic=True)
        correct = trained(images[NUM_TRAIN:]).argmax(-1) == labels[NUM_TRAIN:]
        return 100 * correct.mean()

    return jax.jit(ensembles.map_seeds(train))


scores = {
    name: np.asarray(make_train(make_layer)(jnp.arange(NUM_SEEDS)))
    for name, make_layer in ARMS.items()
}
for name, accuracies in scores.items():
    print(f"{name:>7}: {accuracies.mean():.1f} ± {accuracies.std(ddof=1):.1f} %")

# %% [markdown]
# ## What it says
#
# Two spreads that overlap may hide a difference that every seed shows, and two means
# that differ may be chance. So the difference is taken seed by seed: its interval, the
# p-value of a sign-flip test, corrected by Holm for the number of comparisons, and a
# word.

# %%
pairs = [("glitch", "none"), ("glitch", "dropout"), ("dropout", "none")]
compared = [statistics.compare_pairs(scores[a], scores[b]) for a, b in pairs]
corrected = statistics.holm([result.p_value for result in compared])
figure, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
for row, ((arm, baseline), result, p_value) in enumerate(
    zip(pairs, compared, corrected, strict=True)
):
    sure = p_value <= 0.05
    verb = ("beats" if result.mean_difference > 0 else "loses to") if sure else None
    print(
        f"{arm} {verb or 'cannot be told from'} {baseline}: "
        f"{result.mean_difference:+.1f} points "
        f"({result.low:.1f} to {result.high:.1f}), "
        f"p = {p_value:.3f}, n = {result.num_seeds} seeds"
    )
    axis.scatter(scores[arm] - scores[baseline], np.full(NUM_SEEDS, row), alpha=0.4)
    axis.plot([result.low, result.high], [row, row], "k|-")
axis.axvline(0, color="gray", linewidth=1)
axis.set_yticks(range(len(pairs)), [f"{arm} − {baseline}" for arm, baseline in pairs])
axis.set_ylim(len(pairs) - 0.5, -0.5)
label = axis.set_xlabel("difference in accuracy, points: each seed, 95 % intervals")

# %% [markdown]
# How large an effect would ten seeds have found, given how much these differ from seed
# to seed? An arm that cannot be told from another one may still differ by less than
# that.

# %%
for (arm, baseline), result in zip(pairs, compared, strict=True):
    effect = statistics.smallest_detectable_effect(
        NUM_SEEDS, result.std_difference, num_comparisons=len(pairs)
    )
    print(f"{arm} − {baseline}: {effect:.1f} points, in 4 of 5 such experiments")

# %% [markdown]
# This is a toy, with one strength of each arm, and says how a comparison is made and
# not which layer is better. A bank of noise without a recording would be
# `make_power_law_bank(0, (8, 8, 8), exponent=2.0, axes=(-3, -2))`; which noise for
# what, and what is known: [which noise](which_noise.html). With a plan, corruptions and
# a report: [studies](study.html).

# %%
make_power_law_bank(0, (8, 8, 8), exponent=2.0, axes=(-3, -2))
