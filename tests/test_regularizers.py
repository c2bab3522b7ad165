"""One battery for the whole table, and what each regularizer does to the maps."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from experiments.training import regularizers
from experiments.training.regularizers import (
    REGULARIZERS,
    Dropout,
    Recipe,
    check_settings,
)
from sounddrop_jax import make_power_law_bank, make_recording_bank, spectra, tracks

SHAPES = [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
NUM_IMAGES = 16
STRONG = [name for name, recipe in REGULARIZERS.items() if recipe.strength]
NOISES = [name for name in STRONG if REGULARIZERS[name].strength == "intensity"]


@functools.cache
def make_layer(name: str, shape: tuple[int, ...]) -> nnx.Module:
    """A layer of the default strength."""
    return REGULARIZERS[name].prepare(REGULARIZERS[name].default)(shape)


@pytest.fixture(autouse=True, scope="module")
def small_banks():
    """Banks of a million values; four million take long to make."""

    def make(key, field, **law):
        num_entries = 2**20 // math.prod(field)
        return make_power_law_bank(key, field, num_entries=num_entries, **law)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regularizers, "make_power_law_bank", make)
        yield


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


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_layer_changes_maps_by_the_key_alone_while_it_trains(name):
    layer, maps = make_layer(name, SHAPES[2]), make_maps(SHAPES[2])
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
    half = jax.eval_shape(
        lambda maps: layer(maps, rngs=nnx.Rngs(dropout=0)), maps.astype(jnp.bfloat16)
    )
    assert (half.shape, half.dtype) == (maps.shape, jnp.bfloat16)


# Strengths


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
    shape = SHAPES[1]
    layer = REGULARIZERS[name].prepare(0.5, **settings)(shape)
    # Of rms 1 and all the same, so that every mode adds the same noise.
    ones = jnp.ones((NUM_IMAGES, *shape))
    noise = jax.vmap(lambda key: layer(ones, rngs=nnx.Rngs(dropout=key)) - 1)
    noises = noise(jax.random.split(jax.random.key(0), 16))
    powers = (np.asarray(noises, float) ** 2).mean((1, 2, 3, 4))
    # Four standard errors of 16 draws.
    error = 4 * np.std(powers, ddof=1) / len(powers) ** 0.5
    assert abs(np.mean(powers) - 0.5**2) < error
    # A recording has loud and quiet passages.
    assert name == "aphex" or error < 0.2 * 0.5**2


def test_spatial_dropout_drops_whole_channels():
    shape, rate = SHAPES[2], 0.5
    layer = REGULARIZERS["spatial_dropout"].prepare(rate)(shape)
    maps = 1 + make_maps(shape) ** 2
    kept = np.asarray(layer(maps, rngs=nnx.Rngs(dropout=0)) / maps)
    channels = kept[:, 0, 0]
    np.testing.assert_allclose(kept, kept[:, :1, :1].repeat(4, 1).repeat(4, 2), 1e-6)
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

    strengths = np.float32([0.1, 0.7])
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
def test_dropout_and_its_gradient_are_those_of_nnx_bit_for_bit(dims, dtype):
    rate = 0.2
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
        ("gaussian", {"shared": 1}, "shared=1: ", "true or false"),
        ("plane", {"exponent": 3.1}, "exponent=3.1: ", "from -3 to 3"),
        ("plane", {"exponent": math.nan}, "exponent=nan: ", "from -3 to 3"),
        ("plane", {"mode": "relative", "exponent": None}, "exponent=None: ", "number"),
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
def test_shared_noise_is_the_same_in_all_channels(name):
    shape = SHAPES[1]
    noise = added(REGULARIZERS[name].prepare(0.5, shared=True)(shape), shape)
    np.testing.assert_array_equal(noise, noise[..., :1].repeat(shape[2], -1))
    assert (noise[0] != noise[1]).any()
    own = added(make_layer(name, shape), shape)
    assert (own[..., 0] != own[..., 1]).any()


@pytest.mark.parametrize("exponent", [1.5, -1.0])
def test_plane_has_its_exponent_in_the_plane(exponent):
    shape = SHAPES[0]
    noise = added(REGULARIZERS["plane"].prepare(0.5, exponent=exponent)(shape), shape)
    # The power of a bin is a mean over images and channels of values as scattered as
    # they are large, and counts twice, by the symmetry of a real field.
    bins = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size) for size in shape[:2]]))
    spread = np.log(bins[bins > 0]) - np.log(bins[bins > 0]).mean()
    error = (2 / (NUM_IMAGES * shape[2]) / (spread**2).sum()) ** 0.5
    assert abs(spectra.fit_exponent(noise, axes=(1, 2)) - exponent) < 4 * error


@pytest.mark.parametrize("surrogate", ["phases", "shuffled"])
def test_a_surrogate_takes_the_place_of_the_track(recording, waveform, surrogate):
    make = REGULARIZERS["aphex"].prepare(1.0, audio=recording, surrogate=surrogate)
    values = bank_values(make(SHAPES[0]))
    kept = (np.abs(np.fft.rfft(x)) for x in (values, waveform))
    if surrogate == "shuffled":
        kept = (np.sort(x) for x in (values, waveform))
    np.testing.assert_allclose(*kept, rtol=1e-3, atol=1e-2)
    assert abs((values * waveform).mean()) < 0.1


# Banks


def bank_values(layer) -> np.ndarray:
    return np.asarray(layer.bank.values)


def assert_uncorrelated(banks: list[np.ndarray], num_independent: float):
    flat = np.stack([bank.ravel()[: 2**20] for bank in banks])
    correlations = np.corrcoef(flat) - np.eye(len(banks))
    assert np.abs(correlations).max() < 4 / num_independent**0.5


def test_plane_is_other_noise_in_every_layer():
    # White, where the same draws would be the same numbers.
    make = REGULARIZERS["plane"].prepare(0.5, exponent=0.0)
    # The last differs from the first in its height alone.
    banks = [bank_values(make(shape)) for shape in (*SHAPES, (8, 16, 16))]
    assert_uncorrelated(banks, 2**20)


def test_aphex_takes_windows_of_the_file(recording, waveform):
    make = REGULARIZERS["aphex"].prepare(1.0, audio=recording)
    layers = [make(shape) for shape in SHAPES]
    # float32 in the file, and once more standardised.
    np.testing.assert_allclose(bank_values(layers[0]), waveform, rtol=1e-5, atol=1e-5)
    # Layers share it.
    assert all(layer.bank.values is layers[0].bank.values for layer in layers)


def test_aphex_without_a_file_takes_the_glitch_track():
    expected = make_recording_bank(tracks.make_track("glitch")).values
    values = bank_values(make_layer("aphex", SHAPES[2]))
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("reg", ["gaussian", "plane"])
def test_what_is_shared_needs_no_correlation(reg):
    layer, alone = (
        REGULARIZERS[reg].prepare(0.5, shared=True, **settings)((8, 8, 4))
        for settings in ({"channel_correlation": 0.5}, {})
    )
    maps = jnp.zeros((2, 8, 8, 4))
    outputs = layer(maps, rngs=nnx.Rngs(dropout=0))
    assert bool((outputs == alone(maps, rngs=nnx.Rngs(dropout=0))).all())
    assert bool((outputs == outputs[..., :1]).all()) and float(outputs.std()) > 0.1
