"""The injection of noise: pure functions from key, inputs and noise to outputs.

The noise is a constant to the gradient: neither it nor its bank receives any, and where
noise is added, d(outputs)/d(inputs) is exactly 1. Outputs keep the shape and dtype of
the inputs.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from sounddrop_jax import spectra
from sounddrop_jax.banks import NoiseBank, sample_window

Mode = Literal["additive", "relative", "multiplicative"]
"""What an intensity may mean, see `add_noise`."""

MODES: tuple[Mode, ...] = get_args(Mode)
"""The modes, one by one."""

Schedule = Callable[[ArrayLike], ArrayLike]
"""From a step to an intensity, like the schedules of optax."""


@dataclasses.dataclass(frozen=True)
class IntensityRange:
    """The range of an intensity that is drawn anew for every example.

    A layer or `random_noise` draws one number for each place along the first axis of
    the inputs, the batch; where `broadcast_dims` names that axis, one for all.
    This is how denoisers for unknown levels of noise are trained (Zhang et al. 2017,
    "Beyond a Gaussian denoiser"). Uniform draws have the power of the one intensity
    sqrt((low**2 + low * high + high**2) / 3).

    Attributes:
        low: the least intensity, a number, 0 or above; above 0 with `log`.
        high: the largest, a finite number, `low` or above.
        log: whether the logarithm is uniform, and not the intensity itself.

    Raises:
        ValueError: if a range is none of these.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> maps = jnp.zeros((3, 32, 32, 8))
        >>> intensity = IntensityRange(0.0, 0.2)
        >>> noisy = random_noise(jax.random.key(1), maps, intensity=intensity)
        >>> noisy.std((1, 2, 3)).round(2)
        Array([0.08, 0.11, 0.04], dtype=float32)
    """

    low: float
    high: float
    log: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Validates the range."""
        are_numbers = all(isinstance(x, numbers.Real) for x in (self.low, self.high))
        if not are_numbers or not 0 <= self.low <= self.high < math.inf:
            raise ValueError(f"{self} is no range: give numbers, 0 <= low <= high.")
        if self.log and self.low == 0:
            raise ValueError(f"{self} has no logarithm at 0: give a low above 0.")


Intensity = float | jax.Array | Schedule | IntensityRange
"""What a layer takes as its intensity."""


def add_noise(
    inputs: jax.Array,
    noise: jax.Array,
    *,
    intensity: ArrayLike,
    mode: Mode = "additive",
) -> jax.Array:
    """Adds noise to features.

    | mode           | outputs                                   |
    |----------------|-------------------------------------------|
    | additive       | inputs + intensity * noise                |
    | relative       | inputs + intensity * rms(inputs) * noise  |
    | multiplicative | inputs * (1 + intensity * noise)          |

    rms is the root of the mean square over all of the inputs, one number, itself a
    constant to the gradient; within `jax.vmap` or `jax.shard_map` over those of one
    call. White noise that multiplies is the Gaussian dropout of Srivastava et al.
    (2014), "Dropout: a simple way to prevent neural networks from overfitting",
    section 10, with intensity sqrt(rate / (1 - rate)).

    Args:
        inputs: `[...]`, floating point.
        noise: of a shape that broadcasts to that of the inputs.
        intensity: the standard deviation of the noise, if that of `noise` is 1, in
            units of the features, of their rms, or of each feature; 0 or above. A
            number or an array, which may be traced and broadcasts like the noise.
        mode: one of `MODES`.

    Returns:
        `[...]`, of the inputs' dtype.

    Raises:
        TypeError: if the inputs are not floating point, or intensity is not a number.
        ValueError: if noise or intensity do not broadcast to the inputs' shape, a
            number given as intensity is negative, infinite, NaN or more than the
            inputs' dtype can hold, or the mode is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> inputs, noise = jnp.array([1.0, 2.0, 2.0]), jnp.array([-1.0, 0.0, 1.0])
        >>> add_noise(inputs, noise, intensity=0.5)
        Array([0.5, 2. , 2.5], dtype=float32)
        >>> add_noise(inputs, noise, intensity=0.5, mode="multiplicative")
        Array([0.5, 2. , 3. ], dtype=float32)
    """
    check_settings(intensity=intensity, mode=mode)
    if callable(intensity):
        raise TypeError(
            "intensity must be a number or an array, not a schedule: call that first, "
            "intensity=schedule(step)."
        )
    if isinstance(intensity, IntensityRange):
        raise TypeError(
            "intensity must be a number or an array, not a range, which takes a key to "
            "draw from: random_noise has one."
        )
    inputs = _as_features(inputs)
    if not isinstance(intensity, jax.Array):
        _check_size(intensity, inputs.dtype)
    scale = jnp.asarray(intensity, inputs.dtype)
    if 0 < scale.ndim < inputs.ndim:  # JAX may be told to refuse what does it for us
        scale = lax.expand_dims(scale, range(inputs.ndim - scale.ndim))
    # Not by jnp.broadcast_shapes, whose error does not say what has which shape.
    for name, array in (("Noise", noise), ("An intensity", scale)):
        padded = (1,) * (inputs.ndim - array.ndim) + array.shape
        if len(padded) != inputs.ndim or any(
            size not in (1, wanted)
            for size, wanted in zip(padded, inputs.shape, strict=True)
        ):
            raise ValueError(
                f"{name} of shape {array.shape} does not broadcast to the inputs, of "
                f"shape {inputs.shape}."
            )
    noise = scale * lax.stop_gradient(noise).astype(inputs.dtype)
    if mode == "multiplicative":
        return inputs * (1 + noise)
    if mode == "relative":
        # Squares of half precision overflow at 256.
        wide = inputs.astype(np.promote_types(inputs.dtype, jnp.float32))
        rms = jnp.sqrt(jnp.mean(jnp.square(lax.stop_gradient(wide))))
        noise = rms.astype(inputs.dtype) * noise
    return inputs + noise


def _as_features(inputs: ArrayLike) -> jax.Array:
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"Noise is added to floating point features, but these are {inputs.dtype}: "
            "convert them first."
        )
    return inputs


def _check_size(intensity: ArrayLike, dtype: np.dtype) -> None:
    largest = float(jnp.finfo(dtype).max)
    if np.max(intensity) > largest:
        raise ValueError(
            f"intensity={intensity} is more than {dtype} can hold, {largest:g}: "
            "lower it, or convert the inputs."
        )


def random_noise(
    key: jax.Array,
    inputs: jax.Array,
    *,
    intensity: ArrayLike | IntensityRange,
    bank: NoiseBank | None = None,
    exponent: float = 0.0,
    axes: int | Sequence[int] = (-2,),
    broadcast_dims: Sequence[int] = (),
    channel_correlation: float = 0.0,
    mode: Mode = "additive",
) -> jax.Array:
    """Adds a random window of a bank or, without one, noise drawn afresh.

    Args:
        key: a PRNG key.
        inputs: `[...]`, floating point.
        intensity: see `add_noise`; or an `IntensityRange`, drawn from for each example.
        bank: the noise to take a window of, see `banks.sample_window`.
        exponent: of the spectrum of fresh noise, see `spectra.power_law`; 0 is white.
        axes: of the inputs, along which fresh noise is shaped; not used by white
            noise, which looks the same along any. Negative axes must not reach the
            first axis, which is the batch.
        broadcast_dims: dimensions of the inputs that share the same noise.
        channel_correlation: between the noise of any two channels, places along the
            last axis; a number from 0, noise of its own for each, to 1, the same for
            all, as `broadcast_dims=(-1,)` has it. In between it is sqrt(1 - c) times
            noise of its own and sqrt(c) times noise of all, two draws of one law, so
            that variance and spectrum stay (exchangeable variables: Tong 1990, "The
            multivariate normal distribution", chapter 5).
        mode: see `add_noise`.

    Returns:
        `[...]`, of the inputs' dtype.

    Raises:
        ValueError: if the inputs have no batch axis before the bank's field or the
            axes, the law, its axes, `broadcast_dims` or `channel_correlation` are out
            of range, the last contradicts one of the two before it, or `add_noise`
            refuses the intensity or the mode.
        TypeError: if the inputs are not floating point, intensity is neither a number
            nor a range, or `bank` is no `NoiseBank`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sounddrop_jax import make_power_law_bank
        >>> maps = jnp.zeros((2, 16, 16, 8), jnp.bfloat16)
        >>> random_noise(jax.random.key(0), maps, intensity=0.05, exponent=1.0).dtype
        dtype(bfloat16)
        >>> bank = make_power_law_bank(jax.random.key(1), (16, 8), num_entries=256)
        >>> random_noise(jax.random.key(0), maps, intensity=0.05, bank=bank).shape
        (2, 16, 16, 8)
    """
    check_settings(
        intensity=intensity,
        mode=mode,
        bank=bank,
        channel_correlation=channel_correlation,
    )
    inputs = _as_features(inputs)
    shares_a_part = 0 < channel_correlation < 1
    if shares_a_part and {-1, inputs.ndim - 1} & set(broadcast_dims):
        raise ValueError(
            f"channel_correlation={channel_correlation} has channels share a part of "
            f"the noise, broadcast_dims={tuple(broadcast_dims)} all of it: give one."
        )
    if shares_a_part and bank is None and exponent != 0:
        if {-1, inputs.ndim - 1} & set(np.atleast_1d(axes).tolist()):
            raise ValueError(
                f"channel_correlation={channel_correlation} is between channels in no "
                f"order, but axes={axes} shape the noise along them: give other axes, "
                "or exponent=0."
            )
    if channel_correlation == 1:
        broadcast_dims = (*broadcast_dims, -1)
    shape = list(inputs.shape)
    for dim in broadcast_dims:
        if not -inputs.ndim <= dim < inputs.ndim:
            raise ValueError(
                f"broadcast_dims={tuple(broadcast_dims)} do not all exist in inputs of "
                f"rank {inputs.ndim}."
            )
        shape[dim] = 1

    def draw(key, shape):
        if bank is not None:
            return sample_window(key, bank, shape)
        if exponent == 0:
            return jax.random.normal(key, shape, jnp.float32)  # along no axes
        if -inputs.ndim in np.atleast_1d(axes):
            raise ValueError(
                f"axes={axes} of inputs of shape {inputs.shape} name the first one, "
                "the batch: for features [B, F] give axes=-1; a single example takes a "
                "batch of one, inputs[None], or axes counted from the front."
            )
        return spectra.power_law(key, shape, exponent=exponent, axes=axes)

    if isinstance(intensity, IntensityRange):
        key, intensity_key = jax.random.split(key)
        one_each = [*shape[:1], *[1] * (inputs.ndim - 1)]
        _check_size(intensity.high, inputs.dtype)
        intensity = _draw_intensity(intensity_key, intensity, one_each)
    if shares_a_part:
        key, shared_key = jax.random.split(key)
        own, shared = draw(key, shape), draw(shared_key, [*shape[:-1], 1])
        noise = math.sqrt(1 - channel_correlation) * own
        noise += math.sqrt(channel_correlation) * shared
    else:
        noise = draw(key, shape)
    return add_noise(inputs, noise, intensity=intensity, mode=mode)


def _draw_intensity(
    key: jax.Array, drawn_from: IntensityRange, shape: Sequence[int]
) -> jax.Array:
    ends = drawn_from.low, drawn_from.high
    low, high = map(math.log, ends) if drawn_from.log else ends
    drawn = jax.random.uniform(key, shape, minval=low, maxval=high)
    return jnp.exp(drawn) if drawn_from.log else drawn


def check_settings(
    *,
    intensity: ArrayLike | Schedule | IntensityRange = 0.0,
    mode: Mode = "additive",
    bank: NoiseBank | None = None,
    channel_correlation: float = 0.0,
) -> None:
    """Validates the settings of a layer.

    Args:
        intensity: see `random_noise`; the values of a `jax.Array`, which may be traced,
            and of a schedule are not looked at.
        mode: see `add_noise`.
        bank: see `random_noise`.
        channel_correlation: see `random_noise`.

    Returns:
        Nothing.

    Raises:
        ValueError: if a number given as intensity is negative, infinite or NaN, the
            mode is unknown, or `channel_correlation` is outside 0 to 1.
        TypeError: if intensity is not a number, an array, a schedule or an
            `IntensityRange`, or `bank` is no `NoiseBank`.

    Example:
        >>> check_settings(intensity=-1.0)
        Traceback (most recent call last):
        ValueError: intensity must be finite and 0 or above, not -1.0.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}.")
    if not isinstance(bank, NoiseBank | None):
        raise TypeError(
            f"bank must be a NoiseBank, not {type(bank).__name__}: make one with "
            "make_power_law_bank or make_recording_bank, or wrap an array in NoiseBank."
        )
    if not 0 <= channel_correlation <= 1:
        raise ValueError(
            f"channel_correlation must lie in [0, 1], not {channel_correlation}."
        )
    if isinstance(intensity, jax.Array | IntensityRange) or callable(intensity):
        return
    values = np.asarray(intensity)
    if not any(
        jnp.issubdtype(values.dtype, kind) for kind in (np.floating, np.integer)
    ):
        raise TypeError(
            "intensity must be a number, an array, a schedule or an IntensityRange, "
            f"not {intensity!r}."
        )
    values = values.astype(np.float64)
    if not ((values >= 0) & (values < np.inf)).all():
        raise ValueError(f"intensity must be finite and 0 or above, not {intensity}.")
