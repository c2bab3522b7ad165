"""What a compiler is given: training, evaluation and layers, without values."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import SingleDeviceSharding

from experiments.benchmarks.jax_contestants import make_plain_functions
from experiments.benchmarks.layers import CONTESTANTS, forward_and_backward
from experiments.data.dataset import Dataset
from experiments.runs.configs import Config
from experiments.training.steps import make_functions
from sounddrop_jax import ensembles

REG = "water"
PROGRAMS = ("train", "plain", "evaluate", "regularizers", "layers")
REGULARIZERS = ("none", "dropout", "gaussian", "water", "plane")
EPOCH_IMAGES, TEST_IMAGES = 50_000, 10_000  # of CIFAR-10


@dataclasses.dataclass(frozen=True)
class Case:
    """A program.

    Attributes:
        program: one of `PROGRAMS`.
        seeds: networks side by side; 1 without vmap of a layer.
        dtype: of the computation.
        layer: its name in `CONTESTANTS`, or in `REGULARIZERS`; of other programs "".
        shape: of the layer's maps.
        batch_size: of training, images a step.
    """

    program: str
    seeds: int
    dtype: str = "float32"
    layer: str = ""
    shape: tuple[int, ...] = ()
    batch_size: int = Config.batch_size

    @property
    def title(self) -> str:
        """What the case is called."""
        what = {
            "train": "training",
            "plain": "training, JAX's own layers",
            "evaluate": "evaluation",
            "regularizers": f"training, {self.layer}",
            "layers": f"{self.layer}, {'x'.join(map(str, self.shape))}",
        }[self.program]
        return f"{what}, {self.dtype}, {self.seeds} seeds"


Call = tuple[Any, tuple[Any, ...], int]
"""A function of `jax.jit`, its abstract arguments, and how many images it takes."""


def prepare(case: Case, model: str, device: jax.Device) -> Call:
    """Makes the function of a case, and its arguments without values.

    Args:
        case: what it is to do.
        model: the network, a name in `MODELS`; layers are the same for all.
        device: what it is for.
    """
    if case.program == "layers":
        return _prepare_layer(case, device)
    make = {
        "train": _prepare_training,
        "plain": _prepare_plain,
        "evaluate": _prepare_evaluation,
        "regularizers": _prepare_training,
    }
    return make[case.program](case, model)


@functools.cache
def _dataset() -> Dataset:
    """Returns a set of the size of CIFAR-10; what is in it does not matter."""
    parts = [
        (np.zeros((count, 32, 32, 3), np.uint8), np.zeros(count, np.int32))
        for count in (EPOCH_IMAGES, TEST_IMAGES)
    ]
    return Dataset("cifar10", "CIFAR-10", "", *parts[0], *parts[1], tuple("0123456789"))


@functools.cache
def _functions(model: str, dtype: str, batch_size: int, reg: str = REG):
    config = Config(reg=reg, model=model, batch_size=batch_size)
    return make_functions(
        _dataset(),
        config.recipe.prepare(config.strength),
        model=config.model,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dtype=jnp.dtype(dtype),
    )


def _keys(num_seeds: int):
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))


def _prepare_training(case: Case, model: str) -> Call:
    functions = _functions(model, case.dtype, case.batch_size, case.layer or REG)
    num_images = len(_dataset().train_labels)
    mapped = ensembles.map_seeds(
        functions.train_steps, in_axes=(0, 0, None, 0, None, None, None)
    )
    number = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = (
        jax.eval_shape(jax.vmap(functions.init), _keys(case.seeds)),
        jax.ShapeDtypeStruct((case.seeds,), jnp.float32),
        functions.constants,
        jax.ShapeDtypeStruct((case.seeds, num_images), jnp.int32),
        *3 * [number],
    )
    compiled = jax.jit(mapped, donate_argnums=0)
    return compiled, arguments, case.seeds * case.batch_size


def _prepare_plain(case: Case, model: str) -> Call:
    dataset = _dataset()
    config = Config(reg=REG, model=model, batch_size=case.batch_size)
    init, step = make_plain_functions(dataset, config)
    arguments = (
        jax.eval_shape(jax.vmap(init), _keys(case.seeds)),
        dataset.train_images,
        dataset.train_labels,
        jax.ShapeDtypeStruct((case.seeds, case.batch_size), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    mapped = jax.vmap(step, in_axes=(0, None, None, 0, None))
    compiled = jax.jit(mapped, donate_argnums=0)
    return compiled, arguments, case.seeds * case.batch_size


def _prepare_evaluation(case: Case, model: str) -> Call:
    functions = _functions(model, case.dtype, case.batch_size)
    state = jax.eval_shape(jax.vmap(functions.init), _keys(case.seeds))
    mapped = ensembles.map_seeds(functions.evaluate, in_axes=(0, None))
    num_images = case.seeds * len(_dataset().test_labels)
    return jax.jit(mapped), (state, functions.constants), num_images


def _prepare_layer(case: Case, device: jax.Device) -> Call:
    contestant = CONTESTANTS[case.layer]
    run = forward_and_backward(contestant)
    maps = jax.ShapeDtypeStruct(case.shape, case.dtype)
    keys: Any = jax.eval_shape(lambda: jax.random.key(0))
    if case.seeds > 1:
        run = jax.vmap(run, in_axes=(0, 0, 0, None))
        maps = jax.ShapeDtypeStruct((case.seeds, *case.shape), case.dtype)
        keys = _keys(case.seeds)
    bank = jax.eval_shape(lambda: contestant.make_bank(case.shape))
    # Results may take the place of the arguments, as in a training step: what goes
    # through as it is, such as the gradient of an addition, costs nothing. A copy has
    # to copy.
    in_place = () if case.layer == "copy" else (0, 1)
    place: Any = SingleDeviceSharding(device)
    of_maps = Format(_lay_out(maps.ndim, case.shape), place)
    if device.platform != "tpu":
        of_maps = place
    compiled = jax.jit(
        run,
        donate_argnums=in_place,
        in_shardings=(of_maps, of_maps, place, place),
        out_shardings=(of_maps, of_maps),
    )
    return compiled, (maps, maps, keys, bank), case.seeds * case.shape[0]


def _lay_out(rank: int, shape: tuple[int, ...]) -> Layout:
    """Returns how a TPU's convolutions leave the maps of merged seeds in its memory.

    So they lie in the compiled training step, from what changes last to what changes
    first: rows, columns, seeds if there are any, and a tile of channels and images, of
    which the one that has more of the two has the lanes.
    """
    images, *plane, channels = range(rank - 4, rank)
    tile = (channels, images) if shape[0] > shape[-1] else (images, channels)
    return Layout((*plane, *range(rank - 4), *tile))
