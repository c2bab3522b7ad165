"""One battery for all Linen layers, with the expectations of `linen.Dropout`."""

import inspect
import math

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import sounddrop_jax
from sounddrop_jax import linen
from sounddrop_jax.audio import AudioError
from tests.layers import CASES, INPUTS, KEY, NAMES, RECORDING, ROWS, differ

OTHER_KEY = jax.random.key(8)


def apply(layer, inputs=INPUTS, key=None, **settings):
    rngs = None if key is None else {"dropout": key}
    return layer.apply({}, inputs, rngs=rngs, **settings)


# The interface of linen.Dropout


def fields(layer) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(layer).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_takes_what_that_of_dropout_takes(name):
    ours, theirs = list(fields(getattr(linen, name)).values()), fields(nn.Dropout)
    if name == "AphexNoiseLayer":
        assert ours.pop(0).name == "file_path"  # as in NNX
    for mine, field in zip(ours[1:], list(theirs.values())[1:4], strict=False):
        assert (mine.name, mine.kind) == (field.name, field.kind)
        assert mine.default == field.default
    assert theirs.keys() - {"rate"} <= {field.name for field in ours}
    assert ours[0].name == "intensity"


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_takes_what_its_twin_in_nnx_does_in_its_order(name):
    ours = [each for each in fields(getattr(linen, name)) if each[0] != "_"]
    _, *theirs = inspect.signature(getattr(sounddrop_jax, name).__init__).parameters
    # Linen's modules have a parent and a name; and take no keys but at the call.
    ours = [each for each in ours if each not in ("parent", "name")]
    assert ours == [each for each in theirs if each != "rngs"]


@pytest.mark.parametrize("name", NAMES)
def test_the_call_has_the_signature_of_that_of_dropout(name):
    def parts(layer):
        parameters = inspect.signature(layer.__call__).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    *ours, step = parts(getattr(linen, name))
    assert ours == parts(nn.Dropout)
    assert step[::2] == ("step", None)


# What a layer computes


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_has_the_settings_of_its_twin_in_nnx_where_none_are_given(name):
    settings = {"bank": RECORDING} if name == "AphexNoiseLayer" else {}
    settings |= {"intensity": 0.5} if name == "NoiseInjection" else {}
    layer, twin = (
        getattr(module, name)(**settings) for module in (linen, sounddrop_jax)
    )
    theirs = inspect.signature(type(twin).__init__).parameters
    for setting in fields(type(layer)).keys() & theirs.keys():
        if setting not in ("deterministic", "file_path"):
            assert getattr(layer, setting) == getattr(twin, setting), setting


def test_a_layer_adds_what_its_twin_in_nnx_does(case):
    outputs = apply(case.make_linen(), deterministic=False, rng=KEY)
    np.testing.assert_array_equal(outputs, case.make()(INPUTS, rngs=KEY))
    expected = case.pure(KEY, INPUTS, intensity=0.5)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert differ(outputs, INPUTS)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_outputs_keep_the_dtype_of_the_inputs(case, dtype):
    inputs = INPUTS.astype(dtype)
    outputs = apply(case.make_linen(), inputs, deterministic=False, rng=KEY)
    assert outputs.dtype == dtype
    np.testing.assert_array_equal(outputs, case.make()(inputs, rngs=KEY))


def test_the_gradient_of_the_inputs_is_exactly_one(case):
    layer = case.make_linen(deterministic=False)
    gradient = jax.grad(lambda inputs: apply(layer, inputs, rng=KEY).sum())(INPUTS)
    expected = jnp.ones_like(INPUTS)
    if layer.mode == "multiplicative":
        expected = case.pure(KEY, expected, intensity=0.5)  # 1 + intensity * noise
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool])
def test_integers_are_refused_while_training_only(case, dtype):
    inputs = jnp.ones(INPUTS.shape, dtype)
    with pytest.raises(TypeError, match="floating point features"):
        apply(case.make_linen(), inputs, deterministic=False, rng=KEY)
    assert apply(case.make_linen(), inputs, deterministic=True) is inputs


@pytest.mark.parametrize("intensity", [math.nan, -0.1, math.inf, np.float32(-1)])
@pytest.mark.parametrize("deterministic", [True, False])
def test_an_intensity_out_of_range_is_refused(case, intensity, deterministic):
    layer = case.make_linen(intensity=intensity)
    with pytest.raises(ValueError, match="^intensity must be finite and 0 or above"):
        apply(layer, deterministic=deterministic, rng=KEY)


def test_what_is_no_intensity_or_mode_is_refused(case):
    with pytest.raises(TypeError, match="^intensity must be a number, an array or a"):
        apply(case.make_linen(intensity="song.wav"), deterministic=False, rng=KEY)
    with pytest.raises(ValueError, match="^mode must be one of additive, .* not 'add'"):
        apply(case.make_linen(mode="add"), deterministic=False, rng=KEY)


# Modes


def test_evaluation_is_the_identity_and_needs_no_key(case):
    assert apply(case.make_linen(deterministic=True)) is INPUTS
    assert apply(case.make_linen(), deterministic=True) is INPUTS


@pytest.mark.parametrize("intensity", [0, 0.0, np.float32(0)])
def test_intensity_zero_is_the_identity_and_needs_no_key(case, intensity):
    layer = case.make_linen(intensity=intensity, deterministic=False)
    assert apply(layer) is INPUTS


def test_the_call_overrules_the_mode_of_the_constructor(case):
    quiet, loud = (case.make_linen(deterministic=mode) for mode in (True, False))
    assert differ(apply(quiet, deterministic=False, rng=KEY), INPUTS)
    assert apply(loud, deterministic=True) is INPUTS


def test_a_layer_without_a_mode_says_how_to_give_one(case):
    with pytest.raises(ValueError) as error:
        apply(case.make_linen(), rng=KEY)
    assert str(error.value).startswith(f"{case.name} does not know whether to add")
    assert f"{case.name}(..., deterministic=False)" in str(error.value)
    assert "layer(inputs, deterministic=False)" in str(error.value)


# Keys


def test_the_key_decides_the_noise(case):
    layer = case.make_linen(deterministic=False)
    outputs = apply(layer, key=KEY)
    np.testing.assert_array_equal(outputs, apply(layer, key=KEY))
    assert differ(outputs, apply(layer, key=OTHER_KEY))


def test_the_key_of_the_call_overrules_the_stream(case):
    layer = case.make_linen(deterministic=False)
    outputs = apply(layer, key=OTHER_KEY, rng=KEY)
    np.testing.assert_array_equal(outputs, apply(layer, rng=KEY))


def test_the_stream_is_the_one_that_rng_collection_names(case):
    layer = case.make_linen(rng_collection="noise", deterministic=False)
    outputs = layer.apply({}, INPUTS, rngs={"noise": KEY, "dropout": OTHER_KEY})
    expected = apply(case.make_linen(deterministic=False), key=KEY)
    np.testing.assert_array_equal(outputs, expected)


def test_a_missing_key_is_the_error_that_it_is_with_dropout(case):
    for layer in (nn.Dropout(0.5), case.make_linen()):
        with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
            apply(layer, deterministic=False)


class Model(nn.Module):
    """The layer twice, as a Dropout would stand there."""

    noise: nn.Module

    @nn.compact
    def __call__(self, inputs, train):
        noises = []
        for layer in (self.noise, self.noise.copy()):
            inputs = nn.Dense(3)(inputs)
            noises.append(layer(inputs, deterministic=not train) - inputs)
            inputs = nn.BatchNorm(use_running_average=not train)(inputs + noises[-1])
        return inputs, noises


def test_two_layers_and_two_steps_differ():
    model = Model(linen.GaussianNoiseLayer(0.5))
    variables = model.init(KEY, INPUTS, train=False)

    def noises(key):
        settings = {"train": True, "mutable": ["batch_stats"]}
        return model.apply(variables, INPUTS, rngs={"dropout": key}, **settings)[0][1]

    first, second = noises(KEY)
    assert differ(first, second)
    assert differ(first, noises(OTHER_KEY)[0])


# State


def test_a_model_has_the_variables_that_it_has_with_dropout(case):
    ours, theirs = (
        Model(layer).init(KEY, INPUTS, train=False)
        for layer in (case.make_linen(), nn.Dropout(0.5))
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)


def test_layers_share_the_memory_of_a_bank():
    layer = linen.WaterNoiseLayer(bank=ROWS)
    assert layer.clone().bank is layer.copy().bank is ROWS
    assert "NoiseBank(float32[5000, 6, 3])" in repr(layer)


def test_layers_with_the_same_bank_are_equal_and_can_be_static():
    num_traces = 0

    def add(layer, inputs, key):
        nonlocal num_traces
        num_traces += 1
        return apply(layer, inputs, deterministic=False, rng=key)

    jitted = jax.jit(add, static_argnums=0)
    for key in (KEY, OTHER_KEY):
        layer = linen.WaterNoiseLayer(0.5, bank=ROWS)
        expected = CASES["water bank"].pure(key, INPUTS, intensity=0.5)
        np.testing.assert_allclose(jitted(layer, INPUTS, key), expected, atol=1e-5)
    assert num_traces == 1


# Transformations


def test_jit_traces_once_over_keys_and_intensities(case):
    num_traces = 0

    @jax.jit
    def add(inputs, key, intensity):
        nonlocal num_traces
        num_traces += 1
        layer = case.make_linen(intensity=intensity, deterministic=False)
        return apply(layer, inputs, rng=key)

    for seed, intensity in enumerate([0.0, 0.3, 2.0]):
        key = jax.random.key(seed)
        expected = case.pure(key, INPUTS, intensity=intensity)
        np.testing.assert_allclose(add(INPUTS, key, intensity), expected, atol=1e-5)
    assert num_traces == 1


def test_vmap_over_keys_equals_a_loop(case):
    layer = case.make_linen(deterministic=False)
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: apply(layer, key=key))(keys)
    np.testing.assert_allclose(many, [apply(layer, key=k) for k in keys], atol=1e-5)
    assert differ(many[0], many[1]) and differ(many[1], many[2])


def test_lifted_vmap_with_split_rngs_gives_each_copy_its_own_noise(case):
    class Copies(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            layers = nn.vmap(
                lambda module, inputs: case.make_linen(parent=module)(
                    inputs, deterministic=False
                ),
                in_axes=0,
                variable_axes={},
                split_rngs={"dropout": True},
            )
            return layers(self, inputs)

    many = Copies().apply({}, jnp.stack([INPUTS] * 3), rngs={"dropout": KEY})
    assert differ(many[0], many[1]) and differ(many[1], many[2])


def test_remat_and_scan_over_layers_take_the_layer_as_it_is():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, inputs, _):
            noise = linen.WaterNoiseLayer(0.5, bank=ROWS, deterministic=False)
            return noise(nn.Dense(3)(inputs)), None

    deep = nn.scan(
        nn.remat(Block),
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        length=4,
    )()
    rngs = {"params": KEY, "dropout": OTHER_KEY}
    variables = deep.init(rngs, INPUTS, None)
    assert variables["params"]["Dense_0"]["kernel"].shape == (4, 3, 3)

    def loss(variables):
        return (deep.apply(variables, INPUTS, None, rngs=rngs)[0] ** 2).mean()

    chex.assert_tree_all_finite(jax.grad(loss)(variables))


# Schedules


def test_a_schedule_is_asked_at_every_call_in_training(case):
    schedule = optax.linear_schedule(0.0, 1.0, transition_steps=4)
    layer = case.make_linen(intensity=schedule)
    variables = layer.init(KEY, INPUTS, deterministic=True)
    assert variables == {"noise": {"calls": 0}}
    step = jax.jit(
        lambda variables: layer.apply(
            variables, INPUTS, deterministic=False, rng=KEY, mutable=["noise"]
        )
    )
    for count in range(3):
        assert layer.apply(variables, INPUTS, deterministic=True) is INPUTS
        outputs, variables = step(variables)
        expected = case.pure(KEY, INPUTS, intensity=count / 4)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert variables == {"noise": {"calls": 3}}
    assert step._cache_size() == 1


def test_initialisation_in_training_mode_does_not_count(case):
    layer = case.make_linen(intensity=lambda step: 0.5)
    variables = layer.init(KEY, INPUTS, deterministic=False)
    assert variables == {"noise": {"calls": 0}}


def test_a_schedule_without_its_collection_says_how_to_give_it(case):
    layer = case.make_linen(intensity=lambda step: 0.5)
    for variables in ({}, {"noise": {"calls": jnp.int32(0)}}):
        with pytest.raises(ValueError, match=r'mutable=\["noise"\]'):
            layer.apply(variables, INPUTS, deterministic=False, rng=KEY)


# Recordings


def test_aphex_takes_one_recording(recording_file):
    for settings in ({}, {"file_path": recording_file, "bank": RECORDING}):
        with pytest.raises(
            ValueError, match="one recording: give file_path=... or bank="
        ):
            linen.AphexNoiseLayer(**settings)


def test_aphex_reads_its_file_once(recording_file, monkeypatch):
    layer = linen.AphexNoiseLayer(file_path=recording_file)
    monkeypatch.setattr(linen.audio, "load_track", None)
    outputs = apply(layer.clone(), deterministic=False, rng=KEY)
    np.testing.assert_array_equal(outputs, apply(layer, deterministic=False, rng=KEY))


def test_aphex_names_a_recording_that_cannot_be_read(tmp_path):
    with pytest.raises(AudioError, match="missing.wav"):
        linen.AphexNoiseLayer(file_path=tmp_path / "missing.wav")
