"""Banks: how they are made, and that every window is the next entries, in order."""

import copy
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sounddrop_jax import spectra
from sounddrop_jax.banks import (
    NoiseBank,
    make_power_law_bank,
    make_recording_bank,
    sample_window,
)


def count_bank(num_entries, field=()) -> NoiseBank:
    """Every value is its own position in memory: entry by entry, then in the field."""
    size = num_entries * math.prod(field)
    return NoiseBank(jnp.arange(float(size)).reshape(num_entries, *field))


KEY = jax.random.key(0)
FEW, MANY = (jax.random.split(KEY, num) for num in (4, 2_000))


def windows(bank, shape, keys=FEW) -> np.ndarray:
    return np.asarray(jax.vmap(lambda key: sample_window(key, bank, shape))(keys))


# Windows of a bank with a field


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ((4, 3), (2, 5, 4, 3)),  # rows of NHWC maps
        ((5, 4, 3), (2, 5, 4, 3)),  # planes
        ((3,), (7, 3)),
        ((2, 5, 4, 3), (2, 5, 4, 3)),  # one entry is a window
        ((4, 3), (4, 3)),  # no batch
        ((4, 3), (2, 2, 2, 4, 3)),  # video
        ((4, 3), (1, 1, 1, 1)),
        ((4, 3), (2, 5, 2, 3)),  # shorter rows
        ((4, 3), (2, 5, 9, 3)),  # longer ones
        *[((1, 3), (2, 5, 4, 3)), ((5, 4, 3), (2, 11, 2, 4)), ((4, 3), (2, 0, 3))],
    ],
    ids=str,
)
def test_shapes_of_other_sizes_are_filled_with_fields_side_by_side(field, shape):
    bank = count_bank(200, field)
    split = len(shape) - len(field)
    leading, trailing = shape[:split], shape[split:]
    counts = [-(-size // full) for size, full in zip(trailing, field, strict=True)]
    tall = tuple(n * full for n, full in zip(counts, field, strict=True))
    num = math.prod(leading) * math.prod(counts)
    for window in windows(bank, shape):
        if not window.size:
            assert window.shape == shape
            continue
        entry = int(window.flat[0]) // math.prod(field)
        fields = bank.values[entry : entry + num].reshape(*leading, *counts, *field)
        # Each axis of the counts goes before its own of the field.
        pairs = [split + i + k * len(field) for i in range(len(field)) for k in (0, 1)]
        large = fields.transpose(*range(split), *pairs).reshape(*leading, *tall)
        assert_array_equal(window, large[..., *map(slice, trailing)])


@pytest.mark.parametrize(
    ("field", "shape"),
    [((4, 3), (8, 3)), ((4, 3), ()), ((5, 4, 3), (4, 3))],
    ids=str,
)
def test_a_window_without_a_batch_axis_before_the_field_is_refused(field, shape):
    message = f"the field {field} cannot serve inputs of shape {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        sample_window(KEY, count_bank(50, field), shape)


def test_white_noise_needs_no_field():
    bank = make_power_law_bank(KEY, (), exponent=0.0)
    assert (bank.num_entries, bank.field_shape) == (2**22, ())
    assert_array_equal(bank.values, jax.random.normal(KEY, (2**22,)))
    for shape in [(8, 3), (2, 5, 4, 3), (3,)]:
        window = sample_window(KEY, bank, shape)
        assert window.shape == shape
        assert len(np.unique(window)) == window.size


@pytest.mark.parametrize("length", [1, 19, 20])
def test_a_bank_that_repeats_itself_within_a_batch_is_warned_of(length, recwarn):
    sample_window(KEY, count_bank(length, (4, 3)), (4, 5, 4, 3))
    messages = [str(warning.message) for warning in recwarn]
    assert len(messages) == (length < 20)
    for message in messages:
        assert message.startswith(f"A bank of {length} entries is shorter than a")
        assert "window of 20" in message and "num_entries=" in message


def test_the_axes_before_the_field_may_be_symbolic():
    for bank in (count_bank(100, (4, 3)), count_bank(100)):
        sample = functools.partial(sample_window, bank=bank)
        shape = jax.export.symbolic_shape("batch, 5, 4, 3")
        exported = jax.export.export(
            jax.jit(lambda key, inputs, sample=sample: sample(key, shape=inputs.shape))
        )(FEW[0], jax.ShapeDtypeStruct(shape, jnp.float32))
        for batch in (1, 3, 40):  # the last reads either bank as a loop
            window = exported.call(FEW[1], jnp.zeros((batch, 5, 4, 3)))
            assert window.shape == (batch, 5, 4, 3)
            steps = np.diff(np.asarray(window)[:, 0, 0, 0]) % bank.values.size
            assert (steps == 5 * 4 * 3 % bank.values.size).all()


# Windows of a recording


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 6, 3), (2, 1, 4, 1)], ids=str)
def test_a_recording_runs_as_in_channels_first_memory(shape):
    for window in windows(count_bank(500), shape):
        batch, *space, channels = shape
        channels_first = np.arange(math.prod(shape)).reshape(batch, channels, *space)
        expected = window.flat[0] + np.moveaxis(channels_first, 1, -1)
        assert_array_equal(window, expected)


@pytest.mark.parametrize("shape", [(2, 3), (5,), ()], ids=str)
def test_a_recording_runs_straight_through_vectors(shape):
    for window in windows(count_bank(500), shape):
        expected = window.flat[0] + np.arange(math.prod(shape)).reshape(shape)
        assert_array_equal(window, expected)


# Starts

SIZE = 6  # entries in the windows below


@pytest.mark.filterwarnings("ignore:A bank of .* is shorter than a window")
@pytest.mark.parametrize("field", [(), (2,)], ids=["recording", "field"])
@pytest.mark.parametrize("length", [1, SIZE, 2 * SIZE - 1, 2 * SIZE, 40])
def test_every_start_is_possible_and_equally_likely(length, field):
    loops = length < 2 * SIZE
    num_starts = length if loops else length - SIZE + 1
    sampled = windows(count_bank(length, field), (SIZE, *field), MANY)
    entries = sampled.reshape(len(MANY), SIZE, -1)[:, :, 0] / math.prod(field)

    starts = entries[:, 0].astype(int)
    steps = starts[:, None] + np.arange(SIZE)
    # In order, round a short bank and never round a long one.
    assert_array_equal(entries, steps % length if loops else steps)
    counts = np.bincount(starts, minlength=num_starts)
    assert len(counts) == num_starts  # the last start is the last that fits
    # Each of 35 comes 57 times on average, so that one is missed has probability
    # 1e-23; of uniform starts fewer than one set in 1,000 looks less uniform than this.
    assert counts.min() > 0
    if num_starts > 1:
        assert stats.chisquare(counts).pvalue > 1e-3


def test_an_empty_bank_is_refused():
    with pytest.raises(ValueError, match="bank"):
        sample_window(KEY, NoiseBank(jnp.zeros(0)), (3,))


# Banks


@pytest.mark.parametrize(
    ("field", "axes", "axes_of_all"),
    [
        *[((6, 3), (0, -1), (1, 2)), ((2, 6, 3), -1, (3,)), ((6,), 0, (1,))],
    ],
    ids=str,
)
def test_a_power_law_bank_is_shaped_within_the_field_only(field, axes, axes_of_all):
    law = {"exponent": 1.5, "min_frequency": 0.2}
    bank = make_power_law_bank(KEY, field, axes=axes, num_entries=8, **law)
    expected = spectra.power_law(KEY, (8, *field), axes=axes_of_all, **law)
    assert bank.field_shape == field
    assert_array_equal(bank.values, expected)


@pytest.mark.parametrize(
    ("field", "num_entries"), [((3, 5), 279_620), ((3000, 3000), 1)], ids=str
)
def test_a_bank_holds_about_four_million_values_by_default(field, num_entries, recwarn):
    make = functools.partial(make_power_law_bank, field_shape=field)
    bank = jax.eval_shape(make, jax.random.key(0))
    assert bank.values.shape == (num_entries, *field)
    messages = [str(warning.message) for warning in recwarn]
    assert len(messages) == (num_entries == 1)
    for message in messages:
        assert "the same noise at every step. Give it more: num_entries=" in message


@pytest.mark.parametrize("dtype", [jnp.bfloat16])
def test_a_bank_has_the_dtype_asked_for_and_its_windows_too(dtype):
    for bank in (
        make_power_law_bank(KEY, (6, 3), num_entries=8, dtype=dtype),
        make_recording_bank(SOUND, dtype=dtype),
    ):
        assert bank.values.dtype == dtype
        assert sample_window(KEY, bank, (2, 6, 3)).dtype == dtype


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"field_shape": (6, 0)}, r"field cannot be empty, but it is \(6, 0\)"),
        ({"num_entries": 0}, "at least one entry, not 0"),
        ({"axes": -3}, r"axes=\(-3,\) do not all exist in a field of rank 2"),
        ({"axes": ()}, "at least one"),
        ({"exponent": math.nan}, "exponent must lie in"),
    ],
    ids=str,
)
def test_a_power_law_bank_that_cannot_be_is_refused(settings, message):
    settings = {"field_shape": (6, 3), "num_entries": 8} | settings
    with pytest.raises(ValueError, match=message):
        make_power_law_bank(KEY, **settings)


SOUND = np.random.default_rng(0).standard_normal(1_000)


WAVEFORMS = {
    "JAX": jnp.asarray(SOUND),
    "offset": SOUND + 1e3,
    "loud": SOUND * 1e30,
    "uint8": (SOUND * 30 + 128).clip(0, 255).astype(np.uint8),
    "bool": SOUND > 0,
    "lowest int16": np.array([0, 0, 0, -32768], np.int16),
    "two frames": np.array([0.0, 1.0]),
}


@pytest.mark.parametrize("waveform", WAVEFORMS.values(), ids=WAVEFORMS)
def test_a_recording_is_brought_to_zero_mean_and_unit_variance(waveform):
    bank = make_recording_bank(waveform)
    assert isinstance(bank.values, jax.Array)
    assert bank.values.dtype == jnp.float32
    frames = np.asarray(waveform, np.float64)
    expected = (frames - frames.mean()) / frames.std()
    # float32 keeps seven digits; so does the waveform itself where it has an offset.
    assert_allclose(bank.values, expected, atol=1e-5)
    assert (bank.num_entries, bank.field_shape) == (len(frames), ())


def test_every_channel_of_a_recording_is_brought_there_by_itself():
    num_channels = 8
    scale = 10.0 ** np.arange(num_channels)
    frames = SOUND.reshape(-1, num_channels) * scale + 3 * scale
    bank = make_recording_bank(frames)
    expected = (frames - frames.mean(axis=0)) / frames.std(axis=0)
    assert_allclose(bank.values, expected, atol=1e-5)
    assert (bank.num_entries, bank.field_shape) == (len(frames), (num_channels,))


@pytest.mark.parametrize("field_shape", [None, (3, 4, 5)], ids=str)
def test_one_channel_that_is_kept_is_as_none(field_shape):
    kept, mono = (
        make_recording_bank(frames, field_shape=field_shape)
        for frames in (SOUND[:, None], SOUND)
    )
    assert_array_equal(kept.values, mono.values)


@pytest.mark.parametrize("field_shape", [(3, 4, 5), (6,), (1000,)], ids=str)
def test_a_recording_for_one_shape_lies_as_windows_of_one_for_all_do(field_shape):
    bank = make_recording_bank(SOUND, field_shape=field_shape)
    size, num_channels = math.prod(field_shape), field_shape[-1]
    assert bank.values.shape == (1000 // size, *field_shape)
    # Row after row, channel after channel, map after map.
    entry, within = np.divmod(np.arange(bank.values.size), size)
    row, channel = np.divmod(within, num_channels)
    expected = make_recording_bank(SOUND).values[
        entry * size + channel * (size // num_channels) + row
    ]
    assert_array_equal(bank.values.ravel(), expected)


@pytest.mark.parametrize(
    ("waveform", "field_shape", "message"),
    [
        (SOUND, (10, 10, 11), r"\(10, 10, 11\) holds 1100 samples, .* has 1000: give"),
        (SOUND, (4, 0, 2), r"\(4, 0, 2\) holds 0 samples"),
        (SOUND.reshape(500, 2), (5, 2), r"\(5, 2\) .* this one has 2 channels"),
        (SOUND.reshape(2, 500), None, r"shape \(2, 500\); put its fr"),
        (SOUND[:1].reshape(()), None, r"shape \(\)"),
        (SOUND[:0].reshape(3, 0), None, r"at least one sample, .* shape \(3, 0\)"),
        (np.stack([SOUND, 0 * SOUND], axis=1), None, "constant in channel 1"),
        (SOUND[:1], None, "silent or constant:"),
        (np.full(10, 0.1), None, "silent or constant:"),
        (np.full(10, -32768, np.int16), None, "silent or constant:"),
        (np.append(SOUND, math.nan), None, "NaN or infinity"),
    ],
)
def test_a_recording_that_will_not_do_is_refused(waveform, field_shape, message):
    with pytest.raises(ValueError, match=message):
        make_recording_bank(waveform, field_shape=field_shape)


@pytest.mark.parametrize("length", [20, 1_000])
def test_a_bank_of_a_numpy_array_serves_in_compiled_functions_too(length):
    values = np.arange(float(length), dtype=np.float32)
    take = functools.partial(sample_window, shape=(3, 4))
    found = jax.jit(lambda key: take(key, NoiseBank(values)))(KEY)
    assert_array_equal(found, take(KEY, NoiseBank(jnp.asarray(values))))


def test_a_copy_of_what_has_a_bank_shares_it():
    bank = NoiseBank(jnp.zeros(4))
    assert copy.deepcopy({"bank": bank})["bank"] == bank


def test_a_bank_is_shown_in_short_whatever_jax_puts_in_it():
    bank = NoiseBank(jnp.zeros((4, 3), jnp.bfloat16))
    assert repr(bank) == "NoiseBank(bfloat16[4, 3])"
    assert repr(jax.tree.map(lambda _: None, bank)) == "NoiseBank(None)"
