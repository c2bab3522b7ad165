"""Times whole runs with checkpoints and without, in turn, and prints the ratios.

    python tests/time_checkpoints.py --data-dir=DIR

All runs are of one process and take their compiled programs from one cache. A ratio is
of what a run with checkpoints and its neighbour without took: seconds, compilation left
out, and seconds of work of all cores, which other work on the machine changes less.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from experiments.runs import runner
from experiments.runs.configs import Config
from experiments.training import devices
from experiments.training.trainer import Trainer


def time_run(config: Config, *, are_kept: bool) -> tuple[float, float]:
    """Returns the seconds that a run took, and those of work of all cores."""
    with contextlib.ExitStack() as stack:
        if not are_kept:
            stack.enter_context(mock.patch.object(runner, "Checkpoints"))
            stack.enter_context(mock.patch.object(Trainer, "save_state"))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        start, work = time.perf_counter(), time.process_time()
        result = runner.run(config)
        seconds = time.perf_counter() - start - result["seconds"]["compile"]
        return seconds, time.process_time() - work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="of CIFAR-10; without it, the digits")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    devices.keep_programs()
    devices.share_cores(options.seeds)
    ratios: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, *, are_kept: bool) -> tuple[float, float]:
            config = Config(
                seeds=options.seeds,
                epochs=options.epochs,
                dataset="cifar10" if options.data_dir else "digits",
                data_dir=options.data_dir,
                out=Path(folder, name),
            )
            return time_run(config, are_kept=are_kept)

        run("first", are_kept=True)  # which compiles, and imports
        for pair in range(options.pairs):
            found = {
                are_kept: run(f"{pair} {are_kept}", are_kept=are_kept)
                for are_kept in (pair % 2 == 1, pair % 2 == 0)
            }
            ratios.append(tuple(np.divide(found[True], found[False])))
            print(
                f"pair {pair + 1}: {found[True][0]:.2f} s with, "
                f"{found[False][0]:.2f} s without, ratio {ratios[-1][0]:.3f}, "
                f"of work {ratios[-1][1]:.3f}",
                flush=True,
            )
    print(f"{options.seeds} seeds, {options.epochs} epochs, {jax.devices()[0]}:")
    for what, found in zip(("seconds", "work"), zip(*ratios, strict=True), strict=True):
        print(
            f"{what}: median ratio {statistics.median(found):.3f} "
            f"({min(found):.3f} to {max(found):.3f})"
        )


if __name__ == "__main__":
    main()
