"""Tracks: waveforms that are synthesised, and surrogates that keep a part of one.

A *track* is a float32 NumPy array of shape (num_frames,), or (num_frames, num_channels)
from a recording whose channels are kept apart.
"""

import math
from collections.abc import Callable

import numpy as np

TRACKS = ("white", "pink", "brown", "rain", "glitch")
"""The names that `make_track` knows."""
_Maker = Callable[[np.random.Generator, int, int], np.ndarray]
_MIN_RELATIVE_STD = 1e-6  # -120 dB of the peak; float32 rounding makes about 1e-7


def make_track(
    name: str,
    *,
    num_frames: int = 2**20,
    sample_rate: int = 44_100,
    seed: int = 0,
) -> np.ndarray:
    """Synthesises a built-in track; needs no file and no audio library.

    | name   | what it is                                                          |
    |--------|---------------------------------------------------------------------|
    | white  | Gaussian, flat spectrum                                             |
    | pink   | Gaussian, power ∝ 1/f                                               |
    | brown  | Gaussian, power ∝ 1/f^2                                             |
    | rain   | dense ringing droplets over a soft noise bed                        |
    | glitch | irregular bursts, clicks, gated tones, sweeps, stutters, bit-crush  |

    The last one is this project's own, in the place of a glitch track by Aphex Twin.

    Args:
        name: one of `TRACKS`.
        num_frames: length of the track, at least 2.
        sample_rate: frames per second, in Hz; sets how many frames a droplet or a burst
            lasts. The noises have no time scale and ignore it.
        seed: at least 0, for `np.random.default_rng`; the same gives the same track.

    Returns:
        A float32 track (num_frames,) with zero mean and unit standard deviation.

    Raises:
        ValueError: `name` is unknown, `num_frames` is not an integer of at least 2,
            `sample_rate` is not a positive integer, or `seed` is not one of at least 0.

    Example:
        >>> track = make_track("glitch", num_frames=4_096, seed=1)
        >>> track.shape, track.dtype
        ((4096,), dtype('float32'))
        >>> abs(float(track.mean())) < 1e-6, abs(float(track.std()) - 1) < 1e-6
        (True, True)
    """
    if name not in TRACKS:
        raise ValueError(f"unknown track {name!r}; choose one of {', '.join(TRACKS)}")
    if not _is_integer(num_frames, least=2):
        raise ValueError(f"num_frames={num_frames!r} is not an integer of at least 2")
    if not _is_integer(sample_rate, least=1):
        raise ValueError(f"sample_rate={sample_rate!r} is not a positive integer")

    # As Python's integers: NumPy's would overflow.
    track = _MAKERS[name](_make_rng(seed), int(num_frames), int(sample_rate))
    _standardize(track)
    return track.astype(np.float32)


def randomize_phases(track: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Keeps a track's power spectrum and nothing else: a Gaussian surrogate.

    Each frequency keeps its amplitude and turns by a phase drawn uniformly, so onsets,
    rhythm and every other structure beyond the spectrum go. The same turn for every
    channel keeps the cross-spectra too, and so how the channels correlate. The samples
    become close to Gaussian where many frequencies share the power; a pure tone stays
    one. The mean stays as it is. Power is kept at every frequency up to float32
    rounding: within 1e-4 of itself down to 50 dB below the channel's mean over
    frequencies, and all differences together within 1e-6 of the whole power.

    Args:
        track: real and finite, (num_frames,) or (num_frames, num_channels); any mean
            and scale.
        seed: at least 0, for `np.random.default_rng`.

    Returns:
        A float32 track of the same shape with the same power spectrum.

    Raises:
        ValueError: `track` has another shape, is empty, has more channels than frames,
            or holds NaN or infinity; or `seed` is not an integer of at least 0.

    References:
        Theiler, Eubank, Longtin, Galdrikian and Farmer, "Testing for nonlinearity in
        time series: the method of surrogate data", Physica D 58 (1992), 77-94.
        Prichard and Theiler, "Generating surrogate data for time series with several
        simultaneously measured variables", Phys. Rev. Lett. 73 (1994), 951-954.

    Example:
        >>> track = make_track("glitch", num_frames=4_096)
        >>> surrogate = randomize_phases(track, seed=1)
        >>> power, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (track, surrogate))
        >>> bool(np.abs(after - power).sum() < 1e-6 * power.sum())
        True
    """
    track = _check_track(track)
    rng = _make_rng(seed)
    # In float64: sums of large float32 samples would overflow.
    spectrum = np.fft.rfft(track.astype(np.float64), axis=0)
    rotations = np.exp(2j * np.pi * rng.random(len(spectrum)))
    # A real signal's first bin, and its last when the length is even, are real: the
    # only turns left to them are 0 and half a circle. The first keeps its sign, since
    # that is the mean's.
    rotations[0] = 1
    if len(track) % 2 == 0:
        rotations[-1] = rng.choice([-1, 1])
    turned = (spectrum.T * rotations).T
    surrogate = np.fft.irfft(turned, n=len(track), axis=0)
    return surrogate.astype(np.float32, order="C")


def shuffle_samples(track: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Keeps a track's samples and nothing of their order: a white surrogate.

    Args:
        track: real and finite, (num_frames,) or (num_frames, num_channels).
        seed: at least 0, for `np.random.default_rng`.

    Returns:
        A float32 track of the same shape and the same frames, in random order.

    Raises:
        ValueError: `track` has another shape, is empty, has more channels than frames,
            or holds NaN or infinity; or `seed` is not an integer of at least 0.

    Example:
        >>> track = make_track("pink", num_frames=1_000)
        >>> shuffled = shuffle_samples(track, seed=1)
        >>> np.array_equal(np.sort(shuffled), np.sort(track))
        True
    """
    return _make_rng(seed).permutation(_check_track(track))


def reverse(track: np.ndarray) -> np.ndarray:
    """Plays a track backwards: same spectrum, same samples, time's arrow turned.

    Args:
        track: real and finite, (num_frames,) or (num_frames, num_channels).

    Returns:
        A float32 track of the same shape, a copy.

    Raises:
        ValueError: `track` has another shape, is empty, has more channels than frames,
            or holds NaN or infinity.

    Example:
        >>> reverse(np.array([1, 2, 3])).tolist()
        [3.0, 2.0, 1.0]
    """
    return _check_track(track)[::-1].copy()


def _standardize(track: np.ndarray) -> bool:
    """Gives a track zero mean and unit std in place; False if it has no variance."""
    peak = max(track.max(), -track.min())
    if peak == 0:
        return False
    track /= peak  # first, so that nothing below can overflow
    np.subtract(track, track.mean(dtype=np.float64), out=track, casting="same_kind")
    # In float64 without a float64 copy of the track, which np.std would make.
    std = np.sqrt(np.einsum("i,i->", track, track, dtype=np.float64) / track.size)
    if std < _MIN_RELATIVE_STD:
        return False
    track /= std
    return True


def _check_track(track: np.ndarray) -> np.ndarray:
    track = np.asarray(track, dtype=np.float32)
    # More channels than frames: the axes are the other way round.
    if track.size == 0 or not (
        track.ndim == 1 or track.ndim == 2 and len(track) >= track.shape[1]
    ):
        raise ValueError(
            "a track has shape (num_frames,) or (num_frames, num_channels), "
            f"not {track.shape}; put its frames along the first axis"
        )
    if not np.isfinite(track).all():
        raise ValueError("the track holds NaN or infinity")
    return track


def _is_integer(value: object, *, least: int) -> bool:
    if isinstance(value, bool):  # an int to Python, never meant as one here
        return False
    return isinstance(value, int | np.integer) and bool(value >= least)


def _make_rng(seed: int) -> np.random.Generator:
    if not _is_integer(seed, least=0):
        raise ValueError(f"seed={seed!r} is not an integer of at least 0")
    return np.random.default_rng(seed)


def _power_law(
    rng: np.random.Generator, num_frames: int, exponent: float
) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(num_frames))
    frequencies = np.arange(1, spectrum.size)
    spectrum[0] = 0
    spectrum[1:] *= frequencies ** (-exponent / 2)  # amplitude: the root of power
    noise = np.fft.irfft(spectrum, n=num_frames)
    return noise / noise.std()


def _make_rain(
    rng: np.random.Generator, num_frames: int, sample_rate: int
) -> np.ndarray:
    track = 0.3 * _power_law(rng, num_frames, exponent=1.0)
    # 400 drops a second, but never so many a frame that they blur into one noise.
    num_drops = rng.poisson(num_frames * min(400 / sample_rate, 0.05))
    for start in rng.integers(num_frames, size=num_drops):
        size = min(int(0.02 * sample_rate) + 1, num_frames - start)
        frames = np.arange(size)
        pitch = math.tau * rng.uniform(0.02, 0.2)  # radians/frame: 1 to 9 kHz at 44.1
        decay = np.exp(-frames / (rng.uniform(0.001, 0.005) * sample_rate))
        loudness = rng.lognormal(sigma=0.7)
        track[start : start + size] += loudness * decay * np.sin(pitch * frames)
    return track


def _make_glitch(
    rng: np.random.Generator, num_frames: int, sample_rate: int
) -> np.ndarray:
    track = 0.01 * rng.standard_normal(num_frames)  # hiss: nothing is digitally silent
    beat = 60 / 168 * sample_rate  # in frames, at 168 beats a minute
    sound: np.ndarray = rng.standard_normal(64)  # for a stutter that comes first
    start = 0
    while start < num_frames:
        size = max(64, int(beat / rng.choice([2, 3, 4, 6, 8, 12, 16])))
        size = min(size, num_frames - start)
        seconds = np.arange(size) / sample_rate
        pitch = math.tau * 55 * 2 ** rng.uniform(0, 6)  # radians/s: six octaves from A
        accent = rng.lognormal(sigma=0.8)
        decay = accent * np.exp(-rng.uniform(2, 8) * np.linspace(0, 1, size))
        match rng.choice(["burst", "clicks", "tone", "sweep", "stutter"]):
            case "burst":
                sound = decay * rng.standard_normal(size)
            case "clicks":
                is_click = rng.random(size) < 0.03
                sound = 2 * accent * is_click * rng.standard_normal(size)
            case "tone":  # a square wave, switched on and off by a slower one
                gate = np.sin(math.tau * rng.uniform(15, 60) * seconds) >= 0
                sound = 0.3 * accent * gate * np.sign(np.sin(pitch * seconds))
            case "sweep":  # a pitch that falls, as a synthesised drum's does
                fall = rng.uniform(5, 50)
                sound = decay * np.sin(3 * pitch * (1 - np.exp(-fall * seconds)) / fall)
            case "stutter":  # the onset of the sound before, over and over
                onset = max(1, sound.size // rng.integers(2, 9))
                sound = np.resize(sound[:onset], size)
        if rng.random() < 0.25:  # crush: hold every few samples, keep few bits
            hold = rng.integers(2, 16)
            sound = np.round(8 * np.repeat(sound[::hold], hold)[:size]) / 8
        track[start : start + size] += sound
        start += size
    return np.tanh(track / 2)  # the limiter at the end of every mix


def _make_noise(exponent: float) -> _Maker:
    return lambda rng, num_frames, _: _power_law(rng, num_frames, exponent)


_MAKERS: dict[str, _Maker] = {
    "white": _make_noise(0.0),
    "pink": _make_noise(1.0),
    "brown": _make_noise(2.0),
    "rain": _make_rain,
    "glitch": _make_glitch,
}
