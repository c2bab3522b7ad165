"""What memory networks take and what there is, asked before anything is allocated."""

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.cli import UsageError
from experiments.training.steps import Functions


def check_seeds(functions: Functions, first_seed: int, num_seeds: int) -> None:
    """Raises for more networks than the memory of this machine can hold, on a CPU.

    Raises:
        UsageError: says how many fit.
    """
    free = free_memory()
    if jax.default_backend() != "cpu" or free is None:
        return
    own = -(-num_seeds // jax.process_count())
    size = network_bytes(functions)
    if own * size > free:
        fitting = free // size * jax.process_count()
        if not fitting:
            raise UsageError(
                f"--seeds={num_seeds}: one network needs {size / 1e9:.1f} GB of "
                f"memory, and {free / 1e9:.1f} GB are free; free some, or raise the "
                "limit."
            )
        raise UsageError(
            f"--seeds={num_seeds}: they need {own * size / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free; give at most --seeds={fitting}, and the "
            f"others in a folder of their own, from --seed={first_seed + fitting} on."
        )


def network_bytes(functions: Functions) -> int:
    """Returns what a network takes at least, from shapes alone.

    That is its state and the order of its images, and beside them a checkpoint's copy
    of the state or, later, the test logits.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(functions.init, key)
    order = jax.eval_shape(functions.shuffle, key, 0)
    logits = jax.eval_shape(functions.evaluate, state, functions.constants)
    own = _num_bytes(state)
    return own + _num_bytes(order) + max(own, _num_bytes(logits))


def _num_bytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def free_memory() -> int | None:
    """Returns how many bytes this process can still get; None where Linux is not."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    if sys.platform != "linux":
        return
    import resource

    free = _read_sizes("/proc/meminfo")
    if "MemAvailable" in free:
        yield free["MemAvailable"] + free.get("SwapFree", 0)
    held = _read_sizes("/proc/self/status")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield max(soft - held.get("VmSize", 0), 0)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            number, _, name = line.split(":", 2)
            if number == "0":  # the second version
                own = Path("/sys/fs/cgroup", name.lstrip("/"))
                for folder in (own, *own.parents):
                    with contextlib.suppress(OSError, ValueError):  # "max" is no number
                        most = int((folder / "memory.max").read_text("utf-8"))
                        yield max(most - held.get("VmRSS", 0), 0)


def _read_sizes(path: str) -> dict[str, int]:
    """Reads lines such as "VmRSS:   123 kB", in bytes."""
    with contextlib.suppress(OSError):
        lines = Path(path).read_text("utf-8").splitlines()
        words = [line.split() for line in lines if line.endswith(" kB")]
        return {each[0].rstrip(":"): 1024 * int(each[1]) for each in words}
    return {}
