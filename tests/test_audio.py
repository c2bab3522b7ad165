"""Recordings in every format and fault, the built-in tracks' laws, the surrogates'."""

import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sounddrop_jax.audio import (
    TRACKS,
    AudioError,
    load_track,
    make_track,
    randomize_phases,
    reverse,
    shuffle_samples,
)


def encode(samples, sample_rate=44_100, format="WAV", subtype=None) -> bytes:
    """An audio file's bytes; samples are (num_frames,) or (num_frames, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=format, subtype=subtype)
    return file.getvalue()


def save(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def standardized(samples) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float64)
    return (samples - samples.mean()) / samples.std()


def assert_is_track(track: np.ndarray) -> None:
    assert isinstance(track, np.ndarray)
    assert track.dtype == np.float32
    assert track.ndim == 1
    assert np.isfinite(track).all()
    assert abs(track.mean(dtype=np.float64)) < 1e-5
    assert abs(track.std(dtype=np.float64) - 1) < 1e-5


SOUND = 0.1 * make_track("pink", num_frames=8_000, seed=58)
# A sweep from 0.005 to 0.05 cycles a frame: what lossy codecs keep, sample by sample.
SWEEP = 0.3 * np.sin(2 * np.pi * np.cumsum(np.linspace(0.005, 0.05, 20_000)))


# Recordings


@pytest.mark.parametrize("sample_rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("num_channels", [1, 2, 8])
@pytest.mark.parametrize(
    ("format", "subtype", "step"),  # step: the coarsest difference between two samples
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),  # float32 resolves no more
        ("WAV", "FLOAT", 2**-24),
        ("WAV", "DOUBLE", 2**-24),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
        ("AIFF", "PCM_16", 2**-15),
    ],
)
def test_lossless_formats_give_the_mean_of_the_channels(
    tmp_path, format, subtype, step, num_channels, sample_rate
):
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal((1_000, num_channels)).clip(-5, 5)
    content = encode(samples, sample_rate, format, subtype)
    track = load_track(save(tmp_path, "sound", content))

    assert_is_track(track)
    expected = standardized(samples.mean(axis=1))
    tolerance = 2 * step / samples.mean(axis=1).std() + 1e-5
    np.testing.assert_allclose(track, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(
    ("format", "subtype", "sample_rate"),
    [
        ("OGG", "VORBIS", 44_100),
        ("OGG", "OPUS", 48_000),
        ("MP3", "MPEG_LAYER_III", 44_100),
        ("MP3", "MPEG_LAYER_III", 8_000),
    ],
)
def test_lossy_formats_give_nearly_the_same_sound(
    tmp_path, format, subtype, sample_rate, num_channels
):
    samples = np.repeat(SWEEP[:, None], num_channels, axis=1)
    content = encode(samples, sample_rate, format, subtype)
    track = load_track(save(tmp_path, "sound", content))

    assert_is_track(track)
    assert track.shape == SWEEP.shape
    assert np.mean(track * standardized(SWEEP)) > 0.99


def test_a_long_file_is_read_in_blocks_that_join(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (300_001, 8))
    path = save(tmp_path, "long.wav", encode(samples, subtype="FLOAT"))
    tracemalloc.start()
    track = load_track(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    expected = standardized(samples.mean(axis=1))
    np.testing.assert_allclose(track, expected, rtol=0, atol=1e-5)
    assert peak < 2.5 * track.nbytes + 2 * 2**22  # two tracks and two blocks


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("wrong.mp3", "WAV"),
        ("wrong.au", "FLAC"),
        ("wrong.vox", "MP3"),
        ("wrong.wav", "OGG"),
        ("no extension", "WAV"),
        ("наводнение-水-🌊.flac", "FLAC"),
        ("two\nlines.wav", "WAV"),
    ],
)
def test_the_content_decides_not_the_name(tmp_path, name, format):
    assert_is_track(load_track(save(tmp_path, name, encode(SOUND, format=format))))


@pytest.mark.skipif(os.name == "nt", reason="Windows file names are Unicode")
def test_a_name_that_is_not_unicode(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        path = save(tmp_path, name, encode(SOUND))
    except OSError:
        pytest.skip("this file system takes no such name")
    assert_is_track(load_track(path))
    path.write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        load_track(path)
    str(caught.value).encode()  # printable


@pytest.mark.parametrize(
    "change",
    [
        lambda samples: samples + 0.7,
        lambda samples: samples - 1e3,
        lambda samples: samples * 1e-30,
        lambda samples: samples * 1e37,
    ],
    ids=["offset", "large offset", "faint", "near the end of float32"],
)
@pytest.mark.parametrize("sample_rate", [None, 22_050])
def test_offset_and_scale_do_not_matter(tmp_path, change, sample_rate):
    samples = SOUND.astype(np.float64)
    plain = save(tmp_path, "plain.wav", encode(samples, subtype="FLOAT"))
    changed = save(tmp_path, "changed.wav", encode(change(samples), subtype="FLOAT"))
    track = load_track(changed, sample_rate=sample_rate)

    assert_is_track(track)
    expected = load_track(plain, sample_rate=sample_rate)
    np.testing.assert_allclose(track, expected, rtol=0, atol=2e-3)


def test_clipping_is_left_as_it_is(tmp_path):
    clipped = (50 * SOUND).clip(-0.9, 0.9)
    track = load_track(save(tmp_path, "loud.wav", encode(clipped, subtype="FLOAT")))
    np.testing.assert_allclose(track, standardized(clipped), rtol=0, atol=1e-5)


@pytest.mark.parametrize("own_rate", [8_000, 44_100, 192_000])
def test_resampling_keeps_a_tone(tmp_path, own_rate):
    seconds = np.arange(own_rate // 4) / own_rate
    content = encode(np.sin(2 * np.pi * 1_000 * seconds), own_rate, subtype="FLOAT")
    track = load_track(save(tmp_path, "tone.wav", content), sample_rate=16_000)

    assert_is_track(track)
    assert track.shape == (4_000,)
    expected = np.sqrt(2) * np.sin(2 * np.pi * 1_000 * np.arange(4_000) / 16_000)
    inside = slice(400, -400)  # the filter rings at both ends
    np.testing.assert_allclose(track[inside], expected[inside], rtol=0, atol=0.01)


def test_reading_without_resampling_needs_no_librosa(tmp_path, monkeypatch):
    path = save(tmp_path, "sound.wav", encode(SOUND))
    monkeypatch.setitem(sys.modules, "librosa", None)  # makes its import fail
    np.testing.assert_array_equal(
        load_track(path, sample_rate=44_100), load_track(path)
    )


@pytest.mark.parametrize("missing", ["soundfile", "librosa"])
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, missing):
    path = save(tmp_path, "sound.wav", encode(SOUND))
    monkeypatch.setitem(sys.modules, missing, None)
    remedy = rf"{missing}; pip install 'sounddrop_jax\[audio\]'"
    with pytest.raises(ImportError, match=remedy):
        load_track(path, sample_rate=22_050)


def test_importing_the_module_imports_no_audio_library():
    check = (
        "import sys, sounddrop_jax.audio;"
        "sys.exit(bool({'librosa', 'soundfile', 'audioread'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


# Faults

WAV, FLAC, OGG, MP3 = (encode(SOUND, format=f) for f in ("WAV", "FLAC", "OGG", "MP3"))
TEXT = b"Not a sound, but a note about one.\n" * 200


def with_sample(value) -> bytes:
    samples = SOUND.astype(np.float64)
    samples[4_321] = value
    return encode(samples, subtype="DOUBLE")


def zeroed(content: bytes, start: float, stop: float) -> bytes:
    start, stop = int(start * len(content)), int(stop * len(content))
    return content[:start] + bytes(stop - start) + content[stop:]


def padded_w64() -> bytes:
    # A header whose frames libsndfile makes up once the file has none left: 2 * 10^10.
    content = bytearray(encode(SOUND[:2_000], format="W64", subtype="GSM610"))
    content[140:144] = b"\x7f\xff\xff\xff"
    return bytes(content)


UNDECODABLE = "is not audio .* convert it to WAV, FLAC, OGG or MP3"
DAMAGED = "is damaged .* fetch or export it again"
CONSTANT = "is silent or constant"
NO_FRAMES = "holds a header but no frames"
NOT_FINITE = "holds NaN or infinite samples"
FAULTS = {
    "empty.wav": (b"", "is empty .0 bytes.; fetch"),
    "empty.mp3": (b"", "is empty .0 bytes.; fetch"),
    "text.txt": (TEXT, UNDECODABLE),
    "text.wav": (TEXT, UNDECODABLE),
    "text.flac": (TEXT, UNDECODABLE),
    "text.ogg": (TEXT, UNDECODABLE),
    "text.mp3": (TEXT, UNDECODABLE),
    "text.au": (TEXT, "has no audio header; convert"),
    "text.vox": (TEXT, "has no audio header; convert"),
    "text.raw": (TEXT, "is named .raw"),
    "riff.wav": (WAV[:12], UNDECODABLE),
    "header.wav": (WAV[:44], NO_FRAMES),
    "header.flac": (FLAC[:60], UNDECODABLE),
    "header.ogg": (OGG[:60], UNDECODABLE),
    "header.mp3": (MP3[:60], UNDECODABLE),
    "no-frames.ogg": (encode(np.zeros(0), format="OGG"), NO_FRAMES),
    "truncated.flac": (FLAC[: len(FLAC) // 2], DAMAGED),
    "truncated.ogg": (OGG[: len(OGG) // 3], UNDECODABLE),
    "hole.flac": (zeroed(FLAC, 0.5, 0.6), DAMAGED),
    "hole.mp3": (zeroed(MP3, 0.5, 1.0), DAMAGED),
    "single.wav": (encode(np.ones(1)), "holds a single frame; .* 2 frames"),
    "single.flac": (encode(np.ones(1), format="FLAC"), "holds a single frame"),
    "silent.wav": (encode(np.zeros(2_000)), CONSTANT),
    "silent.flac": (encode(np.zeros(2_000), format="FLAC"), CONSTANT),
    "silent.ogg": (encode(np.zeros(2_000), format="OGG"), CONSTANT),
    "silent.mp3": (encode(np.zeros(2_000), format="MP3"), CONSTANT),
    "silent-in-sum.wav": (
        encode(np.stack([SOUND, -SOUND], axis=1), subtype="FLOAT"),
        CONSTANT,
    ),
    "constant.wav": (encode(np.full(2_000, 0.1), subtype="FLOAT"), CONSTANT),
    "constant-but-rounding.wav": (
        encode(0.1 + 1e-8 * np.sign(SOUND), subtype="FLOAT"),
        CONSTANT,
    ),
    "constant-8-channels.wav": (
        encode(np.full((2_000, 8), 1 / 3), subtype="DOUBLE"),
        CONSTANT,
    ),
    "nan.wav": (with_sample(np.nan), NOT_FINITE),
    "infinite.wav": (with_sample(-np.inf), NOT_FINITE),
    "beyond-float32.wav": (with_sample(1e300), NOT_FINITE),
    "padded.w64": (padded_w64(), "promises more sound than it can hold"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_one_line_with_the_file(tmp_path, name):
    content, message = FAULTS[name]
    with pytest.raises(AudioError, match=message) as caught:
        load_track(save(tmp_path, name, content))
    assert str(caught.value).startswith(repr(str(tmp_path / name)))
    assert "; " in str(caught.value)  # then the remedy
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(AudioError, match="no such file; check the path"):
        load_track(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="cannot be opened .* check the path"):
        load_track(save(tmp_path, "file.wav", WAV) / "beneath.wav")
    with pytest.raises(AudioError, match="cannot be opened .* check the path"):
        load_track("null\0byte.wav")


def test_directory(tmp_path):
    with pytest.raises(AudioError, match="is a directory; name one file in it"):
        load_track(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="is a pipe or a device; copy it"):
        load_track(tmp_path / "pipe.wav")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_unreadable_file(tmp_path):
    path = save(tmp_path, "secret.wav", WAV)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read anything, so act as somebody else
        os.seteuid(65_534)
    try:
        with pytest.raises(AudioError, match="you may not read it; change its perm"):
            load_track(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    "sample_rate", [0, -44_100, 44_100.5, float("nan"), float("inf"), "44100", True]
)
def test_sample_rate_that_is_none(tmp_path, sample_rate):
    with pytest.raises(AudioError, match="sample_rate=.* is not a positive integer"):
        load_track(save(tmp_path, "sound.wav", WAV), sample_rate=sample_rate)


def test_sample_rate_out_of_reach(tmp_path):
    path = save(tmp_path, "sound.wav", encode(SOUND, 8_000))
    with pytest.raises(AudioError, match="cannot go from 8000 Hz to sample_rate=10000"):
        load_track(path, sample_rate=10_000_000)
    with pytest.raises(AudioError, match="within a factor of 256"):
        load_track(path, sample_rate=1)


def test_too_short_to_resample(tmp_path):
    path = save(tmp_path, "short.wav", encode(np.array([0.1, -0.1])))
    assert_is_track(load_track(path))
    with pytest.raises(AudioError, match="has nothing left at sample_rate=8000"):
        load_track(path, sample_rate=8_000)


def test_a_promised_length_is_neither_believed_nor_allocated(tmp_path):
    content = bytearray(WAV)
    content[40:44] = (2**32 - 2).to_bytes(4, "little")  # 2^31 frames of 16 bits
    tracemalloc.start()
    track = load_track(save(tmp_path, "hostile.wav", bytes(content)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert track.shape == SOUND.shape
    assert peak < 2**24


@pytest.mark.parametrize("format", ["WAV", "OGG", "MP3"])
def test_a_file_cut_short_that_decodes_cleanly_is_used(tmp_path, format):
    noise = 0.1 * make_track("white", num_frames=80_000)
    content = encode(noise, format=format)
    track = load_track(save(tmp_path, "cut", content[: len(content) // 2]))
    assert_is_track(track)
    assert 10_000 < track.size < 60_000  # an Ogg page is worth 20,000


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(
    content=st.sampled_from([WAV, FLAC, OGG, MP3]),
    # Positions crowd at the start, where the headers are.
    edits=st.lists(
        st.tuples(
            st.integers(0, 100) | st.integers(0, 2**14),
            st.binary(min_size=1, max_size=8),
        ),
        max_size=8,
    ),
    kept=st.just(1.0) | st.floats(0, 1),
)
def test_damage_gives_a_track_or_an_audio_error(tmp_path_factory, content, edits, kept):
    damaged = bytearray(content)
    for position, patch in edits:
        damaged[position : position + len(patch)] = patch
    damaged = damaged[: int(kept * len(damaged))]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    try:
        track = load_track(path)
    except AudioError:
        return
    assert_is_track(track)


# Built-in tracks


def log_power(track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log frequency and log power of every bin above DC, Nyquist left out."""
    power = np.abs(np.fft.rfft(track.astype(np.float64))) ** 2
    bins = np.arange(1, (track.size + 1) // 2)
    return np.log(bins), np.log(power[bins])


def kurtosis(track: np.ndarray) -> float:
    return float(np.mean(standardized(track) ** 4))


@pytest.mark.parametrize("num_frames", [2, 3, 64, 1_000, 4_097])
@pytest.mark.parametrize("name", TRACKS)
def test_tracks_are_normalised_and_repeatable(name, num_frames):
    track = make_track(name, num_frames=num_frames, seed=1)
    assert_is_track(track)
    assert track.shape == (num_frames,)
    again = make_track(name, num_frames=num_frames, seed=1)
    np.testing.assert_array_equal(track, again)
    if num_frames > 2:  # two frames of zero mean and unit std are always 1 and -1
        assert not np.allclose(track, make_track(name, num_frames=num_frames, seed=2))


@pytest.mark.parametrize("name", TRACKS)
@pytest.mark.parametrize("sample_rate", [1, 8_000, 192_000, 10**9])
def test_tracks_at_any_sample_rate(name, sample_rate):
    assert_is_track(make_track(name, num_frames=2_000, sample_rate=sample_rate))


@pytest.mark.parametrize("num_frames", [2**16, 2**16 - 1])
@pytest.mark.parametrize(
    ("name", "exponent"), [("white", 0), ("pink", 1), ("brown", 2)]
)
def test_noise_has_the_promised_slope(name, exponent, num_frames):
    frequency, power = log_power(make_track(name, num_frames=num_frames, seed=3))
    slope = np.polyfit(frequency, power, 1)[0]
    # Each bin's power is exponentially distributed, its log of variance pi^2 / 6.
    standard_error = np.sqrt(np.pi**2 / 6 / frequency.size) / frequency.std()
    assert abs(slope + exponent) < 4 * standard_error
    assert 4 * standard_error < 0.04


@pytest.mark.parametrize("name", ["white", "pink"])
def test_noise_is_gaussian(name):
    assert abs(kurtosis(make_track(name, num_frames=2**17)) - 3) < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_glitch_is_far_from_gaussian_and_seldom_silent(seed):
    track = make_track("glitch", num_frames=2**19, seed=seed)
    assert kurtosis(track) > 6
    loudness = track.reshape(-1, 4_096).std(axis=1)
    assert loudness.min() > 0.01
    assert np.mean(loudness > 0.05) > 0.95
    # Structure beyond the marginal: loud and quiet come in stretches.
    assert (
        loudness.std() > 5 * shuffle_samples(track).reshape(-1, 4_096).std(axis=1).std()
    )


def test_rain_is_drops_over_a_bed():
    track = make_track("rain", num_frames=2**18)
    assert kurtosis(track) > 5
    assert track.reshape(-1, 4_096).std(axis=1).min() > 0.3
    slower = make_track("rain", num_frames=2**18, sample_rate=192_000)
    assert not np.allclose(track, slower)


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
        ({"name": "pink", "num_frames": 1}, "num_frames=1 is not an integer of at"),
        ({"name": "pink", "num_frames": 10.5}, "num_frames=10.5 is not an integer"),
        ({"name": "rain", "sample_rate": 0}, "sample_rate=0 is not a positive integer"),
        ({"name": "rain", "sample_rate": np.nan}, "sample_rate=nan is not a positive"),
    ],
)
def test_bad_arguments_of_make_track(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_track(**arguments)


# Surrogates


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 4_095, 4_096])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_randomized_phases_keep_the_power_of_every_bin(num_frames, seed):
    # An offset, so that DC has a power to keep.
    track = make_track("glitch", num_frames=max(2, num_frames), seed=seed)[:num_frames]
    track = track + np.float32(0.5)
    surrogate = randomize_phases(track, seed=seed)

    assert surrogate.dtype == np.float32
    assert surrogate.shape == track.shape
    before = np.fft.rfft(track.astype(np.float64))
    after = np.fft.rfft(surrogate.astype(np.float64))
    power = np.abs(before) ** 2
    # float32 samples blur what lies more than 50 dB below the mean power.
    blur = 1e-4 * 1e-5 * power.mean()
    np.testing.assert_allclose(np.abs(after) ** 2, power, rtol=1e-4, atol=blur)
    np.testing.assert_allclose(after[0].real, before[0].real, rtol=1e-4)  # its sign too


def test_randomized_phases_are_uniform():
    track = make_track("white", num_frames=4_097)
    turns = np.fft.rfft(randomize_phases(track, seed=1)) / np.fft.rfft(track)
    mean_turn = np.mean(turns[1:])  # of 2,048 unit vectors
    assert abs(mean_turn) < 4 / np.sqrt(2_048)
    nyquist = {
        round(
            float(np.sum(randomize_phases(np.array([1.0, -1.0]), seed=seed) * [1, -1]))
        )
        for seed in range(20)
    }
    assert nyquist == {2, -2}


def test_randomized_phases_leave_no_structure():
    track = make_track("glitch", num_frames=2**19)
    surrogate = randomize_phases(track, seed=1)
    assert kurtosis(track) > 6
    assert abs(kurtosis(surrogate) - 3) < 0.2
    spread, surrogate_spread = (
        x.reshape(-1, 4_096).std(axis=1).std() for x in (track, surrogate)
    )
    assert surrogate_spread < spread / 4


@pytest.mark.parametrize("scale", [1e-30, 1e36])
def test_randomized_phases_take_any_scale(scale):
    track = make_track("rain", num_frames=4_096)
    scaled = randomize_phases(np.float32(scale) * track, seed=1)
    np.testing.assert_allclose(
        scaled / scale, randomize_phases(track, seed=1), rtol=0, atol=1e-5
    )


def test_shuffled_samples_are_the_same_and_white():
    track = make_track("pink", num_frames=2**16)
    shuffled = shuffle_samples(track, seed=1)
    assert shuffled.dtype == np.float32
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(track))
    frequency, power = log_power(shuffled)
    slope = np.polyfit(frequency, power, 1)[0]
    standard_error = np.sqrt(np.pi**2 / 6 / frequency.size) / frequency.std()
    assert abs(slope) < 4 * standard_error


def test_reverse():
    track = make_track("glitch", num_frames=1_001)
    backwards = reverse(track)
    np.testing.assert_array_equal(backwards, track[::-1])
    np.testing.assert_array_equal(reverse(backwards), track)
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
        (np.zeros((100, 2)), "shape .num_frames,., not .100, 2.; take the mean"),
        (np.zeros(()), "not .."),
        (np.zeros(0), "not .0,."),
        (np.array([1.0, np.nan]), "holds NaN or infinity"),
        (np.array([1.0, np.inf]), "holds NaN or infinity"),
    ],
    ids=["two channels", "scalar", "empty", "nan", "infinite"],
)
def test_surrogates_refuse_what_is_no_track(surrogate, track, message):
    with pytest.raises(ValueError, match=message):
        surrogate(track)
