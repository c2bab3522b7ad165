"""One battery for all NNX layers: keys, modes, transformations and state."""

import copy
import functools
import inspect
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal

from sounddrop_jax import (
    AphexNoiseLayer,
    BankVariable,
    GaussianNoiseLayer,
    IntensityVariable,
    NoiseBank,
    NoiseInjection,
    WaterNoiseLayer,
    make_power_law_bank,
    make_recording_bank,
)
from tests.layers import CASES, INPUTS, KEY, PLANE, RECORDING, ROWS, TRACK, differ

CLASSES = [NoiseInjection, WaterNoiseLayer, AphexNoiseLayer, GaussianNoiseLayer]


def count_of(layer) -> int:
    """How many keys the layer has taken from its stream."""
    return int(layer.rngs.count[...])


def count_traces(function):
    """The function, and a list that grows by one each time it is traced."""
    traces = []

    @functools.wraps(function)
    def counted(*arguments):
        traces.append(arguments)
        return function(*arguments)

    return counted, traces


# The interface of nnx.Dropout


def keywords(function) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("method", ["__call__", "set_view"])
@pytest.mark.parametrize("layer", CLASSES)
def test_a_method_has_the_signature_of_that_of_dropout(layer, method):
    def parts(layer):
        parameters = inspect.signature(getattr(layer, method)).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    ours = parts(layer)
    if method == "__call__":
        assert ours.pop()[::2] == ("step", None)
    assert ours == parts(nnx.Dropout)


@pytest.mark.parametrize("layer", CLASSES)
def test_a_constructor_takes_the_keywords_of_dropout_first(layer):
    ours, theirs = keywords(layer.__init__), keywords(nnx.Dropout.__init__)
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default
    parameters = inspect.signature(layer.__init__).parameters.values()
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    if layer is not AphexNoiseLayer:  # whose recording comes first
        assert layer(0.25).intensity == 0.25  # where Dropout has its rate
    settings = {"broadcast_dims": (1,), "deterministic": None, "rng_collection": "a"}
    made = layer(intensity=0.5, bank=RECORDING, rngs=nnx.Rngs(0), **settings)
    assert {name: getattr(made, name) for name in settings} == settings
    assert isinstance(made.rngs, nnx.RngStream)


# What a layer computes


def test_a_layer_computes_what_the_pure_function_does(any_case):
    outputs = any_case.make()(INPUTS, rngs=KEY)
    expected = any_case.pure(KEY, INPUTS, intensity=0.5)
    assert_allclose(outputs, expected, atol=1e-5)
    assert differ(outputs, INPUTS)


@pytest.mark.parametrize(
    "shape", [(3,), (6, 3), (0, 5, 6, 3), (1, 5, 6, 3), (2, 2, 5, 6, 3)], ids=str
)
def test_inputs_of_any_rank_and_batch(any_case, shape):
    layer, inputs = any_case.make(), jnp.ones(shape)
    if len(shape) < any_case.min_rank:
        with pytest.raises(ValueError):
            layer(inputs, rngs=KEY)
        return
    # What the noise is for each rank is shown for the functions inside.
    assert jax.eval_shape(lambda: layer(inputs, rngs=KEY)).shape == shape


def test_integers_are_refused_while_training_only(case):
    inputs = jnp.ones(INPUTS.shape, jnp.int32)
    with pytest.raises(TypeError, match="floating point features"):
        case.make()(inputs, rngs=KEY)
    assert case.make(deterministic=True)(inputs) is inputs


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("intensity", [0.3, [0.0, 0.5, 2.0]], ids=str)
def test_an_intensity_is_a_number_or_an_array(intensity, kind):
    case = CASES["row bank"]
    layer = case.make(intensity=kind(intensity))
    expected = case.pure(KEY, INPUTS, intensity=jnp.asarray(intensity))
    assert_allclose(layer(INPUTS, rngs=KEY), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *[("intensity", value, ValueError) for value in (math.nan, np.array([1, -1]))],
        *[("intensity", value, TypeError) for value in ("0.1", nnx.Param(0.1))],
        *[("bank", ROWS.values, TypeError), ("mode", "add", ValueError)],
    ],
    ids=["nan", "negative", "text", "parameter", "array", "mode"],
)
def test_a_setting_that_will_not_do_is_refused(name, value, error):
    layer = WaterNoiseLayer(0.3)
    with pytest.raises(error, match=f"^{name} must be"):
        WaterNoiseLayer(**{name: value})
    with pytest.raises(error, match=f"^{name} must be"):
        setattr(layer, name, value)
    assert (layer.intensity, layer.bank, layer.mode) == (0.3, None, "additive")


# Modes


def test_evaluation_is_the_identity_and_takes_no_key(case):
    layer = case.make(deterministic=True, rngs=nnx.Rngs(0))
    assert layer(INPUTS) is INPUTS
    assert layer(INPUTS, rngs=KEY) is INPUTS
    assert count_of(layer) == 0
    assert case.make(deterministic=True)(INPUTS) is INPUTS  # nor does it need one


@pytest.mark.parametrize("intensity", [0, np.float32(0)])
def test_intensity_zero_is_the_identity_and_takes_no_key(case, intensity):
    layer = case.make(intensity=intensity, rngs=nnx.Rngs(0))
    assert layer(INPUTS) is INPUTS
    assert count_of(layer) == 0
    assert case.make(intensity=intensity)(INPUTS) is INPUTS


def test_the_call_overrules_the_mode_of_the_constructor(case):
    quiet, loud = (case.make(deterministic=mode) for mode in (True, False))
    assert differ(quiet(INPUTS, deterministic=False, rngs=KEY), INPUTS)
    assert loud(INPUTS, deterministic=True, rngs=KEY) is INPUTS
    undecided = case.make(deterministic=None)
    assert differ(undecided(INPUTS, deterministic=False, rngs=KEY), INPUTS)
    assert undecided(INPUTS, deterministic=True) is INPUTS


class Model(nnx.Module):
    """Layers deep inside a model, with parameters and statistics around them."""

    def __init__(self, *noises, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.noises = nnx.List(noises)

    def __call__(self, inputs, rngs=None):
        features = self.norm(self.linear(inputs))
        for noise in self.noises:
            features = noise(features, rngs=rngs)
        return features


def test_train_and_eval_switch_a_model(case):
    model = Model(case.make(), rngs=nnx.Rngs(0))
    model.eval()
    first = model(INPUTS)  # no key needed
    assert_array_equal(first, model(INPUTS))
    model.train()
    assert differ(model(INPUTS, rngs=KEY), model(INPUTS, rngs=jax.random.key(8)))
    model.set_attributes(deterministic=True, use_running_average=True)
    assert_allclose(model(INPUTS), model(INPUTS, rngs=KEY))


def test_a_view_changes_the_mode_of_a_copy_that_shares_the_state(case):
    model = Model(case.make(rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    quiet = nnx.view(model, deterministic=True, use_running_average=True)
    loud = nnx.view(quiet, deterministic=False)
    assert quiet.noises[0](INPUTS) is INPUTS
    assert differ(model.noises[0](INPUTS), INPUTS)
    assert differ(loud.noises[0](INPUTS), INPUTS)
    assert count_of(model.noises[0]) == count_of(quiet.noises[0]) == 2
    assert quiet.noises[0].bank is model.noises[0].bank


def test_a_view_without_a_mode_keeps_the_one_there_is():
    model = Model(CASES["white"].make(deterministic=True), rngs=nnx.Rngs(0))
    view = nnx.view(model, use_running_average=True)
    assert view.noises[0](INPUTS) is INPUTS


# Keys


def test_two_layers_or_calls_with_one_source_of_keys_differ():
    case = CASES["white"]
    for source in (lambda rngs: rngs, lambda rngs: rngs.dropout):
        rngs = nnx.Rngs(0)
        first, second = (case.make(rngs=source(rngs)) for _ in range(2))
        assert differ(first(INPUTS), second(INPUTS))
        assert rngs.dropout.count[...] == 2  # one for each layer, none for its calls
        called = case.make()
        first, second = (called(INPUTS, rngs=source(rngs)) for _ in range(2))
        assert differ(first, second)
        assert rngs.dropout.count[...] == 4


def test_keys_come_from_the_call_in_any_form_or_from_the_constructor(case):
    def rngs():
        return nnx.Rngs(params=0, dropout=1)

    called = case.make()
    expected = called(INPUTS, rngs=rngs().dropout())
    has_its_own = case.make(rngs=nnx.Rngs(5))
    for source in (rngs(), rngs().dropout, rngs().dropout()):
        assert_array_equal(has_its_own(INPUTS, rngs=source), expected)
    assert count_of(has_its_own) == 0

    expected = called(INPUTS, rngs=rngs().dropout.fork()())
    for source in (rngs(), rngs().dropout):
        assert_array_equal(case.make(rngs=source)(INPUTS), expected)


def test_keys_come_from_the_stream_that_rng_collection_names(case):
    layer = case.make(rng_collection="noise")
    expected = layer(INPUTS, rngs=nnx.Rngs(noise=1).noise())
    outputs = layer(INPUTS, rngs=nnx.Rngs(dropout=0, noise=1))
    assert_array_equal(outputs, expected)
    constructed = case.make(rng_collection="noise", rngs=nnx.Rngs(0, noise=1))
    expected = layer(INPUTS, rngs=nnx.Rngs(noise=1).noise.fork()())
    assert_array_equal(constructed(INPUTS), expected)


def test_an_old_style_key_gives_what_the_new_one_does(case):
    layer = case.make()
    outputs = layer(INPUTS, rngs=jax.random.PRNGKey(7))
    assert_array_equal(outputs, layer(INPUTS, rngs=jax.random.key(7)))


@pytest.mark.parametrize(
    ("settings", "call", "remedy"),
    [
        ({"deterministic": None}, {}, "nnx.view(model, deterministic=False)"),
        ({}, {}, "layer(inputs, rngs=nnx.Rngs(0)), or a key"),
        ({"intensity": len}, {"rngs": KEY}, "layer(inputs, rngs=rngs, step=step)"),
    ],
    ids=["mode", "keys", "step"],
)
def test_a_layer_that_lacks_something_says_how_to_give_it(case, settings, call, remedy):
    with pytest.raises(ValueError, match=f"^{case.name} ") as error:
        case.make(**settings)(INPUTS, **call)
    assert f"{case.name}(..., " in str(error.value) and remedy in str(error.value)


@pytest.mark.parametrize("wrong", [0, np.zeros(2, np.uint32), (KEY,)])
def test_what_is_no_source_of_keys_is_refused_by_name(case, wrong):
    name = f"^{case.name}: rngs must be"
    with pytest.raises(TypeError, match=f"{name}.* or None, not .*{type(wrong)}"):
        case.make(rngs=wrong)
    with pytest.raises(TypeError, match=f"{name}.* or a key, not .*{type(wrong)}"):
        case.make()(INPUTS, rngs=wrong)
    with pytest.raises(TypeError, match=name):
        case.make(rngs=KEY)  # it could not be advanced


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"exponent": 2.0, "axes": (-3, -2)},
        {"bank": make_power_law_bank(KEY, (8, 4), num_entries=2**13)},
        {"bank": make_recording_bank(np.random.default_rng(0).standard_normal(2**18))},
    ],
    ids=["white", "plane", "row bank", "recording"],
)
def test_seeds_layers_and_steps_are_independent(settings):
    inputs = jnp.zeros((8, 8, 8, 4))
    noises = []
    for seed in range(2):
        rngs = nnx.Rngs(seed)
        layers = [NoiseInjection(1.0, rngs=rngs, **settings) for _ in range(2)]
        noises += [layer(inputs).ravel() for layer in layers for _ in range(2)]
    correlations = np.corrcoef(noises)
    # 5 standard errors of a mean of products of independent noise: the plane is worth
    # 2.6 times fewer numbers than the 2,048 there are.
    error = 5 * math.sqrt(2.6 / inputs.size)
    assert np.abs(correlations[~np.eye(8, dtype=bool)]).max() < error


# Transformations


def test_nnx_jit_traces_once_and_equals_eager(case):
    layer, twin = (case.make(rngs=nnx.Rngs(0)) for _ in range(2))
    function, traces = count_traces(lambda layer: layer(INPUTS))
    apply = nnx.jit(function)
    for num_calls in (1, 2, 3):
        assert_allclose(apply(layer), twin(INPUTS), atol=1e-5)
        assert count_of(layer) == num_calls
    assert len(traces) == 1


def test_jit_of_a_merged_layer_traces_once_over_keys_and_intensities(any_case):
    layer = any_case.make(intensity=jnp.float32(1))
    graphdef = nnx.graphdef(layer)
    apply = jax.jit(lambda state, key: nnx.merge(graphdef, state)(INPUTS, rngs=key))
    for seed, intensity in enumerate([0.0, 0.3, 2.0]):
        key = jax.random.key(seed)
        layer.intensity = jnp.float32(intensity)
        expected = any_case.pure(key, INPUTS, intensity=intensity)
        assert_allclose(apply(nnx.state(layer), key), expected, atol=1e-5)
    assert apply._cache_size() == 1


# State


def test_a_bank_in_a_variable_is_state_and_an_argument_of_a_program():
    layer = WaterNoiseLayer(0.5, bank=BankVariable(ROWS.values))
    assert nnx.state(layer, BankVariable).keys() == {"bank"}
    graphdef, state = nnx.split(layer)
    add = jax.jit(lambda state, key: nnx.merge(graphdef, state)(INPUTS, rngs=key))
    expected = CASES["row bank"].pure(KEY, INPUTS, intensity=0.5)
    assert_allclose(add(state, KEY), expected, atol=1e-5)
    doubled = jax.tree.map(lambda values: 2 * values, state)
    assert_allclose(add(doubled, KEY), INPUTS + 2 * (expected - INPUTS), atol=1e-5)


def test_settings_are_changed_by_assignment():
    layer = WaterNoiseLayer(0.3, rngs=nnx.Rngs(0))
    add = nnx.jit(lambda layer, key: layer(INPUTS, rngs=key))

    def check(**settings):
        expected = CASES["white"].pure(KEY, INPUTS, **settings)
        assert_allclose(add(layer, KEY), expected, atol=1e-5)

    check(intensity=0.3, exponent=1.0)
    layer.bank = BankVariable(PLANE.values)
    check(intensity=0.3, bank=PLANE)
    layer.bank = ROWS
    for intensity in (jnp.float32(0.4), 0.6):
        layer.intensity = intensity
        check(intensity=intensity, bank=ROWS)
        arrays = jax.tree.leaves(nnx.state(layer, IntensityVariable))
        assert len(arrays) == isinstance(intensity, jax.Array)
    layer.bank, layer.intensity = None, IntensityVariable(jnp.float32(0.6))
    layer.exponent, layer.mode, layer.broadcast_dims = 0.0, "multiplicative", (0,)
    check(intensity=0.6, mode="multiplicative", broadcast_dims=(0,))
    # As the constructor takes them, and as Flax can hash them.
    layer.axes, layer.broadcast_dims = -2, [0]
    check(intensity=0.6, mode="multiplicative", broadcast_dims=(0,))


@pytest.mark.parametrize("copied", [copy.deepcopy, nnx.clone])
def test_a_copy_of_a_layer_adds_the_same_noise(copied):
    layer = CASES["row bank"].make()
    twin = copied(layer)
    assert_array_equal(twin(INPUTS, rngs=KEY), layer(INPUTS, rngs=KEY))
    assert jax.tree.leaves(nnx.state(twin)) == jax.tree.leaves(nnx.state(layer)) == []
    assert twin.bank.values is layer.bank.values


def test_layers_of_one_bank_share_a_program_and_of_another_do_not():
    @jax.jit
    def apply(layer):
        return nnx.merge(*layer)(INPUTS, rngs=KEY)

    # Of other numbers, that a program of the first bank would not add.
    other = NoiseBank(2 * ROWS.values)
    outputs = [
        apply(nnx.split(WaterNoiseLayer(0.5, bank=bank)))
        for bank in (ROWS, NoiseBank(ROWS.values), other)
    ]
    assert apply._cache_size() == 2
    assert_array_equal(outputs[0], outputs[1])
    assert_allclose(outputs[2] - INPUTS, 2 * (outputs[0] - INPUTS), 1e-4)


@pytest.mark.parametrize("key", [3, jax.random.key(3)], ids=["seed", "key"])
def test_a_bank_made_within_a_transformation_is_a_constant_too(key):
    made = []

    def make():
        made.append(make_power_law_bank(key, (6, 3), num_entries=64))
        made.append(make_recording_bank(TRACK))
        layers = [NoiseInjection(0.5, bank=bank) for bank in made[-2:]]
        return Model(*layers, rngs=nnx.Rngs(0))

    expected = NoiseInjection(0.5, bank=make_power_law_bank(3, (6, 3), num_entries=64))
    for model in (nnx.jit(make)(), nnx.eval_shape(make)):
        assert nnx.state(model, BankVariable) == {}
        outputs = model.noises[0](INPUTS, rngs=KEY)
        assert_array_equal(outputs, expected(INPUTS, rngs=KEY))
    # Nor is one that was kept from there a tracer that leaked.
    for bank in made:
        assert np.isfinite(bank.values).all()


@pytest.mark.parametrize("graph", [True, False], ids=["graph mode", "tree mode"])
def test_layers_share_the_memory_of_a_bank_after_a_compiled_step_too(graph):
    with nnx.set_graph_mode(graph), nnx.set_graph_updates(graph):
        noises = [AphexNoiseLayer(bank=RECORDING, rngs=nnx.Rngs(i)) for i in range(2)]
        graphdef, state = nnx.split(Model(*noises, rngs=nnx.Rngs(0)))

        @jax.jit
        def step(state):
            model = nnx.merge(graphdef, state, copy=True)
            return model(INPUTS), nnx.state(model)

        outputs, state = step(state)
        banks = nnx.merge(graphdef, state).noises
    expected = Model(*noises, rngs=nnx.Rngs(0))(INPUTS)
    assert_allclose(outputs, expected, atol=1e-5)
    assert [count_of(noise) for noise in banks] == [1, 1]
    pointers = {noise.bank.values.unsafe_buffer_pointer() for noise in banks}
    assert pointers == {RECORDING.values.unsafe_buffer_pointer()}


def test_in_tree_mode_no_gradient_reaches_a_bank():
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        layer = CASES["row bank"].make(intensity=jnp.float32(0.5))
        gradient = nnx.grad(lambda layer: layer(INPUTS, rngs=KEY).sum())(layer)
    (leaf,) = jax.tree.leaves(gradient)
    assert np.shape(leaf) == ()  # of the intensity


def test_a_layer_uses_a_key_once(case):
    with jax.debug_key_reuse(True):
        layer = case.make(rngs=nnx.Rngs(0))
        layer(INPUTS)
        layer(INPUTS)
        key = jax.random.key(3)
        layer(INPUTS, rngs=key)
        with pytest.raises(jax.errors.KeyReuseError):
            layer(INPUTS, rngs=key)


# Schedules


def test_a_schedule_is_asked_for_the_step_of_the_call(case):
    schedule = optax.linear_schedule(0.0, 1.0, transition_steps=4)
    layer = case.make(intensity=schedule)
    for step in (2, 0, jnp.int32(3)):
        outputs = layer(INPUTS, rngs=KEY, step=step)
        expected = case.pure(KEY, INPUTS, intensity=step / 4)
        assert_allclose(outputs, expected, atol=1e-5)


def test_a_schedule_without_a_step_counts_the_keys_of_the_layer(case):
    schedule = optax.linear_schedule(0.0, 1.0, transition_steps=4)
    layer = case.make(intensity=schedule, rngs=nnx.Rngs(0))
    twin = case.make(intensity=0.5, rngs=nnx.Rngs(0))
    function, traces = count_traces(lambda layer: layer(INPUTS))
    apply = nnx.jit(function)
    for step in range(3):
        assert layer(INPUTS, deterministic=True) is INPUTS  # and does not count
        assert count_of(layer) == step
        expected = case.pure(twin.rngs(), INPUTS, intensity=step / 4)
        assert_allclose(apply(layer), expected, atol=1e-5)
    assert len(traces) == 1
    resumed = nnx.merge(*nnx.split(layer))
    expected = case.pure(twin.rngs(), INPUTS, intensity=3 / 4)
    assert_allclose(resumed(INPUTS), expected, atol=1e-5)


def test_a_schedule_may_look_back():
    # What streams count in cannot be negative.
    layer = NoiseInjection(
        lambda step: jnp.where(step - 1 < 0, 0.5, 0.0), rngs=nnx.Rngs(0)
    )
    assert differ(layer(INPUTS), INPUTS)
    assert_array_equal(layer(INPUTS), INPUTS)


# Recordings


def test_aphex_takes_one_recording(recording_file):
    for settings in ({}, {"file_path": recording_file, "bank": RECORDING}):
        with pytest.raises(ValueError, match="give file_path=... or bank="):
            AphexNoiseLayer(**settings)


def test_aphex_takes_the_path_first(recording_file):
    layer = AphexNoiseLayer(recording_file, 0.3)
    assert layer.intensity == 0.3
    assert_allclose(layer.bank.values, RECORDING.values, atol=1e-5)


# Donation, and streams that are assigned


@functools.partial(nnx.jit, donate_argnums=0)
def donate_and_call(layers):
    outputs = jnp.ones((4, 6, 4))
    for layer in layers:
        outputs = layer(outputs)
    return outputs


@pytest.mark.parametrize("num_layers", [1, 2])
def test_an_array_as_intensity_stays_its_owner_s(num_layers):
    intensity = jnp.float32(0.1)
    rngs = nnx.Rngs(0)
    layers = nnx.List([NoiseInjection(intensity, rngs=rngs) for _ in range(num_layers)])
    for _ in range(2):
        donate_and_call(layers)
    assert float(intensity) == pytest.approx(0.1)


@pytest.mark.skipif(
    os.environ.get("NNX_GRAPH_MODE") == "false", reason="Flax shares nothing in trees"
)
def test_layers_may_share_a_bank_s_variable_and_be_donated():
    bank = make_power_law_bank(0, (6, 4), num_entries=64)
    variable = BankVariable(bank.values.copy())
    rngs = nnx.Rngs(0)
    layers = nnx.List([WaterNoiseLayer(bank=variable, rngs=rngs) for _ in range(2)])
    for _ in range(2):
        donate_and_call(layers)
    assert bool(jnp.isfinite(bank.values).all())


def test_a_schedule_counts_the_keys_of_a_stream_that_was_assigned():
    layer = NoiseInjection(lambda step: 0.1 * step, rngs=nnx.Rngs(0))
    for rngs in (nnx.Rngs(dropout=3), nnx.Rngs(dropout=3).dropout):
        layer.rngs = rngs
        spreads = [float(layer(jnp.zeros((64, 32, 32))).std()) for _ in range(3)]
        assert_allclose(spreads, [0, 0.1, 0.2], atol=0.01)


def test_white_noise_is_added_to_a_scalar():
    layer = GaussianNoiseLayer(0.5, rngs=nnx.Rngs(0))
    outputs = layer(jnp.float32(1.0))
    assert outputs.shape == () and outputs != 1
