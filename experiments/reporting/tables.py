"""The files of a report: the page and two tables."""

import contextlib
import csv
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import files, terminal, words
from experiments.analysis import comparisons, runs
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
    family = [*analysis.family, *analysis.secondary]
    build = functools.partial(page.build, analysis)
    return write_files(out, build, analysis.rows, map(_flatten, family))


def write_files(
    out: Path,
    build: Callable[..., str],
    rows: Iterable[Mapping[str, Any]],
    comparisons: Iterable[Mapping[str, Any]],
) -> Path:
    """Writes a page and its two tables, each whole or not at all.

    Args:
        out: the folder, made if need be.
        build: makes the page, without pictures for `with_pictures=False`.
        rows: of table.csv.
        comparisons: those of comparisons.csv.

    Returns:
        The page.

    Raises:
        UsageError: if the folder cannot be written.
    """
    texts = {
        "table.csv": _write_csv(rows),
        "comparisons.csv": _write_csv(comparisons),
    }
    try:
        texts[PAGE] = build()
    except Exception as error:  # Matplotlib has many parts, and each may be broken
        texts[PAGE] = build(with_pictures=False)
        terminal.warn(
            f"--out={out}: {PAGE} has no pictures, as one could not be drawn "
            f"({words.reason(error)}); experiments.report makes it anew."
        )
    try:
        files.make_folder(out)
        files.remove_leftovers(out, texts)
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
    row = flatten(comparison)
    if comparison.decision == "secondary":
        row["p_value"] = None  # no test was planned
    return row


def flatten(comparison: comparisons.Comparison | runs.Comparison) -> dict[str, Any]:
    """Returns a comparison as a row, with the entries of its result at the end."""
    row = comparison._asdict()
    result = row.pop("result")
    fields = statistics.PairedComparison._fields
    return row | (dict.fromkeys(fields) if result is None else result._asdict())


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
