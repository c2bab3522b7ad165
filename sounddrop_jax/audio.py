"""Waveforms on the host: recordings, built-in tracks and surrogates of either.

Every function here returns a *track*: a float32 NumPy array of shape (num_frames,), or
(num_frames, num_channels) from a recording whose channels are kept apart. `load_track`
and `make_track` return it with zero mean and unit standard deviation over its whole
length, channel by channel. librosa and soundfile are imported when a function needs
them, so the package imports without either.
"""

import importlib
import math
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TRACKS = ("white", "pink", "brown", "rain", "glitch")
"""The names that `make_track` knows."""

_Maker = Callable[[np.random.Generator, int, int], np.ndarray]

_BLOCK_FRAMES = 2**16  # decoded at a time, and what thinning keeps or drops
_BLOCK_SAMPLES = 2**20  # the same, at most, over all channels: 4 MiB
_MIN_BLOCKS = 16  # in max_frames, so that at least half as many are left by thinning
_MAX_FRAMES_PER_BYTE = 10_000  # digital silence in FLAC, the densest, needs 6,000
_MAX_RATE_RATIO = 256  # 750 Hz to 192 kHz; more is a broken header
_CONVERT = "convert it to WAV, FLAC, OGG or MP3"
# What libsndfile reads under another suffix than the name of the format.
_MORE_SUFFIXES = {"aif", "aifc", "mp3", "oga", "opus", "snd"}
_MIN_RELATIVE_STD = 1e-6  # -120 dB of the peak; float32 rounding makes about 1e-7


class AudioError(ValueError):
    """A recording cannot be used: one line with the file, the fault and the remedy.

    Example:
        >>> try:
        ...     load_track("missing.wav")
        ... except AudioError as error:
        ...     print(error)
        'missing.wav': no such file; check the path
    """


def load_track(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    sample_rate: int | None = None,
    mono: bool = True,
    max_frames: int | None = 2**25,
) -> np.ndarray:
    """Reads recordings: a file, several files or a folder, normalised.

    The content decides the format, not the name: WAV, FLAC, OGG (Vorbis, Opus), MP3
    and whatever else libsndfile decodes. An offset is removed with the mean; clipping
    is left as it is. A file shorter than its header promises gives the frames it has,
    as long as they decode without an error; damage that the decoder itself does not
    notice, such as in a WAV's samples, passes.

    Several recordings are normalised one by one and joined end to end, whatever their
    lengths and rates. A folder stands for its recordings in the order of their names:
    the files with a suffix of libsndfile's formats, hidden files and folders within it
    left out.

    Of a recording longer than `max_frames`, stretches that lie evenly over its whole
    length are kept: every second, or 4th, or 8th and so on, until they fit. Each is
    65,536 frames, or a 16th of `max_frames` if that is less (less again above 16
    channels). They are joined end to end, so the waveform jumps from one to the next.
    What is left out is decoded and checked too. Several recordings share `max_frames`
    equally, and what one leaves of its share goes to the larger files.

    Files are decoded in blocks, so memory peaks at two to three times the float32 track
    (as recorded or as resampled, whichever is longer), however long the recordings are.

    Args:
        source: the path of a file or of a folder, or a sequence of paths of files.
        sample_rate: frames per second, in Hz, to resample to. None, the default, keeps
          each recording's own rate, so that files of different rates are joined frame
          by frame; nothing is ever resampled unasked.
        mono: whether to average the channels. If not, each is kept and normalised.
        max_frames: the most frames to hold, at least 2, both as recorded and as
          resampled; None for no limit. The default is 12 minutes at 44.1 kHz, 128 MiB
          a channel.

    Returns:
        A float32 track (num_frames,), or (num_frames, num_channels) if not `mono`, with
        zero mean and unit standard deviation in every channel.

    Raises:
        AudioError: a file is missing, unreadable, empty, not audio, damaged, shorter
          than two frames, silent or constant in what is kept of a channel, or holds NaN
          or infinity; a folder holds no recordings, or the sequence is empty; the
          channels are kept and their number differs between files; `sample_rate` is not
          a positive integer within a factor of 256 of the recording's own; or
          `max_frames` is not an integer of at least 2 for each recording.
        ImportError: soundfile, or librosa when resampling, is not installed.

    Example:
        >>> import os, soundfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "rain.wav")
        ...     rain = make_track("rain", num_frames=44_100).reshape(-1, 2)
        ...     soundfile.write(path, rain, 44_100, subtype="FLOAT")
        ...     track = load_track(path)
        ...     at_half_rate = load_track(path, sample_rate=22_050)
        ...     stereo_twice = load_track([path, path], mono=False)
        ...     thinned = load_track(folder, max_frames=16_000)
        >>> track.shape, at_half_rate.shape, track.dtype
        ((22050,), (11025,), dtype('float32'))
        >>> stereo_twice.shape, thinned.shape
        ((44100, 2), (11050,))
    """
    if sample_rate is not None and not _is_positive_integer(sample_rate):
        raise AudioError(f"sample_rate={sample_rate!r} is not a positive integer in Hz")
    if max_frames is not None and not (
        _is_positive_integer(max_frames) and max_frames >= 2
    ):
        raise AudioError(
            f"max_frames={max_frames!r} is not an integer of at least 2; "
            "give one, or None for no limit"
        )
    paths = _find_recordings(source)
    sizes = [_check_file(path) for path in paths]

    tracks: dict[int, np.ndarray] = {}
    frames_left: float = math.inf if max_frames is None else max_frames
    # Small files first: only what they leave is known when the larger ones are read.
    for index in sorted(range(len(paths)), key=sizes.__getitem__):
        share = frames_left / (len(paths) - len(tracks))
        track = _load_recording(paths[index], sizes[index], sample_rate, mono, share)
        tracks[index] = track
        frames_left -= len(track)
        first = next(iter(tracks))
        if track.shape[1:] != tracks[first].shape[1:]:
            raise _fault(
                paths[index],
                f"has another number of channels ({track.shape[1]}) than "
                f"{paths[first]!r} ({tracks[first].shape[1]}); mix them with mono=True",
            )
    return np.concatenate([tracks[index] for index in range(len(paths))])


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
    | glitch | irregular bursts, clicks, gated tones, sweeps, stutters, bit-crush: |
    |        | this project's own stand-in for a glitch track by Aphex Twin        |

    Args:
        name: one of `TRACKS`.
        num_frames: length of the track, at least 2.
        sample_rate: frames per second, in Hz; sets how many frames a droplet or a burst
          lasts. The noises have no time scale and ignore it.
        seed: for `np.random.default_rng`; the same seed gives the same track.

    Returns:
        A float32 track (num_frames,) with zero mean and unit standard deviation.

    Raises:
        ValueError: `name` is unknown, `num_frames` is not an integer of at least 2, or
          `sample_rate` is not a positive integer.

    Example:
        >>> track = make_track("glitch", num_frames=4_096, seed=1)
        >>> track.shape, track.dtype
        ((4096,), dtype('float32'))
        >>> abs(float(track.mean())) < 1e-6, abs(float(track.std()) - 1) < 1e-6
        (True, True)
    """
    if name not in TRACKS:
        raise ValueError(f"unknown track {name!r}; choose one of {', '.join(TRACKS)}")
    if not _is_positive_integer(num_frames) or num_frames < 2:
        raise ValueError(f"num_frames={num_frames!r} is not an integer of at least 2")
    if not _is_positive_integer(sample_rate):
        raise ValueError(f"sample_rate={sample_rate!r} is not a positive integer")

    track = _MAKERS[name](np.random.default_rng(seed), num_frames, sample_rate)
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
        seed: for `np.random.default_rng`.

    Returns:
        A float32 track of the same shape with the same power spectrum.

    Raises:
        ValueError: `track` has another shape, is empty, has more channels than frames,
          or holds NaN or infinity.

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
    rng = np.random.default_rng(seed)
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
        seed: for `np.random.default_rng`.

    Returns:
        A float32 track of the same shape: the same frames, each once, in random order.

    Raises:
        ValueError: `track` has another shape, is empty, has more channels than frames,
          or holds NaN or infinity.

    Example:
        >>> track = make_track("pink", num_frames=1_000)
        >>> shuffled = shuffle_samples(track, seed=1)
        >>> np.array_equal(np.sort(shuffled), np.sort(track))
        True
    """
    return np.random.default_rng(seed).permutation(_check_track(track))


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


def _fault(path: str, fault: str) -> AudioError:
    # repr keeps the message on one line and printable, whatever the file is called.
    return AudioError(f"{path!r}: {fault}")


def _find_recordings(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> list[str]:
    """Returns the paths that the source stands for, at least one."""
    if not isinstance(source, str | bytes | os.PathLike):
        paths = [os.fsdecode(path) for path in source]
        if not paths:
            raise AudioError("the sequence of recordings is empty; name at least one")
        return paths

    path = os.fsdecode(source)
    if not os.path.isdir(path):
        return [path]
    formats = _require("soundfile").available_formats()
    # Samples without a header cannot be read, so .raw is no recording.
    suffixes = {name.lower() for name in formats} - {"raw"} | _MORE_SUFFIXES
    try:
        names = sorted(os.listdir(path))
    except PermissionError:
        raise _fault(
            path, "you may not list its files; change its permissions"
        ) from None
    found = [
        os.path.join(path, name)
        for name in names
        if os.path.splitext(name)[1][1:].lower() in suffixes and name[0] != "."
    ]
    # Not only plain files: a broken link is a recording that cannot be read.
    found = [file for file in found if not os.path.isdir(file)]
    if not found:
        raise _fault(
            path, "is a folder without recordings; name one with some, or name one file"
        )
    return found


def _check_file(path: str) -> int:
    """Returns the file's size in bytes, or says why it cannot be opened."""
    try:
        # Asked before opening: to open a named pipe is to wait for its writer.
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            open(path, "rb").close()
    except FileNotFoundError:
        raise _fault(path, "no such file; check the path") from None
    except PermissionError:
        raise _fault(path, "you may not read it; change its permissions") from None
    except (OSError, ValueError) as error:
        raise _fault(path, f"cannot be opened ({error}); check the path") from error

    if stat.S_ISDIR(status.st_mode):
        raise _fault(path, "is a folder in a sequence of files; name the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise _fault(path, "is a pipe or a device; copy it to a file first")
    if status.st_size == 0:
        raise _fault(path, "is empty (0 bytes); fetch or export it again")
    return status.st_size


def _open_sound(path: str) -> Any:
    """Opens a `soundfile.SoundFile`, or says why the file is not one."""
    soundfile = _require("soundfile")
    # Bytes on POSIX: soundfile cannot encode a str name that is not valid UTF-8.
    name = path if os.name == "nt" else os.fsencode(path)
    try:
        sound = soundfile.SoundFile(name)
    except TypeError:  # soundfile's answer to the extension .raw
        raise _fault(
            path, f"is named .raw, so samples without a header; rename or {_CONVERT}"
        ) from None
    except soundfile.LibsndfileError as error:
        # Its own words stay in the cause: for a text file called .mp3 they are "File
        # does not exist".
        raise _fault(
            path, f"is not audio libsndfile can decode, or is damaged; {_CONVERT}"
        ) from error
    # No header: libsndfile went by the extension alone (.au, .snd, .vox, .gsm) and
    # would play a text file as noise.
    if sound.format == "RAW":
        sound.close()
        raise _fault(path, f"has no audio header; {_CONVERT}")
    return sound


def _load_recording(
    path: str, num_bytes: int, sample_rate: int | None, mono: bool, max_frames: float
) -> np.ndarray:
    """Returns one recording, normalised, of at most `max_frames`."""
    with _open_sound(path) as sound:
        own_rate = sound.samplerate
        if sample_rate is None:
            sample_rate = own_rate
        if max(own_rate, sample_rate) > _MAX_RATE_RATIO * min(own_rate, sample_rate):
            raise _fault(
                path,
                f"cannot go from {own_rate} Hz to sample_rate={sample_rate}; "
                f"choose a rate within a factor of {_MAX_RATE_RATIO}",
            )
        max_frames = min(max_frames, max_frames * own_rate / sample_rate)
        if max_frames < 2:
            raise _fault(
                path,
                f"has room for {max_frames:.2g} frames, its share of max_frames; "
                "give a larger max_frames",
            )
        track = _read(path, sound, num_bytes, mono, max_frames)

    # Once before resampling too: it turns a constant into ripples at both ends, and
    # overflows on samples near the end of float32's range.
    _standardize_channels(
        track, path, "is silent or constant", "give a recording that varies"
    )
    if sample_rate == own_rate:
        return track

    num_frames = -(-len(track) * int(sample_rate) // own_rate)
    track = _require("librosa").resample(
        track, orig_sr=own_rate, target_sr=sample_rate, axis=0
    )
    track = track[:num_frames]  # librosa rounds some counts to one more, of silence
    _standardize_channels(
        track,
        path,
        f"has nothing left at sample_rate={sample_rate}",
        "choose a higher rate or a longer recording",
    )
    return track


def _read(
    path: str, sound: Any, num_bytes: int, mono: bool, max_frames: float
) -> np.ndarray:
    """Returns the recording as float32, thinned to `max_frames`, not normalised."""
    soundfile = _require("soundfile")
    blocks: list[np.ndarray] = []
    num_blocks = num_frames = num_kept = 0
    stride = 1  # of the blocks that are kept
    most = _BLOCK_SAMPLES // sound.channels
    block_frames = max(1, int(min(_BLOCK_FRAMES, most, max_frames / _MIN_BLOCKS)))
    # As many as decode: the count in the header may be anything.
    while True:
        try:
            block = sound.read(block_frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _fault(
                path, "is damaged and does not decode; fetch or export it again"
            ) from error
        if not block.size:
            break
        if not np.isfinite(block).all():
            raise _fault(path, "holds NaN or infinite samples; export it again")
        num_frames += len(block)
        # libsndfile may pad with silence what the header promises and the file lacks.
        if num_frames > _MAX_FRAMES_PER_BYTE * num_bytes:
            raise _fault(path, f"promises more sound than it can hold; {_CONVERT}")

        if num_blocks % stride == 0:
            if mono:
                block = block.mean(axis=1, dtype=np.float64).astype(np.float32)
            blocks.append(block)
            num_kept += len(block)
        num_blocks += 1
        if num_kept > max_frames:
            stride *= 2
            blocks = blocks[::2]
            num_kept = sum(map(len, blocks))

    if num_frames < 2:
        count = "a single frame" if num_frames else "a header but no frames"
        raise _fault(path, f"holds {count}; give a recording of 2 frames or more")
    return np.concatenate(blocks)


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: soundfile without libsndfile
        raise ImportError(
            f"reading recordings needs {module}; pip install 'sounddrop_jax[audio]'"
        ) from error


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


def _standardize_channels(
    track: np.ndarray, path: str, fault: str, remedy: str
) -> None:
    """Gives every channel zero mean and unit std in place, or says which has none."""
    for channel, samples in enumerate(np.atleast_2d(track.T)):
        if not _standardize(samples):
            if track.ndim == 1:
                raise _fault(path, f"{fault} in the mean of its channels; {remedy}")
            raise _fault(path, f"{fault} in channel {channel}; {remedy}, or mono=True")


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


def _is_positive_integer(value: object) -> bool:
    if isinstance(value, bool):  # an int to Python, never meant as one here
        return False
    return isinstance(value, int | np.integer) and bool(value > 0)


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
