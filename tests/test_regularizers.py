"""One battery for every arm of the table, and what each arm adds to the maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from experiments.regularizers import REGULARIZERS
from sounddrop_jax import BankVariable, audio, make_recording_bank

SHAPES = [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
NUM_IMAGES = 16
NOISE_ARMS = ["gaussian", "water", "aphex"]
# The original's, see its README.
STRENGTHS = {
    "none": (None, 0.0),
    "dropout": ("rate", 0.2),
    "gaussian": ("intensity", 0.1),
    "water": ("intensity", 0.05),
    "aphex": ("intensity", 0.05),
}


@pytest.fixture(scope="session")
def layers() -> dict[tuple, nnx.Module]:
    """A layer for every arm and shape, of the arm's default strength."""
    made = {}
    for name, arm in REGULARIZERS.items():
        make = arm.prepare(arm.default, None)
        made |= {(name, shape): make(shape) for shape in SHAPES}
    return made


@pytest.fixture(scope="session")
def waveform() -> np.ndarray:
    # Longer than the longest window asked for below, and nothing like the glitch track.
    return audio.make_track("rain", num_frames=100_000)


@pytest.fixture(scope="session")
def recording(tmp_path_factory, waveform) -> str:
    path = tmp_path_factory.mktemp("audio") / "rain.wav"
    soundfile.write(path, 0.1 * waveform, 44_100, subtype="FLOAT")
    return str(path)


def make_maps(shape, dtype=jnp.float32) -> jax.Array:
    maps = np.random.default_rng(0).standard_normal((NUM_IMAGES, *shape), np.float32)
    return jnp.asarray(maps, dtype)


def added(layer, shape, seed: int = 0) -> np.ndarray:
    """What a layer adds to maps of zeros."""
    maps = jnp.zeros((NUM_IMAGES, *shape))
    return np.asarray(layer(maps, rngs=nnx.Rngs(dropout=seed)))


def test_the_table_holds_the_originals_arms_and_strengths():
    table = {name: (arm.strength, arm.default) for name, arm in REGULARIZERS.items()}
    assert STRENGTHS.items() <= table.items()


# The battery


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_training_changes_maps_by_the_key_alone_but_for_none(layers, name, shape):
    maps = make_maps(shape)
    trained, again, other = (
        layers[name, shape](maps, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 0, 1)
    )
    assert (trained.shape, trained.dtype) == (maps.shape, maps.dtype)
    assert np.isfinite(trained).all()
    np.testing.assert_array_equal(again, trained)
    if name == "none":
        np.testing.assert_array_equal(trained, maps)
        np.testing.assert_array_equal(other, maps)
    else:
        # Dropout keeps zeros and nothing else; the others leave no value alone.
        assert (trained != maps).mean() > 0.1
        assert (trained != other).mean() > 0.1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_evaluation_is_the_identity_and_needs_no_rngs(layers, name, shape):
    evaluated = nnx.view(layers[name, shape], deterministic=True)
    maps = make_maps(shape)
    assert evaluated(maps) is maps
    assert evaluated(maps, rngs=None) is maps


@pytest.mark.parametrize("name", REGULARIZERS)
def test_bfloat16_maps_stay_bfloat16(layers, name):
    shape = SHAPES[2]
    maps = make_maps(shape, jnp.bfloat16)
    outputs = layers[name, shape](maps, rngs=nnx.Rngs(dropout=0))
    assert (outputs.shape, outputs.dtype) == (maps.shape, jnp.bfloat16)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_nothing_in_a_layer_is_trained(layers, name):
    for shape in SHAPES:
        # Nor does a layer keep randomness of its own: it all comes with the call.
        for _, variable in nnx.to_flat_state(nnx.state(layers[name, shape])):
            assert isinstance(variable, BankVariable)


# Strengths


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NOISE_ARMS)
def test_intensity_scales_the_noise(layers, recording, name, shape):
    arm = REGULARIZERS[name]
    noise = added(layers[name, shape], shape)
    stronger = added(arm.prepare(0.5, None)(shape), shape)
    # The same draw, times 0.5 over the default, up to float32's rounding.
    np.testing.assert_allclose(stronger, noise * (0.5 / arm.default), rtol=1e-6)
    # A window's deviation is that of few independent values where neighbours are
    # alike, or a loud or quiet passage: only the order of magnitude is certain.
    assert 0.3 < noise.std() / arm.default < 3


@pytest.mark.parametrize("name", ["gaussian", "water"])
def test_default_intensity_is_the_deviation(layers, name):
    shape = SHAPES[0]
    noise = added(layers[name, shape], shape)
    # Each row of 16 pixels is independent of the others; taking all its values for
    # one, a variance over 4,096 rows has a relative error of sqrt(2 / 4096), and the
    # deviation half of it. Four of them.
    error = 4 * 0.5 * (2 / (NUM_IMAGES * 16 * 16)) ** 0.5
    np.testing.assert_allclose(noise.std(), STRENGTHS[name][1], rtol=error)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_zeroes_its_rate_and_scales_up_the_rest(rate):
    shape = SHAPES[0]
    maps = 1 + make_maps(shape) ** 2
    layer = REGULARIZERS["dropout"].prepare(rate, None)(shape)
    kept = np.asarray(layer(maps, rngs=nnx.Rngs(dropout=0)) / maps)
    # Within 4 standard errors.
    error = 4 * (rate * (1 - rate) / kept.size) ** 0.5
    assert abs((kept == 0).mean() - rate) < error
    np.testing.assert_allclose(kept[kept != 0], 1 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("name", ["dropout", *NOISE_ARMS])
def test_strength_0_is_the_identity(name):
    shape = SHAPES[2]
    layer = REGULARIZERS[name].prepare(0.0, None)(shape)
    maps = make_maps(shape)
    assert layer(maps, rngs=nnx.Rngs(dropout=0)) is maps


# Banks


def bank_values(layer) -> np.ndarray:
    return np.asarray(layer.bank[...])


def test_water_is_the_same_noise_in_every_run(layers):
    shape = SHAPES[2]
    make = REGULARIZERS["water"].prepare(0.3, None)
    values = bank_values(layers["water", shape])
    np.testing.assert_array_equal(bank_values(make(shape)), values)


def test_water_is_other_noise_in_every_layer(layers):
    # As many values a layer: the same draws would give the same numbers, coloured.
    banks = [bank_values(layers["water", shape]) for shape in SHAPES]
    for bank, shape in zip(banks, SHAPES, strict=True):
        assert bank.shape[1:] == shape[1:]
    flat = np.stack([bank.ravel()[: 2**20] for bank in banks])
    correlations = np.corrcoef(flat) - np.eye(3)
    # Within 4 standard errors of as many values as there are rows of 16.
    assert np.abs(correlations).max() < 4 / (2**20 / 16) ** 0.5


def test_water_is_pink_along_rows_and_white_across(layers):
    noise = added(layers["water", SHAPES[0]], SHAPES[0])
    power = (np.abs(np.fft.rfft(noise, axis=2)) ** 2).mean((0, 1, 3))
    # A mean over 4,096 rows, each with a relative deviation of 1: 1.6 %, four times.
    np.testing.assert_allclose(power[1:8] * np.arange(1, 8) / power[1], 1, rtol=0.07)
    assert power[0] < 1e-6 * power[1]
    for axis in (0, 1, 3):
        neighbours = np.moveaxis(noise, axis, 0)
        correlation = np.corrcoef(neighbours[1:].ravel(), neighbours[:-1].ravel())[0, 1]
        assert abs(correlation) < 4 / (NUM_IMAGES * 16 * 16) ** 0.5


def test_aphex_takes_windows_of_the_file(recording, waveform):
    make = REGULARIZERS["aphex"].prepare(1.0, recording)
    for shape in SHAPES:
        layer = make(shape)
        # float32 in the file, and once more standardised.
        np.testing.assert_allclose(bank_values(layer), waveform, rtol=1e-5, atol=1e-5)
        noise = added(layer, shape)
        # Time runs along rows, then channels, then images, as in the original.
        window = noise.transpose(0, 3, 1, 2).ravel()
        starts = np.flatnonzero(np.isclose(waveform, window[0], rtol=1e-5, atol=1e-5))
        assert any(
            np.allclose(waveform[start : start + window.size], window, atol=1e-4)
            for start in starts
            if start + window.size <= waveform.size
        )


def test_layers_share_one_recording(recording):
    make = REGULARIZERS["aphex"].prepare(1.0, recording)
    first, second = make(SHAPES[0]), make(SHAPES[1])
    assert first.bank[...] is second.bank[...]


def test_aphex_without_a_file_takes_the_glitch_track(layers):
    expected = make_recording_bank(audio.make_track("glitch")).values
    for shape in SHAPES:
        np.testing.assert_array_equal(bank_values(layers["aphex", shape]), expected)


def test_a_recording_that_cannot_be_used_is_refused_once_before_any_layer(tmp_path):
    with pytest.raises(audio.AudioError, match="no such file"):
        REGULARIZERS["aphex"].prepare(0.05, str(tmp_path / "missing.wav"))
