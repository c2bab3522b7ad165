"""One table from a name to the layers that stand where a Dropout stood."""

import contextlib
import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import pydantic
from flax import nnx

from experiments.values import read
from experiments.words import nearest, show, show_name
from sounddrop_jax import (
    AphexNoiseLayer,
    GaussianNoiseLayer,
    IntensityVariable,
    NoiseInjection,
    WaterNoiseLayer,
    make_power_law_bank,
    make_recording_bank,
)
from sounddrop_jax.audio import load_track
from sounddrop_jax.inject import Mode
from sounddrop_jax.tracks import make_track, randomize_phases, shuffle_samples

Shape = tuple[int, int, int]
Strength = float | jax.Array
Maker = Callable[[Shape], nnx.Module]
Correlation = Annotated[float, pydantic.Field(ge=0, le=1)]

PLANE = (-3, -2)  # height and width of maps NHWC
Surrogate = Literal["none", "phases", "shuffled"]
SURROGATES: dict[Surrogate, Callable] = {
    "none": lambda track: track,
    "phases": randomize_phases,
    "shuffled": shuffle_samples,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a regularizer is made.

    Attributes:
        strength: what its strength is, "intensity" or "rate", as the flag and the
            layer's attribute are called; or None.
        default: the strength unless a flag says otherwise.
        prepare: `prepare(strength, **settings)` gives a function that makes the layer
            for maps of shape `(H, W, C)`. The strength is a number or, for a sweep that
            compiles once, a float32 scalar array, which may be traced and which the
            layer keeps in a variable of a type in `STRENGTHS`. The settings are the
            keyword-only parameters, see `check_settings`. Called once: what all layers
            share is made here. Raises `audio.AudioError` if the recording cannot be
            used.
    """

    strength: str | None
    default: float
    prepare: Callable[..., Maker]

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings that it takes, each with its annotation."""
        try:
            signature = inspect.signature(self.prepare, eval_str=True)
        except NameError:  # what a user's file imports for type checkers alone
            signature = inspect.signature(self.prepare)
        return {
            name: each.annotation
            for name, each in signature.parameters.items()
            if each.kind is each.KEYWORD_ONLY
        }


def check_settings(reg: str, settings: Mapping[str, object]) -> None:
    """Raises for settings that a regularizer cannot be made with.

    | setting             | is                                                     |
    |---------------------|--------------------------------------------------------|
    | mode                | what an intensity means, see `inject.add_noise`        |
    | shared              | whether all channels of a map share the same noise     |
    | channel_correlation | between two channels' noise; without effect if shared  |
    | exponent            | of the spectrum, power 1/f^exponent: 1 is pink         |
    | audio               | the path of a recording, or None for the glitch track  |
    | surrogate           | what is left of it: "none" leaves it as it is, "phases"|
    |                     | keeps its power spectrum, "shuffled" its samples alone |

    What values they take, the annotations of `prepare` say. A recipe that is added to
    the table may have other settings; one without an annotation takes anything.

    Args:
        reg: a name in `REGULARIZERS`.
        settings: of its `prepare`, by name.

    Raises:
        ValueError: if the regularizer is unknown, lacks a setting, or a value is of
            the wrong type or out of range.

    Example:
        >>> check_settings("plane", {"exponent": 2, "shared": True})
        >>> check_settings("water", {"exponent": 2})
        Traceback (most recent call last):
        ValueError: exponent=2: water has no such setting; it has mode.
        >>> check_settings("plane", {"exponent": 4})
        Traceback (most recent call last):
        ValueError: exponent=4: plane takes a number from -3 to 3.
    """
    if reg not in REGULARIZERS:
        raise ValueError(
            f"reg={reg!r}: choose one of {', '.join(REGULARIZERS)}"
            f"{nearest(reg, REGULARIZERS)}."
        )
    known = REGULARIZERS[reg].settings
    for name, value in settings.items():
        if name not in known:
            raise ValueError(
                f"{show_name(name)}={show(value)}: {reg} has no such "
                f"setting; it has {', '.join(known) or 'none'}{nearest(name, known)}."
            )
        if known[name] is inspect.Parameter.empty or isinstance(known[name], str):
            continue
        try:
            kind = pydantic.TypeAdapter(known[name])
        except pydantic.PydanticSchemaGenerationError:
            continue  # a class of the user's own
        read(kind, value, name, f"{reg} takes")


class RateVariable(nnx.Variable):
    """Holds a rate that is an array, as `IntensityVariable` holds an intensity."""


STRENGTHS = (IntensityVariable, RateVariable)
"""The types of state that a network's own strength takes the place of."""


class Dropout(nnx.Module):
    """An `nnx.Dropout` whose rate is an array: state, which a program can take.

    For the same key and the same float32 rate it gives the very numbers of
    `nnx.Dropout` under `jax.jit`.

    Args:
        rate: float32 scalar from 0 to below 1, which may be traced.
        broadcast_dims: dimensions that share the same mask.
        deterministic: if True the inputs are returned as they are.
    """

    def __init__(
        self,
        rate: jax.Array,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool = False,
    ):
        self.rate = RateVariable(rate)
        self.broadcast_dims = tuple(broadcast_dims)
        self.deterministic = deterministic

    def __call__(self, inputs: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Zeroes a share of the inputs and scales up the rest.

        Args:
            inputs: `[...]`, floating point.
            rngs: its stream `dropout` gives the key; evaluation needs none.

        Returns:
            `[...]`, of the inputs' dtype.

        Raises:
            ValueError: if `rngs` is missing in training.
        """
        if self.deterministic:
            return inputs
        if rngs is None:
            raise ValueError(
                "Dropout has no randomness: call it as layer(inputs, rngs=...)."
            )
        shape = list(inputs.shape)
        for dim in self.broadcast_dims:
            shape[dim] = 1
        keep = 1 - self.rate[...]
        mask = jax.random.bernoulli(rngs.dropout(), keep, shape)
        # Times the inverse, in float32: so XLA divides by a rate that is a constant.
        scale = 1 / keep.astype(inputs.dtype).astype(jnp.float32)
        return jnp.where(mask, (inputs * scale).astype(inputs.dtype), 0)

    def set_view(self, deterministic: bool | None = None):
        """Switches the mode, as `nnx.view` asks for it.

        Args:
          deterministic: if True the inputs are returned as they are.
        """  # Indented by two, as `nnx.view_info` reads it.
        if deterministic is not None:
            self.deterministic = deterministic


def _none(strength: Strength) -> Maker:
    return lambda shape: nnx.Dropout(0.0)


def _dropout(strength: Strength) -> Maker:
    return _drop(strength, ())


def _spatial_dropout(strength: Strength) -> Maker:
    """Drops whole channels.

    Tompson, Goroshin, Jain, LeCun and Bregler, "Efficient object localization using
    convolutional networks", CVPR 2015, section 3.2.
    """
    return _drop(strength, PLANE)


def _drop(rate: Strength, broadcast_dims: Sequence[int]) -> Maker:
    # That of nnx asks in Python whether its rate is 0.
    if isinstance(rate, jax.Array):
        return lambda shape: Dropout(rate, broadcast_dims=broadcast_dims)
    return lambda shape: nnx.Dropout(rate, broadcast_dims=broadcast_dims)


def _gaussian(
    strength: Strength,
    *,
    mode: Mode = "additive",
    shared: bool = False,
    channel_correlation: Correlation = 0.0,
) -> Maker:
    dims = (-1,) if shared else ()
    return lambda shape: GaussianNoiseLayer(
        strength,
        mode=mode,
        broadcast_dims=dims,
        channel_correlation=0.0 if shared else channel_correlation,
    )


def _water(strength: Strength, *, mode: Mode = "additive") -> Maker:
    def make(shape: Shape) -> nnx.Module:
        # The same noise in every run, as a recording would be: what a seed decides is
        # which windows of it the network meets.
        key = jax.random.fold_in(jax.random.key(0), shape[1])
        bank = make_power_law_bank(key, shape[1:], exponent=1.0)
        return WaterNoiseLayer(strength, bank=bank, mode=mode)

    return make


def _plane(
    strength: Strength,
    *,
    exponent: Annotated[float, pydantic.Field(ge=-3, le=3)] = 1.0,
    mode: Mode = "additive",
    shared: bool = False,
    channel_correlation: Correlation = 0.0,
) -> Maker:
    def make(shape: Shape) -> nnx.Module:
        # One channel is all that is shared, and leaves room for as many more maps.
        field = (*shape[:2], 1) if shared else shape
        # The same in every run; exponents filter the same white noise.
        key = functools.reduce(jax.random.fold_in, field, jax.random.key(0))
        bank = make_power_law_bank(key, field, exponent=exponent, axes=PLANE)
        dims = (-1,) if shared else ()
        return NoiseInjection(
            strength,
            bank=bank,
            mode=mode,
            broadcast_dims=dims,
            channel_correlation=0.0 if shared else channel_correlation,
        )

    return make


def _aphex(
    strength: Strength,
    *,
    audio: Annotated[
        str | None, pydantic.Field(description="that is the path of a recording")
    ] = None,
    surrogate: Surrogate = "none",
    mode: Mode = "additive",
) -> Maker:
    if audio is None:
        track = make_track("glitch")
    else:
        with _quiet_decoders():
            track = load_track(audio)
    bank = make_recording_bank(SURROGATES[surrogate](track))
    return lambda shape: AphexNoiseLayer(intensity=strength, bank=bank, mode=mode)


@contextlib.contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Silences what libmpg123 writes to the process's stderr past Python.

    It comments on healthy files too; what is wrong with a file, `audio` says.
    """
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


REGULARIZERS = {
    "none": Recipe(None, 0.0, _none),
    "dropout": Recipe("rate", 0.2, _dropout),
    "spatial_dropout": Recipe("rate", 0.1, _spatial_dropout),
    "gaussian": Recipe("intensity", 0.1, _gaussian),
    "water": Recipe("intensity", 0.05, _water),
    "plane": Recipe("intensity", 0.05, _plane),
    "aphex": Recipe("intensity", 0.05, _aphex),
}
BUILT_IN = frozenset(REGULARIZERS)
"""The names of our own, whatever a user's file adds."""
