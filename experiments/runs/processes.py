"""Several processes that train one ensemble, on one machine or on many.

JAX joins them; here is what each of them decides before it trains: how it joins, which
devices it brings, and that it fails as the others do. A single process does as ever.
"""

import contextlib
import hashlib
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from experiments.cli import UsageError
from experiments.training.devices import make_mesh
from sounddrop_jax import ensembles

# How long a process waits for the others. JAX would wait for minutes, and then abort.
JOIN_SECONDS = 50.0
# How much of an error message the other processes are told.
MESSAGE_BYTES = 1000

Result = TypeVar("Result")


def join() -> None:
    """Joins the processes of a run, before anything else asks JAX for a device."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, *numbers = (os.environ.get(name) for name in names)
    for name, number in zip(names[1:], numbers, strict=True):
        if number is not None and not number.isdecimal():
            raise UsageError(f"{name}={number}: give a whole number.")
    num_processes, process_id = (None if n is None else int(n) for n in numbers)
    stop = time.monotonic() + JOIN_SECONDS
    if address is not None:
        _check_address(address, process_id, stop)
    try:
        with _without_proxies(), _leaving(stop):
            jax.distributed.initialize(
                num_processes=num_processes,
                process_id=process_id,
                initialization_timeout=int(2 * JOIN_SECONDS) + 1,  # we are first
            )
    # What JAX and the ways in which it finds a cluster raise has no common base.
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--distributed: no other processes were found ({reason}); start it by "
            "srun, mpirun or on every worker of a TPU pod, or set "
            f"{', '.join(names[:2])} and {names[2]}."
        ) from None


def _check_address(address: str, process_id: int | None, stop: float) -> None:
    """Tries an address given by hand: JAX aborts without a word where one is wrong."""
    what = f"--distributed: JAX_COORDINATOR_ADDRESS={address}: "
    match = re.fullmatch(r"(.+):(\d{1,5})", address)
    if match is None or int(match[2]) > 65_535:
        raise UsageError(f"{what}give HOST:PORT, of the process whose id is 0.")
    host, port = match[1].strip("[]"), int(match[2])
    if process_id == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise UsageError(f"{what}{error}; choose another port.") from None
        return
    while process_id is not None:
        try:
            return socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() > stop:
                raise UsageError(
                    f"{what}cannot be reached ({error}); start process 0 there, and "
                    "let its firewall pass this port."
                ) from None
        time.sleep(0.2)


@contextlib.contextmanager
def _leaving(stop: float) -> Iterator[None]:
    """Ends the process with one line at a time, from within whatever call of JAX."""

    def leave() -> None:
        print(
            f"error: --distributed: not all processes joined within {JOIN_SECONDS:g} "
            "s; start all of them with the same command, and see what the others say.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(max(stop - time.monotonic(), 0), leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _without_proxies() -> Iterator[None]:
    """Hides proxies, which are for the web, from gRPC.

    It would ask them for the first process, in vain and without an end.
    """
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def leave_the_others() -> Iterator[None]:
    """Exits at once if this process fails alone, so that the others fail as well.

    JAX would wait for them at its exit, while they wait for a word from this one.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        # Bad input ends them all, see `together`, and then JAX's exit is the right one.
        if code == 2 or not jax.distributed.is_initialized():
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def is_first() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def together(prepare: Callable[[], Result], num_seeds: int) -> Result:
    """Prepares a run; if that fails in one process, all of them end alike.

    Args:
        prepare: raises UsageError if it fails.
        num_seeds: of the run, see `make_mesh`.

    Returns:
        What `prepare` returns.

    Raises:
        UsageError: in the first process, which speaks for all. The others exit with
            the same code.
    """
    if not jax.distributed.is_initialized():
        return prepare()
    message = ""
    try:
        result = prepare()
    except UsageError as error:
        message = str(error)
    content = message.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
    for row in _exchange(content, num_seeds):
        if text := row.tobytes().rstrip(b"\0").decode(errors="ignore"):
            if jax.process_index() > 0:
                sys.exit(2)
            raise UsageError(text)
    return result


def check_alike(description: Any, num_seeds: int) -> None:
    """Raises for processes that were started with other flags, or found other files.

    Args:
        description: of what they have to have in common, with a repr that tells.
        num_seeds: of the run, see `make_mesh`.

    Raises:
        UsageError: in the first process, as in `together`.
    """

    def compare():
        digests = _exchange(
            hashlib.sha256(repr(description).encode()).digest(), num_seeds
        )
        if (digests != digests[0]).any():
            raise UsageError(
                "--distributed: the processes have different flags or datasets; start "
                "all with the same command, and give them the same files."
            )

    if jax.distributed.is_initialized():
        together(compare, num_seeds)


def _exchange(content: bytes, num_seeds: int) -> np.ndarray:
    mesh = make_mesh(num_seeds) or ensembles.make_mesh()
    # Gloo, which connects CPUs, greets on the process's stdout when it first does.
    stdout = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        return ensembles.exchange(np.frombuffer(content, np.uint8), mesh=mesh)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
