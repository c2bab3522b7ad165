"""Workers: they take turns, fail in one line, and are gone afterwards."""

import dataclasses
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import workers
from experiments.benchmarks.workers import Prepared, WorkerError, start_team
from experiments.cli import UsageError
from experiments.cores import available_cores
from experiments.data import datasets
from tests.programs import python

HERE = "tests.test_workers"


def prepare_counter(fail_after=None):
    """What the workers of these tests do: they count, and say who they are."""
    print("libraries chatter")
    total = 0

    def run(num_steps):
        nonlocal total
        total += num_steps
        if fail_after is not None and total > fail_after:
            raise ValueError(f"{total} is too much\nand more lines")
        return total, 0.5

    about = {"pid": os.getpid(), "modules": sorted(sys.modules)}
    if sys.platform == "linux":
        about["cores"] = sorted(os.sched_getaffinity(0))
    return Prepared(run, 1.5, lambda: 7, about)


def prepare_nothing():
    raise FileNotFoundError("there is nothing\nto prepare")


def prepare_bad_input():
    raise UsageError("JAX_PLATFORMS=x: set another.")


def prepare_the_end():
    os._exit(3)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # of the dead, too, until someone asks for them
    return not (stat.exists() and ") Z " in stat.read_text())


def test_members_do_the_same_and_keep_what_they_hold():
    with start_team(f"{HERE}:prepare_counter", {}, [None, None]) as team:
        assert team.compile_seconds == 1.5
        assert is_running(team.about["pid"])
        assert team.take_turn(2) == [workers.Turn(2, 0.5, 7)] * 2
        assert team.take_turn(3) == [workers.Turn(5, 0.5, 7)] * 2
        # Only what they need is loaded.
        assert not {"jax", "torch"} & set(team.about["modules"])
    assert not is_running(team.about["pid"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not pin")
def test_a_worker_keeps_to_its_cores():
    core = available_cores()[-1]
    with start_team(f"{HERE}:prepare_counter", {}, [[core]]) as team:
        assert team.about["cores"] == [core]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", WorkerError, "FileNotFoundError: there is nothing"),
        ("the_end", WorkerError, "a worker ended, exit code 3"),
        # What a user can help.
        ("bad_input", UsageError, "JAX_PLATFORMS=x: set another."),
    ],
)
def test_a_worker_that_cannot_start_says_why(name, error, message):
    with (
        pytest.raises(error, match=f"^{message}$"),
        start_team(f"{HERE}:prepare_{name}", {}),
    ):
        pass


def test_a_worker_that_fails_in_its_turn_says_why():
    with start_team(f"{HERE}:prepare_counter", {"fail_after": 2}) as team:
        team.take_turn(2)
        with pytest.raises(WorkerError, match="^ValueError: 3 is too much$"):
            team.take_turn(1)
        with pytest.raises(WorkerError, match="^a worker ended, exit code 0$"):
            team.take_turn(1)


def test_a_worker_ends_with_whoever_started_it():
    code = f"""
import os
from experiments.benchmarks.workers import start_team
with start_team("{HERE}:prepare_counter", {{}}) as team:
    print(team.about["pid"], flush=True)
    os._exit(0)
"""
    done = python("-c", code)
    deadline = time.monotonic() + 60
    while is_running(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(int(done.stdout))


def test_a_dataset_comes_back(tmp_path):
    dataset = datasets.load("digits")
    workers.save_dataset(dataset, str(tmp_path))
    loaded = workers.load_dataset(str(tmp_path))
    for field in dataclasses.fields(dataset):
        saved, ours = getattr(dataset, field.name), getattr(loaded, field.name)
        assert type(ours) is type(saved) or isinstance(ours, np.memmap)
        np.testing.assert_array_equal(ours, saved)
