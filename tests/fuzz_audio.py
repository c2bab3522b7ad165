"""Feeds damaged recordings to `audio.load_track`, and counts what comes of them.

    python tests/fuzz_audio.py --inputs=1000

Each is a small recording, some joined from two or of unknown length, with a few bytes
changed, cut out, doubled or cut off, in its header above all. Every third is given as a
file object. A good loader returns a track or raises an AudioError; any
other error, a crash of the decoder, ten seconds without an answer or a gigabyte of
memory is a finding, and its number makes the same file again (--first=N --inputs=1).
"""

import argparse
import io
import math
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

FORMATS = ("wav", "flac", "ogg", "mp3", "opus", "aiff", "au", "w64", "rf64")
JOINED = ("flac", "ogg", "mp3")
KINDS = (*FORMATS, *(f"joined.{suffix}" for suffix in JOINED), "unknown.flac")
SECONDS = 10.0
MEBIBYTES = 1024
# What a header should not hold: a promise of 2^31 frames, or of less than none.
HOSTILE = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def make_input(number: int, originals: dict[str, bytes]) -> tuple[str, bytes]:
    """Makes the damaged file of a number: its extension and its bytes."""
    rng = np.random.default_rng(number)
    suffix = KINDS[number % len(KINDS)]
    content = damage(rng, originals[suffix])
    if rng.random() < 0.1:
        suffix = KINDS[rng.integers(len(KINDS))]  # a wrong extension
    return suffix, content


def damage(rng: np.random.Generator, original: bytes) -> bytes:
    """Changes, doubles or cuts out a few bytes, at the beginning above all."""
    content = bytearray(original)
    for _ in range(rng.integers(1, 8)):
        # Headers are where most of the decisions are made.
        end = min(len(content), 128) if rng.random() < 0.6 else len(content)
        place = int(rng.integers(0, max(end, 1)))
        length = int(rng.geometric(0.05))
        match rng.integers(0, 6):
            case 0:
                content[place : place + 1] = rng.bytes(1)
            case 1:
                value = HOSTILE[rng.integers(len(HOSTILE))]
                content[place : place + 4] = struct.pack(
                    "<I" if rng.random() < 0.5 else ">I", value
                )
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = content[place : place + length]
            case 4:
                content[place : place + length] = rng.bytes(length)
            case 5:
                del content[max(place, 16) :]
    return bytes(content)


def make_originals(folder: Path) -> dict[str, bytes]:
    """Encodes half a second of noise in every format, and joins some."""
    rng = np.random.default_rng(0)
    track = 0.1 * rng.standard_normal((4000, 2))
    originals = {}
    for suffix in FORMATS:
        path = folder / f"original.{suffix}"
        ogg = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
        soundfile.write(path, track, 8000, **ogg)
        originals[suffix] = path.read_bytes()
    for suffix in JOINED:
        originals[f"joined.{suffix}"] = 2 * originals[suffix]
    flac = bytearray(originals["flac"])
    flac[21] &= 0xF0  # the count of frames, with the four bytes that follow
    flac[22:26] = bytes(4)
    originals["unknown.flac"] = bytes(flac)
    return originals


def load(number: int, originals: dict[str, bytes], folder: Path) -> str:
    """Loads the file of a number; returns "track", "refused" or what went wrong."""
    from sounddrop_jax import audio

    suffix, content = make_input(number, originals)
    path = folder / f"damaged.{suffix}"
    path.write_bytes(content)
    try:
        track = audio.load_track(io.BytesIO(content) if number % 3 == 0 else path)
    except audio.AudioError as error:
        return "refused" if "\n" not in str(error) else f"two lines: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not (track.dtype == np.float32 and np.isfinite(track).all() and len(track) > 1):
        return f"track of {track.dtype}, {track.shape}, not finite or too short"
    return "track"


def _work(load, originals, folder, connection) -> None:
    # What a decoder prints is of no interest here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("error")
    while True:
        number = connection.recv()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = load(number, originals, folder)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        connection.send(outcome if grown <= MEBIBYTES else f"took {grown:.0f} MiB")


def fuzz(
    first: int,
    num_inputs: int,
    *,
    load=load,
    make_originals=make_originals,
    good: Sequence[str] = ("track", "refused"),
    seconds: float = SECONDS,
    deadline: float = math.inf,
) -> tuple[dict[str, int], dict[int, str]]:
    """Loads damaged files in a process of their own, restarted where one kills it.

    Args:
        first: number of the first file.
        num_inputs: number of files.
        load: what is done with each.
        make_originals: makes what is damaged, in a folder.
        good: the outcomes that are counted; any other is a finding.
        seconds: after which a file counts as a hang.
        deadline: of `time.monotonic`, after which no more are loaded.

    Returns:
        How many had each outcome; and by number what else happened.
    """
    counts = dict.fromkeys(good, 0)
    findings: dict[int, str] = {}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        originals = make_originals(Path(name))
        process = None
        for number in range(first, first + num_inputs):
            if time.monotonic() > deadline:
                break
            patience = seconds
            if process is None:
                ours, theirs = context.Pipe()
                arguments = (load, originals, Path(name), theirs)
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                theirs.close()
                patience = 120.0  # for the imports
            try:
                ours.send(number)
                outcome = ours.recv() if ours.poll(patience) else "hangs"
            except (EOFError, OSError):
                outcome = "crashes the process"
            if outcome in counts:
                counts[outcome] += 1
                continue
            findings[number] = outcome
            if outcome in ("hangs", "crashes the process"):
                process.kill()
                process = None
        if process is not None:
            process.kill()
    return counts, findings


def main() -> None:
    """Prints the counts and the findings; exit code 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    counts, findings = fuzz(arguments.first, arguments.inputs)
    for number, finding in findings.items():
        print(f"{number}: {finding}")
    print(f"{arguments.inputs} inputs: {counts}, {len(findings)} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
