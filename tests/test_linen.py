"""One battery for all Linen layers, with the expectations of `linen.Dropout`."""

import functools
import inspect
import math

import flax
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal

import sounddrop_jax
from sounddrop_jax import linen
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


def test_a_layer_adds_what_its_twin_in_nnx_does(any_case):
    outputs = apply(any_case.make_linen(), deterministic=False, rng=KEY)
    assert_array_equal(outputs, any_case.make()(INPUTS, rngs=KEY))
    expected = any_case.pure(KEY, INPUTS, intensity=0.5)
    assert_allclose(outputs, expected, atol=1e-5)
    assert differ(outputs, INPUTS)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        *[({"intensity": math.nan}, ValueError), ({"intensity": -0.1}, ValueError)],
        *[({"intensity": "song.wav"}, TypeError), ({"mode": "add"}, ValueError)],
    ],
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_setting_that_will_not_do_is_refused(setting, error, deterministic):
    (name,) = setting
    layer = linen.WaterNoiseLayer(**setting)
    with pytest.raises(error, match=f"^{name} must be"):
        apply(layer, deterministic=deterministic, rng=KEY)


# Modes


def test_evaluation_is_the_identity_and_needs_no_key(case):
    assert apply(case.make_linen(deterministic=True)) is INPUTS
    assert apply(case.make_linen(), deterministic=True) is INPUTS


def test_intensity_zero_is_the_identity_and_needs_no_key(case):
    assert apply(case.make_linen(intensity=0), deterministic=False) is INPUTS


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


def test_the_key_of_the_call_overrules_the_stream(case):
    layer = case.make_linen(deterministic=False)
    outputs = apply(layer, key=OTHER_KEY, rng=KEY)
    assert_array_equal(outputs, apply(layer, rng=KEY))


def test_the_stream_is_the_one_that_rng_collection_names(case):
    layer = case.make_linen(rng_collection="noise", deterministic=False)
    outputs = layer.apply({}, INPUTS, rngs={"noise": KEY, "dropout": OTHER_KEY})
    expected = apply(case.make_linen(deterministic=False), key=KEY)
    assert_array_equal(outputs, expected)


def test_a_missing_key_is_the_error_that_it_is_with_dropout(case):
    for layer in (nn.Dropout(0.5), case.make_linen()):
        with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
            apply(layer, deterministic=False)


# State


def test_layers_with_the_same_bank_are_equal_and_can_be_static():
    @functools.partial(jax.jit, static_argnums=0)
    def add(layer, key):
        return apply(layer, deterministic=False, rng=key)

    for key in (KEY, OTHER_KEY):
        layer = linen.WaterNoiseLayer(0.5, bank=ROWS)
        expected = CASES["row bank"].pure(key, INPUTS, intensity=0.5)
        assert_allclose(add(layer, key), expected, atol=1e-5)
    assert add._cache_size() == 1


# Transformations


# Schedules


def test_a_schedule_is_asked_at_every_call_in_training(case):
    schedule = optax.linear_schedule(0.0, 1.0, transition_steps=4)
    layer = case.make_linen(intensity=schedule)
    for mode in (False, True):  # neither of which counts
        variables = layer.init(KEY, INPUTS, deterministic=mode)
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
        assert_allclose(outputs, expected, atol=1e-5)
    assert variables == {"noise": {"calls": 3}}
    assert step._cache_size() == 1


def test_a_schedule_without_its_collection_says_how_to_give_it(case):
    layer = case.make_linen(intensity=lambda step: 0.5)
    for variables in ({}, {"noise": {"calls": jnp.int32(0)}}):
        with pytest.raises(ValueError, match=r'mutable=\["noise"\]'):
            layer.apply(variables, INPUTS, deterministic=False, rng=KEY)


# Recordings


def test_aphex_takes_one_recording(recording_file):
    for settings in ({}, {"file_path": recording_file, "bank": RECORDING}):
        with pytest.raises(ValueError, match="give file_path=... or bank="):
            linen.AphexNoiseLayer(**settings)


def test_aphex_reads_its_file_once(recording_file, monkeypatch):
    layer = linen.AphexNoiseLayer(file_path=recording_file)
    monkeypatch.setattr(linen.audio, "load_track", None)
    outputs = apply(layer.clone(), deterministic=False, rng=KEY)
    assert_array_equal(outputs, apply(layer, deterministic=False, rng=KEY))
