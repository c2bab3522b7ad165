"""Training of many networks at once: pure functions of one seed, mapped over seeds.

Everything that a network's numbers depend on comes from its own key, in named
streams. So seed k is the same network whoever is trained beside it, and two arms
share the initial weights, the order and the augmentation of seed k.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments.augment import augment, normalize
from experiments.datasets import Dataset
from experiments.models import Network
from sounddrop_jax import BankVariable, NoiseBank, NoiseInjection, ensembles

# How long one compiled call should run: often enough for a lively progress bar and a
# prompt Ctrl-C, rarely enough to cost nothing.
SECONDS_PER_CALL = 1.0
# On a CPU (True) what stays in a core's cache.
EVALUATION_BATCH = {True: 20, False: 500}


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
        layers: the state that training leaves alone, the noise banks above all.
        train_images: uint8 `[N, H, W, C]`.
        train_labels: int32 `[N]`.
        test_images: uint8 `[M, H, W, C]`.
    """

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


class Progress(NamedTuple):
    """Where training stands: yielded after every compiled call.

    Attributes:
        epoch: from 0.
        step: number of steps done in this epoch.
        totals: float32 `[S]`, the sum of this epoch's training losses so far.
        seconds: spent on training steps so far, and on nothing else.
    """

    epoch: int
    step: int
    totals: np.ndarray
    seconds: float

    @property
    def losses(self) -> np.ndarray:
        """The mean training loss of this epoch so far, float64 `[S]`."""
        return self.totals.astype(np.float64) / self.step


def stream(key: jax.Array, name: str) -> jax.Array:
    """Derives a named stream from a seed's key: init, order, augment or noise."""
    return jax.random.fold_in(key, ("init", "order", "augment", "noise").index(name))


def make_functions(
    dataset: Dataset,
    make_regularizer: Callable[..., Any],
    *,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    where: str = "features",
    augmented: bool = True,
    dtype: Any = jnp.float32,
) -> Functions:
    """Makes the functions that train a network on a dataset.

    The optimiser is AdamW with betas 0.9 and 0.999 and epsilon 1e-8, and decays every
    parameter. An epoch takes each training image at most once, in whole batches: the
    remainder, fewer images than a batch, is another one in every epoch.

    Networks may differ in strength and still share one compiled program: where a
    regularizer's `intensity` or `rate` is an array, each network's own `strength`
    takes its place, if it has one (`takes_strengths` says if any is an array).

    Args:
        dataset: images and labels.
        make_regularizer: see `models.Network`.
        batch_size: images a step.
        learning_rate: constant.
        weight_decay: in units of the learning rate, as in PyTorch and optax.
        where: the regularizers are, see `models.Network`.
        augmented: False to train on the images as they are.
        dtype: of the computation; parameters and statistics are float32.

    Returns:
        See `Functions`.
    """
    tx = optax.adamw(learning_rate, weight_decay=weight_decay)

    def make_network(key: jax.Array) -> Network:
        return Network(
            make_regularizer,
            image_shape=dataset.train_images.shape[1:],
            num_classes=len(dataset.class_names),
            where=where,
            dtype=dtype,
            rngs=nnx.Rngs(params=stream(key, "init")),
        )

    # As one program, which compiles faster than every operation for itself.
    network = nnx.jit(make_network)(jax.random.key(0))
    # Banks are constants of a program unless they are given to it as arguments; as such
    # they need not be compiled, nor be kept with the compiled program.
    for _, layer in nnx.iter_modules(network):
        if isinstance(layer, NoiseInjection) and isinstance(layer.bank, NoiseBank):
            layer.bank = BankVariable(layer.bank.values)
    _, _, layers = nnx.state(network, nnx.Param, nnx.BatchStat, ...)
    train_graph, eval_graph = (
        nnx.graphdef(nnx.view(network, deterministic=mode, use_running_average=mode))
        for mode in (False, True)
    )

    def init(key: jax.Array, strength: jax.Array | None = None) -> TrainState:
        params, batch_stats = nnx.state(make_network(key), nnx.Param, nnx.BatchStat)
        return TrainState(params, batch_stats, tx.init(params), key, strength)

    def loss_fn(params, batch_stats, layers, images, labels, key):
        # A copy, because BatchNorm assigns to its variables.
        model = nnx.merge(train_graph, params, batch_stats, layers, copy=True)
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
        layers = _set_strength(constants.layers, state.strength)

        def train_step(step, carry):
            (params, batch_stats, opt_state, key, strength), total = carry
            batch = lax.dynamic_slice_in_dim(order, step * batch_size, batch_size)
            images = constants.train_images[batch]
            if augmented:
                images = augment(jax.random.fold_in(augment_key, step), images)
            (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                params,
                batch_stats,
                layers,
                normalize(images),
                constants.train_labels[batch],
                jax.random.fold_in(noise_key, step),
            )
            updates, opt_state = tx.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            state = TrainState(params, batch_stats, opt_state, key, strength)
            return state, total + loss

        return lax.fori_loop(start, stop, train_step, (state, total))

    def evaluate(state, constants):
        model = nnx.merge(eval_graph, state.params, state.batch_stats, constants.layers)
        images = constants.test_images
        size = EVALUATION_BATCH[jax.default_backend() == "cpu"]
        padding = [(0, -len(images) % size), (0, 0), (0, 0), (0, 0)]
        batches = jnp.pad(images, padding).reshape(-1, size, *images.shape[1:])
        logits = lax.map(lambda batch: model(normalize(batch)), batches)
        return logits.reshape(-1, logits.shape[-1])[: len(images)]

    constants = Constants(
        layers,
        jnp.asarray(dataset.train_images),
        jnp.asarray(dataset.train_labels),
        jnp.asarray(dataset.test_images),
    )
    return Functions(init, shuffle, train_steps, evaluate, constants)


def takes_strengths(functions: Functions) -> bool:
    """Returns whether networks can differ in strength, see `make_functions`."""
    leaves = jax.tree_util.tree_leaves_with_path(functions.constants.layers)
    return any(_is_strength(path) for path, _ in leaves)


def _is_strength(path: tuple) -> bool:
    return any(getattr(key, "key", None) in ("intensity", "rate") for key in path)


def _set_strength(layers: nnx.State, strength: jax.Array | None) -> nnx.State:
    if strength is None:
        return layers
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: strength if _is_strength(path) else leaf, layers
    )


class Trainer:
    """Trains the networks of several seeds, on all devices of a mesh.

    If these are of several processes, each makes a trainer and trains it, and what one
    reports, all report.

    Args:
        functions: of one seed.
        seeds: one network each; a seed's numbers do not depend on the others.
        strengths: of each network's regularizers, see `make_functions`.
        seeds_at_once: see `ensembles.map_seeds`; None for as many as fit the memory.
        mesh: see `ensembles.map_seeds`; None for one device.

    Attributes:
        num_seeds: the number of networks.
        seeds_at_once: what was asked for, or what fits.
        compile_seconds: what the compilations took.
    """

    def __init__(
        self,
        functions: Functions,
        seeds: Sequence[int],
        *,
        strengths: Sequence[float] | None = None,
        seeds_at_once: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.num_seeds = len(seeds)
        self._mesh = mesh
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
        own = None if strengths is None else jnp.asarray(strengths, jnp.float32)
        self._constants = functions.constants
        device, num_seeds = jax.devices()[0], len(seeds)
        if mesh is not None:
            # Once, and not at every call.
            padded = ensembles.pad_seeds((keys, own), mesh=mesh)
            keys, own = ensembles.place(padded, mesh=mesh, spec=P(ensembles.SEEDS))
            self._constants = ensembles.place(self._constants, mesh=mesh, spec=P())
            device, num_seeds = mesh.local_devices[0], len(keys) // mesh.size

        def compile(fn, in_axes, *arguments, at_once, **settings):
            mapped = ensembles.map_seeds(
                fn, in_axes=in_axes, seeds_at_once=at_once, mesh=mesh
            )
            return jax.jit(mapped, **settings).lower(*arguments).compile()

        def compile_to_fit(*arguments, **settings):
            def compile_with(at_once):
                return compile(*arguments, at_once=at_once, **settings)

            if seeds_at_once is not None:
                return seeds_at_once, compile_with(seeds_at_once)
            memory = ensembles.free_memory(device)
            return ensembles.fit_seeds_at_once(
                compile_with, num_seeds, memory=memory, mesh=mesh
            )

        start = time.perf_counter()
        # Each is compiled ahead of its first use, so that no timing includes it.
        init = compile(functions.init, (0, 0), keys, own, at_once=None)
        self._state = init(keys, own)
        self._zeros = jnp.zeros(len(keys))
        if mesh is not None:
            spec = P(ensembles.SEEDS)
            self._zeros = ensembles.place(self._zeros, mesh=mesh, spec=spec)
        self._shuffle = compile(functions.shuffle, (0, None), keys, 0, at_once=None)
        self.seeds_at_once, self._train_steps = compile_to_fit(
            functions.train_steps,
            (0, 0, None, 0, None, None, None),
            *(self._state, self._zeros, self._constants, self._shuffle(keys, 0)),
            *(0, 0, 0),
            donate_argnums=0,
        )
        _, self._evaluate = compile_to_fit(
            functions.evaluate, (0, None), self._state, self._constants
        )
        self.compile_seconds = time.perf_counter() - start

    def train(
        self,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        start: Progress | None = None,
    ) -> Iterator[Progress]:
        """Trains all networks, and reports after every compiled call.

        Args:
            num_epochs: number of epochs.
            steps_per_epoch: number of steps an epoch, at most the number of whole
                batches.
            start: where the state that was loaded had come to, or None for the start.

        Yields:
            Several times an epoch, and at its end. Where it starts at the end of an
            epoch, this end first.
        """
        num_steps = 1
        step, totals, seconds = 0, self._zeros, 0.0
        if start is not None:
            step, seconds = start.step, start.seconds
            totals = self._place(start.totals)
        for epoch in range(0 if start is None else start.epoch, num_epochs):
            begin = time.perf_counter()
            order = self._shuffle(self._state.key, epoch)
            while True:
                stop = min(step + num_steps, steps_per_epoch)
                self._state, totals = self._train_steps(
                    self._state, totals, self._constants, order, epoch, step, stop
                )
                own_totals = ensembles.gather(totals)[: self.num_seeds]
                elapsed = time.perf_counter() - begin
                if self._mesh is not None:
                    # All processes do the same steps, by the slowest clock.
                    elapsed = float(ensembles.exchange(elapsed, mesh=self._mesh).max())
                seconds += elapsed
                num_steps = round((stop - step) * SECONDS_PER_CALL / elapsed) or 1
                step = stop
                yield Progress(epoch, step, own_totals, seconds)
                if step == steps_per_epoch:
                    break
                begin = time.perf_counter()
            step, totals = 0, self._zeros

    def evaluate(self, images: np.ndarray | None = None) -> np.ndarray:
        """Classifies images, with the one program that classifies the test set.

        Args:
            images: uint8 `[M, H, W, C]`; None for the test set.

        Returns:
            float32 `[S, M, num_classes]`, the logits.
        """
        if images is None:
            return self._logits(self._constants)
        size = len(self._constants.test_images)
        logits = []
        for start in range(0, len(images), size):
            block = images[start : start + size]
            padding = [(0, size - len(block)), (0, 0), (0, 0), (0, 0)]
            placed = jnp.asarray(np.pad(block, padding))
            if self._mesh is not None:
                placed = ensembles.place(placed, mesh=self._mesh, spec=P())
            constants = self._constants._replace(test_images=placed)
            logits.append(self._logits(constants)[:, : len(block)])
        return np.concatenate(logits, axis=1)

    def save_state(self) -> dict[str, np.ndarray]:
        """Copies the state of all networks to the host.

        Returns:
            Arrays `[S, ...]` by name, the same on any mesh.
        """
        named, _ = jax.tree_util.tree_flatten_with_path(self._plain_state())
        # Copied, because the device will write to what it has been given.
        return {
            _name(path): np.array(ensembles.gather(leaf)[: self.num_seeds])
            for path, leaf in named
        }

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes up a state that `save_state` returned, to go on from there.

        Raises:
            ValueError: if it is of other networks.
        """
        named, treedef = jax.tree_util.tree_flatten_with_path(self._plain_state())
        expected = {
            _name(path): (self.num_seeds, *leaf.shape[1:], leaf.dtype)
            for path, leaf in named
        }
        found = {name: (*array.shape, array.dtype) for name, array in arrays.items()}
        if found != expected:
            raise ValueError("the state is of networks with other arrays")
        leaves = [arrays[_name(path)] for path, _ in named]
        state = jax.tree_util.tree_unflatten(treedef, leaves)
        key = jax.random.wrap_key_data(
            jnp.asarray(state.key), impl=jax.random.key_impl(self._state.key)
        )
        self._state = self._place(jax.tree.map(jnp.asarray, state)._replace(key=key))

    def _plain_state(self) -> TrainState:
        """Returns the state with keys as numbers."""
        return self._state._replace(key=jax.random.key_data(self._state.key))

    def _place(self, tree: Any) -> Any:
        """Puts what has a value for each seed onto the devices."""
        if self._mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        padded = ensembles.pad_seeds(tree, mesh=self._mesh)
        return ensembles.place(padded, mesh=self._mesh, spec=P(ensembles.SEEDS))

    def _logits(self, constants: Constants) -> np.ndarray:
        logits = self._evaluate(self._state, constants)
        # Python hears no signal while it waits for a device, and many networks take
        # their time.
        while not logits.is_ready():
            time.sleep(0.005)
        return ensembles.gather(logits)[: self.num_seeds]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
