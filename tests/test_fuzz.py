"""What is damaged is refused or read rightly, a few inputs of each kind.

tests/fuzz_audio.py tries more recordings, tests/fuzz_inputs.py more of all the rest.
"""

import os
import time

import numpy as np
import pytest

from sounddrop_jax import audio
from tests import fuzz_audio, fuzz_inputs

FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))
# How many a second or two reads, once libraries are imported.
KINDS = {"plans": 150, "stores": 40, "datasets": 60, "checkpoints": 60}


def test_damaged_recordings_are_loaded_or_refused():
    num_inputs = INPUTS or 400
    counts, findings = fuzz_audio.fuzz(FIRST, num_inputs)
    assert not findings
    # The damage is neither so small nor so great that nothing is tested.
    assert sum(counts.values()) == num_inputs
    assert min(counts.values()) > num_inputs / 10


@pytest.mark.parametrize("name", KINDS)
def test_damaged_inputs_are_read_rightly_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # which attacks change
    make, attack = fuzz_inputs.KINDS[name]
    originals = make(tmp_path)
    seen = {}
    for number in range(FIRST, FIRST + (INPUTS or KINDS[name])):
        seen.setdefault(attack(number, originals, tmp_path), number)
    assert seen.keys() == {"read", "refused"}, seen


def misbehave(number, originals, folder) -> str:
    if number == 3:
        os.kill(os.getpid(), 9)
    if number == 5:
        time.sleep(60)
    return "an error" if number == 6 else "track"


@pytest.mark.slow
def test_the_fuzzer_finds_crashes_hangs_and_errors_and_goes_on():
    counts, findings = fuzz_audio.fuzz(0, 9, load=misbehave, seconds=1)
    assert counts == {"track": 6, "refused": 0}
    assert findings == {3: "crashes the process", 5: "hangs", 6: "an error"}


@pytest.mark.parametrize(
    "track, finding",
    [
        (lambda path: np.float32(1) / np.zeros(5, np.float32)[0], "RuntimeWarning: "),
        (lambda path: np.full(5, np.nan, np.float32), "track of float32"),
    ],
)
def test_the_fuzzer_tells_a_bad_track(track, finding, tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "load_track", track)
    originals = fuzz_audio.make_originals(tmp_path)
    assert fuzz_audio.load(0, originals, tmp_path).startswith(finding)
