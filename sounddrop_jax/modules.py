"""Flax NNX layers that inject noise: they handle keys and modes, and compute nothing.

They take the place of an `nnx.Dropout`: the same keywords, the same random stream,
the same switching between training and evaluation, and the same state.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sounddrop_jax import audio, inject
from sounddrop_jax.banks import NoiseBank, make_recording_bank
from sounddrop_jax.inject import Intensity, Mode


class BankVariable(nnx.Variable):
    """Holds the values of a bank that is state of the model; most should not be.

    A layer keeps a bank as a constant, which no transformation, optimizer or checkpoint
    sees. It keeps it in this variable if the bank is traced, so that it cannot be a
    constant; or if it is given one, `layer.bank = BankVariable(bank.values)`, so that a
    large bank is an argument of a compiled program and not a part of it.

    Example:
        >>> from flax import nnx
        >>> from sounddrop_jax import BankVariable, WaterNoiseLayer, make_power_law_bank
        >>> bank = make_power_law_bank(0, (16, 8), num_entries=256)
        >>> layer = WaterNoiseLayer(bank=BankVariable(bank.values), rngs=nnx.Rngs(0))
        >>> nnx.state(layer, BankVariable)["bank"].shape
        (256, 16, 8)
    """

    @property
    def values(self) -> jax.Array:
        """The values, as a `NoiseBank` has them."""
        return self[...]


class IntensityVariable(nnx.Variable):
    """Holds an intensity that is an array: state, of which nothing is to be learned.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import IntensityVariable, NoiseInjection
        >>> layer = NoiseInjection(jnp.array(0.1))
        >>> nnx.state(layer, IntensityVariable)["intensity"].shape
        ()
    """


@jax.tree_util.register_static
class _ConstantBank(NoiseBank):
    """A bank that is part of a pytree's structure, where JAX sees no array."""


def _keep_intensity(intensity: Any) -> Any:
    """Marks an intensity as state of a layer, if it is an array, or as static."""
    if isinstance(intensity, IntensityVariable):
        return nnx.data(intensity)
    if isinstance(intensity, nnx.Variable):  # which can be called, and is no schedule
        raise TypeError(
            "intensity must be a number, an array or a schedule, not a variable: give "
            "its value, variable[...]."
        )
    inject.check_settings(intensity=intensity)
    if callable(intensity) or isinstance(intensity, inject.IntensityRange):
        return nnx.static(intensity)
    if isinstance(intensity, jax.Array) or np.ndim(intensity):
        # A copy: whoever donates the model keeps the array that it was made with.
        return nnx.data(IntensityVariable(jnp.array(intensity)))
    return nnx.static(float(intensity))


def _keep_bank(bank: Any) -> Any:
    """Marks a bank as static, unless it is traced or in a variable, or None."""
    if isinstance(bank, BankVariable):
        return nnx.data(bank)
    inject.check_settings(bank=bank)
    if bank is None:
        return nnx.static(None)
    if isinstance(bank.values, jax.core.Tracer):
        return nnx.data(BankVariable(bank.values))
    return nnx.static(_ConstantBank(bank.values))


def _as_tuple(axes: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(np.atleast_1d(axes).tolist())


class NoiseInjection(nnx.Module):
    """Adds structured noise to its inputs while training; returns them in evaluation.

    The noise is a window of `bank`, or, where there is none, drawn afresh at every
    call with power 1/f^exponent along `axes`, for inputs of any shape.

    A number, a schedule and a bank are no state, as the rate of a Dropout is none: the
    layer has the state of an `nnx.Dropout`. An array as intensity is, in an
    `IntensityVariable`. All settings may be changed by assignment.

    A schedule, of optax or any function from a step to an intensity, is called with a
    step at every call in training: with the `step` given there or, without one, with
    the number of keys that the layer's own stream has given before, from 0. Give the
    step where streams are made anew: once by `nnx.reseed`; at every call by
    `nnx.split_rngs`, `nnx.fork_rngs` or `nnx.bridge.ToLinen`, within which a layer
    counts from 0 again.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import NoiseInjection
        >>> plane = NoiseInjection(0.1, exponent=2.0, axes=(-3, -2), rngs=nnx.Rngs(0))
        >>> maps = jnp.zeros((4, 16, 16, 8))
        >>> bool((plane(maps) == maps).all())
        False
        >>> plane.eval()
        >>> plane(maps) is maps
        True
        >>> rising = NoiseInjection(lambda step: 0.01 * step, rngs=nnx.Rngs(0))
        >>> rising(maps).std(), rising(maps).std().round(2)
        (Array(0., dtype=float32), Array(0.01, dtype=float32))

    Args:
        intensity: the standard deviation of the noise, 0 or above: a number; an
            array, with which a sweep over intensities compiles once; a schedule; or
            an `IntensityRange`, from which every example draws its own.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        rngs: an `nnx.Rngs` or `nnx.RngStream`, forked, for calls that give none.
        bank: the noise to take windows of, see `banks.sample_window`; or its values in
            a `BankVariable`.
        exponent: of noise drawn afresh, see `spectra.power_law`; 0 is white.
        axes: of the inputs, along which fresh noise is shaped: -2, the rows of NHWC
            maps and the time axis of sequences, or (-3, -2), the plane of NHWC maps.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" to the inputs' rms, or "multiplicative", see
            `inject.add_noise`.

    Raises:
        ValueError: if a number given as intensity is negative, infinite or NaN, or the
            mode is unknown, or `channel_correlation` is outside 0 to 1.
        TypeError: if intensity is none of these, `bank` is no `NoiseBank`, or
            `rngs` is neither of the two, nor None.
    """

    # Defaults are the class's. A layer stores only what differs, because `nnx.jit`
    # visits every attribute of every layer at every call.
    bank: NoiseBank | BankVariable | None = None
    exponent: float = 0.0
    axes: tuple[int, ...] = (-2,)
    channel_correlation: float = 0.0
    mode: Mode = "additive"
    broadcast_dims: tuple[int, ...] = ()

    def __init__(
        self,
        intensity: Intensity,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        bank: NoiseBank | BankVariable | None = None,
        exponent: float = 0.0,
        axes: int | Sequence[int] = (-2,),
        channel_correlation: float = 0.0,
        mode: Mode = "additive",
    ):
        self.intensity = intensity
        if bank is not None:
            self.bank = bank
        for name, value in (
            ("exponent", exponent),
            ("axes", _as_tuple(axes)),
            ("channel_correlation", channel_correlation),
            ("mode", mode),
            ("broadcast_dims", tuple(broadcast_dims)),
        ):
            if value != getattr(type(self), name):
                setattr(self, name, value)
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        if isinstance(rngs, nnx.Rngs):
            self.rngs = rngs[rng_collection].fork()
        elif isinstance(rngs, nnx.RngStream):
            self.rngs = rngs.fork()
        elif rngs is None:
            self.rngs = nnx.data(None)
        else:
            raise TypeError(
                f"{type(self).__name__}: rngs must be an nnx.Rngs, an nnx.RngStream "
                f"or None, not {type(rngs)}."
            )

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute; what is state and what is static depends on its type."""
        if name == "intensity":
            value = _keep_intensity(value)
        elif name == "bank":
            value = _keep_bank(value)
        elif name == "axes":
            value = _as_tuple(value)
        elif name == "broadcast_dims":
            value = tuple(value)
        elif name in ("mode", "channel_correlation"):
            inject.check_settings(**{name: value})
        super().__setattr__(name, value)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        step: int | jax.Array | None = None,
    ) -> jax.Array:
        """Adds noise to the inputs.

        Args:
            inputs: `[...]`, floating point.
            deterministic: if True the inputs are returned as they are. Overrules what
                the constructor was given.
            rngs: a key, `nnx.RngStream` or `nnx.Rngs` to draw from. Overrules what
                the constructor was given.
            step: to ask a schedule for; no other intensity uses it.

        Returns:
            `[...]`, of the inputs' dtype. The inputs themselves, and no key is
            consumed, if `deterministic`, or if the intensity is the number 0.

        Raises:
            ValueError: if the mode or, while training, the randomness was given
                neither here nor to the constructor; if a schedule has no step; if the
                noise does not fit the inputs.
            TypeError: if `rngs` is none of the three, or the inputs are not
                floating point.
        """
        name = type(self).__name__
        if deterministic is None:
            deterministic = self.deterministic
        if deterministic is None:
            raise ValueError(
                f"{name} does not know whether to add noise. Choose one:\n"
                f"  1. at construction: {name}(..., deterministic=False)\n"
                f"  2. at the call: layer(inputs, deterministic=False)\n"
                f"  3. for the whole model: nnx.view(model, deterministic=False)"
            )
        intensity: Any = self.intensity
        if deterministic or (isinstance(intensity, float) and intensity == 0):
            return inputs
        rngs = self.rngs if rngs is None else rngs
        if rngs is None:
            raise ValueError(
                f"{name} adds noise (deterministic=False) but has no randomness. "
                f"Choose one:\n"
                f"  1. at construction: {name}(..., rngs=nnx.Rngs(0))\n"
                f"  2. at the call: layer(inputs, rngs=nnx.Rngs(0)), or a key"
            )
        if isinstance(intensity, IntensityVariable):
            intensity = intensity[...]
        elif callable(intensity):
            if step is None and rngs is not self.rngs:
                raise ValueError(
                    f"{name} has a schedule and no step to ask it for. Choose one:\n"
                    f"  1. at the call: layer(inputs, rngs=rngs, step=step)\n"
                    f"  2. at construction: {name}(..., rngs=nnx.Rngs(0)), and no "
                    f"rngs at the call, so that the layer counts its own keys"
                )
            if step is None:
                stream: Any = rngs  # nnx.Rngs, if it was assigned
                if isinstance(rngs, nnx.Rngs):
                    stream = rngs[self.rng_collection]
                step = stream.count[...].astype(jnp.int32)  # as schedules subtract
            intensity = intensity(step)
        if isinstance(rngs, nnx.Rngs):
            key = rngs[self.rng_collection]()
        elif isinstance(rngs, nnx.RngStream):
            key = rngs()
        elif isinstance(rngs, jax.Array):
            key = rngs
        else:
            raise TypeError(
                f"{name}: rngs must be an nnx.Rngs, an nnx.RngStream or a key, "
                f"not {type(rngs)}."
            )
        bank: Any = self.bank
        if isinstance(bank, BankVariable):
            bank = NoiseBank(bank.values)
        return inject.random_noise(
            key,
            inputs,
            intensity=intensity,
            bank=bank,
            exponent=self.exponent,
            axes=self.axes,
            broadcast_dims=self.broadcast_dims,
            channel_correlation=self.channel_correlation,
            mode=self.mode,
        )

    def set_view(self, deterministic: bool | None = None):
        """Changes the mode of the copy that `nnx.view` makes.

        Args:
          deterministic: if True the inputs are returned as they are.
        """  # Indented by two, as `nnx.view_info` reads it.
        if deterministic is not None:
            self.deterministic = deterministic


class WaterNoiseLayer(NoiseInjection):
    """Adds pink noise along rows, "the sound of water": power 1/f along the width.

    Without a bank the noise is drawn afresh for inputs of any shape; a bank made for
    the shape, `make_power_law_bank(0, (W, C))`, is much faster.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import WaterNoiseLayer, make_power_law_bank
        >>> bank = make_power_law_bank(0, (16, 8), num_entries=256)
        >>> water = WaterNoiseLayer(intensity=0.05, bank=bank, rngs=nnx.Rngs(0))
        >>> water(jnp.zeros((4, 16, 16, 8))).shape
        (4, 16, 16, 8)

    Args:
        intensity: standard deviation of the noise: a number, array, schedule or range.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        rngs: an `nnx.Rngs` or `nnx.RngStream`, forked, for calls that give none.
        bank: noise made for the shape of the inputs, instead of fresh noise.
        exponent: of the spectrum, 1 for pink.
        axes: of the inputs, along which the noise is shaped.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" or "multiplicative".

    Raises:
        ValueError: see `NoiseInjection`.
        TypeError: see `NoiseInjection`.
    """

    exponent = 1.0

    def __init__(
        self,
        intensity: Intensity = 0.05,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        bank: NoiseBank | BankVariable | None = None,
        exponent: float = 1.0,
        axes: int | Sequence[int] = (-2,),
        channel_correlation: float = 0.0,
        mode: Mode = "additive",
    ):
        super().__init__(
            intensity,
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
            bank=bank,
            exponent=exponent,
            axes=axes,
            channel_correlation=channel_correlation,
            mode=mode,
        )


class AphexNoiseLayer(NoiseInjection):
    """Adds windows of a recording: sound as noise.

    Time runs along the rows of a map, row after row and channel after channel.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import AphexNoiseLayer, make_recording_bank, tracks
        >>> bank = make_recording_bank(tracks.make_track("glitch", num_frames=2**16))
        >>> aphex = AphexNoiseLayer(bank=bank, intensity=0.05, rngs=nnx.Rngs(0))
        >>> aphex(jnp.zeros((4, 16, 16, 8))).shape
        (4, 16, 16, 8)

    Args:
        file_path: of a recording, of several or of a folder, see `audio.load_track`.
            It is read at once; to share one between layers, give its `bank` instead.
        intensity: standard deviation of the noise: a number, array, schedule or range.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        rngs: an `nnx.Rngs` or `nnx.RngStream`, forked, for calls that give none.
        bank: a recording already loaded, see `make_recording_bank`.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" or "multiplicative".

    Raises:
        ValueError: if not exactly one of `file_path` and `bank` is given, or the file
            cannot be used, see `audio.load_track`; or see `NoiseInjection`.
        TypeError: see `NoiseInjection`.
    """

    def __init__(
        self,
        file_path: str
        | os.PathLike[str]
        | Sequence[str | os.PathLike[str]]
        | None = None,
        intensity: Intensity = 0.05,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        bank: NoiseBank | BankVariable | None = None,
        channel_correlation: float = 0.0,
        mode: Mode = "additive",
    ):
        if (file_path is None) == (bank is None):
            raise ValueError(
                "AphexNoiseLayer takes one recording: give file_path=... or bank=..."
            )
        if file_path is not None:
            bank = make_recording_bank(audio.load_track(file_path))
        super().__init__(
            intensity,
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
            bank=bank,
            channel_correlation=channel_correlation,
            mode=mode,
        )


class GaussianNoiseLayer(NoiseInjection):
    """Adds white Gaussian noise.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import GaussianNoiseLayer
        >>> gaussian = GaussianNoiseLayer(intensity=0.1, rngs=nnx.Rngs(0))
        >>> gaussian(jnp.zeros((4, 16, 16, 8))).shape
        (4, 16, 16, 8)

    Args:
        intensity: standard deviation of the noise: a number, array, schedule or range.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        rngs: an `nnx.Rngs` or `nnx.RngStream`, forked, for calls that give none.
        bank: white noise made beforehand, faster than drawing it:
            `make_power_law_bank(0, (), exponent=0.0)`, for inputs of any shape.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" or "multiplicative".

    Raises:
        ValueError: see `NoiseInjection`.
        TypeError: see `NoiseInjection`.
    """

    def __init__(
        self,
        intensity: Intensity = 0.1,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        bank: NoiseBank | BankVariable | None = None,
        channel_correlation: float = 0.0,
        mode: Mode = "additive",
    ):
        super().__init__(
            intensity,
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
            bank=bank,
            channel_correlation=channel_correlation,
            mode=mode,
        )
