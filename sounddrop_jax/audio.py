"""Recordings, read as tracks: see `tracks` for what these are.

`load_track` returns a track with zero mean and unit standard deviation over its whole
length, channel by channel. librosa and soundfile are imported when a function needs
them, so the package imports without either.
"""

import importlib
import math
import os
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from sounddrop_jax.tracks import _is_integer, _standardize

_Source = str | os.PathLike[str] | BinaryIO
_Recording = str | BinaryIO

_BLOCK_FRAMES = 2**16  # decoded at a time, and what thinning keeps or drops
_BLOCK_SAMPLES = 2**20  # the same, at most, over all channels: 4 MiB
_MIN_BLOCKS = 16  # in max_frames, so that at least half as many are left by thinning
_MAX_FRAMES_PER_BYTE = 10_000  # digital silence in FLAC, the densest, needs 6,000
_MAX_RATE_RATIO = 256  # 750 Hz to 192 kHz; more is a broken header
_CONVERT = "convert it to WAV, FLAC, OGG or MP3"
# What may follow the sound: padding or an ID3v1 tag, in an MP3 also frames of silence
# and a short APE tag, in a cut Ogg most of a page.
_MAX_BYTES_LEFT = {"MP3": 2**11, "OGG": 2**16}
_MAX_MPEG_FRAMES_LEFT = 3  # the longest silence that a LAME header can tell of
# Name and size, at the head of the chunks that may follow the sound.
_CHUNK_HEADS = {"WAV": "<4sI", "WAVEX": "<4sI", "RF64": "<4sI", "AIFF": ">4sI"}
# The 8 bytes that a stream begins with: libsndfile reads the first stream alone.
_STREAM_HEADS = {
    "FLAC": rb"fLaC[\x00\x80]\x00\x00\x22",
    "OGG": rb"OggS\x00[\x02\x06]\x00\x00",
}
_MENDING = {
    "FLAC": "give the files that it was joined from",  # ffmpeg would lose samples
    "OGG": "re-encode it: ffmpeg -i in.ogg out.wav",
    "MP3": "re-encode it: ffmpeg -i in.mp3 out.wav",
}
# What libsndfile reads under another suffix than the name of the format.
_MORE_SUFFIXES = {"aif", "aifc", "mp3", "oga", "opus", "snd"}


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
    source: _Source | Iterable[_Source],
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

    A recording is read to its end or refused, whatever its header says. Files of
    unknown length, as programs write them to pipes, are read where libsndfile goes by
    the end of the file: FLAC, MP3 of a constant bit rate, and most WAV, AIFF, AU and
    W64. Where it stops before, the file is refused: Ogg and FLAC streams one after the
    other in one file, MP3s joined behind a Xing header or of a variable bit rate
    without one, and sound after the length that a WAV promises. What may follow the
    sound are chunks (WAV, AIFF) and short tags (128 bytes; MP3: 2 KiB, longer ones are
    refused). A false count is not noticed if it leaves out 128 bytes or less, three
    frames of an MP3, the last 8 KiB of a FLAC or a page of an Ogg.

    Several recordings are normalised one by one and joined end to end, whatever their
    lengths and rates. A folder stands for its recordings in the order of their names:
    the files with a suffix of libsndfile's formats, hidden files and folders within it
    left out.

    Of a recording longer than `max_frames`, stretches that lie evenly over its whole
    length are kept: every second, or 4th, or 8th and so on, until they fit. Each is
    65,536 frames, or a 16th of `max_frames` if that is less (less again above 16
    channels). They are joined end to end, so the waveform jumps from one to the next.
    What is left out is decoded and checked too. Several recordings share `max_frames`
    equally, and what one leaves of its share goes to the larger files; file objects
    count as the largest.

    Files are decoded in blocks, so memory peaks at two to three times the float32 track
    (as recorded or as resampled, whichever is longer), however long the recordings are.

    Args:
        source: the path of a file or of a folder; a file object that gives bytes, read
            from where it stands to its end (a copy on the disk, so it need not seek);
            or several of either, without folders.
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
            than two frames, longer than libsndfile reads it, silent or constant in what
            is kept of a channel, or holds NaN or infinity; a folder holds no
            recordings, or the sequence is empty; what is given is neither a path nor a
            file object in binary mode; the channels are kept and their number differs
            between files; `sample_rate` is not a positive integer within a factor of
            256 of the recording's own; or `max_frames` is not an integer of at least 2
            for each recording.
        ImportError: soundfile, or librosa when resampling, is not installed.

    Example:
        >>> import io, os, soundfile, tempfile
        >>> from sounddrop_jax.tracks import make_track
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "rain.wav")
        ...     rain = make_track("rain", num_frames=44_100).reshape(-1, 2)
        ...     soundfile.write(path, rain, 44_100, subtype="FLOAT")
        ...     track = load_track(path)
        ...     at_half_rate = load_track(path, sample_rate=22_050)
        ...     stereo_twice = load_track([path, path], mono=False)
        ...     thinned = load_track(folder, max_frames=16_000)
        ...     with open(path, "rb") as file:
        ...         from_memory = load_track(io.BytesIO(file.read()))
        >>> bool((from_memory == track).all())
        True
        >>> track.shape, at_half_rate.shape, track.dtype
        ((22050,), (11025,), dtype('float32'))
        >>> stereo_twice.shape, thinned.shape
        ((44100, 2), (11050,))
    """
    if sample_rate is not None:
        if not _is_integer(sample_rate, least=1):
            raise AudioError(
                f"sample_rate={sample_rate!r} is not a positive integer in Hz"
            )
        sample_rate = int(sample_rate)  # NumPy's would overflow
    if max_frames is not None and not _is_integer(max_frames, least=2):
        raise AudioError(
            f"max_frames={max_frames!r} is not an integer of at least 2; "
            "give one, or None for no limit"
        )
    recordings = _find_recordings(source)
    # How large a file object is turns out when it is read, after the files.
    sizes = [
        _measure(recording) if isinstance(recording, str) else math.inf
        for recording in recordings
    ]

    tracks: dict[int, np.ndarray] = {}
    frames_left = math.inf if max_frames is None else int(max_frames)
    # Small files first: only what they leave is known when the larger ones are read.
    for index in sorted(range(len(recordings)), key=sizes.__getitem__):
        share = frames_left / (len(recordings) - len(tracks))
        track = _load_recording(recordings[index], sample_rate, mono, share)
        tracks[index] = track
        frames_left -= len(track)
        first = next(iter(tracks))
        if track.shape[1:] != tracks[first].shape[1:]:
            raise _fault(
                recordings[index],
                f"has another number of channels ({track.shape[1]}) than "
                f"{_name(recordings[first])!r} ({tracks[first].shape[1]}); "
                "mix them with mono=True",
            )
    return np.concatenate([tracks[index] for index in range(len(recordings))])


def _name(recording: _Recording) -> str:
    if isinstance(recording, str):
        return recording
    name = getattr(recording, "name", None)  # a temporary file's is a number
    return name if isinstance(name, str) else type(recording).__name__


def _fault(recording: _Recording, fault: str) -> AudioError:
    # repr keeps the message on one line and printable, whatever the file is called.
    return AudioError(f"{_name(recording)!r}: {fault}")


def _check_source(source: Any) -> _Recording:
    if isinstance(source, str | bytes | os.PathLike):
        return os.fsdecode(source)
    if hasattr(source, "read"):
        return source
    raise AudioError(
        f"a recording is a path or an open binary file, not {type(source).__name__}; "
        "give one, or a sequence of them"
    )


def _find_recordings(source: _Source | Iterable[_Source]) -> list[_Recording]:
    """Returns the paths and file objects that the source stands for, at least one."""
    if not isinstance(source, str | bytes | os.PathLike):
        is_one = hasattr(source, "read") or not isinstance(source, Iterable)
        recordings = [_check_source(each) for each in ([source] if is_one else source)]
        if not recordings:
            raise AudioError("the sequence of recordings is empty; name at least one")
        return recordings

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
    return [*found]


def _open_file(recording: _Recording) -> BinaryIO:
    """Opens a file, or a copy of a file object, or says why that cannot be."""
    if not isinstance(recording, str):
        with tempfile.TemporaryFile() as copy:
            try:
                shutil.copyfileobj(recording, copy)
                if copy.tell() == 0:
                    raise ValueError("nothing is left to read")
            except (TypeError, ValueError) as error:
                raise _fault(
                    recording,
                    f"cannot be read ({error}); open it with 'rb', at its start",
                ) from error
            copy.seek(0)
            return open(os.dup(copy.fileno()), "rb", buffering=0)

    try:
        # Asked before opening: to open a named pipe is to wait for its writer.
        status = os.stat(recording)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            # Without a buffer, so that it stands where libsndfile does.
            return open(recording, "rb", buffering=0)
    except FileNotFoundError:
        raise _fault(recording, "no such file; check the path") from None
    except PermissionError:
        raise _fault(recording, "you may not read it; change its permissions") from None
    except (OSError, ValueError) as error:
        raise _fault(
            recording, f"cannot be opened ({error}); check the path"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        fault = "is a folder in a sequence of files; name the files in it"
    elif stat.S_ISREG(status.st_mode):
        fault = "is empty (0 bytes); fetch or export it again"
    else:
        fault = "is a pipe or a device; copy it to a file first"
    raise _fault(recording, fault)


def _measure(path: str) -> int:
    """Returns the file's size in bytes, or says why it cannot be read."""
    with _open_file(path) as file:
        return os.fstat(file.fileno()).st_size


def _open_sound(path: str, file: BinaryIO) -> Any:
    """Opens a `soundfile.SoundFile`, or says why the file is not one."""
    soundfile = _require("soundfile")
    if path.lower().endswith(".raw"):
        raise _fault(
            path, f"is named .raw, so samples without a header; rename or {_CONVERT}"
        )
    starts = [0]
    # libsndfile knows MPEG by its first bytes, but reads it with anything before it.
    if path.lower().endswith(".mp3"):
        head = re.search(rb"\xff[\xe2-\xfb]", file.read(2**16))
        starts += [head.start()] if head else []
    for start in starts:
        file.seek(start)
        try:
            # A descriptor of its own, since some versions close what they cannot read;
            # on Windows it may not know Python's at all.
            sound = soundfile.SoundFile(
                file if os.name == "nt" else os.dup(file.fileno())
            )
        except soundfile.LibsndfileError as error:
            cause = error
        else:
            # As a stream: soundfile would seek after every block, which fails at the
            # end of a FLAC of unknown length.
            sound.seekable = lambda: False
            return sound
    # Its own words stay in the cause.
    raise _fault(
        path, f"is not audio libsndfile can decode, or is damaged; {_CONVERT}"
    ) from cause


def _load_recording(
    recording: _Recording, sample_rate: int | None, mono: bool, max_frames: float
) -> np.ndarray:
    """Returns one recording, normalised, of at most `max_frames`."""
    path = _name(recording)
    with _open_file(recording) as file, _open_sound(path, file) as sound:
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
        track = _read(path, file, sound, mono, max_frames)

    # Once before resampling too: it turns a constant into ripples at both ends, and
    # overflows on samples near the end of float32's range.
    _standardize_channels(
        track, path, "is silent or constant", "give a recording that varies"
    )
    if sample_rate == own_rate:
        return track

    num_frames = -(-len(track) * sample_rate // own_rate)
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
    path: str, file: BinaryIO, sound: Any, mono: bool, max_frames: float
) -> np.ndarray:
    """Returns the recording as float32, thinned to `max_frames`, not normalised."""
    soundfile = _require("soundfile")
    num_bytes = os.fstat(file.fileno()).st_size
    blocks: list[np.ndarray] = []
    num_blocks = num_frames = num_kept = 0
    stride = 1  # of the blocks that are kept
    most = _BLOCK_SAMPLES // sound.channels
    block_frames = max(1, int(min(_BLOCK_FRAMES, most, max_frames / _MIN_BLOCKS)))
    # As many as decode: libsndfile's count of frames may be anything.
    while True:
        # No more than it counts: it would drop the others, and stand behind them.
        size = min(block_frames, sound.frames - num_frames)
        try:
            block = sound.read(size, dtype="float32", always_2d=True)
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

    if _goes_on(file, sound):
        mending = _MENDING.get(
            sound.format, "write it anew: sox --ignore-length in.wav out.wav"
        )
        raise _fault(
            path,
            f"goes on after the {num_frames} frames that libsndfile counts; {mending}",
        )
    if num_frames < 2:
        count = "a single frame" if num_frames else "a header but no frames"
        raise _fault(path, f"holds {count}; give a recording of 2 frames or more")
    return np.concatenate(blocks)


def _goes_on(file: BinaryIO, sound: Any) -> bool:
    """Whether sound follows what libsndfile has read, as far as can be told."""
    num_bytes = os.fstat(file.fileno()).st_size
    place = file.tell()
    if sound.format in _CHUNK_HEADS:
        file.seek(place + place % 2)
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack(_CHUNK_HEADS[sound.format], head)
            end = file.tell() + size
            if not re.fullmatch(rb"[ -~]{4}", name) or end > num_bytes:
                break
            place = end
            file.seek(place + place % 2)

    if num_bytes - place > _MAX_BYTES_LEFT.get(sound.format, 128):
        return True
    if sound.format == "MP3":
        file.seek(place)
        left = file.read()  # from where a frame begins, if there is one
        return left.count(left[:2]) > _MAX_MPEG_FRAMES_LEFT
    if sound.format not in _STREAM_HEADS:
        return False
    file.seek(0)
    num_streams, overlap = 0, b""
    while block := file.read(2**20):
        block = overlap + block
        num_streams += len(re.findall(_STREAM_HEADS[sound.format], block))
        overlap = block[-7:]
    return num_streams > 1


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: soundfile without libsndfile
        raise ImportError(
            f"reading recordings needs {module}; pip install 'sounddrop-jax[audio]'"
        ) from error


def _standardize_channels(
    track: np.ndarray, path: str, fault: str, remedy: str
) -> None:
    """Gives every channel zero mean and unit std in place, or says which has none."""
    for channel, samples in enumerate(np.atleast_2d(track.T)):
        if not _standardize(samples):
            if track.ndim == 1:
                raise _fault(path, f"{fault} in the mean of its channels; {remedy}")
            raise _fault(path, f"{fault} in channel {channel}; {remedy}, or mono=True")
