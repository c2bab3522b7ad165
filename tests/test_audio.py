"""Recordings in every format and fault."""

import functools
import gzip
import io
import os
import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose, assert_array_equal

from sounddrop_jax.audio import AudioError, load_track
from sounddrop_jax.tracks import make_track
from tests.test_tracks import assert_is_track, standardized


def encode(samples, sample_rate=44_100, format="WAV", subtype=None, **kwargs) -> bytes:
    """An audio file's bytes; samples are (num_frames,) or (num_frames, channels)."""
    file = io.BytesIO()
    soundfile.write(
        file, samples, sample_rate, format=format, subtype=subtype, **kwargs
    )
    return file.getvalue()


@pytest.fixture
def save(tmp_path):
    """Writes a recording's bytes to a file and gives its path."""

    def save(content: bytes, name: str = "sound") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return save


def assert_refused(source, message, name=None, **arguments) -> None:
    """In one line that begins with the file's name, if there is one."""
    with pytest.raises(AudioError, match=message) as caught:
        load_track(source, **arguments)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(repr(str(name)) if name else "")


def load_and_measure(path, **arguments) -> tuple[np.ndarray, int]:
    """A track, and the most bytes that were held while it was read."""
    tracemalloc.start()
    track = load_track(path, **arguments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return track, peak


def name_of(value) -> str:
    """A parameter, for the name of a test."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


SOUND = 0.1 * make_track("pink", num_frames=8_000, seed=58)
LONG = 0.1 * make_track("white", num_frames=100_000)
# A sweep from 0.005 to 0.05 cycles a frame: what lossy codecs keep, sample by sample.
SWEEP = 0.3 * np.sin(2 * np.pi * np.cumsum(np.linspace(0.005, 0.05, 20_000)))
WAV, FLAC, OGG, MP3, AIFF, AU, W64, RF64 = (
    encode(SOUND, format=format)
    for format in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "RF64")
)
STEREO = encode(np.stack([SOUND, SOUND[::-1]], axis=1))
TEXT = b"Not a sound, but a note about one.\n" * 200


def kept(num_frames: int, max_frames: int) -> np.ndarray:
    """The positions that thinning keeps: every 2^k-th stretch, k as small as fits."""
    stretches = np.arange(num_frames) // max(1, min(2**16, max_frames // 16))
    stride = 1
    while np.count_nonzero(stretches % stride == 0) > max_frames:
        stride *= 2
    return np.flatnonzero(stretches % stride == 0)


# Recordings


@pytest.mark.parametrize(
    ("format", "subtype", "step"),  # step: the coarsest difference between two samples
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "DOUBLE", 2**-24),  # float32 resolves no more
        ("FLAC", "PCM_16", 2**-15),
        ("AIFF", "PCM_16", 2**-15),
    ],
)
def test_lossless_formats_give_the_channels_or_their_mean(save, format, subtype, step):
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal((1_000, 8)).clip(-5, 5)
    path = save(encode(samples, 44_100, format, subtype))
    for mono, expected in ((True, samples.mean(axis=1)), (False, samples)):
        track = load_track(path, mono=mono)
        assert_is_track(track, None if mono else 8)
        tolerance = 2 * step / expected.std(axis=0).min() + 1e-5
        assert_allclose(track, standardized(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("format", "subtype", "sample_rate"),
    [("OGG", "VORBIS", 44_100), ("OGG", "OPUS", 48_000), ("MP3", None, 8_000)],
)
def test_lossy_formats_give_nearly_the_same_sound(save, format, subtype, sample_rate):
    samples = np.stack([SWEEP, SWEEP], axis=1)
    path = save(encode(samples, sample_rate, format, subtype))
    track, channels = load_track(path), load_track(path, mono=False)
    assert_is_track(channels, 2)
    assert track.shape == SWEEP.shape
    for each in (track, *channels.T):
        assert np.mean(each * standardized(SWEEP)) > 0.99


@pytest.mark.parametrize(
    ("name", "content"),
    [("wrong.mp3", WAV), ("wrong", OGG), ("наводнение-水-🌊.vox", MP3)],
    ids=name_of,
)
def test_the_content_decides_not_the_name(save, name, content):
    assert_is_track(load_track(save(content, name)))


@pytest.mark.parametrize(("scale", "offset"), [(1, -1e3), (1e-30, 0), (1e37, 0)])
@pytest.mark.parametrize("sample_rate", [None, 22_050])
def test_offset_and_scale_do_not_matter(save, scale, offset, sample_rate):
    samples = SOUND.astype(np.float64)
    plain = save(encode(samples, subtype="FLOAT"), "plain")
    changed = save(encode(scale * samples + offset, subtype="FLOAT"), "changed")
    track = load_track(changed, sample_rate=sample_rate)
    assert_is_track(track)
    expected = load_track(plain, sample_rate=sample_rate)
    assert_allclose(track, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("own_rate", [8_000, 192_000])
def test_resampling_keeps_a_tone_in_every_channel(save, own_rate):
    def tones(rate):
        phases = 2 * np.pi * np.arange(rate // 4) / rate
        return np.stack([np.sin(1_000 * phases), np.sin(600 * phases)], axis=1)

    path = save(encode(tones(own_rate), own_rate, subtype="FLOAT"))
    track = load_track(path, sample_rate=16_000, mono=False)
    assert_is_track(track, 2)
    assert track.shape == (4_000, 2)
    inside = slice(400, -400)  # the filter rings at both ends
    expected = tones(16_000)[inside]
    assert_allclose(track[inside], np.sqrt(2) * expected, rtol=0, atol=0.01)
    mixed = load_track(path, sample_rate=16_000)[inside]
    assert_allclose(mixed, expected.sum(axis=1), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("own_rate", "num_frames", "expected"),
    # librosa alone makes 161 of the first: 147 * (48,000 / 44,100) rounds up.
    [(44_100, 147, 160), (44_100, 148, 162), (192_000, 9, 3)],
)
def test_resampling_gives_as_many_frames_as_the_time_has(
    save, own_rate, num_frames, expected
):
    path = save(encode(SOUND[:num_frames], own_rate))
    assert load_track(path, sample_rate=48_000).shape == (expected,)


# Several recordings


def test_recordings_are_normalised_one_by_one_and_joined_in_order(save):
    loud = save(encode(SOUND + 0.3, 8_000, subtype="FLOAT"), "b.wav")
    soft = save(encode(0.1 * SOUND[:3_000], 44_100, "FLAC"), "a.flac")
    # The larger first, and one of them twice; the rates differ and are kept.
    for sources, sample_rate in (
        ([loud, str(soft), loud], None),
        ([loud, soft], 9_000),
    ):
        joined = load_track(sources, sample_rate=sample_rate)
        assert_is_track(joined)
        expected = [load_track(path, sample_rate=sample_rate) for path in sources]
        assert_array_equal(joined, np.concatenate(expected))


def test_a_folder_is_its_recordings_in_the_order_of_their_names(save, tmp_path):
    recordings = {
        "10.wav": WAV,
        "9.AIF": encode(SOUND[1_000:], format="AIFF"),
        "a.b.mp3": MP3,
        "c.oga": OGG,
        "d.opus": encode(SOUND, 48_000, "OGG", "OPUS"),
        "e.snd": AU,
        "é 水.flac": encode(SOUND[:2_000], format="FLAC"),
    }
    for name in reversed(recordings):
        save(recordings[name], name)
    for name in ("cover.jpg", "notes.txt", ".wav", ".hidden.wav", "wav", "x.raw"):
        save(TEXT, name)
    (tmp_path / "folder.wav").mkdir()
    save(TEXT, "folder.wav/below.wav")
    expected = [load_track(tmp_path / name) for name in recordings]
    assert_array_equal(load_track(tmp_path), np.concatenate(expected))

    bad = save(TEXT, "b.mp3")
    assert_refused(tmp_path, UNDECODABLE, bad)


def test_channels_that_are_kept_must_be_as_many_in_every_file(save, tmp_path):
    mono, stereo = save(WAV, "mono.wav"), save(STEREO, "stereo.wav")
    assert_is_track(load_track([mono, stereo]))
    assert_is_track(load_track([stereo, stereo], mono=False), 2)
    message = r"number of channels \(2\) than .*mono.wav' \(1\); .* mono=True"
    for source in ([mono, stereo], [stereo, mono], tmp_path):
        assert_refused(source, message, stereo, mono=False)


# Long recordings


@pytest.mark.parametrize(
    ("num_frames", "max_frames"),
    [
        *[(3, 2), (100, 7), (1_000, 1_000), (1_001, 1_000)],
        (2**20 + 2**19, 2**20 + 2**18),
    ],
)
@pytest.mark.parametrize("mono", [True, False])
def test_a_long_recording_is_thinned_evenly(save, num_frames, max_frames, mono):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (num_frames, 2))
    path = save(encode(samples, subtype="FLOAT"))
    track = load_track(path, mono=mono, max_frames=max_frames)

    positions = kept(num_frames, max_frames)
    assert min(num_frames, max_frames) / 2.5 < len(positions) <= max_frames
    samples = samples.mean(axis=1) if mono else samples
    assert_allclose(track, standardized(samples[positions]), rtol=0, atol=1e-5)
    if num_frames <= max_frames:
        assert_array_equal(track, load_track(path, mono=mono, max_frames=None))


def test_ten_hours_take_no_more_memory_than_what_is_kept(save):
    num_frames, max_frames = 10 * 3_600 * 8_000, 2**20
    header = encode(SOUND[:1], 8_000, subtype="PCM_U8")[:44]
    path = save(put(header, 40, "<I", num_frames))
    noise = np.random.default_rng(0).integers(256, size=800_000, dtype=np.uint8)
    with path.open("r+b") as file:  # sparse: 100 seconds of noise in every hour
        for hour in range(10):
            file.seek(44 + num_frames // 10 * hour)
            file.write(noise.tobytes())
        file.truncate(44 + num_frames)
    track, peak = load_and_measure(path, max_frames=max_frames)
    assert_is_track(track)
    assert max_frames / 2.5 < len(track) <= max_frames
    assert peak < 3 * 4 * max_frames  # what is held, what is joined, a few blocks


@pytest.mark.parametrize("sample_rate", [22_050, 48_000])
def test_the_limit_holds_before_and_after_resampling(save, sample_rate):
    path = save(encode(SOUND[:7_350]))
    whole = load_track(path, sample_rate=sample_rate)
    limit = max(7_350, len(whole))
    fits = load_track(path, sample_rate=sample_rate, max_frames=limit)
    assert_array_equal(fits, whole)
    thinned = load_track(path, sample_rate=sample_rate, max_frames=limit - 1)
    assert_is_track(thinned)
    assert len(whole) / 2.5 < len(thinned) < len(whole)


def test_several_recordings_share_the_limit(save):
    paths = [save(encode(SOUND[:n]), f"{n}.wav") for n in (3_000, 100, 200)]
    whole = [load_track(path) for path in paths]
    assert_array_equal(load_track(paths, max_frames=3_300), np.concatenate(whole))
    # What the small ones leave goes to the large one, wherever it stands.
    long = load_track(paths[0], max_frames=2_999)
    assert len(long) < 3_000
    thinned = load_track(paths, max_frames=3_299)
    assert_array_equal(thinned, np.concatenate([long, *whole[1:]]))
    # So does what thinning leaves; the third of three gets what is left by both.
    expected = []
    for num_left in (3, 2, 1):
        share = (3_000 - sum(map(len, expected))) / num_left
        expected.append(load_track(paths[0], max_frames=int(share)))
    same = load_track(paths[:1] * 3, max_frames=3_000)
    assert_array_equal(same, np.concatenate(expected))


def test_a_limit_too_low_for_what_is_asked(save):
    path = save(encode(SOUND, 8_000))
    assert load_track([path, path], max_frames=4).shape == (4,)
    message = "has room for .* its share of max_frames; give a larger"
    assert_refused([path, path], message, path, max_frames=3)
    assert_refused(path, message, path, sample_rate=16_000, max_frames=3)


# What is asked for, and what is installed

BAD_RATE = "sample_rate=.* is not a positive integer"
BAD_LIMIT = "max_frames=.* is not an integer of at least 2; .* None for no limit"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[({"sample_rate": rate}, BAD_RATE) for rate in (0, 44_100.5, np.nan, True)],
        *[({"max_frames": limit}, BAD_LIMIT) for limit in (1, 2.5, np.inf, "9", True)],
        ({"sample_rate": 10**8}, "from 44100 Hz to sample_rate=10.* factor of 256"),
        ({"sample_rate": 1}, "to sample_rate=1; .* factor of 256"),
    ],
)
def test_a_bad_argument_is_refused(save, arguments, message):
    assert_refused(save(WAV), message, **arguments)


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_numpy_integers_are_integers(save, kind):
    path = save(encode(SOUND, 8_000))
    for name, value in {"sample_rate": 4_000, "max_frames": 1_000}.items():
        track = load_track(path, **{name: kind(value)})
        assert_array_equal(track, load_track(path, **{name: value}))


@pytest.mark.parametrize("missing", ["soundfile", "librosa"])
def test_a_missing_library_names_the_extra(save, tmp_path, monkeypatch, missing):
    save(WAV, "sound.wav")
    monkeypatch.setitem(sys.modules, missing, None)
    remedy = rf"{missing}; pip install 'sounddrop-jax\[audio\]'$"
    for source in (tmp_path, io.BytesIO(WAV)):
        with pytest.raises(ImportError, match=remedy):
            load_track(source, sample_rate=22_050)


# Faults


def put(content: bytes, place: int, form: str, value: int) -> bytes:
    """The content with a number of a header changed."""
    changed = bytearray(content)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


def with_sample(value) -> bytes:
    samples = SOUND.astype(np.float64)
    samples[4_321] = value
    return encode(samples, subtype="DOUBLE")


def steady(value, num_frames=2_000, format="WAV", num_channels=1) -> bytes:
    return encode(np.full((num_frames, num_channels), value), format=format)


OUT_OF_PHASE = encode(np.stack([SOUND, -SOUND], axis=1), subtype="FLOAT")
NEARLY_CONSTANT = encode(0.1 + 1e-8 * np.sign(SOUND), subtype="FLOAT")
# A header whose frames libsndfile makes up once the file has none left: 2 * 10^10.
PADDED = encode(SOUND[:2_000], format="W64", subtype="GSM610")
PADDED = put(PADDED, 140, ">I", 0x7FFFFFFF)

UNDECODABLE = "is not audio .* convert it to WAV, FLAC, OGG or MP3"
DAMAGED = "is damaged .* fetch or export it again"
CONSTANT = "is silent or constant .*; "
NO_FRAMES = "holds a header but no frames; "
NOT_FINITE = "holds NaN or infinite samples; "
FAULTS = {
    "empty.wav": (b"", "is empty .0 bytes.; fetch"),
    "two\nlines.txt": (TEXT, UNDECODABLE),
    "text.mp3": (TEXT, UNDECODABLE),
    "text.raw": (TEXT, "is named .raw.*; "),
    "header.wav": (WAV[:44], NO_FRAMES),
    "header.flac": (FLAC[:60], UNDECODABLE),
    "truncated.flac": (FLAC[: len(FLAC) // 2], DAMAGED),
    "hole.mp3": (MP3[: len(MP3) // 2] + bytes(len(MP3) // 2), DAMAGED),
    "single.wav": (steady(0.5, 1), "holds a single frame; .* 2 frames"),
    "silent.mp3": (steady(0.0, format="MP3"), CONSTANT),
    "silent-in-sum.wav": (OUT_OF_PHASE, CONSTANT),
    "constant-but-rounding.wav": (NEARLY_CONSTANT, CONSTANT),
    "constant-8-channels.wav": (steady(1 / 3, num_channels=8), CONSTANT),
    "nan.wav": (with_sample(np.nan), NOT_FINITE),
    "beyond-float32.wav": (with_sample(1e300), NOT_FINITE),
    "padded.w64": (PADDED, "promises more sound than it can hold; "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_one_line_with_the_file(save, name):
    content, message = FAULTS[name]
    path, good = save(content, name), save(WAV, "good.wav")
    assert_refused([good, path, good], message, path)


def test_what_is_thinned_out_is_checked_too(save):
    assert 4_321 not in kept(len(SOUND), 1_000)
    assert_refused(save(with_sample(np.nan)), NOT_FINITE, max_frames=1_000)


def test_a_channel_without_sound_is_named(save):
    samples = np.stack([SOUND, np.full(SOUND.shape, 0.1), SOUND], axis=1)
    path = save(encode(samples, subtype="FLOAT"))
    assert_is_track(load_track(path))
    message = "is silent or constant in channel 1; .* or mono=True"
    assert_refused(path, message, path, mono=False)
    # Silent only in their sum.
    assert_is_track(load_track(save(OUT_OF_PHASE), mono=False), 2)


def test_too_short_to_resample(save):
    path = save(encode(np.array([[0.1, 0.2], [-0.1, 0.3]])))
    assert_is_track(load_track(path))
    message = "has nothing left at sample_rate=8000 in "
    assert_refused(path, f"{message}the mean", path, sample_rate=8_000)
    message += "channel 0; choose"
    assert_refused(path, message, path, sample_rate=8_000, mono=False)


def test_missing_file(save, tmp_path):
    assert_refused(tmp_path / "absent.wav", "no such file; check the path")
    file = save(WAV)
    for path in (file / "beneath.wav", "null\0byte.wav"):
        assert_refused(path, "cannot be opened .* check the path")
    assert_refused([file, tmp_path], "is a folder in a sequence of files; name")


def test_no_recordings(save, tmp_path):
    for name in ("notes.txt", ".hidden.wav", "x.raw"):
        save(WAV, name)
    assert_refused(tmp_path, "is a folder without recordings; name", tmp_path)
    for source in ([], iter(())):
        assert_refused(source, "sequence of recordings is empty; name")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert_refused(tmp_path / "pipe.wav", "is a pipe or a device; copy it")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("is_folder", [False, True])
def test_unreadable_file_or_folder(is_folder):
    # Not in tmp_path, where only its owner comes as far as a folder.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "secret.wav").write_bytes(WAV)
        path = path if is_folder else path / "secret.wav"
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # root may read anything, so act as somebody else
            os.seteuid(65_534)
        try:
            fault = "list its files" if is_folder else "read it"
            assert_refused(path, f"you may not {fault}; change its permissions")
        finally:
            os.seteuid(user)
            path.chmod(0o700)


def test_a_promised_length_is_neither_believed_nor_allocated(save):
    hostile = save(put(WAV, 40, "<I", 2**32 - 2))  # 2^31 frames of 16 bits
    track, peak = load_and_measure(hostile)
    assert track.shape == SOUND.shape
    assert peak < 2**24
    honest = load_track(save(WAV, "honest"), max_frames=1_000)
    assert_array_equal(load_track(hostile, max_frames=1_000), honest)


# Lengths that are unknown or wrong


def unknown_length(flac: bytes) -> bytes:
    """What an encoder writes to a pipe: no count of frames, nor a checksum of them."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4 + 16) + flac[42:]


def without_xing(mp3: bytes) -> bytes:
    """All frames but the first, which holds the Xing or Info header and no sound."""
    assert b"Xing" in mp3[:40] or b"Info" in mp3[:40]
    return mp3[mp3.index(mp3[:2], 4) :]


XING = MP3.index(b"Xing") + 8  # where it counts frames
(NUM_XING,) = struct.unpack_from(">I", MP3, XING)


@pytest.mark.parametrize("num_frames", [2, 2**16, 2**16 + 1])
def test_a_flac_of_unknown_length_is_read_whole(save, num_frames):
    content = encode(LONG[:num_frames], format="FLAC")
    known, unknown = save(content, "known"), save(unknown_length(content), "unknown")
    assert soundfile.info(unknown).frames > 2**60
    assert load_track(unknown).shape == (num_frames,)
    for limit in (None, 1_000):
        track = load_track(unknown, max_frames=limit)
        assert_array_equal(track, load_track(known, max_frames=limit))


def test_a_stream_is_found_once_wherever_a_block_ends(save):
    def tag(size):
        sevens = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
        return b"ID3\x04\x00\x00" + sevens + bytes(size)

    # 1 MiB is read at a time; the stream begins around its end. The second is so
    # short that libFLAC has read it with the end of the first.
    short = encode(SOUND[:100], format="FLAC")
    for place in range(2**20 - 9, 2**20 + 2):
        size = place - len(tag(4_096)) - len(FLAC) - 4
        block = b"\x02" + size.to_bytes(3, "big") + bytes(size)  # of an application
        joined = tag(4_096) + FLAC[:42] + block + FLAC[42:] + short
        assert joined.rindex(b"fLaC") == place
        assert_refused(save(joined), GOES_ON)

        tagged = tag(place - 10) + FLAC
        assert tagged.rindex(b"fLaC") == place
        assert load_track(save(tagged)).shape == SOUND.shape


def test_a_xing_header_that_counts_too_many_is_not_believed(save):
    many = load_track(save(put(MP3, XING, ">I", 2 * NUM_XING)))
    assert SOUND.size <= many.size <= SOUND.size + 3 * 1_152
    whole = load_track(save(MP3))
    assert np.mean(standardized(many[: SOUND.size]) * whole) > 0.99


SIZES = {  # the file, and where and how it says how long its samples are
    "WAV": (WAV, WAV.index(b"data") + 4, "<I"),
    "RF64": (RF64, RF64.index(b"ds64") + 16, "<Q"),
    "W64": (W64, W64.index(b"data") + 16, "<Q"),
    "AIFF": (AIFF, AIFF.index(b"SSND") + 4, ">I"),
    "AU": (AU, 8, ">I"),
}


def with_size(format: str, size: int) -> bytes:
    content, place, form = SIZES[format]
    return put(content, place, form, size)


@pytest.mark.parametrize(
    ("format", "size"),
    [
        # What ffmpeg, SoX and others write to pipes.
        *[("WAV", 2**32 - 1), ("WAV", 0x7FFFF000), ("W64", 0), ("W64", 2**64 - 1)],
        *[("RF64", 2**63 - 1), ("AIFF", 0), ("AIFF", 2**31), ("AU", 2**32 - 1)],
    ],
)
def test_samples_of_unknown_length_are_read_to_the_end(save, format, size):
    track = load_track(save(with_size(format, size)))
    assert_array_equal(track, load_track(save(SIZES[format][0])))


def chunk(name: bytes, size: int, form: str) -> bytes:
    return name + struct.pack(form, size) + bytes(size + size % 2)


TAG = b"TAG" + bytes(125)


@pytest.mark.parametrize(
    ("format", "subtype", "after"),
    [
        ("WAV", "PCM_24", chunk(b"id3 ", 200_001, "<I") + chunk(b"cue ", 280, "<I")),
        ("WAV", "FLOAT", chunk(b"LIST", 500, "<I") + TAG),
        ("RF64", "PCM_16", chunk(b"LIST", 5_000, "<I")),
        ("AIFF", "PCM_16", chunk(b"ID3 ", 5_000, ">I") + chunk(b"ANNO", 7, ">I")),
        *[("AU", None, TAG), ("FLAC", None, TAG), ("OGG", None, TAG)],
        ("MP3", None, b"APETAGEX" + bytes(300) + TAG),
    ],
    ids=name_of,
)
def test_what_is_no_sound_may_follow_it(save, format, subtype, after):
    content = encode(SOUND[:7_999], format=format, subtype=subtype)
    track = load_track(save(content + after))
    assert_array_equal(track, load_track(save(content)))


@functools.cache
def stream(num_frames: int, format: str, subtype: str | None = None) -> bytes:
    return encode(LONG[:num_frames], 48_000, format, subtype)


GOES_ON = r"goes on after the \d+ frames that libsndfile counts; "
REMEDIES = {
    "FLAC": "give the files that it was joined from",
    "OGG": "re-encode it: ffmpeg -i in.ogg out.wav",
    "MP3": "re-encode it: ffmpeg -i in.mp3 out.wav",
}
SOX = "write it anew: sox --ignore-length in.wav out.wav"
ID3 = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
FORMATS = [("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]
LONGER = [
    *[
        (format, stream(first, format, subtype) + stream(second, format, subtype))
        for format, subtype in FORMATS
        for first, second in ((50_000, 2), (2, 50_000))
    ],
    # A count that leaves some out, of all frames or of MPEG's.
    ("FLAC", put(FLAC, 22, ">I", SOUND.size - 5_000)),
    ("MP3", put(MP3, XING, ">I", NUM_XING - 4)),
    *[("MP3", ID3 + MP3 + between + MP3) for between in (b"", TAG + ID3)],
    ("MP3", 2 * encode(SOUND, format="MP3", bitrate_mode="CONSTANT")),
    # Of a variable rate, whose length is estimated from the size of the first frame.
    ("MP3", without_xing(encode(3 * LONG[:40_000], format="MP3"))),
    # Samples after the length that is promised.
    *[(format, with_size(format, 1_008)) for format in ("WAV", "RF64", "AIFF", "AU")],
    *[("WAV", with_size("WAV", 0)), ("AU", with_size("AU", 2**31 - 1))],
    # What is no chunk: it has no name, or is cut short, or is silence.
    *[("WAV", WAV + chunk(b"\x01\x02\x03\x04", 500, "<I")), ("WAV", WAV + bytes(500))],
    ("WAV", WAV + chunk(b"LIST", 500, "<I")[:-1]),
]


@pytest.mark.parametrize(("format", "content"), LONGER, ids=name_of)
def test_sound_after_the_end_that_a_file_states_is_refused(save, format, content):
    assert_refused(save(content), f"{GOES_ON}{REMEDIES.get(format, SOX)}")


def test_what_is_no_sound_may_come_before_an_mp3(save):
    before = b"no sound " * 100
    path = save(before + MP3, "dirty.mp3")
    assert_array_equal(load_track(path), load_track(save(MP3)))
    # It is found out to be joined all the same.
    assert_refused(save(before + MP3 + MP3, "joined.mp3"), GOES_ON)


# File objects


class Stream:
    """The least of a file: it gives bytes, and can neither seek nor tell its name."""

    def __init__(self, content: bytes):
        self.read = io.BytesIO(content).read


@pytest.mark.parametrize("content", [WAV, OGG], ids=name_of)
def test_file_objects_are_read_as_files_are(save, content):
    path, packed = save(content), save(gzip.compress(content), "sound.gz")
    behind = io.BytesIO(b"read before " + content)
    behind.seek(len(b"read before "))
    with path.open("rb") as file, gzip.open(packed) as unpacked:
        with tempfile.TemporaryFile() as copy:  # whose name is a number
            copy.write(content)
            copy.seek(0)
            for source in (file, unpacked, copy, behind, Stream(content)):
                assert_array_equal(load_track(source), load_track(path))
        assert not file.closed


def test_a_fault_of_a_file_object_is_named_in_one_line(save, tmp_path):
    path = save(WAV)
    empty = io.BytesIO(WAV)
    empty.read()
    with path.open("rb") as closed:
        pass
    with path.open(encoding="utf-8") as text, (tmp_path / "new").open("wb") as new:
        for source, name, message in (
            (empty, "BytesIO", "cannot be read .nothing is left to read.; open it"),
            (closed, path, "cannot be read .*closed file.*; open it with 'rb'"),
            (text, path, "cannot be read .*; open it with 'rb', at its start"),
            (new, tmp_path / "new", "cannot be read .*; open it with 'rb'"),
            (io.BytesIO(TEXT), "BytesIO", UNDECODABLE),
        ):
            assert_refused(source, message, name)
    pair = [path, io.BytesIO(STEREO)]
    assert_refused(pair, "another number of channels", "BytesIO", mono=False)


@pytest.mark.parametrize("source", [3, None, np.zeros((300, 2)), [None, "a.wav"], [[]]])
def test_what_is_no_source_is_told_in_one_line(source):
    assert_refused(source, "path or an open binary file, not .*; give one, or a seq")


def test_paths_of_every_kind(save):
    path = save(WAV)
    expected = load_track(path)
    for source in (str(path), os.fsencode(path), np.str_(path)):
        for form in (source, [source], {source}, iter([source])):
            assert_array_equal(load_track(form), expected)


@pytest.mark.skipif(os.name == "nt", reason="Windows file names are Unicode")
def test_a_name_that_is_not_unicode(save):
    try:
        path = save(WAV, os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("this file system takes no such name")
    assert_is_track(load_track(path))
