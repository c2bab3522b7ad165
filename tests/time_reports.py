"""Measures a report of many seeds: the most memory that it held, and its seconds.

    python tests/time_reports.py --seeds 1000 10000 --package=/another/checkout

The stores are made up, of three arms that were tested on corrupted images and waves.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(folder: Path, num_seeds: int, with_robustness: bool) -> None:
    from tests import stores

    document = stores.DOCUMENT | {"seeds": num_seeds}
    stores.make_store(
        folder,
        plan_document=document,
        effects={"water": 0.1},
        with_robustness=with_robustness,
    )


def measure(folder: Path, package: Path) -> tuple[float, int]:
    """Returns the seconds of a report, and the most bytes it held."""
    start = time.perf_counter()
    # Where no other report lies, which would be replaced.
    command = [sys.executable, "-m", "experiments.report", folder, f"--out={folder}/x"]
    process = subprocess.Popen(
        command,
        cwd=package,
        env=os.environ | {"PYTHONPATH": str(package)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    scale = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, scale * usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--package", type=Path, default=ROOT, help="whose report")
    parser.add_argument("--plain", action="store_true", help="no corruptions, no waves")
    parser.add_argument("--keep", type=Path, help="where stores stay, and are found")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as temporary:
        for num_seeds in options.seeds:
            kind = "plain" if options.plain else "robust"
            name = f"{num_seeds}-{kind}"
            folder = Path(options.keep or temporary, name).absolute()
            if not folder.exists():
                # In a process of its own: a child's peak starts from what we hold.
                arguments = (folder, num_seeds, not options.plain)
                context = multiprocessing.get_context("spawn")
                builder = context.Process(target=build, args=arguments)
                builder.start()
                builder.join()
                assert builder.exitcode == 0
            seconds, peak = measure(folder, options.package)
            size = (folder / "networks.jsonl").stat().st_size
            print(
                f"{num_seeds} seeds, {kind}, {size / 1e6:,.0f} MB of records: "
                f"{peak / 1e9:.2f} GB, {seconds:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
