"""Flax NNX layers that inject noise: they handle keys and modes, and compute nothing.

They take the place of an `nnx.Dropout`: the same keywords, the same random stream,
the same switching between training and evaluation.
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
from sounddrop_jax.inject import Schedule


class BankVariable(nnx.Variable):
    """Holds the values of a noise bank, of which nothing is to be learned.

    A transformation sees no array in it, for the values are a constant of what it
    compiles: stored once, however many layers, seeds and devices share the bank, copied
    by no step, and out of the reach of gradients, optimisers, weight decay and
    checkpoints. Another bank, even of the same numbers, is another program to compile.

    A bank that is traced cannot be a constant and stays an array: one made under a
    transformation or, if it is hundreds of MiB large, given to the compiled function as
    an argument, which then makes the layer.
    """


@jax.tree_util.register_static
class _Constant:
    """An array that is part of a pytree's structure, and equal to itself alone."""

    def __init__(self, values: jax.Array):
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and self.values is other.values

    def __hash__(self) -> int:
        return id(self.values)

    # What a variable hands on to its value: `variable[...]`, `variable.shape`, and what
    # makes `jnp.asarray(variable)` an array.
    def __getitem__(self, index):
        return self.values if index is Ellipsis else self.values[index]

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.values, name)

    def __deepcopy__(self, memo: dict) -> "_Constant":
        return self  # a copy of a model shares its banks

    def __jax_array__(self) -> jax.Array:
        return self.values

    def __array__(self, *args, **kwargs) -> np.ndarray:
        return np.asarray(self.values, *args, **kwargs)

    def __repr__(self) -> str:
        return f"{self.values.dtype}{list(self.values.shape)}"


def _bank_variable(bank: NoiseBank) -> BankVariable:
    traced = isinstance(bank.values, jax.core.Tracer)
    return BankVariable(bank.values if traced else _Constant(bank.values))


class CallCount(nnx.Variable):
    """Counts the calls in training: the steps that a schedule of intensity runs on."""


class NoiseInjection(nnx.Module):
    """Adds structured noise to its inputs while training; returns them in evaluation.

    The noise is a window of `bank`, or, where there is none, drawn afresh at every
    call with power 1/f^exponent along `axes`, for inputs of any shape.

    A schedule as intensity, of optax or any function from a step to an intensity, is
    asked at every call in training, with the number of those before, from 0.

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
            array, with which a sweep over intensities compiles once; or a schedule.
        bank: the noise to take windows of; it must fit the inputs, see
            `banks.sample_window`.
        exponent: of noise drawn afresh, see `spectra.power_law`; 0 is white.
        axes: of the inputs, along which fresh noise is shaped: -2, the rows of NHWC
            maps and the time axis of sequences, or (-3, -2), the plane of NHWC maps.
        broadcast_dims: dimensions that share the same noise.
        mode: "additive", "relative" to the inputs' rms, or "multiplicative", see
            `inject.add_noise`.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        rngs: an `nnx.Rngs` or `nnx.RngStream`, forked, for calls that give none.

    Raises:
        ValueError: if a number given as intensity is negative, infinite or NaN, or the
            mode is unknown.
        TypeError: if intensity is none of the three, `bank` is no `NoiseBank`, or
            `rngs` is neither of the two, nor None.
    """

    def __init__(
        self,
        intensity: float | jax.Array | Schedule,
        *,
        bank: NoiseBank | None = None,
        exponent: float = 0.0,
        axes: int | Sequence[int] = (-2,),
        broadcast_dims: Sequence[int] = (),
        mode: str = "additive",
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ):
        # It can be called, and is no schedule.
        if isinstance(intensity, nnx.Variable):
            raise TypeError(
                "intensity must be a number, an array or a schedule, not a variable: "
                "give its value, variable[...]."
            )
        inject.check_settings(intensity=intensity, mode=mode, bank=bank)
        if not (isinstance(intensity, jax.Array) or callable(intensity)):
            # A number is static, as the rate of a Dropout is; an array is state.
            intensity = (
                jnp.asarray(intensity) if np.ndim(intensity) else float(intensity)
            )
        self.intensity = intensity
        self.calls = nnx.data(CallCount(jnp.int32(0)) if callable(intensity) else None)
        self.bank = nnx.data(None if bank is None else _bank_variable(bank))
        self.exponent = exponent
        self.axes = (axes,) if isinstance(axes, int) else tuple(axes)
        self.broadcast_dims = tuple(broadcast_dims)
        self.mode = mode
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

    def __call__(
        self,
        inputs: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Adds noise to the inputs.

        Args:
            inputs: `[...]`, floating point.
            deterministic: if True the inputs are returned as they are. Overrules what
                the constructor was given.
            rngs: a key, `nnx.RngStream` or `nnx.Rngs` to draw from. Overrules what
                the constructor was given.

        Returns:
            `[...]`, of the inputs' dtype. The inputs themselves, and no key is
            consumed, if `deterministic`, or if the intensity is the number 0.

        Raises:
            ValueError: if the mode or, while training, the randomness was given
                neither here nor to the constructor; if the bank does not fit.
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
        unchanged = isinstance(self.intensity, float) and self.intensity == 0
        if deterministic or unchanged:
            return inputs
        rngs = self.rngs if rngs is None else rngs
        if rngs is None:
            raise ValueError(
                f"{name} adds noise (deterministic=False) but has no randomness. "
                f"Choose one:\n"
                f"  1. at construction: {name}(..., rngs=nnx.Rngs(0))\n"
                f"  2. at the call: layer(inputs, rngs=nnx.Rngs(0)), or a key"
            )
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
        intensity: Any = self.intensity
        if self.calls is not None:
            intensity = intensity(self.calls[...])
            self.calls[...] += 1
        return inject.random_noise(
            key,
            inputs,
            intensity=intensity,
            bank=None if self.bank is None else NoiseBank(self.bank[...]),
            exponent=self.exponent,
            axes=self.axes,
            broadcast_dims=self.broadcast_dims,
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
    the shape, `make_power_law_bank(key, (W, C))`, is much faster.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import WaterNoiseLayer, make_power_law_bank
        >>> bank = make_power_law_bank(jax.random.key(0), (16, 8), num_entries=256)
        >>> water = WaterNoiseLayer(intensity=0.05, bank=bank, rngs=nnx.Rngs(0))
        >>> water(jnp.zeros((4, 16, 16, 8))).shape
        (4, 16, 16, 8)

    Args:
        intensity: the standard deviation of the noise.
        bank: noise made for the shape of the inputs.
        exponent: of the spectrum, 1 for pink.
        **kwargs: see `NoiseInjection`.
    """

    def __init__(
        self,
        intensity: float | jax.Array | Schedule = 0.05,
        *,
        bank: NoiseBank | None = None,
        exponent: float = 1.0,
        **kwargs,
    ):
        super().__init__(intensity, bank=bank, exponent=exponent, **kwargs)


class AphexNoiseLayer(NoiseInjection):
    """Adds windows of a recording: sound as noise.

    Time runs along the rows of a map, row after row and channel after channel.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sounddrop_jax import AphexNoiseLayer, audio, make_recording_bank
        >>> bank = make_recording_bank(audio.make_track("glitch", num_frames=2**16))
        >>> aphex = AphexNoiseLayer(bank=bank, intensity=0.05, rngs=nnx.Rngs(0))
        >>> aphex(jnp.zeros((4, 16, 16, 8))).shape
        (4, 16, 16, 8)

    Args:
        file_path: of a recording, of several or of a folder, see `audio.load_track`.
            It is read at once; to share one between layers, give its `bank` instead.
        intensity: the standard deviation of the noise.
        bank: a recording already loaded, see `make_recording_bank`.
        **kwargs: see `NoiseInjection`.

    Raises:
        ValueError: if not exactly one of `file_path` and `bank` is given, or the file
            cannot be used, see `audio.load_track`.
    """

    def __init__(
        self,
        file_path: str
        | os.PathLike[str]
        | Sequence[str | os.PathLike[str]]
        | None = None,
        intensity: float | jax.Array | Schedule = 0.05,
        *,
        bank: NoiseBank | None = None,
        **kwargs,
    ):
        if (file_path is None) == (bank is None):
            raise ValueError(
                "AphexNoiseLayer takes one recording: give file_path=... or bank=..."
            )
        if file_path is not None:
            bank = make_recording_bank(audio.load_track(file_path))
        super().__init__(intensity, bank=bank, **kwargs)


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
        intensity: the standard deviation of the noise.
        bank: white noise made beforehand, faster than drawing it:
            `make_power_law_bank(key, field_shape, exponent=0.0)`.
        **kwargs: see `NoiseInjection`.
    """

    def __init__(
        self,
        intensity: float | jax.Array | Schedule = 0.1,
        *,
        bank: NoiseBank | None = None,
        **kwargs,
    ):
        super().__init__(intensity, bank=bank, **kwargs)
