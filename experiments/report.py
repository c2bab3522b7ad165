"""One command: the report of a study, made of its stores alone.

python -m experiments.report DIR
"""

import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import datasets, files, page, store, terminal, verdict
from experiments.configs import UsageError, exit_codes, flag, read_flags
from experiments.verdict import Analysis
from sounddrop_jax import statistics

PAGE = "report.html"

DESCRIPTION = """\
Makes the report of a study anew: report.html, a page that needs no other file, and
table.csv and comparisons.csv with its numbers. Several stores of one study are read
together.

  python -m experiments.report studies/claim
  python -m experiments.report part1 part2 --out=whole"""


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The flags of `python -m experiments.report`, their help and their defaults."""

    folders: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        flag("Stores, as experiments.study makes them.", "DIR [DIR ...]"),
    ]
    out: Annotated[
        Path | None, flag("Folder for the report. Default: the first DIR.", "DIR")
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
        analysis = Analysis(store.read(config.folders))
        print(verdict.sentence(analysis))
        print(f"Report: {write(analysis, config.out or config.folders[0])}")


def write(analysis: Analysis, out: Path) -> Path:
    """Writes the page and the tables of a study, each whole or not at all.

    Args:
        analysis: of the study.
        out: the folder, made if need be.

    Returns:
        The page.

    Raises:
        UsageError: if the folder cannot be written.
    """
    comparisons = [*analysis.family, *analysis.secondary]
    texts = {
        "table.csv": _write_csv(analysis.rows),
        "comparisons.csv": _write_csv(map(_flatten, comparisons)),
    }
    try:
        texts[PAGE] = page.build(analysis)
    except Exception as error:  # Matplotlib has many parts, and each may be broken
        texts[PAGE] = page.build(analysis, with_pictures=False)
        terminal.warn(
            f"--out={out}: {PAGE} has no pictures, as one could not be drawn "
            f"({datasets.reason(error)}); experiments.report makes it anew."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for name, text in texts.items():
                temporary = stack.enter_context(files.replacing(out / name))
                temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(
            f"--out={out}: cannot be written ({error.strerror}); name another folder."
        ) from None
    return out / PAGE


def _flatten(comparison: verdict.Comparison) -> dict[str, Any]:
    row = comparison._asdict()
    result = row.pop("result")
    fields = statistics.PairedComparison._fields
    numbers = dict.fromkeys(fields) if result is None else result._asdict()
    if comparison.decision == "secondary":
        numbers["p_value"] = None  # no test was planned
    return row | numbers


def _write_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Writes rows of the same keys; None is empty, a list its items with blanks."""
    file = io.StringIO()
    writer: csv.DictWriter | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
            writer.writeheader()
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return value


if __name__ == "__main__":
    main()
