"""The laws of built-in tracks and of surrogates."""

import numpy as np
import pytest

from sounddrop_jax.tracks import (
    TRACKS,
    make_track,
    randomize_phases,
    reverse,
    shuffle_samples,
)


def standardized(samples) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float64)
    return (samples - samples.mean(axis=0)) / samples.std(axis=0)


def assert_is_track(track: np.ndarray, num_channels: int | None = None) -> None:
    assert isinstance(track, np.ndarray)
    assert track.dtype == np.float32
    assert track.shape[1:] == (() if num_channels is None else (num_channels,))
    assert np.isfinite(track).all()
    assert np.abs(track.mean(axis=0, dtype=np.float64)).max() < 1e-5
    assert np.abs(track.std(axis=0, dtype=np.float64) - 1).max() < 1e-5


# Built-in tracks


def assert_slope(track: np.ndarray, expected: float) -> None:
    """Of log power over log frequency, every bin above DC, Nyquist left out."""
    power = np.abs(np.fft.rfft(track.astype(np.float64))) ** 2
    bins = np.arange(1, (track.size + 1) // 2)
    slope = np.polyfit(np.log(bins), np.log(power[bins]), 1)[0]
    # Each bin's power is exponentially distributed, its log of variance pi^2 / 6.
    standard_error = np.sqrt(np.pi**2 / 6 / bins.size) / np.log(bins).std()
    assert abs(slope - expected) < 4 * standard_error < 0.04


def kurtosis(track: np.ndarray) -> float:
    return float(np.mean(standardized(track) ** 4))


def loudness(track: np.ndarray) -> np.ndarray:
    return track.reshape(-1, 4_096).std(axis=1)


@pytest.mark.parametrize("num_frames", [2, 3, 4_097])
@pytest.mark.parametrize("name", TRACKS)
def test_tracks_are_normalised_and_repeatable(name, num_frames):
    track = make_track(name, num_frames=num_frames, seed=1)
    assert_is_track(track)
    assert track.shape == (num_frames,)
    again = make_track(name, num_frames=num_frames, seed=1)
    np.testing.assert_array_equal(track, again)
    if num_frames > 2:  # two frames of zero mean and unit std are always 1 and -1
        assert not np.allclose(track, make_track(name, num_frames=num_frames, seed=2))


@pytest.mark.parametrize(
    ("name", "exponent"), [("white", 0), ("pink", 1), ("brown", 2)]
)
def test_noise_has_the_promised_slope_and_is_gaussian(name, exponent):
    track = make_track(name, num_frames=2**16 - 1, seed=3)
    assert_slope(track, -exponent)
    if name != "brown":  # of which a few frequencies have nearly all the power
        assert abs(kurtosis(track) - 3) < 0.3


def test_glitch_is_far_from_gaussian_and_seldom_silent():
    track = make_track("glitch", num_frames=2**19)
    assert kurtosis(track) > 6
    assert loudness(track).min() > 0.01
    assert np.mean(loudness(track) > 0.05) > 0.95
    # Structure beyond the marginal: loud and quiet come in stretches.
    assert loudness(track).std() > 5 * loudness(shuffle_samples(track)).std()
    # Nor is it in the spectrum.
    surrogate = randomize_phases(track, seed=1)
    assert abs(kurtosis(surrogate) - 3) < 0.2
    assert loudness(track).std() > 4 * loudness(surrogate).std()


def test_tracks_have_not_changed():
    """If you did not mean to change a track: every result obtained on it moves too."""
    expected = {
        "white": [0.1779, 1.3728, -0.1863],
        "pink": [-0.2646, 1.2219, -0.5172],
        "brown": [-1.0595, 1.1835, -1.1349],
        "rain": [-0.1511, 0.5918, -0.3840],
        "glitch": [1.7789, -0.4019, 1.7750],
    }
    assert tuple(expected) == TRACKS
    for name, values in expected.items():
        track = make_track(name, num_frames=1_000)
        np.testing.assert_allclose(track[[0, 500, 999]], values, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "aphex"}, "unknown track 'aphex'; choose one of white, pink, brown"),
        ({"num_frames": 1}, "num_frames=1 is not an integer of at least 2"),
        ({"num_frames": 10.5}, "num_frames=10.5 is not an integer"),
        ({"sample_rate": 0}, "sample_rate=0 is not a positive integer"),
        ({"sample_rate": np.True_}, "sample_rate=.*True.* is not a positive"),
    ],
)
def test_bad_arguments_of_make_track(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_track(**{"name": "pink"} | arguments)


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_numpy_integers_are_integers(kind):
    arguments = {"num_frames": 20_000, "sample_rate": 8_000, "seed": 7}
    given = {name: kind(value) for name, value in arguments.items()}
    for name in TRACKS:
        track = make_track(name, **arguments)
        np.testing.assert_array_equal(make_track(name, **given), track)
    shuffled = shuffle_samples(track, seed=kind(7))
    np.testing.assert_array_equal(shuffled, shuffle_samples(track, seed=7))


# Surrogates


@pytest.mark.parametrize("seed", [True, 1.0, -1])
@pytest.mark.parametrize(
    "use",
    [
        lambda seed: make_track("pink", num_frames=10, seed=seed),
        lambda seed: randomize_phases(np.arange(3), seed=seed),
        lambda seed: shuffle_samples(np.arange(3), seed=seed),
    ],
)
def test_a_seed_that_is_none(use, seed):
    with pytest.raises(ValueError, match="^seed=.* is not an integer of at least 0$"):
        use(seed)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4_095, 4_096])
def test_randomized_phases_keep_the_power_of_every_bin(num_frames):
    # An offset, so that DC has a power to keep.
    track = make_track("glitch", num_frames=4_096)[:num_frames] + np.float32(0.5)
    surrogate = randomize_phases(track, seed=1)
    assert surrogate.dtype == np.float32
    assert surrogate.shape == track.shape
    before, after = np.fft.rfft([track, surrogate])
    power = np.abs(before) ** 2
    # float32 samples blur what lies more than 50 dB below the mean power.
    loud = power >= 1e-5 * power.mean()
    np.testing.assert_allclose(np.abs(after[loud]) ** 2, power[loud], rtol=1e-4)
    np.testing.assert_allclose(after[0].real, before[0].real, rtol=1e-4)  # its sign too


@pytest.mark.parametrize("name", ["white", "glitch"])
def test_randomized_phases_keep_the_power_and_the_cross_spectrum(name):
    left, right = (make_track(name, num_frames=4_097, seed=i) for i in (1, 2))
    tracks = np.stack([left, 0.1 * right, left + right], axis=1)
    surrogate = randomize_phases(tracks, seed=3)
    assert surrogate.flags.c_contiguous
    np.testing.assert_array_equal(surrogate[:, 0], randomize_phases(left, seed=3))

    before, after = (
        np.fft.fft(x.astype(np.float64), axis=0) for x in (tracks, surrogate)
    )
    size = np.sqrt(np.sum(np.abs(before) ** 2, axis=0))
    for one in range(3):
        for other in range(3):  # where both are the same, the power spectrum
            cross = before[:, one] * before[:, other].conj()
            change = after[:, one] * after[:, other].conj() - cross
            # Rounding moves a sample by 2^-24 of itself at most, so a channel's whole
            # spectrum too; a product of two moves by twice that (Cauchy-Schwarz).
            limit = 2.1 * 2**-24 * size[one] * size[other]
            assert np.abs(change).sum() < limit < 1e-6 * size[one] * size[other]


def test_randomized_phases_are_uniform():
    track = make_track("white", num_frames=4_097)
    turns = np.fft.rfft(randomize_phases(track, seed=1)) / np.fft.rfft(track)
    mean_turn = np.mean(turns[1:])  # of 2,048 unit vectors
    assert abs(mean_turn) < 4 / np.sqrt(2_048)
    nyquist = [randomize_phases(np.array([1.0, -1.0]), seed=seed) for seed in range(20)]
    assert {round(float(pair[0] - pair[1])) for pair in nyquist} == {2, -2}


def test_shuffled_samples_are_the_same_and_white():
    track = make_track("pink", num_frames=2**16)
    shuffled = shuffle_samples(track, seed=1)
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(track))
    assert_slope(shuffled, 0)


def test_shuffling_and_reversing_move_whole_frames():
    track = make_track("pink", num_frames=1_001)
    pair = np.stack([track, 2 * track], axis=1)
    for moved in (shuffle_samples(pair, seed=1), reverse(pair)):
        assert moved.dtype == np.float32
        np.testing.assert_array_equal(moved[:, 1], 2 * moved[:, 0])
        np.testing.assert_array_equal(np.sort(moved[:, 0]), np.sort(track))
        assert abs(np.mean(moved[:, 0] * track)) < 0.5  # not where they were
    backwards = reverse(track)
    np.testing.assert_array_equal(reverse(pair)[:, 0], backwards)
    np.testing.assert_array_equal(backwards, track[::-1])
    assert backwards.flags.c_contiguous
    assert not np.shares_memory(backwards, track)


@pytest.mark.parametrize("surrogate", [randomize_phases, shuffle_samples])
def test_surrogates_follow_their_seed_and_leave_the_track_alone(surrogate):
    track = make_track("rain", num_frames=1_000)
    original = track.copy()
    first = surrogate(track, seed=1)
    np.testing.assert_array_equal(first, surrogate(track, seed=1))
    assert not np.allclose(first, surrogate(track, seed=2))
    np.testing.assert_array_equal(track, original)


@pytest.mark.parametrize("surrogate", [randomize_phases, shuffle_samples, reverse])
@pytest.mark.parametrize(
    ("track", "message"),
    [
        (np.ones((2, 100)), r"not \(2, 100\); put its frames along the first axis"),
        (np.zeros(()), r"not \(\)"),
        (np.zeros((3, 0)), r"not \(3, 0\)"),
        (np.array([1.0, np.inf]), "holds NaN or infinity"),
    ],
    ids=["channels first", "scalar", "no channels", "infinite"],
)
def test_surrogates_refuse_what_is_no_track(surrogate, track, message):
    with pytest.raises(ValueError, match=message):
        surrogate(track)
