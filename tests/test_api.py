"""The public interface by introspection: docstrings, annotations, argument order."""

import importlib
import inspect
import pkgutil
import re
import typing

import jax
import pytest
from flax import nnx

import sounddrop_jax

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(sounddrop_jax.__path__, "sounddrop_jax.")
    if "._" not in found.name
]


def public(module) -> dict[str, object]:
    """What a module defines itself, functions and classes."""
    return {
        f"{module.__name__.partition('.')[2]}.{name}": value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


EVERYTHING = {name: value for m in MODULES for name, value in public(m).items()}
FUNCTIONS = {n: value for n, value in EVERYTHING.items() if inspect.isfunction(value)}
CLASSES = {n: value for n, value in EVERYTHING.items() if inspect.isclass(value)}
LAYERS = {n: value for n, value in CLASSES.items() if issubclass(value, nnx.Module)}
# Takes the place of JAX's function of the same name, argument by argument.
PURE = {n: f for n, f in FUNCTIONS.items() if f.__name__ != "conv_general_dilated"}


def each(named):
    return pytest.mark.parametrize("value", named.values(), ids=named.keys())


def parameters(value) -> list[inspect.Parameter]:
    found = inspect.signature(value).parameters.values()
    return [parameter for parameter in found if parameter.name != "self"]


def sections(value) -> dict[str, str]:
    """The parts of a docstring by their headings."""
    parts = re.split(r"^(\w+):\n", inspect.getdoc(value) or "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_introspection_finds_the_library():
    assert len(MODULES) >= 6
    assert {"spectra.power_law", "inject.random_noise"} <= PURE.keys()
    assert "modules.WaterNoiseLayer" in LAYERS


@each(FUNCTIONS)
def test_every_function_says_what_it_returns(value):
    assert sections(value)["Returns"].strip()


@each(PURE)
def test_what_is_optional_is_keyword_only(value):
    for parameter in parameters(value):
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter


@each(PURE)
def test_the_key_comes_first(value):
    hints = typing.get_type_hints(value)
    names = [parameter.name for parameter in parameters(value)]
    takes_key = value.__name__.startswith(("random_", "sample_")) or "key" in names
    if takes_key and "seed" not in names:  # a seed: drawn by NumPy, on the host
        assert names[0] == "key"
        assert parameters(value)[0].default is inspect.Parameter.empty
        # A bank may be made of a seed, within transformations where keys are traced.
        makes = value.__name__.startswith("make_")
        assert hints["key"] == (jax.Array | int if makes else jax.Array)
    assert not {"rng", "prng", "rng_key"} & set(names)


def test_the_convolution_has_the_parameters_of_that_of_jax():
    ours = sounddrop_jax.convolution.conv_general_dilated
    theirs = inspect.signature(jax.lax.conv_general_dilated).parameters
    for parameter in parameters(ours):
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        assert parameter.name in theirs
        assert parameter.default == theirs[parameter.name].default
    order = [p.name for p in parameters(ours) if p.name in theirs]
    assert order == list(theirs)[: len(order)]
