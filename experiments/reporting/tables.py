"""The files of a report: the page and two tables."""

import contextlib
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import files, terminal, words
from experiments.analysis import comparisons
from experiments.analysis.comparisons import Analysis
from experiments.cli import UsageError
from experiments.reporting import page
from sounddrop_jax import statistics

PAGE = "report.html"


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
            f"({words.reason(error)}); experiments.report makes it anew."
        )
    try:
        files.make_folder(out)
        with contextlib.ExitStack() as stack:
            for name, text in texts.items():
                temporary = stack.enter_context(files.replacing(out / name))
                temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(
            f"--out={out}: cannot be written ({error.strerror}); name another folder."
        ) from None
    return out / PAGE


def _flatten(comparison: comparisons.Comparison) -> dict[str, Any]:
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
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"  # which a spreadsheet would compute
    return value
