"""Worker processes of a benchmark, which take turns at what they prepared.

Loads neither JAX nor PyTorch: a worker holds no more than what it prepares needs.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data.dataset import Dataset


class WorkerError(Exception):
    """Something that cannot be measured here; one line."""


class Prepared(NamedTuple):
    """What a worker holds once it is ready.

    Attributes:
        run: from a number of steps to how much was done (images, FLOP, bytes) and the
            seconds that it took; at least so many steps, and at least one.
        compile_seconds: what the compilations took.
        peak_bytes: the most memory in use so far.
        about: what else there is to know.
    """

    run: Callable[[int], tuple[float, float]]
    compile_seconds: float
    peak_bytes: Callable[[], int]
    about: dict


class Turn(NamedTuple):
    """What one worker did in one turn, see `Prepared`."""

    amount: float
    seconds: float
    peak_bytes: int


class Team(NamedTuple):
    """Workers that do the same side by side.

    Attributes:
        take_turn: from a number of steps to what each member did.
        compile_seconds: of the member that took longest.
        about: what the first member said.
    """

    take_turn: Callable[[int], list[Turn]]
    compile_seconds: float
    about: dict


@contextlib.contextmanager
def start_team(
    prepare: str, settings: dict, cores: Sequence[Sequence[int] | None] = (None,)
) -> Iterator[Team]:
    """Starts workers, waits until they are ready, and ends them afterwards.

    Args:
        prepare: "module:function"; the function takes the settings and returns a
            `Prepared`. Only workers import the module.
        settings: keyword arguments of the function, as JSON has them.
        cores: for each worker those that it is to keep to, None for any.

    Yields:
        The team.

    Raises:
        WorkerError: if a worker fails, here or in a turn.
        UsageError: if one says that the user can help it.
    """
    members: list[subprocess.Popen] = []
    try:
        for own_cores in cores:
            member = subprocess.Popen(
                [sys.executable, "-m", "experiments.benchmarks.workers"],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # errors are sent, and libraries chatter
                text=True,
                start_new_session=True,  # Ctrl-C is not for them: they end below
            )
            members.append(member)
            _send(member, [prepare, settings, own_cores])
        ready = [_receive(member) for member in members]

        def take_turn(num_steps: int) -> list[Turn]:
            for member in members:  # together, up to some microseconds
                _send(member, num_steps)
            return [Turn(**_receive(member)) for member in members]

        compile_seconds = max(each["compile_seconds"] for each in ready)
        yield Team(take_turn, compile_seconds, ready[0]["about"])
    finally:
        for member in members:
            member.kill()
            with contextlib.suppress(BrokenPipeError):  # something was left to send
                member.communicate()


def time_steps(step: Callable[[], Any], num_steps: int, wait: Callable) -> float:
    """Times so many calls, and a last one of `wait` with what the last call returned.

    Returns:
        Seconds.
    """
    begin = time.perf_counter()
    for _ in range(num_steps):
        result = step()
    wait(result)
    return time.perf_counter() - begin


def peak_memory() -> int:
    """Returns the most memory, in bytes, that this process has ever held."""
    with contextlib.suppress(OSError):
        # Not getrusage, which on Linux starts from what the parent holds.
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def save_dataset(dataset: Dataset, folder: str) -> None:
    """Writes a data set for `load_dataset`, a file for each of its fields."""
    for field in dataclasses.fields(dataset):
        value = np.asarray(getattr(dataset, field.name))
        np.save(Path(folder, f"{field.name}.npy"), value)


def load_dataset(folder: str) -> Dataset:
    """Reads a data set without loading it: its arrays stay in the files."""

    def load(name: str) -> Any:
        array = np.load(Path(folder, f"{name}.npy"), mmap_mode="r")
        return array.tolist() if array.dtype.kind == "U" else array

    fields = {each.name: load(each.name) for each in dataclasses.fields(Dataset)}
    fields["class_names"] = tuple(fields["class_names"])
    return Dataset(**fields)


def serve() -> None:
    """Serves a team until it ends; see `start_team`."""
    # What libraries print is not to come between the messages.
    messages = open(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    try:
        prepare, settings, cores = json.loads(sys.stdin.readline())
        if cores is not None and sys.platform == "linux":
            # Before an import makes as many threads as there are cores.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, cores)
        module, name = prepare.split(":")
        prepared = getattr(importlib.import_module(module), name)(**settings)
        ready = {"compile_seconds": prepared.compile_seconds, "about": prepared.about}
        print(json.dumps(ready), file=messages)
        for line in sys.stdin:
            amount, seconds = prepared.run(json.loads(line))
            turn = Turn(amount, seconds, prepared.peak_bytes())
            print(json.dumps(turn._asdict()), file=messages)
    except Exception as error:
        failure = {"type": type(error).__name__, "error": str(error).partition("\n")[0]}
        with contextlib.suppress(OSError):
            print(json.dumps(failure), file=messages)


def _send(member: subprocess.Popen, message: Any) -> None:
    assert member.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is dead, as will be seen
        member.stdin.write(json.dumps(message) + "\n")
        member.stdin.flush()


def _receive(member: subprocess.Popen) -> dict:
    assert member.stdout is not None
    line = member.stdout.readline()
    if not line:
        raise WorkerError(f"a worker ended, exit code {member.wait()}")
    message = json.loads(line)
    if "error" in message:
        if message["type"] == "UsageError":
            from experiments.cli import UsageError  # which loads JAX

            raise UsageError(message["error"])
        raise WorkerError(f"{message['type']}: {message['error']}")
    return message


if __name__ == "__main__":
    serve()
