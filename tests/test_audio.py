"""Recordings in every format and fault."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sounddrop_jax.audio import AudioError, load_track
from sounddrop_jax.tracks import (
    TRACKS,
    make_track,
    randomize_phases,
    shuffle_samples,
)
from tests.test_tracks import assert_is_track, standardized


def encode(
    samples, sample_rate=44_100, format="WAV", subtype=None, **settings
) -> bytes:
    """An audio file's bytes; samples are (num_frames,) or (num_frames, channels)."""
    file = io.BytesIO()
    soundfile.write(
        file, samples, sample_rate, format=format, subtype=subtype, **settings
    )
    return file.getvalue()


def save(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


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
def test_lossless_formats_give_the_channels_or_their_mean(
    tmp_path, format, subtype, step, num_channels, sample_rate
):
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal((1_000, num_channels)).clip(-5, 5)
    path = save(tmp_path, "sound", encode(samples, sample_rate, format, subtype))
    track, channels = load_track(path), load_track(path, mono=False)

    assert_is_track(track)
    expected = standardized(samples.mean(axis=1))
    tolerance = 2 * step / samples.mean(axis=1).std() + 1e-5
    np.testing.assert_allclose(track, expected, rtol=0, atol=tolerance)

    assert_is_track(channels, num_channels)
    tolerance = 2 * step / samples.std(axis=0).min() + 1e-5
    np.testing.assert_allclose(channels, standardized(samples), rtol=0, atol=tolerance)


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
    channels = load_track(tmp_path / "sound", mono=False)
    assert_is_track(channels, num_channels)
    assert np.mean(channels * standardized(SWEEP)[:, None], axis=0).min() > 0.99


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
def test_resampling_keeps_a_tone_in_every_channel(tmp_path, own_rate):
    seconds = np.arange(own_rate // 4) / own_rate
    tones = np.stack([np.sin(2 * np.pi * f * seconds) for f in (1_000, 600)], axis=1)
    path = save(tmp_path, "tones.wav", encode(tones, own_rate, subtype="FLOAT"))
    track = load_track(path, sample_rate=16_000, mono=False)

    assert_is_track(track, 2)
    assert track.shape == (4_000, 2)
    seconds = np.arange(4_000) / 16_000
    tones = np.stack([np.sin(2 * np.pi * f * seconds) for f in (1_000, 600)], axis=1)
    inside = slice(400, -400)  # the filter rings at both ends
    np.testing.assert_allclose(
        track[inside], np.sqrt(2) * tones[inside], rtol=0, atol=0.01
    )
    mixed = load_track(path, sample_rate=16_000)
    np.testing.assert_allclose(
        mixed[inside], tones.sum(axis=1)[inside], rtol=0, atol=0.01
    )


@pytest.mark.parametrize(
    ("own_rate", "num_frames", "expected"),
    # librosa alone makes 161 of the first: 147 * (48,000 / 44,100) rounds up.
    [(44_100, 147, 160), (44_100, 148, 162), (8_000, 147, 882), (192_000, 9, 3)],
)
def test_resampling_gives_as_many_frames_as_the_time_has(
    tmp_path, own_rate, num_frames, expected
):
    path = save(tmp_path, "short.wav", encode(SOUND[:num_frames], own_rate))
    assert load_track(path, sample_rate=48_000).shape == (expected,)


# Several recordings


def test_recordings_are_normalised_one_by_one_and_joined_in_order(tmp_path):
    loud = save(tmp_path, "b.wav", encode(SOUND + 0.3, 8_000, subtype="FLOAT"))
    soft = save(tmp_path, "a.flac", encode(0.1 * SOUND[:3_000], 44_100, "FLAC"))
    # The larger first, and one of them twice; the rates differ and are kept.
    joined = load_track([loud, str(soft), loud])
    assert_is_track(joined)
    expected = np.concatenate([load_track(path) for path in (loud, soft, loud)])
    np.testing.assert_array_equal(joined, expected)

    resampled = load_track((loud, soft), sample_rate=16_000)
    assert_is_track(resampled)
    expected = [load_track(path, sample_rate=16_000) for path in (loud, soft)]
    np.testing.assert_array_equal(resampled, np.concatenate(expected))
    assert [len(track) for track in expected] == [16_000, 1_089]


def test_a_folder_is_its_recordings_in_the_order_of_their_names(tmp_path):
    recordings = {
        "10.wav": encode(SOUND),
        "9.AIF": encode(SOUND[1_000:], format="AIFF"),
        "a.b.mp3": encode(SOUND, format="MP3"),
        "c.oga": encode(SOUND, format="OGG"),
        "d.opus": encode(SOUND, 48_000, "OGG", "OPUS"),
        "e.snd": encode(SOUND, format="AU"),
        "é 水.flac": encode(SOUND[:2_000], format="FLAC"),
    }
    for name in reversed(recordings):
        save(tmp_path, name, recordings[name])
    for name in ("cover.jpg", "notes.txt", ".wav", ".hidden.wav", "wav", "x.raw"):
        save(tmp_path, name, TEXT)
    (tmp_path / "folder.wav").mkdir()
    save(tmp_path / "folder.wav", "below.wav", TEXT)

    expected = [load_track(tmp_path / name) for name in recordings]
    for source in (tmp_path, str(tmp_path)):
        np.testing.assert_array_equal(load_track(source), np.concatenate(expected))


def test_channels_that_are_kept_must_be_as_many_in_every_file(tmp_path):
    pair = np.stack([SOUND, SOUND[::-1]], axis=1)
    mono = save(tmp_path, "mono.wav", encode(SOUND))
    stereo = save(tmp_path, "stereo.wav", encode(pair))
    assert_is_track(load_track([mono, stereo]))
    assert_is_track(load_track([mono, mono], mono=False), 1)
    assert_is_track(load_track([stereo, stereo], mono=False), 2)
    message = r"stereo.wav': has another number of channels \(2\) than .*mono.wav' \(1"
    for source in ([mono, stereo], [stereo, mono], tmp_path):
        with pytest.raises(AudioError, match=f"{message}.*; mix them with mono=True"):
            load_track(source, mono=False)


# Long recordings


def kept(num_frames: int, max_frames: int) -> np.ndarray:
    """The positions that thinning keeps: every 2^k-th stretch, k as small as fits."""
    stretches = np.arange(num_frames) // max(1, min(2**16, max_frames // 16))
    stride = 1
    while np.count_nonzero(stretches % stride == 0) > max_frames:
        stride *= 2
    return np.flatnonzero(stretches % stride == 0)


@pytest.mark.parametrize(
    ("num_frames", "max_frames"),
    [
        *[(3, 2), (5, 2), (100, 7), (999, 1_000), (1_000, 1_000), (1_001, 1_000)],
        *[(2_000, 1_000), (100_003, 1_000), (2**20 + 2**19, 2**20 + 2**18)],
    ],
)
@pytest.mark.parametrize("mono", [True, False])
def test_a_long_recording_is_thinned_evenly(tmp_path, num_frames, max_frames, mono):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (num_frames, 2))
    path = save(tmp_path, "long.wav", encode(samples, subtype="FLOAT"))
    track = load_track(path, mono=mono, max_frames=max_frames)

    positions = kept(num_frames, max_frames)
    assert len(positions) <= max_frames
    assert len(positions) > min(num_frames, max_frames) / 2.5
    samples = samples.mean(axis=1) if mono else samples
    expected = standardized(samples[positions])
    np.testing.assert_allclose(track, expected, rtol=0, atol=1e-5)
    if num_frames <= max_frames:
        np.testing.assert_array_equal(track, load_track(path, mono=mono))


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_every_format_can_be_thinned(tmp_path, format):
    path = save(tmp_path, "long", encode(SOUND, format=format))
    whole = load_track(path, max_frames=None)
    track = load_track(path, max_frames=1_000)
    assert len(track) <= 1_000
    expected = standardized(whole[kept(len(whole), 1_000)])
    np.testing.assert_allclose(track, expected, rtol=0, atol=1e-5)


def test_ten_hours_take_no_more_memory_than_what_is_kept(tmp_path):
    num_frames, max_frames = 10 * 3_600 * 8_000, 2**20
    header = bytearray(encode(SOUND[:1], 8_000, subtype="PCM_U8")[:44])
    header[40:44] = num_frames.to_bytes(4, "little")
    noise = np.random.default_rng(0).integers(256, size=800_000, dtype=np.uint8)
    path = save(tmp_path, "long.wav", bytes(header))
    with path.open("r+b") as file:  # sparse: 100 seconds of noise in every hour
        for hour in range(10):
            file.seek(44 + num_frames // 10 * hour)
            file.write(noise.tobytes())
        file.truncate(44 + num_frames)
    tracemalloc.start()
    track = load_track(path, max_frames=max_frames)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert_is_track(track)
    assert max_frames / 2.5 < len(track) <= max_frames
    assert peak < 3 * 4 * max_frames  # what is held, what is joined, a few blocks


@pytest.mark.parametrize("sample_rate", [22_050, 48_000])
def test_the_limit_holds_before_and_after_resampling(tmp_path, sample_rate):
    path = save(tmp_path, "sound.wav", encode(SOUND[:7_350]))
    whole = load_track(path, sample_rate=sample_rate)
    limit = max(7_350, len(whole))
    fits = load_track(path, sample_rate=sample_rate, max_frames=limit)
    np.testing.assert_array_equal(fits, whole)
    thinned = load_track(path, sample_rate=sample_rate, max_frames=limit - 1)
    assert_is_track(thinned)
    assert len(whole) / 2.5 < len(thinned) < len(whole)


def test_several_recordings_share_the_limit(tmp_path):
    paths = [
        save(tmp_path, f"{num_frames}.wav", encode(SOUND[:num_frames]))
        for num_frames in (3_000, 100, 200)
    ]
    whole = [load_track(path) for path in paths]
    fits = load_track(paths, max_frames=3_300)
    np.testing.assert_array_equal(fits, np.concatenate(whole))
    # What the small ones leave goes to the large one, wherever it stands.
    thinned = load_track(paths, max_frames=3_299)
    long = load_track(paths[0], max_frames=2_999)
    assert len(long) < 3_000
    np.testing.assert_array_equal(thinned, np.concatenate([long, *whole[1:]]))
    # So does what thinning leaves; the third of three gets what is left by both.
    same = load_track(paths[:1] * 3, max_frames=3_000)
    expected = []
    for num_left in (3, 2, 1):
        share = (3_000 - sum(map(len, expected))) / num_left
        expected.append(load_track(paths[0], max_frames=int(share)))
    np.testing.assert_array_equal(same, np.concatenate(expected))


def test_what_is_thinned_out_is_checked_too(tmp_path):
    path = save(tmp_path, "nan.wav", with_sample(np.nan))
    assert 4_321 not in kept(len(SOUND), 1_000)
    with pytest.raises(AudioError, match=NOT_FINITE):
        load_track(path, max_frames=1_000)


@pytest.mark.parametrize("max_frames", [1, 0, -5, 2.5, float("inf"), "9", True])
def test_a_limit_that_is_none(tmp_path, max_frames):
    message = "max_frames=.* is not an integer of at least 2; .* None for no limit"
    with pytest.raises(AudioError, match=message):
        load_track(save(tmp_path, "sound.wav", WAV), max_frames=max_frames)


def test_a_limit_too_low_for_what_is_asked(tmp_path):
    path = save(tmp_path, "sound.wav", encode(SOUND, 8_000))
    assert load_track([path, path], max_frames=4).shape == (4,)
    message = "sound.wav': has room for .* its share of max_frames; give a larger"
    with pytest.raises(AudioError, match=message):
        load_track([path, path], max_frames=3)
    with pytest.raises(AudioError, match=message):
        load_track(path, sample_rate=16_000, max_frames=3)


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
    remedy = rf"{missing}; pip install 'sounddrop-jax\[audio\]'"
    for source in (path, tmp_path, [path], io.BytesIO(WAV)):
        with pytest.raises(ImportError, match=remedy) as caught:
            load_track(source, sample_rate=22_050)
        assert "\n" not in str(caught.value)


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
    "text.au": (TEXT, UNDECODABLE),
    "text.vox": (TEXT, UNDECODABLE),
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


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_one_line_with_the_file(tmp_path, name, alone):
    content, message = FAULTS[name]
    path = save(tmp_path, name, content)
    good = save(tmp_path, "good.wav", WAV)
    with pytest.raises(AudioError, match=message) as caught:
        load_track(path if alone else [good, path, good])
    assert str(caught.value).startswith(repr(str(path)))
    assert "; " in str(caught.value)  # then the remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_channel_without_sound_is_named(tmp_path, value):
    samples = np.stack([SOUND, np.full(SOUND.shape, value), SOUND], axis=1)
    path = save(tmp_path, "dead.wav", encode(samples, subtype="FLOAT"))
    assert_is_track(load_track(path))
    message = "dead.wav': is silent or constant in channel 1; .* or mono=True"
    with pytest.raises(AudioError, match=message):
        load_track(path, mono=False)
    # Silent only in their sum.
    path = save(tmp_path, "out-of-phase.wav", FAULTS["silent-in-sum.wav"][0])
    assert_is_track(load_track(path, mono=False), 2)


def test_a_channel_with_nothing_left_after_resampling_is_named(tmp_path):
    path = save(tmp_path, "short.wav", encode(np.array([[0.1, 0.2], [-0.1, 0.3]])))
    with pytest.raises(AudioError, match="nothing left at .* in channel 0; choose"):
        load_track(path, sample_rate=8_000, mono=False)


def test_missing_file(tmp_path):
    with pytest.raises(AudioError, match="no such file; check the path"):
        load_track(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="cannot be opened .* check the path"):
        load_track(save(tmp_path, "file.wav", WAV) / "beneath.wav")
    with pytest.raises(AudioError, match="cannot be opened .* check the path"):
        load_track("null\0byte.wav")


def test_no_recordings(tmp_path):
    for name in (None, "notes.txt", ".hidden.wav", "x.raw"):
        if name is not None:
            save(tmp_path, name, WAV)
        with pytest.raises(
            AudioError, match="is a folder without recordings; name"
        ) as e:
            load_track(tmp_path)
        assert str(e.value).startswith(repr(str(tmp_path)))
    for source in ([], ()):
        with pytest.raises(AudioError, match="sequence of recordings is empty; name"):
            load_track(source)


def test_one_bad_file_in_a_folder_is_named(tmp_path):
    save(tmp_path, "a.wav", WAV)
    bad = save(tmp_path, "b.mp3", TEXT)
    with pytest.raises(AudioError, match=UNDECODABLE) as caught:
        load_track(tmp_path)
    assert str(caught.value).startswith(repr(str(bad)))


def test_a_folder_in_a_sequence(tmp_path):
    with pytest.raises(AudioError, match="is a folder in a sequence of files; name"):
        load_track([save(tmp_path, "a.wav", WAV), tmp_path])


@pytest.mark.skipif(os.name == "nt", reason="links need privileges on Windows")
def test_a_broken_link_in_a_folder_is_not_skipped(tmp_path):
    save(tmp_path, "a.wav", WAV)
    (tmp_path / "b.wav").symlink_to(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="b.wav': no such file; check the path"):
        load_track(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="is a pipe or a device; copy it"):
        load_track(tmp_path / "pipe.wav")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("is_folder", [False, True])
def test_unreadable_file_or_folder(is_folder):
    # Not in tmp_path, where only its owner comes as far as a folder.
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder), "secret.wav", WAV)
        path = path.parent if is_folder else path
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # root may read anything, so act as somebody else
            os.seteuid(65_534)
        try:
            message = "you may not (read it|list its files); change its permissions"
            with pytest.raises(AudioError, match=message):
                load_track(path)
        finally:
            os.seteuid(user)
            path.chmod(0o700)


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
    honest = load_track(save(tmp_path, "honest.wav", WAV), max_frames=1_000)
    hostile = load_track(tmp_path / "hostile.wav", max_frames=1_000)
    np.testing.assert_array_equal(hostile, honest)


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


# Lengths that are unknown or wrong


def put(content: bytes, place: int, form: str, value: int) -> bytes:
    """The content with a number of a header changed."""
    changed = bytearray(content)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


def unknown_length(flac: bytes) -> bytes:
    """What an encoder writes to a pipe: no count of frames, nor a checksum of them."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4 + 16) + flac[42:]


def without_xing(mp3: bytes) -> bytes:
    """All frames but the first, which holds the Xing or Info header and no sound."""
    assert b"Xing" in mp3[:40] or b"Info" in mp3[:40]
    return mp3[mp3.index(mp3[:2], 4) :]


@pytest.mark.parametrize("num_frames", [2, 8_000, 2**16, 2**16 + 1, 150_000])
def test_a_flac_of_unknown_length_is_read_whole(tmp_path, num_frames):
    content = encode(0.1 * make_track("white", num_frames=num_frames), format="FLAC")
    known = save(tmp_path, "known.flac", content)
    unknown = save(tmp_path, "unknown.flac", unknown_length(content))
    assert soundfile.info(unknown).frames > 2**60
    track = load_track(unknown)
    assert track.shape == (num_frames,)
    np.testing.assert_array_equal(track, load_track(known))
    thinned = load_track(unknown, max_frames=1_000)
    np.testing.assert_array_equal(thinned, load_track(known, max_frames=1_000))


GOES_ON = r"goes on after the \d+ frames that libsndfile counts; "


@pytest.mark.parametrize("num_frames", [2, 100, 8_000, 100_000])
@pytest.mark.parametrize(
    ("format", "subtype", "remedy"),
    [
        ("OGG", "VORBIS", "re-encode it: ffmpeg -i in.ogg out.wav"),
        ("OGG", "OPUS", "re-encode it: ffmpeg -i in.ogg out.wav"),
        ("FLAC", "PCM_16", "give the files that it was joined from"),
    ],
)
def test_a_stream_behind_another_is_refused(
    tmp_path, format, subtype, remedy, num_frames
):
    long = 0.1 * make_track("white", num_frames=100_000)
    first = encode(long, 48_000, format, subtype)
    second = encode(long[:num_frames], 48_000, format, subtype)
    for content in (first + second, second + first):
        path = save(tmp_path, "joined", content)
        with pytest.raises(AudioError, match=f"joined': {GOES_ON}{remedy}"):
            load_track(path)
    # FLAC's remedy works for all.
    parts = [save(tmp_path, "a", first), save(tmp_path, "b", second)]
    if num_frames >= 8_000:
        assert len(load_track(parts)) == 100_000 + num_frames


def test_a_stream_is_found_once_wherever_a_block_ends(tmp_path):
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
        with pytest.raises(AudioError, match=GOES_ON):
            load_track(save(tmp_path, "joined.flac", joined))

        tagged = tag(place - 10) + FLAC
        assert tagged.rindex(b"fLaC") == place
        assert load_track(save(tmp_path, "tagged.flac", tagged)).shape == SOUND.shape


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_joined_mp3s_with_headers_are_refused(tmp_path, mode):
    content = encode(SOUND, format="MP3", bitrate_mode=mode, compression_level=0.5)
    assert load_track(save(tmp_path, "one.mp3", content)).shape == SOUND.shape
    tag = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
    for between in (b"", tag, b"TAG" + bytes(125) + tag):
        path = save(tmp_path, "joined.mp3", tag + content + between + content)
        remedy = "re-encode it: ffmpeg -i in.mp3 out.wav"
        with pytest.raises(AudioError, match=f"joined.mp3': {GOES_ON}{remedy}"):
            load_track(path)


def test_joined_mp3s_of_a_constant_rate_without_headers_are_read_whole(tmp_path):
    contents = []
    for sound in (SWEEP, SWEEP[::-1]):
        constant = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
        contents.append(without_xing(encode(sound, format="MP3", **constant)))
    parts = [soundfile.read(io.BytesIO(content))[0] for content in contents]
    track = load_track(save(tmp_path, "joined.mp3", contents[0] + contents[1]))
    expected = standardized(np.concatenate(parts))
    assert track.shape == expected.shape
    # A frame of an MP3 is decoded with what it borrows of those before it.
    seam = slice(len(parts[0]) - 1_152, len(parts[0]) + 2 * 1_152)
    track[seam] = expected[seam]
    np.testing.assert_allclose(track, expected, rtol=0, atol=0.01)


def test_an_mp3_of_a_variable_rate_without_a_header_is_not_cut(tmp_path):
    content = encode(0.3 * make_track("white", num_frames=40_000), format="MP3")
    path = save(tmp_path, "variable.mp3", without_xing(content))
    # Its length is an estimate from the size of the first frame.
    assert soundfile.info(path).frames < 35_000
    with pytest.raises(AudioError, match=f"{GOES_ON}re-encode it: ffmpeg"):
        load_track(path)


def test_a_xing_header_is_not_believed(tmp_path):
    place = MP3.index(b"Xing") + 8
    count = int.from_bytes(MP3[place : place + 4], "big")
    for lost in (count // 2, 4):
        few = save(tmp_path, "few.mp3", put(MP3, place, ">I", count - lost))
        with pytest.raises(AudioError, match=f"{GOES_ON}re-encode it: ffmpeg"):
            load_track(few)
    many = load_track(save(tmp_path, "many.mp3", put(MP3, place, ">I", 2 * count)))
    assert SOUND.size <= many.size <= SOUND.size + 3 * 1_152
    whole = load_track(save(tmp_path, "whole.mp3", MP3))
    assert np.mean(standardized(many[: SOUND.size]) * whole) > 0.99


@pytest.mark.parametrize("lost", [5_000, 50_000])
def test_a_count_of_a_flac_is_not_believed(tmp_path, lost):
    content = encode(0.1 * make_track("white", num_frames=100_000), format="FLAC")
    path = save(tmp_path, "few.flac", put(content, 22, ">I", 100_000 - lost))
    with pytest.raises(AudioError, match=GOES_ON):
        load_track(path)


AIFF, AU, W64, RF64 = (
    encode(SOUND, format=format) for format in ("AIFF", "AU", "W64", "RF64")
)
SIZES = {  # the file, and where and how it says how long its samples are
    "WAV": (WAV, WAV.index(b"data") + 4, "<I"),
    "RF64": (RF64, RF64.index(b"ds64") + 16, "<Q"),
    "W64": (W64, W64.index(b"data") + 16, "<Q"),
    "AIFF": (AIFF, AIFF.index(b"SSND") + 4, ">I"),
    "AU": (AU, 8, ">I"),
}


@pytest.mark.parametrize(
    ("format", "size"),
    [
        # What ffmpeg, SoX and others write to pipes.
        *[("WAV", size) for size in (2**32 - 1, 2**32 - 2, 2**31 - 1, 0x7FFFF000)],
        *[("W64", size) for size in (0, 24, 1_000, 2**63 - 1, 2**64 - 1)],
        *[("RF64", size) for size in (2**32 - 1, 2**63 - 1)],
        *[("AIFF", size) for size in (0, 2**31 - 1, 2**31, 2**32 - 1)],
        ("AU", 2**32 - 1),
    ],
)
def test_samples_of_unknown_length_are_read_to_the_end(tmp_path, format, size):
    content, place, form = SIZES[format]
    path = save(tmp_path, "pipe", put(content, place, form, size))
    np.testing.assert_array_equal(
        load_track(path), load_track(save(tmp_path, "file", content))
    )


@pytest.mark.parametrize("riff_size", [0, 8, 36, 1_000, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("size", [None, 2**32 - 1])
def test_the_size_of_a_riff_does_not_matter(tmp_path, riff_size, size):
    content = put(WAV, 4, "<I", riff_size)
    if size is not None:
        content = put(content, 40, "<I", size)
    track = load_track(save(tmp_path, "pipe.wav", content))
    np.testing.assert_array_equal(track, load_track(save(tmp_path, "file.wav", WAV)))


@pytest.mark.parametrize(
    ("format", "size"),
    [
        *[("WAV", size) for size in (0, 2, 1_000)],
        *[("RF64", size) for size in (0, 1_000)],
        *[("AIFF", size) for size in (8, 1_008)],
        *[("AU", size) for size in (0, 1_000, 2**31 - 1)],
    ],
)
def test_samples_after_the_promised_length_are_not_dropped(tmp_path, format, size):
    content, place, form = SIZES[format]
    path = save(tmp_path, "short.wav", put(content, place, form, size))
    remedy = "write it anew: sox --ignore-length in.wav out.wav"
    with pytest.raises(AudioError, match=f"short.wav': {GOES_ON}{remedy}"):
        load_track(path)


def test_a_wav_behind_another_is_refused(tmp_path):
    with pytest.raises(AudioError, match=f"{UNDECODABLE}|{GOES_ON}"):
        load_track(save(tmp_path, "joined.wav", WAV + WAV))


def chunk(name: bytes, size: int, form: str) -> bytes:
    return name + struct.pack(form, size) + bytes(size + size % 2)


@pytest.mark.parametrize(
    ("format", "subtype", "after"),
    [
        ("WAV", "PCM_16", chunk(b"LIST", 5_000, "<I")),
        ("WAV", "PCM_16", chunk(b"id3 ", 200_001, "<I") + chunk(b"cue ", 280, "<I")),
        ("WAV", "PCM_24", chunk(b"LIST", 5_001, "<I")),  # both odd, and padded
        ("WAV", "FLOAT", chunk(b"LIST", 500, "<I") + b"TAG" + bytes(125)),
        ("RF64", "PCM_16", chunk(b"LIST", 5_000, "<I")),
        ("AIFF", "PCM_16", chunk(b"ID3 ", 5_000, ">I") + chunk(b"ANNO", 7, ">I")),
        ("AU", "PCM_16", b"TAG" + bytes(125)),
        ("FLAC", "PCM_16", b"TAG" + bytes(125)),
        ("OGG", "VORBIS", b"TAG" + bytes(125)),
        ("MP3", "MPEG_LAYER_III", b"TAG" + bytes(125)),
        ("MP3", "MPEG_LAYER_III", b"APETAGEX" + bytes(300) + b"TAG" + bytes(125)),
    ],
)
def test_what_is_no_sound_may_follow_it(tmp_path, format, subtype, after):
    content = encode(SOUND[:7_999], format=format, subtype=subtype)
    path = save(tmp_path, "tagged", content + after)
    plain = load_track(save(tmp_path, "plain", content))
    np.testing.assert_array_equal(load_track(path), plain)


@pytest.mark.parametrize(
    "after",
    [chunk(b"\x01\x02\x03\x04", 500, "<I"), chunk(b"LIST", 500, "<I")[:-1], bytes(500)],
    ids=["no name", "cut short", "silence"],
)
def test_what_is_no_chunk_counts_as_sound(tmp_path, after):
    with pytest.raises(AudioError, match=GOES_ON):
        load_track(save(tmp_path, "sound.wav", WAV + after))


@pytest.mark.parametrize(
    "before",
    [bytes(100), bytes(5_000), b"no sound " * 100],
    ids=["zeros", "many zeros", "text"],
)
def test_what_is_no_sound_may_come_before_an_mp3(tmp_path, before):
    path = save(tmp_path, "dirty.mp3", before + MP3)
    plain = load_track(save(tmp_path, "mp3", MP3))
    np.testing.assert_array_equal(load_track(path), plain)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_track(file), plain)
    # It is found out to be joined all the same.
    with pytest.raises(AudioError, match=GOES_ON):
        load_track(save(tmp_path, "joined.mp3", before + MP3 + MP3))


# File objects


class Stream:
    """The least of a file: it gives bytes, and can neither seek nor tell its name."""

    def __init__(self, content: bytes):
        self.read = io.BytesIO(content).read


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_file_objects_are_read_as_files_are(tmp_path, format):
    content = encode(SOUND, format=format)
    path = save(tmp_path, "sound", content)
    expected = load_track(path)
    behind = io.BytesIO(b"read before " + content)
    behind.seek(len(b"read before "))
    with path.open("rb") as file, gzip.open(tmp_path / "sound.gz", "wb") as packed:
        packed.write(content)
        for source in (io.BytesIO(content), file, Stream(content), behind):
            np.testing.assert_array_equal(load_track(source), expected)
        assert not file.closed
    with gzip.open(tmp_path / "sound.gz") as packed, tempfile.TemporaryFile() as copy:
        copy.write(content)
        copy.seek(0)
        np.testing.assert_array_equal(load_track(packed), expected)
        np.testing.assert_array_equal(load_track(copy), expected)


def test_file_objects_and_files_are_joined_in_order(tmp_path):
    short = encode(SOUND[:100])
    path = save(tmp_path, "long.wav", WAV)
    joined = load_track([io.BytesIO(short), path, Stream(short)])
    expected = [load_track(io.BytesIO(short)), load_track(path)]
    np.testing.assert_array_equal(joined, np.concatenate([*expected, expected[0]]))


def test_a_fault_of_a_file_object_is_named_in_one_line(tmp_path):
    path = save(tmp_path, "sound.wav", WAV)
    empty = io.BytesIO(WAV)
    empty.read()
    with path.open("rb") as closed:
        pass
    with path.open(encoding="utf-8") as text, (tmp_path / "new").open("wb") as new:
        for source, message in (
            (empty, "'BytesIO': cannot be read .nothing is left to read.; open it"),
            (closed, "sound.wav': cannot be read .*closed file.*; open it with 'rb'"),
            (text, "sound.wav': cannot be read .*; open it with 'rb', at its start"),
            (new, "new': cannot be read .*; open it with 'rb', at its start"),
            (io.StringIO("text"), "'StringIO': cannot be read .*; open it with 'rb'"),
            (io.BytesIO(TEXT), "'BytesIO': is not audio .*; convert it"),
            (io.BytesIO(WAV[:44]), "'BytesIO': holds a header but no frames"),
            (io.BytesIO(OGG + OGG), f"'BytesIO': {GOES_ON}"),
        ):
            with pytest.raises(AudioError, match=message) as caught:
                load_track(source)
            assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match="'BytesIO': has another number of channels"):
        stereo = encode(np.stack([SOUND, SOUND], axis=1))
        load_track([path, io.BytesIO(stereo)], mono=False)


def test_an_error_of_a_file_object_comes_through():
    class Broken:
        def read(self, size):
            raise ConnectionResetError("the server hung up")

    with pytest.raises(ConnectionResetError, match="hung up"):
        load_track(Broken())


@pytest.mark.parametrize(
    "source", [3, None, True, 1.5, np.zeros((300, 2)), [1], [None, "a.wav"], [[]]]
)
def test_what_is_no_source_is_told_in_one_line(source):
    message = "a recording is a path or an open binary file, not .*; give one, or a seq"
    with pytest.raises(AudioError, match=message) as caught:
        load_track(source)
    assert "\n" not in str(caught.value)


def test_paths_of_every_kind(tmp_path):
    class Named:
        def __fspath__(self):
            return os.fsencode(path)

    path = save(tmp_path, "sound.wav", WAV)
    expected = load_track(path)
    for source in (path, str(path), os.fsencode(path), Named(), np.str_(path)):
        np.testing.assert_array_equal(load_track(source), expected)
        for several in ([source], (source,), {source}, iter([source])):
            np.testing.assert_array_equal(load_track(several), expected)
    twice = load_track(each for each in (path, Named()))
    np.testing.assert_array_equal(twice, np.concatenate([expected, expected]))
    with pytest.raises(AudioError, match="sequence of recordings is empty"):
        load_track(each for each in ())


# Integers


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.int16, np.uint16])
def test_numpy_integers_are_integers(tmp_path, kind):
    path = save(tmp_path, "sound.wav", encode(SOUND, 8_000))
    for arguments in ({"sample_rate": 4_000}, {"max_frames": 1_000}):
        given = {name: kind(value) for name, value in arguments.items()}
        np.testing.assert_array_equal(
            load_track(path, **given), load_track(path, **arguments)
        )
    for name in TRACKS:
        arguments = {"num_frames": 20_000, "sample_rate": 8_000, "seed": 7}
        given = {name: kind(value) for name, value in arguments.items()}
        track = make_track(name, **arguments)
        np.testing.assert_array_equal(make_track(name, **given), track)
    for surrogate in (randomize_phases, shuffle_samples):
        np.testing.assert_array_equal(
            surrogate(track, seed=kind(7)), surrogate(track, seed=7)
        )


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, -1, None, "7", [7]])
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
