"""Noise banks: noise made once, of which every step takes a window.

A bank has a leading time axis and trailing field axes. A window is the next n entries
from a random start, reshaped: one contiguous slice, whatever the noise.
"""

import contextlib
import math
import operator
import warnings
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, use_abstract_mesh
from jax.typing import ArrayLike, DTypeLike

from sounddrop_jax import _tpu, spectra


class NoiseBank:
    """Noise of zero mean and unit variance, ready to be cut into windows; a pytree.

    Banks are equal if they share one array. So a bank can be hashed, and be static.

    Attributes:
        values: `[num_entries, *field]`, floating point. The field is what one entry
            fills: nothing for a recording (an entry is a sample), `[W, C]` for noise
            along rows, `[H, W, C]` for noise in the plane.

    Example:
        >>> bank = NoiseBank(jax.random.normal(jax.random.key(0), (1024, 16, 8)))
        >>> bank, bank.num_entries
        (NoiseBank(float32[1024, 16, 8]), 1024)
    """

    def __init__(self, values: jax.Array):
        self.values = values

    @property
    def num_entries(self) -> int:
        """The number of entries along the time axis."""
        return self.values.shape[0]

    @property
    def field_shape(self) -> tuple[int, ...]:
        """The shape that one entry fills."""
        return self.values.shape[1:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseBank) and self.values is other.values

    def __hash__(self) -> int:
        return id(self.values)

    def __deepcopy__(self, memo: dict) -> "NoiseBank":
        return self  # a copy of a model shares its banks, and so their program

    def __repr__(self) -> str:
        # In short, for models that show what they are made of.
        values = self.values
        if hasattr(values, "shape"):
            return f"NoiseBank({values.dtype}{list(values.shape)})"
        return f"NoiseBank({values!r})"


# Not a dataclass, for Linen's `nn.jit` would look for what is static in its fields.
jax.tree_util.register_dataclass(NoiseBank, data_fields=["values"], meta_fields=[])


def make_power_law_bank(
    key: jax.Array | int,
    field_shape: Sequence[int],
    *,
    exponent: float = 1.0,
    axes: int | Sequence[int] = (-2,),
    min_frequency: float = 0.0,
    num_entries: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> NoiseBank:
    """Makes a bank of power-law noise.

    Args:
        key: a PRNG key, or an integer, the seed of one. With an integer the bank is an
            array at once, also within a transformation, where a key may be traced.
        field_shape: what an entry fills: the last axes of the feature maps that the
            bank is for, `(W, C)` for noise along rows, `(H, W, C)` in the plane. Maps
            of other sizes are served too, see `sample_window`. White noise needs no
            field, `()`: an entry is one value, and all shapes are served alike.
        exponent: of the spectrum, see `spectra.power_law`.
        axes: of the field along which the spectrum is shaped; not used by white noise.
        min_frequency: see `spectra.power_law`.
        num_entries: length of the bank; by default about four million values in all,
            16 MiB of float32, and at least one entry. A call takes as many entries as
            its leading axes hold: B for a field `(H, W, C)` of maps `[B, H, W, C]`,
            B * H for `(W, C)`. Give it several times that; with fewer, the noise of a
            batch repeats itself, and a single entry is the same noise at every step.
        dtype: of the values. bfloat16 keeps two to three digits and needs half the
            memory, so that a window is read faster.

    Returns:
        A bank of independent entries.

    Raises:
        ValueError: if the field is empty, `num_entries` is below 1, `axes` are not
            axes of the field, or the law is out of range.
        TypeError: if `dtype` is not floating point.

    Example:
        >>> bank = make_power_law_bank(0, (16, 8), num_entries=256)
        >>> bank.num_entries, bank.field_shape
        (256, (16, 8))
    """
    field_shape = tuple(map(operator.index, field_shape))
    num_entries = _count_entries(num_entries, field_shape)
    rank = len(field_shape)
    # White noise has no axes, see `inject.random_noise`.
    given = [] if exponent == 0 else np.atleast_1d(axes).tolist()
    if not all(-rank <= axis < rank for axis in given):
        raise ValueError(
            f"axes={tuple(given)} do not all exist in a field of rank {rank}: name "
            "axes that it has."
        )
    with contextlib.ExitStack() as stack:
        if not isinstance(key, jax.core.Tracer):
            # At once, even within a transformation: an array, and no part of a program;
            # nor of the mesh of a `shard_map`.
            stack.enter_context(jax.ensure_compile_time_eval())
            stack.enter_context(use_abstract_mesh(AbstractMesh((), ())))
        values = spectra.power_law(
            jax.random.key(key) if isinstance(key, int | np.integer) else key,
            (num_entries, *field_shape),
            exponent=exponent,
            axes=0 if exponent == 0 else [axis % rank + 1 for axis in given],
            min_frequency=min_frequency,
            dtype=dtype,
        )
    return NoiseBank(values)


def _count_entries(num_entries: int | None, field_shape: tuple[int, ...]) -> int:
    field_size = math.prod(field_shape)
    if field_size == 0:
        raise ValueError(f"A bank's field cannot be empty, but it is {field_shape}.")
    if num_entries is None:
        num_entries = max(2**22 // field_size, 1)
        if num_entries == 1:
            warnings.warn(
                f"By default a bank of so large a field, {field_shape}, has one entry: "
                "the same noise at every step. Give it more: num_entries=...",
                stacklevel=3,
            )
    if num_entries < 1:
        raise ValueError(f"A bank needs at least one entry, not {num_entries}.")
    return num_entries


def make_recording_bank(
    waveform: ArrayLike,
    *,
    field_shape: Sequence[int] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> NoiseBank:
    """Makes a bank of a recording, brought to zero mean and unit variance.

    Args:
        waveform: `[num_frames]` or `[num_frames, C]`, real; see `audio.load_track` and
            `tracks.make_track`. Each channel is brought there by itself.
        field_shape: the last axes, `(H, W, C)`, of the feature maps that the bank is
            for, if for no others: `[num_frames]` is then laid out as `sample_window`
            would do it at every call, along the rows of one channel before it goes on
            to the next. Windows cost less, and start at whole maps only. The end that
            fills no map is left out.
        dtype: of the values, floating point.

    Returns:
        A bank whose entries are fields, if `field_shape` is given; or single samples,
        of one channel, for feature maps of any shape; or, of several channels, fields
        `[C]`, for maps that end in C.

    Raises:
        ValueError: if the waveform has another shape, is empty, has more channels than
            frames or a constant channel, or holds NaN or infinity; or if `field_shape`
            is empty, larger than the recording, or given for several channels.
        TypeError: if `dtype` is not floating point.

    Example:
        >>> import numpy as np
        >>> bank = make_recording_bank(np.sin(np.arange(10_000)))
        >>> bank.num_entries, bank.field_shape, round(float(bank.values.std()), 3)
        (10000, (), 1.0)
        >>> make_recording_bank(np.sin(np.arange(10_000)), field_shape=(8, 8, 4))
        NoiseBank(float32[39, 8, 8, 4])
        >>> make_recording_bank(np.sin(np.arange(10_000).reshape(-1, 2))).field_shape
        (2,)
    """
    _check_dtype(dtype)
    frames = np.asarray(waveform, np.float64)
    # More channels than frames: the axes are the other way round.
    if frames.size == 0 or not (
        frames.ndim == 1 or frames.ndim == 2 and len(frames) >= frames.shape[1]
    ):
        raise ValueError(
            "A recording has shape [num_frames] or [num_frames, C] and at least one "
            f"sample, but this one has shape {frames.shape}; put its frames along the "
            "first axis."
        )
    if not np.isfinite(frames).all():
        raise ValueError("The recording holds NaN or infinity; clean it first.")
    peak = np.abs(frames).max(axis=0)
    frames = frames - frames.mean(axis=0)
    deviation = frames.std(axis=0)
    silent = np.flatnonzero(~(deviation > 1e-8 * peak))
    if silent.size:
        where = f" in channel {silent[0]}" if frames.ndim == 2 else ""
        raise ValueError(
            f"The recording is silent or constant{where}: it holds no noise; "
            "give one that varies."
        )
    frames = frames / deviation
    if frames.ndim == 2 and frames.shape[1] == 1:  # one channel is laid out as none
        frames = frames[:, 0]
    if field_shape is not None:
        frames = _lay_out(frames, tuple(map(operator.index, field_shape)))
    with jax.ensure_compile_time_eval():
        return NoiseBank(jnp.asarray(frames, dtype))


def _check_dtype(dtype: DTypeLike) -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"Noise is floating point, but dtype is {jnp.dtype(dtype)}.")


def _lay_out(frames: np.ndarray, field_shape: tuple[int, ...]) -> np.ndarray:
    if frames.ndim > 1:
        raise ValueError(
            f"field_shape={field_shape} is for a recording [num_frames], but this one "
            f"has {frames.shape[1]} channels, which lie in the channels of maps "
            "already: give one of them, or no field_shape."
        )
    size = math.prod(field_shape)
    if not 0 < size <= len(frames):
        raise ValueError(
            f"field_shape={field_shape} holds {size} samples, and the recording has "
            f"{len(frames)}: give the last axes of the maps, (H, W, C), and a "
            "recording that fills them."
        )
    frames = frames[: len(frames) // size * size]
    return np.moveaxis(frames.reshape(-1, *field_shape[-1:], *field_shape[:-1]), 1, -1)


def sample_window(key: jax.Array, bank: NoiseBank, shape: Sequence[int]) -> jax.Array:
    """Takes the next entries from a random start and gives them the shape asked for.

    A bank with a field fills the shape's last axes with fields, entry by entry. Where
    the shape is smaller than the field, the first places are taken; where it is larger,
    fields stand side by side: so the noise along that axis has the bank's spectrum
    within each field, and goes on with the bank's next entry. Entries of power-law
    noise are independent; those of a recording are what comes next.

    A recording, whose entries are samples, runs along the middle axes first, then along
    the last (the channels), then along the first (the batch): neighbours in time
    become neighbours in space, as in channels-first memory.

    A bank shorter than two windows is read as a loop, so that every start stays
    possible however short it is; longer ones are not read across their end.

    Args:
        key: a PRNG key; it decides the start.
        bank: where the window is taken.
        shape: of the window. The axes before those of the field may be symbolic, as
            for `jax.export`; there must be one, the batch, unless the shape is the
            field's own. Where it has 1 for a field axis, one position along that axis
            is taken, to be broadcast.

    Returns:
        `[*shape]`, of the bank's dtype.

    Raises:
        ValueError: if the shape has no axis before the field's, or the bank is empty.

    Warns:
        UserWarning: if the bank has fewer entries than the window takes, so that the
            noise repeats itself.

    Example:
        >>> import jax
        >>> bank = NoiseBank(jax.numpy.arange(100.0))
        >>> window = sample_window(jax.random.key(0), bank, (2, 3, 4))
        >>> [float(x) for x in window[0, :, 0] - window[0, 0, 0]]
        [0.0, 1.0, 2.0]
        >>> rows = make_power_law_bank(0, (16, 8), num_entries=256)
        >>> sample_window(jax.random.key(0), rows, (4, 12, 20)).shape
        (4, 12, 20)
    """
    shape, field = tuple(shape), bank.field_shape
    if bank.num_entries == 0:
        raise ValueError("An empty bank has no windows: make one with entries.")
    split = len(shape) - len(field)
    leading, trailing = shape[: max(split, 0)], shape[max(split, 0) :]
    if field and split <= 0 and not _fits(trailing, field):
        raise ValueError(
            f"A bank with the field {field} cannot serve inputs of shape {shape}, "
            "which have no batch axis before the field: for features [B, F] make a "
            "bank with field_shape=(F,) and axes=-1; a single example takes a batch "
            "of one, inputs[None]."
        )
    # How many fields side by side fill each axis.
    repeats = [-(-size // full) for size, full in zip(trailing, field, strict=True)]

    def arrange(entries):
        if not field and len(shape) >= 3:
            first, *middle, last = shape
            entries = entries.reshape(first, last, math.prod(middle))
            return entries.swapaxes(1, 2).reshape(shape)
        window, full = entries, field
        if any(count > 1 for count in repeats):
            axes = list(range(len(leading)))
            for axis in range(len(leading), len(shape)):
                axes += [axis, axis + len(field)]
            window = window.reshape(*leading, *repeats, *field).transpose(axes)
            full = tuple(n * size for n, size in zip(repeats, field, strict=True))
            window = window.reshape(*leading, *full)
        part = tuple(slice(size) for size in trailing)
        return window[..., *part].reshape(shape)

    num_entries = math.prod(leading) * math.prod(repeats)
    return _take(key, jnp.asarray(bank.values), num_entries, arrange, shape)


def _fits(trailing: tuple[int, ...], field: tuple[int, ...]) -> bool:
    return len(trailing) == len(field) and all(
        size in (1, full) for size, full in zip(trailing, field, strict=True)
    )


def _take(
    key: jax.Array,
    values: jax.Array,
    size: int,
    arrange: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
) -> jax.Array:
    """Takes as many entries from a random start, and arranges them to the shape."""
    length = values.shape[0]
    # One draw, where randint makes several and a call this short would feel them. No
    # start is likelier than another by more than num_starts / 2^32.
    bits = jax.random.bits(key, (), jnp.uint32)
    is_symbolic = jax.export.is_symbolic_dim(size)
    if is_symbolic or length < 2 * size:
        if not is_symbolic and length < size:
            warnings.warn(
                f"A bank of {length} entries is shorter than a window of {size}: its "
                "noise repeats itself within a batch. Make it several times as long: "
                "num_entries=..., or a longer recording.",
                stacklevel=2,
            )
        entries = (bits % length + jnp.arange(size, dtype=jnp.uint32)) % length
        return arrange(values[entries])
    start = bits % (length - size + 1)

    def cut(values, start):
        return arrange(lax.dynamic_slice_in_dim(values, start, size))

    def cut_on_a_tpu(values, start):
        return _tpu.cut(values, start, size, arrange, shape)

    return lax.platform_dependent(
        values, start.astype(jnp.int32), tpu=cut_on_a_tpu, default=cut
    )
