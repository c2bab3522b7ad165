"""One battery for the whole table, and what each regularizer does to the maps."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from experiments.training.regularizers import (
    REGULARIZERS,
    Dropout,
    Recipe,
    check_settings,
)
from sounddrop_jax import audio, make_recording_bank, spectra, tracks

SHAPES = [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
NUM_IMAGES = 16
STRONG = [name for name, recipe in REGULARIZERS.items() if recipe.strength]
NOISES = [name for name in STRONG if REGULARIZERS[name].strength == "intensity"]


@pytest.fixture(scope="session")
def layers() -> dict[tuple, nnx.Module]:
    """A layer for every regularizer and shape, of the default strength."""
    made = {}
    for name, recipe in REGULARIZERS.items():
        make = recipe.prepare(recipe.default)
        made |= {(name, shape): make(shape) for shape in SHAPES}
    return made


@pytest.fixture(scope="session")
def waveform() -> np.ndarray:
    # Longer than the longest window asked for below, and nothing like the glitch track.
    return tracks.make_track("rain", num_frames=100_000)


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


# The battery


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_layer_changes_maps_by_the_key_alone_while_it_trains(layers, name, shape):
    layer, maps = layers[name, shape], make_maps(shape)
    trained, again, other = (
        layer(maps, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 0, 1)
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
    # Evaluation is the identity, and needs no rngs.
    evaluated = nnx.view(layer, deterministic=True)
    assert evaluated(maps) is maps
    # Nothing is trained, and no randomness kept: it all comes with the call.
    assert not nnx.to_flat_state(nnx.state(layer))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_bfloat16_maps_stay_bfloat16(layers, name):
    shape = SHAPES[2]
    maps = make_maps(shape, jnp.bfloat16)
    outputs = layers[name, shape](maps, rngs=nnx.Rngs(dropout=0))
    assert (outputs.shape, outputs.dtype) == (maps.shape, jnp.bfloat16)


# Strengths


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NOISES)
def test_intensity_scales_the_noise(layers, name, shape):
    recipe = REGULARIZERS[name]
    noise = added(layers[name, shape], shape)
    stronger = added(recipe.prepare(0.5)(shape), shape)
    # The same draw, times 0.5 over the default, up to float32's rounding.
    np.testing.assert_allclose(stronger, noise * (0.5 / recipe.default), rtol=1e-6)
    # A window's deviation is that of few independent values where neighbours are
    # alike, or a loud or quiet passage: only the order of magnitude is certain.
    assert 0.3 < noise.std() / recipe.default < 3


POWERS = [
    *((name, {}) for name in NOISES),
    ("gaussian", {"mode": "relative"}),
    ("water", {"mode": "multiplicative"}),
    ("gaussian", {"shared": True}),
    ("plane", {"shared": True}),
    ("plane", {"exponent": 2.0}),
    ("plane", {"exponent": -1.0}),
    ("aphex", {"surrogate": "phases"}),
    ("aphex", {"surrogate": "shuffled"}),
]


@pytest.mark.parametrize(("name", "settings"), POWERS, ids=str)
def test_noise_of_the_same_intensity_has_the_same_power(name, settings):
    make = REGULARIZERS[name].prepare(0.5, **settings)
    for shape in SHAPES:
        # Of rms 1 and all the same, so that every mode adds the same noise.
        layer, ones = make(shape), jnp.ones((NUM_IMAGES, *shape))
        noises = (layer(ones, rngs=nnx.Rngs(dropout=seed)) - 1 for seed in range(16))
        powers = [float((noise**2).mean()) for noise in noises]
        # Four standard errors of 16 draws.
        error = 4 * np.std(powers, ddof=1) / len(powers) ** 0.5
        assert abs(np.mean(powers) - 0.5**2) < error
        # A recording has loud and quiet passages.
        assert name == "aphex" or error < 0.2 * 0.5**2


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_zeroes_its_rate_and_scales_up_the_rest(rate):
    shape = SHAPES[0]
    maps = 1 + make_maps(shape) ** 2
    layer = REGULARIZERS["dropout"].prepare(rate)(shape)
    kept = np.asarray(layer(maps, rngs=nnx.Rngs(dropout=0)) / maps)
    # Within 4 standard errors.
    error = 4 * (rate * (1 - rate) / kept.size) ** 0.5
    assert abs((kept == 0).mean() - rate) < error
    np.testing.assert_allclose(kept[kept != 0], 1 / (1 - rate), rtol=1e-6)


def test_spatial_dropout_drops_whole_channels():
    shape, rate = SHAPES[2], 0.5
    layer = REGULARIZERS["spatial_dropout"].prepare(rate)(shape)
    maps = 1 + make_maps(shape) ** 2
    kept = np.asarray(layer(maps, rngs=nnx.Rngs(dropout=0)) / maps)
    channels = kept[:, 0, 0]
    np.testing.assert_allclose(kept, kept[:, :1, :1].repeat(4, 1).repeat(4, 2), 1e-6)
    error = 4 * (rate * (1 - rate) / channels.size) ** 0.5
    assert abs((channels == 0).mean() - rate) < error
    np.testing.assert_allclose(channels[channels != 0], 2.0, rtol=1e-6)
    # Others in every image.
    assert (channels[0] != channels[1]).any()


@pytest.mark.parametrize("name", STRONG)
def test_strength_0_is_the_identity_and_takes_no_key(name):
    shape = SHAPES[2]
    layer = REGULARIZERS[name].prepare(0.0)(shape)
    maps, rngs = make_maps(shape), nnx.Rngs(dropout=0)
    assert layer(maps, rngs=rngs) is maps
    assert rngs.dropout.count[...] == 0


# Strengths that are traced


@pytest.mark.parametrize("name", STRONG)
def test_a_traced_strength_gives_the_numbers_of_a_static_one_from_one_trace(name):
    shape, key = SHAPES[2], jax.random.key(0)
    recipe, maps = REGULARIZERS[name], make_maps(shape)
    graph, state = nnx.split(recipe.prepare(jnp.float32(recipe.default))(shape))
    assert (recipe.strength,) in nnx.to_flat_state(state).paths
    num_traces = 0

    def apply(strength):
        nonlocal num_traces
        num_traces += 1
        layer = nnx.merge(graph, state)
        setattr(layer, recipe.strength, strength)
        return layer(maps, rngs=nnx.Rngs(dropout=key))

    strengths = np.float32([0.1, 0.2, 0.7])
    statics = []
    for strength in strengths:
        layer = recipe.prepare(float(strength))(shape)
        call = jax.jit(lambda layer, maps: layer(maps, rngs=nnx.Rngs(dropout=key)))
        statics.append(call(layer, maps))
    one, all_at_once = jax.jit(apply), jax.jit(jax.vmap(apply))
    traced = [one(strength) for strength in strengths]
    assert num_traces == 1
    # Rates bit for bit. Noise within one ulp of the largest value: what is drawn afresh
    # is rounded otherwise under vmap, and where it cancels the maps that shows.
    exact = recipe.strength == "rate"
    error = 0 if exact else np.spacing(np.abs(statics).max())
    np.testing.assert_allclose(traced, statics, rtol=0, atol=error)
    np.testing.assert_allclose(all_at_once(strengths), statics, rtol=0, atol=error)
    assert num_traces == 2


@pytest.mark.parametrize(
    ("dims", "dtype"), [((), jnp.float32), ((-3, -2), jnp.bfloat16)], ids=str
)
@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_dropout_and_its_gradient_are_those_of_nnx_bit_for_bit(rate, dims, dtype):
    maps = make_maps(SHAPES[2], dtype)

    def run(layer):
        def loss(maps):
            outputs = layer(maps, rngs=nnx.Rngs(dropout=0))
            return (outputs**2).sum(), outputs

        return jax.jit(jax.grad(loss, has_aux=True))(maps)

    gradient, outputs = run(Dropout(jnp.float32(rate), broadcast_dims=dims))
    expected_gradient, expected = run(nnx.Dropout(rate, broadcast_dims=dims))
    assert outputs.dtype == dtype
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_dropout_of_a_traced_rate_is_off_in_evaluation_and_asks_for_a_key():
    maps = make_maps(SHAPES[2])
    layer = REGULARIZERS["dropout"].prepare(jnp.float32(0.5))(SHAPES[2])
    evaluated = nnx.view(layer, deterministic=True)
    assert evaluated(maps) is maps
    assert evaluated.rate is layer.rate
    trained = nnx.view(evaluated, deterministic=False)
    assert (trained(maps, rngs=nnx.Rngs(dropout=0)) == 0).any()
    with pytest.raises(ValueError, match="rngs"):
        layer(maps)


# Settings


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_recipes_own_settings_pass(name):
    parameters = inspect.signature(REGULARIZERS[name].prepare).parameters
    settings = {key: value.default for key, value in list(parameters.items())[1:]}
    assert list(REGULARIZERS[name].settings) == list(settings)
    assert inspect.Parameter.empty not in settings.values()
    check_settings(name, settings)


@pytest.mark.parametrize(
    ("name", "settings", "named", "remedy"),
    [
        ("watr", {}, "reg='watr': ", ", ".join(REGULARIZERS)),
        ("none", {"mode": "additive"}, "mode='additive': none ", "it has none"),
        ("water", {"exponent": 1.0}, "exponent=1.0: water ", "it has mode."),
        # Not a setting, though a parameter.
        ("gaussian", {"strength": 0.1}, "strength=0.1: ", "mode, shared"),
        ("gaussian", {"mode": "add"}, "mode='add': ", "additive, relative, multi"),
        ("gaussian", {"mode": ["additive"]}, "mode=['additive']: ", "additive"),
        ("gaussian", {"shared": 1}, "shared=1: ", "true or false"),
        ("plane", {"exponent": 3.1}, "exponent=3.1: ", "from -3 to 3"),
        ("plane", {"exponent": math.nan}, "exponent=nan: ", "from -3 to 3"),
        ("plane", {"exponent": True}, "exponent=True: ", "a number"),
        ("plane", {"mode": "relative", "exponent": None}, "exponent=None: ", "number"),
        ("aphex", {"surrogate": "phase"}, "surrogate='phase': ", "phases, shuffled"),
        ("aphex", {"surrogate": "a\nb"}, "surrogate='a\\nb': ", "none"),
        ("aphex", {"audio": 7}, "audio=7: ", "path"),
    ],
    ids=str,
)
def test_bad_settings_get_one_line_with_name_value_and_remedy(
    name, settings, named, remedy
):
    with pytest.raises(ValueError) as error:
        check_settings(name, settings)
    message = str(error.value)
    assert message.startswith(named) and remedy in message and message.endswith(".")
    assert len(message.splitlines()) == 1


class Mask:
    """What pydantic does not know."""


@pytest.mark.parametrize("later", ["int", "OnlyForTypeCheckers"])
def test_a_recipe_that_is_added_has_its_values_checked_where_it_says_its_types(
    monkeypatch, later
):
    def cutout(strength, *, sizes: list[int] | None = None, mask: Mask, free, depth=1):
        return lambda shape: None

    cutout.__annotations__["depth"] = later
    recipe = Recipe(None, 0.0, cutout)
    assert list(recipe.settings) == ["sizes", "mask", "free", "depth"]
    monkeypatch.setitem(REGULARIZERS, "cutout", recipe)
    check_settings("cutout", {"sizes": [1, 2], "mask": 3, "free": "x", "depth": 2})
    faults = [({"mode": "additive"}, "it has sizes, mask, free, depth")]
    if later == "int":
        faults.append(({"sizes": [1, "a"]}, "^sizes='a': cutout takes a whole number"))
        faults.append(({"depth": 1.5}, "^depth=1.5: cutout takes a whole number"))
    for settings, words in faults:
        with pytest.raises(ValueError, match=words):
            check_settings("cutout", settings)


@pytest.mark.parametrize("name", ["gaussian", "plane"])
def test_shared_noise_is_the_same_in_all_channels(layers, name):
    for shape in SHAPES:
        noise = added(REGULARIZERS[name].prepare(0.5, shared=True)(shape), shape)
        np.testing.assert_array_equal(noise, noise[..., :1].repeat(shape[2], -1))
        assert (noise[0] != noise[1]).any()
        own = added(layers[name, shape], shape)
        assert (own[..., 0] != own[..., 1]).any()


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, -1.0])
def test_plane_has_its_exponent_in_the_plane(exponent, shape):
    noise = added(REGULARIZERS["plane"].prepare(0.5, exponent=exponent)(shape), shape)
    # The power of a bin is a mean over images and channels of values as scattered as
    # they are large, and counts twice, by the symmetry of a real field.
    bins = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size) for size in shape[:2]]))
    spread = np.log(bins[bins > 0]) - np.log(bins[bins > 0]).mean()
    error = (2 / (NUM_IMAGES * shape[2]) / (spread**2).sum()) ** 0.5
    assert abs(spectra.fit_exponent(noise, axes=(1, 2)) - exponent) < 4 * error


def test_phases_keep_the_tracks_spectrum_and_nothing_else(recording, waveform):
    make = REGULARIZERS["aphex"].prepare(1.0, audio=recording, surrogate="phases")
    values = bank_values(make(SHAPES[0]))
    after, before = (np.abs(np.fft.rfft(track)) ** 2 for track in (values, waveform))
    assert np.abs(after - before).sum() < 1e-5 * before.sum()
    correlation = (values * waveform).mean()
    # Their power lies in few frequencies: fewer independent values than samples.
    effective = before.sum() ** 2 / (before**2).sum()
    assert abs(correlation) < 4 / effective**0.5


def test_shuffled_keeps_the_tracks_samples_and_whitens_it(recording, waveform):
    make = REGULARIZERS["aphex"].prepare(1.0, audio=recording, surrogate="shuffled")
    values = bank_values(make(SHAPES[0]))
    np.testing.assert_allclose(np.sort(values), np.sort(waveform), 1e-5, 1e-5)
    # A periodogram's logarithm has deviation pi / sqrt(6); that of f has 1.
    error = 4 * (np.pi / 6**0.5) / (len(values) / 2) ** 0.5
    assert abs(spectra.fit_exponent(values)) < error < spectra.fit_exponent(waveform)


# Banks


def bank_values(layer) -> np.ndarray:
    return np.asarray(layer.bank.values)


@pytest.mark.parametrize("name", ["water", "plane"])
def test_a_bank_is_the_same_noise_in_every_run(layers, name):
    shape = SHAPES[2]
    make = REGULARIZERS[name].prepare(0.3)
    values = bank_values(layers[name, shape])
    np.testing.assert_array_equal(bank_values(make(shape)), values)


def assert_uncorrelated(banks: list[np.ndarray], num_independent: float):
    flat = np.stack([bank.ravel()[: 2**20] for bank in banks])
    correlations = np.corrcoef(flat) - np.eye(len(banks))
    assert np.abs(correlations).max() < 4 / num_independent**0.5


def test_water_is_other_noise_in_every_layer(layers):
    # As many values a layer: the same draws would give the same numbers, coloured.
    banks = [bank_values(layers["water", shape]) for shape in SHAPES]
    for bank, shape in zip(banks, SHAPES, strict=True):
        assert bank.shape[1:] == shape[1:]
    # As many values as there are rows of 16.
    assert_uncorrelated(banks, 2**20 / 16)


@pytest.mark.parametrize("shared", [False, True])
def test_plane_is_other_noise_in_every_layer(shared):
    # White, where the same draws would be the same numbers.
    make = REGULARIZERS["plane"].prepare(0.5, exponent=0.0, shared=shared)
    # The last differs from the first in its height alone.
    banks = [bank_values(make(shape)) for shape in (*SHAPES, (8, 16, 16))]
    assert banks[0].shape == ((2**14, 16, 16, 1) if shared else (2**10, 16, 16, 16))
    assert_uncorrelated(banks, 2**20)


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
    make = REGULARIZERS["aphex"].prepare(1.0, audio=recording)
    layers = [make(shape) for shape in SHAPES]
    # float32 in the file, and once more standardised.
    np.testing.assert_allclose(bank_values(layers[0]), waveform, rtol=1e-5, atol=1e-5)
    # Layers share it.
    assert all(layer.bank.values is layers[0].bank.values for layer in layers)
    for layer, shape in zip(layers, SHAPES, strict=True):
        # Time runs along rows, then channels, then images, as in the original.
        window = added(layer, shape).transpose(0, 3, 1, 2).ravel()
        starts = np.flatnonzero(np.isclose(waveform, window[0], rtol=1e-5, atol=1e-5))
        windows = (waveform[start : start + window.size] for start in starts)
        assert any(
            len(each) == window.size and np.allclose(each, window, atol=1e-4)
            for each in windows
        )


def test_aphex_without_a_file_takes_the_glitch_track(layers):
    expected = make_recording_bank(tracks.make_track("glitch")).values
    for shape in SHAPES:
        np.testing.assert_array_equal(bank_values(layers["aphex", shape]), expected)


def test_a_recording_that_cannot_be_used_is_refused_once_before_any_layer(tmp_path):
    with pytest.raises(audio.AudioError, match="no such file"):
        REGULARIZERS["aphex"].prepare(0.05, audio=str(tmp_path / "missing.wav"))
