"""The JAX contestants: our step, a plain one, and what the machine can do at most.

Each function prepares one contestant for a worker, see `workers.Prepared`.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.benchmarks.workers import (
    Prepared,
    load_dataset,
    peak_memory,
    time_steps,
)
from experiments.data.augment import augment, normalize
from experiments.data.dataset import Dataset
from experiments.runs.configs import Config
from experiments.runs.environment import environment
from experiments.training import devices
from experiments.training.cnn import FEATURES
from experiments.training.models import MODELS
from experiments.training.regularizers import Maker, Shape
from experiments.training.steps import make_functions
from experiments.training.trainer import Trainer


def prepare_ours(
    folder: str, reg: str, model: str, num_seeds: int, dtype: str = "float32"
) -> Prepared:
    """Prepares what `experiments.cifar` does, on the devices that it would choose.

    Args:
        folder: see `workers.load_dataset`.
        reg: the arm, at its default strength.
        model: a name in `MODELS`.
        num_seeds: networks side by side.
        dtype: of the computation.
    """
    devices.share_cores(num_seeds)
    _set_up()
    config = Config(reg=reg, model=model, dtype=dtype)
    dataset = load_dataset(folder)
    trainer = Trainer(
        make_functions(
            dataset,
            config.recipe.prepare(config.strength),
            model=config.model,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            dtype=config.dtype,
        ),
        range(num_seeds),
        seeds_at_once=devices.choose_seeds_at_once(),
        mesh=devices.make_mesh(num_seeds),
    )
    steps_per_epoch = len(dataset.train_labels) // config.batch_size
    # For as many epochs as there will be turns.
    progresses = trainer.train(2**31 - 1, steps_per_epoch)
    total_steps, total_seconds = 0, 0.0

    def run(num_steps: int) -> tuple[float, float]:
        nonlocal total_steps, total_seconds
        first_step, first_seconds = total_steps, total_seconds
        while total_steps < first_step + num_steps:
            progress = next(progresses)
            total_steps = progress.epoch * steps_per_epoch + progress.step
            total_seconds = progress.seconds
        num_images = (total_steps - first_step) * config.batch_size * num_seeds
        return num_images, total_seconds - first_seconds

    about = {
        "num_devices": jax.device_count(),
        "seeds_at_once": trainer.seeds_at_once,
    }
    return Prepared(run, trainer.compile_seconds, _peak_bytes, about)


def prepare_plain(
    folder: str,
    reg: str,
    model: str,
    num_seeds: int | None = None,
    dtype: str = "float32",
) -> Prepared:
    """Prepares a step as most people would write it, called from Python.

    Args:
        folder: see `workers.load_dataset`.
        reg: the arm, at its default strength.
        model: a name in `MODELS`.
        num_seeds: for `jax.vmap` over seeds. None for one seed without it: that is also
            the speed of any number of seeds one after another.
        dtype: of the computation.
    """
    _set_up()
    config = Config(reg=reg, model=model, dtype=dtype)
    dataset = load_dataset(folder)
    init, train_step = make_plain_functions(dataset, config)
    if num_seeds is not None:
        init = jax.vmap(init)
        train_step = jax.vmap(train_step, in_axes=(0, None, None, 0, None))
    seeds = np.arange(num_seeds or 1)
    keys = jax.vmap(jax.random.key)(seeds)
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)

    def shuffled_batches():
        num_batches = len(labels) // config.batch_size
        generators = [np.random.default_rng(seed) for seed in seeds]
        while True:
            orders = np.stack([g.permutation(len(labels)) for g in generators])
            for number in range(num_batches):
                start = number * config.batch_size
                batch = orders[:, start : start + config.batch_size]
                yield batch.astype(np.int32) if num_seeds else batch[0].astype(np.int32)

    batches = shuffled_batches()
    begin = time.perf_counter()
    state = jax.jit(init)(keys if num_seeds else keys[0])
    compiled = (
        jax.jit(train_step, donate_argnums=0)
        .lower(state, images, labels, next(batches), 0)
        .compile()
    )
    compile_seconds = time.perf_counter() - begin
    num_calls = 0

    def step() -> Any:
        nonlocal state, num_calls
        state, loss = compiled(state, images, labels, next(batches), num_calls)
        num_calls += 1
        return loss

    def run(num_steps: int) -> tuple[float, float]:
        seconds = time_steps(step, num_steps, wait=jax.block_until_ready)
        return num_steps * config.batch_size * len(seeds), seconds

    return Prepared(run, compile_seconds, _peak_bytes, {"num_devices": 1})


def make_plain_functions(dataset: Dataset, config: Config) -> tuple[Callable, Callable]:
    """Makes the training of one network with JAX's and Flax's own layers.

    The augmentation and the regularizer are ours, and so is the split into pure
    functions, which costs a call less than `nnx.jit`.

    Returns:
        init: key -> state.
        train_step: (state, images, labels, batch, step) -> (state, loss); all images
            and labels, and int32 `[n]`, which of them.
    """
    make_regularizer = config.recipe.prepare(config.strength)
    tx = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)

    def make(key: jax.Array) -> nnx.Module:
        image_shape = dataset.train_images.shape[1:]
        num_classes = len(dataset.class_names)
        return make_plain_network(
            config.model,
            make_regularizer,
            image_shape,
            num_classes,
            dtype=config.dtype,
            rngs=nnx.Rngs(params=key),
        )

    network = make(jax.random.key(0))
    graph = nnx.graphdef(network)
    _, _, layers = nnx.state(network, nnx.Param, nnx.BatchStat, ...)

    def init(key):
        params, batch_stats, _ = nnx.state(make(key), nnx.Param, nnx.BatchStat, ...)
        return params, batch_stats, tx.init(params), key

    def train_step(state, images, labels, batch, step):
        params, batch_stats, opt_state, key = state
        augment_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
        inputs = normalize(augment(augment_key, images[batch]))

        def loss_fn(params):
            model = nnx.merge(graph, params, batch_stats, layers, copy=True)
            logits = model(inputs, rngs=nnx.Rngs(dropout=noise_key))
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), labels[batch]
            )
            return losses.mean(), nnx.state(model, nnx.BatchStat)

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, batch_stats, opt_state, key), loss

    return init, train_step


def make_plain_network(
    model: str,
    make_regularizer: Maker,
    image_shape: Shape,
    num_classes: int,
    *,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Makes a network of `MODELS` with JAX's own convolution and Flax's own layers."""
    if model == "cnn":  # which has layers of its own beside the convolution
        return _make_plain_cnn(
            make_regularizer, image_shape, num_classes, dtype=dtype, rngs=rngs
        )
    network = MODELS[model](
        make_regularizer,
        image_shape=image_shape,
        num_classes=num_classes,
        dtype=dtype,
        rngs=rngs,
    )
    for _, layer in nnx.iter_modules(network):
        if isinstance(layer, nnx.Conv):
            layer.conv_general_dilated = jax.lax.conv_general_dilated
    return network


def _make_plain_cnn(
    make_regularizer: Maker,
    image_shape: Shape,
    num_classes: int,
    *,
    dtype: Any,
    rngs: nnx.Rngs,
) -> nnx.Sequential:
    height, width, channels = image_shape
    layers: list[Any] = []
    for features in FEATURES:
        height, width = height // 2, width // 2
        layers += [
            nnx.Conv(channels, features, (3, 3), dtype=dtype, rngs=rngs),
            nnx.relu,
            nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs),
            functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2)),
            make_regularizer((height, width, features)),
        ]
        channels = features
    layers += [
        lambda maps: maps.reshape(len(maps), -1),
        nnx.Linear(height * width * channels, num_classes, dtype=dtype, rngs=rngs),
    ]
    return nnx.Sequential(*layers)


def prepare_matmul(dtype: str = "float32") -> Prepared:
    """Prepares products of large square matrices on the whole device."""
    _set_up()
    size = 2048 if jax.default_backend() == "cpu" else 8192
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    multiply = jax.jit(jnp.matmul)

    def run(num_steps: int) -> tuple[float, float]:
        seconds = time_steps(
            lambda: multiply(left, right), num_steps, wait=jax.block_until_ready
        )
        return 2 * size**3 * num_steps, seconds

    about = {"platform": jax.default_backend(), "environment": environment()}
    return Prepared(run, 0.0, _peak_bytes, about)


def prepare_copy() -> Prepared:
    """Prepares a pass over memory that reads 256 MiB and writes as many."""
    _set_up()
    inputs = jnp.ones(2**26)
    results = jnp.zeros(2**26)

    # Over the results of the call before: to ask the system for memory costs as much.
    @functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
    def negate(results, inputs):
        return -inputs

    def step() -> Any:
        nonlocal results
        results = negate(results, inputs)
        return results

    def run(num_steps: int) -> tuple[float, float]:
        seconds = time_steps(step, num_steps, wait=jax.block_until_ready)
        return 2 * inputs.nbytes * num_steps, seconds

    return Prepared(run, 0.0, _peak_bytes, {})


def _set_up() -> None:
    # Several contestants share a GPU; JAX would reserve most of its memory for one.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # What was compiled in another run is compiled again, because that is timed.
    jax.config.update("jax_enable_compilation_cache", False)
    devices.start_jax()


def _peak_bytes() -> int:
    if jax.default_backend() == "cpu":
        return peak_memory()
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return sum(each.get("peak_bytes_in_use", 0) for each in stats)
