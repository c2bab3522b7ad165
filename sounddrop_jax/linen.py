"""The same layers for Flax Linen, in the place of a `linen.Dropout`.

For the same key they give the same numbers as those in `modules`. A bank is an
attribute and no variable: `init` returns the same variables as it does with Dropout,
and no optimizer, gradient or checkpoint sees the noise. In a compiled program it is a
constant, stored once on each device however many layers and seeds share it.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sounddrop_jax import audio, inject
from sounddrop_jax.banks import NoiseBank, make_recording_bank
from sounddrop_jax.inject import Intensity, Mode


class _NoiseLayer(nn.Module):
    """What all layers do; each declares its own fields, in its own order."""

    def __post_init__(self):
        """Makes an array as intensity a number or a tuple, which `nn.jit` can hash."""
        layer: Any = self
        if isinstance(layer.intensity, jax.Array | np.ndarray) and not isinstance(
            layer.intensity, jax.core.Tracer
        ):
            layer.intensity = _freeze(layer.intensity.tolist())
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        deterministic: bool | None = None,
        rng: jax.Array | None = None,
        step: int | jax.Array | None = None,
    ) -> jax.Array:
        """Adds noise to the inputs.

        Args:
            inputs: `[...]`, floating point.
            deterministic: if True the inputs are returned as they are. Overrules the
                attribute.
            rng: the key to draw from; without one, `make_rng` gives it.
            step: to ask a schedule for, which then keeps no count; no other intensity
                uses it.

        Returns:
            `[...]`, of the inputs' dtype. The inputs themselves, and no key is
            consumed, if `deterministic`, or if the intensity is the number 0.

        Raises:
            ValueError: if the mode was given neither here nor to the constructor, the
                noise does not fit the inputs, the intensity is out of range, or there
                is no collection to count the calls for a schedule in.
            TypeError: if the inputs are not floating point, or intensity is not a
                number, an array, a schedule or an `IntensityRange`.
            flax.errors.InvalidRngError: if there is no key.
        """
        layer: Any = self
        name, intensity = type(self).__name__, layer.intensity
        if deterministic is None:
            deterministic = layer.deterministic
        if deterministic is None:
            raise ValueError(
                f"{name} does not know whether to add noise. Choose one:\n"
                f"  1. at construction: {name}(..., deterministic=False)\n"
                f"  2. at the call: layer(inputs, deterministic=False)"
            )
        inject.check_settings(
            intensity=intensity,
            mode=layer.mode,
            bank=layer.bank,
            channel_correlation=layer.channel_correlation,
        )
        counts = callable(intensity) and step is None
        # At initialisation in evaluation too, so that training finds the count.
        if counts and (self.is_initializing() or not deterministic):
            if not self.is_mutable_collection("noise"):
                raise ValueError(
                    f"{name} counts the steps of its schedule in the collection "
                    '"noise". Choose one:\n'
                    f"  1. at the call: layer(inputs, step=step), and it counts none\n"
                    '  2. model.apply(..., mutable=["noise"]), and pass the collection '
                    "on to the next step;\n"
                    '     in a lifted scan or vmap: variable_axes={"noise": 0} too'
                )
            calls = self.variable("noise", "calls", lambda: jnp.int32(0))
        if deterministic or (np.isscalar(intensity) and intensity == 0):
            return inputs
        if callable(intensity):
            intensity = intensity(calls.value if counts else step)
            if counts and not self.is_initializing():
                calls.value += 1
        return inject.random_noise(
            self.make_rng(layer.rng_collection) if rng is None else rng,
            inputs,
            intensity=intensity,
            bank=layer.bank,
            # White noise and recordings have no law to choose.
            exponent=getattr(layer, "exponent", 0.0),
            axes=getattr(layer, "axes", (-2,)),
            broadcast_dims=layer.broadcast_dims,
            channel_correlation=layer.channel_correlation,
            mode=layer.mode,
        )


def _freeze(values: Any) -> Any:
    return tuple(map(_freeze, values)) if isinstance(values, list) else values


class NoiseInjection(_NoiseLayer):
    """Adds structured noise to its inputs while training; returns them in evaluation.

    The noise is a window of `bank`, or, where there is none, drawn afresh at every
    call with power 1/f^exponent along `axes`, for inputs of any shape.

    A schedule as intensity, of optax or any function from a step to an intensity, is
    asked at every call in training: for the `step` given there or, without one, for
    the number of calls before, from 0. That number is kept in the collection "noise",
    which training must carry along as it does BatchNorm's "batch_stats":
    `model.apply(..., mutable=["noise"])`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sounddrop_jax.linen import NoiseInjection
        >>> plane = NoiseInjection(0.1, exponent=2.0, axes=(-3, -2))
        >>> maps = jnp.zeros((4, 16, 16, 8))
        >>> rngs = {"dropout": jax.random.key(0)}
        >>> noisy = plane.apply({}, maps, deterministic=False, rngs=rngs)
        >>> bool((noisy == maps).all())
        False
        >>> plane.apply({}, maps, deterministic=True) is maps
        True

    Args:
        intensity: the standard deviation of the noise, 0 or above: a number; an
            array, which may be traced; a schedule; or an `IntensityRange`, from which
            every example draws its own.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        bank: the noise to take windows of, see `banks.sample_window`.
        exponent: of noise drawn afresh, see `spectra.power_law`; 0 is white.
        axes: of the inputs, along which fresh noise is shaped: -2, the rows of NHWC
            maps and the time axis of sequences, or (-3, -2), the plane of NHWC maps.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" to the inputs' rms, or "multiplicative", see
            `inject.add_noise`.
    """

    intensity: Intensity
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None
    rng_collection: str = "dropout"
    _: dataclasses.KW_ONLY
    bank: NoiseBank | None = None
    exponent: float = 0.0
    axes: int | Sequence[int] = (-2,)
    channel_correlation: float = 0.0
    mode: Mode = "additive"


class WaterNoiseLayer(NoiseInjection):
    """Adds pink noise along rows, "the sound of water": power 1/f along the width.

    Without a bank the noise is drawn afresh for inputs of any shape; a bank made for
    the shape, `make_power_law_bank(0, (W, C))`, is much faster.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sounddrop_jax.linen import WaterNoiseLayer
        >>> water = WaterNoiseLayer(intensity=0.05, deterministic=False)
        >>> rngs = {"dropout": jax.random.key(0)}
        >>> water.apply({}, jnp.zeros((4, 16, 16, 8)), rngs=rngs).shape
        (4, 16, 16, 8)

    Args:
        intensity: standard deviation of the noise: a number, array, schedule or range.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        bank: noise made for the shape of the inputs, instead of fresh noise.
        exponent: of the spectrum, 1 for pink.
        axes: of the inputs, along which the noise is shaped.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" or "multiplicative".
    """

    intensity: Intensity = 0.05
    _: dataclasses.KW_ONLY
    exponent: float = 1.0


class AphexNoiseLayer(_NoiseLayer):
    """Adds windows of a recording: sound as noise.

    Time runs along the rows of a map, row after row and channel after channel.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sounddrop_jax import make_recording_bank, tracks
        >>> from sounddrop_jax.linen import AphexNoiseLayer
        >>> bank = make_recording_bank(tracks.make_track("glitch", num_frames=2**16))
        >>> aphex = AphexNoiseLayer(bank=bank, deterministic=False)
        >>> rngs = {"dropout": jax.random.key(0)}
        >>> aphex.apply({}, jnp.zeros((4, 16, 16, 8)), rngs=rngs).shape
        (4, 16, 16, 8)

    Args:
        file_path: of a recording, of several or of a folder, see `audio.load_track`.
            It is read when the layer is made, which in a compact method is at every
            trace; to read it once, give its `bank` instead.
        intensity: standard deviation of the noise: a number, array, schedule or range.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        bank: a recording already loaded, see `make_recording_bank`.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" or "multiplicative".

    Raises:
        ValueError: if not exactly one of `file_path` and `bank` is given, or the file
            cannot be used, see `audio.load_track`.
    """

    file_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None
    intensity: Intensity = 0.05
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None
    rng_collection: str = "dropout"
    _: dataclasses.KW_ONLY
    bank: NoiseBank | None = None
    channel_correlation: float = 0.0
    mode: Mode = "additive"

    def __post_init__(self):
        """Reads the file, once: a copy that Linen makes has the bank already."""
        if (self.file_path is None) == (self.bank is None):
            raise ValueError(
                "AphexNoiseLayer takes one recording: give file_path=... or bank=..."
            )
        if self.file_path is not None:
            self.bank = make_recording_bank(audio.load_track(self.file_path))
            self.file_path = None
        super().__post_init__()


class GaussianNoiseLayer(_NoiseLayer):
    """Adds white Gaussian noise.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sounddrop_jax.linen import GaussianNoiseLayer
        >>> gaussian = GaussianNoiseLayer(intensity=0.1, deterministic=False)
        >>> rngs = {"dropout": jax.random.key(0)}
        >>> gaussian.apply({}, jnp.zeros((4, 16, 16, 8)), rngs=rngs).shape
        (4, 16, 16, 8)

    Args:
        intensity: standard deviation of the noise: a number, array, schedule or range.
        broadcast_dims: dimensions that share the same noise.
        deterministic: if True the inputs are returned as they are.
        rng_collection: the name of the random stream that keys are taken from.
        bank: white noise made beforehand, faster than drawing it:
            `make_power_law_bank(0, (), exponent=0.0)`, for inputs of any shape.
        channel_correlation: between the noise of two channels, from 0 to 1.
        mode: "additive", "relative" or "multiplicative".
    """

    intensity: Intensity = 0.1
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None
    rng_collection: str = "dropout"
    _: dataclasses.KW_ONLY
    bank: NoiseBank | None = None
    channel_correlation: float = 0.0
    mode: Mode = "additive"
