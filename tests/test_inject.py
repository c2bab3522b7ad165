"""Injection: outputs are inputs plus scaled noise, and gradients see right through."""

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
from sounddrop_jax.banks import NoiseBank, make_power_law_bank, sample_window
from sounddrop_jax.inject import (
    MODES,
    IntensityRange,
    add_noise,
    check_settings,
    random_noise,
)

SHAPE = (5, 6, 3)
INPUTS = jnp.asarray(np.random.default_rng(0).standard_normal(SHAPE), jnp.float32)
ROWS = make_power_law_bank(jax.random.key(1), SHAPE[1:], num_entries=512)
RECORDING = NoiseBank(jnp.asarray(np.random.default_rng(1).standard_normal(9_999)))
KEY = jax.random.key(2)


def inject_noise(key, inputs, **settings):
    """Puts `add_noise` into the same battery; this noise is the same for any key."""
    del key
    noise = jnp.asarray(np.random.default_rng(2).standard_normal(SHAPE), jnp.float32)
    return add_noise(inputs, noise, **settings)


RANDOM = {
    "row bank": functools.partial(random_noise, bank=ROWS),
    "pink": functools.partial(random_noise, exponent=1.0),
}
ALL = RANDOM | {"given": inject_noise}
every_function = pytest.mark.parametrize("inject", ALL.values(), ids=ALL)
every_random_function = pytest.mark.parametrize("inject", RANDOM.values(), ids=RANDOM)


# What is added


def test_add_noise_adds_the_noise_times_the_intensity():
    noise = jnp.array([1.0, -2.0, 0.5])
    outputs = add_noise(jnp.array([[1.0, 1.0, 1.0]] * 2), noise, intensity=0.5)
    assert_array_equal(outputs, [[1.5, 0.0, 1.25]] * 2)


@pytest.mark.parametrize("bank", [ROWS, RECORDING], ids=["row bank", "recording"])
def test_random_noise_adds_a_window_of_the_bank(bank):
    for intensity in (0.5, jnp.array([0.0, 0.5, 2.0])):  # one for each channel
        outputs = random_noise(KEY, INPUTS, bank=bank, intensity=intensity)
        expected = INPUTS + intensity * sample_window(KEY, bank, SHAPE)
        assert_allclose(outputs, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("law", "expected_law"),
    [
        ({"exponent": 1.0}, {"exponent": 1.0, "axes": -2}),
        ({"exponent": 2.0, "axes": (0, 1)}, {"exponent": 2.0, "axes": (-3, -2)}),
        ({}, {"exponent": 0.0, "axes": 0}),
    ],
    ids=["rows", "plane", "default"],
)
def test_random_noise_adds_noise_of_the_law(law, expected_law):
    outputs = random_noise(KEY, INPUTS, intensity=0.5, **law)
    expected = INPUTS + 0.5 * spectra.power_law(KEY, SHAPE, **expected_law)
    assert_allclose(outputs, expected, atol=1e-6)


@every_random_function
def test_intensity_is_the_standard_deviation_of_what_is_added(inject):
    added = inject(KEY, jnp.zeros((500, 6, 3)), intensity=0.3)
    # 5 standard errors of 9,000 values, of which pink noise is worth half.
    error = 5 * 0.3 / math.sqrt(9_000 / 2)
    assert float(added.mean()) == pytest.approx(0, abs=error)
    assert float(added.std()) == pytest.approx(0.3, abs=error)


@every_random_function
def test_broadcast_dims_share_the_noise(inject):
    dims = (0, -1)
    added = inject(KEY, jnp.zeros(SHAPE), intensity=1.0, broadcast_dims=dims)
    assert added.shape == SHAPE
    assert_array_equal(np.ptp(added, axis=dims), 0)
    assert np.ptp(added, axis=1).min() > 0


def test_noise_shared_along_the_shaped_axes_is_noise_still():
    inputs = jnp.zeros((5, 6, 1_500))
    added = random_noise(
        KEY, inputs, intensity=1.0, exponent=1.0, axes=(0, 1), broadcast_dims=(0, 1)
    )
    # 5 standard errors over 1,500 numbers.
    assert float(added.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * 1_500))


# Channels that share a part of it


@functools.cache
def make_bank(*field: int, **law) -> NoiseBank:
    return make_power_law_bank(0, field, axes=(-3, -2), **law)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("make", "exponent", "axes"),
    [
        *[(None, 0, -2), (functools.partial(make_bank, exponent=0), 0, -2)],
        *[(None, 1, -2), (functools.partial(make_bank, 8, 8, 4), 1, (-3, -2))],
    ],
    ids=["white", "recording", "pink", "plane bank"],
)
def test_channels_correlate_as_asked_and_keep_variance_and_spectrum(
    make, exponent, axes, mode
):
    bank = make and make()
    law = {} if bank else {"exponent": exponent, "axes": axes}
    ones = jnp.ones((4_096, 8, 8, 4))  # of rms 1, so that all modes add the noise
    settings = {"intensity": 1.0, "channel_correlation": 0.3, "mode": mode}
    inject = jax.jit(functools.partial(random_noise, **settings, **law))
    noisy = inject(KEY, ones, bank=bank)
    noise = np.asarray(noisy - 1, np.float64)
    covariance = np.cov(noise.reshape(-1, 4), rowvar=False)
    np.testing.assert_allclose(covariance.diagonal().mean(), 1, atol=0.01)
    found = np.corrcoef(noise.reshape(-1, 4), rowvar=False)
    np.testing.assert_allclose(found, np.where(np.eye(4), 1, 0.3), atol=0.02)
    found = spectra.fit_exponent(noise, axes=axes)
    assert found == pytest.approx(exponent, abs=0.02)


@every_random_function
def test_a_correlation_of_none_or_all_is_what_there_was_before(inject):
    add = functools.partial(inject, KEY, INPUTS, intensity=0.3)
    np.testing.assert_array_equal(add(channel_correlation=0), add())
    np.testing.assert_array_equal(add(channel_correlation=1), add(broadcast_dims=(-1,)))


@pytest.mark.parametrize(
    ("correlation", "dims", "message"),
    [
        (1.1, (), r"channel_correlation must lie in \[0, 1\], not 1.1"),
        (math.nan, (), "channel_correlation must lie in"),
        (0.5, (-1,), r"broadcast_dims=\(-1,\) all of it: give one"),
        (0.5, (0, 2), r"broadcast_dims=\(0, 2\) all of it: give one"),
    ],
)
def test_a_correlation_that_cannot_be_is_refused(correlation, dims, message):
    settings = {"channel_correlation": correlation, "broadcast_dims": dims}
    with pytest.raises(ValueError, match=message):
        random_noise(KEY, INPUTS, intensity=0.3, **settings)


@pytest.mark.parametrize("axes", [-1, (1, 2)])
def test_channels_with_a_spectrum_along_them_share_no_part_of_it(axes):
    add = functools.partial(
        random_noise, KEY, INPUTS, intensity=0.3, channel_correlation=0.5, axes=axes
    )
    with pytest.raises(ValueError, match=f"but axes={re.escape(str(axes))} shape the"):
        add(exponent=1.0)
    add()  # white noise has no axes


# What an intensity means


def test_relative_noise_is_in_units_of_the_inputs():
    noise = jnp.array([1.0, -1.0, 0.5, 0.0])
    inputs = jnp.array([3.0, 4.0, 0.0, -5.0])  # whose rms is the root of 50 / 4
    outputs = add_noise(inputs, noise, intensity=0.1, mode="relative")
    expected = np.array([3, 4, 0, -5]) + 0.1 * math.sqrt(12.5) * np.array(noise)
    assert_allclose(outputs, expected, rtol=1e-6)


def test_relative_noise_of_silent_inputs_is_none():
    silence = jnp.zeros(SHAPE)
    outputs = random_noise(KEY, silence, intensity=0.3, mode="relative")
    assert_array_equal(outputs, silence)


def test_relative_noise_of_half_precision_does_not_overflow():
    inputs = jnp.full(SHAPE, 1e4, jnp.float16)  # whose squares are infinite
    outputs = random_noise(KEY, inputs, intensity=0.1, mode="relative")
    assert jnp.isfinite(outputs).all()
    assert 500 < float((outputs - inputs).astype("float32").std()) < 2_000


@every_function
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_the_identity_at_intensity_zero(inject, mode):
    outputs = inject(KEY, INPUTS, intensity=0.0, mode=mode)
    assert_array_equal(outputs, INPUTS)


@every_function
def test_the_noise_is_a_constant_to_the_gradient_in_every_mode(inject):
    def gradient(mode):
        outputs = functools.partial(inject, KEY, intensity=0.3, mode=mode)
        return jax.grad(lambda inputs: outputs(inputs).sum())(INPUTS)

    assert_array_equal(gradient("relative"), np.ones(SHAPE))
    expected = inject(KEY, jnp.ones(SHAPE), intensity=0.3, mode="multiplicative")
    assert_array_equal(gradient("multiplicative"), expected)


@every_function
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *[("intensity", value, ValueError) for value in (-0.1, math.nan, math.inf)],
        ("intensity", [0.1, 0.2, -0.3], ValueError),
        *[("intensity", value, TypeError) for value in ("0.1", True, 0.1j)],
        ("mode", "add", ValueError),
    ],
    ids=str,
)
def test_a_setting_that_will_not_do_is_refused(inject, name, value, error):
    with pytest.raises(error, match=f"^{name} must be"):
        inject(KEY, INPUTS, **{"intensity": 0.3} | {name: value})


@pytest.mark.parametrize("intensity", [0, np.float16(1), jnp.bfloat16(1), [0.1, 0.2]])
def test_settings_that_will_do_pass(intensity):
    check_settings(intensity=intensity, mode="additive")
    check_settings(intensity=lambda step: -1.0, mode="relative")


# Gradients


@every_function
def test_the_gradient_of_the_inputs_is_exactly_one(inject):
    noisy, pull_back = jax.vjp(lambda x: inject(KEY, x, intensity=0.3), INPUTS)
    assert not np.allclose(noisy, INPUTS, atol=1e-3)
    gradient = jnp.asarray(np.random.default_rng(3).standard_normal(SHAPE), "float32")
    assert_array_equal(pull_back(gradient)[0], gradient)
    _, tangent = jax.jvp(
        lambda x: inject(KEY, x, intensity=0.3), (INPUTS,), (gradient,)
    )
    assert_array_equal(tangent, gradient)


@pytest.mark.parametrize("bank", [ROWS, RECORDING], ids=["row bank", "recording"])
def test_the_gradient_of_the_bank_is_zero(bank):
    def loss(bank):
        return (random_noise(KEY, INPUTS, bank=bank, intensity=0.3) ** 2).sum()

    gradient = jax.grad(loss)(bank)
    assert_array_equal(gradient.values, np.zeros(bank.values.shape))


@every_function
def test_the_intensity_can_be_learned(inject):
    added = inject(KEY, jnp.zeros(SHAPE), intensity=1.0)
    gradient = jax.grad(lambda i: inject(KEY, INPUTS, intensity=i).sum())(0.3)
    # A sum of 90 numbers of order 1 in float32.
    assert float(gradient) == pytest.approx(float(added.sum()), abs=1e-4)


# Dtypes


@every_function
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("intensity", [np.float64(0.3), jnp.float32(0.3)])
@pytest.mark.parametrize("mode", MODES)
def test_outputs_keep_the_dtype_of_the_inputs(inject, dtype, intensity, mode):
    outputs = inject(KEY, INPUTS.astype(dtype), intensity=intensity, mode=mode)
    assert outputs.dtype == dtype
    expected = np.asarray(inject(KEY, INPUTS, intensity=0.3, mode=mode))
    # Inputs, noise, intensity, product and sum, each rounded to half a unit in the
    # last place of numbers up to 4.
    tolerance = 5 * 4 * float(jnp.finfo(dtype).eps) / 2
    assert_allclose(outputs.astype(jnp.float32), expected, atol=tolerance)


@every_function
def test_float64_inputs_stay_float64(inject):
    with jax.enable_x64(True):
        inputs = jnp.asarray(INPUTS, jnp.float64) + 1e-12  # lost in float32
        outputs = inject(KEY, inputs, intensity=0.0)
    assert outputs.dtype == jnp.float64
    assert_array_equal(outputs, inputs)


@every_function
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_inputs_that_are_not_floating_point_are_refused(inject, dtype):
    with pytest.raises(TypeError, match="floating point features, but these are"):
        inject(KEY, jnp.ones(SHAPE, dtype), intensity=0.3)


# Intensities


@every_function
def test_a_huge_intensity_stays_finite(inject):
    outputs = inject(KEY, INPUTS.astype(jnp.bfloat16), intensity=1e6)
    assert jnp.isfinite(outputs).all()
    assert float(jnp.abs(outputs).max()) > 1e5


@pytest.mark.parametrize("has_bank", [False, True], ids=["fresh", "bank"])
@pytest.mark.parametrize("log", [False, True], ids=["uniform", "log-uniform"])
def test_every_example_draws_its_own_intensity_from_a_range(has_bank, log):
    bank = make_bank(exponent=0) if has_bank else None
    inject = functools.partial(
        random_noise, KEY, bank=bank, intensity=IntensityRange(0.1, 0.8, log=log)
    )
    law = stats.loguniform(0.1, 0.8) if log else stats.uniform(0.1, 0.7)
    found = np.asarray(inject(jnp.zeros((2_000, 32, 16)))).std((1, 2))
    # Fewer than one set of 2,000 in 1,000 is further off; 512 values blur each by 3 %.
    assert stats.kstest(found, law.cdf).pvalue > 1e-3
    shared = inject(jnp.zeros(SHAPE), broadcast_dims=(0,))
    np.testing.assert_array_equal(np.ptp(shared, axis=0), 0)


@pytest.mark.parametrize(
    "ends", [(-0.1, 1), (1, 0.5), (0, math.inf), (0, math.nan), (0, "1"), (0, KEY)]
)
def test_a_range_that_is_none_is_refused(ends):
    with pytest.raises(ValueError, match="is no range: give numbers, 0 <= low <= high"):
        IntensityRange(*ends)
    with pytest.raises(ValueError, match="no logarithm at 0: give a low above 0"):
        IntensityRange(0, 1, log=True)
    with pytest.raises(TypeError, match="not a range, which takes a key"):
        add_noise(INPUTS, INPUTS, intensity=IntensityRange(0, 1))


# Misfits


def test_a_bank_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"cannot serve inputs of shape \(8, 3\)"):
        random_noise(KEY, jnp.zeros((8, 3)), bank=ROWS, intensity=0.3)


@pytest.mark.parametrize(
    ("shape", "axes"), [((8, 3), -2), ((8, 6, 3), (-3, -2)), ((8,), (-1,))], ids=str
)
def test_noise_is_not_shaped_along_the_batch_unless_it_is_named(shape, axes):
    inputs = jnp.zeros(shape)
    with pytest.raises(ValueError, match="name the first one, the batch: for features"):
        random_noise(KEY, inputs, intensity=0.3, exponent=1.0, axes=axes)
    # White noise has no axes; and whoever counts from the front means it.
    random_noise(KEY, inputs, intensity=0.3, axes=axes)
    random_noise(KEY, inputs, intensity=0.3, exponent=1.0, axes=0)


@pytest.mark.parametrize(
    ("noise", "intensity"),
    [((2, *SHAPE), ()), (SHAPE, (2, 1, 1, 1)), ((2, 1, 1, 1), ()), (SHAPE, (4,))],
    ids=str,
)
def test_noise_or_intensity_never_change_the_shape_of_the_inputs(noise, intensity):
    misfit = "Noise" if intensity == () or len(noise) > 3 else "An intensity"
    with pytest.raises(ValueError, match=f"^{misfit} of shape .* does not broadcast"):
        add_noise(INPUTS, jnp.ones(noise), intensity=jnp.ones(intensity))


def test_dimensions_the_inputs_lack_cannot_share_noise():
    for dims in ((3,), (4,), (0, -4)):
        with pytest.raises(ValueError, match=r"^broadcast_dims=\(.* inputs of rank 3"):
            random_noise(KEY, INPUTS, intensity=0.3, broadcast_dims=dims)


def test_what_is_no_bank_is_refused():
    with pytest.raises(TypeError, match="^bank must be a NoiseBank, not ArrayImpl"):
        random_noise(KEY, INPUTS, intensity=0.3, bank=ROWS.values)


@every_function
def test_an_intensity_beyond_the_dtype_is_refused(inject):
    with pytest.raises(ValueError, match="more than float16 can hold, 65504: lower"):
        inject(KEY, INPUTS.astype(jnp.float16), intensity=1e6)
    inject(KEY, INPUTS.astype(jnp.float16), intensity=65504)


def test_a_range_beyond_the_dtype_is_refused():
    for dtype, high in ((jnp.float16, 1e5), (jnp.float32, 1e39)):
        with pytest.raises(ValueError, match=f"more than {jnp.dtype(dtype)} can hold"):
            drawn_from = IntensityRange(0.0, high)
            random_noise(KEY, INPUTS.astype(dtype), intensity=drawn_from)


@every_function
@pytest.mark.parametrize("size", [(), (1,), SHAPE[-1:]], ids=str)
def test_an_intensity_of_lower_rank_needs_no_promotion(inject, size):
    expected = inject(KEY, INPUTS, intensity=0.3)
    with jax.numpy_rank_promotion("raise"):
        found = inject(KEY, INPUTS, intensity=jnp.full(size, 0.3))
    assert_array_equal(found, expected)


@every_function
def test_numpy_inputs_become_what_jax_makes_of_them(inject):
    outputs = inject(KEY, np.asarray(INPUTS, np.float64), intensity=0.3)
    assert outputs.dtype == jnp.float32
    assert_array_equal(outputs, inject(KEY, INPUTS, intensity=0.3))


def test_a_schedule_has_to_be_called_first():
    maps = jnp.ones((2, 3))
    with pytest.raises(TypeError, match="not a schedule: call that first"):
        add_noise(maps, maps, intensity=lambda step: 0.1)
