"""What Flax's users do with a Dropout, done with it and with every layer of ours.

A table: each layer, and fresh noise, a bank, an array, a schedule or a range as
intensity, go through all that the Dropout in the first row goes through.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import linen as nn
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal

import sounddrop_jax
from sounddrop_jax import IntensityRange, IntensityVariable, linen
from tests.layers import INPUTS, KEY, RECORDING, ROWS, differ

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
SCHEDULE = optax.linear_schedule(0.1, 1.0, transition_steps=10)


@dataclasses.dataclass(eq=False)  # so that it can be a field of a Linen module
class Client:
    """A layer of NNX and its twin in Linen, and how they are made."""

    name: str
    kind: str
    settings: dict[str, Any]

    def make(self, rngs: nnx.Rngs) -> nnx.Module:
        module = nnx if self.name == "Dropout" else sounddrop_jax
        return getattr(module, self.name)(**self.settings, rngs=rngs)

    def make_linen(self) -> nn.Module:
        module = nn if self.name == "Dropout" else linen
        return getattr(module, self.name)(**self.settings)

    @property
    def linen_call(self) -> dict[str, Any]:
        return {"step": 3} if self.kind == "schedule" else {}


DROPOUT = Client("Dropout", "", {"rate": 0.5})
RANGE = {"intensity": IntensityRange(0.1, 1.0, log=True), "channel_correlation": 0.5}
# The classes differ in what they are made with, so not each is of every kind.
CLIENTS = [
    DROPOUT,
    Client("NoiseInjection", "bank", {"intensity": 0.5, "bank": ROWS}),
    Client("WaterNoiseLayer", "fresh", {"intensity": 0.5}),
    Client("WaterNoiseLayer", "schedule", {"intensity": SCHEDULE, "bank": ROWS}),
    Client(
        "AphexNoiseLayer", "array", {"intensity": jnp.float32(0.25), "bank": RECORDING}
    ),
    Client("GaussianNoiseLayer", "range", RANGE),
]
each_client = pytest.mark.parametrize(
    "client", CLIENTS, ids=lambda client: f"{client.name} {client.kind}".strip()
)


class Model(nnx.Module):
    """A layer behind parameters and statistics, and with a stream of its own."""

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], rngs: nnx.Rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.layer = make(rngs)

    def __call__(self, inputs):
        return self.layer(self.norm(self.linear(inputs)))


def make_model(client: Client, seed: int = 0) -> Model:
    return Model(client.make, nnx.Rngs(seed))


def check_noise(outputs, *others):
    """Checks that outputs are finite, and not what others are."""
    assert np.isfinite(np.asarray(outputs, np.float32)).all()
    for other in others:
        assert differ(outputs, other)


# NNX


@each_client
def test_state_and_size_are_those_of_dropout(client):
    ours, theirs = (nnx.state(make_model(each)) for each in (client, DROPOUT))
    if client.kind == "array":
        assert ours["layer"].pop("intensity")[...] == 0.25
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert [leaf.shape for leaf in jax.tree.leaves(ours)] == [
        leaf.shape for leaf in jax.tree.leaves(theirs)
    ]


@each_client
def test_split_by_filters_and_merge(client):
    model = make_model(client)
    own = [IntensityVariable] if client.kind == "array" else []
    filters = nnx.Param, nnx.BatchStat, nnx.RngState, *own
    graphdef, *states = nnx.split(model, *filters)
    leaves = jax.tree.leaves(nnx.state(model))
    for merged in (nnx.merge(graphdef, *states), nnx.merge(graphdef, leaves)):
        assert_array_equal(merged(INPUTS), make_model(client)(INPUTS))
    check_noise(merged(INPUTS), make_model(client, 1)(INPUTS))


@each_client
def test_merge_within_a_functional_step(client):
    graphdef, state = nnx.split(make_model(client))

    @jax.jit
    def step(state):
        model = nnx.merge(graphdef, state)
        outputs = model(INPUTS)
        return outputs, nnx.state(model)

    first, state = step(state)
    second, state = step(state)
    check_noise(second, first)
    assert step._cache_size() == 1


def as_arrays(state: nnx.State) -> dict:
    """A state as people save it: keys as the numbers that they are made of."""

    def convert(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(convert, nnx.to_pure_dict(state))


def change(model: Model) -> Model:
    """Gives a model other numbers than those that it was made with."""
    model.linear.kernel[...] += 1
    model.norm.mean[...] += 2
    if isinstance(getattr(model.layer, "intensity", None), IntensityVariable):
        model.layer.intensity[...] = 0.75
    return model


def pairs(client: Client):
    """Which checkpoint goes into which model."""
    if client.kind == "array":  # has a variable that a Dropout has not
        return [(client, client)]
    return [(client, DROPOUT), (DROPOUT, client)]


@each_client
def test_a_checkpoint_of_either_goes_into_the_other(client, tmp_path):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        for index, (source, target) in enumerate(pairs(client)):
            saved = as_arrays(nnx.state(change(make_model(source))))
            checkpointer.save(tmp_path / str(index), saved)
            checkpointer.wait_until_finished()
            abstract = nnx.eval_shape(lambda target=target: make_model(target, seed=1))
            template = jax.eval_shape(as_arrays, nnx.state(abstract))
            restored = checkpointer.restore(tmp_path / str(index), template)
            jax.tree.map(assert_array_equal, restored, saved)
            # And by msgpack.
            template = as_arrays(nnx.state(make_model(target, seed=1)))
            data = flax.serialization.to_bytes(saved)
            restored = flax.serialization.from_bytes(template, data)
            jax.tree.map(assert_array_equal, restored, saved)


@each_client
def test_a_model_is_made_without_numbers_and_given_them(client):
    model = change(make_model(client))
    mesh = jax.make_mesh((1,), ("data",))
    for abstract in (
        nnx.eval_shape(lambda: make_model(client, seed=1)),
        nnx.merge(*nnx.get_abstract_model(lambda: make_model(client), mesh)),
    ):
        for leaf in jax.tree.leaves(nnx.state(abstract)):
            assert isinstance(leaf, jax.ShapeDtypeStruct)
        nnx.update(abstract, nnx.state(model))
        expected = nnx.clone(model)(INPUTS)
        assert_array_equal(nnx.clone(abstract)(INPUTS), expected)


@each_client
def test_a_model_is_made_within_a_compiled_function(client):
    model = nnx.jit(lambda: make_model(client))()
    outputs = nnx.jit(lambda model: model(INPUTS))(model)
    assert_allclose(outputs, make_model(client)(INPUTS), atol=1e-5)


@nnx.split_rngs(splits=4)
@nnx.vmap(in_axes=(None, 0), out_axes=0, graph=True, graph_updates=True)
def make_stack(client, rngs):
    return Model(client.make, rngs)


@each_client
def test_scan_over_layers(client):
    stack = make_stack(client, nnx.Rngs(0))
    assert stack.linear.kernel.shape == (4, 3, 3)

    @nnx.scan(
        in_axes=(0, nnx.Carry), out_axes=nnx.Carry, graph=True, graph_updates=True
    )
    def forward(model, inputs):
        return model(inputs)

    check_noise(forward(stack, INPUTS), forward(stack, INPUTS))

    graphdef, state = nnx.split(stack)
    outputs, _ = jax.lax.scan(
        lambda inputs, part: (nnx.merge(graphdef, part)(inputs), None), INPUTS, state
    )
    check_noise(outputs, INPUTS)


@each_client
def test_vmap_over_seeds(client):
    models = make_stack(client, nnx.Rngs(0))
    graphdef, state = nnx.split(models)
    outputs = jax.vmap(lambda state: nnx.merge(graphdef, state)(INPUTS))(state)
    check_noise(outputs[0], *outputs[1:])
    if client.kind == "bank":
        assert models.layer.bank.values is client.settings["bank"].values
    one = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[2], state))
    assert_allclose(one(INPUTS), outputs[2], atol=1e-4)

    @nnx.vmap(in_axes=(0, None), graph=True, graph_updates=True)
    def apply(model, inputs):
        return model(inputs)

    assert_allclose(apply(models, INPUTS), outputs, atol=1e-5)


@each_client
def test_split_rngs_and_state_axes(client):
    layer = client.make(nnx.Rngs(0))
    axes = nnx.StateAxes({nnx.RngState: 0, ...: None})

    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=(axes, None), graph=True, graph_updates=True)
    def apply(layer, inputs):
        return layer(inputs)

    first, second, third = apply(layer, INPUTS)
    check_noise(first, second, third)
    check_noise(second, third)
    assert np.shape(layer.rngs.key[...]) == ()


@each_client
def test_remat(client):
    def loss(model):
        return (model(INPUTS) ** 2).sum()

    expected = nnx.grad(loss, graph=True)(make_model(client))
    gradient = nnx.grad(nnx.remat(loss), graph=True)(make_model(client))
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@each_client
def test_an_average_over_the_states_of_two_models(client):
    models = make_model(client), make_model(client, seed=1)

    def average(one, other):
        is_number = jnp.issubdtype(one.dtype, jnp.floating)
        return 0.9 * one + 0.1 * other if is_number else one

    states = (nnx.state(model) for model in models)
    nnx.update(models[0], jax.tree.map(average, *states))
    check_noise(models[0](INPUTS))


@each_client
def test_a_layer_of_a_model_is_replaced(client):
    model = make_model(DROPOUT)
    before = nnx.jit(lambda model: model(INPUTS))(model)
    model.layer = client.make(nnx.Rngs(3))
    check_noise(nnx.jit(lambda model: model(INPUTS))(model), before)
    strength = "rate" if client is DROPOUT else "intensity"
    setattr(model.layer, strength, 0.0)
    model.norm.use_running_average = True
    outputs = nnx.jit(lambda model: model(INPUTS))(model)
    assert_allclose(outputs, model.norm(model.linear(INPUTS)), atol=1e-6)


@each_client
def test_training_updates_the_parameters_alone(client):
    model = make_model(client)
    before = nnx.state(nnx.clone(model))
    grads = nnx.grad(lambda model: (model(INPUTS) ** 2).mean(), graph=True)(model)
    assert grads.keys() == {"linear", "norm"}
    optimizer = nnx.Optimizer(model, optax.adamw(0.1), wrt=nnx.Param)
    optimizer.update(model, grads)
    after = nnx.state(model)
    assert differ(after["linear"]["kernel"][...], before["linear"]["kernel"][...])
    if client.kind == "array":
        assert after["layer"]["intensity"][...] == 0.25


@each_client
def test_export_with_any_batch(client):
    graphdef, state = nnx.split(make_model(client))
    shape = jax.export.symbolic_shape("batch, 5, 6, 3")
    forward = jax.jit(lambda inputs: nnx.merge(graphdef, state, copy=True)(inputs))
    exported = jax.export.export(forward)(jax.ShapeDtypeStruct(shape, jnp.float32))
    for batch in (1, 2, 7):
        inputs = jax.random.normal(KEY, (batch, 5, 6, 3))
        check_noise(exported.call(inputs), inputs)


@each_client
@pytest.mark.parametrize("mode", ["additive", "relative"])
def test_strict_promotion_of_dtypes_and_ranks(client, mode):
    layer = client.make(nnx.Rngs(0))
    layer.mode = mode  # which a Dropout does not look at
    for dtype in DTYPES:
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            outputs = nnx.eval_shape(type(layer).__call__, layer, INPUTS.astype(dtype))
        assert outputs.dtype == dtype


@each_client
def test_variables_that_are_references(client):
    with nnx.var_defaults(ref=True):
        model = make_model(client)
        check_noise(model(INPUTS), model(INPUTS))


@each_client
def test_64_bit_numbers(client):
    with jax.enable_x64():
        model = client.make(nnx.Rngs(0))
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            outputs = model(INPUTS.astype(dtype))
            assert outputs.dtype == dtype
            check_noise(outputs, INPUTS)


# Linen


class LinenModel(nn.Module):
    client: Client

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        features = nn.Dense(3)(inputs)
        features = nn.BatchNorm(use_running_average=not train)(features)
        layer = self.client.make_linen()
        return layer(features, deterministic=not train, **self.client.linen_call)


def init(model: nn.Module, *arguments: Any, seed: int = 0) -> Any:
    keys = {"params": jax.random.key(seed), "dropout": KEY}
    return model.init(keys, INPUTS, *arguments)


def apply(model: nn.Module, variables: Any, *arguments: Any, seed: int = 7) -> Any:
    rngs = {"dropout": jax.random.key(seed)}
    settings = {"rngs": rngs, "mutable": ["batch_stats"]}
    return model.apply(variables, INPUTS, *arguments, **settings)[0]


@each_client
def test_linen_variables_are_those_of_dropout(client):
    ours, theirs = (init(LinenModel(each)) for each in (client, DROPOUT))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for source, target in ((ours, theirs), (theirs, ours)):
        data = flax.serialization.to_bytes(source)
        restored = flax.serialization.from_bytes(target, data)
        jax.tree.map(assert_array_equal, restored, source)


class Compiled(nn.Module):
    """A compiled module that is given a layer."""

    layer: nn.Module
    call: Any

    @nn.jit
    @nn.compact
    def __call__(self, inputs):
        features = nn.Dense(3)(inputs)
        return self.layer(features, deterministic=False, **dict(self.call))


@each_client
def test_linen_jit_with_the_layer_as_a_field(client):
    model = Compiled(client.make_linen(), tuple(client.linen_call.items()))
    variables = init(model)
    first, other = (apply(model, variables, seed=seed) for seed in (0, 1))
    check_noise(first, other, INPUTS)


@each_client
def test_linen_jit_of_the_layer(client):
    layer = client.make_linen()
    settings = client.settings | {"deterministic": False}
    compiled = nn.jit(type(layer))(**settings)
    for seed in range(2):
        rngs = {"dropout": jax.random.key(seed)}
        outputs = compiled.apply({}, INPUTS, rngs=rngs, **client.linen_call)
        check_noise(outputs, INPUTS)


@each_client
def test_linen_scan_and_remat(client):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, inputs, _):
            return LinenModel(client)(inputs), None

    deep = nn.scan(
        nn.remat(Block),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=4,
    )()
    variables = init(deep, None)

    def loss(params):
        outputs, _ = apply(deep, variables | {"params": params}, None)
        return (outputs**2).mean()

    for leaf in jax.tree.leaves(jax.grad(loss)(variables["params"])):
        assert len(leaf) == 4 and np.isfinite(leaf).all()


@each_client
def test_linen_vmap(client):
    members = nn.vmap(
        LinenModel,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=None,
        axis_size=3,
    )(client)
    outputs = apply(members, init(members))
    check_noise(outputs[0], *outputs[1:])


@each_client
def test_linen_export_with_any_batch(client):
    model = LinenModel(client)
    settings = {"rngs": {"dropout": KEY}, "mutable": ["batch_stats"]}
    step = jax.jit(functools.partial(model.apply, init(model), **settings))
    shape = jax.export.symbolic_shape("batch, 5, 6, 3")
    exported = jax.export.export(step)(jax.ShapeDtypeStruct(shape, jnp.float32))
    inputs = jax.random.normal(KEY, (7, 5, 6, 3))
    check_noise(exported.call(inputs)[0], inputs)


@each_client
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_linen_strict_promotion(client, dtype):
    layer = client.make_linen()
    settings = {"deterministic": False, "rng": KEY} | client.linen_call
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        outputs = jax.eval_shape(
            lambda inputs: layer.apply({}, inputs, **settings), INPUTS.astype(dtype)
        )
    assert outputs.dtype == dtype
