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
QUICK = {"plans": 150, "logits": 150, "flags": 150, "stores": 40, "datasets": 60}
QUICK |= {"decoded": 40}
INPUTS = int(os.environ.get("FUZZ_INPUTS", "400"))


def test_damaged_recordings_are_loaded_or_refused():
    counts, findings = fuzz_audio.fuzz(0, INPUTS)
    assert not findings
    # The damage is neither so small nor so great that nothing is tested.
    assert sum(counts.values()) == INPUTS
    assert min(counts.values()) > INPUTS / 10


@pytest.mark.parametrize(("name", "num_inputs"), QUICK.items())
def test_damaged_inputs_are_read_rightly_or_refused(
    name, num_inputs, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # which attacks change
    # Here, as another process would take seconds to start.
    kind = fuzz_inputs.KINDS[name]
    originals = kind.make(tmp_path)
    outcomes = {
        kind.attack(number, originals, tmp_path) for number in range(num_inputs)
    }
    assert outcomes == {"read", "made anew" if name == "decoded" else "refused"}


# The others, of which a second reads between 3 programs and 13 runs, and two again.
IN_TURN = [*3 * ["datasets"], *2 * ["decoded", "checkpoints", "runs"], "programs"]


def make_each(folder):
    for name in IN_TURN:
        (folder / name).mkdir(exist_ok=True)
    return {name: fuzz_inputs.KINDS[name].make(folder / name) for name in set(IN_TURN)}


def attack_in_turn(number, originals, folder) -> str:
    name = IN_TURN[number % len(IN_TURN)]
    attack = fuzz_inputs.KINDS[name].attack
    return f"{name} {attack(number, originals[name], folder / name)}"


@pytest.mark.slow
def test_many_damaged_inputs_are_read_rightly_or_refused():
    good = [f"{each} {what}" for each in IN_TURN for what in fuzz_inputs.OUTCOMES]
    settings = {"load": attack_in_turn, "make_originals": make_each, "good": good}
    counts, findings = fuzz_audio.fuzz(150, 200, seconds=60, **settings)
    assert not findings
    for name in set(IN_TURN):  # neither all of one kind, nor none at all
        seen = [key for key, count in counts.items() if count and name in key]
        assert len(seen) == (1 if name == "programs" else 2), counts


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
