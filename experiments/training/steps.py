"""Training of many networks at once: pure functions of one seed, mapped over seeds.

Everything that a network's numbers depend on comes from its own key, in named
streams. So seed k is the same network whoever is trained beside it, and two arms
share the initial weights, the order and the augmentation of seed k.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from experiments.data.augment import augment, normalize
from experiments.data.dataset import Dataset
from experiments.training.models import Where, make_network
from experiments.training.regularizers import STRENGTHS, Maker
from sounddrop_jax import BankVariable, NoiseBank, NoiseInjection

# On a CPU what stays in a core's cache; elsewhere what fills a TPU's 128 lanes, and is
# within a GB for 64 networks.
EVALUATION_BATCH = {"cpu": 20, "default": 128}


class TrainState(NamedTuple):
    """What is one network's own; with a leading seed axis, many networks'.

    Attributes:
        params: float32, changed by training, as the next two are.
        batch_stats: BatchNorm's.
        opt_state: AdamW's.
        key: of the seed.
        strength: float32 scalar, or None; see `make_functions`.
    """

    params: nnx.State
    batch_stats: nnx.State
    opt_state: optax.OptState
    key: jax.Array
    strength: jax.Array | None


class Constants(NamedTuple):
    """What all networks share, on the device.

    Attributes:
        strengths: the state of type `STRENGTHS`: empty if all strengths are numbers.
        layers: the rest of what training leaves alone, the noise banks above all.
        train_images: uint8 `[N, H, W, C]`.
        train_labels: int32 `[N]`.
        test_images: uint8 `[M, H, W, C]`.
    """

    strengths: nnx.State
    layers: nnx.State
    train_images: jax.Array
    train_labels: jax.Array
    test_images: jax.Array


class Functions(NamedTuple):
    """The pure functions of one seed, and the constants that they take.

    Attributes:
        init: (key, strength or None) -> state.
        shuffle: (key, epoch) -> int32 `[N]`, the order of the images in an epoch.
        train_steps: (state, total, constants, order, epoch, start, stop) -> (state,
            total), the steps from `start` up to `stop` of an epoch, whose losses are
            added to the total. The numbers may be traced, so every stretch of every
            epoch shares one compilation; and wherever an epoch is cut into stretches,
            its numbers are the same, bit for bit.
        evaluate: (state, constants) -> float32 `[M, num_classes]`, the test logits.
        constants: of type `Constants`.
    """

    init: Callable[..., TrainState]
    shuffle: Callable[..., jax.Array]
    train_steps: Callable[..., tuple[TrainState, jax.Array]]
    evaluate: Callable[..., jax.Array]
    constants: Constants


def stream(key: jax.Array, name: str) -> jax.Array:
    """Derives a named stream from a seed's key: init, order, augment or noise."""
    return jax.random.fold_in(key, ("init", "order", "augment", "noise").index(name))


def make_functions(
    dataset: Dataset,
    make_regularizer: Maker,
    *,
    model: str = "cnn",
    where: Where = "all",
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    augmented: bool = True,
    dtype: Any = jnp.float32,
) -> Functions:
    """Makes the functions that train a network on a dataset.

    The optimiser is AdamW with betas 0.9 and 0.999 and epsilon 1e-8, and decays every
    parameter. An epoch takes each training image at most once, in whole batches: the
    remainder, fewer images than a batch, is another one in every epoch.

    Networks may differ in strength and still share one compiled program: each network's
    own `strength`, if it has one, takes the place of whatever is of type `STRENGTHS`,
    as an intensity or rate that is an array (see `takes_strengths`).

    Args:
        dataset: images and labels.
        make_regularizer: see `regularizers.Recipe`.
        model: a name in `MODELS`.
        where: the regularizers are, see `models.make_network`.
        batch_size: images a step.
        learning_rate: constant.
        weight_decay: in units of the learning rate, as in PyTorch and optax.
        augmented: False to train on the images as they are.
        dtype: of the computation; parameters and statistics are float32.

    Returns:
        See `Functions`.
    """
    tx = optax.adamw(learning_rate, weight_decay=weight_decay)

    def make(key: jax.Array) -> nnx.Module:
        return make_network(
            model,
            make_regularizer,
            where=where,
            image_shape=dataset.train_images.shape[1:],
            num_classes=len(dataset.class_names),
            dtype=dtype,
            rngs=nnx.Rngs(params=stream(key, "init")),
        )

    def make_with_banks(key: jax.Array) -> nnx.Module:
        network = make(key)
        # Banks are constants of a program unless they are given to it as arguments; as
        # such they need not be compiled, nor be kept with the compiled program.
        for _, layer in nnx.iter_modules(network):
            if isinstance(layer, NoiseInjection) and isinstance(layer.bank, NoiseBank):
                layer.bank = BankVariable(layer.bank.values)
        return network

    def init_layers(key: jax.Array) -> tuple[nnx.State, nnx.State]:
        _, _, strengths, layers = nnx.state(
            make_with_banks(key), nnx.Param, nnx.BatchStat, STRENGTHS, ...
        )
        return strengths, layers

    # As one program, which compiles faster than every operation for itself, and without
    # the initial weights, which take it longest.
    strengths, layers = jax.jit(init_layers)(jax.random.key(0))
    network = nnx.eval_shape(lambda: make_with_banks(jax.random.key(0)))
    # Not every network has a BatchNorm.
    train_graph, eval_graph = (
        nnx.graphdef(
            nnx.view(
                network,
                deterministic=mode,
                use_running_average=mode,
                raise_if_not_found=False,
            )
        )
        for mode in (False, True)
    )

    def init(key: jax.Array, strength: jax.Array | None = None) -> TrainState:
        params, batch_stats = nnx.state(make(key), nnx.Param, nnx.BatchStat)
        return TrainState(params, batch_stats, tx.init(params), key, strength)

    def loss_fn(params, batch_stats, *rest, images, labels, key):
        # A copy, because BatchNorm assigns to its variables.
        model = nnx.merge(train_graph, params, batch_stats, *rest, copy=True)
        logits = model(images, rngs=nnx.Rngs(dropout=key))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    def shuffle(key, epoch):
        epoch_key = jax.random.fold_in(stream(key, "order"), epoch)
        return jax.random.permutation(epoch_key, len(dataset.train_labels))

    def train_steps(state, total, constants, order, epoch, start, stop):
        augment_key, noise_key = (
            jax.random.fold_in(stream(state.key, name), epoch)
            for name in ("augment", "noise")
        )
        strengths = constants.strengths
        if state.strength is not None:
            strengths = jax.tree.map(lambda default: state.strength, strengths)

        def train_step(step, carry):
            (params, batch_stats, opt_state, key, strength), total = carry
            batch = lax.dynamic_slice_in_dim(order, step * batch_size, batch_size)
            images = constants.train_images[batch]
            if augmented:
                images = augment(jax.random.fold_in(augment_key, step), images)
            (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                params,
                batch_stats,
                strengths,
                constants.layers,
                images=normalize(images),
                labels=constants.train_labels[batch],
                key=jax.random.fold_in(noise_key, step),
            )
            updates, opt_state = tx.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            state = TrainState(params, batch_stats, opt_state, key, strength)
            return state, total + loss

        return lax.fori_loop(start, stop, train_step, (state, total))

    def evaluate(state, constants):
        model = nnx.merge(
            eval_graph,
            state.params,
            state.batch_stats,
            constants.strengths,
            constants.layers,
        )

        def classify(images, size):
            padding = [(0, -len(images) % size), (0, 0), (0, 0), (0, 0)]
            batches = jnp.pad(images, padding).reshape(-1, size, *images.shape[1:])
            logits = lax.map(lambda batch: model(normalize(batch)), batches)
            return logits.reshape(-1, logits.shape[-1])[: len(images)]

        programs = {
            platform: functools.partial(classify, size=size)
            for platform, size in EVALUATION_BATCH.items()
        }
        return lax.platform_dependent(constants.test_images, **programs)

    constants = Constants(
        strengths,
        layers,
        jnp.asarray(dataset.train_images),
        jnp.asarray(dataset.train_labels),
        jnp.asarray(dataset.test_images),
    )
    return Functions(init, shuffle, train_steps, evaluate, constants)


def takes_strengths(functions: Functions) -> bool:
    """Returns whether networks can differ in strength, see `make_functions`."""
    return bool(jax.tree.leaves(functions.constants.strengths))
