"""What is damaged is refused or read rightly, a few inputs of each kind.

tests/fuzz_audio.py tries more recordings, tests/fuzz_inputs.py more of all the rest.
"""

import os
import time

import numpy as np
import pytest

from sounddrop_jax import audio
from tests import fuzz_audio, fuzz_inputs

# Kinds of input that take a second or less, once libraries are imported.
QUICK = {"plans": 150, "logits": 150, "flags": 150, "stores": 40}
INPUTS = int(os.environ.get("FUZZ_INPUTS", "400"))


def test_damaged_recordings_are_loaded_or_refused():
    counts, findings = fuzz_audio.fuzz(0, INPUTS)
    assert not findings
    # The damage is neither so small nor so great that nothing is tested.
    assert sum(counts.values()) == INPUTS
    assert min(counts.values()) > INPUTS / 10


@pytest.mark.parametrize(("name", "num_inputs"), QUICK.items())
def test_damaged_inputs_are_read_rightly_or_refused(name, num_inputs, tmp_path):
    # Here, as another process would take seconds to start.
    kind = fuzz_inputs.KINDS[name]
    originals = kind.make(tmp_path)
    outcomes = [
        kind.attack(number, originals, tmp_path) for number in range(num_inputs)
    ]
    assert set(outcomes) == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz_inputs.KINDS)
def test_many_damaged_inputs_are_read_rightly_or_refused(name):
    counts, findings = fuzz_inputs.attack(name, 150, 10**9, time.monotonic() + 12)
    assert not findings
    # Neither all of one kind, nor none at all.
    assert sum(counts.values()) > 5
    assert len([count for count in counts.values() if count]) == (
        1 if name == "programs" else 2
    )


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
        (lambda path: np.zeros(5), "track of float64"),
    ],
)
def test_the_fuzzer_tells_a_bad_track(track, finding, tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "load_track", track)
    originals = fuzz_audio.make_originals(tmp_path)
    assert fuzz_audio.load(0, originals, tmp_path).startswith(finding)
