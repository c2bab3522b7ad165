"""How long one step of `experiments.cifar` takes, from its start to its end."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import files
from experiments.benchmarks.workers import WorkerError
from experiments.runs import outputs


def time_first_step(flags: Sequence[str]) -> dict[str, dict]:
    """Starts `experiments.cifar` for one step, and again with what that has kept.

    Args:
        flags: of it.

    Returns:
        For "cold" and "warm" the seconds from its start to its end, which include the
        data set and one evaluation, and those that it says it compiled for.

    Raises:
        WorkerError: if it fails.
    """
    times = {}
    environment = os.environ.copy()
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would be used instead
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            out = Path(folder, name)
            command = [sys.executable, "-m", "experiments.cifar", *flags]
            command += ["--epochs=1", "--steps-per-epoch=1", f"--out={out}"]
            begin = time.perf_counter()
            done = subprocess.run(
                command,
                cwd=Path(__file__).parents[2],
                env=environment | {"XDG_CACHE_HOME": str(Path(folder, "caches"))},
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - begin
            if done.returncode != 0:
                lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
                raise WorkerError(f"experiments.cifar failed, {lines[-1]}")
            says = json.loads(files.read(out / outputs.RESULT))["seconds"]
            times[name] = {"seconds": seconds, "compile_seconds": says["compile"]}
    return times
