"""Measures what waiting for the disk costs a study: with fsync and without, in turn.

python -m tests.time_durability --pairs=3 PLAN [flags of experiments.study ...]
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from unittest import mock

from experiments import study


def measure(plan: str, flags: list[str], with_sync: bool) -> float:
    """Returns the seconds of a study from its start to its report."""
    sync = os.fsync if with_sync else lambda file: None
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(tempfile.TemporaryDirectory(dir="."))
        arguments = ["study", f"--plan={plan}", f"--out={out}/store", *flags]
        stack.enter_context(mock.patch.object(os, "fsync", sync))
        stack.enter_context(mock.patch.object(sys, "argv", arguments))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        start = time.perf_counter()
        study.main()
        return time.perf_counter() - start


def main() -> None:
    """Prints the seconds of each, and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("plan")
    parser.add_argument("--pairs", type=int, default=3)
    options, flags = parser.parse_known_args()
    measure(options.plan, flags, True)  # compiles
    found: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(options.pairs):
        for with_sync in (pair % 2 == 0, pair % 2 == 1):
            found[with_sync].append(measure(options.plan, flags, with_sync))
    ratios = [a / b for a, b in zip(found[True], found[False], strict=True)]
    for with_sync, name in ((True, "with"), (False, "without")):
        print(f"{name}: {', '.join(f'{each:.2f}' for each in found[with_sync])} s")
    print(f"median of the ratios: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
