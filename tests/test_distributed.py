"""Processes that share the seeds: the same numbers, one voice, and the same end."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments.cli import UsageError
from experiments.runs import processes
from experiments.training import devices
from sounddrop_jax import ensembles
from tests.programs import ROOT, python, with_xla_flags

pytestmark = pytest.mark.slow  # trains, in other processes too

TIMEOUT = 240  # seconds; some twenty are needed where nobody else computes
FLAGS = ["--reg=dropout", "--dataset=digits", "--epochs=2", "--steps-per-epoch=2"]
FLAGS += ["--batch-size=32", "--seeds=3"]
BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class End(NamedTuple):
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def run_processes(*commands, num_devices: int = 1) -> list[End]:
    """Runs the command once for each list of flags, all of them side by side."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "FORCE_COLOR" and not name.startswith(("SLURM_", "OMPI_"))
    }
    count = f"--xla_force_host_platform_device_count={num_devices}"
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": with_xla_flags(count)}
    if len(commands) > 1:
        values = (f"localhost:{free_port()}", str(len(commands)))
        environment |= dict(zip(BY_HAND, values, strict=False))
        environment["http_proxy"] = "http://localhost:1"  # where nobody answers
    with contextlib.ExitStack() as stack:
        started = []
        for index, flags in enumerate(commands):
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "experiments.cifar", *flags],
                cwd=ROOT,
                env={**environment, BY_HAND[2]: str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # before the context waits for its end
            started.append(process)
        stop = time.monotonic() + TIMEOUT
        ends = []
        for process in started:
            out, err = process.communicate(timeout=stop - time.monotonic())
            ends.append(End(process.returncode, out, err))
    return ends


def read(out: Path) -> tuple[dict, np.ndarray]:
    """The result of a run, and its logits."""
    with np.load(out / "predictions.npz") as saved:
        return json.loads((out / "result.json").read_text()), saved["logits"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def pair(folder) -> list[End]:
    """Two processes, each told another folder, and each with two devices."""
    flags = [*FLAGS, "--distributed"]
    commands = [[*flags, f"--out={folder / name}"] for name in ("two", "mute")]
    ends = run_processes(*commands, num_devices=2)
    assert [end.code for end in ends] == [0, 0], ends
    return ends


# Three seeds in two processes


def test_only_the_first_process_writes_and_prints(folder, pair):
    first, second = pair
    assert (first.err, second.out, second.err) == ("", "", "")
    lines = first.out.splitlines()
    assert lines[0].startswith("dropout on handwritten digits (1,437 images), 3 seeds")
    assert lines[-4].startswith("Precision: ") and lines[-1].startswith("Next, ")
    assert sum(line.startswith("Epoch [") for line in lines) == 2
    assert not (folder / "mute").exists()
    assert len(list((folder / "two").glob("[!.]*"))) == 7


def test_seeds_are_those_of_one_process_bit_for_bit(folder, pair):
    (end,) = run_processes([*FLAGS, f"--out={folder / 'one'}"])
    assert end.code == 0, end.err
    result, logits = read(folder / "two")
    expected, expected_logits = read(folder / "one")
    assert [run["seed"] for run in result["runs"]] == [58, 59, 60]
    assert result["runs"] == expected["runs"]
    assert result["summary"] == expected["summary"]
    np.testing.assert_array_equal(logits, expected_logits)
    environments = result["environment"], expected["environment"]
    assert [each["processes"] for each in environments] == [2, 1]
    assert [each["device"] for each in environments] == ["cpu x4", "cpu x1"]


# Processes that find no others


def test_without_a_cluster_it_ends_with_one_line_and_code_2(folder):
    out = folder / "none"
    (end,) = run_processes([*FLAGS, "--distributed", f"--out={out}"])
    assert (end.code, end.out) == (2, "")
    (line,) = end.err.splitlines()
    assert line.startswith("error: --distributed: ")
    assert "srun" in line and all(name in line for name in BY_HAND)
    assert not out.exists()


@pytest.fixture
def no_joining(monkeypatch):
    """What cannot work is refused before JAX hears of it."""

    def refuse(**kwargs):
        raise AssertionError("JAX was asked to join")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)


def set_by_hand(monkeypatch, *values) -> None:
    for name, value in zip(BY_HAND, values, strict=True):
        monkeypatch.setenv(name, value)


BAD = [
    # address, number of processes, id; how the message starts, a part of the remedy
    (("here:1", "two", "0"), "JAX_NUM_PROCESSES=two: ", "whole number"),
    (("here:1", "2", "-1"), "JAX_PROCESS_ID=-1: ", "whole number"),
    (("here", "2", "0"), "--distributed: JAX_COORDINATOR_ADDRESS=here: ", "HOST:PORT"),
    (("a:99999", "2", "0"), "--distributed: JAX_COORDINATOR_ADDRESS=a:99999: ", "HOST"),
]


@pytest.mark.parametrize(("values", "start", "remedy"), BAD, ids=lambda x: str(x))
def test_what_is_wrong_by_hand_gets_one_line(
    values, start, remedy, monkeypatch, no_joining
):
    set_by_hand(monkeypatch, *values)
    with pytest.raises(UsageError) as error:
        processes.join()
    message = str(error.value)
    assert message.startswith(start) and remedy in message
    assert len(message.splitlines()) == 1


def test_a_port_in_use_is_named(monkeypatch, no_joining):
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        set_by_hand(monkeypatch, address, "2", "0")
        with pytest.raises(UsageError, match=f"{address}: .*choose another port"):
            processes.join()


def test_a_first_process_that_does_not_answer_is_named(monkeypatch, no_joining):
    monkeypatch.setattr(processes, "JOIN_SECONDS", 0.1)
    address = f"localhost:{free_port()}"
    set_by_hand(monkeypatch, address, "2", "1")
    with pytest.raises(UsageError, match=f"{address}: cannot be reached .*process 0"):
        processes.join()


@pytest.fixture
def joined(monkeypatch) -> list[dict]:
    """What JAX was told where it was asked to join, and the environment then."""
    joined = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda **k: joined.append({**os.environ, **k})
    )
    return joined


def test_processes_that_never_join_are_not_waited_for():
    assert processes.JOIN_SECONDS <= 60
    code = "from experiments.runs import processes as p; p.JOIN_SECONDS = 1; p.join()"
    values = (f"localhost:{free_port()}", "2", "0")
    done = python("-c", code, **dict(zip(BY_HAND, values, strict=True)))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --distributed: not all processes joined within 1 s;")


def test_proxies_are_hidden_while_the_processes_join(monkeypatch, joined):
    # gRPC asks them for the first process, and JAX warns of them.
    proxies = {"http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "ALL_PROXY"}
    for name in proxies:
        monkeypatch.setenv(name, "http://localhost:1")
    for name in BY_HAND:
        monkeypatch.delenv(name, raising=False)
    processes.join()
    (found,) = joined
    assert not proxies & found.keys()
    assert proxies <= os.environ.keys()  # for whoever loads data
    # What a launcher knows is left to JAX.
    assert (found["num_processes"], found["process_id"]) == (None, None)


# What they decide together, without the others


@pytest.fixture
def as_second_of_two(monkeypatch):
    """Makes this the second process, to which the first says what the test lets it."""

    def act(first_says, index: int = 1) -> None:
        def exchange(content, num_seeds):
            return np.stack([np.frombuffer(c, np.uint8) for c in (first_says, content)])

        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(processes, "_exchange", exchange)

    return act


def padded(text: str) -> bytes:
    return text.encode().ljust(processes.MESSAGE_BYTES, b"\0")


def test_the_others_leave_without_a_word_with_the_same_code(as_second_of_two):
    as_second_of_two(padded("--out=x: no"))
    with pytest.raises(SystemExit) as exit:
        processes.together(lambda: 1, 3)
    assert exit.value.code == 2


def test_the_first_speaks_for_whoever_failed(as_second_of_two):
    as_second_of_two(padded(""), index=0)

    def fail():
        raise UsageError("--data-dir=x: ä" + "x" * 2000)

    with pytest.raises(UsageError, match="^--data-dir=x: äx+$"):
        processes.together(fail, 3)
    assert processes.together(lambda: 1, 3) == 1


def test_processes_that_differ_are_refused(as_second_of_two, monkeypatch):
    as_second_of_two(padded(""), index=0)
    with pytest.raises(ValueError):  # 32 bytes beside a message: the digests come first
        processes.check_alike({"seeds": 3}, 3)
    monkeypatch.setattr(
        processes,
        "_exchange",
        lambda content, _: (
            np.stack([np.frombuffer(content, np.uint8)] * 2)
            + (np.arange(2, dtype=np.uint8)[:, None] if len(content) == 32 else 0)
        ),
    )
    with pytest.raises(UsageError, match="different flags or datasets; start all"):
        processes.check_alike({"seeds": 3}, 3)


def test_one_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(processes, "_exchange", None)
    assert processes.is_first()
    assert processes.together(lambda: 1, 3) == 1
    processes.check_alike({"seeds": 3}, 3)


@pytest.mark.parametrize(("num_seeds", "count"), [(1, 0), (3, 3), (4, 4), (9, 4)])
def test_one_process_takes_no_more_devices_than_seeds(num_seeds, count, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list(range(4)))
    monkeypatch.setattr(ensembles, "make_mesh", lambda devices: devices)
    assert devices.make_mesh(num_seeds) == (list(range(count)) or None)


@pytest.mark.parametrize(
    ("num_seeds", "counts", "expected"),
    [
        (3, (2, 2), [0, 2]),  # 4 devices would have one seed in vain, and so have 2
        (4, (2, 2), [0, 1, 2, 3]),
        (2, (2, 2), [0, 2]),  # not 0 and 1, which are of the same process
        (16, (1, 3), [0, 1, 2, 3]),  # unlike machines
    ],
)
def test_every_process_brings_as_many_devices_as_share_the_seeds_well(
    num_seeds, counts, expected, monkeypatch
):
    numbers = iter(range(100))
    own = [[next(numbers) for _ in range(count)] for count in counts]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "local_devices", lambda process_index: own[process_index])
    monkeypatch.setattr(ensembles, "make_mesh", lambda devices: devices)
    assert devices.make_mesh(num_seeds) == expected


def test_a_process_that_fails_alone_does_not_wait(monkeypatch, capsys):
    left = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", left.append)
    for error in (SystemExit(130), RuntimeError("no memory")):
        with processes.leave_the_others():
            raise error
    assert left == [130, 1]
    assert re.search("RuntimeError: no memory\n$", capsys.readouterr().err)
    with pytest.raises(SystemExit), processes.leave_the_others():
        raise SystemExit(2)  # as they agreed
