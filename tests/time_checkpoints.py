"""Times whole runs with checkpoints and without, in turn, and prints the ratios.

    python tests/time_checkpoints.py --data-dir=DIR

All runs are of one process and take their compiled programs from one cache. A ratio is
of the seconds that a run with checkpoints and its neighbour without took, compilation
left out. Give it a machine that does nothing else.
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

from experiments import caches, checkpoints, cifar, processes, training
from experiments.configs import Config


class NoCheckpoints:
    """Stands where `checkpoints.Checkpoints` does, and does nothing."""

    def __init__(self, out: Path):
        pass

    def save(self, number: int, checkpoint: checkpoints.Checkpoint) -> None:
        pass

    def close(self) -> None:
        pass


def time_run(config: Config, *, are_kept: bool) -> float:
    with contextlib.ExitStack() as stack:
        if not are_kept:
            stack.enter_context(mock.patch.object(cifar, "Checkpoints", NoCheckpoints))
            stack.enter_context(
                mock.patch.object(training.Trainer, "save_state", lambda self: {})
            )
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        start = time.perf_counter()
        result = cifar.run(config)
        return time.perf_counter() - start - result["seconds"]["compile"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="of CIFAR-10; without it, the digits")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    caches.keep_programs()
    processes.share_cores(options.seeds)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, *, are_kept: bool) -> float:
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
            order = [True, False] if pair % 2 else [False, True]
            seconds = {
                are_kept: run(f"{pair} {are_kept}", are_kept=are_kept)
                for are_kept in order
            }
            ratios.append(seconds[True] / seconds[False])
            print(
                f"pair {pair + 1}: {seconds[True]:.2f} s with, {seconds[False]:.2f} s "
                f"without, ratio {ratios[-1]:.3f}",
                flush=True,
            )
    print(
        f"{options.seeds} seeds, {options.epochs} epochs, {jax.devices()[0]}: median "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
