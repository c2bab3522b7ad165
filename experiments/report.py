"""One command: the report of a study, made of its stores alone, or one of runs.

python -m experiments.report DIR [DIR ...]
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments import terminal
from experiments.analysis import runs, verdict
from experiments.analysis.comparisons import Analysis
from experiments.cli import UsageError, exit_codes, flag, read_flags, run_command
from experiments.reporting import runs as reporting_runs
from experiments.reporting.tables import write
from experiments.studies import store
from experiments.words import printable

DESCRIPTION = """\
Makes the report of a study anew: report.html, a page that needs no other file, and
table.csv and comparisons.csv with its numbers. Several stores of one study are read
together. Of runs of experiments.cifar it makes a page that compares them with the first
one, seed by seed.

  python -m experiments.report studies/claim
  python -m experiments.report part1 part2 --out=whole
  python -m experiments.report runs/none runs/water"""


# A folder of its own, so that nothing in the run changes.
COMPARISON = "comparison"


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The flags of `python -m experiments.report`, their help and their defaults."""

    folders: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        flag(
            "Stores, as experiments.study makes them, or runs of experiments.cifar.",
            "DIR [DIR ...]",
        ),
    ]
    out: Annotated[
        Path | None,
        flag(
            "Folder for the report. Default: the first DIR; for runs, the folder "
            f"{COMPARISON} in it.",
            "DIR",
        ),
    ] = None


@terminal.sheltered()
def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    with exit_codes(interrupted="no report was written."):
        config = read_flags(
            ReportConfig,
            prog="python -m experiments.report",
            description=DESCRIPTION,
            args=terminal.arguments(),
        )
        if not config.folders:
            raise UsageError("DIR is missing: name the folder of a store, or several.")
        first = config.folders[0]
        if runs.hold_runs(config.folders):
            compared = runs.read(config.folders)
            print(printable(runs.sentence(compared)))
            page = reporting_runs.write(compared, config.out or first / COMPARISON)
        else:
            analysis = Analysis(store.read(config.folders))
            print(printable(verdict.sentence(analysis)))
            page = write(analysis, config.out or first)
        print(printable(f"Report: {page}"))


if __name__ == "__main__":
    run_command(main)
